"""Test properties of losses with random scores, rows and weights."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from oracle import KINK_DISTANCE, LOSSES, WAYS, kink_distances

import fastloss
from fastloss import CrammerSinger, Hinge, OneVsAll, Softmax

pytestmark = pytest.mark.parametrize("backend", WAYS)


def each_loss(*kinds: type[fastloss.Loss]):
    chosen = {name: loss for name, loss in LOSSES.items() if isinstance(loss, kinds or object)}
    return pytest.mark.parametrize("loss", chosen.values(), ids=chosen)


@st.composite
def rows_of_scores(draw):
    """Draw scores (N, C), multiples of 1/64 so that sums and ties are exact, and labels (N,)."""
    n_rows, n_classes = draw(st.integers(1, 6)), draw(st.integers(2, 7))
    size = n_rows * n_classes
    numbers = draw(st.lists(st.integers(-640, 640), min_size=size, max_size=size))
    labels = draw(st.lists(st.integers(0, n_classes - 1), min_size=n_rows, max_size=n_rows))
    return np.array(numbers, float).reshape(n_rows, n_classes) / 64, np.array(labels)


@st.composite
def problems(draw, bias=None):
    """Draw arguments of `loss_and_grad`: W, X, y and options."""
    n_rows, n_features = draw(st.integers(1, 40)), draw(st.integers(1, 6))
    n_classes = draw(st.integers(2, 5))
    has_bias = draw(st.booleans()) if bias is None else bias
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return {
        "W": rng.standard_normal((n_features + has_bias, n_classes)),
        "X": rng.standard_normal((n_rows, n_features)),
        "y": rng.integers(0, n_classes, n_rows),
        "intercept": has_bias,
        "l1": draw(st.sampled_from([0.0, 0.25])),
        "l2": draw(st.sampled_from([0.0, 0.5])),
        "sample_weight": rng.uniform(0.1, 3.0, n_rows),
    }


def close(actual, expected, tolerance=1e-11):
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance)


# --- scores --------------------------------------------------------------------------------------


@each_loss(Softmax, Hinge, CrammerSinger)
@given(case=rows_of_scores(), shift=st.integers(-(2**20), 2**20))
def test_shift_of_all_scores_changes_nothing(case, shift, loss, backend):
    scores, labels = case
    losses, gradients = fastloss.score_gradient(scores, labels, loss=loss, backend=backend)
    shifted = fastloss.score_gradient(scores + shift, labels, loss=loss, backend=backend)
    close(shifted[0], losses)
    close(shifted[1], gradients)
    # Each gradient therefore sums to 0.
    close(gradients.sum(axis=1), 0.0)


@each_loss()
@given(case=rows_of_scores(), data=st.data())
def test_renamed_classes_permute_the_gradient(case, data, loss, backend):
    scores, labels = case
    new = np.array(data.draw(st.permutations(range(scores.shape[1]))))
    renamed = np.empty_like(scores)
    renamed[:, new] = scores
    losses, gradients = fastloss.score_gradient(scores, labels, loss=loss, backend=backend)
    actual = fastloss.score_gradient(renamed, new[labels], loss=loss, backend=backend)
    close(actual[0], losses)
    if isinstance(loss, CrammerSinger):  # ties go to the lowest class
        assume(np.all(kink_distances(loss, scores, labels) > 0))
    close(actual[1][:, new], gradients)


@each_loss()
@given(case=rows_of_scores(), other=st.integers(0, 2**32 - 1))
def test_never_negative_and_convex(case, other, loss, backend):
    scores, labels = case
    end = scores + np.random.default_rng(other).standard_normal(scores.shape) * 4

    def at(place):
        return fastloss.score_gradient(place, labels, loss=loss, backend=backend)

    (losses, gradients), (losses_end, _) = at(scores), at(end)
    middle = at((scores + end) / 2)[0]
    for numbers in (losses, losses_end, middle):
        assert np.all(numbers >= 0)
    assert np.all(middle <= (losses + losses_end) / 2 + 1e-9)
    # A subgradient: the tangent stays below.
    slope = np.sum(gradients * (end - scores), axis=1)
    assert np.all(losses + slope <= losses_end + 1e-9)


@each_loss(Softmax)
@given(case=rows_of_scores())
def test_softmax_gradient_is_probability_minus_target(case, loss, backend):
    scores, labels = case
    gradients = fastloss.score_gradient(scores, labels, loss=loss, backend=backend)[1]
    target = np.full(scores.shape, loss.label_smoothing / scores.shape[1])
    target[np.arange(len(labels)), labels] += 1 - loss.label_smoothing
    probabilities = gradients + target
    assert np.all((probabilities >= -1e-15) & (probabilities <= 1 + 1e-15))
    # Ordered as the scores are.
    order = np.argsort(scores, axis=1)
    assert np.all(np.diff(np.take_along_axis(probabilities, order, 1), axis=1) >= -1e-15)


# --- W -------------------------------------------------------------------------------------------


@each_loss()
@given(problem=problems(), seed=st.integers(0, 2**32 - 1))
def test_directional_derivative(problem, seed, loss, backend):
    W, X, y = problem["W"], problem["X"], problem["y"]
    direction = np.random.default_rng(seed).standard_normal(W.shape)
    step = 1e-5 * direction
    bias = W[-1] if problem["intercept"] else 0.0
    distances = kink_distances(loss, X @ W[: X.shape[1]] + bias, y)
    assume(np.all(distances > KINK_DISTANCE / 2))
    if problem["l1"]:
        assume(np.all(np.abs(W) > np.abs(step)))

    def total(weights):
        return fastloss.loss_and_grad(**{**problem, "W": weights}, loss=loss, backend=backend)[0]

    dW = fastloss.loss_and_grad(**problem, loss=loss, backend=backend)[1]
    numerical = (total(W + step) - total(W - step)) / 2e-5
    np.testing.assert_allclose(numerical, np.sum(dW * direction), rtol=1e-6, atol=1e-7)


@each_loss()
@given(problem=problems(), seed=st.integers(0, 2**32 - 1))
def test_order_of_rows_changes_nothing(problem, seed, loss, backend):
    order = np.random.default_rng(seed).permutation(len(problem["y"]))
    moved = {name: problem[name][order] for name in ("X", "y", "sample_weight")}
    expected = fastloss.loss_and_grad(**problem, loss=loss, backend=backend)
    actual = fastloss.loss_and_grad(**{**problem, **moved}, loss=loss, backend=backend)
    close(actual[0], expected[0])
    close(actual[1], expected[1])


@each_loss()
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@given(problem=problems(), seed=st.integers(0, 2**32 - 1))
def test_weight_2_equals_the_row_twice(problem, seed, reduction, loss, backend):
    times = np.random.default_rng(seed).integers(0, 3, len(problem["y"]))
    assume(times.any())
    twice = {name: np.repeat(problem[name], times, axis=0) for name in ("X", "y")}
    options = {"loss": loss, "backend": backend, "reduction": reduction}
    weighted = fastloss.loss_and_grad(**{**problem, "sample_weight": times}, **options)
    repeated = fastloss.loss_and_grad(**{**problem, **twice, "sample_weight": None}, **options)
    close(weighted[0], repeated[0])
    close(weighted[1], repeated[1])


@each_loss()
@given(problem=problems())
def test_sum_equals_mean_times_weight(problem, loss, backend):
    problem = {**problem, "l1": 0.0, "l2": 0.0}
    mean = fastloss.loss_and_grad(**problem, loss=loss, backend=backend)
    total = fastloss.loss_and_grad(**problem, loss=loss, backend=backend, reduction="sum")
    weight = problem["sample_weight"].sum()
    close(total[0], mean[0] * weight)
    close(total[1], mean[1] * weight)


@each_loss()
@given(problem=problems(), size=st.integers(1, 40))
def test_weighted_batches_sum_to_the_whole(problem, size, loss, backend):
    W = problem["W"]
    rest = {name: value for name, value in problem.items() if name != "W"}
    whole = fastloss.Objective(**rest, loss=loss, backend=backend)
    n_rows = len(rest["y"])
    rows = [slice(start, start + size) for start in range(0, n_rows, size)]
    shares = [rest["sample_weight"][some].sum() / rest["sample_weight"].sum() for some in rows]
    results = [whole.batch(some)(W) for some in rows]
    expected = whole(W)
    close(sum(share * loss for share, (loss, _) in zip(shares, results, strict=True)), expected[0])
    close(sum(share * dW for share, (_, dW) in zip(shares, results, strict=True)), expected[1])


@each_loss(Softmax, Hinge, CrammerSinger, OneVsAll)
@given(problem=problems(bias=True))
def test_intercept_equals_a_column_of_ones(problem, loss, backend):
    problem = {**problem, "l1": 0.0, "l2": 0.0}
    ones = np.ones((len(problem["y"]), 1))
    explicit = {"X": np.hstack([problem["X"], ones]), "intercept": False}
    actual = fastloss.loss_and_grad(**problem, loss=loss, backend=backend)
    expected = fastloss.loss_and_grad(**{**problem, **explicit}, loss=loss, backend=backend)
    close(actual[0], expected[0])
    close(actual[1], expected[1])

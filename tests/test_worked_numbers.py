"""Test the numbers of CS231n's lesson on losses, which a student can work out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from oracle import BACKENDS

import fastloss
from fastloss import CrammerSinger, Hinge, Softmax

CAT, CAR, FROG = [3.2, 5.1, -1.7], [1.3, 4.9, 2.0], [2.2, 2.5, -3.1]
LESSON = np.array([CAT, CAR, FROG])
LABELS = np.array([0, 1, 2])

pytestmark = pytest.mark.parametrize("backend", BACKENDS)


def losses_of(scores, labels, loss, backend):
    return fastloss.score_gradient(scores, labels, loss=loss, backend=backend)[0]


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (Hinge(), [2.9, 0, 12.9]),
        (Hinge(power=2), [8.41, 0, 83.25]),
        (Hinge(include_true_class=True), [3.9, 1, 13.9]),
        (Hinge(class_reduction="mean"), [1.45, 0, 6.45]),  # two wrong classes
        (CrammerSinger(), [2.9, 0, 6.6]),
    ],
    ids=repr,
)
def test_cat_car_frog(loss, expected, backend):
    np.testing.assert_allclose(
        losses_of(LESSON, LABELS, loss, backend), expected, rtol=1e-12, atol=1e-14
    )


@pytest.mark.parametrize(
    ("loss", "mean"), [("hinge", 5.27), (Hinge(include_true_class=True), 6.27)], ids=str
)
def test_mean_of_three_rows(loss, mean, backend):
    total, _ = fastloss.loss_and_grad(np.eye(3), LESSON, LABELS, loss, backend=backend)
    np.testing.assert_allclose(total, mean, atol=0.005)


def test_true_class_and_mean_over_classes_keep_the_minimiser(backend):
    """The gradient is the same, or scaled by 1 / (C - 1)."""

    def gradient(loss):
        return fastloss.score_gradient(LESSON, LABELS, loss=loss, backend=backend)[1]

    np.testing.assert_array_equal(gradient(Hinge(include_true_class=True)), gradient(Hinge()))
    np.testing.assert_allclose(gradient(Hinge(class_reduction="mean")), gradient(Hinge()) / 2)


def test_margin_10(backend):
    np.testing.assert_allclose(losses_of([[13.0, -7, 11]], [0], Hinge(margin=10), backend), [8])


def test_softmax_of_the_cat(backend):
    loss = losses_of([CAT], [0], "softmax", backend)
    np.testing.assert_allclose(loss, [2.04], atol=0.005)
    np.testing.assert_allclose(np.exp(-loss), [0.13], atol=0.005)


@pytest.mark.parametrize(("label", "loss"), [(0, 666), (1, 333), (2, 0)])
def test_scores_too_large_for_exp(label, loss, backend):
    """exp(789) overflows; shifted by the maximum the scores are -666, -333, 0."""
    scores = [[123.0, 456, 789]]
    losses, dscores = fastloss.score_gradient(scores, [label], loss="softmax", backend=backend)
    np.testing.assert_allclose(losses, [loss], rtol=1e-14, atol=1e-140)
    np.testing.assert_allclose(dscores[0], np.eye(3)[2] - np.eye(3)[label], atol=1e-140)


@pytest.mark.parametrize(
    ("scores", "probabilities"),
    [([1, -2, 0], [0.71, 0.04, 0.26]), ([0.5, -1, 0], [0.55, 0.12, 0.33])],
)
def test_weaker_scores_give_more_even_probabilities(scores, probabilities, backend):
    dscores = fastloss.score_gradient([np.array(scores, float)], [0], backend=backend)[1]
    np.testing.assert_allclose(dscores[0] + [1, 0, 0], probabilities, atol=0.0075)


def test_hinge_is_local_softmax_is_not(backend):
    rows = np.array([[10.0, -2, 3], [10, 9, 9], [10, -100, -100]])
    np.testing.assert_array_equal(losses_of(rows, [0] * 3, "hinge", backend), 0)
    softmax = losses_of(rows, [0] * 3, "softmax", backend)
    assert softmax[1] > 100 * softmax[0] > 100 * 100 * softmax[2] > 0


def test_small_changes_of_winning_scores_keep_hinge_zero(backend):
    changes = np.random.default_rng(0).uniform(-0.5, 0.5, (50, 3))
    np.testing.assert_array_equal(losses_of(CAR + changes, [1] * 50, "hinge", backend), 0)


@pytest.mark.parametrize("n_classes", [2, 10, 130])
@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        ("hinge", lambda C: C - 1),
        ("squared_hinge", lambda C: C - 1),
        ("crammer_singer", lambda C: 1),
        ("one_vs_all", lambda C: C),
        ("softmax", np.log),
        (Softmax(label_smoothing=0.1), np.log),
    ],
    ids=["hinge", "squared_hinge", "crammer_singer", "one_vs_all", "softmax", "smoothed"],
)
def test_loss_at_zero_scores(loss, expected, n_classes, backend):
    """All scores are about 0, as in the sanity check before training."""
    rng = np.random.default_rng(0)
    X, y = rng.uniform(0, 1, (8, 6)), rng.integers(0, n_classes, 8)
    W = rng.standard_normal((6, n_classes)) * 1e-9
    total, _ = fastloss.loss_and_grad(W, X, y, loss, backend=backend)
    np.testing.assert_allclose(total, expected(n_classes), rtol=1e-7)


def test_scaled_W_keeps_hinge_zero(backend):
    W = np.eye(3) * 2
    for scale in (1, 2, 10):
        total, dW = fastloss.loss_and_grad(scale * W, np.eye(3), LABELS, "hinge", backend=backend)
        np.testing.assert_array_equal(total, 0)
        np.testing.assert_array_equal(dW, 0)


@pytest.mark.parametrize(
    ("penalty", "concentrated", "spread"), [("l2", 1.0, 0.25), ("l1", 1.0, 1.0)]
)
def test_l2_prefers_spread_weights(penalty, concentrated, spread, backend):
    x = np.ones((1, 4))
    objective = fastloss.Objective(x, [0], loss="softmax", backend=backend, **{penalty: 1.0})
    # The other class has weights of 0, so the penalty is that of one column.
    one = np.column_stack([[1.0, 0, 0, 0], np.zeros(4)])
    even = np.column_stack([[0.25] * 4, np.zeros(4)])
    np.testing.assert_array_equal(x @ one, x @ even)
    (loss_one, penalty_one), (loss_even, penalty_even) = objective.terms(one), objective.terms(even)
    np.testing.assert_allclose(loss_one, loss_even, rtol=1e-14)
    np.testing.assert_allclose([penalty_one, penalty_even], [concentrated, spread], rtol=1e-14)

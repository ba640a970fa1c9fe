"""Tests of the learning rates that methods compute from the rows."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

import fastloss
from fastloss import Hinge, OneVsAll, optim
from fastloss.optim.learning_rate import (
    ADAM_RATE,
    OTHER_RATE,
    adam_rate,
    gradient_rate,
    loss_curvature,
)

N, D, C = 400, 30, 4
LOSSES = (*fastloss.available_losses(), Hinge(class_reduction="mean"), OneVsAll(power=2))
METHODS = {
    "gradient_descent": optim.GradientDescent(),
    "momentum": optim.GradientDescent(momentum=0.9),
    "line_search": optim.GradientDescent(line_search=True),
    "sgd": optim.SGD(batch_size=32),
    "sgd_momentum": optim.SGD(batch_size=8, momentum=0.9),
    "adam": optim.Adam(batch_size=32),
}
pixels = fastloss.data.synthetic(N, D, C, dtype=np.uint8)
spread = fastloss.data.synthetic(N, D, C, dtype=np.float64)
ROWS = {
    "pixels": pixels.X,
    "1e-3": 1e-3 * spread.X,
    "1e6": 1e6 * spread.X,
    "of many sizes": spread.X * 10.0 ** (np.arange(D) % 4),
}


def objective(X, **options):
    return fastloss.Objective(X, pixels.y, **options)


def largest_eigenvalue(f: fastloss.Objective) -> float:
    X = np.hstack([f.X.astype(float), np.ones((len(f.X), int(f.intercept)))])
    return float(np.linalg.eigvalsh((X.T * f.row_weights) @ X)[-1])


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("X", ROWS.values(), ids=ROWS)
def test_default_rates_learn_from_rows_of_any_size(X, name):
    for loss in LOSSES:
        f = objective(X, loss=loss)
        result = optim.minimize(f, np.zeros((D, C)), METHODS[name], max_evaluations=30)
        losses = result.history.column("loss")
        # While all scores are equal, all rows push down the same class of this loss.
        most = 1.1 if loss == "crammer_singer" else 0.99
        assert losses[-1] < most * losses[0], loss
        # Losses without kinks never rise.
        if name == "gradient_descent" and loss in ("softmax", "squared_hinge"):
            assert (np.diff(losses) <= 1e-12 * losses[0]).all()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"intercept": True},
        {"l2": 1e4},
        {"reduction": "sum"},
        {"sample_weight": np.linspace(0.0, 3.0, N)},
        {"class_weight": "balanced", "ignore_index": 2},
    ],
    ids=lambda options: " ".join(options) or "plain",
)
def test_rate_is_one_over_the_curvature(options):
    f = objective(pixels.X, **options)
    expected = 1 / (0.5 * largest_eigenvalue(f) + 2 * f.penalty.l2)
    assert gradient_rate(f, C, None) == pytest.approx(expected, rel=0.05)
    rows = np.hstack([pixels.X.astype(float), np.ones((N, int(f.intercept)))])
    of_batch = float(f.row_weights @ np.square(rows).sum(axis=1)) / 7
    assert gradient_rate(f, C, 7.0) == pytest.approx(1 / (1 / expected + of_batch), rel=0.05)


def test_momentum_counts_as_a_smaller_batch():
    f = objective(spread.X)
    rates = [
        optim.minimize(f, np.zeros((D, C)), method, max_steps=1).history[-1].learning_rate
        for method in (optim.SGD(batch_size=2), optim.SGD(batch_size=20, momentum=0.9))
    ]
    assert rates == [gradient_rate(f, C, 2.0)] * 2


@pytest.mark.parametrize(
    "loss",
    [fastloss.Softmax(), Hinge(power=2), Hinge(power=2, class_reduction="mean"), OneVsAll(power=2)],
    ids=str,
)
def test_curvature_of_losses_bounds_the_change_of_gradients(loss):
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(500, C))
    steps = rng.normal(size=(500, C))
    steps /= np.linalg.norm(steps, axis=1, keepdims=True)
    labels = np.arange(500) % C
    gradients = [loss.vectorized(s, labels)[1] for s in (scores, scores + steps)]
    changes = np.linalg.norm(gradients[1] - gradients[0], axis=1)
    assert 0.5 < changes.max() / loss_curvature(loss, C) < 1 + 1e-9


def test_rate_of_adam_limits_the_change_of_scores():
    large = objective(pixels.X)
    scores = np.abs(pixels.X.astype(float)).sum(axis=1) + 1
    assert 0.5 < adam_rate(large) * scores.mean() <= 1.0
    small = objective(spread.X / 20)
    assert adam_rate(small) == pytest.approx(ADAM_RATE * 20 / spread.X.std(), rel=0.1)
    assert adam_rate(objective(spread.X)) == pytest.approx(ADAM_RATE, rel=0.2)


def test_functions_without_rows_have_fixed_rates():
    def bowl(W):
        return float(W @ W), 2 * W

    rates = [
        optim.minimize(bowl, np.ones(3), method, max_steps=1).history[-1].learning_rate
        for method in ("gradient_descent", optim.Adam(batch_size=None))
    ]
    assert rates == [OTHER_RATE, ADAM_RATE] == [0.1, 1e-3]


def test_rows_without_a_curvature_get_a_fixed_rate():
    for X in (np.zeros((N, D)), np.full((N, D), np.nan), np.full((N, D), 1e300)):
        f = objective(X, intercept=False)
        assert gradient_rate(f, C, None) == gradient_rate(f, C, 5.0) == OTHER_RATE
        assert adam_rate(f) == ADAM_RATE
    nothing = objective(spread.X, sample_weight=np.zeros(N), reduction="sum")
    assert gradient_rate(nothing, C, None) == OTHER_RATE


def test_default_rate_is_kept_in_a_checkpoint(tmp_path):
    W, path = np.zeros((D, C)), tmp_path / "run.npz"
    f = objective(pixels.X)
    whole = optim.minimize(f, W, "sgd", max_steps=8)
    optim.minimize(f, W, "sgd", max_steps=3, checkpoint=path)
    resumed = optim.minimize(f, W, "sgd", max_steps=8, checkpoint=path, resume=True)
    np.testing.assert_array_equal(resumed.W, whole.W)
    with pytest.raises(ValueError, match="another run: method SGD"):
        optim.minimize(f, W, optim.SGD(lr=0.1), checkpoint=path, resume=True)


def test_divergence_says_how_to_find_a_rate():
    with pytest.raises(optim.DivergedError, match=r"lower lr, omit it .* or scale X") as caught:
        optim.minimize(objective(pixels.X), np.zeros((D, C)), optim.SGD(lr=0.1))
    assert "the learning rate was 0.1:" in str(caught.value)


def test_divergence_names_the_rate_that_was_passed():
    method = optim.SGD(lr=0.1, schedule=optim.Warmup(epochs=1))
    with pytest.raises(optim.DivergedError, match=r"was .* \(from lr=0.1\): lower lr") as caught:
        optim.minimize(objective(pixels.X), np.zeros((D, C)), method)
    assert pickle.loads(pickle.dumps(caught.value)).lr == 0.1

"""Test that rows of weight 0 are skipped, and that the scale of weights does not matter."""

from __future__ import annotations

import numpy as np
import pytest

import fastloss
from fastloss import optim, slices

X = np.random.default_rng(0).standard_normal((9, 4))
W = np.random.default_rng(1).standard_normal((5, 3))
y = np.arange(9) % 3
OUT = np.array([2, 7])
KEPT = np.setdiff1d(np.arange(9), OUT)

padded = X.copy()
padded[OUT] = np.nan, np.inf, -np.inf, np.nan
other = y.copy()
other[OUT] = -5, 2**40
weights = np.ones(9)
weights[OUT] = 0.0

each_backend = pytest.mark.parametrize("backend", fastloss.available_backends())


def check(actual, expected):
    assert actual[0] == pytest.approx(expected[0], rel=1e-12)
    np.testing.assert_allclose(actual[1], expected[1], rtol=1e-10, atol=1e-14)


@each_backend
@pytest.mark.parametrize("loss", ["softmax", "hinge"])
@pytest.mark.parametrize("class_weight", [None, "balanced", {1: 3.0}])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_rows_of_weight_zero_are_skipped(backend, loss, class_weight, reduction):
    options = {"loss": loss, "intercept": True, "backend": backend}
    options |= {"class_weight": class_weight, "reduction": reduction}
    actual = fastloss.loss_and_grad(W, padded, other, sample_weight=weights, **options)
    check(actual, fastloss.loss_and_grad(W, X[KEPT], y[KEPT], **options))


@each_backend
def test_class_of_weight_zero_may_have_infinite_scores(backend):
    excluded = W.copy()
    excluded[-1, 0] = -np.inf
    options = {"intercept": True, "backend": backend}
    actual = fastloss.loss_and_grad(excluded, X, y, class_weight={0: 0.0}, **options)
    check(actual, fastloss.loss_and_grad(excluded, X[y != 0], y[y != 0], **options))


def test_rows_of_weight_zero_in_users_of_objectives():
    made = {"intercept": True, "backend": "numpy", "l2": 0.1}
    objective = fastloss.Objective(padded, other, sample_weight=weights, **made)
    kept = fastloss.Objective(X[KEPT], y[KEPT], **made)
    assert objective.terms(W) == pytest.approx(kept.terms(W))
    assert optim.accuracy(objective, W) == optim.accuracy(kept, W)
    check(objective.batch(slice(0, 5))(W), kept.batch(slice(0, 4))(W))
    # Seven rows have a weight, so a batch of three stands for 7 / 3 as many rows.
    check(
        objective.minibatch(3, 7)(np.array([0, 1, 3]), W), kept.minibatch(3)(np.array([0, 1, 2]), W)
    )
    check((0.0, slices.line(objective, W, W, [0.0, 1.0])), (0, slices.line(kept, W, W, [0.0, 1.0])))
    for method in ("per_element", "incremental"):
        gradients = [fastloss.numerical_gradient(f, W, method=method) for f in (objective, kept)]
        np.testing.assert_allclose(*gradients, rtol=1e-6)
    assert fastloss.check_gradient(objective, W).passed
    steps = optim.SGD(lr=0.1, batch_size=3, shuffle=False)
    ends = [optim.minimize(f, np.zeros((5, 3)), steps, max_steps=4).W for f in (objective, kept)]
    np.testing.assert_allclose(*ends, rtol=1e-10)


@each_backend
@pytest.mark.parametrize("scale", [1e-320, 1e-310, 1e-30, 1e30, 1e308])
@pytest.mark.parametrize("kind", ["sample", "class", "both"])
def test_mean_is_independent_of_the_scale_of_weights(backend, scale, kind):
    ways = {"sample_weight": np.full(9, scale), "class_weight": dict.fromkeys(range(3), scale)}
    for name in {"sample": ["class_weight"], "class": ["sample_weight"], "both": []}[kind]:
        del ways[name]
    actual = fastloss.loss_and_grad(W, X, y, intercept=True, backend=backend, **ways)
    check(actual, fastloss.loss_and_grad(W, X, y, intercept=True, backend=backend))


def test_tiny_weights_beside_zeros_count():
    tiny = np.zeros(9)
    tiny[3:6] = 1e-320
    actual = fastloss.loss_and_grad(W, X, y, intercept=True, sample_weight=tiny, backend="numpy")
    check(actual, fastloss.loss_and_grad(W, X[3:6], y[3:6], intercept=True, backend="numpy"))


def test_weights_too_large_for_a_sum_raise():
    huge = np.full(9, 1e200)
    with pytest.raises(ValueError, match=r"sample_weight\[0\] \* class_weight\[y\[0\]\] is too"):
        fastloss.Objective(X, y, sample_weight=huge, class_weight={0: 1e200}, reduction="sum")
    single = fastloss.Objective(X.astype("f4"), y, sample_weight=huge, reduction="sum")
    with pytest.raises(ValueError, match=r"the weight of row 0, 1e.200, is too large for float32"):
        single(W[:4].astype("f4"))


def test_huge_labels_and_keys_need_little_memory():
    huge = 2**40
    options = {"backend": "numpy", "ignore_index": huge}
    labels = np.array([0, 1, huge])
    for class_weight in ("balanced", {0: 1.0, huge: 2.0}):
        loss, _ = fastloss.loss_and_grad(
            np.zeros((3, 3)), np.eye(3), labels, class_weight=class_weight, **options
        )
        assert loss == pytest.approx(np.log(3))
        with pytest.raises(ValueError, match=rf"y\[2\] = {huge} is not in \[0, 3\)"):
            fastloss.loss_and_grad(np.zeros((3, 3)), np.eye(3), labels, class_weight=class_weight)

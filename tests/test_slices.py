"""Compare losses on lines and planes with the objective, and test errors of shapes."""

from __future__ import annotations

import numpy as np
import pytest

import fastloss
from fastloss import slices


@pytest.mark.parametrize("loss", fastloss.available_losses())
@pytest.mark.parametrize("intercept", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"l1": 0.1, "l2": 0.2},
        {"sample_weight": np.arange(1100.0), "ignore_index": 2, "reduction": "sum"},
        {"class_weight": "balanced"},
    ],
    ids=["plain", "penalty", "weights", "balanced"],
)
def test_values_equal_the_objective(loss, intercept, options):
    rows = fastloss.data.synthetic(1100, 5, 4, dtype=np.float64)
    objective = fastloss.Objective(
        rows.X, rows.y, loss=loss, intercept=intercept, backend="numpy", **options
    )
    W, W1, W2 = np.random.default_rng(0).standard_normal((3, 5 + intercept, 4))
    a, b = np.array([-1.0, 0.0, 0.5]), np.array([0.0, 2.0])
    found = slices.plane(objective, W, W1, W2, a, b)
    expected = [[objective.loss(W + i * W1 + j * W2) for j in b] for i in a]
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    np.testing.assert_allclose(slices.line(objective, W, W1, a), found[:, 0], rtol=1e-13)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_values_are_float64_for_all_dtypes(dtype):
    X = np.random.default_rng(0).integers(0, 256, (50, 6)).astype(dtype)
    y = np.arange(50) % 3
    W, W1 = np.random.default_rng(1).standard_normal((2, 6, 3)).astype(np.float32) * 0.01
    found = slices.line(fastloss.Objective(X, y), W, W1, [0.0, 1e-6])
    exact = fastloss.Objective(X.astype(float), y, backend="numpy")
    W, W1 = W.astype(float), W1.astype(float)
    np.testing.assert_allclose(found, [exact.loss(W), exact.loss(W + 1e-6 * W1)], rtol=1e-13)


def test_random_direction_has_the_norms_of_the_weights():
    W = np.random.default_rng(0).standard_normal((30, 4)).astype(np.float32) * [1, 2, 0, 100]
    W = W.astype(np.float32)
    direction = slices.random_direction(W, seed=3)
    assert direction.dtype == np.float32
    np.testing.assert_allclose(
        np.linalg.norm(direction, axis=0), np.linalg.norm(W, axis=0), rtol=1e-6
    )
    np.testing.assert_array_equal(direction, slices.random_direction(W, seed=3))
    assert np.abs(direction - slices.random_direction(W, seed=4)).max() > 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"W": np.zeros((4, 3))}, r"W must have 5 rows .*, got shape \(4, 3\)"),
        ({"W1": np.zeros(5)}, r"W1 must have 5 rows .*, got shape \(5,\)"),
        ({"W1": np.zeros((5, 4))}, r"W1 must have the shape of W, \(5, 3\), got \(5, 4\)"),
        ({"W": np.zeros((5, 2)), "W1": np.zeros((5, 2))}, r"y\[2\] = 2 is not in \[0, 2\)"),
        ({"a": np.zeros((2, 2))}, r"a must have one dimension, got shape \(2, 2\)"),
    ],
)
def test_mismatched_shapes_raise(change, message):
    objective = fastloss.Objective(np.zeros((6, 5)), np.arange(6) % 3)
    arguments = {"W": np.zeros((5, 3)), "W1": np.zeros((5, 3)), "a": [0.0]} | change
    with pytest.raises(ValueError, match=message):
        slices.line(objective, **arguments)

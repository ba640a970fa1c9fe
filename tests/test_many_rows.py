"""Test that sums over millions of rows keep their precision.

All rows are views of one row, so they cost no memory. Rounding errors of equal terms have one sign,
so a plain running sum in float32 would have a far larger error than with random terms.
"""

from __future__ import annotations

import numpy as np
import pytest

import fastloss

N_ROWS = 3_000_001
BACKENDS = [name for name in fastloss.available_backends() if name != "naive"]


@pytest.mark.parametrize("weight", [None, 0.3])
@pytest.mark.parametrize("n_classes", [2, 10])
@pytest.mark.parametrize("backend", BACKENDS)
def test_constant_features_and_bias_in_float32(backend, n_classes, weight):
    check(backend, np.array([1.0, 0.3, 0.7]), n_classes, N_ROWS, weight)


@pytest.mark.parametrize("n_features", [2, 50])  # too few for the matrix unit, and enough
def test_blocks_of_many_classes_in_float32(n_features):
    backend = "fused" if "fused" in BACKENDS else "numpy"
    check(backend, np.linspace(0.3, 1.0, n_features), 100, 300_001, None)


def check(backend, row, n_classes, n_rows, weight):
    """Compare with the exact result at W = 0; 30 % of the rows have class 1, the others 0."""
    X = np.broadcast_to(row.astype(np.float32), (n_rows, len(row)))
    y = np.zeros(n_rows, np.int64)
    y[: n_rows * 3 // 10] = 1
    weights = None if weight is None else np.broadcast_to(np.array(weight), n_rows)
    W = np.zeros((len(row) + 1, n_classes), np.float32)
    loss, dW = fastloss.loss_and_grad(
        W, X, y, intercept=True, sample_weight=weights, backend=backend
    )
    dscores = np.full(n_classes, 1.0 / n_classes)
    dscores[:2] -= np.bincount(y) / n_rows
    expected = np.outer(np.append(X[0].astype(np.float64), 1.0), dscores)
    assert loss == pytest.approx(np.log(n_classes), rel=1e-13 if backend != "numpy" else 1e-7)
    np.testing.assert_allclose(dW, expected, rtol=0, atol=1e-5 * np.abs(expected).max())

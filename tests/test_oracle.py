"""Compare extreme rows with 50-digit arithmetic."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
from oracle import DEFINITIONS, LOSSES, TOLERANCES, WAYS, assert_close, exact_row, make_data

import fastloss

TINY = 2.0**-30  # a float64 step at scores near 1e4 is 2**-39, a float32 step 2**-10

ROWS = {
    "ordinary": [3.2, 5.1, -1.7],
    "two classes": [0.3, -0.4],
    "all zeros": [0.0, 0.0, 0.0, 0.0],
    "negative zeros": [-0.0, 0.0, -0.0],
    "ties at the top": [2.0, 5.0, 5.0, 1.0],
    "all equal and large": [1e4, 1e4, 1e4],
    "near 1e4": [1e4, 1e4 - 1, 1e4 + 2.5, 1e4 - 7],
    "near -1e4": [-1e4, -1e4 - 1, -1e4 + 2.5, -1e4 - 7],
    "near 1e4, close": [1e4 + 2.0**-9, 1e4, 1e4 - 2.0**-9],
    "far apart": [1e4, -1e4, 0.0],
    "confident": [40.0, 0.0, 0.0],
    "very confident": [700.0, 0.0, -700.0],
    "confident by little": [20.0, 19.0, -3.0],
    "others below one ulp": [36.8, 0.0, 0.0, 0.0],
    "the lecture's overflow": [123.0, 456.0, 789.0],
    "tiny": [1e-30, -1e-30, 0.0],
    "nearly tied": [1.0, 1.0 + TINY, 1.0 - TINY],
    "many classes": list(np.linspace(-3, 3, 130)),
}


@pytest.mark.one_in(5)
@pytest.mark.parametrize("backend", WAYS)
@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_rows(row, dtype, loss, backend):
    scores = np.array([row] * min(len(row), 5), dtype)
    labels = np.arange(len(scores))
    losses, gradients = fastloss.score_gradient(scores, labels, loss=loss, backend=backend)
    assert losses.dtype == gradients.dtype == dtype
    loss_tolerance, gradient_tolerance = TOLERANCES[dtype]
    smallest = float(np.finfo(dtype).tiny)
    for label in labels:
        value, gradient = exact_row(loss, tuple(scores[label].tolist()), int(label))
        # Below the smallest normal number there are fewer digits, down to none.
        np.testing.assert_allclose(losses[label], value, rtol=loss_tolerance, atol=smallest)
        tolerance = gradient_tolerance * np.abs(gradient).max() + smallest
        np.testing.assert_allclose(gradients[label], gradient, rtol=0, atol=tolerance)


@pytest.mark.parametrize("backend", WAYS)
def test_probabilities_of_losers_keep_their_digits(backend):
    """Compare each probability relative to itself, even if far below the largest gradient."""
    scores = np.array([[0.0, 30.0, -300.0]])
    gradient = fastloss.score_gradient(scores, [1], loss="softmax", backend=backend)[1][0]
    exact = exact_row(fastloss.Softmax(), tuple(scores[0]), 1)[1]
    np.testing.assert_allclose(gradient, exact, rtol=1e-13)


@pytest.mark.parametrize("backend", WAYS)
@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
def test_penalties_bias_and_weights_to_50_digits(loss, dtype, backend):
    """Compute the exact result with every product in 50 digits."""
    data = make_data(6, 4, 3, dtype, dtype, intercept=True)
    sample_weight = np.array([1.0, 0.5, 2.0, 0.0, 0.25, 3.0])
    l1, l2 = 0.25, 0.125
    with mpmath.workdps(50):
        X = mpmath.matrix(np.hstack([data.X, np.ones((6, 1))]).tolist())
        W = mpmath.matrix(data.W.tolist())
        total, dW = mpmath.mpf(0), mpmath.zeros(5, 3)
        for i in range(6):
            scores = list(X[i, :] * W)
            value, gradient = DEFINITIONS[type(loss)](
                loss, scores, int(data.y[i]), mpmath.exp, mpmath.log
            )
            weight = mpmath.mpf(sample_weight[i]) / mpmath.mpf(sample_weight.sum())
            total += weight * value
            dW += weight * X[i, :].T * mpmath.matrix([gradient])
        for d in range(4):  # not the bias
            for c in range(3):
                total += l1 * abs(W[d, c]) + l2 * W[d, c] ** 2
                dW[d, c] += l1 * mpmath.sign(W[d, c]) + 2 * l2 * W[d, c]
        exact = float(total), np.array(dW.tolist(), np.float64)
    actual = fastloss.loss_and_grad(
        data.W,
        data.X,
        data.y,
        loss,
        intercept=True,
        sample_weight=sample_weight,
        l1=l1,
        l2=l2,
        backend=backend,
    )
    assert_close(actual, exact, dtype)


@pytest.mark.parametrize("backend", WAYS)
def test_loss_is_summed_in_float64(backend):
    """In a float32 sum, the large loss would absorb each small one."""
    X = np.ones((64, 1), np.float32)
    X[0] = 2.0**30
    W = np.array([[0.0, 1.0]], np.float32)
    y = np.zeros(64, int)
    total, _ = fastloss.loss_and_grad(W, X, y, "hinge", reduction="sum", backend=backend)
    # Only the margin of 1 of the large row is lost, in its own float32 score.
    np.testing.assert_allclose(total, 2.0**30 + 63 * 2, rtol=0, atol=1)

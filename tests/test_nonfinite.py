"""Test one table of NaN and infinite scores for every loss x backend x dtype."""

from __future__ import annotations

import math

import numpy as np
import pytest
from oracle import LOSSES, TOLERANCES, WAYS, assert_close, make_data

import fastloss
from fastloss import CrammerSinger, Hinge, OneVsAll, Softmax

NAN, INF = math.nan, math.inf

pytestmark = pytest.mark.parametrize("backend", WAYS)


def each_loss(*kinds: type[fastloss.Loss], but: str = ""):
    """Parametrise over all losses, or over those of some kinds, except ``but``."""
    chosen = {name: loss for name, loss in LOSSES.items() if isinstance(loss, kinds or object)}
    chosen.pop(but, None)
    return pytest.mark.parametrize("loss", chosen.values(), ids=chosen)


each_type = pytest.mark.parametrize("dtype", TOLERANCES, ids=str)

#: The label is 0. The result is a NaN loss with a gradient of NaN, a loss of +inf, or a finite
#: loss. A score of -inf excludes a class; +inf is an error of the caller.
CASES = {
    "NaN, wrong class": ([1.0, NAN, 2.0], "nan"),
    "NaN, true class": ([NAN, 1.0, 2.0], "nan"),
    "NaN, last class": ([1.0, 2.0, NAN], "nan"),
    "NaN, all": ([NAN, NAN, NAN], "nan"),
    "+inf, wrong class": ([1.0, INF, 2.0], "nan"),
    "+inf, true class": ([INF, 1.0, 2.0], "nan"),
    "+inf, all": ([INF, INF, INF], "nan"),
    "+inf and -inf": ([0.0, INF, -INF], "nan"),
    "+inf true, -inf wrong": ([INF, -INF, 0.0], "nan"),
    "+inf wrong, -inf true": ([-INF, INF, 0.0], "nan"),
    "NaN and -inf": ([0.0, NAN, -INF], "nan"),
    "NaN and +inf": ([0.0, NAN, INF], "nan"),
    "-inf, wrong class": ([1.0, -INF, 2.5], "excluded"),
    "-inf, first wrong class of a win": ([9.0, -INF, 2.5], "excluded"),
    "-inf, all wrong classes": ([1.0, -INF, -INF], "excluded"),
    "-inf, true class": ([-INF, 1.0, 2.0], "true class excluded"),
    "-inf, true and a wrong class": ([-INF, 1.0, -INF], "true and wrong class excluded"),
    "-inf, all": ([-INF, -INF, -INF], "all excluded"),
}


def outcome(case: str, loss: fastloss.Loss) -> str:
    """Return the expected kind of loss: "nan", "inf" or "finite"."""
    if case == "nan":
        return "nan"
    if case == "excluded":
        # The uniform target includes the excluded class.
        return "inf" if isinstance(loss, Softmax) and loss.label_smoothing else "finite"
    if case == "true class excluded" or isinstance(loss, OneVsAll):
        return "inf"
    # A margin of -inf - -inf; but the strongest rival's is 1 - -inf.
    if isinstance(loss, Hinge) or case == "all excluded":
        return "nan"
    return "inf"


def classify(number: float) -> str:
    return "nan" if math.isnan(number) else "inf" if number == INF else "finite"


@pytest.mark.one_in(5)
@each_type
@each_loss()
@pytest.mark.parametrize(("row", "case"), CASES.values(), ids=CASES)
def test_table(row, case, dtype, loss, backend):
    # The row must not change its two ordinary neighbours.
    scores = np.array([[1.0, 2.0, 0.5], row, [0.5, -1.0, 0.25]], dtype)
    labels = np.array([1, 0, 2])
    losses, gradients = fastloss.score_gradient(scores, labels, loss=loss, backend=backend)
    assert classify(losses[1]) == outcome(case, loss)
    if np.isnan(losses[1]):
        np.testing.assert_array_equal(gradients[1], np.nan)
    else:
        excluded = np.isneginf(row) & (labels[1] != np.arange(3))
        smoothing = getattr(loss, "label_smoothing", 0.0)
        np.testing.assert_allclose(gradients[1][excluded], -smoothing / 3, rtol=1e-6)
    clean = fastloss.score_gradient(scores[::2], labels[::2], loss=loss, backend=backend)
    np.testing.assert_array_equal(losses[::2], clean[0])
    np.testing.assert_array_equal(gradients[::2], clean[1])
    # The numbers, not only their kinds, must equal the naive backend's.
    expected = fastloss.score_gradient(scores, labels, loss=loss, backend="naive")
    for actual, naive in zip((losses, gradients), expected, strict=True):
        np.testing.assert_allclose(actual, naive, rtol=10 * TOLERANCES[dtype][1], atol=1e-6)


@each_type
@each_loss(Hinge, CrammerSinger, OneVsAll)
def test_excluded_class_equals_absent_class(dtype, loss, backend):
    with_it = np.array([[1.0, -np.inf, 2.5, 0.25]], dtype)
    without = with_it[:, [0, 2, 3]]
    losses, gradient = fastloss.score_gradient(with_it, [0], loss=loss, backend=backend)
    expected, fewer = fastloss.score_gradient(without, [0], loss=loss, backend=backend)
    # A mean over classes counts the excluded class among its terms.
    mean = getattr(loss, "class_reduction", "sum") == "mean"
    terms = 3 + loss.include_true_class if mean else 1
    scale = (terms - 1) / terms if mean else 1.0
    tolerance = TOLERANCES[np.dtype(dtype)][1]
    np.testing.assert_allclose(losses, expected * scale, rtol=tolerance)
    np.testing.assert_allclose(gradient[:, [0, 2, 3]], fewer * scale, rtol=tolerance)


@pytest.mark.one_in(3)
@each_type
@each_loss()
@pytest.mark.parametrize("number", [NAN, INF], ids=str)
@pytest.mark.parametrize("where", ["X", "W", "bias"])
def test_nonfinite_X_or_W_gives_nan(where, number, dtype, loss, backend):
    data = make_data(11, 5, 3, dtype, dtype, intercept=True)
    # Positive, so that +inf in X is a score of +inf, and none of -inf.
    W, X = np.abs(data.W), data.X.copy()
    if where == "X":
        X[7, 2] = number
    else:
        W[-1 if where == "bias" else 2, 1] = number
    total, dW = fastloss.loss_and_grad(W, X, data.y, loss, intercept=True, backend=backend)
    assert math.isnan(total)
    assert np.isnan(dW).any()


@each_type
@each_loss(but="softmax_smoothed")  # its uniform target includes every class
def test_class_excluded_by_its_bias_has_no_gradient(dtype, loss, backend):
    """Rows that pad a tile have infinite scores too; these must not be multiplied by 0."""
    data = make_data(303, 5, 3, dtype, dtype, intercept=True)
    W, y = data.W.copy(), np.where(data.y == 1, 2, data.y)
    W[-1, 1] = -np.inf
    total, dW = fastloss.loss_and_grad(W, data.X, y, loss, intercept=True, backend=backend)
    assert math.isfinite(total)
    np.testing.assert_array_equal(dW[:, 1], 0.0)
    expected = fastloss.loss_and_grad(W, data.X, y, loss, intercept=True, backend="naive")
    assert np.isfinite(expected[1]).all()
    # Labels were changed, so a row may be at a kink, where float32 may take another side.
    np.testing.assert_allclose(dW, expected[1], atol=1e-2)


@each_type
@each_loss()
def test_ignored_row_of_nan_does_not_count(dtype, loss, backend):
    data = make_data(11, 5, 3, dtype, dtype)
    X, y = data.X.copy(), data.y.copy()
    X[[0, 6, 10]], y[[0, 6, 10]] = np.nan, 77
    ignoring = fastloss.loss_and_grad(data.W, X, y, loss, ignore_index=77, backend=backend)
    kept = y != 77
    expected = fastloss.loss_and_grad(data.W, X[kept], y[kept], loss, backend=backend)
    assert_close(ignoring, expected, dtype)


@each_loss(Hinge, CrammerSinger, OneVsAll)
def test_zero_margin_has_no_gradient(loss, backend):
    others = -loss.margin if isinstance(loss, OneVsAll) else 0.0
    scores = np.array([[loss.margin, others, others]])
    losses, gradient = fastloss.score_gradient(scores, [0], loss=loss, backend=backend)
    constant = fastloss.score_gradient([[99.0, -99.0, -99.0]], [0], loss=loss, backend="naive")[0]
    np.testing.assert_array_equal(losses, constant)
    np.testing.assert_array_equal(gradient, 0.0)


@each_type
def test_zero_margin_in_the_dtype_of_the_scores(dtype, backend):
    """0.7 is 0.69999999 in float32; a lead of that number equals the margin."""
    if backend == "naive" and dtype == np.float32:
        pytest.skip("computes in float64 whatever the type")
    wins = np.array([[0.7, 0.0, 0.0]], dtype)
    for loss in (Hinge(margin=0.7), CrammerSinger(margin=0.7), Hinge(margin=0.7, power=2)):
        losses, gradient = fastloss.score_gradient(wins, [0], loss=loss, backend=backend)
        np.testing.assert_array_equal(losses, 0.0)
        np.testing.assert_array_equal(gradient, 0.0)
    own = np.array([[0.7, -0.7, -0.7]], dtype)
    gradient = fastloss.score_gradient(own, [0], loss=OneVsAll(0.7), backend=backend)[1]
    np.testing.assert_array_equal(gradient, 0.0)


@each_loss(CrammerSinger)
def test_ties_between_rivals_go_to_the_lowest_class(loss, backend):
    scores = np.array([[1.0, 1.0, 1.0, 1.0], [0.0, 2.0, 3.0, 3.0], [0.5, 0.0, 0.5, 0.5]])
    gradient = fastloss.score_gradient(scores, [0, 1, 2], loss=loss, backend=backend)[1]
    expected = np.array([[-1.0, 1, 0, 0], [0, -1, 1, 0], [1, 0, -1, 0]])
    np.testing.assert_array_equal(gradient, expected)


@each_type
@each_loss()
def test_finite_scores_that_overflow(dtype, loss, backend):
    """Differences of half the largest number stay finite; their squares are +inf, never NaN."""
    big = np.finfo(dtype).max / 4
    scores = np.array([[-big, big, 0.0]], dtype)
    losses, gradient = fastloss.score_gradient(scores, [0], loss=loss, backend=backend)
    assert classify(losses[0]) == ("inf" if getattr(loss, "power", 1) == 2 else "finite")
    assert not np.isnan(gradient).any()

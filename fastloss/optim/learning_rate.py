"""Compute a learning rate from the rows, for methods whose ``lr`` is None.

Between two points, the gradient of a loss changes by at most L times their distance. A step along
the gradient of length 1 / L times the gradient's then never raises the loss (Nesterov, *Lectures on
Convex Optimization*, 2018, section 1.2.3). For a linear classifier::

    L = S h (q + 2 m / B) + 2 l2

``S`` is the sum of the row weights, ``h`` the largest second derivative of a row's loss in its
scores, ``q`` the largest eigenvalue of the mean of ``x x^T``, and ``m`` the mean of ``|x|^2``. Both
means are weighted. A batch of ``B`` rows adds ``m / B`` once because its own eigenvalue may be as
much larger, and once to halve the noise of its steps. Momentum repeats the step of a batch
``1 / (1 - momentum)`` times, as if ``B`` were smaller.

`training.settings.fill_in` has another rule. It knows the schedule and the number of epochs, and
was tuned for accuracy on new rows. The rule here estimates steps that do not raise the loss.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastloss.arrays import ieee_arithmetic
from fastloss.base_objective import BaseObjective
from fastloss.losses.base import Loss
from fastloss.losses.crammer_singer import CrammerSinger
from fastloss.losses.hinge import Hinge
from fastloss.losses.one_vs_all import OneVsAll
from fastloss.losses.softmax import Softmax
from fastloss.threads import blas_threads

#: The rate of Adam's authors, and a common rate of the other methods, for functions without rows.
ADAM_RATE, OTHER_RATE = 1e-3, 0.1

# A sample has 2,000 to 4,000 of many rows. It has fewer, but at least 100, to stay below 128 MB.
_MOST_ROWS, _LEAST_ROWS, _MOST_NUMBERS = 2000, 100, 2**23
_POWER_ITERATIONS = 30


@ieee_arithmetic()
def gradient_rate(objective: BaseObjective, n_classes: int, n_averaged: float | None) -> float:
    """Return ``1 / L`` for steps along the gradient of all rows (None), or of ``B`` rows."""
    rows = _rows_of(objective)
    spread = curvature(rows)
    if n_averaged is not None:
        spread += 2.0 * _squared_length(rows) / n_averaged
    spread *= loss_curvature(objective.loss_function, n_classes)
    bound = objective.weight_sum * spread + 2.0 * objective.penalty.l2
    rate = 1.0 / bound if bound > 0.0 else math.inf
    # Without a usable bound (all features are 0, or NaN) the run itself reports the reason.
    return two_digits(rate) if 0.0 < rate < math.inf else OTHER_RATE


@ieee_arithmetic()
def adam_rate(objective: BaseObjective) -> float:
    """Return 1e-3, up to 0.1 for features smaller than 1, or less so that scores change slowly.

    Adam changes each weight by about the rate, so the score of a row changes by at most the rate
    times ``sum_d |x_d|``. For a row of mean squared length, that is at most ``D r``, where ``r`` is
    the root-mean-square feature. No step should change a typical row's score by more than about
    one.
    """
    rows = _rows_of(objective)
    n_features = rows.shape[1]
    size = math.sqrt(_squared_length(rows) / n_features)
    if not 0.0 < size < math.inf:
        return ADAM_RATE
    rates = OTHER_RATE, ADAM_RATE * max(1.0, 1.0 / size), 1.0 / (n_features * size)
    return two_digits(min(rates))


def two_digits(value: float) -> float:
    """Round to two significant digits, which are easy to quote and to start a search from."""
    return float(f"{value:.1e}")


def loss_curvature(loss: Loss, n_classes: int) -> float:
    """Return ``h``: the largest eigenvalue of the second derivative of a loss in the scores.

    A loss with kinks has no second derivative; a quarter of the squared loss's learned fast in
    trials on pixels and tables. An unknown loss gets the squared hinge's, the largest.
    """
    power, n_terms = 2, float(n_classes)
    match loss:
        case Softmax():
            return 0.5
        case CrammerSinger():
            power, n_terms = 1, 2.0
        case OneVsAll():
            power, n_terms = loss.power, 1.0
        case Hinge():
            power = loss.power
            if loss.class_reduction == "mean":
                n_terms = n_classes / (n_classes - 1.0)
    return n_terms * (0.5 if power == 1 else 2.0)


def sample_of(X: NDArray[Any], intercept: bool) -> NDArray[np.float64]:
    """Return a sample of the rows in float64, with the 1 of an intercept."""
    return with_ones(X[_spaced(*X.shape)], intercept)


def with_ones(X: NDArray[Any], intercept: bool) -> NDArray[np.float64]:
    """Return rows (K, D) in float64, with a column of ones if there is an intercept."""
    rows = np.ones((len(X), X.shape[1] + intercept))
    rows[:, : X.shape[1]] = X
    return rows


def _spaced(n_rows: int, n_features: int) -> slice:
    """Return places of 2,000 to 4,000 of many rows; fewer, but at least 100, of long rows."""
    most = min(_MOST_ROWS, max(_LEAST_ROWS, _MOST_NUMBERS // n_features))
    return slice(None, None, max(1, n_rows // most))


def _rows_of(objective: BaseObjective) -> NDArray[np.float64]:
    """Return a sample of the rows that count, times the roots of their weights (mean 1)."""
    counted = objective.counted_rows()
    if not counted.size:
        return np.zeros((1, objective.n_parameter_rows))
    chosen, weights = objective.weighted_rows(counted[_spaced(len(counted), objective.shape[1])])
    sample = with_ones(chosen, objective.intercept)
    sample *= np.sqrt(weights / weights.mean())[:, None]
    return sample


def _squared_length(rows: NDArray[np.float64]) -> float:
    return float(np.square(rows).sum()) / len(rows)


def curvature(rows: NDArray[np.float64]) -> float:
    """Estimate the largest eigenvalue of the mean of ``x x^T`` over rows, by power iteration.

    BLAS runs on one thread, so that the result does not depend on the number of threads.
    """
    # Random, because rows may be orthogonal to any direction chosen by hand.
    direction = np.random.default_rng(0).random((rows.shape[1],))
    with blas_threads(1):
        for _ in range(_POWER_ITERATIONS):
            direction /= np.linalg.norm(direction)
            direction = rows.T @ (rows @ direction) / len(rows)
    return float(np.linalg.norm(direction))

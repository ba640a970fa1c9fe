"""The multiclass SVM hinge loss of Weston and Watkins.

The loss of a row with scores ``s`` (C,) and label ``y``, as in Stanford CS231n, lecture 3, and its
gradient::

    L_i       = sum_{j != y} max(0, s_j - s_y + 1)
    dL_i/ds_j = 1 where s_j - s_y + 1 > 0, else 0          for j != y
    dL_i/ds_y = -(the number of these 1s)

In plain Python, for the lecture's image of a cat, with scores for cat, car and frog:

>>> s, y = [3.2, 5.1, -1.7], 0
>>> loss, gradient = 0.0, [0, 0, 0]
>>> for j in range(3):
...     if j != y and s[j] - s[y] + 1 > 0:
...         loss += s[j] - s[y] + 1
...         gradient[j] += 1
...         gradient[y] -= 1
>>> round(loss, 1), gradient
(2.9, [-1, 1, 0])

Robustness: where ``s_j - s_y + 1`` is exactly 0 the loss has a kink, and the forms below take the
slope 0. A NaN counts as a violation, so that it is not lost.

Options: a margin ``d`` instead of 1, and a power ``p``; ``p = 2`` is the squared hinge::

    m_j       = s_j - s_y + d                                  for j != y
    L_i       = sum_{j != y} max(0, m_j)^p
    dL_i/ds_j = p m_j^(p - 1) where m_j > 0, else 0            for j != y
    dL_i/ds_y = -sum_{j != y} dL_i/ds_j

Counting the true class as well adds the constant ``d^p``; the mean over classes divides by the
number of terms (C - 1, or C with the true class). Neither moves the minimiser.

J. Weston and C. Watkins, *Support vector machines for multi-class pattern recognition*, 1999.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from fastloss.arrays import SKIP, as_bool, as_choice, as_real, convert
from fastloss.losses.base import (
    Labels,
    Loss,
    Scores,
    as_power,
    put_labelled,
    take_labelled,
)
from fastloss.losses.jit import njit, prange
from fastloss.losses.rows import (
    BLOCK_ROWS,
    ROWS_AT_ONCE,
    add_block,
    add_rows,
    all_below_infinity,
    finish_row,
    score_rows,
)


@dataclass(frozen=True)
class Hinge(Loss):
    """Multiclass SVM (Weston-Watkins) hinge loss, linear or squared.

    Parameters
    ----------
    margin : float >= 0, the lead that the true class needs over each other class.
    power : 1 for the hinge, 2 for the squared hinge.
    include_true_class : bool, whether the sum includes the true class, which adds a constant.
    class_reduction : "sum" or "mean" over the classes.

    Examples
    --------
    >>> import fastloss
    >>> losses, dscores = fastloss.score_gradient([[3.2, 5.1, -1.7]], [0], loss=fastloss.Hinge())
    >>> losses.round(1), dscores
    (array([2.9]), array([[-1.,  1.,  0.]]))
    """

    name: ClassVar[str] = "hinge"
    order: ClassVar[int] = 1

    margin: float = 1.0
    power: int = 1
    include_true_class: bool = False
    class_reduction: Literal["sum", "mean"] = "sum"

    def __post_init__(self) -> None:
        convert(self, "margin", as_real)
        convert(self, "power", as_power)
        convert(self, "include_true_class", as_bool)
        convert(self, "class_reduction", as_choice, choices=("sum", "mean"))

    @property
    def parameters(self) -> tuple[float, ...]:
        mean = self.class_reduction == "mean"
        return (self.margin, float(self.power), float(self.include_true_class), float(mean))

    @property
    def _constant(self) -> float:
        return self.margin**self.power if self.include_true_class else 0.0

    def _n_terms(self, n_classes: int) -> int:
        return n_classes - 1 + self.include_true_class if self.class_reduction == "mean" else 1

    def naive(self, scores: list[float], label: int) -> tuple[float, list[float]]:
        n_terms = self._n_terms(len(scores))
        loss = self._constant / n_terms
        gradient = [0.0] * len(scores)
        for j in range(len(scores)):
            margin = scores[j] - scores[label] + self.margin
            # Not `margin > 0`, which would drop a NaN.
            if j != label and not margin <= 0:
                # Multiply: Python's ** raises OverflowError where IEEE arithmetic gives inf.
                loss += (margin if self.power == 1 else margin * margin) / n_terms
                gradient[j] = (1.0 if self.power == 1 else 2.0 * margin) / n_terms
                gradient[label] -= gradient[j]
        return loss, gradient

    def vectorized(self, scores: Scores, labels: Labels) -> tuple[Scores, Scores]:
        violations = np.maximum(_margins(scores, labels, self.margin), 0.0)
        if self.power == 1:
            losses = violations.sum(axis=1)
            gradient = np.sign(violations, out=violations)
        else:
            losses = np.square(violations).sum(axis=1)
            gradient = np.multiply(violations, 2.0, out=violations)
        gradient[np.arange(len(scores)), labels] = -gradient.sum(axis=1)
        losses += self._constant
        if self.class_reduction == "mean":
            n_terms = self._n_terms(scores.shape[1])
            losses /= n_terms
            gradient /= n_terms
        return losses, gradient

    def pieces(self, scores: Scores, labels: Labels) -> NDArray[np.bool_]:
        return _margins(scores, labels, self.margin) > 0

    def column_losses(
        self, scores: Scores, labels: Labels, column: int
    ) -> Callable[[Scores], Scores]:
        n_terms = self._n_terms(scores.shape[1])
        violations = np.maximum(_margins(scores, labels, self.margin), 0.0) ** self.power
        fixed = self._constant + np.delete(violations, column, axis=1).sum(axis=1)
        correct = scores[np.arange(len(scores)), labels]
        # All margins of a row labelled `column` change: O(C), for one row in C on average.
        is_label = np.flatnonzero(labels == column)
        wrong = np.delete(scores[is_label], column, axis=1) + self.margin

        def losses(values: Scores) -> Scores:
            total = fixed + np.maximum(values - correct + self.margin, 0.0) ** self.power
            own = np.maximum(wrong - values[is_label, None], 0.0) ** self.power
            total[is_label] = self._constant + own.sum(axis=1)
            return np.asarray(total / n_terms)

        return losses


def _margins(scores: Scores, labels: Labels, delta: float) -> Scores:
    """Return the margins (N, C), with -inf for the true class so that it never counts."""
    rows = np.arange(len(scores))
    margins = scores - scores[rows, labels, None]
    margins += delta
    margins[rows, labels] = -np.inf
    return margins


# --- Compiled forms: the same steps for numba (row, parallel) and for fused (block) ---------------


@njit
def hinge_row(scores, label, parameters):
    """Return the loss of one row, and overwrite its ``scores`` (C,) with their gradient."""
    delta, power, include_true_class, mean_over_classes = parameters
    n_terms = len(scores) - 1.0 + include_true_class if mean_over_classes else 1.0
    loss = include_true_class * delta**power / n_terms
    # Use the dtype of the scores, so that a margin is 0 exactly where it is 0 in NumPy.
    zero, typed_delta = scores.dtype.type(0), scores.dtype.type(delta)
    correct = scores[label]
    slope_sum = 0.0
    for j in range(len(scores)):
        margin = scores[j] - correct + typed_delta
        scores[j] = zero
        if j != label and not margin <= zero:
            loss += (margin if power == 1.0 else margin * margin) / n_terms
            slope = (1.0 if power == 1.0 else 2.0 * margin) / n_terms
            scores[j] = slope
            slope_sum += slope
    scores[label] = -slope_sum
    return loss


@njit(parallel=True)
def hinge_parallel(X, W_T, labels, weights, parameters, chunks, losses, partials):
    """Evaluate chunks of rows in parallel, in one pass over ``X``; each chunk has its own sums."""
    for k in prange(len(chunks)):
        scores = np.empty((ROWS_AT_ONCE, len(W_T)), W_T.dtype)
        sums = np.zeros(partials.shape[1:], W_T.dtype)
        for block in range(chunks[k, 0], chunks[k, 1], BLOCK_ROWS):
            block_loss, end = 0.0, min(block + BLOCK_ROWS, chunks[k, 1])
            for start in range(block, end, ROWS_AT_ONCE):
                rows = slice(start, min(start + ROWS_AT_ONCE, end))
                score_rows(X[rows], W_T, scores)
                for i in range(rows.start, rows.stop):
                    if labels[i] != SKIP:
                        row = scores[i - start]
                        is_valid = all_below_infinity(row)
                        loss = hinge_row(row, labels[i], parameters)
                        weight = weights[i] if len(weights) > 0 else 1.0
                        block_loss += finish_row(row, loss, is_valid, weight)
                add_rows(X[rows], labels[rows], scores, sums)
            losses[k] += block_loss
            add_block(sums, partials[k])


def hinge_block(scores: Any, labels: Any, parameters: tuple[float, ...], losses: Any) -> None:
    """Write the losses of R rows, and overwrite ``scores`` (C, R) with their gradients."""
    margin, power, include_true_class, mean_over_classes = parameters
    n_classes, n_rows = scores.shape
    n_terms = n_classes - 1.0 + include_true_class if mean_over_classes != 0.0 else 1.0
    share = scores.dtype.type(1.0 / n_terms)
    # Use the dtype of the scores, so that a margin is 0 exactly where it is 0 in NumPy.
    delta = scores.dtype.type(margin)
    zero, one = scores.dtype.type(0), scores.dtype.type(1)
    correct = np.empty(n_rows, scores.dtype)
    take_labelled(scores, labels, correct)
    losses[:] = include_true_class * margin**power
    slope_sum = np.zeros(n_rows)
    for j in range(n_classes):
        row = scores[j]
        for r in range(n_rows):
            m = row[r] - correct[r] + delta
            is_counted = j != labels[r] and not m <= zero
            violation = m if is_counted else zero
            losses[r] += violation if power == 1.0 else violation * violation
            slope = violation + violation if power == 2.0 else one if is_counted else zero
            slope_sum[r] += slope
            row[r] = slope * share
    for r in range(n_rows):
        losses[r] *= 1.0 / n_terms
        correct[r] = -slope_sum[r] / n_terms
    put_labelled(scores, labels, correct)


# Attached last, so that the class above can be read without them.
Hinge.row = hinge_row
Hinge.parallel = hinge_parallel
Hinge.block = staticmethod(hinge_block)

LOSSES: dict[str, Loss] = {"hinge": Hinge(), "squared_hinge": Hinge(power=2)}

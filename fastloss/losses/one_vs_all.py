"""One-vs-all hinge: a binary SVM for every class, trained on the same scores.

The loss of a row with scores ``s`` (C,) and label ``y``, and its gradient (the One-Vs-All SVM of
Stanford CS231n's notes on linear classification)::

    t_j       = 1 for j = y, else -1                       "is it class j?": yes or no
    L_i       = sum_j max(0, 1 - t_j s_j)
    dL_i/ds_j = -t_j where 1 - t_j s_j > 0, else 0

In plain Python, for the lecture's image of a cat, with scores for cat, car and frog:

>>> s, y = [3.2, 5.1, -1.7], 0
>>> t = [1 if j == y else -1 for j in range(3)]
>>> loss = sum(max(0, 1 - t[j] * s[j]) for j in range(3))
>>> gradient = [-t[j] if 1 - t[j] * s[j] > 0 else 0 for j in range(3)]
>>> round(loss, 1), gradient
(6.1, [0, 1, 0])

Robustness: where ``1 - t_j s_j`` is exactly 0, the forms below take the slope 0. A NaN counts as a
violation, so that it is not lost.

Options: a margin ``d`` instead of 1, and a power ``p``; ``p = 2`` is the squared hinge::

    m_j       = d - t_j s_j
    L_i       = sum_j max(0, m_j)^p
    dL_i/ds_j = -t_j p m_j^(p - 1) where m_j > 0, else 0

R. Rifkin and A. Klautau, *In defense of one-vs-all classification*, JMLR 2004.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fastloss.arrays import SKIP, as_real, convert
from fastloss.losses.base import Labels, Loss, Scores, as_power
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
class OneVsAll(Loss):
    """One-vs-all hinge loss, linear or squared: C independent binary SVMs.

    Parameters
    ----------
    margin : float >= 0, of each binary problem.
    power : 1 for the hinge, 2 for the squared hinge.

    Examples
    --------
    >>> import fastloss
    >>> losses, dscores = fastloss.score_gradient([[3.2, 5.1, -1.7]], [0], loss="one_vs_all")
    >>> losses.round(1), dscores
    (array([6.1]), array([[0., 1., 0.]]))
    """

    name: ClassVar[str] = "one_vs_all"
    order: ClassVar[int] = 3

    margin: float = 1.0
    power: int = 1

    def __post_init__(self) -> None:
        convert(self, "margin", as_real)
        convert(self, "power", as_power)

    @property
    def parameters(self) -> tuple[float, ...]:
        return (self.margin, float(self.power))

    def naive(self, scores: list[float], label: int) -> tuple[float, list[float]]:
        loss = 0.0
        gradient = [0.0] * len(scores)
        for j in range(len(scores)):
            sign = 1.0 if j == label else -1.0
            margin = self.margin - sign * scores[j]
            # Not `margin > 0`, which would drop a NaN.
            if not margin <= 0:
                # Multiply: Python's ** raises OverflowError where IEEE arithmetic gives inf.
                loss += margin if self.power == 1 else margin * margin
                gradient[j] = -sign if self.power == 1 else -sign * 2.0 * margin
        return loss, gradient

    def vectorized(self, scores: Scores, labels: Labels) -> tuple[Scores, Scores]:
        signs, margins = _signed(scores, labels, self.margin)
        violations = np.maximum(margins, 0.0, out=margins)
        if self.power == 1:
            return violations.sum(axis=1), np.where(violations > 0, -signs, 0.0)
        return np.square(violations).sum(axis=1), -2.0 * signs * violations

    def pieces(self, scores: Scores, labels: Labels) -> NDArray[np.bool_]:
        return _signed(scores, labels, self.margin)[1] > 0

    def column_losses(
        self, scores: Scores, labels: Labels, column: int
    ) -> Callable[[Scores], Scores]:
        signs, margins = _signed(scores, labels, self.margin)
        violations = np.maximum(margins, 0.0) ** self.power
        fixed = np.delete(violations, column, axis=1).sum(axis=1)
        sign = signs[:, column]

        def losses(values: Scores) -> Scores:
            return np.asarray(fixed + np.maximum(self.margin - sign * values, 0.0) ** self.power)

        return losses


def _signed(scores: Scores, labels: Labels, delta: float) -> tuple[Scores, Scores]:
    """Return the signs ``t`` (N, C) and the margins (N, C)."""
    signs = np.full_like(scores, -1.0)
    signs[np.arange(len(scores)), labels] = 1.0
    return signs, delta - signs * scores


# --- Compiled forms: the same steps for numba (row, parallel) and for fused (block) ---------------


@njit
def one_vs_all_row(scores, label, parameters):
    """Return the loss of one row, and overwrite its ``scores`` (C,) with their gradient."""
    delta, power = parameters
    # Use the dtype of the scores, so that a margin is 0 exactly where it is 0 in NumPy.
    zero, typed_delta = scores.dtype.type(0), scores.dtype.type(delta)
    loss = 0.0
    for j in range(len(scores)):
        sign = scores.dtype.type(1 if j == label else -1)
        margin = typed_delta - sign * scores[j]
        scores[j] = zero
        if not margin <= zero:
            loss += margin if power == 1.0 else margin * margin
            scores[j] = -sign if power == 1.0 else -sign * (margin + margin)
    return loss


@njit(parallel=True)
def one_vs_all_parallel(X, W_T, labels, weights, parameters, chunks, losses, partials):
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
                        loss = one_vs_all_row(row, labels[i], parameters)
                        weight = weights[i] if len(weights) > 0 else 1.0
                        block_loss += finish_row(row, loss, is_valid, weight)
                add_rows(X[rows], labels[rows], scores, sums)
            losses[k] += block_loss
            add_block(sums, partials[k])


def one_vs_all_block(scores: Any, labels: Any, parameters: tuple[float, ...], losses: Any) -> None:
    """Write the losses of R rows, and overwrite ``scores`` (C, R) with their gradients."""
    margin, power = parameters
    n_classes, n_rows = scores.shape
    # Use the dtype of the scores, so that a margin is 0 exactly where it is 0 in NumPy.
    delta = scores.dtype.type(margin)
    zero, one = scores.dtype.type(0), scores.dtype.type(1)
    losses[:] = 0.0
    # Negate the true class's score, and negate it back, so that the loops need no test for it.
    for r in range(n_rows):
        scores[labels[r], r] = -scores[labels[r], r]
    for j in range(n_classes):
        row = scores[j]
        for r in range(n_rows):
            m = delta + row[r]
            violation = zero if m <= zero else m
            losses[r] += violation if power == 1.0 else violation * violation
            row[r] = violation + violation if power == 2.0 else zero if m <= zero else one
    for r in range(n_rows):
        # A difference, because the negative of 0 would be -0.
        scores[labels[r], r] = zero - scores[labels[r], r]


# Attached last, so that the class above can be read without them.
OneVsAll.row = one_vs_all_row
OneVsAll.parallel = one_vs_all_parallel
OneVsAll.block = staticmethod(one_vs_all_block)

LOSSES: dict[str, Loss] = {"one_vs_all": OneVsAll()}

"""The multiclass hinge loss of Crammer and Singer: only the strongest rival counts.

The loss of a row with scores ``s`` (C,) and label ``y``, and its gradient. Stanford CS231n's notes
on linear classification name it a structured SVM::

    L_i     = max(0, max_{j != y} s_j - s_y + 1)
    dL_i/ds = onehot(r) - onehot(y) where L_i > 0, else 0          r: the strongest rival

In plain Python, for the lecture's image of a frog, with scores for cat, car and frog:

>>> s, y = [2.2, 2.5, -3.1], 2
>>> rival = s.index(max(s[0], s[1]))  # of the two wrong classes
>>> loss, gradient = max(0, s[rival] - s[y] + 1), [0, 0, 0]
>>> if loss > 0:
...     gradient[rival], gradient[y] = 1, -1
>>> round(loss, 1), gradient
(6.6, [0, 1, -1])

Robustness: of rivals with equal scores, the lowest class takes the slope. Where the margin is
exactly 0, the slope is 0.

Option: a margin ``d`` instead of 1.

K. Crammer and Y. Singer, *On the algorithmic implementation of multiclass kernel-based vector
machines*, JMLR 2001.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fastloss.arrays import SKIP, as_real, convert
from fastloss.losses.base import Labels, Loss, Scores
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
class CrammerSinger(Loss):
    """Multiclass SVM loss of Crammer and Singer.

    Parameters
    ----------
    margin : float >= 0, the lead that the true class needs over its strongest rival.

    Examples
    --------
    >>> import fastloss
    >>> fastloss.score_gradient([[2.2, 2.5, -3.1]], [2], loss="crammer_singer")
    (array([6.6]), array([[ 0.,  1., -1.]]))
    """

    name: ClassVar[str] = "crammer_singer"
    order: ClassVar[int] = 2

    margin: float = 1.0

    def __post_init__(self) -> None:
        convert(self, "margin", as_real)

    @property
    def parameters(self) -> tuple[float, ...]:
        return (self.margin,)

    def naive(self, scores: list[float], label: int) -> tuple[float, list[float]]:
        rival = 1 if label == 0 else 0
        for j in range(len(scores)):
            # Not >=, so that the lowest of equal rivals stays.
            if j != label and scores[j] > scores[rival]:
                rival = j
        margin = scores[rival] - scores[label] + self.margin
        gradient = [0.0] * len(scores)
        if margin <= 0:
            return 0.0, gradient
        gradient[rival] = 1.0
        gradient[label] = -1.0
        return margin, gradient

    def vectorized(self, scores: Scores, labels: Labels) -> tuple[Scores, Scores]:
        rows = np.arange(len(scores))
        rivals, margins = _rivals(scores, labels, self.margin)
        active = (margins > 0).astype(scores.dtype)
        gradient = np.zeros_like(scores)
        gradient[rows, rivals] = active
        gradient[rows, labels] = -active
        return np.maximum(margins, 0.0).astype(scores.dtype, copy=False), gradient

    def pieces(self, scores: Scores, labels: Labels) -> NDArray[np.intp]:
        rivals, margins = _rivals(scores, labels, self.margin)
        return np.where(margins > 0, rivals, -1)

    def column_losses(
        self, scores: Scores, labels: Labels, column: int
    ) -> Callable[[Scores], Scores]:
        rows = np.arange(len(scores))
        others = scores.copy()
        others[rows, labels] = -np.inf
        others[:, column] = -np.inf
        strongest = others.max(axis=1)
        is_label = labels == column
        correct = scores[rows, labels]

        def losses(values: Scores) -> Scores:
            rival = np.where(is_label, strongest, np.maximum(strongest, values))
            return np.maximum(rival - np.where(is_label, values, correct) + self.margin, 0.0)

        return losses


def _rivals(scores: Scores, labels: Labels, delta: float) -> tuple[NDArray[np.intp], Scores]:
    """Return the strongest rival (N,) of each row, and its margin (N,)."""
    rows = np.arange(len(scores))
    # -inf excludes the label. If all other scores are -inf too, argmax may still return the label;
    # the rival is then the lowest other class.
    wrong = scores.copy()
    wrong[rows, labels] = -np.inf
    rivals = wrong.argmax(axis=1)
    rivals = np.where(rivals == labels, (labels == 0).astype(rivals.dtype), rivals)
    return rivals, scores[rows, rivals] - scores[rows, labels] + delta


# --- Compiled forms: the same steps for numba (row, parallel) and for fused (block) ---------------


@njit
def crammer_singer_row(scores, label, parameters):
    """Return the loss of one row, and overwrite its ``scores`` (C,) with their gradient."""
    (delta,) = parameters
    rival = 1 if label == 0 else 0
    for j in range(len(scores)):
        if j != label and scores[j] > scores[rival]:
            rival = j
    # Use the dtype of the scores, so that a margin is 0 exactly where it is 0 in NumPy.
    zero = scores.dtype.type(0)
    margin = scores[rival] - scores[label] + scores.dtype.type(delta)
    scores[:] = zero
    if margin <= zero:
        return 0.0
    scores[rival] = 1.0
    scores[label] = -1.0
    return float(margin)


@njit(parallel=True)
def crammer_singer_parallel(X, W_T, labels, weights, parameters, chunks, losses, partials):
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
                        loss = crammer_singer_row(row, labels[i], parameters)
                        weight = weights[i] if len(weights) > 0 else 1.0
                        block_loss += finish_row(row, loss, is_valid, weight)
                add_rows(X[rows], labels[rows], scores, sums)
            losses[k] += block_loss
            add_block(sums, partials[k])


def crammer_singer_block(
    scores: Any, labels: Any, parameters: tuple[float, ...], losses: Any
) -> None:
    """Write the losses of R rows, and overwrite ``scores`` (C, R) with their gradients."""
    # Use the dtype of the scores, so that a margin is 0 exactly where it is 0 in NumPy.
    delta = scores.dtype.type(parameters[0])
    n_classes, n_rows = scores.shape
    zero, one = scores.dtype.type(0), scores.dtype.type(1)
    of_rows = np.empty((3, n_rows), scores.dtype)
    correct, strongest, slope = of_rows[0], of_rows[1], of_rows[2]
    strongest[:] = -math.inf
    for r in range(n_rows):
        correct[r] = scores[labels[r], r]
        # -inf keeps the true class from being its own rival, without a test in the loops below.
        scores[labels[r], r] = -math.inf
    for j in range(n_classes):
        row = scores[j]
        for r in range(n_rows):
            strongest[r] = row[r] if row[r] > strongest[r] else strongest[r]
    for r in range(n_rows):
        m = strongest[r] - correct[r] + delta
        losses[r] = zero if m <= zero else m
        slope[r] = zero if m <= zero else one
        correct[r] = -slope[r]
    for j in range(n_classes):
        row = scores[j]
        for r in range(n_rows):
            # The first class with the strongest score takes the whole slope.
            row[r] = slope[r] if row[r] == strongest[r] else zero
            slope[r] -= row[r]
    for r in range(n_rows):
        scores[labels[r], r] = correct[r]


# Attached last, so that the class above can be read without them.
CrammerSinger.row = crammer_singer_row
CrammerSinger.parallel = crammer_singer_parallel
CrammerSinger.block = staticmethod(crammer_singer_block)

LOSSES: dict[str, Loss] = {"crammer_singer": CrammerSinger()}

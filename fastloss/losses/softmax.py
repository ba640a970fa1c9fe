"""Softmax cross-entropy.

The loss of a row with scores ``s`` (C,) and label ``y``, as in Stanford CS231n, lecture 3, and its
gradient::

    p_j     = exp(s_j) / sum_k exp(s_k)
    L_i     = -log p_y
    dL_i/ds = p - onehot(y)          onehot(y): 1 for class y, else 0

In plain Python, for the lecture's image of a cat, with scores for cat, car and frog:

>>> from math import exp, log
>>> s, y = [3.2, 5.1, -1.7], 0
>>> p = [exp(s_j) / sum(exp(s_k) for s_k in s) for s_j in s]
>>> loss = -log(p[y])
>>> gradient = [p[j] - (1 if j == y else 0) for j in range(3)]
>>> round(loss, 2), [round(g, 2) for g in gradient]
(2.04, [-0.87, 0.87, 0.0])

Robustness: ``exp`` overflows from a score of 710 on, and ``p_y`` rounds to 1 long before the loss
is 0. All forms below therefore subtract the largest score ``m = s_w`` of the row (w: the winner)::

    others = sum_{j != w} exp(s_j - m)          so that   sum_j exp(s_j - m) = 1 + others
    L_i    = log1p(others) - (s_y - m)

Both terms are >= 0, so nothing cancels. ``(m + log z) - s_y`` would lose all digits of a small loss
beside a large ``m``. ``p_y - 1`` would lose the digits of a confident row; if ``y`` wins, it is
computed as ``-others / (1 + others)``. ``log p`` is never formed.

Option: label smoothing ``e`` replaces the target ``onehot(y)`` by ``q = (1 - e) onehot(y) + e / C``
(Szegedy et al., *Rethinking the Inception Architecture*, 2016)::

    L_i = -sum_j q_j log p_j = log1p(others) - (1 - e) (s_y - m) - e mean(s - m)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from fastloss.arrays import SKIP, as_real, convert
from fastloss.losses.base import (
    Labels,
    Loss,
    Scores,
    exp,
    log1p,
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
class Softmax(Loss):
    """Softmax cross-entropy, natural logarithm (nats).

    Parameters
    ----------
    label_smoothing : float in [0, 1), the weight ``e`` of the uniform target.

    Examples
    --------
    >>> import fastloss
    >>> losses, dscores = fastloss.score_gradient([[3.2, 5.1, -1.7]], [0], loss=fastloss.Softmax())
    >>> losses.round(2), dscores.round(2)
    (array([2.04]), array([[-0.87,  0.87,  0.  ]]))
    """

    name: ClassVar[str] = "softmax"
    order: ClassVar[int] = 0

    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        convert(self, "label_smoothing", as_real, below=1.0)

    @property
    def parameters(self) -> tuple[float, ...]:
        return (self.label_smoothing,)

    def naive(self, scores: list[float], label: int) -> tuple[float, list[float]]:
        n_classes, smoothing = len(scores), self.label_smoothing
        winner = scores.index(max(scores))
        # At most 0, so that no exponential overflows.
        shifted = [s - scores[winner] for s in scores]
        exponentials = [math.exp(s) for s in shifted]
        # Without the winner's 1, beside which small exponentials would lose their digits.
        others = 0.0
        for j in range(n_classes):
            if j != winner:
                others += exponentials[j]
        z = 1.0 + others
        loss = math.log1p(others) - (1.0 - smoothing) * shifted[label]
        gradient = [e / z - smoothing / n_classes for e in exponentials]
        if label == winner:
            # Not 1 / z - 1, which would cancel.
            gradient[label] = -others / z + smoothing - smoothing / n_classes
        else:
            gradient[label] += smoothing - 1.0
        # Only with smoothing, because 0 * -inf (an excluded class) would be NaN.
        if smoothing > 0.0:
            mean_shift = 0.0
            for s in shifted:
                mean_shift += s / n_classes
            loss -= smoothing * mean_shift
        return loss, gradient

    def vectorized(self, scores: Scores, labels: Labels) -> tuple[Scores, Scores]:
        smoothing = self.label_smoothing
        rows = np.arange(len(scores))
        winners = scores.argmax(axis=1)
        gradient = scores - scores[rows, winners, None]  # at most 0
        losses = -(1.0 - smoothing) * gradient[rows, labels]
        if smoothing > 0.0:
            losses -= smoothing * gradient.mean(axis=1)
        np.exp(gradient, out=gradient)
        gradient[rows, winners] = 0.0  # out of the sum, as in `naive`
        others = gradient.sum(axis=1)
        gradient[rows, winners] = 1.0
        losses += np.log1p(others)
        z = 1.0 + others
        gradient /= z[:, None]
        gradient[rows, labels] = np.where(
            labels == winners, -others / z, gradient[rows, labels] - 1.0
        )
        if smoothing > 0.0:
            gradient -= smoothing / scores.shape[1]
            gradient[rows, labels] += smoothing
        return losses, gradient

    def column_losses(
        self, scores: Scores, labels: Labels, column: int
    ) -> Callable[[Scores], Scores]:
        rest = np.delete(scores, column, axis=1)
        # A finite top: if all other scores are -inf, their logarithmic sum is -inf and not NaN.
        top = np.maximum(rest.max(axis=1), np.finfo(scores.dtype).min)
        is_label = labels == column
        with np.errstate(divide="ignore", invalid="ignore"):
            log_rest = top + np.log(np.exp(rest - top[:, None]).sum(axis=1))
            correct = np.where(is_label, log_rest, scores[np.arange(len(scores)), labels])
            offset = np.where(log_rest == correct, 0.0, log_rest - correct)
        rest_sum = rest.sum(axis=1)

        def losses(values: Scores) -> Scores:
            # log(exp(a) + exp(b)) - a = log1p(exp(b - a)), where a is `values` or `log_rest`.
            gap = values - log_rest
            cross_entropy = np.where(is_label, np.logaddexp(0.0, -gap), np.logaddexp(0.0, gap))
            cross_entropy += offset
            if self.label_smoothing > 0.0:
                target = np.where(is_label, values, correct)
                mean = (rest_sum + values) / scores.shape[1]
                cross_entropy += self.label_smoothing * (target - mean)
            return cross_entropy

        return losses


# --- Compiled forms: the same steps for numba (row, parallel) and for fused (block) ---------------

# Number of exponentials summed in the scores' dtype before adding to float64.
_CLASSES_AT_ONCE = 64


@njit
def softmax_row(scores, label, parameters):
    """Return the loss of one row, and overwrite its ``scores`` (C,) with their gradient."""
    (smoothing,) = parameters
    n_classes = len(scores)
    winner = 0
    for j in range(n_classes):
        if scores[j] > scores[winner]:
            winner = j
    top, correct = scores[winner], scores[label] - scores[winner]
    others = 0.0
    mean_shift = 0.0
    for j in range(n_classes):
        shifted = scores[j] - top
        scores[j] = math.exp(shifted)
        if j != winner:
            others += scores[j]
        mean_shift += shifted / n_classes
    z = 1.0 + others
    loss = math.log1p(others) - (1.0 - smoothing) * correct
    if smoothing > 0.0:
        loss -= smoothing * mean_shift
    for j in range(n_classes):
        scores[j] = scores[j] / z - smoothing / n_classes
    if label == winner:
        scores[label] = -others / z + smoothing - smoothing / n_classes
    else:
        scores[label] += smoothing - 1.0
    return loss


@njit(parallel=True)
def softmax_parallel(X, W_T, labels, weights, parameters, chunks, losses, partials):
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
                        loss = softmax_row(row, labels[i], parameters)
                        weight = weights[i] if len(weights) > 0 else 1.0
                        block_loss += finish_row(row, loss, is_valid, weight)
                add_rows(X[rows], labels[rows], scores, sums)
            losses[k] += block_loss
            add_block(sums, partials[k])


def softmax_block(scores: Any, labels: Any, parameters: tuple[float, ...], losses: Any) -> None:
    """Write the losses of R rows, and overwrite ``scores`` (C, R) with their gradients."""
    (smoothing,) = parameters
    n_classes, n_rows = scores.shape
    number = scores.dtype.type
    zero, one = number(0), number(1)
    of_rows, sums = np.empty((4, n_rows), scores.dtype), np.empty((2, n_rows))
    top, correct, below, ties = of_rows[0], of_rows[1], of_rows[2], of_rows[3]
    mean, others = sums[0], sums[1]
    top[:] = -math.inf
    for j in range(n_classes):
        row = scores[j]
        for r in range(n_rows):
            score, old = row[r], top[r]
            top[r] = score if score > old else old
    take_labelled(scores, labels, correct)
    for r in range(n_rows):
        correct[r] -= top[r]
    mean[:] = 0.0
    # Only with smoothing, because 0 * -inf (an excluded class) would be NaN.
    if smoothing > 0.0:
        for j in range(n_classes):
            row = scores[j]
            for r in range(n_rows):
                mean[r] += (row[r] - top[r]) / n_classes
    # Every score equal to the top has the exponential 1; all but one of these belong to `others`.
    ties[:] = -1.0
    below[:] = 0.0
    others[:] = 0.0
    for first in range(0, n_classes, _CLASSES_AT_ONCE):
        for j in range(first, min(first + _CLASSES_AT_ONCE, n_classes)):
            row = scores[j]
            for r in range(n_rows):
                shifted = row[r] - top[r]
                exponential = exp(shifted)
                row[r] = exponential
                below[r] += exponential if shifted < zero else zero
                ties[r] += zero if shifted < zero else one
        for r in range(n_rows):
            others[r] += below[r]
            below[r] = 0.0
    for r in range(n_rows):
        others[r] += ties[r]
        losses[r] = log1p(others[r]) - (1.0 - smoothing) * correct[r] - smoothing * mean[r]
        rest = number(others[r])
        top[r] = one / (one + rest)
        below[r] = rest * top[r]
    target, missing = number(smoothing / n_classes), number(smoothing - 1.0)
    for j in range(n_classes):
        row = scores[j]
        for r in range(n_rows):
            row[r] = row[r] * top[r] - target
    take_labelled(scores, labels, ties)
    for r in range(n_rows):
        at_top, elsewhere = number(smoothing) - target - below[r], ties[r] + missing
        ties[r] = at_top if correct[r] == zero else elsewhere
    put_labelled(scores, labels, ties)


# Attached last, so that the class above can be read without them.
Softmax.row = softmax_row
Softmax.parallel = softmax_parallel
Softmax.block = staticmethod(softmax_block)

LOSSES: dict[str, Loss] = {"softmax": Softmax()}

"""Steps that the numba forms of all losses share: plain loops over a few rows.

`jit.FASTMATH` lets LLVM turn the loops over ``d`` into vector instructions.
"""

from __future__ import annotations

import math

from fastloss.arrays import SKIP
from fastloss.losses.jit import njit

#: Number of rows summed in the dtype of ``W`` before adding to float64.
BLOCK_ROWS = 256


#: Number of rows that share each load of a weight, and each load and store of a sum.
ROWS_AT_ONCE = 4


@njit(fastmath=True)
def score_rows(X, W_T, scores):
    """Write the scores (R, C) of the rows of ``X``: ``W_T`` (C, D + 1) has the bias last."""
    if len(X) != ROWS_AT_ONCE:
        for r in range(len(X)):
            score_row(X[r], W_T, scores[r])
        return
    x0, x1, x2, x3 = X[0], X[1], X[2], X[3]
    for c in range(len(W_T)):
        weights = W_T[c]
        s0 = s1 = s2 = s3 = weights[len(x0)]
        for d in range(len(x0)):
            s0 += x0[d] * weights[d]
            s1 += x1[d] * weights[d]
            s2 += x2[d] * weights[d]
            s3 += x3[d] * weights[d]
        scores[0, c], scores[1, c], scores[2, c], scores[3, c] = s0, s1, s2, s3


@njit(fastmath=True)
def score_row(x, W_T, scores):
    """Write the scores (C,) of one row."""
    for c in range(len(W_T)):
        weights = W_T[c]
        score = weights[len(x)]
        for d in range(len(x)):
            score += x[d] * weights[d]
        scores[c] = score


@njit
def all_below_infinity(scores):
    """Return whether no score (C,) is NaN or +inf."""
    are_below = True
    for c in range(len(scores)):
        are_below = are_below and scores[c] < math.inf
    return are_below


@njit
def finish_row(gradient, loss, is_valid, weight):
    """Scale ``gradient`` (C,) in place by the row's weight; return the scaled loss.

    An invalid row gets the weight NaN.
    """
    if not is_valid or math.isnan(loss):
        weight = math.nan
    if weight != 1.0:
        for c in range(len(gradient)):
            gradient[c] *= weight
    return weight * loss


@njit(fastmath=True)
def add_rows(X, labels, gradients, sums):
    """Add outer products of ``gradients`` (R, C) and unskipped rows to ``sums``, bias last."""
    n_counting = 0
    for r in range(len(X)):
        n_counting += labels[r] != SKIP
    if n_counting != ROWS_AT_ONCE:
        for r in range(len(X)):
            if labels[r] != SKIP:
                add_row(X[r], gradients[r], sums)
        return
    x0, x1, x2, x3 = X[0], X[1], X[2], X[3]
    for c in range(len(sums)):
        total = sums[c]
        g0, g1, g2, g3 = gradients[0, c], gradients[1, c], gradients[2, c], gradients[3, c]
        for d in range(len(x0)):
            total[d] += g0 * x0[d] + g1 * x1[d] + g2 * x2[d] + g3 * x3[d]
        total[len(x0)] += g0 + g1 + g2 + g3


@njit(fastmath=True)
def add_row(x, gradient, sums):
    """Add the outer product of ``gradient`` (C,) and ``x`` to ``sums`` (C, D + 1), bias last."""
    for c in range(len(sums)):
        total = sums[c]
        g = gradient[c]
        for d in range(len(x)):
            total[d] += g * x[d]
        total[len(x)] += g


@njit
def add_block(sums, partial):
    """Add ``sums`` (C, D + 1) to ``partial`` in float64, and set them to 0."""
    for c in range(len(sums)):
        source, goal = sums[c], partial[c]
        for d in range(len(source)):
            goal[d] += source[d]
            source[d] = 0

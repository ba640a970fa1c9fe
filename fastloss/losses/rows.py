"""Steps of ``backend="numba"`` that all losses share: plain loops over one row.

`jit.FASTMATH` lets LLVM turn the loops over ``d`` into vector instructions.
"""

from __future__ import annotations

import math

from fastloss.losses.jit import njit

#: Number of rows summed in the dtype of ``W`` before adding to float64.
BLOCK_ROWS = 256


@njit(fastmath=True)
def score_row(x, W_T, scores):
    """Write the scores (C,) of a row: ``W_T`` (C, D + 1) has the bias last.

    Return whether no score is NaN or +inf.
    """
    is_valid = True
    for c in range(len(W_T)):
        weights = W_T[c]
        score = weights[len(x)]
        for d in range(len(x)):
            score += x[d] * weights[d]
        scores[c] = score
        is_valid = is_valid and score < math.inf
    return is_valid


@njit
def finish_row(gradient, loss, is_valid, weight):
    """Multiply loss and gradient (C,) by the weight of the row, or by NaN if they are invalid."""
    if not is_valid or math.isnan(loss):
        weight = math.nan
    if weight != 1.0:
        for c in range(len(gradient)):
            gradient[c] *= weight
    return weight * loss


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

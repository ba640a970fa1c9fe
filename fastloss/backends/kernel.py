"""Numba: one pass over ``X``. A block of rows is read into cache, scored, and spent on ``dW``.

The functions down to `score_rows` are the kernel, in the part of Python that Numba compiles, and
run as plain Python too. They are templates: `loss_row` stands for the compiled form of a loss and
is bound when the kernel for that loss is compiled, so that a kernel knows its loss and no loss
knows of blocks or threads. A block goes through three stages::

    pack      X[i] (any type, any strides) -> a row of aligned, zero-padded scratch of W's type,
              with a 1 appended for the intercept; rows to skip are left out here
    scores    tiles of 4 rows x 2 classes: eight sums run along the features
    gradient  the same tiles: eight products are added to two rows of a partial dW.T

Everything is padded to whole tiles with zeros, so the inner loops have no remainders.

The rows are cut into chunks, each with a partial gradient of its own, and the partials are added
in order. Chunks and blocks depend on the shape alone: any number of threads gives the same bits.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fastloss.arrays import SKIP

TILE_ROWS = 4
TILE_CLASSES = 2

#: What the vector loops may assume: sums in any order, fused multiply-add, no signed zeros. Never
#: `nnan` or `ninf`, which would make a NaN test false; and never around the loss itself.
VECTOR_MATH = frozenset({"reassoc", "contract", "nsz"})

# Bound when a kernel is compiled. In plain Python a parallel range is a range.
prange = range
loss_row: Any = None


def pack_block(
    X: Any, labels: Any, start: int, stop: int, block: Any, kept: Any, has_bias: bool
) -> int:
    """Copy the rows of ``X[start:stop]`` that count to ``block``; how many, ``kept``: which."""
    n_features = X.shape[1]
    n_kept = 0
    for i in range(start, stop):
        if labels[i] != SKIP:
            kept[n_kept] = i
            n_kept += 1
    # By columns where those lie together in memory, so that a whole cache line is used.
    if abs(X.strides[0]) < abs(X.strides[1]):
        for d in range(n_features):
            for r in range(n_kept):
                block[r, d] = X[kept[r], d]
    else:
        for r in range(n_kept):
            source = X[kept[r]]
            target = block[r]
            for d in range(n_features):
                target[d] = source[d]
    if has_bias:
        for r in range(n_kept):
            block[r, n_features] = 1
    return n_kept


def score_tile(block: Any, W_T: Any, scores: Any, r: int, c: int) -> None:
    """``scores[r:r+4, c:c+2] = block[r:r+4] @ W_T[c:c+2].T``."""
    x0, x1, x2, x3 = block[r], block[r + 1], block[r + 2], block[r + 3]
    w0, w1 = W_T[c], W_T[c + 1]
    zero = W_T.dtype.type(0)
    s00 = s01 = s10 = s11 = s20 = s21 = s30 = s31 = zero
    for d in range(w0.shape[0]):
        a, b = w0[d], w1[d]
        s00 += x0[d] * a
        s01 += x0[d] * b
        s10 += x1[d] * a
        s11 += x1[d] * b
        s20 += x2[d] * a
        s21 += x2[d] * b
        s30 += x3[d] * a
        s31 += x3[d] * b
    scores[r, c], scores[r, c + 1] = s00, s01
    scores[r + 1, c], scores[r + 1, c + 1] = s10, s11
    scores[r + 2, c], scores[r + 2, c + 1] = s20, s21
    scores[r + 3, c], scores[r + 3, c + 1] = s30, s31


def gradient_tile(block: Any, dscores: Any, partial: Any, r: int, c: int) -> None:
    """``partial[c:c+2] += dscores[r:r+4, c:c+2].T @ block[r:r+4]``."""
    x0, x1, x2, x3 = block[r], block[r + 1], block[r + 2], block[r + 3]
    p0, p1 = partial[c], partial[c + 1]
    g00, g01 = dscores[r, c], dscores[r, c + 1]
    g10, g11 = dscores[r + 1, c], dscores[r + 1, c + 1]
    g20, g21 = dscores[r + 2, c], dscores[r + 2, c + 1]
    g30, g31 = dscores[r + 3, c], dscores[r + 3, c + 1]
    for d in range(p0.shape[0]):
        a0, a1, a2, a3 = x0[d], x1[d], x2[d], x3[d]
        p0[d] += (g00 * a0 + g10 * a1) + (g20 * a2 + g30 * a3)
        p1[d] += (g01 * a0 + g11 * a1) + (g21 * a2 + g31 * a3)


def guarded_row(scores: Any, label: int, parameters: Any) -> float:
    """``loss_row`` with the rule for NaN and infinite scores."""
    n_infinite = 0
    for j in range(scores.shape[0]):
        if not scores[j] < math.inf:
            n_infinite += 1
    loss = math.nan
    if n_infinite == 0:
        loss = loss_row(scores, label, parameters)
    if math.isnan(loss):
        scores[:] = math.nan
    return loss


def evaluate_chunk(
    X: Any,
    W_T: Any,
    labels: Any,
    weights: Any,
    scale: float,
    parameters: Any,
    start: int,
    stop: int,
    block_rows: int,
    n_classes: int,
    has_bias: bool,
    with_gradient: bool,
    partial: Any,
) -> float:
    """Weighted loss of ``X[start:stop]``; its gradient times ``scale`` goes to ``partial``."""
    block = np.zeros((block_rows, W_T.shape[1]), W_T.dtype)
    scores = np.zeros((block_rows, W_T.shape[0]), W_T.dtype)
    kept = np.empty(block_rows, np.int64)
    partial[:] = 0
    total = 0.0
    for first in range(start, stop, block_rows):
        n_kept = pack_block(X, labels, first, min(stop, first + block_rows), block, kept, has_bias)
        n_tiled = -(-n_kept // TILE_ROWS) * TILE_ROWS
        for r in range(0, n_tiled, TILE_ROWS):
            for c in range(0, W_T.shape[0], TILE_CLASSES):
                score_tile(block, W_T, scores, r, c)
        for r in range(n_kept):
            i = kept[r]
            weight = weights[i] if weights.shape[0] > 0 else 1.0
            total += weight * guarded_row(scores[r, :n_classes], labels[i], parameters)
            for c in range(n_classes):
                scores[r, c] *= weight * scale
        if with_gradient:
            # Rows that pad the last tile hold an earlier block's numbers; 0 * NaN would be NaN.
            block[n_kept:n_tiled] = 0
            scores[n_kept:n_tiled] = 0
            for r in range(0, n_tiled, TILE_ROWS):
                for c in range(0, W_T.shape[0], TILE_CLASSES):
                    gradient_tile(block, scores, partial, r, c)
    return total


def evaluate_rows(
    X: Any,
    W_T: Any,
    labels: Any,
    weights: Any,
    scale: float,
    parameters: Any,
    chunk_rows: int,
    block_rows: int,
    n_classes: int,
    has_bias: bool,
    partials: Any,
    chunk_losses: Any,
    dW: Any,
) -> None:
    """All chunks in parallel, then the partial gradients into ``dW`` in order.

    ``dW`` with no rows: the loss alone.
    """
    n_chunks = chunk_losses.shape[0]
    with_gradient = dW.shape[0] > 0
    for k in prange(n_chunks):
        chunk_losses[k] = evaluate_chunk(
            X,
            W_T,
            labels,
            weights,
            scale,
            parameters,
            k * chunk_rows,
            min(X.shape[0], (k + 1) * chunk_rows),
            block_rows,
            n_classes,
            has_bias,
            with_gradient,
            partials[k],
        )
    if with_gradient:
        for c in prange(n_classes):
            total = partials[0, c]
            for k in range(1, n_chunks):
                total += partials[k, c]
            for d in range(dW.shape[0]):
                dW[d, c] = total[d]


def score_rows(labels: Any, parameters: Any, losses: Any, gradient: Any) -> None:
    """The losses of all rows in parallel; ``gradient`` holds the scores and is overwritten."""
    for i in prange(gradient.shape[0]):
        losses[i] = guarded_row(gradient[i], labels[i], parameters)

"""Evaluate few rows of many features: threads share the features, not the rows.

The features are cut into pieces, and there are three stages::

    scores    of a piece: S[k] = X[:, piece] @ W[piece]
    loss      the thread that finishes the last piece adds the scores of all pieces in order; they
              become their gradient G, weighted
    gradient  of a piece: dW[piece] = X[:, piece].T @ G, the last piece first, because its features
              are still in cache

Each piece of a stage is written by one thread, and pieces depend on the shape alone, so any number
of threads gives the same bits. The products are those of `kernels.narrow`.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from fastloss.kernel_cache import kernel_name
from fastloss.kernels.compile import add_helper, bind, problem_types, shared_names
from fastloss.kernels.narrow import collect_rows, kept_rows
from fastloss.kernels.narrow_products import (
    add_gradient,
    add_products,
    lay_out_weights,
    score_block,
    slab_of,
)
from fastloss.kernels.native import Template, native
from fastloss.kernels.rows import (
    address,
    aligned,
    are_finished,
    loss_of_rows,
    matrix,
    stored_type,
)

# Bound when a kernel is compiled.
fetch_add: Any = None
transpose: Any = None
TILE_ROWS = 4
LANES = 16
ITEMSIZE = 4
ROWS_STEP = 16

#: How often a thread waits for others, 0.1 ms at a time, before it leaves the rest to them.
PATIENCE = 20
#: Rows of the gradient's tiles: their pages fit in the first level of the translation cache.
GRADIENT_ROWS = 64
#: How far the gradient's tiles prefetch in a row: two strips of features.
AHEAD_BYTES = 512
#: Counters: pieces of scores taken and finished, losses finished, pieces of the gradient
#: taken and finished.
TAKEN, SCORED, LOST, RETAKEN, ADDED = range(5)


def evaluate(
    X: Any,
    W: Any,
    labels: Any,
    weights: Any,
    rows: Any,
    scale: float,
    loss: int,
    parameters: Any,
    piece: int,
    counters: Any,
    scores: Any,
    total: Any,
    dW: Any,
) -> bool:
    """Take pieces of both stages until none is left; return whether all are finished.

    ``piece`` is the number of features of a piece. ``scores`` (K, C, R) is scratch for the scores
    of each piece. ``total`` receives the weighted sum of the losses. An empty ``dW`` means that
    only the loss is wanted.
    """
    n_pieces, n_classes, n_scored = scores.shape
    n_features = X.shape[1]
    n_rows = rows.shape[0] if rows.shape[0] > 0 else X.shape[0]
    indices = matrix(aligned(3 * (n_scored + TILE_ROWS), labels), 3, n_scored + TILE_ROWS)
    in_place = X.itemsize == W.itemsize and X.strides[1] == X.itemsize
    packed = matrix(aligned(0 if in_place else n_rows * piece, W), 0 if in_place else n_rows, piece)
    slab = slab_of(n_classes, piece)
    sums = aligned(n_classes * -(-piece // slab) * slab, W)
    S_stride, T_stride = n_scored * ITEMSIZE, piece * ITEMSIZE
    # Products of rows that follow each other prefetch the next rows.
    ahead = TILE_ROWS * X.strides[0] if rows.shape[0] == 0 and in_place else AHEAD_BYTES
    while True:
        k = fetch_add(address(counters) + 8 * TAKEN)
        if k >= n_pieces:
            break
        first, last = k * piece, min(n_features, (k + 1) * piece)
        n = collect_rows(X[:, first:last], labels, rows, 0, n_rows, packed, indices)
        lay_out_weights(W, first, last, slab, sums)
        scores[k] = 0
        score_block(
            address(sums),
            slab,
            address(indices[1]),
            n,
            last - first,
            n_classes,
            address(scores[k]),
            S_stride,
            ahead,
            ahead,
            indices[0, :0],
        )
        if fetch_add(address(counters) + 8 * SCORED) == n_pieces - 1:
            total[0] = add_scores(
                W, weights, indices, n, scale, loss, parameters, scores, n_features, dW
            )
            fetch_add(address(counters) + 8 * LOST)
    if not wait(address(counters) + 8 * LOST, 1):
        return False
    if dW.shape[0] == 0:
        return True
    while True:
        k = n_pieces - 1 - fetch_add(address(counters) + 8 * RETAKEN)
        if k < 0:
            break
        first, last = k * piece, min(n_features, (k + 1) * piece)
        n = collect_rows(X[:, first:last], labels, rows, 0, n_rows, packed, indices)
        sums[:] = 0
        for r in range(0, n, GRADIENT_ROWS):
            add_gradient(
                address(indices[1]) + 8 * r,
                min(GRADIENT_ROWS, n - r),
                last - first,
                0,
                n_classes,
                address(scores) + r * ITEMSIZE,
                S_stride,
                address(sums),
                T_stride,
                AHEAD_BYTES,
                AHEAD_BYTES,
                indices[0, :0],
            )
        goal = address(dW) + first * dW.strides[0]
        transpose(address(sums), T_stride, n_classes, last - first, goal, dW.strides[0])
        fetch_add(address(counters) + 8 * ADDED)
    return are_finished(address(counters) + 8 * ADDED, n_pieces)


def wait(counter: int, n: int) -> bool:
    """Return whether a shared counter reaches ``n`` before patience ends."""
    for _ in range(PATIENCE):  # noqa: SIM110  (Numba knows no any)
        if are_finished(counter, n):
            return True
    return False


def add_scores(
    W: Any,
    weights: Any,
    indices: Any,
    n: int,
    scale: float,
    loss: int,
    parameters: Any,
    scores: Any,
    n_features: int,
    dW: Any,
) -> float:
    """Add the scores of all pieces and the bias, and overwrite the first piece's by the gradient.

    Also write the gradient of the bias. Return the weighted sum of the losses of the ``n`` rows.
    """
    n_pieces, n_classes, n_scored = scores.shape
    has_bias = W.shape[0] > n_features
    sums = scores[0]
    for c in range(n_classes):
        row = sums[c]
        for k in range(1, n_pieces):
            other = scores[k, c]
            for r in range(n_scored):
                row[r] += other[r]
        if has_bias:
            bias = W[n_features, c]
            for r in range(n_scored):
                row[r] += bias
    factors, bad = aligned(n_scored, W), aligned(n_scored, W)
    losses, row_weights = np.empty(n_scored), np.ones(n_scored)
    if weights.shape[0] > 0:
        for r in range(n):
            row_weights[r] = weights[indices[0, r]]
    for r in range(n_scored):
        factors[r] = scale * row_weights[r]
    # Rows that only fill the block need a label in range; their losses are ignored.
    for r in range(n, n_scored):
        indices[2, r] = 0
    loss_of_rows(sums, n_classes, n_scored, indices[2], factors, loss, parameters, losses, bad)
    total = 0.0
    for r in range(n):
        total += row_weights[r] * losses[r]
    if has_bias and dW.shape[0] > n_features:
        for c in range(n_classes):
            slope = 0.0
            for r in range(n):
                slope += sums[c, r]
            dW[n_features, c] = slope
    return total


# --- compiling ------------------------------------------------------------------------------------


@cache
def few_rows_name(X_type: np.dtype[Any], W_type: np.dtype[Any]) -> str:
    """Return the name of `few_rows_kernel`, without importing Numba."""
    return kernel_name(f"few_rows_{X_type}_{W_type}", evaluate)


@native(few_rows_name)
def few_rows_kernel(X_type: np.dtype[Any], W_type: np.dtype[Any]) -> Template:
    """Return `evaluate` compiled for the types of X and W."""
    from numba import boolean, float64, from_dtype, int64

    number, source = from_dtype(W_type), from_dtype(stored_type(X_type))
    names = shared_names(W_type)
    add_products(names, source, number, prefetches_rows=True)
    for helper in (kept_rows, collect_rows, wait, add_scores):
        add_helper(names, helper)
    signature = (
        *problem_types(source, number),
        int64,
        int64[::1],
        number[:, :, ::1],
        float64[::1],
        number[:, ::1],
    )
    return bind(evaluate, names), boolean(*signature)

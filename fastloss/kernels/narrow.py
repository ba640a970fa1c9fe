"""Evaluate few classes in one pass over ``X``: both products use a block of rows while in cache.

A block goes through three stages::

    scores    tiles of a few rows x up to 5 classes; scores are (C, R), a column for each row of X,
              so that a loss runs over many rows with one instruction
    loss      in place: the scores become their gradient, weighted
    gradient  tiles of up to 5 classes x a few vectors of features, summed over the block's rows

Rows are read in place. Rows that are not contiguous, or of another type than W, are first packed
into scratch. Both products of a block also prefetch parts of the next block, or of the rows that
the caller will pass next.

The rows are cut into chunks, each with its own partial gradient. All threads run `evaluate` on the
same arguments, and each repeatedly takes the next free chunk. The thread that finishes the last
chunk adds the partial gradients in order. Chunks and blocks depend on the shape alone, so any
number of threads gives the same bits. A thread without work spins for about 0.1 ms, then returns;
see `are_finished` and `leave`.

A partial gradient sums at most about `SUM_ROWS` rows in the dtype of W. A chunk with more rows also
has a total in float64, to which its partial gradient is added at intervals.

This module assigns only scalars to slices; assigning arrays costs Numba seconds to compile.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from fastloss.arrays import SKIP
from fastloss.kernel_cache import kernel_name
from fastloss.kernels.compile import add_helper, bind, problem_types, shared_names
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
    enter,
    leave,
    loss_of_rows,
    matrix,
    pack_rows,
    read_shared,
    stored_type,
)

# Bound when a kernel is compiled.
transpose: Any = None
fetch_add: Any = None
prefetch: Any = None
TILE_ROWS = 4
LANES = 16
ITEMSIZE = 4
#: Rows of scores are padded to whole vectors and tiles.
ROWS_STEP = 16

#: Number of rows summed in the dtype of W, and of losses in one float64, before adding to totals.
SUM_ROWS = 2048


def collect_rows(
    X: Any, labels: Any, rows: Any, start: int, stop: int, packed: Any, indices: Any
) -> int:
    """Collect the rows among ``rows[start:stop]`` that are not skipped; return their number.

    An empty ``rows`` stands for all rows in order. ``indices`` receives the row numbers, the
    addresses of the features, and the labels. Rows are packed unless ``packed`` is empty.
    """
    n = kept_rows(labels, rows, start, stop, indices)
    if packed.shape[0] > 0:
        pack_rows(X, indices[0, :n], packed)
        for r in range(n):
            indices[1, r] = address(packed) + r * packed.strides[0]
    else:
        numbers, addresses = indices[0], indices[1]
        for r in range(n):
            addresses[r] = address(X) + numbers[r] * X.strides[0]
    # Fill the last tile of rows with a readable row, whose scores are ignored.
    for r in range(n, n + TILE_ROWS):
        indices[1, r] = indices[1, 0]
    return n


def kept_rows(labels: Any, rows: Any, start: int, stop: int, indices: Any) -> int:
    """Write the numbers and labels of the rows that are not skipped; return how many there are."""
    n = 0
    numbers, kept_labels = indices[0], indices[2]
    if rows.shape[0] == 0:
        # Slices, because LLVM vectorises loops that start at 0.
        given = labels[start:stop]
        for r in range(given.shape[0]):
            n += given[r] != SKIP
            numbers[r] = start + r
            kept_labels[r] = given[r]
    if n < stop - start:
        n = 0
        for k in range(start, stop):
            # No branch: the next row overwrites a skipped one.
            i = rows[k] if rows.shape[0] > 0 else k
            numbers[n] = i
            kept_labels[n] = labels[i]
            n += labels[i] != SKIP
    # Rows that fill the last vector need a label in range; their losses are ignored.
    for r in range(n, -(-n // ROWS_STEP) * ROWS_STEP):
        kept_labels[r] = 0
    return n


def evaluate(
    X: Any,
    W: Any,
    labels: Any,
    weights: Any,
    rows: Any,
    scale: float,
    loss: int,
    parameters: Any,
    chunk_rows: int,
    block_rows: int,
    calls: int,
    next_rows: Any,
    counters: Any,
    partials: Any,
    totals: Any,
    chunk_losses: Any,
    dW: Any,
) -> bool:
    """Evaluate chunks until none is left; the thread that finishes the last one writes ``dW``.

    Every thread runs this function and returns whether all chunks are finished. ``rows`` holds the
    row numbers; empty means all rows. ``next_rows``: row numbers of the next call, or empty.
    ``calls`` is for `enter`. ``counters``: chunks taken, chunks finished, 1 when ``dW`` is written,
    and threads that have begun. ``partials`` (K, C, D): gradients times ``scale``; the bias comes
    after the features, rounded up to whole vectors. ``totals``: the same in float64, or empty if
    chunks have at most `SUM_ROWS` rows. An empty ``dW`` means that only the loss is wanted.
    """
    n_chunks = chunk_losses.shape[0]
    number = enter(calls, address(counters) + 24)
    if read_shared(address(counters)) >= n_chunks:
        return leave(calls, number, False)
    n_rows, n_features, n_classes = X.shape[0], X.shape[1], W.shape[1]
    if rows.shape[0] > 0:
        n_rows = rows.shape[0]
    n_columns = -(-n_features // LANES) * LANES
    slab = slab_of(n_classes, n_columns)
    W_T = aligned(n_classes * -(-n_columns // slab) * slab, W)
    lay_out_weights(W, 0, n_features, slab, W_T)
    # The bias of each class, followed by the feature 1 that it belongs to.
    bias = aligned(n_classes + LANES, W)
    bias[n_classes] = 1
    if W.shape[0] > n_features:
        for c in range(n_classes):
            bias[c] = W[n_features, c]
    n_packed = 0 if X.itemsize == W.itemsize and X.strides[1] == X.itemsize else block_rows
    packed = matrix(aligned(n_packed * n_columns, W), n_packed, n_columns)
    scratch = aligned(n_classes * block_rows, W)
    factors, bad = aligned(block_rows, W), aligned(block_rows, W)
    losses, row_weights = aligned(block_rows, chunk_losses), aligned(block_rows, chunk_losses)
    loss_sums = aligned(LANES, chunk_losses)
    row_weights[:] = 1
    # For each row of a block: number, address, label, and address of the bias's feature.
    indices = matrix(aligned(4 * (block_rows + TILE_ROWS), labels), 4, block_rows + TILE_ROWS)
    next_addresses = aligned(block_rows, labels)
    indices[3] = address(bias) + n_classes * ITEMSIZE
    while True:
        k = fetch_add(address(counters))
        if k >= n_chunks:
            break
        for lane in range(LANES):
            loss_sums[lane] = 0
        chunk_losses[k] = 0
        partials[k] = 0
        if totals.shape[0] > 0:
            totals[k] = 0
        n_summed = 0
        chunk_stop = min(n_rows, (k + 1) * chunk_rows)
        for start in range(k * chunk_rows, chunk_stop, block_rows):
            stop = min(chunk_stop, start + block_rows)
            n = collect_rows(X, labels, rows, start, stop, packed, indices)
            # Addresses of the next call's rows; tiles prefetch no rows that have to be packed.
            numbers = next_rows[start : stop if n_packed == 0 else start]
            upcoming = next_addresses[: numbers.shape[0]]
            for r in range(numbers.shape[0]):
                upcoming[r] = address(X) + numbers[r] * X.strides[0]
                prefetch(address(labels) + 8 * numbers[r])
            # Padded, so that the loss runs over whole vectors of rows.
            n_scored = -(-n // ROWS_STEP) * ROWS_STEP
            scores = matrix(scratch, n_classes, n_scored)
            following = address(X) + stop * X.strides[0]
            end = following + (stop - start) * X.strides[0]
            if rows.shape[0] > 0:
                # The next rows are anywhere; prefetching the first row again costs nothing.
                following = end = indices[1, 0]
            for c in range(n_classes):
                row = scores[c]
                at_zero = bias[c]
                for r in range(n_scored):
                    row[r] = at_zero
            S_stride = n_scored * ITEMSIZE
            following = score_block(
                address(W_T),
                slab,
                address(indices[1]),
                n,
                n_features,
                n_classes,
                address(scratch),
                S_stride,
                following,
                end,
                upcoming,
            )
            if dW.shape[0] == 0 and n_features < 8 * LANES:
                # The tiles of scores prefetch longer rows well enough.
                for line in range(following, end, 64):
                    prefetch(line)
            if weights.shape[0] > 0:
                for r in range(n):
                    row_weights[r] = weights[indices[0, r]]
            for r in range(n_scored):
                factors[r] = scale * row_weights[r]
            loss_of_rows(
                scores,
                n_classes,
                n_scored,
                indices[2],
                factors,
                loss,
                parameters,
                losses,
                bad,
            )
            # Rows that fill the last vector have no loss.
            for r in range(n, n_scored):
                losses[r] = 0
            add_losses(losses, row_weights, n_scored, loss_sums)
            if dW.shape[0] > 0:
                add_gradient(
                    address(indices[1]),
                    n,
                    n_features,
                    address(indices[3]) if dW.shape[0] > n_features else 0,
                    n_classes,
                    address(scratch),
                    S_stride,
                    address(partials[k]),
                    partials.strides[1],
                    following,
                    end,
                    upcoming,
                )
            n_summed += stop - start
            if n_summed >= SUM_ROWS or stop == chunk_stop:
                n_summed = 0
                for lane in range(LANES):
                    chunk_losses[k] += loss_sums[lane]
                    loss_sums[lane] = 0
                if totals.shape[0] > 0:
                    add_to_total(partials[k], totals[k])
        if fetch_add(address(counters) + 8) == n_chunks - 1:
            add_partials(partials, totals, n_features, dW)
            fetch_add(address(counters) + 16)
    return leave(calls, number, are_finished(address(counters) + 16, 1))


def add_losses(losses: Any, weights: Any, n: int, sums: Any) -> None:
    """Add ``weights * losses`` to a vector of sums; a single sum would stall at every row."""
    for r in range(0, n, LANES):
        for lane in range(LANES):
            sums[lane] += weights[r + lane] * losses[r + lane]


def add_to_total(sums: Any, total: Any) -> None:
    """Add ``sums`` (C, D) to ``total`` in float64, and set them to 0."""
    for c in range(sums.shape[0]):
        source, goal = sums[c], total[c]
        for d in range(source.shape[0]):
            goal[d] += source[d]
            source[d] = 0


def add_partials(partials: Any, totals: Any, n_features: int, dW: Any) -> None:
    """Write the sum of the partial gradients (K, C, D), bias after the features, to ``dW``."""
    bias = -(-n_features // LANES) * LANES
    for c in range(dW.shape[1]):
        total = partials[0, c]
        for k in range(1, totals.shape[0]):
            for d in range(total.shape[0]):
                totals[0, c, d] += totals[k, c, d]
        if totals.shape[0] > 0:
            for d in range(total.shape[0]):
                total[d] = totals[0, c, d]
        for k in range(1, partials.shape[0] if totals.shape[0] == 0 else 0):
            partial = partials[k, c]
            for d in range(total.shape[0]):
                total[d] += partial[d]
        if dW.shape[0] > n_features:
            dW[n_features, c] = total[bias]
    if dW.shape[0] > 0:
        transpose(
            address(partials),
            partials.strides[1],
            dW.shape[1],
            n_features,
            address(dW),
            dW.strides[0],
        )


# --- compiling ------------------------------------------------------------------------------------


@cache
def narrow_name(X_type: np.dtype[Any], W_type: np.dtype[Any]) -> str:
    """Return the name of `narrow_kernel`, without importing Numba."""
    return kernel_name(f"narrow_{X_type}_{W_type}", evaluate)


@native(narrow_name)
def narrow_kernel(X_type: np.dtype[Any], W_type: np.dtype[Any]) -> Template:
    """Return `evaluate` compiled for the types of X and W."""
    from numba import boolean, float64, from_dtype, int64

    number, source = from_dtype(W_type), from_dtype(stored_type(X_type))
    names = shared_names(W_type)
    add_products(names, source, number)
    for helper in (kept_rows, collect_rows, add_losses, add_to_total, add_partials):
        add_helper(names, helper)
    kinds = problem_types(source, number)
    signature = (
        *kinds,
        *(int64, int64, int64),
        kinds[4],
        int64[::1],
        number[:, :, ::1],
        float64[:, :, ::1],
        float64[::1],
        number[:, ::1],
    )
    return bind(evaluate, names), boolean(*signature)

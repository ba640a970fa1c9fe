"""Compute losses and gradients of given scores, a strip of rows at a time."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from fastloss.arrays import Floats
from fastloss.kernel_cache import kernel_name
from fastloss.kernels.compile import bind, shared_names
from fastloss.kernels.loss_entry import loss_kernel
from fastloss.kernels.native import Template, native
from fastloss.kernels.rows import address, aligned, are_finished, loss_of_rows, matrix
from fastloss.kernels.run import run
from fastloss.losses.base import Labels, Loss

# Bound when the kernel is compiled.
transpose: Any = None
fetch_add: Any = None
#: Strips are padded to whole vectors and tiles.
ROWS_STEP = 16

# A strip of rows stays in L2 while the loss runs over it.
_L2_BYTES = 512 * 1024
# Pieces that threads share if there are enough strips, and most strips of a piece.
_PIECES, _PIECE_STRIPS = 16, 32


def evaluate_strips(
    scores: Any,
    labels: Any,
    loss: int,
    parameters: Any,
    strip_rows: int,
    piece_rows: int,
    counters: Any,
    losses: Any,
) -> bool:
    """Write ``losses`` (N,) and overwrite ``scores`` (N, C) with their gradient.

    Every thread runs this function and returns whether all pieces are finished. A thread takes a
    piece of several strips; a strip of rows is copied to scratch as (C, R), and back. ``counters``:
    pieces taken, pieces finished.
    """
    n_rows, n_classes = scores.shape
    scratch = aligned(n_classes * strip_rows, scores)
    factors, bad = aligned(strip_rows, scores), aligned(strip_rows, scores)
    strip_labels = aligned(strip_rows, labels)
    strip_losses = aligned(strip_rows, losses)
    while True:
        first = fetch_add(address(counters)) * piece_rows
        if first >= n_rows:
            break
        last = min(n_rows, first + piece_rows)
        for start in range(first, last, strip_rows):
            n = min(strip_rows, last - start)
            # Padded, so that the loss runs over whole vectors of rows, even for a single row.
            n_padded = -(-n // ROWS_STEP) * ROWS_STEP
            part = address(scores) + start * scores.strides[0]
            strip = matrix(scratch, n_classes, n_padded)
            transpose(part, scores.strides[0], n, n_classes, address(strip), strip.strides[0])
            factors[:] = 1
            for r in range(n):
                strip_labels[r] = labels[start + r]
            loss_of_rows(
                strip,
                n_classes,
                n_padded,
                strip_labels,
                factors,
                loss,
                parameters,
                strip_losses,
                bad,
            )
            for r in range(n):
                losses[start + r] = strip_losses[r]
            transpose(address(strip), strip.strides[0], n_classes, n, part, scores.strides[0])
        fetch_add(address(counters) + 8)
    return are_finished(address(counters) + 8, -(-n_rows // piece_rows))


@cache
def strips_name(dtype: np.dtype[Any]) -> str:
    """Return the name of `strips_kernel`, without importing Numba."""
    return kernel_name(f"strips_{dtype}", evaluate_strips)


@native(strips_name)
def strips_kernel(dtype: np.dtype[Any]) -> Template:
    """Return `evaluate_strips` compiled for a type of scores."""
    from numba import boolean, float64, from_dtype, int64, types

    names = shared_names(dtype)
    signature = (
        from_dtype(dtype)[:, ::1],
        types.Array(int64, 1, "C", readonly=True),
        int64,
        types.Array(float64, 1, "C", readonly=True),
        *(int64, int64),
        int64[::1],
        float64[::1],
    )
    return bind(evaluate_strips, names), boolean(*signature)


def run_strips(loss: Loss, scores: Floats, labels: Labels, n_threads: int | None) -> Floats:
    """Return the losses of all rows, and overwrite ``scores`` with the gradient."""
    n_rows, n_classes = scores.shape
    # Whole vectors of rows, within L2 if possible.
    fitting = _L2_BYTES // (n_classes * scores.itemsize)
    strip_rows = min(max(fitting, 16), 128) // 16 * 16
    # Neighbouring strips go to one thread, because each core also prefetches what comes next.
    piece_rows = strip_rows * min(max(n_rows // strip_rows // _PIECES, 1), _PIECE_STRIPS)
    losses = np.empty(n_rows)
    compiled, evaluate = loss_kernel(loss, scores.dtype), strips_kernel(scores.dtype)
    parameters, counters = np.array(loss.parameters), np.zeros(2, np.int64)
    sizes = strip_rows, piece_rows
    arguments = scores, labels, compiled.address, parameters, *sizes, counters, losses
    n_pieces = -(-n_rows // piece_rows)
    run(evaluate, arguments, n_threads, n_pieces if scores.size > 50_000 else 1)
    return losses

"""Numba's ``@njit(parallel=True)``: one pass over ``X``, plain loops, Numba's own threads.

The loops are in each loss's file (``softmax.softmax_parallel``). This module cuts the rows into
chunks, chooses the number of threads and adds the chunks' gradients up. It adds them in order and
in float64, so the result has the same bits for any number of threads.

The explicit vectors of ``backend="fused"`` are faster, and so is BLAS where classes are many: plain
loops do one multiply-add for each two numbers they load.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fastloss.arrays import Floats
from fastloss.backends.base import Backend, Problem
from fastloss.kernel_cache import numba_unavailable
from fastloss.losses.base import Labels, Loss
from fastloss.losses.jit import Jit, njit, numba_threads, prange, threads_to_use
from fastloss.losses.rows import finish_row
from fastloss.threads import available_threads

# Each chunk has a gradient of its own, which costs memory and time to add up.
_MAX_CHUNKS = 16
_MIN_CHUNK_ROWS = 64
_MAX_GRADIENT_BYTES = 256 * 2**20
_COPY_BYTES = 16 * 2**20
# Waking Numba's threads takes about 5 us, and this many multiply-adds take one thread as long.
_SERIAL_MULTIPLY_ADDS = 100_000
_SERIAL_SCORES = 10_000

_NO_WEIGHTS = np.empty(0)

loss_row: Any = None  # bound to the row function of a loss


@njit(parallel=True)
def score_rows(scores: Any, labels: Any, parameters: Any, losses: Any) -> None:
    """Write ``losses`` (N,) and turn ``scores`` (N, C) into their gradient."""
    for i in prange(len(scores)):
        row = scores[i]
        is_valid = True
        for c in range(len(row)):
            is_valid = is_valid and row[c] < math.inf
        loss = loss_row(row, labels[i], parameters)
        losses[i] = finish_row(row, loss, is_valid, 1.0)


class NumbaBackend(Backend):
    """``backend="numba"``."""

    name: ClassVar[str] = "numba"
    order: ClassVar[int] = 2

    def unavailable(self, loss: Loss | None = None) -> str | None:
        if (why_not := numba_unavailable()) is not None:
            return why_not
        if loss is not None and (loss.row is None or loss.parallel is None):
            return f"the loss {loss.name!r} has no row form for Numba"
        return None

    def evaluate(
        self, problem: Problem, W: Floats, dW: Floats | None, n_threads: int | None
    ) -> float:
        n_rows, n_features = problem.X.shape
        work = n_rows * W.size
        # Rows that do not follow each other in memory are copied, a few megabytes at a time.
        row_bytes = n_features * problem.X.itemsize
        is_whole = problem.X.flags.c_contiguous
        block_rows = n_rows if is_whole else max(1, _COPY_BYTES // row_bytes)
        W_T = np.zeros((W.shape[1], n_features + 1), W.dtype)
        W_T[:, : len(W)] = W.T
        total, gradient = 0.0, np.zeros(W_T.shape if dW is not None else (0, 0))
        for start in range(0, n_rows, block_rows):
            rows = slice(start, start + block_rows)
            losses, partials = self._run(problem, rows, W_T, gradient.shape, work, n_threads)
            for loss, partial in zip(losses.tolist(), partials, strict=True):
                total += loss
                gradient += partial
        if dW is not None:
            gradient /= problem.divisor
            with np.errstate(over="ignore"):  # inf, as in the arithmetic of the smaller type
                dW[...] = gradient.T[: len(W)]
        return total / problem.divisor

    def _run(
        self,
        problem: Problem,
        rows: slice,
        W_T: Floats,
        shape: tuple[int, ...],
        work: int,
        n_threads: int | None,
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The losses (K,) and gradients (K, C, D + 1) of chunks of rows."""
        X = np.ascontiguousarray(problem.X[rows])
        chunks = chunks_of(len(X), math.prod(W_T.shape))
        losses, partials = np.zeros(len(chunks)), np.zeros((len(chunks), *shape))
        weights = _NO_WEIGHTS if problem.weights is None else problem.weights[rows]
        arguments = (
            *(X, W_T, problem.labels[rows], weights, problem.loss.parameters),
            *(chunks, losses, partials),
        )
        function = problem.loss.parallel
        assert function is not None
        most = 1 if work < _SERIAL_MULTIPLY_ADDS else n_threads
        n_parameters = len(problem.loss.parameters)
        _call(function, (X.dtype, W_T.dtype, n_parameters), rows_kernel, arguments, most)
        return losses, partials

    def score_gradient(
        self, loss: Loss, scores: Floats, labels: Labels, n_threads: int | None
    ) -> tuple[Floats, Floats]:
        gradient, losses = np.array(scores, order="C"), np.empty(len(scores))
        function = _score_rows(loss)
        arguments = gradient, labels, loss.parameters, losses
        most = 1 if scores.size < _SERIAL_SCORES else n_threads
        _call(function, (scores.dtype, len(loss.parameters)), scores_kernel, arguments, most)
        return losses.astype(scores.dtype, copy=False), gradient


def chunks_of(n_rows: int, n_parameters: int) -> NDArray[np.int64]:
    """The first row of each chunk and the row after its last one (K, 2), from the shape alone."""
    affordable = max(1, _MAX_GRADIENT_BYTES // (8 * n_parameters))
    n_chunks = min(_MAX_CHUNKS, affordable, max(1, n_rows // _MIN_CHUNK_ROWS))
    edges = np.arange(n_chunks + 1) * n_rows // n_chunks
    return np.stack([edges[:-1], edges[1:]], axis=1)


def _call(
    function: Jit,
    key: tuple[Any, ...],
    kernel: Callable[..., Callable[..., None]],
    arguments: tuple[Any, ...],
    n_threads: int | None,
) -> None:
    """Call a compiled function on as many of Numba's threads as may be used."""
    n = threads_to_use(available_threads() if n_threads is None else n_threads)
    compiled = kernel(function, *key, n > 1)
    if n == 1:
        compiled(*arguments)
        return
    with numba_threads(n):
        compiled(*arguments)


def rows_kernel_name(
    function: Jit, X_type: np.dtype[Any], W_type: np.dtype[Any], n_parameters: int, parallel: bool
) -> str:
    """Return the name of `rows_kernel`, without importing Numba."""
    return function.name(str(X_type), str(W_type), n_parameters, parallel)


@cache
def rows_kernel(
    function: Jit, X_type: np.dtype[Any], W_type: np.dtype[Any], n_parameters: int, parallel: bool
) -> Callable[..., None]:
    """A loss's ``parallel`` function for the types of X and W, or its serial twin."""
    from numba import float64, from_dtype, int64, types

    number = from_dtype(W_type)
    signature = (
        _read_only(from_dtype(X_type), 2),
        _read_only(number, 2),
        _read_only(int64, 1),
        _read_only(float64, 1),
        types.UniTuple(float64, n_parameters),
        _read_only(int64, 2),
        float64[::1],
        float64[:, :, ::1],
    )
    name = rows_kernel_name(function, X_type, W_type, n_parameters, parallel)
    return function.compile(name, signature, parallel=parallel)


@cache
def _score_rows(loss: Loss) -> Jit:
    return score_rows.binding(loss_row=loss.row)


@cache
def scores_kernel(
    function: Jit, dtype: np.dtype[Any], n_parameters: int, parallel: bool
) -> Callable[..., None]:
    """`score_rows` for a loss and the type of the scores, or its serial twin."""
    from numba import float64, from_dtype, int64, types

    signature = (
        from_dtype(dtype)[:, ::1],
        _read_only(int64, 1),
        types.UniTuple(float64, n_parameters),
        float64[::1],
    )
    name = function.name(str(dtype), n_parameters, parallel)
    return function.compile(name, signature, parallel=parallel)


def _read_only(number: Any, n_dimensions: int) -> Any:
    from numba import types

    return types.Array(number, n_dimensions, "C", readonly=True)


BACKEND = NumbaBackend()

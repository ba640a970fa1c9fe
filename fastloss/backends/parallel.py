"""Run a loss with Numba's ``@njit(parallel=True)``: plain loops, one pass over ``X``.

The loops are in each loss's file (``softmax.softmax_parallel``). This module cuts the rows into
chunks, chooses the number of Numba's threads, and sums the chunks' gradients. It sums them in order
and in float64, so results have the same bits for any number of threads.

The explicit vectors of ``backend="fused"`` are faster. So is BLAS for many classes, because plain
loops load more numbers for each multiply-add.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fastloss.arrays import Floats, ieee_arithmetic
from fastloss.backends import cost_model
from fastloss.backends.base import Backend, Workload
from fastloss.blocks import row_blocks
from fastloss.kernel_cache import is_available, numba_unavailable, require_numba
from fastloss.losses.base import Labels, Loss
from fastloss.losses.jit import (
    Jit,
    may_run_parallel,
    njit,
    numba_threads,
    prange,
    threads_to_use,
)
from fastloss.losses.rows import all_below_infinity, finish_row
from fastloss.problem import Problem
from fastloss.threads import available_threads

# Each chunk has its own gradient, which costs memory and time to sum.
_MAX_CHUNKS = 16
_MIN_CHUNK_ROWS = 64
_MAX_GRADIENT_BYTES = 256 * 2**20
_COPY_BYTES = 16 * 2**20
# In larger blocks, each chunk would sum so many losses that rounding in float64 shows.
_MOST_ROWS = 2**20
# Waking Numba's threads and setting their number takes 30 us; this many multiply-adds, N * D * C,
# take one thread about twice as long.
_SERIAL_MULTIPLY_ADDS = 500_000
_SERIAL_SCORES = 10_000

_NO_WEIGHTS = np.empty(0)

loss_row: Any = None  # bound to the row function of a loss


@njit(parallel=True)
def score_rows(scores, labels, parameters, losses):
    """Write ``losses`` (N,) and turn ``scores`` (N, C) into their gradient."""
    for i in prange(len(scores)):
        row = scores[i]
        is_valid = all_below_infinity(row)
        loss = loss_row(row, labels[i], parameters)
        losses[i] = finish_row(row, loss, is_valid, 1.0)


class NumbaBackend(Backend):
    """``backend="numba"``."""

    name: ClassVar[str] = "numba"
    order: ClassVar[int] = 2
    same_bits: ClassVar[bool] = True

    def unavailable(self, loss: Loss | None = None) -> str | None:
        if (why_not := numba_unavailable()) is not None:
            return why_not
        if loss is not None and (loss.row is None or loss.parallel is None):
            return f"the loss {loss.name!r} has no row form for Numba"
        return None

    def predict(self, workload: Workload) -> dict[int, float]:
        if not workload.rows_contiguous:
            return {}  # the model does not cover copying such rows
        return cost_model.predict("numba", workload)

    def ready(self, workload: Workload) -> bool:
        return is_available(_kernel_of(workload).name)

    def make_ready(self, workload: Workload) -> None:
        compiled(_kernel_of(workload))

    def evaluate(
        self, problem: Problem, W: Floats, dW: Floats | None, n_threads: int | None
    ) -> float:
        require_numba(self.name)
        n_rows, n_features = problem.X.shape
        work = n_rows * W.size
        # Rows that the kernel cannot read in place are copied, a few megabytes at a time.
        X_type = _row_type(problem.X.dtype, W.dtype)
        is_whole = problem.X.flags.c_contiguous and problem.X.dtype == X_type
        row_bytes = 0 if is_whole else n_features * X_type.itemsize
        W_T = np.zeros((W.shape[1], n_features + 1), W.dtype)
        W_T[:, : len(W)] = W.T
        total, gradient = 0.0, np.zeros(W_T.shape if dW is not None else (0, 0))
        with ieee_arithmetic():
            for rows in row_blocks(n_rows, row_bytes, _COPY_BYTES, _MOST_ROWS):
                losses, partials = self._run(problem, rows, W_T, gradient.shape, work, n_threads)
                for loss, partial in zip(losses.tolist(), partials, strict=True):
                    total += loss
                    gradient += partial
            if dW is not None:
                gradient /= problem.divisor
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
        """Return the losses (K,) and gradients (K, C, D + 1) of chunks of rows."""
        X = np.ascontiguousarray(problem.X[rows], _row_type(problem.X.dtype, W_T.dtype))
        chunks = chunks_of(len(X), W_T.size)
        losses, partials = np.zeros(len(chunks)), np.zeros((len(chunks), *shape))
        weights = _NO_WEIGHTS if problem.weights is None else problem.weights[rows]
        arguments = (
            *(X, W_T, problem.labels[rows], weights, problem.loss.parameters),
            *(chunks, losses, partials),
        )
        is_small = work < _SERIAL_MULTIPLY_ADDS
        _call(problem.loss, X.dtype, W_T.dtype, arguments, 1 if is_small else n_threads)
        return losses, partials

    def score_gradient(
        self, loss: Loss, scores: Floats, labels: Labels, n_threads: int | None
    ) -> tuple[Floats, Floats]:
        require_numba(self.name)
        gradient, losses = np.array(scores, order="C"), np.empty(len(scores))
        arguments = gradient, labels, loss.parameters, losses
        is_small = scores.size < _SERIAL_SCORES
        _call(loss, None, scores.dtype, arguments, 1 if is_small else n_threads)
        return losses.astype(scores.dtype, copy=False), gradient


@lru_cache(maxsize=64)
def chunks_of(n_rows: int, n_parameters: int) -> NDArray[np.int64]:
    """Return each chunk's first row and end row (K, 2), from the shape alone."""
    affordable = max(1, _MAX_GRADIENT_BYTES // (8 * n_parameters))
    n_chunks = min(_MAX_CHUNKS, affordable, max(1, n_rows // _MIN_CHUNK_ROWS))
    edges = np.arange(n_chunks + 1) * n_rows // n_chunks
    chunks = np.stack([edges[:-1], edges[1:]], axis=1)
    chunks.setflags(write=False)
    return chunks


def _call(
    loss: Loss,
    X_type: np.dtype[Any] | None,
    W_type: np.dtype[Any],
    arguments: tuple[Any, ...],
    n_threads: int | None,
) -> None:
    """Call a kernel on as many Numba threads as allowed."""
    n = threads_to_use(available_threads() if n_threads is None else n_threads)
    function = compiled(_kernel(loss, X_type, W_type, n > 1))
    if n == 1:
        function(*arguments)
        return
    with numba_threads(n):
        function(*arguments)


# --- kernels --------------------------------------------------------------------------------------


def _row_type(X_type: np.dtype[Any], W_type: np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype of the rows that a kernel reads: Numba has no float16 on CPUs."""
    return W_type if X_type == np.float16 else X_type


@dataclass(frozen=True)
class Kernel:
    """A function for one dtype of X (None if scores are given) and one dtype of W."""

    function: Jit
    X_type: np.dtype[Any] | None
    W_type: np.dtype[Any]
    n_parameters: int
    is_parallel: bool

    @cached_property
    def name(self) -> str:
        """Return the name in `kernel_cache`, without importing Numba."""
        types = str(self.X_type), str(self.W_type)
        return self.function.name(*types, self.n_parameters, self.is_parallel)


def _kernel(
    loss: Loss, X_type: np.dtype[Any] | None, W_type: np.dtype[Any], is_parallel: bool
) -> Kernel:
    function = loss.parallel if X_type is not None else _score_rows(loss.row)
    assert function is not None
    return Kernel(function, X_type, W_type, len(loss.parameters), is_parallel)


def _kernel_of(workload: Workload) -> Kernel:
    n_rows, n_features, n_classes = workload.shape
    X_type = _row_type(workload.X_type, workload.W_type) if n_features > 0 else None
    work = n_rows * n_classes * max(1, n_features)
    is_small = work < (_SERIAL_MULTIPLY_ADDS if n_features > 0 else _SERIAL_SCORES)
    is_parallel = not is_small and may_run_parallel(workload.n_threads)
    return _kernel(workload.loss, X_type, workload.W_type, is_parallel)


@cache
def _score_rows(row: Jit) -> Jit:
    return score_rows.binding(loss_row=row)


@cache
def compiled(kernel: Kernel) -> Callable[..., None]:
    """Return the kernel compiled, as a function that Python can call."""
    from numba import float64, from_dtype, int64, types

    def read_only(number: Any, n_dimensions: int) -> Any:
        return types.Array(number, n_dimensions, "C", readonly=True)

    number = from_dtype(kernel.W_type)
    parameters = types.UniTuple(float64, kernel.n_parameters)
    labels, losses = read_only(int64, 1), float64[::1]
    signature: tuple[Any, ...]
    if kernel.X_type is None:
        signature = number[:, ::1], labels, parameters, losses
    else:
        signature = (
            *(read_only(from_dtype(kernel.X_type), 2), read_only(number, 2)),
            *(labels, read_only(float64, 1), parameters),
            *(read_only(int64, 2), losses, float64[:, :, ::1]),
        )
    return kernel.function.compile(kernel.name, signature, parallel=kernel.is_parallel)


BACKEND = NumbaBackend()

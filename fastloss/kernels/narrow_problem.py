"""Lay out a problem of few classes and call `kernels.narrow` for it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastloss.arrays import Floats
from fastloss.kernels.loss_entry import loss_kernel
from fastloss.kernels.narrow import SUM_ROWS, narrow_kernel
from fastloss.kernels.rows import stored_type
from fastloss.kernels.run import (
    ALL_ROWS,
    CACHE_LINE,
    CALLS,
    NOTHING,
    SERIAL_MULTIPLY_ADDS,
    round_up,
    run,
    scratch,
)
from fastloss.problem import Problem

# A block of this size, the next block, W and the partial gradient fit in L2 together.
BLOCK_BYTES = 256 * 1024
MAX_BLOCK_ROWS = 128
# Each chunk has a partial gradient, which costs memory and time to add up.
MAX_CHUNKS = 32
MIN_CHUNK_ROWS = 128
MAX_PARTIAL_BYTES = 64 * 2**20

_NO_TOTALS = np.empty((0, 0, 0))


class Partition(NamedTuple):
    """The cut of a problem's rows into chunks, and of chunks into blocks."""

    block_rows: int
    chunk_rows: int
    partials_shape: tuple[int, int, int]  # chunks, classes, features and the bias (padded)


@lru_cache(maxsize=256)
def partition(n_rows: int, n_features: int, n_classes: int, itemsize: int) -> Partition:
    """Cut the rows of a problem by its shape alone, so that bits do not depend on threads.

    Features are padded to whole vectors. A chunk has enough work to be worth
    a thread.
    """
    lanes = CACHE_LINE // itemsize
    n_columns = round_up(n_features, lanes) + lanes
    fitting = BLOCK_BYTES // (n_features * itemsize) // lanes * lanes
    block_rows = min(max(fitting, lanes), MAX_BLOCK_ROWS)
    affordable = max(2, MAX_PARTIAL_BYTES // (n_classes * n_columns * itemsize))
    n_chunks = min(max(1, n_rows // MIN_CHUNK_ROWS), affordable, MAX_CHUNKS)
    if 2 * n_rows * n_features * n_classes < SERIAL_MULTIPLY_ADDS:
        n_chunks = 1
    chunk_rows = -(-n_rows // n_chunks)
    n_chunks = -(-n_rows // chunk_rows)
    return Partition(block_rows, chunk_rows, (n_chunks, n_classes, n_columns))


class FewClasses(ABC):
    """A problem laid out for a kernel of few classes."""

    def __init__(self, problem: Problem, n_classes: int, dtype: np.dtype[Any]) -> None:
        self._loss = loss_kernel(problem.loss, dtype)  # kept, so that its address stays valid
        self._divisor = problem.divisor
        self._X = problem.X.view(stored_type(problem.X.dtype))
        self._labels = problem.labels
        self._weights = NOTHING if problem.weights is None else problem.weights
        self._of_loss = 1 / problem.divisor, self._loss.address, np.array(problem.loss.parameters)
        self._no_gradient = np.empty((0, n_classes), dtype)

    def __call__(self, W: Floats, dW: Floats | None, n_threads: int | None) -> float:
        return self.of_rows(ALL_ROWS, W, dW, n_threads)

    @abstractmethod
    def of_rows(
        self,
        rows: NDArray[np.int64],
        W: Floats,
        dW: Floats | None,
        n_threads: int | None,
        next_rows: NDArray[np.int64] = ALL_ROWS,
    ) -> float:
        """Evaluate the loss of ``rows``, and its gradient unless ``dW`` is None."""

    def _inputs(self, rows: NDArray[np.int64], W: Floats) -> tuple[Any, ...]:
        """Return the kernel's first arguments; see `compile.problem_types`."""
        W = W if W.flags.c_contiguous else np.ascontiguousarray(W)
        return self._X, W, self._labels, self._weights, rows, *self._of_loss


class Narrow(FewClasses):
    """A problem laid out for the narrow kernel, for calls on ``n_rows`` of its rows (None: all)."""

    def __init__(
        self, problem: Problem, n_classes: int, dtype: np.dtype[Any], n_rows: int | None = None
    ) -> None:
        super().__init__(problem, n_classes, dtype)
        self._kernel = narrow_kernel(problem.X.dtype, dtype)
        n_all, n_features = problem.X.shape
        self._cut = cut = partition(n_rows or n_all, n_features, n_classes, dtype.itemsize)
        self._sizes = cut.chunk_rows, cut.block_rows, CALLS.ctypes.data

    def of_rows(
        self,
        rows: NDArray[np.int64],
        W: Floats,
        dW: Floats | None,
        n_threads: int | None,
        next_rows: NDArray[np.int64] = ALL_ROWS,
    ) -> float:
        n_chunks, n_classes, n_columns = self._cut.partials_shape
        shape = (n_chunks, n_classes, 0 if dW is None else n_columns)
        totals = _NO_TOTALS
        if dW is not None and self._cut.chunk_rows > SUM_ROWS:
            totals = np.empty(shape)
        chunk_losses = np.empty(n_chunks)
        arguments = (
            *self._inputs(rows, W),
            *self._sizes,
            next_rows,
            np.zeros(4, np.int64),
            scratch.array(shape, W.dtype),
            totals,
            chunk_losses,
            self._no_gradient if dW is None else dW,
        )
        run(self._kernel, arguments, n_threads, n_chunks)
        return float(sum(chunk_losses.tolist())) / self._divisor

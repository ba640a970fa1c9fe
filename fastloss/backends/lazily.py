"""Prepare problems whose rows are a `LazyRows`: blocks of rows are made, then evaluated.

Any backend evaluates a block, in memory that is used again for the next block. Blocks are cut by
the shape alone, and their gradients are added in float64 in the order of the rows. So results have
the same bits on any number of threads if the backend's do. The system reads the next block of a
mapped file meanwhile.
"""

from __future__ import annotations

import numpy as np

from fastloss.arrays import Floats
from fastloss.backends.base import Backend, Gathered
from fastloss.passes import pass_over
from fastloss.problem import BatchEvaluator, Evaluator, Problem
from fastloss.rows_on_disk import LazyRows

#: Large enough for every backend to run at full speed.
BLOCK_BYTES = 16 * 2**20
# A block has at least this many times the bytes of W; adding its gradient then costs little.
_WEIGHTS_A_BLOCK = 4


def prepare(
    backend: Backend, problem: Problem, n_classes: int, dtype: np.dtype[np.generic]
) -> Evaluator:
    """Return `Backend.prepare` of any rows."""
    if isinstance(problem.X, LazyRows):
        return _InBlocks(backend, problem, n_classes, dtype)
    return backend.prepare(problem, n_classes, dtype)


def prepare_batches(
    backend: Backend, problem: Problem, n_rows: int, n_classes: int, dtype: np.dtype[np.generic]
) -> BatchEvaluator:
    """Return `Backend.prepare_batches` of any rows."""
    if isinstance(problem.X, LazyRows):
        return Gathered(backend, problem, n_rows, n_classes, dtype)
    return backend.prepare_batches(problem, n_rows, n_classes, dtype)


class _InBlocks:
    """An `Evaluator` that adds up the losses and gradients of blocks."""

    def __init__(
        self, backend: Backend, problem: Problem, n_classes: int, dtype: np.dtype[np.generic]
    ) -> None:
        self._X = problem.X
        n_rows, n_features = problem.X.shape
        self._row_bytes = n_features * dtype.itemsize
        self._n_bytes = max(BLOCK_BYTES, _WEIGHTS_A_BLOCK * n_classes * self._row_bytes)
        n_most = min(n_rows, max(1, self._n_bytes // self._row_bytes))
        self._of_size = {
            n: Gathered(backend, problem, n, n_classes, dtype)
            for n in {n_most, n_rows % n_most or n_most}
        }

    def __call__(self, W: Floats, dW: Floats | None, n_threads: int | None) -> float:
        loss, total = 0.0, np.zeros(W.shape if dW is not None else 0)
        for rows in pass_over(self._X, self._row_bytes, self._n_bytes):
            loss += self._of_size[rows.stop - rows.start](rows, W, dW, n_threads)
            if dW is not None:
                total += dW
        if dW is not None:
            dW[...] = total
        return loss

"""Lay out a problem of few rows and call `kernels.few_rows` for it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastloss.arrays import Floats
from fastloss.kernels.few_rows import few_rows_kernel
from fastloss.kernels.narrow_problem import FewClasses
from fastloss.kernels.run import (
    ALL_ROWS,
    CACHE_LINE,
    SERIAL_MULTIPLY_ADDS,
    round_up,
    run,
    scratch,
)
from fastloss.problem import Problem

# Memory is read in long runs, but not of whole pages: sums a page apart would compete for the same
# cache sets.
PIECE_BYTES = 3840
# Enough pieces for the threads, and few enough to add up their scores.
MIN_PIECES, MAX_PIECES = 8, 64
# Laying out weights and writing their gradient takes as long as the products of this many rows.
ROWS_OF_WEIGHTS = 12


def piece_features(n_features: int, itemsize: int) -> int:
    """Return the features of a piece: whole strips of the gradient."""
    piece = max(1, min(PIECE_BYTES // itemsize, n_features // MIN_PIECES), n_features // MAX_PIECES)
    return round_up(piece, 4 * CACHE_LINE // itemsize)


class FewRows(FewClasses):
    """A problem laid out for the kernel, for calls on ``n_rows`` of its rows (None: all)."""

    def __init__(
        self, problem: Problem, n_classes: int, dtype: np.dtype[Any], n_rows: int | None = None
    ) -> None:
        super().__init__(problem, n_classes, dtype)
        self._kernel = few_rows_kernel(problem.X.dtype, dtype)
        n_all, n_features = problem.X.shape
        n_used = n_rows or n_all
        self._piece = piece_features(n_features, dtype.itemsize)
        n_pieces = -(-n_features // self._piece)
        self._scores = n_pieces, n_classes, round_up(n_used, CACHE_LINE // dtype.itemsize)
        multiply_adds = 2 * (n_used + ROWS_OF_WEIGHTS) * n_features * n_classes
        self._most_threads = 1 if multiply_adds < SERIAL_MULTIPLY_ADDS else n_pieces

    def of_rows(
        self,
        rows: NDArray[np.int64],
        W: Floats,
        dW: Floats | None,
        n_threads: int | None,
        next_rows: NDArray[np.int64] = ALL_ROWS,
    ) -> float:
        total = np.empty(1)
        arguments = (
            *self._inputs(rows, W),
            self._piece,
            np.zeros(5, np.int64),
            scratch.array(self._scores, W.dtype),
            total,
            self._no_gradient if dW is None else dW,
        )
        run(self._kernel, arguments, n_threads, self._most_threads)
        return float(total[0]) / self._divisor

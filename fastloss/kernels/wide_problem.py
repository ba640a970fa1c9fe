"""Lay out a problem of many classes and call `kernels.wide` for it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastloss import threads
from fastloss.arrays import Floats
from fastloss.kernel_cache import cpu_features
from fastloss.kernels import wide, wide_amx
from fastloss.kernels.limits import LIMITS, Limits
from fastloss.kernels.loss_entry import loss_kernel
from fastloss.kernels.matrix_unit import is_allowed
from fastloss.kernels.rows import stored_type
from fastloss.kernels.run import (
    ALL_ROWS,
    NOTHING,
    SERIAL_MULTIPLY_ADDS,
    round_up,
    run,
    scratch,
)
from fastloss.problem import Problem

# Bytes of a strip of two vectors on AVX-512. Rows are padded to whole strips.
STRIP_BYTES = 128
# Number of rows whose gradients are summed in the dtype of W before adding to float64.
SUM_ROWS = 32 * 1024


class Wide:
    """A problem laid out for the wide kernel, for calls on ``n_rows`` of its rows (None: all)."""

    def __init__(
        self,
        problem: Problem,
        n_classes: int,
        dtype: np.dtype[Any],
        n_rows: int | None = None,
        limits: Limits = LIMITS,
    ) -> None:
        self._loss = loss_kernel(problem.loss, dtype)  # kept, so that its address stays valid
        self._problem = problem
        self._X = problem.X.view(stored_type(problem.X.dtype))
        self._fixed = (
            1.0 / problem.divisor,
            self._loss.address,
            np.array(problem.loss.parameters),
        )
        self._weights = NOTHING if problem.weights is None else problem.weights
        n_rows, n_features = n_rows or len(problem.X), problem.X.shape[1]
        self._n_parameters = n_parameters = n_features + problem.intercept
        self._units = units(n_rows, n_parameters, dtype, limits)
        unit = self._units[0]
        self._widths = strip, _ = wide_kernel(problem.X.dtype, dtype, unit).widths
        row_numbers = self._columns(unit) + n_classes
        # Vectors multiply more slowly, so that a smaller block has enough work for its stages.
        block_bytes = limits.block_bytes // (1 if unit == "amx" else 2)
        most = max(block_bytes // (row_numbers * dtype.itemsize), limits.block_rows)
        self._block_rows = rows_of_block(n_rows, most, n_classes * dtype.itemsize, strip, limits)
        self._is_serial = n_rows * n_parameters * n_classes < SERIAL_MULTIPLY_ADDS / 2
        self._no_gradient = np.empty((0, n_classes), dtype)

    def __call__(self, W: Floats, dW: Floats | None, n_threads: int | None) -> float:
        return self.of_rows(ALL_ROWS, W, dW, n_threads)

    def of_rows(
        self,
        rows: NDArray[np.int64],
        W: Floats,
        dW: Floats | None,
        n_threads: int | None,
        next_rows: object = None,
    ) -> float:
        W = np.ascontiguousarray(W)
        n_rows = len(rows) or len(self._problem.X)
        losses = np.zeros(n_rows)
        n_threads = 1 if self._is_serial else n_threads or threads.available_threads()
        total: NDArray[np.float64] | None = None
        n_summed = 0
        # Once for all blocks: touching fresh pages of a large one takes long.
        room = self._room(min(n_rows, self._block_rows), W)
        for start in range(0, n_rows, self._block_rows):
            stop = min(n_rows, start + self._block_rows)
            is_new = n_summed == 0
            for unit in self._units:
                if self.run_block(unit, rows, W, start, stop, is_new, losses, dW, n_threads, room):
                    break
            n_summed += stop - start
            if dW is not None and n_summed >= SUM_ROWS and stop < n_rows:
                total, n_summed = dW + (np.zeros(dW.shape) if total is None else total), 0
        if dW is not None and total is not None:
            dW[...] = total + dW
        return float(losses.sum()) / self._problem.divisor

    def run_block(
        self,
        unit: str,
        rows: NDArray[np.int64],
        W: Floats,
        start: int,
        stop: int,
        is_new: bool,
        losses: NDArray[np.float64],
        dW: Floats | None,
        n_threads: int,
        room: Floats,
    ) -> bool:
        """Evaluate rows on a unit; return whether their numbers are in its range.

        If not, ``dW`` is untouched, and another unit must write the losses again.
        """
        problem = self._problem
        kernel = wide_kernel(problem.X.dtype, W.dtype, unit)
        strips, scores = self._arrays(self._columns(unit), stop - start, W.shape[1], room)
        are_bad = np.empty(scores.shape[::2], W.dtype)
        for stage in range(3 if dW is None else 4):
            counters = np.zeros(3, np.int64)
            arguments = (
                stage,
                self._X,
                W,
                problem.labels,
                self._weights,
                rows,
                *self._fixed,
                start,
                stop,
                is_new,
                strips,
                scores,
                are_bad,
                counters,
                losses,
                self._no_gradient if dW is None else dW,
                n_threads,
            )
            run(kernel, arguments, n_threads)
            if not wide_amx.is_in_range(int(counters[2]), stage):
                return False
        return True

    def _columns(self, unit: str) -> int:
        """Return the number of columns of a strip of X."""
        strip, tile_rows = self._widths
        if unit == "amx":
            # Blocks of bfloat16: half the bytes for each part.
            n_parts = wide_amx.parts_of(self._problem.X.dtype)
            return n_parts * round_up(self._n_parameters, strip) // 2
        # One more feature, 0, makes the number of terms even. Further columns keep a tile's rows of
        # successive strips from evicting each other from the cache.
        period = 4096 // STRIP_BYTES
        return self._n_parameters + 1 + (tile_rows - self._n_parameters - 1) % period

    def _room(self, n_rows: int, W: Floats) -> Floats:
        """Return memory for a block of ``n_rows`` on any unit."""
        strip, tile_rows = self._widths
        n_columns = max(map(self._columns, self._units)) + W.shape[1]
        # Vectors may read beyond the strips and the scores.
        return scratch.array(((-(-n_rows // strip) * n_columns + tile_rows) * strip,), W.dtype)

    def _arrays(
        self, n_columns: int, n_rows: int, n_classes: int, room: Floats
    ) -> tuple[Floats, Floats]:
        """Return a block's strips of X and scores."""
        strip, _ = self._widths
        n_strips = -(-n_rows // strip)
        n_used = n_strips * n_columns * strip
        return (
            room[:n_used].reshape(n_strips, n_columns, strip),
            room[n_used:][: n_strips * n_classes * strip].reshape(n_strips, n_classes, strip),
        )


def units(
    n_rows: float, n_parameters: float, dtype: np.dtype[Any], limits: Limits = LIMITS
) -> tuple[str, ...]:
    """Return the units for the products, in the order in which they are tried.

    If a block holds numbers out of the matrix unit's range, the vectors evaluate it.
    """
    pays = n_rows >= limits.matrix_rows and n_parameters >= limits.matrix_sum
    if not pays or "amx" not in units_without_numba(dtype):
        return ("vectors",)
    from fastloss.kernels import amx

    return ("amx", "vectors") if amx.is_usable() else ("vectors",)


def rows_of_block(n_rows: int, most: int, score_bytes: int, strip: int, limits: Limits) -> int:
    """Return the rows of a block, from the shape alone: whole strips, in blocks of similar size.

    A block has at most ``most`` rows, with ``score_bytes`` bytes of scores each.
    """
    if n_rows * score_bytes > limits.scores_bytes:
        most = min(most, -(-n_rows // 5))
    return round_up(-(-n_rows // -(-n_rows // most)), strip)


def wide_kernel(X_type: np.dtype[Any], W_type: np.dtype[Any], unit: str) -> Any:
    """Return the kernel for a unit, "amx" or "vectors"."""
    return wide_amx.amx_kernel(X_type) if unit == "amx" else wide.vectors_kernel(X_type, W_type)


def wide_kernels(X_type: np.dtype[Any], W_type: np.dtype[Any]) -> None:
    """Compile for every unit: a problem may fall back from one to another."""
    for unit in units(math.inf, math.inf, W_type):
        wide_kernel(X_type, W_type, unit)


def has_matrix_unit() -> bool:
    """Return whether the CPU has a matrix unit, without asking for permission to use it."""
    return {"avx512f", "amx_tile", "amx_bf16"} <= cpu_features()


def units_without_numba(W_type: np.dtype[Any]) -> tuple[str, ...]:
    """Return the `units` for the largest problems, without importing Numba."""
    is_used = W_type == np.float32 and has_matrix_unit() and is_allowed()
    return ("amx", "vectors") if is_used else ("vectors",)

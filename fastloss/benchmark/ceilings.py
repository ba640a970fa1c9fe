"""How fast the machine can go at best: reading memory, and multiplying and adding.

Imported in the processes that measure it, because it imports Numba.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from fastloss.benchmark.measure import time_calls


@dataclass(frozen=True)
class BandwidthTask:
    """Bytes a second that ``n_bytes`` can be read with, again and again, by all threads."""

    n_bytes: int
    seconds: float = 0.3

    def bind(self) -> Callable[[], float]:
        return partial(_bandwidth, np.ones(max(1, self.n_bytes // 4), np.float32), self.seconds)


@dataclass(frozen=True)
class ArithmeticTask:
    """Floating-point operations a second (2 a multiply-add) of a square matrix product in BLAS."""

    dtype: str
    seconds: float = 0.3
    order: int = 1536

    def bind(self) -> Callable[[], float]:
        a = np.ones((self.order, self.order), self.dtype)
        product = partial(np.matmul, a, a, np.empty_like(a))
        return lambda: 2.0 * self.order**3 / _best(product, self.seconds)


def _best(call: Callable[[], Any], seconds: float) -> float:
    """Shortest time of the call: a ceiling is what the machine can do undisturbed."""
    call()
    best = np.inf
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        best = min(best, time_calls(call, 1))
    return float(best)


def _bandwidth(values: NDArray[np.float32], seconds: float) -> float:
    # Small arrays are read several times a launch, or the launch itself would be measured.
    n_repeats = max(1, 2**24 // values.nbytes)
    # A cache line of its own for the sum of each thread.
    sums = np.zeros((numba.get_num_threads(), 16), np.float32)
    best = _best(partial(sum_chunks, values, sums, n_repeats), seconds)
    return n_repeats * values.nbytes / best


@numba.njit(parallel=True, fastmath=True)  # type: ignore[untyped-decorator]
def sum_chunks(values: Any, sums: Any, n_repeats: int) -> None:
    """Add the sum of each of ``len(sums)`` chunks to ``sums[:, 0]``, ``n_repeats`` times."""
    n_chunks = sums.shape[0]
    for k in numba.prange(n_chunks):
        chunk = values[k * values.shape[0] // n_chunks : (k + 1) * values.shape[0] // n_chunks]
        for _ in range(n_repeats):
            total = np.float32(0)
            for i in range(chunk.shape[0]):
                total += chunk[i]
            # Stored every time, so that no repetition can be left out.
            sums[k, 0] += total

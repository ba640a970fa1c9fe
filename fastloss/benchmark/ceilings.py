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
from numba import float32, from_dtype, int64, void
from numba.extending import intrinsic
from numpy.typing import NDArray

from fastloss.benchmark.measure import time_calls
from fastloss.kernel_cache import compile_cached, kernel_name
from fastloss.kernels.simd.emitter import INT64, emitter
from fastloss.kernels.simd.target import target


@dataclass(frozen=True)
class BandwidthTask:
    """Bytes a second that ``n_bytes`` can be read with, again and again, by all threads."""

    n_bytes: int
    seconds: float = 0.3

    def bind(self) -> Callable[[], float]:
        return partial(_bandwidth, np.ones(max(1, self.n_bytes // 4), np.float32), self.seconds)


@dataclass(frozen=True)
class ArithmeticTask:
    """Floating-point operations a second (2 a multiply-add), by all threads.

    The higher of two: a square matrix product in BLAS, and multiply-adds whose numbers stay in
    registers. BLAS is slow where it does not know the CPU, and faster where its kernels use more
    than vectors.
    """

    dtype: str
    seconds: float = 0.3
    order: int = 1536

    def bind(self) -> Callable[[], float]:
        return lambda: max(self._product(), self._in_registers())

    def _product(self) -> float:
        a = np.ones((self.order, self.order), self.dtype)
        product = partial(np.matmul, a, a, np.empty_like(a))
        return 2.0 * self.order**3 / _best(product, self.seconds)

    def _in_registers(self) -> float:
        lanes = target().vector_bytes // np.dtype(self.dtype).itemsize
        sums = np.zeros((numba.get_num_threads(), _N_SUMS * lanes), self.dtype)
        add = _compiled(multiply_adds, (from_dtype(sums.dtype)[:, ::1], int64))
        seconds = _best(partial(add, sums, _N_ROUNDS), self.seconds)
        return 2.0 * sums.size * _N_ROUNDS / seconds


# Enough sums to keep two units busy for the four or five cycles that one multiply-add takes, and
# few enough for the sixteen registers of AVX2. The rounds take less than a millisecond.
_N_SUMS, _N_ROUNDS = 12, 40_000


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
    add = _compiled(sum_chunks, (float32[::1], float32[:, ::1], int64), fastmath=True)
    best = _best(partial(add, values, sums, n_repeats), seconds)
    return n_repeats * values.nbytes / best


def _compiled(function: Any, signature: tuple[Any, ...], **options: Any) -> Any:
    """Compile for Numba's threads, or load from the cache: every run measures ceilings."""
    name = kernel_name(function.__name__, function, signature)
    return compile_cached(function, name, signature, numba.njit, parallel=True, **options)


def multiply_adds(sums: Any, n_rounds: int) -> None:
    """Add products to the numbers of ``sums``, a row a thread, ``n_rounds`` times."""
    for k in numba.prange(len(sums)):
        _multiply_adds(sums[k], n_rounds)


@intrinsic  # type: ignore[untyped-decorator]
def _multiply_adds(typing_context: Any, sums: Any, n_rounds: Any) -> Any:
    """Add a product to each of `_N_SUMS` vectors, ``n_rounds`` times, in registers."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        view = context.make_array(signature.args[0])(context, builder, values[0])
        e = emitter(context, builder, signature.args[0].dtype)
        start = builder.ptrtoint(view.data, INT64)
        places = [builder.add(start, INT64(k * e.vector_bytes)) for k in range(_N_SUMS)]
        # From memory: a compiler that knew the factors, or that sums are alike, would do less.
        a, b = e.load(places[0]), e.load(places[1])
        totals = e.loop(
            values[1],
            [e.load(place) for place in places],
            lambda i, totals: [e.multiply_add(a, b, total) for total in totals],
        )
        for total, place in zip(totals, places, strict=True):
            e.store(total, place)
        return context.get_dummy_value()

    return void(sums, int64), generate


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

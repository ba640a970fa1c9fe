"""Measure the machine's ceilings: memory bandwidth and arithmetic speed.

Only the measuring processes import this module, because it imports Numba. Each thread runs compiled
code without Python's lock. Numba's own threads would do as well on an idle machine. On a busy one
they spin at the end of each call, for milliseconds if two share a core.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
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
from fastloss.settings import threads_to_use

# The fewest bytes that a call reads, and its rounds of additions. Both take milliseconds, so the
# 0.1 ms to start threads is negligible.
_MIN_BYTES = 2**28
_N_ROUNDS = 200_000
# Enough sums to keep two units busy during the four or five cycles of one multiply-add, and few
# enough for AVX2's sixteen registers.
_N_SUMS = 12


@dataclass(frozen=True)
class BandwidthTask:
    """Bytes per second at which all threads together read ``n_bytes`` again and again."""

    n_bytes: int
    seconds: float = 1.0

    def bind(self) -> Callable[[], float]:
        return partial(_bandwidth, np.ones(max(1, self.n_bytes // 4), np.float32), self.seconds)


@dataclass(frozen=True)
class ArithmeticTask:
    """Floating-point operations per second of all threads (a multiply-add counts as 2).

    The higher of two speeds: a square matrix product in BLAS, and multiply-adds in registers. BLAS
    is slower if it does not know the CPU, and faster if its kernels use a matrix unit.
    """

    dtype: str
    seconds: float = 1.0
    order: int = 1536

    def bind(self) -> Callable[[], float]:
        return lambda: max(self.in_blas(), self.in_registers())

    def in_blas(self) -> float:
        """Return the speed of a matrix product."""
        a = np.ones((self.order, self.order), self.dtype)
        product = partial(np.matmul, a, a, np.empty_like(a))
        return 2.0 * self.order**3 / _best(product, self.seconds)

    def in_registers(self) -> float:
        """Return the speed of multiply-adds that never wait for memory."""
        lanes = target().vector_bytes // np.dtype(self.dtype).itemsize
        sums = np.zeros((threads_to_use(), _N_SUMS * lanes), self.dtype)
        add = _compiled(multiply_adds, (from_dtype(sums.dtype)[::1], int64))
        seconds = _best_in_threads([partial(add, each, _N_ROUNDS) for each in sums], self.seconds)
        return 2.0 * sums.size * _N_ROUNDS / seconds


def _bandwidth(values: NDArray[np.float32], seconds: float) -> float:
    # Read small arrays several times per call: starting the threads would dominate otherwise.
    n_repeats = max(1, _MIN_BYTES // values.nbytes)
    chunks = np.array_split(values, threads_to_use())
    read = _compiled(read_chunk, (float32[::1], int64), fastmath=True)
    best = _best_in_threads([partial(read, chunk, n_repeats) for chunk in chunks], seconds)
    return n_repeats * values.nbytes / best


def _best_in_threads(calls: list[Callable[[], Any]], seconds: float) -> float:
    """Return the shortest time of all calls together, each in its own thread."""
    with ThreadPoolExecutor(len(calls)) as pool:
        return _best(lambda: list(pool.map(lambda call: call(), calls)), seconds)


def _best(call: Callable[[], Any], seconds: float) -> float:
    """Return the shortest time of the call: a ceiling is the undisturbed machine's speed."""
    call()
    best = np.inf
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        best = min(best, time_calls(call, 1))
    return float(best)


def _compiled(function: Any, signature: tuple[Any, ...], **options: Any) -> Any:
    """Compile a function, or load it from the cache: every run measures ceilings."""
    name = kernel_name(function.__name__, function, signature)
    return compile_cached(function, name, signature, numba.njit, **options)


def read_chunk(chunk: Any, n_repeats: int) -> float:
    """Return ``n_repeats`` times the sum of a chunk."""
    sums = np.zeros(n_repeats, np.float32)
    for k in range(n_repeats):
        total = np.float32(0)
        for i in range(len(chunk)):
            total += chunk[i]
        # Stored each time, so that the compiler cannot drop a repetition.
        sums[k] = total
    return float(sums.sum())


def multiply_adds(sums: Any, n_rounds: int) -> None:
    """Add a product to each number of ``sums``, ``n_rounds`` times."""
    _multiply_adds(sums, n_rounds)


@intrinsic  # type: ignore[untyped-decorator]
def _multiply_adds(typing_context: Any, sums: Any, n_rounds: Any) -> Any:
    """Add a product to each of `_N_SUMS` vectors, ``n_rounds`` times, in registers."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        view = context.make_array(signature.args[0])(context, builder, values[0])
        e = emitter(context, builder, signature.args[0].dtype)
        start = builder.ptrtoint(view.data, INT64)
        places = [builder.add(start, INT64(k * e.vector_bytes)) for k in range(_N_SUMS)]
        # Loaded from memory: a compiler that knew the factors, or equal sums, would drop work.
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

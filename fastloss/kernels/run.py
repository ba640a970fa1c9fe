"""Run a kernel on threads, and keep scratch memory between calls."""

from __future__ import annotations

import math
import sys
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastloss import threads
from fastloss.arrays import Floats

CACHE_LINE = 64
#: Below this, waking a second thread takes longer than the work it would do.
SERIAL_MULTIPLY_ADDS = 3 * 2**20

NOTHING = np.empty(0)
ALL_ROWS = np.empty(0, np.int64)
#: Number of calls of kernels for which helpers wait, alone in a cache line: see `rows.leave`.
CALLS = np.zeros(2 * CACHE_LINE // 8, np.int64)[CACHE_LINE // 8 :]


def run(
    function: Callable[..., bool],
    arguments: tuple[Any, ...],
    n_threads: int | None,
    most: int = sys.maxsize,
) -> None:
    """Run a kernel on ``n_threads`` (None: all available), but on at most ``most``."""
    # Counting the available threads takes longer than some calls on one thread.
    if most > 1:
        most = min(most, threads.available_threads() if n_threads is None else n_threads)
    if most > 1:
        threads.team.run(function, arguments, most)
    else:
        function(*arguments)


def round_up(number: int, multiple: int) -> int:
    """Return the least multiple of ``multiple`` that is at least ``number``."""
    return -(-number // multiple) * multiple


class _Scratch(threading.local):
    """Memory that a thread keeps for its next call; fresh pages would cost a tenth of a call."""

    _MAX_BYTES = 16 * 2**20

    def __init__(self) -> None:
        self._buffer = _aligned(0)
        self._last: Floats = np.empty(0)

    def array(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Floats:
        """Return an uninitialised array that begins on a cache line."""
        last = self._last
        if last.shape == shape and last.dtype == dtype:
            return last
        n_bytes = math.prod(shape) * dtype.itemsize
        buffer = self._buffer
        if len(buffer) < n_bytes:
            buffer = _aligned(n_bytes)
            if n_bytes <= self._MAX_BYTES:
                self._buffer = buffer
        array: Floats = np.ndarray(shape, dtype, buffer)
        if buffer is self._buffer:
            self._last = array
        return array


def _aligned(n_bytes: int) -> NDArray[np.uint8]:
    buffer = np.empty(n_bytes + CACHE_LINE, np.uint8)
    start = -buffer.ctypes.data % CACHE_LINE
    return buffer[start : start + n_bytes]


scratch = _Scratch()

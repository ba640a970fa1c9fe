"""One thread budget for Numba and BLAS together, given back after the call."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from threadpoolctl import ThreadpoolController


@cache
def _blas() -> ThreadpoolController:
    # Looking the libraries up takes milliseconds; limiting those found takes microseconds.
    return ThreadpoolController().select(user_api="blas")


def available_threads() -> int:
    """How many threads this process may run at once: its CPU affinity, or the CPU count."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def check_n_threads(n_threads: object, name: str = "n_threads") -> int:
    """``n_threads``, if it is an integer >= 1."""
    if isinstance(n_threads, bool) or not isinstance(n_threads, int):
        raise TypeError(f"{name} must be an integer, got {n_threads!r}")
    if n_threads < 1:
        raise ValueError(f"{name} must be >= 1, got {n_threads}")
    return n_threads


@contextmanager
def blas_threads(n_threads: int | None) -> Iterator[None]:
    """Limit BLAS to ``n_threads`` inside the block; None leaves it alone."""
    if n_threads is None:
        yield
        return
    with _blas().limit(limits=n_threads):
        yield


@contextmanager
def numba_threads(n_threads: int | None) -> Iterator[None]:
    """Limit Numba to ``n_threads`` inside the block; None leaves it alone.

    Numba starts a fixed number of threads a process (``NUMBA_NUM_THREADS``), and more than those
    cannot be had: a larger budget means all of them.
    """
    import numba

    if n_threads is None:
        yield
        return
    before = numba.get_num_threads()
    numba.set_num_threads(min(n_threads, numba.config.NUMBA_NUM_THREADS))
    try:
        yield
    finally:
        numba.set_num_threads(before)

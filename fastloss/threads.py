"""One thread budget for Numba and BLAS together, given back after the call."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Any

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


@contextmanager
def blas_threads(n_threads: int | None) -> Iterator[None]:
    """Limit BLAS to ``n_threads`` inside the block; None leaves it alone."""
    if n_threads is None:
        yield
        return
    with _blas().limit(limits=n_threads):
        yield


def _find_current_cpu() -> Callable[[], int]:
    if not hasattr(os, "sched_setaffinity"):
        return lambda: -1
    try:
        # Without letting go of the interpreter lock, which would take longer than the call.
        return ctypes.PyDLL(None).sched_getcpu
    except (AttributeError, OSError, TypeError):
        return lambda: -1


#: The number of the CPU that the calling thread runs on; -1 if unknown.
_current_cpu = _find_current_cpu()


class Team:
    """Threads that help the calling one, started when they are first needed and kept.

    Python threads running compiled code that has let go of the interpreter lock, rather than
    Numba's own: those come from one of several libraries, of which one aborts the process when two
    Python threads call at once, one leaves a forked child hanging, and one keeps its threads
    spinning, so that every change to BLAS and back costs 10 ms. Any number of Python threads may
    call `run`; helpers take what is queued, and who calls does alone what they do not.
    """

    def __init__(self, current_cpu: Callable[[], int] = _current_cpu) -> None:
        self._current_cpu = current_cpu
        self._queue: SimpleQueue[_Work] = SimpleQueue()
        self._helpers: list[Thread] = []
        self._lock = Lock()
        self._kept_off = -1

    def run(self, function: Callable[..., bool], arguments: tuple[Any, ...], n: int) -> None:
        """``function(*arguments)`` in this thread and in up to ``n - 1`` others at once.

        The function takes pieces of the work until none is left, and says whether all are
        finished; so a helper that comes late finds nothing to do, and nobody waits for it.
        """
        work = _Work(function, arguments)
        n_helpers = self._start(min(n, available_threads()) - 1)
        self._keep_off(self._current_cpu())
        # No more than they can take soon: what is queued holds on to its arrays.
        n_queued = max(0, min(n - 1, n_helpers - self._queue.qsize()))
        for _ in range(n_queued):
            self._queue.put(work)
        is_finished = False
        try:
            is_finished = function(*arguments)
        finally:
            # Interrupted or not: nobody writes to the arguments once this returns.
            if not is_finished:
                for _ in range(n_queued):
                    work.finished.get()

    def _start(self, n: int) -> int:
        """Start helpers until there are ``n`` if that is possible; how many there are."""
        if len(self._helpers) < n:
            # None can be started at the end of the interpreter, or beyond a limit of the system.
            with self._lock, suppress(RuntimeError):
                while len(self._helpers) < n:
                    helper = Thread(target=_help, args=(self._queue,), name="fastloss", daemon=True)
                    helper.start()
                    self._helpers.append(helper)
                    self._kept_off = -1
        return len(self._helpers)

    def _keep_off(self, cpu: int) -> None:
        """Let helpers run on any CPU that this thread may use but ``cpu``, where it runs itself.

        Linux wakes them there, although others are idle, if these are virtual ones that sleep, or
        if a thread of BLAS spins on them; it can take a tenth of a second until it moves them.
        """
        if cpu == self._kept_off:
            return
        others = os.sched_getaffinity(0) - {cpu}
        for helper in self._helpers:
            if others and helper.native_id is not None:
                # Not allowed, say: then they stay where they are.
                with suppress(OSError):
                    os.sched_setaffinity(helper.native_id, others)
        self._kept_off = cpu


class _Work:
    def __init__(self, function: Callable[..., bool], arguments: tuple[Any, ...]) -> None:
        self.function = function
        self.arguments = arguments
        self.finished: SimpleQueue[None] = SimpleQueue()


def _help(queue: SimpleQueue[_Work]) -> None:
    while True:
        work = queue.get()
        try:
            work.function(*work.arguments)
        finally:
            work.finished.put(None)
            # Not kept until the next work comes: it may hold large arrays.
            del work


team = Team()


def _forget_threads() -> None:
    global team
    team = Team()


if hasattr(os, "register_at_fork"):
    # A forked child has none of its parent's threads.
    os.register_at_fork(after_in_child=_forget_threads)

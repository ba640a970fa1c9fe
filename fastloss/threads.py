"""One thread budget for Numba and BLAS together, given back after the call."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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


class Team:
    """Threads that help the calling one, started when they are first needed and kept.

    Python threads running compiled code that has let go of the interpreter lock, rather than
    Numba's own: those come from one of several libraries, of which one aborts the process when two
    Python threads call at once, one leaves a forked child hanging, and one keeps its threads
    spinning, so that every change to BLAS and back costs 10 ms. Any number of Python threads may
    call `run`; helpers take what is queued, and who calls does alone what they do not.
    """

    def __init__(self) -> None:
        self._queue: SimpleQueue[_Work] = SimpleQueue()
        self._n_helpers = 0
        self._lock = Lock()

    def run(self, function: Callable[..., bool], arguments: tuple[Any, ...], n: int) -> None:
        """``function(*arguments)`` in this thread and in up to ``n - 1`` others at once.

        The function takes pieces of the work until none is left, and says whether all are
        finished; so a helper that comes late finds nothing to do, and nobody waits for it.
        """
        work = _Work(function, arguments)
        n_helpers = self._start(min(n, available_threads()) - 1)
        # No more than they can take soon: what is queued holds on to its arrays.
        n_queued = max(0, min(n - 1, n_helpers - self._queue.qsize()))
        for _ in range(n_queued):
            self._queue.put(work)
        if not function(*arguments):
            for _ in range(n_queued):
                work.finished.get()

    def run_pieces(self, piece: Callable[[int], None], n_pieces: int, n: int) -> None:
        """``piece(i)`` for each ``i < n_pieces``, likewise; raises an error when all are done."""
        pieces = _Pieces(piece, n_pieces)
        self.run(pieces, (), min(n, n_pieces))
        if pieces.errors:
            raise pieces.errors[0]

    def _start(self, n: int) -> int:
        """Start helpers until there are ``n``; how many there are."""
        if self._n_helpers < n:
            with self._lock:
                while self._n_helpers < n:
                    Thread(target=_help, args=(self._queue,), name="fastloss", daemon=True).start()
                    self._n_helpers += 1
        return self._n_helpers


class _Work:
    def __init__(self, function: Callable[..., bool], arguments: tuple[Any, ...]) -> None:
        self.function = function
        self.arguments = arguments
        self.finished: SimpleQueue[None] = SimpleQueue()


class _Pieces:
    def __init__(self, piece: Callable[[int], None], n: int) -> None:
        self.errors: list[Exception] = []
        self._piece = piece
        self._numbers = list(range(n))
        self._left = list(range(n))

    def __call__(self) -> bool:
        """Take pieces until none is left to take; whether all are finished."""
        # Lists, because taking from one is safe in any number of threads.
        while True:
            try:
                number = self._numbers.pop()
            except IndexError:
                return not self._left
            try:
                self._piece(number)
            except Exception as error:
                self.errors.append(error)
            self._left.pop()


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

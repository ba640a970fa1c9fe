"""Compile kernels in the background, so that no call with ``backend="auto"`` waits for them.

Meanwhile another backend runs the calls. Kernels that are in the cache need no background thread:
the call itself loads them, in a few hundredths of a second.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Hashable
from contextlib import suppress
from threading import Lock, Thread, current_thread


class Compilations:
    """Running compilations, and the errors of failed ones."""

    def __init__(self) -> None:
        self._failures: dict[Hashable, str] = {}
        self._threads: dict[Hashable, Thread] = {}
        self._lock = Lock()

    def start(self, key: Hashable, make: Callable[[], object]) -> bool:
        """Call ``make`` in a thread, unless one is running for this key or has failed before.

        Return False, because the kernels are not ready yet.
        """
        with self._lock:
            thread = self._threads.get(key)
            if key not in self._failures and (thread is None or not thread.is_alive()):
                # Not a daemon: Python waits for it at exit, so the next process finds the kernels.
                thread = Thread(target=self.run, args=(key, make), name="fastloss-compile")
                # At interpreter exit no thread can start; then nothing is compiled.
                with suppress(RuntimeError):
                    thread.start()
                    self._threads[key] = thread
        return False

    def run(self, key: Hashable, make: Callable[[], object]) -> bool:
        """Call ``make`` here; return whether it succeeded."""
        try:
            make()
        except Exception as error:  # Numba cannot compile the loss: another backend runs it
            lines = str(error).strip().splitlines()
            self._failures[key] = ": ".join([type(error).__name__, *lines[:1]])
            return False
        return True

    def failure(self, key: Hashable) -> str | None:
        """Return the error of ``make`` for this key; None if it has not failed."""
        return self._failures.get(key)

    def wait(self, seconds: float = 600.0) -> None:
        """Wait until no compilation is running, for at most ``seconds``."""
        end = time.monotonic() + seconds
        for thread in list(self._threads.values()):
            if thread is not current_thread():
                thread.join(max(0.0, end - time.monotonic()))

    def forget(self) -> None:
        """Drop the threads, which a forked child does not have."""
        self._lock = Lock()
        self._threads = {}


compilations = Compilations()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=compilations.forget)

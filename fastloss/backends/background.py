"""Compile kernels in a thread of their own, so that no call with ``backend="auto"`` waits for them.

Another backend answers meanwhile. Kernels that were compiled before are loaded from the cache, in
some hundredths of a second, by the call itself.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Hashable
from contextlib import suppress
from threading import Lock, Thread, current_thread


class Compilations:
    """What is being compiled, and what could not be."""

    def __init__(self) -> None:
        self._failures: dict[Hashable, str] = {}
        self._threads: dict[Hashable, Thread] = {}
        self._lock = Lock()

    def start(self, key: Hashable, make: Callable[[], object]) -> bool:
        """Call ``make`` in a thread, unless one does so for this key or it failed before.

        Return False: what is made is not ready yet.
        """
        with self._lock:
            thread = self._threads.get(key)
            if key not in self._failures and (thread is None or not thread.is_alive()):
                # Not a daemon: what it compiles is for the next process too.
                thread = Thread(target=self.run, args=(key, make), name="fastloss-compile")
                with suppress(RuntimeError):  # no room for another thread: the next call tries
                    thread.start()
                    self._threads[key] = thread
        return False

    def run(self, key: Hashable, make: Callable[[], object]) -> bool:
        """Call ``make`` here; return whether it succeeded."""
        try:
            make()
        except Exception as error:  # a loss that Numba cannot compile: another backend goes on
            lines = str(error).strip().splitlines()
            self._failures[key] = ": ".join([type(error).__name__, *lines[:1]])
            return False
        return True

    def failure(self, key: Hashable) -> str | None:
        """Return why ``make`` failed for this key."""
        return self._failures.get(key)

    def wait(self, seconds: float = 600.0) -> None:
        """Wait until nothing is being compiled, for so many seconds at most."""
        end = time.monotonic() + seconds
        for thread in list(self._threads.values()):
            if thread is not current_thread():
                thread.join(max(0.0, end - time.monotonic()))

    def forget(self) -> None:
        """In a forked child: threads that were compiling are gone."""
        self._lock = Lock()
        self._threads = {}


compilations = Compilations()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=compilations.forget)

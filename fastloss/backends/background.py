"""Compile kernels in the background, so that no call with ``backend="auto"`` waits for them.

Another backend answers meanwhile. A call loads kernels that were compiled before from the cache
itself, in some hundredths of a second.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Hashable
from contextlib import suppress
from threading import Lock, Thread, current_thread


class Compilations:
    """Compilations that are running, and the errors of those that failed."""

    def __init__(self) -> None:
        self._failures: dict[Hashable, str] = {}
        self._threads: dict[Hashable, Thread] = {}
        self._lock = Lock()

    def start(self, key: Hashable, make: Callable[[], object]) -> bool:
        """Call ``make`` in a thread, unless one is running for this key or has failed before.

        Return False: the kernels are not ready yet.
        """
        with self._lock:
            thread = self._threads.get(key)
            if key not in self._failures and (thread is None or not thread.is_alive()):
                # Not a daemon: Python waits for it at exit, and the next process loads the kernels.
                thread = Thread(target=self.run, args=(key, make), name="fastloss-compile")
                # None can be started at the end of the interpreter: others answer, and it ends.
                with suppress(RuntimeError):
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
        """Forget the threads: a forked child does not have them."""
        self._lock = Lock()
        self._threads = {}


compilations = Compilations()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=compilations.forget)

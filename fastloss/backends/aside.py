"""Kernels made ready aside: who asks for ``backend="auto"`` never waits for a compilation.

If the kernels of a call were compiled before, loading them takes some hundredths of a second and is
done at once. If they were not, NumPy answers while a thread compiles them; later calls find them
ready.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from threading import Lock, Thread

from fastloss.kernel_cache import is_cached


class Kernels:
    """Which kernels are ready, and which are being compiled."""

    def __init__(self) -> None:
        self._ready: set[str] = set()
        self._failed: dict[str, str] = {}
        self._threads: dict[str, Thread] = {}
        self._lock = Lock()

    def ready(self, name: str, kernels: tuple[str, ...], make: Callable[[], object]) -> bool:
        """Whether ``make`` was run, here or by the thread that this starts.

        It runs here if all ``kernels``, which it compiles, are in the cache.
        """
        if name in self._ready:
            return True
        if name not in self._threads and all(map(is_cached, kernels)):
            self.make(name, make)
            return name in self._ready
        with self._lock:
            if name not in self._threads:
                thread = Thread(target=self.make, args=(name, make), name="fastloss-aside")
                self._threads[name] = thread
                # Not a daemon: what it compiles is for the next process too.
                thread.start()
        return False

    def failure(self, name: str) -> str | None:
        """Why the kernel could not be made."""
        return self._failed.get(name)

    def wait(self) -> None:
        """Until nothing is being compiled."""
        for thread in list(self._threads.values()):
            thread.join()

    def make(self, name: str, make: Callable[[], object]) -> None:
        """Compile or load the kernels now."""
        try:
            make()
        except Exception as error:  # a loss that Numba cannot compile: NumPy goes on
            self._failed[name] = f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
        else:
            self._ready.add(name)

    def forget(self) -> None:
        """In a forked child: threads that were compiling are gone."""
        self._lock = Lock()
        self._threads = {name: t for name, t in self._threads.items() if name in self._ready}


kernels = Kernels()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=kernels.forget)

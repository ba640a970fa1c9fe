"""Kernels made ready aside: who asks for ``backend="auto"`` never waits for a compilation.

If the kernels of a call were compiled before, loading them takes some hundredths of a second and is
done at once. If they were not, NumPy answers while a thread compiles them; later calls find them
ready. What was compiled before is known from empty files named after everything that a kernel
depends on, because asking Numba would mean importing it first.
"""

from __future__ import annotations

import glob
import hashlib
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path
from threading import Lock, Thread

from fastloss.backends import costs


class Kernels:
    """Which kernels are ready, and which are being compiled."""

    def __init__(self) -> None:
        self._ready: set[str] = set()
        self._failed: dict[str, str] = {}
        self._threads: dict[str, Thread] = {}
        self._lock = Lock()

    def ready(self, name: str, sources: tuple[str, ...], make: Callable[[], object]) -> bool:
        """Whether ``make`` was run, here or by the thread that this starts.

        ``sources`` are the files whose change makes another kernel of it.
        """
        if name in self._ready:
            return True
        if name not in self._threads and _marker(name, sources).exists():
            self.make(name, sources, make)
            return name in self._ready
        with self._lock:
            if name not in self._threads:
                thread = Thread(target=self.make, args=(name, sources, make), name="fastloss-aside")
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

    def make(self, name: str, sources: tuple[str, ...], make: Callable[[], object]) -> None:
        """Compile or load the kernel now, and remember for later processes that it was."""
        try:
            make()
        except Exception as error:  # a loss that Numba cannot compile: NumPy goes on
            self._failed[name] = f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
            return
        self._ready.add(name)
        marker = _marker(name, sources)
        with suppress(OSError):
            marker.parent.mkdir(parents=True, exist_ok=True)
            for old in marker.parent.glob(f"{glob.escape(marker.stem)}.*"):
                if old != marker:
                    old.unlink()
            marker.touch()

    def forget(self) -> None:
        """In a forked child: threads that were compiling are gone."""
        self._lock = Lock()
        self._threads = {name: t for name, t in self._threads.items() if name in self._ready}


def _marker(name: str, sources: tuple[str, ...]) -> Path:
    digest = hashlib.sha256(repr((_environment(), [_stamp(s) for s in sources])).encode())
    return costs.folder() / "kernels" / f"{name}.{digest.hexdigest()[:16]}"


def _stamp(source: str) -> tuple[str, float, int]:
    try:
        status = os.stat(source)
    except OSError:
        return source, 0.0, 0
    return source, status.st_mtime, status.st_size


@cache
def _environment() -> tuple[str, ...]:
    names = ("NUMBA_CACHE_DIR", "NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES")
    return (sys.version, version("numba"), *(os.environ.get(name, "") for name in names))


kernels = Kernels()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=kernels.forget)

"""Apply one thread count to Numba, BLAS and the helpers of compiled code.

An argument, `fastloss.use` or ``FASTLOSS_NUM_THREADS`` sets the count (see `settings`), else
`available_threads` does. BLAS gets its own limits back after the call.
"""

from __future__ import annotations

import ctypes
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache, lru_cache
from pathlib import Path, PurePosixPath
from queue import SimpleQueue
from threading import Lock, RLock, Thread, get_ident, local
from typing import Any

import threadpoolctl

from fastloss.restoring import restoring

#: Variables by which users and parent processes, such as joblib and dask, limit threads.
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)


def available_threads() -> int:
    """Return how many threads this process may run at once: the least of `thread_limits`.

    The call takes about 1 us.
    """
    return min(usable_cpus(), cpu_quota(), _least(tuple(map(_raw_environment.get, _raw_names))))


def thread_limits() -> dict[str, int]:
    """Return the limits on threads by source: the CPU affinity, the CPU quota and variables.

    A variable without a number >= 1 counts as unset; the library that reads it reports the error.
    """
    limits = {"CPU affinity": usable_cpus(), "CPU quota": cpu_quota()}
    for name in THREAD_VARIABLES:
        limits[name] = _least((os.environ.get(name),))
    return {source: limit for source, limit in limits.items() if limit < _NO_LIMIT}


_NO_LIMIT = 2**31
_N_CPUS = os.cpu_count() or 1


def usable_cpus() -> int:
    """Return how many CPUs this process may run on: its affinity, or all CPUs if unknown."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return _N_CPUS


# Six lookups in os.environ take 4 us, in its underlying dict 0.3 us.
_raw_environment: Any = getattr(os.environ, "_data", os.environ)
_raw_names: tuple[Any, ...] = THREAD_VARIABLES
if _raw_environment is not os.environ:
    _raw_names = tuple(map(os.environ.encodekey, THREAD_VARIABLES))


@lru_cache(maxsize=64)
def _least(values: tuple[str | bytes | None, ...]) -> int:
    """Return the least of the values that are numbers >= 1.

    A list such as "4,2" has a number for each level of nesting; the first one counts.
    """
    numbers = [_NO_LIMIT]
    for value in values:
        with suppress(ValueError):
            numbers.append(int(os.fsdecode(value or "").split(",")[0]))
    return min(number for number in numbers if number >= 1)


@cache
def cpu_quota(groups: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> int:
    """Return how many CPUs the control groups of this process allow, rounded up.

    The quota is read once. Without a limit, the result is huge. A group's quota also limits its
    children.
    """
    quotas = [math.inf]
    with suppress(OSError):
        for line in groups.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers == "":  # version 2, alone or beside version 1
                mounts, read = (root, root / "unified"), _quota_2
            elif "cpu" in controllers.split(","):
                mounts, read = (root / controllers, root / "cpu"), _quota_1
            else:
                continue
            quotas += [read(mount / group) for mount in mounts for group in _with_parents(path)]
    return max(1, math.ceil(min(*quotas, _NO_LIMIT)))


def _with_parents(path: str) -> list[PurePosixPath]:
    """Return a group and its parents; for a group outside this container, the root alone."""
    group = PurePosixPath(path.lstrip("/"))
    if ".." in group.parts:
        return [PurePosixPath()]
    return [group, *group.parents]


def _quota_2(folder: Path) -> float:
    with suppress(OSError, ValueError, ZeroDivisionError):
        quota, period = (folder / "cpu.max").read_text().split()
        return int(quota) / int(period)  # "max" is no number: no limit
    return math.inf


def _quota_1(folder: Path) -> float:
    with suppress(OSError, ValueError, ZeroDivisionError):
        quota = int((folder / "cpu.cfs_quota_us").read_text())
        return quota / int((folder / "cpu.cfs_period_us").read_text()) if quota > 0 else math.inf
    return math.inf


# --- BLAS -----------------------------------------------------------------------------------------


@contextmanager
def blas_threads(n_threads: int | None) -> Iterator[None]:
    """Limit BLAS to ``n_threads`` inside the block; None means at most `available_threads`.

    Blocks may be nested, and may overlap in several Python threads. Most BLAS libraries have one
    pool of threads per process; the least limit of all blocks then applies. When the last block
    ends, the earlier setting comes back.
    """
    # BLAS never takes more threads by itself, and asking it takes longer than this test.
    if n_threads is None and available_threads() >= _N_CPUS:
        yield
        return
    key = object()

    def undo() -> None:
        _shared_limits.remove(key)
        _own_limits.remove(key)

    with restoring(undo):
        _shared_limits.add(key, n_threads)
        _own_limits.add(key, n_threads)
        yield


@cache
def _blas_libraries(is_shared: bool) -> tuple[Any, ...]:
    """Return the libraries with one shared pool of threads, or with a pool per caller (OpenMP)."""
    # Finding the libraries takes milliseconds; limiting them takes microseconds.
    libraries = threadpoolctl.ThreadpoolController().select(user_api="blas").lib_controllers
    layers = {library: getattr(library, "threading_layer", None) for library in libraries}
    return tuple(library for library in libraries if (layers[library] != "openmp") == is_shared)


class _BlasLimits:
    """Limits of all open `blas_threads` blocks, and the setting before the first."""

    def __init__(self, is_shared: bool) -> None:
        self._is_shared = is_shared
        # Reentrant: garbage collection can end a block that an interrupt left open, even while this
        # thread holds the lock.
        self._lock = RLock()
        self._limits: dict[object, tuple[int, int | None]] = {}  # thread and limit
        self._before: dict[str, tuple[Any, int]] = {}

    def add(self, key: object, n_threads: int | None) -> None:
        """Begin a block."""
        libraries = _blas_libraries(self._is_shared)
        if not libraries:
            return
        with self._lock:
            for library in libraries:
                if library.filepath not in self._before:
                    self._before[library.filepath] = library, library.num_threads
            self._limits[key] = get_ident(), n_threads
            self._apply()

    def remove(self, key: object) -> None:
        """End a block; a second call does nothing."""
        if self._before:
            with self._lock:
                self._limits.pop(key, None)
                self._apply()
                if not self._limits:
                    self._before.clear()

    def _apply(self) -> None:
        limits = [limit for _, limit in self._limits.values()]
        asked = [limit for limit in limits if limit is not None]
        for library, before in list(self._before.values()):
            wanted = min(asked, default=before)
            if len(asked) < len(limits):
                wanted = min(wanted, before, available_threads())
            if library.num_threads != wanted:
                _set_threads(library, wanted)

    def forget_other_threads(self) -> None:
        """End the blocks of threads that a forked child does not have."""
        self._lock = RLock()
        here = get_ident()
        self._limits = {key: limit for key, limit in self._limits.items() if limit[0] == here}
        if not self._limits:
            self.remove(None)


class _LimitsOfThread(local, _BlasLimits):
    """Limits of libraries in which each thread has its own limit."""


_shared_limits = _BlasLimits(is_shared=True)
_own_limits = _LimitsOfThread(is_shared=False)

# In newer versions of threadpoolctl, one thread owns the limit of OpenBLAS; limits that other
# threads set or restore are ignored.
_disown: Callable[..., None] = getattr(
    threadpoolctl.OpenBLASController, "clear_controlling_thread", lambda force: None
)


def _set_threads(library: Any, n_threads: int) -> None:
    _disown(force=True)
    library.set_num_threads(n_threads)
    _disown(force=True)


# --- helpers --------------------------------------------------------------------------------------


def _find_current_cpu() -> Callable[[], int]:
    if not hasattr(os, "sched_setaffinity"):
        return lambda: -1
    try:
        # PyDLL keeps the interpreter lock; releasing it would take longer than the call.
        return ctypes.PyDLL(None).sched_getcpu
    except (AttributeError, OSError, TypeError):
        return lambda: -1


#: The number of the CPU that the calling thread runs on; -1 if unknown.
_current_cpu = _find_current_cpu()


class Team:
    """Threads that help the calling thread; they start at first use and are kept.

    They are Python threads that run compiled code without the interpreter lock. Numba's own threads
    come from one of several libraries. One aborts the process if two Python threads call at once.
    One makes a forked child hang. One keeps its threads spinning, so that every change to BLAS and
    back costs 10 ms. Any number of Python threads may call `run`. Helpers take queued work; the
    calling thread does the rest.
    """

    def __init__(self, current_cpu: Callable[[], int] = _current_cpu) -> None:
        self._current_cpu = current_cpu
        self._queue: SimpleQueue[_Work] = SimpleQueue()
        self._helpers: list[Thread] = []
        self._lock = Lock()
        self._kept_off = -1

    def run(self, function: Callable[..., bool], arguments: tuple[Any, ...], n: int) -> None:
        """Call ``function(*arguments)`` in this thread and in up to ``n - 1`` helpers at once.

        The function takes pieces of the work until none is left, and returns whether all are
        finished. This thread never waits for a helper that has not begun. An exception in a helper
        is raised here.
        """
        work = _Work(function, arguments)
        n_helpers = self._start(min(n, usable_cpus()) - 1)
        self._keep_off(self._current_cpu())
        # No helper may write to the arguments after this call, even if it is interrupted.
        with restoring(work.close):
            # Queue only as much as idle helpers can take soon.
            for _ in range(min(n - 1, n_helpers - self._queue.qsize())):
                self._queue.put(work)
            work.is_finished = function(*arguments)
        if work.error is not None:
            raise work.error

    def _start(self, n: int) -> int:
        """Start helpers until there are ``n`` or the system refuses; return how many there are."""
        if len(self._helpers) < n:
            with self._lock:
                self._kept_off = -1
                while len(self._helpers) < n:
                    helper = Thread(target=_help, args=(self._queue,), name="fastloss", daemon=True)
                    try:
                        helper.start()
                    except RuntimeError:  # the system has no room for another thread
                        break
                    self._helpers.append(helper)
        return len(self._helpers)

    def _keep_off(self, cpu: int) -> None:
        """Let helpers run on all CPUs of this thread except ``cpu``, its current one.

        Linux may wake helpers on ``cpu`` although others are idle: if these are sleeping virtual
        CPUs, or if BLAS threads spin on them. It may take 0.1 s to move the helpers.
        """
        if cpu == self._kept_off:
            return
        others = os.sched_getaffinity(0) - {cpu}
        for helper in self._helpers:
            if others and helper.native_id is not None:
                # If the system refuses, helpers stay where they are.
                with suppress(OSError):
                    os.sched_setaffinity(helper.native_id, others)
        self._kept_off = cpu


class _Work:
    """A function for helpers to call; ``error`` is the exception of one of them.

    A helper does little in Python after the function has returned. The calling thread may then wait
    for the interpreter lock, and waking it takes 30 us.
    """

    def __init__(self, function: Callable[..., bool], arguments: tuple[Any, ...]) -> None:
        self.is_finished = False
        self.error: BaseException | None = None
        self._function = function
        self._arguments = arguments
        self._is_closed = False
        self._begun: list[None] = []
        self._ended: list[None] = []
        self._messages: SimpleQueue[None] = SimpleQueue()  # one from each helper that has ended

    def help(self) -> None:
        """Call the function in a helper, unless the work is closed."""
        function, arguments = self._function, self._arguments
        # Append before the test: `close` then waits for this helper, or this helper sees it.
        self._begun.append(None)
        try:
            if not self._is_closed:
                function(*arguments)
        except BaseException as error:
            self.error = error
        finally:
            self._ended.append(None)
            self._messages.put(None)

    def close(self) -> None:
        """Let no further helper begin; unless all is finished, wait for those that have begun."""
        self._is_closed = True
        self._arguments = ()  # the queue may hold this object for long
        # The lists count helpers, because an interrupt may come right after a message.
        while not self.is_finished and len(self._ended) < len(self._begun):
            self._messages.get()


def _help(queue: SimpleQueue[_Work]) -> None:
    while True:
        work = queue.get()
        work.help()
        # Do not keep the work while waiting: it may hold large arrays.
        del work


team = Team()


def _forget_threads() -> None:
    global team
    team = Team()
    _shared_limits.forget_other_threads()
    _own_limits.forget_other_threads()


if hasattr(os, "register_at_fork"):
    # A forked child has none of its parent's threads.
    os.register_at_fork(after_in_child=_forget_threads)

"""One rule for the number of threads, kept by Numba, BLAS and the helpers of compiled code.

A call takes what its argument, `fastloss.use` or ``FASTLOSS_NUM_THREADS`` says (see `settings`),
else `available_threads`. Limits of BLAS are given back after the call.
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

#: What others limit threads by, in this process or one that started it: a worker of joblib or dask.
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)


def available_threads() -> int:
    """Return how many threads this process may run at once; takes about 1 us.

    The least of `thread_limits`.
    """
    return min(usable_cpus(), cpu_quota(), _least(tuple(map(_raw_environment.get, _raw_names))))


def thread_limits() -> dict[str, int]:
    """Return what limits threads, by source: the CPU affinity, the CPU quota and variables.

    A variable that is no number >= 1 counts as unset: its own library says what is wrong with it.
    """
    limits = {"CPU affinity": usable_cpus(), "CPU quota": cpu_quota()}
    for name in THREAD_VARIABLES:
        limits[name] = _least((os.environ.get(name),))
    return {source: limit for source, limit in limits.items() if limit < _NO_LIMIT}


_NO_LIMIT = 2**31
_N_CPUS = os.cpu_count() or 1


def usable_cpus() -> int:
    """Return how many CPUs this process may run on: its affinity, or all that there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return _N_CPUS


# Six lookups in os.environ take 4 us, and in the dict behind it 0.3 us.
_raw_environment: Any = getattr(os.environ, "_data", os.environ)
_raw_names: tuple[Any, ...] = THREAD_VARIABLES
if _raw_environment is not os.environ:
    _raw_names = tuple(map(os.environ.encodekey, THREAD_VARIABLES))


@lru_cache(maxsize=64)
def _least(values: tuple[str | bytes | None, ...]) -> int:
    """The least of the values that are numbers >= 1.

    Of lists such as "4,2", a number for each level of nesting, the first counts.
    """
    numbers = [_NO_LIMIT]
    for value in values:
        with suppress(ValueError):
            numbers.append(int(os.fsdecode(value or "").split(",")[0]))
    return min(number for number in numbers if number >= 1)


@cache
def cpu_quota(groups: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> int:
    """Return how many CPUs the control groups of this process allow, rounded up.

    Read once; a huge number if there is no limit. A parent group's quota counts for its children.
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
    """A group and its parents, up to the root; of one outside of this container the root alone."""
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
def blas_threads(n_threads: int | None, *, look_again: bool = False) -> Iterator[None]:
    """Limit BLAS to ``n_threads`` inside the block; None: to no more than `available_threads`.

    Blocks may be nested, and may overlap in several Python threads. Most BLAS libraries have one
    pool of threads for the process: the least limit of all blocks counts. What was there before
    comes back when the last block ends, whichever that is.

    ``look_again`` finds libraries that were loaded since the first block.
    """
    if look_again:
        _blas_libraries.cache_clear()
    # Nothing to do, and asking BLAS takes longer: it never takes more threads by itself.
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
    """The libraries with one pool of threads, or with one for each thread that calls (OpenMP's)."""
    # Looking the libraries up takes milliseconds; limiting those found takes microseconds.
    libraries = threadpoolctl.ThreadpoolController().select(user_api="blas").lib_controllers
    layers = {library: getattr(library, "threading_layer", None) for library in libraries}
    return tuple(library for library in libraries if (layers[library] != "openmp") == is_shared)


class _BlasLimits:
    """The limits of the blocks of `blas_threads`, and what was there before the first."""

    def __init__(self, is_shared: bool) -> None:
        self._is_shared = is_shared
        # A block that an interrupt left open ends when it is collected, be it while this thread
        # holds the lock.
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
        """End a block; once is enough, more often does no harm."""
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
    """Limits of libraries in which each thread has its own."""


_shared_limits = _BlasLimits(is_shared=True)
_own_limits = _LimitsOfThread(is_shared=False)

# Newer versions of threadpoolctl let one thread own the limit of OpenBLAS, and ignore what others
# set, be it what was there before.
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
    call `run`; helpers take what is queued, and the calling thread does the rest.
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
        finished; so nobody waits for a helper that has not begun. An exception in a helper is
        raised here.
        """
        work = _Work(function, arguments)
        n_helpers = self._start(min(n, usable_cpus()) - 1)
        self._keep_off(self._current_cpu())
        # Interrupted or not: nobody writes to the arguments once this returns.
        with restoring(work.close):
            # No more than they can take soon.
            for _ in range(min(n - 1, n_helpers - self._queue.qsize())):
                self._queue.put(work)
            work.is_finished = function(*arguments)
        if work.error is not None:
            raise work.error

    def _start(self, n: int) -> int:
        """Start helpers until there are ``n``, or no more can be; return how many there are."""
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
    """A function for helpers to call; ``error`` is what one of them raised.

    A helper does little in Python once the function has returned: the calling thread may then be
    waiting for the interpreter lock, and to be woken costs it 30 us.
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
        # First this, then the look: so `close` waits for it or is seen here.
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
        """Let no other helper begin; unless all is finished, wait for those that have begun."""
        self._is_closed = True
        self._arguments = ()  # a queue may hold this for long
        # Counted by the lists: an interrupt may come between a message and the line after it.
        while not self.is_finished and len(self._ended) < len(self._begun):
            self._messages.get()


def _help(queue: SimpleQueue[_Work]) -> None:
    while True:
        work = queue.get()
        work.help()
        # Not kept until the next work comes: it may hold large arrays.
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

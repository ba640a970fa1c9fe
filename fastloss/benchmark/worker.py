"""Run contenders in their own processes, so that their thread pools do not disturb each other.

A `Session` holds one call and times it. `Worker` is a session in a fresh Python process with a
fixed number of threads: requests and replies are pickles over its standard input and output.
"""

from __future__ import annotations

import ctypes
import os
import pickle
import signal
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from types import TracebackType
from typing import IO, Any, Protocol

from fastloss import python_process
from fastloss.benchmark.measure import calibrate, settle, time_calls, warm
from fastloss.restoring import no_garbage_collection
from fastloss.settings import N_THREADS
from fastloss.threads import THREAD_VARIABLES

# Longer than any contender compiles, and shorter than a user would wait.
_MOST_SECONDS = 1800.0
_POLL_SECONDS = 0.5

_is_serving = False


class Task(Protocol):
    """A picklable description of a call; ``bind`` loads its data and returns the call.

    If the call's result cannot be pickled (another library's arrays), the task also has a method
    ``portable(result)`` that converts it.
    """

    def bind(self) -> Callable[[], Any]: ...


class WorkerError(RuntimeError):
    """A task failed in its process, or that process gave no answer."""


class Session:
    """A session in this process, with one call at a time.

    ``why_here`` is the reason if the call was meant to have its own process.
    """

    def __init__(self, why_here: str = "") -> None:
        self.why_here = why_here
        self._call: Callable[[], Any] = lambda: None

    def prepare(self, task: Task) -> tuple[float, Any]:
        """Bind the task and call it once; return that call's seconds and result."""
        self._call = task.bind()
        start = time.perf_counter()
        result = self._call()
        seconds = time.perf_counter() - start
        portable = getattr(task, "portable", None)
        return seconds, result if portable is None else portable(result)

    def run(self, task: Task) -> Any:
        """Run a task without timing it; return its result."""
        return task.bind()()

    def calibrate(self, min_seconds: float) -> tuple[int, float]:
        """Return the number of calls that fill ``min_seconds``, and the seconds per call."""
        with no_garbage_collection():
            return calibrate(self._call, min_seconds)

    def sample(self, n_calls: int, warm_seconds: float) -> float:
        """Warm up, then time a batch; return the seconds per call once all threads are idle."""
        with no_garbage_collection():
            warm(self._call, warm_seconds)
            seconds = time_calls(self._call, n_calls)
        settle()
        return seconds

    def peak_extra_bytes(self) -> int | None:
        """Return how far one call raises this process's memory; None if unknown.

        Reads the high-water mark of resident memory, which covers every allocator; Linux only.
        """
        reset = Path("/proc/self/clear_refs")
        if not reset.exists():
            return None
        _return_free_memory()
        try:
            reset.write_text("5")
        except OSError:
            return None
        before = _status_bytes("VmRSS")
        self._call()
        return max(0, _status_bytes("VmHWM") - before)

    def close(self) -> None:
        """Do nothing: this process goes on."""

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _return_free_memory() -> None:
    """Return freed blocks to the system: their reuse would hide a call's memory use."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _status_bytes(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise KeyError(field)


class Worker(Session):
    """A session in its own process, with ``n_threads`` threads for BLAS and for Numba.

    A request without an answer in ``most_seconds`` is an error, and ends the process.
    """

    def __init__(
        self,
        n_threads: int,
        environment: Mapping[str, str] | None = None,
        most_seconds: float = _MOST_SECONDS,
    ) -> None:
        super().__init__()
        if _is_serving:
            # A module that starts a benchmark on import would start processes endlessly.
            raise RuntimeError(
                "the process of a contender must not start another benchmark: keep its module's "
                "own under if __name__ == '__main__':"
            )
        self._most_seconds = most_seconds
        self._talk: Thread | None = None
        variables = dict.fromkeys((N_THREADS, *THREAD_VARIABLES), str(n_threads))
        # The caller handles a keyboard interrupt: it saves, then ends this process.
        self._process = python_process.start(serve, {**variables, **(environment or {})})

    def prepare(self, task: Task) -> tuple[float, Any]:
        seconds, result = self._ask("prepare", task)
        return seconds, result

    def run(self, task: Task) -> Any:
        return self._ask("run", task)

    def calibrate(self, min_seconds: float) -> tuple[int, float]:
        n_calls, seconds = self._ask("calibrate", min_seconds)
        return n_calls, seconds

    def sample(self, n_calls: int, warm_seconds: float) -> float:
        return float(self._ask("sample", n_calls, warm_seconds))

    def peak_extra_bytes(self) -> int | None:
        return self._ask("peak_extra_bytes")

    def _ask(self, method: str, *arguments: Any) -> Any:
        message = _dumps((method, arguments))
        replies: SimpleQueue[bytes] = SimpleQueue()
        # In a thread: reading or writing a pipe may block forever.
        self._talk = Thread(target=self._exchange, args=(message, replies), daemon=True)
        self._talk.start()
        end = time.monotonic() + self._most_seconds
        try:
            while (data := self._next(replies)) is None:
                if time.monotonic() >= end:
                    raise WorkerError(f"no answer to {method} in {self._most_seconds:g} s")
            succeeded, reply = pickle.loads(data)
        except BaseException:
            # A late answer must not be taken for the answer to another request.
            self._end()
            raise
        if not succeeded:
            raise WorkerError(reply)
        return reply

    def _exchange(self, message: bytes, replies: SimpleQueue[bytes]) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(OSError, EOFError, ValueError):  # the process has ended, or is closed
            _send(self._process.stdin, message)
            replies.put(_receive(self._process.stdout))

    def _next(self, replies: SimpleQueue[bytes]) -> bytes | None:
        """Return the reply, or None if it is not there yet; raise if it will never come."""
        ended = self._process.poll()
        try:
            return replies.get(timeout=_POLL_SECONDS)
        except Empty:
            # The process ended before the wait, so its last reply would have arrived.
            if ended is not None:
                message = f"the process of a contender ended with code {ended}"
                raise WorkerError(message) from None
            return None

    def _end(self) -> None:
        """End the process, and the processes that it has started."""
        if hasattr(os, "killpg"):
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.kill()

    def close(self) -> None:
        self._end()
        self._process.wait()
        if self._talk is not None:
            self._talk.join(1.0)
        if self._talk is not None and self._talk.is_alive():
            return  # the thread is blocked on the pipes: another process holds their other ends
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()


def _dumps(message: object) -> bytes:
    """Pickle a message. cloudpickle also sends lambdas, closures and functions of ``__main__``."""
    try:
        from cloudpickle import dumps
    except ImportError:
        return pickle.dumps(message)
    return dumps(message)


def _send(stream: IO[bytes], data: bytes) -> None:
    """Write a pickle after its length, so that an unreadable one does not break the next."""
    stream.write(len(data).to_bytes(8, "little") + data)
    stream.flush()


def _receive(stream: IO[bytes]) -> bytes:
    header = stream.read(8)
    if len(header) < 8:
        raise EOFError
    return stream.read(int.from_bytes(header, "little"))


def serve() -> None:
    """Answer requests until the input ends; a worker's process runs this."""
    global _is_serving
    _is_serving = True
    # A contender's own output must not mix with the replies.
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    session = Session()
    with suppress(EOFError):
        while True:
            message = _receive(sys.stdin.buffer)
            try:
                method, arguments = pickle.loads(message)
                reply = True, getattr(session, method)(*arguments)
            except Exception as error:
                reply = False, f"{type(error).__name__}: {error}"
            _send(replies, pickle.dumps(reply))

"""Contenders in processes of their own, so that their thread pools do not disturb each other.

A `Session` holds one call and times it. `Worker` is a session in a fresh Python process with a
fixed number of threads: requests and replies are pickles over its standard input and output.
"""

from __future__ import annotations

import ctypes
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from types import TracebackType
from typing import IO, Any, Protocol

from fastloss.benchmark.measure import calibrate, settle, time_calls, warm
from fastloss.restoring import no_garbage_collection
from fastloss.settings import N_THREADS
from fastloss.threads import THREAD_VARIABLES

# Longer than any contender takes to compile, and shorter than anybody would wait.
_MOST_SECONDS = 1800.0
_POLL_SECONDS = 0.5

_is_serving = False


class Task(Protocol):
    """A picklable description of a call; ``bind`` loads its data and returns the call.

    If what the call returns cannot travel (another library's arrays), the task also has a method
    ``portable(result)`` that makes something of it that can.
    """

    def bind(self) -> Callable[[], Any]: ...


class WorkerError(RuntimeError):
    """A task failed in its process; the message is that process's."""


class Session:
    """One call at a time, in this process."""

    def __init__(self) -> None:
        self._call: Callable[[], Any] = lambda: None

    def prepare(self, task: Task) -> tuple[float, Any]:
        """Bind the task and call it once: the seconds of that first call, and its result."""
        self._call = task.bind()
        start = time.perf_counter()
        result = self._call()
        seconds = time.perf_counter() - start
        portable = getattr(task, "portable", None)
        return seconds, result if portable is None else portable(result)

    def run(self, task: Task) -> Any:
        """The result of a task that is not to be timed."""
        return task.bind()()

    def calibrate(self, min_seconds: float) -> tuple[int, float]:
        """How many calls make a batch of ``min_seconds``, and the seconds a call."""
        with no_garbage_collection():
            return calibrate(self._call, min_seconds)

    def sample(self, n_calls: int, warm_seconds: float) -> float:
        """Warm up, then time a batch: seconds a call. The turn ends when all threads rest."""
        with no_garbage_collection():
            warm(self._call, warm_seconds)
            seconds = time_calls(self._call, n_calls)
        settle()
        return seconds

    def peak_extra_bytes(self) -> int | None:
        """How far the memory of this process rises above its level during one call.

        The high-water mark of resident memory, which sees every allocator; Linux only.
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
        """Nothing to end here."""

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
    """Hand freed blocks back to the system; otherwise their reuse would hide a call's need."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _status_bytes(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise KeyError(field)


class Worker(Session):
    """A session in a process of its own with ``n_threads`` threads for BLAS and Numba alike.

    A request that is not answered in ``most_seconds`` is an error, and the end of the process.
    """

    def __init__(
        self,
        n_threads: int,
        environment: Mapping[str, str] | None = None,
        most_seconds: float = _MOST_SECONDS,
    ) -> None:
        if _is_serving:
            # A module that measures when it is imported would start processes without end.
            raise RuntimeError(
                "the process of a contender must not start another benchmark: keep its module's "
                "own under if __name__ == '__main__':"
            )
        self._most_seconds = most_seconds
        self._talk: Thread | None = None
        variables = dict.fromkeys((N_THREADS, *THREAD_VARIABLES), str(n_threads))
        # The worker finds what the caller can import, such as a candidate in the current folder.
        path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
        self._process = subprocess.Popen(
            [sys.executable, "-c", f"from {__name__} import serve; serve()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **variables, "PYTHONPATH": path, **(environment or {})},
            # An interrupt from the keyboard is the caller's to handle: it saves, then ends us.
            start_new_session=True,
        )

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
        message = pickle.dumps((method, arguments))
        replies: SimpleQueue[bytes] = SimpleQueue()
        # In a thread: neither a pipe that nobody reads nor one that nobody writes to has an end.
        self._talk = Thread(target=self._exchange, args=(message, replies), daemon=True)
        self._talk.start()
        end = time.monotonic() + self._most_seconds
        try:
            while (data := self._next(replies)) is None:
                if time.monotonic() >= end:
                    raise WorkerError(f"no answer to {method} in {self._most_seconds:g} s")
            succeeded, reply = pickle.loads(data)
        except BaseException:
            # What it still answers must not be taken for the answer to another request.
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
        """The reply, if it comes within a second; an error if it never will."""
        ended = self._process.poll()
        try:
            return replies.get(timeout=_POLL_SECONDS)
        except Empty:
            # Had it ended before, its last words would be there.
            if ended is not None:
                message = f"the process of a contender ended with code {ended}"
                raise WorkerError(message) from None
            return None

    def _end(self) -> None:
        """End the process, and those that it has started."""
        if hasattr(os, "killpg"):
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.kill()

    def close(self) -> None:
        self._end()
        self._process.wait()
        if self._talk is not None:
            self._talk.join(1.0)
        if (
            self._talk is not None and self._talk.is_alive()
        ):  # it holds the pipes, of which another process has an end
            return
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()


def _send(stream: IO[bytes], data: bytes) -> None:
    """A pickle after its length, so that one that cannot be read leaves the next one whole."""
    stream.write(len(data).to_bytes(8, "little") + data)
    stream.flush()


def _receive(stream: IO[bytes]) -> bytes:
    header = stream.read(8)
    if len(header) < 8:
        raise EOFError
    return stream.read(int.from_bytes(header, "little"))


def serve() -> None:
    """Answer requests until there are no more: what a worker's process runs."""
    global _is_serving
    _is_serving = True
    # What a contender prints must not land among the replies.
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

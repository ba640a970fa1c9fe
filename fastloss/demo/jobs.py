"""Run the longer computations of a tab in a thread, one after the other; each can be cancelled."""

from __future__ import annotations

from collections.abc import Callable
from threading import Condition, Thread
from typing import Any

Send = Callable[[dict[str, Any]], None]


class Cancelled(Exception):
    """The page has cancelled a job, or asked for another one of its kind."""


class Job:
    """One computation: ``work`` gets the method `check`, and returns the answer."""

    def __init__(
        self, kind: str, id: int | None, work: Callable[[Callable[[], None]], Any]
    ) -> None:
        self.kind = kind
        self.id = id
        self.work = work
        self.is_cancelled = False

    def check(self) -> None:
        """Raise `Cancelled` if the job is cancelled; long computations call this often."""
        if self.is_cancelled:
            raise Cancelled


class Jobs:
    """The jobs of a tab. A new job replaces an earlier one of its kind; the latter never answers.

    There is one thread for all of them, so a page that asks for too much waits for itself.
    """

    def __init__(self, send: Send, thread: type[Thread] = Thread) -> None:
        self._thread_kind = thread
        self._send = send
        self._changed = Condition()
        self._waiting: dict[str, Job] = {}
        self._current: Job | None = None
        self._thread: Thread | None = None
        self._is_closed = False

    def start(self, job: Job) -> None:
        """Run a job once the others are done."""
        with self._changed:
            self._cancel(job.kind)
            self._waiting[job.kind] = job
            if self._thread is None:
                # A daemon: Ctrl-C must not wait for a computation.
                self._thread = self._thread_kind(
                    target=self._run, daemon=True, name="fastloss-demo-jobs"
                )
                self._thread.start()
            self._changed.notify()

    def cancel(self, kind: str) -> None:
        """Cancel the jobs of a kind. They send nothing after this call."""
        with self._changed:
            self._cancel(kind)

    def close(self) -> None:
        """Cancel all jobs, and end the thread."""
        with self._changed:
            self._is_closed = True
            self._waiting.clear()
            if self._current is not None:
                self._current.is_cancelled = True
            self._changed.notify()

    def _cancel(self, kind: str) -> None:
        self._waiting.pop(kind, None)
        if self._current is not None and self._current.kind == kind:
            self._current.is_cancelled = True

    def _run(self) -> None:
        while (job := self._next()) is not None:
            try:
                answer = {job.kind: job.work(job.check)}
            except Cancelled:
                continue
            except Exception as error:  # the thread must live on, and the page must know
                answer = {"error": f"{job.kind} failed: {type(error).__name__}: {error}"}
            with self._changed:
                if not job.is_cancelled:
                    self._send({"id": job.id, **answer})

    def _next(self) -> Job | None:
        """Wait for the next job; return None once the tab is closed."""
        with self._changed:
            self._current = None
            while not self._waiting and not self._is_closed:
                self._changed.wait()
            if self._is_closed:
                return None
            self._current = self._waiting.pop(next(iter(self._waiting)))
            return self._current

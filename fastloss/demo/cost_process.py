"""Start, follow and cancel the process that measures costs."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import asdict
from threading import Lock, Thread
from typing import Any, ClassVar

from fastloss.demo import costs, processes
from fastloss.demo.messages import MessageError

#: Gets a part of the answer: ``cost`` with a table of `costs.Measurement`, or ``error``.
Tell = Callable[[dict[str, Any]], None]


class CostProcess:
    """The measurement of a tab, if one runs.

    Of all tabs only one measures: two at once would disturb each other, and take more memory.
    """

    _lock: ClassVar[Lock] = Lock()
    _owner: ClassVar[CostProcess | None] = None

    def __init__(self, thread: type[Thread] = Thread) -> None:
        self._thread = thread
        self._process: subprocess.Popen[str] | None = None

    def start(self, task: costs.Task, tell: Tell) -> None:
        """Start a measurement instead of the one that runs; ``tell`` is called in a thread."""
        self.cancel()
        with self._lock:
            if CostProcess._owner is not None:
                raise MessageError("another tab is measuring; try again when it has finished")
            process = self._process = processes.start(costs.main, asdict(task))
            CostProcess._owner = self
        self._thread(
            target=self._follow,
            args=(process, tell),
            daemon=True,
            name="fastloss-demo-costs",
        ).start()

    def cancel(self) -> None:
        """End the measurement at once, if one runs; it tells nothing after this call."""
        with self._lock:
            process = self._process
            self._forget()
        if process is not None:
            process.kill()
            process.wait()

    def _forget(self) -> None:
        if CostProcess._owner is self:
            CostProcess._owner = None
        self._process = None

    def _follow(self, process: subprocess.Popen[str], tell: Tell) -> None:
        """Pass on the tables of the process until it ends."""
        table = {"running": True}
        with process:
            assert process.stdout is not None
            for line in process.stdout:
                table = json.loads(line)
                self._tell(process, {"cost": table}, tell)
        if table["running"]:
            message = f"the process that measures costs ended with code {process.returncode}"
            self._tell(process, {"error": message}, tell)
        with self._lock:
            if self._process is process:
                self._forget()

    def _tell(self, process: subprocess.Popen[str], answer: dict[str, Any], tell: Tell) -> None:
        with self._lock:
            if self._process is process:
                tell(answer)

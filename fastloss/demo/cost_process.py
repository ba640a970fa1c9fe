"""Start, follow and cancel the process that measures costs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from threading import Lock, Thread
from typing import Any, ClassVar

from fastloss.demo import costs
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

    def start(self, problem: costs.Problem, tell: Tell) -> None:
        """Start a measurement instead of the one that runs; ``tell`` is called in a thread."""
        self.cancel()
        with self._lock:
            if CostProcess._owner is not None:
                raise MessageError("another tab is measuring; try again when it has finished")
            process = self._process = _start()
            CostProcess._owner = self
        self._thread(
            target=self._follow,
            args=(process, problem, tell),
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

    def _follow(self, process: subprocess.Popen[str], problem: costs.Problem, tell: Tell) -> None:
        """Pass on the tables of the process until it ends."""
        with process:
            assert process.stdin is not None
            assert process.stdout is not None
            table = {"running": True}
            try:
                print(json.dumps(asdict(problem)), file=process.stdin, flush=True)
                for line in process.stdout:
                    table = json.loads(line)
                    self._tell(process, {"cost": table}, tell)
            except OSError:  # the process has ended
                pass
            if table["running"]:
                code = process.wait()
                message = f"the process that measures costs ended with code {code}"
                self._tell(process, {"error": message}, tell)
        with self._lock:
            if self._process is process:
                self._forget()

    def _tell(self, process: subprocess.Popen[str], answer: dict[str, Any], tell: Tell) -> None:
        with self._lock:
            if self._process is process:
                tell(answer)


def _start() -> subprocess.Popen[str]:
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    return subprocess.Popen(
        [sys.executable, "-c", f"from {costs.__name__} import main; main()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
        # Ctrl-C is for the server, which then ends this process.
        start_new_session=True,
    )

"""Start Python processes that end with this one, however it ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from threading import Thread
from typing import Any

from fastloss import python_process


def start(main: Callable[[], None], task: Any) -> subprocess.Popen[str]:
    """Run a function of a module in a new process, which gets the task from `read_task`."""
    # Ctrl-C does not reach the new process, but the end of this one closes its input.
    process = python_process.start(main, text=True)
    assert process.stdin is not None
    # A task fits the buffer of a pipe, so this does not wait for the process.
    process.stdin.write(json.dumps(task) + "\n")
    process.stdin.flush()
    return process


def read_task() -> Any:
    """Return the task of this process, and end the process when its input closes."""
    task = json.loads(sys.stdin.readline())
    Thread(target=_end_with_input, daemon=True).start()
    return task


def _end_with_input() -> None:
    sys.stdin.read()
    os._exit(1)

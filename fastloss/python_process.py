"""Start a function in a new Python process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any


def start(
    main: Callable[[], None], environment: Mapping[str, str] | None = None, *, text: bool = False
) -> subprocess.Popen[Any]:
    """Start a process that runs a function of a module; its input and output are pipes.

    The process can import the modules of this one, also those in the current folder. It gets the
    variables of this process and those of ``environment``. Ctrl-C reaches only this process.
    """
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    return subprocess.Popen(
        [sys.executable, "-c", f"from {main.__module__} import {main.__name__} as f; f()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=text,
        env={**os.environ, "PYTHONPATH": path, **(environment or {})},
        start_new_session=True,
    )

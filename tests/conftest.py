"""Fixtures that more than one file of tests uses."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

import fastloss
from fastloss.backends import get_backend

ROOT = Path(fastloss.__file__).parents[1]

# Before OpenMP starts: threads that spin while BLAS works cost 10 ms a change, and tests change
# between the two all the time. Four times as fast on two cores.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")


@pytest.fixture
def run_python() -> Callable[..., str]:
    """Runs code in a Python of its own, with warnings as errors; its output.

    For what a process can do once only (import, start threads, fork) or might not survive.
    """

    def run(code: str, *paths: Path, timeout: float = 120.0, **environment: str) -> str:
        search = os.pathsep.join(map(str, [ROOT, *paths]))
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", textwrap.dedent(code)],
            env={**os.environ, "PYTHONPATH": search, **environment},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert done.returncode == 0, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    return run


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the backends whose `evaluate` or `score_gradient` runs, in order."""
    names: list[str] = []

    def spy_on(kind: type, method: str, name: str) -> None:
        original = getattr(kind, method)

        def spy(*arguments, **keywords):
            names.append(name)
            return original(*arguments, **keywords)

        monkeypatch.setattr(kind, method, spy)

    for name in fastloss.available_backends():
        for method in ("evaluate", "score_gradient"):
            spy_on(type(get_backend(name)), method, name)
    return names


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of whoever runs the tests says nothing about backends and threads."""
    monkeypatch.delenv("FASTLOSS_BACKEND", raising=False)
    monkeypatch.delenv("FASTLOSS_NUM_THREADS", raising=False)

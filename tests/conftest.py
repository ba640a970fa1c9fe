"""Fixtures that more than one file of tests uses."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

import fastloss
from fastloss.backends import aside, auto, fused, get_backend

ROOT = Path(fastloss.__file__).parents[1]

# What was learnt of this machine must not change what the tests see, nor the other way round.
_learnt = tempfile.TemporaryDirectory(prefix="fastloss-tests-")
os.environ["FASTLOSS_CACHE_DIR"] = _learnt.name


# Derandomised, so that a run that failed fails again.
settings.register_profile("default", deadline=None, max_examples=10, derandomize=True)
settings.register_profile("deep", deadline=None, max_examples=100)
settings.load_profile("default")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as deep all but 1 in n combinations of parameters of a test marked ``one_in(n)``.

    Number the values of each parameter. The combinations whose numbers add up to a multiple of n
    stay, so that all pairs of values meet where a third parameter has n values or more.
    """
    numbers: dict[object, dict[int, int]] = {}
    for item in items:
        if marker := item.get_closest_marker("one_in"):
            total = 0
            for name, value in item.callspec.params.items():
                known = numbers.setdefault((item.function, name), {})
                total += known.setdefault(id(value), len(known))
            if total % marker.args[0]:
                item.add_marker(pytest.mark.deep)


@pytest.fixture
def start_python() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start code in a Python of its own, with warnings as errors; kill it when the test ends.

    Ctrl-C interrupts the code even where the tests run in the background of a script, whose
    processes inherit an ignored SIGINT.
    """
    prelude = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    started: list[subprocess.Popen[str]] = []

    def start(code: str, *paths: Path, **environment: str) -> subprocess.Popen[str]:
        search = os.pathsep.join(map(str, [ROOT, *paths]))
        process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", prelude + textwrap.dedent(code)],
            env={**os.environ, "PYTHONPATH": search, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        with process:
            process.kill()


@pytest.fixture
def run_python(start_python: Callable[..., subprocess.Popen[str]]) -> Callable[..., str]:
    """Run code in a Python of its own and return its output.

    For what a process can do once only (import, start threads, fork) or might not survive.
    """

    def run(code: str, *paths: Path, timeout: float = 120.0, **environment: str) -> str:
        process = start_python(code, *paths, **environment)
        stdout, stderr = process.communicate(timeout=timeout)
        assert process.returncode == 0, f"exit {process.returncode}\n{stdout}\n{stderr}"
        return stdout

    return run


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the backends that run, in order."""
    names: list[str] = []

    def spy_on(kind: type, name: str) -> None:
        prepare, score_gradient = kind.prepare, kind.score_gradient

        def spy(function):
            def called(*arguments, **keywords):
                names.append(name)
                return function(*arguments, **keywords)

            return called

        monkeypatch.setattr(kind, "prepare", lambda *arguments: spy(prepare(*arguments)))
        monkeypatch.setattr(kind, "score_gradient", spy(score_gradient))

    for name in fastloss.available_backends():
        spy_on(type(get_backend(name)), name)
    return names


@pytest.fixture(autouse=True)
def _through_a_wide_kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch):
    """For a test that is marked with a ``unit``: all that is compiled goes through its kernel."""
    if marker := request.node.get_closest_marker("unit"):
        is_matrix = marker.args == ("amx",)
        monkeypatch.setattr(fused, "_MAX_NARROW_CLASSES", 0)
        monkeypatch.setattr(fused, "_MIN_MATRIX_ROWS", 0 if is_matrix else math.inf)
        monkeypatch.setattr(fused, "_MIN_MATRIX_SUM", 0)
        if is_matrix and "amx" not in fused.units(1, 1, np.dtype(np.float32)):
            pytest.skip(
                "no matrix unit: this CPU has no AMX, or the system does not let it be used"
            )


@pytest.fixture(autouse=True)
def _kernels_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test depends on how far a compilation in another thread has come."""

    def ready(name: str, sources: tuple[str, ...], make: Callable[[], object]) -> bool:
        make()
        return True

    monkeypatch.setattr(aside.kernels, "ready", ready)
    auto._final.clear()


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of whoever runs the tests says nothing about backends and threads."""
    monkeypatch.delenv("FASTLOSS_BACKEND", raising=False)
    monkeypatch.delenv("FASTLOSS_NUM_THREADS", raising=False)


@pytest.fixture
def real() -> Path:
    """The folder of the real data sets, which lies beside a developer's checkout."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real data: {folder} is not there")
    return folder

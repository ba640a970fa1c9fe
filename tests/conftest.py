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
from oracle import WIDE

import fastloss
from fastloss.backends import get_backend, unregister_backend
from fastloss.backends.background import compilations
from fastloss.backends.fused import FusedBackend
from fastloss.kernels.limits import Limits
from fastloss.kernels.wide_problem import units

ROOT = Path(fastloss.__file__).parents[1]

# What was learnt of this machine must not change what the tests see, nor the other way round.
_learnt = tempfile.TemporaryDirectory(prefix="fastloss-tests-")
os.environ["FASTLOSS_CACHE_DIR"] = _learnt.name


@pytest.fixture(scope="module")
def scratch(tmp_path_factory) -> Path:
    """A folder that the many examples of one property can share."""
    return tmp_path_factory.mktemp("data")


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
def _wide_backends(request: pytest.FixtureRequest) -> Iterator[None]:
    """Register the backends of `WIDE` that are among the parameters of the test."""
    callspec = getattr(request.node, "callspec", None)
    values = (
        [value for value in callspec.params.values() if isinstance(value, str)] if callspec else []
    )
    names = [name for name in WIDE if name in values]
    for name in names:
        if name == "fused_amx" and "amx" not in units(math.inf, math.inf, np.dtype(np.float32)):
            pytest.skip(
                "no matrix unit: this CPU has no AMX, or the system does not let it be used"
            )
        fastloss.register_backend(FusedBackend(WIDE[name]), name)
    yield
    for name in names:
        unregister_backend(name)


@pytest.fixture
def backend_of() -> Iterator[Callable[..., str]]:
    """Registers the compiled backend with some limits changed; its name."""

    names: list[str] = []

    def register(**limits: float) -> str:
        names.append(f"fused_{len(names)}")
        fastloss.register_backend(FusedBackend(Limits(**limits)), names[-1])
        return names[-1]

    yield register
    for name in names:
        unregister_backend(name)


@pytest.fixture(autouse=True)
def _kernels_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test depends on how far a compilation in another thread has come."""
    monkeypatch.setattr(compilations, "start", compilations.run)


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

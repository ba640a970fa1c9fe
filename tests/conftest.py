"""Share fixtures among test files."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from oracle import KERNELS

import fastloss
from fastloss.backends import get_backend, unregister_backend
from fastloss.backends.background import compilations
from fastloss.backends.fused import FusedBackend
from fastloss.benchmark import measure
from fastloss.kernels.limits import Limits
from fastloss.kernels.wide_problem import units

ROOT = Path(fastloss.__file__).parents[1]

# Keep the tests and the stored timings of this machine apart.
_learnt = tempfile.TemporaryDirectory(prefix="fastloss-tests-")
os.environ["FASTLOSS_CACHE_DIR"] = _learnt.name
# Kernels are named by everything they depend on, so test runs and processes can share them.
os.environ.setdefault("NUMBA_CACHE_DIR", str(ROOT / ".pytest_cache" / "kernels"))
# In the background of a script SIGINT is ignored, and Ctrl-C would interrupt no test.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory) -> Path:
    """Return a folder that all examples of a property share."""
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="session", autouse=True)
def _no_warming_up() -> Iterator[None]:
    """Skip the warm-up of benchmarks, because tests ignore the times."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "WARM_SECONDS", 0.0)
        yield


# Derandomised, so that a failed run fails again.
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


@pytest.fixture(scope="session")
def plain_environment() -> dict[str, str]:
    """Return the environment without the variables that this run of pytest has set for itself."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}


@pytest.fixture
def start_python() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start code in a new Python process, with warnings as errors; kill it when the test ends.

    The prelude makes Ctrl-C work, because processes in the background of a script ignore SIGINT.
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
    """Run code in a new Python process and return its output.

    Use it for code that a process can run only once (imports, threads, forks) or may not survive.
    """

    def run(code: str, *paths: Path, timeout: float = 120.0, **environment: str) -> str:
        process = start_python(code, *paths, **environment)
        stdout, stderr = process.communicate(timeout=timeout)
        assert process.returncode == 0, f"exit {process.returncode}\n{stdout}\n{stderr}"
        return stdout

    return run


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that records the names of the backends that run, in order."""
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
def _backends_of_kernels(request: pytest.FixtureRequest) -> Iterator[None]:
    """Register the backends of `KERNELS` that are among the parameters of the test."""
    callspec = getattr(request.node, "callspec", None)
    values = (
        [value for value in callspec.params.values() if isinstance(value, str)] if callspec else []
    )
    names = [name for name in KERNELS if name in values]
    for name in names:
        if name == "fused_amx" and "amx" not in units(math.inf, math.inf, np.dtype(np.float32)):
            pytest.skip(
                "no matrix unit: this CPU has no AMX, or the system does not let it be used"
            )
        fastloss.register_backend(FusedBackend(KERNELS[name]), name)
    yield
    for name in names:
        unregister_backend(name)


@pytest.fixture
def backend_of() -> Iterator[Callable[..., str]]:
    """Return a function that registers the fused backend with other limits; it returns the name."""

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
    """Compile in the calling thread, so that no test depends on the progress of another thread."""
    monkeypatch.setattr(compilations, "start", compilations.run)


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unset the environment variables that choose backends and threads."""
    monkeypatch.delenv("FASTLOSS_BACKEND", raising=False)
    monkeypatch.delenv("FASTLOSS_NUM_THREADS", raising=False)


@pytest.fixture
def real() -> Path:
    """Return the folder of the real data sets, beside a developer's checkout."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real data: {folder} is not there")
    return folder

"""The studies' shared parts: settings, processes, verification, the machine's limits."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from fastloss.arrays import Floats
from fastloss.backends import cost_model
from fastloss.benchmark.results import Results
from fastloss.benchmark.tasks import BackendTask
from fastloss.benchmark.worker import Session, Worker
from fastloss.candidates.cases import Expected
from fastloss.candidates.judging import errors_of, misfits
from fastloss.machine import environment
from fastloss.objective import Objective
from fastloss.settings import threads_to_use
from fastloss.version import install_extra

#: Largest errors allowed: relative for the loss, over the largest entry for the gradient. They are
#: wider than in the tests: at this size a hinge margin may round to either side of 0, which moves
#: one row's whole share of the gradient.
TOLERANCES = {"float32": (1e-5, 2e-3), "float64": (1e-11, 1e-9)}


Progress = Callable[[str], None]


def silent(message: str) -> None:
    """Ignore the message: a `Progress` without output."""


class VerificationError(ValueError):
    """A contender does not compute the loss and its gradient."""


@dataclass
class Settings:
    """The settings of a run. ``cell_seconds`` is for a loss at a size, or a gradient study size.

    With ``first_calls``, a run compiles into its own caches. It times a first call that compiles
    and one that loads from the cache. Without, it uses the kernels already cached.
    """

    n_threads: int = field(default_factory=threads_to_use)
    seed: int = 0
    max_rounds: int = 15
    cell_seconds: float = 1.5
    measure_ceilings: bool = True
    first_calls: bool = True

    @property
    def call_seconds(self) -> float:
        """If one call would take longer, a contender is timed in part, and marked."""
        return self.cell_seconds / 12


@dataclass
class Run:
    """The studies' shared state: results, settings, a scratch folder with fresh kernel caches."""

    results: Results
    settings: Settings
    scratch: Path
    progress: Progress = silent
    rng: np.random.Generator = field(init=False)
    compiled: set[tuple[Any, ...]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.settings.seed)

    def worker(self) -> Worker:
        """Start a process; if first calls are timed, with this run's own caches."""
        if not self.settings.first_calls:
            return Worker(self.settings.n_threads)
        caches = {
            "NUMBA_CACHE_DIR": str(self.scratch / "numba-cache"),
            "TORCHINDUCTOR_CACHE_DIR": str(self.scratch / "torch-cache"),
            # Compile in the contender's process: a pool of compilers would outlive it.
            "TORCHINDUCTOR_COMPILE_THREADS": "1",
        }
        return Worker(self.settings.n_threads, caches)

    def session(self, luggage: object) -> Session:
        """Start a process, or use this one and say why, if the luggage cannot be sent."""
        worker = self.worker()
        try:
            worker.run(_Nothing(luggage))
        except Exception as error:
            worker.close()
            return Session(why_here=_why_not_sent(error))
        return worker


@dataclass(frozen=True)
class _Nothing:
    """A task that does nothing, but carries an object to the process."""

    luggage: object

    def bind(self) -> Callable[[], None]:
        return lambda: None


def _why_not_sent(error: Exception) -> str:
    reason = first_line(error)
    if find_spec("cloudpickle") is None:
        reason += (
            "; cloudpickle sends lambdas, closures and functions of a notebook or script: "
            f"{install_extra('notebook')}"
        )
    return reason


def first_line(error: Exception) -> str:
    """Return the first line of an error's message: libraries' messages may fill pages."""
    return next(iter(str(error).splitlines()), type(error).__name__)


@contextmanager
def start(
    title: str,
    data: str,
    settings: Settings,
    progress: Progress = silent,
) -> Iterator[Run]:
    """Start a run with a scratch folder, which is deleted at the end."""
    results = Results(title, data, environment(settings.n_threads, settings.seed))
    with tempfile.TemporaryDirectory(prefix="fastloss-bench-") as folder:
        run = Run(results, settings, Path(folder), progress)
        # Copy the costs measured on this machine, but none of its compiled kernels.
        with suppress(FileNotFoundError):
            learnt = cost_model.path().read_bytes()
            (run.scratch / "fastloss-cache").mkdir()
            (run.scratch / "fastloss-cache" / cost_model.path().name).write_bytes(learnt)
        yield run


def small_weights(
    X: NDArray[Any], n_classes: int, dtype: np.dtype[Any], seed: int, intercept: bool = False
) -> Floats:
    """Draw random ``W`` (D, C) that gives scores of about 1, at any scale of ``X``.

    With ``intercept``, a bias row of 0.1 follows.
    """
    W = np.random.default_rng(seed).standard_normal((X.shape[1], n_classes))
    scale = np.sqrt(np.mean(np.square(X[:100], dtype=np.float64)) * X.shape[1])
    W = (W / max(float(scale), 1e-30)).astype(dtype)
    return with_bias_row(W) if intercept else W


def with_bias_row(W: Floats) -> Floats:
    """Return ``W`` (D + 1, C) with a bias row of 0.1."""
    return np.vstack([W, np.full_like(W[:1], 0.1)])


AnyTask = TypeVar("AnyTask", bound=BackendTask)


def affordable(session: Session, task: AnyTask, n_rows: int, call_seconds: float) -> AnyTask:
    """Return the task over all ``n_rows`` (0), or over as many as ``call_seconds`` allow.

    It is tried on more and more rows: a few rows predict the time of many badly.
    """
    while task.n_rows < n_rows:
        session.prepare(task)
        seconds = session.sample(1, 0.0)
        if seconds * n_rows / task.n_rows <= call_seconds:
            break
        if seconds > call_seconds / 10:
            return replace(task, n_rows=max(1, int(task.n_rows * call_seconds / seconds)))
        task = replace(task, n_rows=min(n_rows, 8 * task.n_rows))
    return replace(task, n_rows=0)


def limit(
    run: Run, X: NDArray[Any], n_classes: int, dtype: np.dtype[Any]
) -> tuple[float | None, str]:
    """Return the shortest possible time on this machine, and the ceiling that sets it."""
    if not run.settings.measure_ceilings:
        return None, ""
    reading = X.nbytes / _ceiling(run, "read", X.nbytes)
    # Two products of N x D x C multiply-adds, of two operations each.
    arithmetic = 4.0 * X.shape[0] * X.shape[1] * n_classes / _ceiling(run, str(dtype), 0)
    return max((reading, "reading X"), (arithmetic, "arithmetic"))


def _ceiling(run: Run, kind: str, n_bytes: int) -> float:
    """Return bytes or operations per second, measured once per run for each key."""
    from fastloss.benchmark.ceilings import ArithmeticTask, BandwidthTask

    # Beyond this the array is in memory, and its size no longer matters.
    n_bytes = min(n_bytes, 2**28)
    key = f"{kind} {n_bytes}" if kind == "read" else kind
    if key not in run.results.ceilings:
        run.progress(f"measuring the machine's limit: {key}")
        task = BandwidthTask(n_bytes) if kind == "read" else ArithmeticTask(kind)
        with run.worker() as worker:
            run.results.ceilings[key] = float(worker.run(task))
    return run.results.ceilings[key]


def verify(
    name: str, result: Any, reference: Objective, W: Floats, precision: str = "float64"
) -> tuple[float, float]:
    """Return a result's errors against the reference in float64; raise if they are too large.

    The tolerances are those of the types of ``W`` and ``precision``, the wider ones.
    """
    loss, dW = reference.astype(np.float64)(W.astype(np.float64))
    try:
        value, gradient = result
        value, gradient = float(value), np.asarray(gradient)
    except (TypeError, ValueError):
        raise VerificationError(
            f"{name} must return (loss, dW), got {type(result).__name__}"
        ) from None
    if gradient.shape != dW.shape:
        raise VerificationError(
            f"{name} returned a gradient of shape {gradient.shape}, expected {dW.shape}"
        )
    expected = Expected.exactly(loss, dW)
    tolerances = TOLERANCES["float32" if "float32" in (str(W.dtype), precision) else "float64"]
    if wrong := misfits(value, gradient, expected, tolerances):
        raise VerificationError(f"{name} is wrong: {'; '.join(wrong.values())}")
    return errors_of(value, gradient, expected)

"""How the suite measures one call: verify, take its memory, warm it up, benchmark it.

All that the suite takes from the harness (`fastloss.benchmark`) is called here.
"""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from problems import BenchProblem

from fastloss.arrays import Floats
from fastloss.benchmark import run
from fastloss.benchmark.measure import (
    MIN_BATCH_SECONDS,
    WARM_SECONDS,
    relative_error,
    settle,
    warm,
)
from fastloss.benchmark.worker import Session
from fastloss.machine import environment
from fastloss.objective import Objective
from fastloss.settings import threads_to_use

#: A round is a batch of 10 ms, or one call if that takes longer: 200 calls of 50 us, one of 100 ms.
#: With a precision of 100, pytest-benchmark estimates the batch once a tenth of 1 ms is reached.
#: The time for all rounds is left to ``--benchmark-max-time``, which a mark would override.
CALIBRATED = pytest.mark.benchmark(
    min_time=MIN_BATCH_SECONDS, calibration_precision=100, disable_gc=True
)

#: Largest error of a numerical gradient in float64, relative to its largest entry.
NUMERICAL_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Contender:
    """A call to measure on a problem.

    ``name`` is its name in tables, ``kind`` one of "backend", "candidate", "peer" and
    "numerical". ``check`` takes the result of the call, raises an exception if that is wrong, and
    returns its errors.
    """

    name: str
    kind: str
    loss: str
    problem: BenchProblem
    call: Callable[[], Any]
    check: Callable[[Any], dict[str, float]]

    def bind(self) -> Callable[[], Any]:
        """Return the call: a contender is a task of the harness's sessions."""
        return self.call


class Suite:
    """What the benchmarks of a session share: the machine's limits, measured once."""

    def __init__(self, harness: run.Run) -> None:
        self._harness = harness

    def measure(self, benchmark: Any, group: str, contender: Contender) -> None:
        """Verify the contender, and benchmark it, with what the figures mean in ``extra_info``.

        With ``--benchmark-disable`` the contender is verified and called, and nothing is measured.
        """
        problem = contender.problem
        benchmark.group = group
        session = Session()
        # The first call, which may compile.
        _, result = session.prepare(contender)
        info = benchmark.extra_info
        info |= {
            "loss": contender.loss,
            "problem": problem.title,
            "contender": contender.name,
            "kind": contender.kind,
            "threads": self._harness.settings.n_threads,
            **contender.check(result),
        }
        if not benchmark.enabled:
            benchmark(contender.call)
            return
        info["extra_bytes"], info["extra_bytes_by"] = extra_bytes(session, contender.call)
        limit_seconds, limit_of = self._limit(problem)
        gc.collect()
        # Threads of the contender before this one may spin still.
        settle()
        warm(contender.call, WARM_SECONDS)
        benchmark(contender.call)
        median = benchmark.stats.stats.median
        # X counts once a call, however often it is read.
        info["x_bytes"] = problem.X.nbytes
        info["x_gb_per_second"] = problem.X.nbytes / median / 1e9
        if limit_seconds is not None:
            info["limit_seconds"] = limit_seconds
            info["limit_of"] = limit_of
            info["share_of_limit"] = limit_seconds / median

    def _limit(self, problem: BenchProblem) -> tuple[float | None, str]:
        settle()
        return run.limit(self._harness, problem.X, problem.W.shape[1], problem.W.dtype)


@contextmanager
def start(measure_limit: bool) -> Iterator[Suite]:
    """Make the suite of a session; without ``measure_limit`` no share of the limit is reported."""
    settings = run.Settings(measure_ceilings=measure_limit)
    with run.start("benchmark suite", "synthetic", settings) as harness:
        yield Suite(harness)


def machine() -> dict[str, Any]:
    """Return the machine, the versions and the commit, as the harness stores them."""
    return environment(threads_to_use(), seed=0)


def errors_of_loss_and_grad(
    name: str, reference: Objective, W: Floats, precision: str = "float64"
) -> Callable[[Any], dict[str, float]]:
    """Return the check of a result ``(loss, dW)`` against a reference, in float64."""

    def check(result: Any) -> dict[str, float]:
        loss_error, gradient_error = run.verify(name, result, reference, W, precision)
        return {"loss_error": loss_error, "gradient_error": gradient_error}

    return check


def errors_of_numerical_gradient(
    name: str, loss: str, problem: BenchProblem
) -> Callable[[Any], dict[str, float]]:
    """Return the check of a numerical gradient, which comes without a loss."""

    def check(gradient: Floats) -> dict[str, float]:
        reference = problem.objective(loss, "numpy").astype(np.float64)
        error = relative_error(gradient, reference(problem.W.astype(np.float64))[1])
        # Written so that NaN fails too.
        if not error <= NUMERICAL_TOLERANCE:
            raise run.VerificationError(
                f"{name} is wrong: off by {error:.1e} of the largest entry, "
                f"allowed {NUMERICAL_TOLERANCE:.0e}"
            )
        return {"gradient_error": error}

    return check


def extra_bytes(session: Session, call: Callable[[], Any]) -> tuple[int, str]:
    """Return how much memory the prepared call needs for a while, and how that was measured.

    The high-water mark of the process, else tracemalloc, which sees NumPy's arrays but not those
    of compiled code.
    """
    peak = session.peak_extra_bytes()
    if peak is not None:
        return peak, "high-water mark"
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1], "tracemalloc"
    finally:
        tracemalloc.stop()

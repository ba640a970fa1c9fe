"""Plan and run ``fastloss warmup``: compile the kernels that are missing, then time calls."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from fastloss.backends import cost_model
from fastloss.backends.background import compilations
from fastloss.backends.fused import KernelSet, all_kernels
from fastloss.benchmark import calibration
from fastloss.kernel_cache import is_ready
from fastloss.losses import get_loss

#: Seconds to compile a kernel on a machine of `cost_model.default`, by the beginning of its name.
_COMPILATION = {"narrow": 5.0, "few_rows": 5.0, "wide": 4.0, "strips": 1.0}
_COMPILATION_OF_LOSS = 0.5

Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class Plan:
    """What to compile and to time.

    Attributes
    ----------
    names : names of all kernels.
    missing : kernel sets with a kernel to compile, and the names of those kernels.
    pace : how many times as long a call takes now as known costs predict.
    timing_seconds : predicted seconds of the steps of `calibration.calibrate`; none to skip it.
    """

    names: frozenset[str]
    missing: tuple[tuple[KernelSet, tuple[str, ...]], ...]
    pace: float
    timing_seconds: tuple[float, ...]

    @classmethod
    def of(cls, losses: Iterable[str], X_types: Iterable[str], calibrate: bool) -> Plan:
        """Find the missing kernels, and predict all times from one timed call."""
        sets = all_kernels(
            [get_loss(name) for name in losses], [np.dtype(name) for name in X_types]
        )
        seen: set[str] = set()
        missing = []
        for one in sets:
            new = tuple(name for name in one[1] if name not in seen and not is_ready(name))
            seen.update(one[1])
            if new:
                missing.append((one, new))
        pace = calibration.slowness()
        timing = calibration.expected_seconds(pace) if calibrate else ()
        return cls(frozenset(seen), tuple(missing), pace, tuple(timing))

    @property
    def n_missing(self) -> int:
        """Number of kernels to compile."""
        return sum(len(new) for _, new in self.missing)

    @property
    def compile_seconds(self) -> tuple[float, ...]:
        """Predicted seconds of each set of ``missing``."""
        return tuple(self.pace * sum(map(_compilation, new)) for _, new in self.missing)

    def __str__(self) -> str:
        kernels = f"{len(self.names)} kernels, {self.n_missing} to compile"
        if self.missing:
            kernels += f" in about {_rounded(sum(self.compile_seconds))}"
        if not self.timing_seconds:
            return kernels
        return f"{kernels}; then timings, in about {_rounded(sum(self.timing_seconds))}"

    def compile(self, progress: Progress) -> dict[str, str]:
        """Compile what is missing; return the error of each set that cannot be compiled.

        ``progress`` gets a message and the predicted seconds of the sets done.
        """
        failures, done = {}, 0.0
        for ((title, _, make), _), seconds in zip(self.missing, self.compile_seconds, strict=True):
            progress(f"compiling {title}", done)
            if not compilations.run(title, make):
                failures[title] = compilations.failure(title) or ""
            done += seconds
        return failures

    def time(self, progress: Progress) -> None:
        """Time calls and store the costs, with ``progress`` as for `compile`."""
        ends = [0.0, *np.cumsum(self.timing_seconds).tolist()]
        costs = calibration.calibrate(lambda message, step: progress(message, ends[step]))
        cost_model.store(costs)


def _compilation(name: str) -> float:
    return _COMPILATION.get(name.partition("_")[0], _COMPILATION_OF_LOSS)


def _rounded(seconds: float) -> str:
    """Return seconds as text of the precision that a prediction has."""
    return f"{seconds:.0f} s" if seconds < 10 else f"{round(seconds, -1):.0f} s"

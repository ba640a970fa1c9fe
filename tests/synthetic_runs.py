"""Results of benchmark runs that nobody measured, with the noise of a shared machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastloss.benchmark.results import Cell, GradientPoint, GradientStudy, Results, Timing

ENVIRONMENT: dict[str, Any] = {
    "time": "2026-11-26 04:35:33 +0000",
    "cpu": "Example CPU (R) 3000",
    "cpus": 4,
    "affinity": 4,
    "threads": 4,
    "system": "Linux 6.1.0 x86_64",
    "python": "CPython 3.11.7",
    "packages": {"numpy": "2.4.6", "numba": "0.68.1"},
    "blas": ["openblas 0.3.31 (SkylakeX)"],
    "threading_layer": "omp",
    "fastloss": "0.1.0",
    "git": "0123abc",
    "seed": 0,
}
CONTENDERS = {"naive": 1.0, "numpy": 1e-2, "numba": 8e-3, "fused": 2e-3}
N_ROWS = (100, 200, 400, 800, 1600)
CONTROL_SECONDS = 0.016


@dataclass(frozen=True)
class Noise:
    """What a shared machine does to seconds.

    Every round of every contender is off by a log-normal factor, ``noise`` (standard deviation of
    the logarithm), and one in ``1 / outliers`` also takes longer by an exponential factor of mean
    1.5. In a stretch all contenders take 5 % longer; one begins in a round with probability
    ``stretches`` and lasts ``length`` rounds on average, across the problems of a run. The whole
    run is off by a log-normal factor, ``drift``.
    """

    noise: float = 0.02
    outliers: float = 0.03
    stretches: float = 0.03
    length: float = 4.0
    drift: float = 0.02

    def factors(self, rng: np.random.Generator, n_rounds: int, n_problems: int) -> np.ndarray:
        """Return what all contenders of a round share, (n_problems, n_rounds)."""
        slow = rng.random() < self.stretches * self.length / (1 + self.stretches * self.length)
        shared = np.empty(n_problems * n_rounds)
        for i in range(len(shared)):
            slow = rng.random() >= 1 / self.length if slow else rng.random() < self.stretches
            shared[i] = 1.05 if slow else 1.0
        return shared.reshape(n_problems, n_rounds) * np.exp(rng.normal(0.0, self.drift))

    def seconds(self, rng: np.random.Generator, shared: np.ndarray, typical: float) -> list[float]:
        """Return the rounds of a contender whose undisturbed median is ``typical``."""
        own = np.exp(rng.normal(0.0, self.noise, len(shared)))
        outlier = rng.random(len(shared)) < self.outliers
        own[outlier] *= 1.0 + rng.exponential(0.5, outlier.sum())
        return (typical * shared * own).tolist()


QUIET = Noise(noise=0.01, outliers=0.0, stretches=0.0, drift=0.0)


def run_of(
    rng: np.random.Generator | int,
    noise: Noise = QUIET,
    *,
    n_rounds: int = 15,
    control_rounds: int | None = None,
    slower: Mapping[tuple[int, str], float] | None = None,
    control_slower: float = 1.0,
    gradient: bool = False,
    environment: Mapping[str, Any] | None = None,
    **fields: Any,
) -> Results:
    """Return a run of five problems and four contenders: 20 series, and an A/A control.

    ``slower`` has factors by number of rows and contender.
    """
    rng = np.random.default_rng(rng)
    slower = slower or {}
    shared = noise.factors(rng, n_rounds, len(N_ROWS) + 1)
    ends = slice(control_rounds)
    control, again = (
        noise.seconds(rng, shared[0], CONTROL_SECONDS * control_slower)[ends] for _ in range(2)
    )
    results = Results(
        "fastloss bench",
        "synthetic",
        {**ENVIRONMENT, **(environment or {})},
        control=Timing("numpy", control),
        control_again=Timing("numpy", again),
        complete=True,
    )
    for factors, n_rows in zip(shared[1:], N_ROWS, strict=True):
        timings = [
            Timing(
                name,
                noise.seconds(rng, factors, typical * n_rows * slower.get((n_rows, name), 1.0)),
                fraction=0.25 if name == "naive" and n_rows == N_ROWS[-1] else 1.0,
            )
            for name, typical in CONTENDERS.items()
        ]
        results.cells.append(Cell("softmax", n_rows, 64, 10, "float32", timings))
    if gradient:
        timing = Timing("incremental", noise.seconds(rng, shared[1], 0.5))
        points = [GradientPoint("incremental", size, timing, 2 * size, None) for size in (100, 640)]
        results.gradient = GradientStudy("softmax", 100, 10, points)
    for name, value in fields.items():
        setattr(results, name, value)
    return results

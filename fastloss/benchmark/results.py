"""The results of a benchmark run: plain records, saved as JSON and loaded again."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fastloss import files
from fastloss.benchmark.measure import PowerLaw, Ratio, Summary
from fastloss.machine import CHECKOUT, git_state

SCHEMA = 1

#: The kind of a contender: a backend of fastloss, a user's function, or another library.
Kind = Literal["backend", "candidate", "peer"]

#: The process that ran a contender: one of its own, or the caller's.
Process = Literal["own process", "this process"]


@dataclass(frozen=True)
class Timing:
    """One contender at one problem. ``seconds`` holds the seconds per call of each round."""

    contender: str
    seconds: list[float]
    # Timed share of the problem; below 1 if the whole problem would exceed the time budget.
    fraction: float = 1.0
    first_call_cold: float | None = None
    first_call: float | None = None
    peak_extra_bytes: int | None = None
    loss_error: float = 0.0
    gradient_error: float = 0.0
    note: str = ""
    kind: Kind = "backend"
    where: Process = "own process"

    @property
    def extrapolated(self) -> bool:
        """Whether `full_seconds` is scaled up from a part of the problem."""
        return self.fraction < 1.0

    @cached_property
    def full_seconds(self) -> list[float]:
        """Seconds per call on the whole problem: the timed seconds over the timed fraction."""
        return [seconds / self.fraction for seconds in self.seconds]

    @cached_property
    def summary(self) -> Summary:
        """Median and quartiles of `full_seconds`."""
        return Summary.of(self.full_seconds)


@dataclass(frozen=True)
class Cell:
    """All contenders at one problem."""

    loss: str
    n_rows: int
    n_features: int
    n_classes: int
    dtype: str
    timings: list[Timing]
    # The longer of one read of X and the arithmetic, at the machine's own ceilings.
    limit_seconds: float | None = None
    limit_of: str = ""
    # Skipped peers, with the reasons.
    skipped: dict[str, str] = field(default_factory=dict)
    # Wrong candidates, with the reasons.
    refused: dict[str, str] = field(default_factory=dict)

    @property
    def size(self) -> str:
        """``N x D x C``."""
        return f"{self.n_rows} x {self.n_features} x {self.n_classes}"

    def fastest(self, kind: Kind) -> Timing | None:
        """Return the timing with the shortest median of a kind, or None."""
        timings = [timing for timing in self.timings if timing.kind == kind]
        return min(timings, key=lambda timing: timing.summary.median, default=None)

    def timing(self, contender: str) -> Timing | None:
        """Return the contender's timing, or None."""
        return next((t for t in self.timings if t.contender == contender), None)

    def speedup(self, timing: Timing, over: str) -> Ratio | None:
        """Return the speed-up over the contender ``over``."""
        other = self.timing(over)
        if other is None or other is timing:
            return None
        return Ratio.of(other.full_seconds, timing.full_seconds)


@dataclass(frozen=True)
class GradientPoint:
    """One method's full gradient at one parameter count."""

    method: str
    n_parameters: int
    timing: Timing
    loss_evaluations: int
    # Largest error over the sampled coordinates, relative to the largest entry of the gradient.
    error: float | None


@dataclass(frozen=True)
class GradientStudy:
    """Time and error of a full gradient against the parameter count."""

    loss: str
    n_rows: int
    n_classes: int
    points: list[GradientPoint] = field(default_factory=list)
    #: Slopes are fitted from this parameter count on: below it, a call's fixed cost counts.
    fit_from: int = 1000

    @property
    def methods(self) -> list[str]:
        """The methods, in the order of measurement."""
        return list(dict.fromkeys(point.method for point in self.points))

    @property
    def main_count(self) -> int:
        """30,730 parameters (CIFAR-10's with ten classes) or, without it, the largest count."""
        counts = {point.n_parameters for point in self.points}
        return 30_730 if 30_730 in counts else max(counts)

    def of(self, method: str) -> list[GradientPoint]:
        """Return the points of a method, sorted by parameter count."""
        return sorted(
            (point for point in self.points if point.method == method),
            key=lambda point: point.n_parameters,
        )

    def slope(self, method: str) -> PowerLaw | None:
        """Fit a power law to a method's times from `fit_from` on; None with fewer than three."""
        points = [point for point in self.of(method) if point.n_parameters >= self.fit_from]
        if len(points) < 3:
            return None
        return PowerLaw.fit(
            [point.n_parameters for point in points],
            [point.timing.summary.median for point in points],
        )

    def crossovers(self) -> list[tuple[str, str, float]]:
        """Return ``(faster below, faster above, parameter count)`` where methods change places.

        Counts are interpolated between neighbouring points in log-log. Pairs that change places
        more than once are left out: no difference between them could be measured.
        """
        pairs = combinations(self.methods, 2)
        crossings = [_crossings(self.of(one), self.of(other)) for one, other in pairs]
        return [found[0] for found in crossings if len(found) == 1]


def _crossings(
    one: list[GradientPoint], other: list[GradientPoint]
) -> list[tuple[str, str, float]]:
    seconds = {point.n_parameters: point.timing.summary.median for point in other}
    shared = [point for point in one if point.n_parameters in seconds]
    sizes = np.log([point.n_parameters for point in shared])
    # Logarithms of the time of `one` over the time of `other`.
    gaps = np.log([point.timing.summary.median / seconds[point.n_parameters] for point in shared])
    found = []
    for k in range(len(gaps) - 1):
        if gaps[k] * gaps[k + 1] < 0:
            at = sizes[k] + (sizes[k + 1] - sizes[k]) * gaps[k] / (gaps[k] - gaps[k + 1])
            names = (one[0].method, other[0].method)
            below, above = names if gaps[k] < 0 else names[::-1]
            found.append((below, above, float(np.exp(at))))
    return found


@dataclass
class Results:
    """The results of a run. ``complete`` is False if it was interrupted."""

    title: str
    data: str
    environment: dict[str, Any]
    ceilings: dict[str, float] = field(default_factory=dict)
    control: Timing | None = None
    control_again: Timing | None = None
    cells: list[Cell] = field(default_factory=list)
    gradient: GradientStudy | None = None
    complete: bool = False

    @property
    def has_peers(self) -> bool:
        """Whether another library was timed."""
        return any(cell.fastest("peer") for cell in self.cells)

    @property
    def control_ratio(self) -> Ratio | None:
        """The ratio of the same contender to itself: 1 on a machine without noise."""
        if self.control is None or self.control_again is None:
            return None
        return Ratio.of(self.control.seconds, self.control_again.seconds)

    def to_json(self) -> str:
        """Return the results as JSON."""
        return json.dumps({"schema": SCHEMA, **asdict(self)}, indent=1)

    def save(self, path: Path) -> None:
        """Write the JSON file; an older one is replaced in one step."""
        files.write(path, self.to_json() + "\n")

    @classmethod
    def load(cls, path: Path) -> Results:
        """Read a file that `save` wrote."""
        record = json.loads(path.read_text())
        if record.pop("schema", None) != SCHEMA:
            raise ValueError(f"{path} is not a result file of schema {SCHEMA}")
        for name in ("control", "control_again"):
            if record[name] is not None:
                record[name] = Timing(**record[name])
        record["cells"] = [_cell(cell) for cell in record["cells"]]
        if record["gradient"] is not None:
            points = [_point(point) for point in record["gradient"].pop("points")]
            record["gradient"] = GradientStudy(**record["gradient"], points=points)
        return cls(**record)


def check_published(paths: Iterable[Path]) -> None:
    """Raise if a path is in the folder of published results and the checkout has changes.

    Readers of a published result must be able to check out the measured code.
    """
    folder = (CHECKOUT / "bench" / "results").resolve()
    for path in paths:
        if folder in path.resolve().parents and git_state().endswith("-dirty"):
            raise ValueError(
                f"{path} would hold results of files that are in no commit: commit them first, or "
                "pass --allow-dirty"
            )


def _cell(record: dict[str, Any]) -> Cell:
    return Cell(**{**record, "timings": [Timing(**timing) for timing in record["timings"]]})


def _point(record: dict[str, Any]) -> GradientPoint:
    return GradientPoint(**{**record, "timing": Timing(**record["timing"])})

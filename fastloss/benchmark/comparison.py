"""Compare two benchmark runs: what became faster or slower between two result files.

Ratio and interval
------------------
A change is the ratio ``median(after) / median(before)``, divided by the drift of the machine. The
rounds of two runs are not paired, so each median has an interval of its own, between two order
statistics (the distribution does not matter, and outliers count once each). The interval of the
ratio combines the two opposite ends: ``[low(after) / high(before), high(after) / low(before)]``.
That is wide for independent rounds (it covers 99 %), but rounds are not independent. Noise comes in
stretches, for which the usual intervals are too narrow: of 15 rounds with stretches of 5 rounds,
the rank-sum interval covers 77 %, and combining the ends by the root of summed squares 86 %. For
the same reason the order statistics are those of fewer, effective rounds, ``n (1 - r) / (1 + r)``:
``r`` is the mean rank autocorrelation of successive rounds over all series of the run. In the
simulations of ``tests/test_comparison.py`` the intervals cover 96 % for 6, 9 and 15 rounds, and
94 % with longer and more frequent stretches. A stretch that lasts for all rounds of a problem
cannot be told from a slowdown.

Drift
-----
A machine can be slower in one run as a whole. Two witnesses have to agree on that: the A/A controls
of the runs (the same NumPy product) and the median contender. The smaller of the two changes is
cancelled, up to `MOST_DRIFT`, and nothing if their directions differ. One witness is not enough:
the median alone would hide a change that slows down half of the contenders, and the control alone
is one short series. The correction is worth it: with a drift of 2 % in each run, intervals of 15
rounds cover 74 % without it and 96 % with it. Its price: a change that slows down all contenders
alike, the NumPy backend included, is found only beyond `MOST_DRIFT`.

The gate
--------
A contender fails if the lower end of its interval is above the threshold and above the farthest end
of either run's A/A control, and if its own seconds increased: the correction alone fails nobody.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastloss.benchmark.measure import MIN_ROUNDS
from fastloss.benchmark.results import Results, Timing

SCHEMA = 1
#: The most that is put down to the machine instead of to the contenders.
MOST_DRIFT = 1.10
#: A median of fewer contenders than this does not speak for the machine.
_FEWEST_WITNESSES = 5
#: Two-sided 95 % of a normal distribution.
_Z = 1.96
#: Longer stretches would leave fewer than a fifth of the rounds.
_MOST_PERSISTENCE = 0.6
#: What has to be the same for seconds to be comparable.
_MACHINE = {
    "cpu": "processor",
    "cpus": "number of CPUs",
    "affinity": "CPUs that could be used",
    "threads": "threads",
}
#: What may be the reason for a change: differences are reported.
_SOFTWARE = ("system", "python", "packages", "blas", "threading_layer", "fastloss", "git", "seed")

Verdict = Literal["slower", "faster", "no change", "too few rounds"]


class Key(NamedTuple):
    """A contender at a problem; ``place`` tells repeated problems of one run apart."""

    kind: Literal["cell", "gradient"]
    loss: str
    size: str
    dtype: str
    contender: str
    place: int = 0

    def __str__(self) -> str:
        return f"{self.contender} on {self.loss}, {self.size} {self.dtype}"


@dataclass(frozen=True)
class Interval:
    """A ratio; ``low`` and ``high`` are the ends of its 95 % interval, None without one."""

    value: float
    low: float | None = None
    high: float | None = None

    def over(self, factor: float) -> Interval:
        """Return the ratio and its ends, divided by a factor."""
        ends = (None if end is None else end / factor for end in (self.low, self.high))
        return Interval(self.value / factor, *ends)

    @property
    def verdict(self) -> Verdict:
        """In which direction the interval excludes 1."""
        if self.low is None or self.high is None:
            return "too few rounds"
        if self.low > 1.0:
            return "slower"
        return "faster" if self.high < 1.0 else "no change"


@dataclass(frozen=True)
class Change:
    """A contender that took part in both runs. ``own``: its ratio before the drift is cancelled."""

    key: Key
    before: Timing
    after: Timing
    own: Interval
    ratio: Interval
    fails: bool

    @property
    def extrapolated(self) -> bool:
        """Whether either run timed a part of the problem only."""
        return self.before.extrapolated or self.after.extrapolated

    def record(self) -> dict[str, Any]:
        """Return the change as JSON has it; seconds are medians of one call."""
        names = {name: value for name, value in self.key._asdict().items() if name != "place"}
        return {
            **names,
            "before_seconds": self.before.summary.median,
            "after_seconds": self.after.summary.median,
            "rounds": [len(self.before.seconds), len(self.after.seconds)],
            "fractions": [self.before.fraction, self.after.fraction],
            "extrapolated": self.extrapolated,
            "ratio": asdict(self.ratio),
            "ratio_with_drift": asdict(self.own),
            "verdict": self.ratio.verdict,
            "fails": self.fails,
        }


@dataclass(frozen=True)
class Comparison:
    """All changes, worst first.

    ``fail_above`` is the slowdown that was asked for, None without a threshold, and ``limit`` the
    ratio that a lower end has to exceed to fail. ``controls`` are the farthest ends of the A/A
    controls, before and after: ``limit`` is no smaller.
    """

    changes: list[Change]
    only_before: list[Key]
    only_after: list[Key]
    drift: float
    shared: float
    controls: tuple[float | None, float | None]
    fail_above: float | None
    limit: float | None
    warnings: list[str]

    @property
    def undecided(self) -> list[Change]:
        """The changes that would fail, were the A/A controls closer to 1."""
        if self.fail_above is None:
            return []
        return [
            change
            for change in self.changes
            if not change.fails and _exceeds(change.ratio, change.own, 1.0 + self.fail_above)
        ]

    @property
    def failures(self) -> list[Change]:
        """The changes that fail."""
        return [change for change in self.changes if change.fails]

    def record(self) -> dict[str, Any]:
        """Return the comparison as JSON has it."""
        return {
            "schema": SCHEMA,
            "failed": bool(self.failures),
            "undecided": [str(change.key) for change in self.undecided],
            "limit": self.limit,
            "controls": list(self.controls),
            "drift": self.drift,
            "shared_change": self.shared,
            "warnings": self.warnings,
            "changes": [change.record() for change in self.changes],
            "only_before": [str(key) for key in self.only_before],
            "only_after": [str(key) for key in self.only_after],
        }


def load(path: Path) -> Results:
    """Read a result file and check that its timings can be compared.

    Raises
    ------
    OSError : the file cannot be read.
    ValueError : it is damaged, or not a result file.
    """
    try:
        results = Results.load(path)
        if not isinstance(results.environment, dict):
            raise ValueError("its environment is not an object")
        _largest(results)  # compares the numbers of all cells
        for timing in _all_timings(results):
            _check(timing)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        told = f"it has no {error}" if isinstance(error, KeyError) else str(error)
        told = told.removeprefix(f"{path} is ")
        raise ValueError(f"{path} is not a result file of fastloss bench: {told}") from error
    return results


def _all_timings(results: Results) -> Iterator[Timing]:
    yield from timings(results).values()
    yield from (timing for timing in (results.control, results.control_again) if timing is not None)


def _check(timing: Timing) -> None:
    if not (0.0 < timing.fraction <= 1.0):
        raise ValueError(f"{timing.contender} has the fraction {timing.fraction}")
    if not timing.seconds or not all(0.0 < value < math.inf for value in timing.seconds):
        raise ValueError(f"{timing.contender} has seconds that are missing or not positive")


def timings(results: Results) -> dict[Key, Timing]:
    """Return every timing of a run but the controls: cells, then the gradient study."""
    found: dict[Key, Timing] = {}
    seen: Counter[Key] = Counter()

    def add(key: Key, timing: Timing) -> None:
        found[key._replace(place=seen[key])] = timing
        seen[key] += 1

    for cell in results.cells:
        for timing in cell.timings:
            add(Key("cell", cell.loss, cell.size, cell.dtype, timing.contender), timing)
    if (study := results.gradient) is not None:
        for point in study.points:
            size = f"{study.n_rows} rows, {study.n_classes} classes, {point.n_parameters} in W"
            add(Key("gradient", study.loss, size, "float64", point.method), point.timing)
    return found


def compare_runs(
    before: Results,
    after: Results,
    *,
    fail_above: float | None = None,
    cancel_drift: bool = True,
) -> Comparison:
    """Compare two runs. ``fail_above`` is the slowdown that may fail, 0.1 for 10 %.

    Raises
    ------
    ValueError : the runs are from different machines, or have no contender at a problem in common.
    """
    check_same_machine(before, after)
    old, new = timings(before), timings(after)
    common = [key for key in old if key in new]
    if not common:
        raise ValueError("the results have no contender at the same problem in common")
    persistence = persistence_of(old.values()), persistence_of(new.values())
    own = {
        key: ratio_of_medians(old[key].full_seconds, new[key].full_seconds, *persistence)
        for key in common
    }
    shared = _shared_change(before, after, list(own.values())) if cancel_drift else 1.0
    drift = min(max(shared, 1.0 / MOST_DRIFT), MOST_DRIFT)
    controls = control_end(before), control_end(after)
    limit = None
    if fail_above is not None:
        limit = max(1.0 + fail_above, *(end for end in controls if end is not None), 1.0)
    changes = [
        _change(key, old[key], new[key], own[key], own[key].over(drift), limit) for key in common
    ]
    changes.sort(key=lambda change: (not change.fails, -change.ratio.value))
    return Comparison(
        changes=changes,
        only_before=[key for key in old if key not in new],
        only_after=[key for key in new if key not in old],
        drift=drift,
        shared=shared,
        controls=controls,
        fail_above=fail_above,
        limit=limit,
        warnings=list(_warnings(before, after, controls)),
    )


def _change(
    key: Key, before: Timing, after: Timing, own: Interval, ratio: Interval, limit: float | None
) -> Change:
    fails = limit is not None and _exceeds(ratio, own, limit)
    return Change(key, before, after, own, ratio, fails)


def _exceeds(ratio: Interval, own: Interval, limit: float) -> bool:
    """Return whether a slowdown is surely above the limit, and one without cancelled drift too."""
    if ratio.low is None or own.low is None:
        return False
    return ratio.low > limit and own.low > 1.0


def ratio_of_medians(
    before: Sequence[float],
    after: Sequence[float],
    persistence_before: float = 0.0,
    persistence_after: float = 0.0,
) -> Interval:
    """Return the ratio of the medians of two independent series, with its 95 % interval.

    ``persistence`` is what `persistence_of` says of the run. No interval if a series has fewer
    than `MIN_ROUNDS` rounds.
    """
    value = float(np.median(after) / np.median(before))
    if min(len(before), len(after)) < MIN_ROUNDS:
        return Interval(value)
    low_before, high_before = _median_ends(before, persistence_before)
    low_after, high_after = _median_ends(after, persistence_after)
    return Interval(value, low_after / high_before, high_after / low_before)


def _median_ends(seconds: Sequence[float], persistence: float) -> tuple[float, float]:
    """Return the ends of the 95 % interval of a median, interpolated between the rounds.

    The number of rounds below the median is about normal, with the variance of effective rounds.
    """
    n = len(seconds)
    inflation = (1.0 + persistence) / (1.0 - persistence)
    from_end = max(0.0, (n - 1) / 2 - _Z * math.sqrt(n * inflation) / 2)
    logs = np.interp([from_end, n - 1 - from_end], np.arange(n), np.log(np.sort(seconds)))
    low, high = np.exp(logs)
    return float(low), float(high)


def persistence_of(series: Any) -> float:
    """Return the mean rank autocorrelation of successive rounds over the series of a run.

    Between 0 (noise of independent rounds, or less) and 0.6. The mean over all series is steadier
    than each of them, and stretches of noise hit all contenders of a round alike.
    """
    values = [
        correlation
        for timing in series
        if len(timing.seconds) >= MIN_ROUNDS
        and (correlation := _autocorrelation(timing.seconds)) is not None
    ]
    return float(np.clip(np.mean(values), 0.0, _MOST_PERSISTENCE)) if values else 0.0


def _autocorrelation(seconds: Sequence[float]) -> float | None:
    """Return the rank autocorrelation of successive rounds, None if all rounds are alike."""
    ranks = _ranks(np.array(seconds))
    ranks -= ranks.mean()
    total = float(ranks @ ranks)
    if total == 0.0:
        return None
    # Of independent rounds its mean is -1/n.
    return float(ranks[1:] @ ranks[:-1]) / total + 1.0 / len(ranks)


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return ranks from 1; equal values share their mean rank."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[place]


def control_end(results: Results) -> float | None:
    """Return the end of the A/A control's interval that is farthest from 1, as a ratio above 1.

    Of a control without an interval, its value.
    """
    control = results.control_ratio
    if control is None:
        return None
    ends = [control.low, control.high] if control.has_interval else [control.value]
    return max(max(end, 1.0 / end) for end in ends)


def _shared_change(before: Results, after: Results, own: Sequence[Interval]) -> float:
    """Return the change on which the controls and the median contender agree; 1 if on none."""
    sure = [math.log(ratio.value) for ratio in own if ratio.low is not None]
    control = _control_change(before, after)
    if control is None or len(sure) < _FEWEST_WITNESSES:
        return 1.0
    median = float(np.median(sure))
    if median * control <= 0.0:
        return 1.0
    return math.exp(min(median, control, key=abs))


def _control_change(before: Results, after: Results) -> float | None:
    """Return the logarithm of the controls' ratio between the runs, if they can be compared."""
    if _largest(before) != _largest(after):  # the controls are timed at the largest size
        return None
    medians = []
    for results in (before, after):
        if results.control is None or results.control_again is None:
            return None
        seconds = [*results.control.seconds, *results.control_again.seconds]
        if len(seconds) < 2 * MIN_ROUNDS:
            return None
        medians.append(float(np.median(seconds)))
    return math.log(medians[1] / medians[0])


def _largest(results: Results) -> tuple[int, int, int, str] | None:
    sizes = [(c.n_rows, c.n_features, c.n_classes, c.dtype) for c in results.cells]
    return max(sizes, key=lambda size: (size[0] * size[1], size), default=None)


def check_same_machine(before: Results, after: Results) -> None:
    """Raise ValueError if the environments make a comparison of seconds meaningless."""
    old, new = before.environment, after.environment
    different = [
        f"{name}: {old.get(key, 'not recorded')} and {new.get(key, 'not recorded')}"
        for key, name in _MACHINE.items()
        if old.get(key) != new.get(key)
    ]
    if (systems := (_platform(old), _platform(new)))[0] != systems[1]:
        different.append(f"system: {systems[0]} and {systems[1]}")
    if different:
        raise ValueError(f"the results are from different machines ({'; '.join(different)})")


def _platform(environment: dict[str, Any]) -> str:
    """Return the operating system and the architecture, without the kernel's release."""
    words = str(environment.get("system", "not recorded")).split()
    return " ".join((words[0], words[-1])) if words else ""


def _warnings(
    before: Results, after: Results, controls: tuple[float | None, float | None]
) -> Iterator[str]:
    """Say what a reader has to know before trusting the comparison."""
    for name, results, control in zip(("before", "after"), (before, after), controls, strict=True):
        if not results.complete:
            yield f"The run {name} was interrupted: only what it had measured is compared."
        if control is None:
            yield f"The run {name} has no A/A control: its noise is not taken into account."
    if before.data != after.data:
        yield f"The data differ: {before.data}; {after.data}."
    for key in _SOFTWARE:
        old, new = before.environment.get(key), after.environment.get(key)
        if old != new:
            yield f"Not the same in both runs, {key}: {_difference(old, new)}."


def _difference(old: Any, new: Any) -> str:
    if isinstance(old, dict) and isinstance(new, dict):
        names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
        return ", ".join(f"{name} {old.get(name)} -> {new.get(name)}" for name in names)
    return f"{old} -> {new}"

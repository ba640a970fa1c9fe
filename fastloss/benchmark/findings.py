"""Describe results in words: lost comparisons, the noise, and unusual conditions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby

from fastloss.benchmark.measure import Ratio
from fastloss.benchmark.results import Cell, GradientStudy, Results, Timing
from fastloss.machine import changed_by
from fastloss.settings import AUTO
from fastloss.tables import Table, count_of, seconds, size_of

#: The contenders that should be the fastest.
CHAMPIONS = ("fused", AUTO)
# A share of the limit above this is more than rounding.
_ABOVE_LIMIT = 1.005


def verdict(ours: Timing, theirs: Timing) -> str:
    """Compare two timings in a word; a difference counts only if its interval excludes 1."""
    speedup = Ratio.of(theirs.full_seconds, ours.full_seconds)
    if not speedup.has_interval:
        return f"not decided by {count_of(speedup.n_rounds, 'round')}"
    if speedup.low > 1:
        return "faster"
    return "slower" if speedup.high < 1 else "no different"


# --- where fastloss loses -------------------------------------------------------------------------


@dataclass(frozen=True)
class Comparison:
    """A champion and another contender at the same problem, or for the same gradient."""

    where: str
    ours: Timing
    theirs: Timing

    @property
    def ratio(self) -> Ratio:
        """The time of ours over the time of theirs."""
        return Ratio.of(self.ours.full_seconds, self.theirs.full_seconds)

    @property
    def is_loss(self) -> bool:
        """Whether ours is slower: the whole interval is above 1."""
        return self.ratio.low > 1


def comparisons(results: Results) -> Iterator[Comparison]:
    """Yield each champion with each other contender, in the cells and the gradient study."""
    for cell in results.cells:
        where = f"{cell.loss}, {cell.size}, {cell.dtype}"
        yield from _pairs(where, cell.timings, CHAMPIONS)
    if results.gradient is not None:
        yield from _gradient_comparisons(results.gradient)


def _gradient_comparisons(study: GradientStudy) -> Iterator[Comparison]:
    """Compare each method across backends, but not "analytic" with "per element"."""
    champions = tuple(point.method for point in study.points if point.method.endswith(" fused"))
    champions += tuple(m for m in study.methods if m.endswith(" fused loss"))
    points = sorted(study.points, key=lambda point: (point.n_parameters, _family(point.method)))
    for (n, family), group in groupby(points, key=lambda p: (p.n_parameters, _family(p.method))):
        where = f"gradient of {study.loss}, {family}, {n:,} parameters"
        yield from _pairs(where, [point.timing for point in group], champions)


def _family(method: str) -> str:
    """Return ``"analytic"`` for ``"analytic, NumPy"``."""
    return method.partition(",")[0]


def _pairs(
    where: str, timings: Iterable[Timing], champions: tuple[str, ...]
) -> Iterator[Comparison]:
    every = list(timings)
    for ours in every:
        if ours.contender in champions:
            for theirs in every:
                if theirs.contender not in champions:
                    yield Comparison(where, ours, theirs)


def losses_table(results: Iterable[Results]) -> Table:
    """List the comparisons that ``fused`` or ``auto`` lose, the worst first."""
    compared = [found for each in results for found in comparisons(each)]
    lost = sorted((c for c in compared if c.is_loss), key=lambda c: -c.ratio.value)
    rows = [
        (
            c.where,
            c.theirs.contender,
            seconds(c.theirs.summary.median),
            f"{c.ours.contender} {seconds(c.ours.summary.median)}",
            f"{c.ratio.value:.2f} [{c.ratio.low:.2f}, {c.ratio.high:.2f}]",
        )
        for c in lost
    ]
    undecided = sum(not c.ratio.has_interval for c in compared)
    notes = [
        f"Of {count_of(len(compared), 'comparison')} of fused and auto with another contender, "
        f"{len(lost)} {'is' if len(lost) == 1 else 'are'} lost: the interval is above 1."
    ]
    if undecided:
        notes.append(f"{undecided} had too few rounds to decide.")
    columns = ("problem", "faster", "its time", "fastloss", "times as long")
    return Table("Where fastloss loses", columns, rows, tuple(notes), n_labels=2)


# --- the gradient study ---------------------------------------------------------------------------

_PER_ELEMENT = "per element, "


def gradient_notes(study: GradientStudy) -> Iterator[str]:
    """Explain the lines of the study: where they bend, and which ones are above NumPy's."""
    yield from _bends(study)
    if above := _above_numpy(study):
        slower = (
            f"{method!r} at {', '.join(counts)} parameters" for method, counts in above.items()
        )
        yield (
            f"Slower than with NumPy: {'; '.join(slower)}. With {study.n_rows} rows, W is large "
            "beside X; compiled loops read W again for every few rows, BLAS for many."
        )


def _bends(study: GradientStudy) -> Iterator[str]:
    """Say what one loss evaluation costs at the fewest parameters, and at the first of the fit."""
    counts = sorted({point.n_parameters for point in study.points})
    fitted = [count for count in counts if count >= study.fit_from]
    if not fitted or fitted[0] == counts[0]:
        return
    costs = []
    for method in (m for m in study.methods if m.startswith(_PER_ELEMENT)):
        cost = {
            p.n_parameters: p.timing.summary.median / p.loss_evaluations for p in study.of(method)
        }
        if counts[0] in cost and fitted[0] in cost:
            name = method.removeprefix(_PER_ELEMENT).removesuffix(" loss")
            costs.append(f"{name} {seconds(cost[counts[0]])} and {seconds(cost[fitted[0]])}")
    if costs:
        n_bytes = 8 * study.n_rows * fitted[0] // study.n_classes
        yield (
            f"One loss evaluation with {counts[0]:,} and with {fitted[0]:,} parameters takes: "
            f"{', '.join(costs)}. Where the fixed cost of a call dominates, slopes are lower by 1; "
            f"where X, {size_of(n_bytes)} with {fitted[0]:,}, outgrows a cache, they are higher."
        )


def _above_numpy(study: GradientStudy) -> dict[str, list[str]]:
    """Return the parameter counts at which a compiled loss is slower than NumPy's, by method."""
    timings = {(p.method, p.n_parameters): p.timing for p in study.points}
    found: dict[str, list[str]] = {}
    for point in study.points:
        _, _, backend = point.method.removesuffix(" loss").partition(", ")
        with_numpy = point.method.replace(f", {backend}", ", NumPy")
        theirs = timings.get((with_numpy, point.n_parameters))
        if backend in ("", "naive", "NumPy") or theirs is None:
            continue
        if Comparison("", point.timing, theirs).is_loss:
            found.setdefault(point.method, []).append(f"{point.n_parameters:,}")
    return found


# --- the noise, and unusual conditions ------------------------------------------------------------


def control_line(results: Results) -> str:
    """Return the A/A control's ratio and its meaning, in a sentence."""
    control = results.control_ratio
    if control is None:
        return "A/A control: not measured."
    same = f"A/A control: the same contender against itself is {control.value:.3f}"
    if not control.has_interval:
        return f"{same}, from {count_of(control.n_rounds, 'round')}: too few for an interval."
    if control.uncertainty >= 1.0:
        return (
            f"{same} [{control.low:.3f}, {control.high:.3f}]: too noisy to compare contenders, so "
            "measure again on a quieter machine."
        )
    return (
        f"{same} [{control.low:.3f}, {control.high:.3f}]; "
        f"differences below about {100 * control.uncertainty:.0f} % mean nothing here."
    )


def plain_machine(results: Results) -> str:
    """Return the machine, the commit and the day, in a sentence."""
    found = results.environment
    blas = ", ".join(found["blas"]) or "unknown"
    commit = f" at commit {found['git']}" if found["git"] else ""
    return (
        f"Measured on {found['cpu']} ({count_of(found['affinity'], 'CPU')}, "
        f"{count_of(found['threads'], 'thread')}; BLAS: {blas}) on {found['time'].split()[0]}"
        f"{commit}."
    )


def surroundings_notes(results: Results) -> Iterator[str]:
    """Yield notes on variables and load that changed contenders' times in this run."""
    names = {timing.contender for cell in results.cells for timing in cell.timings}
    for variable, value in results.environment.get("variables", {}).items():
        touched = sorted(n for n in names if n.startswith(changed_by(variable)))
        if touched:
            yield f"{variable}={value} was set, which changes {', '.join(touched)}."
    load = results.environment.get("load")
    if load is not None and load > 0.5 * results.environment["affinity"]:
        yield (
            f"The load average was {load:.1f} at the start: another program, or a benchmark just "
            "before, was computing."
        )


def limit_notes(cells: Iterable[Cell], has_matrix_unit: bool) -> Iterator[str]:
    """Explain why contenders are above 100 % of the limit."""
    for cell in cells:
        if cell.limit_seconds is None:
            continue
        above = [
            timing.contender
            for timing in cell.timings
            if not timing.extrapolated and cell.limit_seconds > _ABOVE_LIMIT * timing.summary.median
        ]
        if not above:
            continue
        if has_matrix_unit and cell.limit_of == "arithmetic" and cell.dtype != "float64":
            why = "a matrix unit (AMX) multiplies faster than the vector units, which set the limit"
        else:
            why = "the limit was measured at another moment of the same run, when it was slower"
        yield f"{cell.loss}, {cell.size}, above 100 %: {', '.join(above)}; {why}."

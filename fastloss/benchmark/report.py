"""Make tables of results, with the same rows for the terminal and for Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from fastloss.benchmark.findings import (
    gradient_notes,
    limit_notes,
    losses_table,
    surroundings_notes,
    verdict,
)
from fastloss.benchmark.measure import MIN_ROUNDS, Ratio, Summary
from fastloss.benchmark.results import Cell, GradientPoint, GradientStudy, Results, Timing
from fastloss.settings import AUTO
from fastloss.tables import Table, count_of, seconds, size_of

#: Marks times that were measured in part and scaled up.
EXTRAPOLATED = "~"


def ratio(value: Ratio | None, extrapolated: bool = False) -> str:
    """Format a ratio with its interval, or with its rounds if they are too few for one."""
    if value is None:
        return "1"
    text = f"{EXTRAPOLATED if extrapolated else ''}{_factor(value.value)}"
    if not value.has_interval:
        return f"{text} ({count_of(value.n_rounds, 'round')})"
    return f"{text} [{_factor(value.low)}, {_factor(value.high)}]"


def _factor(value: float) -> str:
    """Format a factor; one of 1/100 or less as a fraction."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"1/{1 / value:,.0f}" if value <= 0.01 else f"{value:.2f}"


def time_of(timing: Timing | None) -> str:
    """Format the median time, marked if it is extrapolated."""
    if timing is None:
        return "-"
    mark = EXTRAPOLATED if timing.extrapolated else ""
    return mark + seconds(timing.summary.median)


def spread(summary: Summary) -> str:
    """Format the interquartile range over the median, or the rounds if they are too few."""
    if summary.n_rounds < MIN_ROUNDS:
        return f"({count_of(summary.n_rounds, 'round')})"
    return f"{100 * (summary.high - summary.low) / summary.median:.0f} %"


def limit_share(cell: Cell, timing: Timing) -> str:
    """Format the limit as a share of the median time."""
    if cell.limit_seconds is None or timing.extrapolated:
        return "-"
    return f"{100 * cell.limit_seconds / timing.summary.median:.0f} %"


def _speedup(timing: Timing, over: Timing | None) -> str:
    """Format the speed-up over another contender, or "-" if that one was not timed."""
    if over is None:
        return "-"
    if over is timing:
        return ratio(None)
    value = Ratio.of(over.full_seconds, timing.full_seconds)
    return ratio(value, extrapolated=over.extrapolated or timing.extrapolated)


def _baselines(results: Results) -> dict[str, Callable[[Cell], Timing | None]]:
    """Return the baselines that were timed, by the head of their column."""
    known: dict[str, Callable[[Cell], Timing | None]] = {
        "x naive": lambda cell: cell.timing("naive"),
        "x NumPy": lambda cell: cell.timing("numpy"),
        "x best peer": lambda cell: cell.fastest("peer"),
    }
    return {head: of for head, of in known.items() if any(of(cell) for cell in results.cells)}


def _backend_row(
    cell: Cell, timing: Timing, baselines: Iterable[Callable[[Cell], Timing | None]]
) -> tuple[str, ...]:
    return (
        cell.loss,
        f"{cell.size} {cell.dtype}",
        timing.contender,
        time_of(timing),
        spread(timing.summary),
        *(_speedup(timing, baseline(cell)) for baseline in baselines),
        limit_share(cell, timing),
        size_of(timing.peak_extra_bytes),
    )


def backends_table(results: Results) -> Table:
    """Return the table of losses, sizes and contenders: time, speed-ups, limit, memory."""
    notes = [
        "Speed-ups are medians of the rounds' ratios with 95 % intervals; limit: the longer of one "
        "read of X and the arithmetic, at this machine's own ceilings."
    ]
    cut = [
        f"{timing.contender} on {cell.loss}, {cell.size}: "
        f"{max(1, round(timing.fraction * cell.n_rows))} of {cell.n_rows} rows"
        for cell in results.cells
        for timing in cell.timings
        if timing.extrapolated
    ]
    if cut:
        notes.append(
            f"{EXTRAPOLATED}: cut off by the time budget, timed on some rows and scaled up: "
            f"{cut[0]}" + (f" (and {len(cut) - 1} more)" if len(cut) > 1 else "")
        )
    baselines = _baselines(results)
    notes += limit_notes(results.cells, results.environment.get("matrix_unit", False))
    notes += surroundings_notes(results)
    return Table(
        "Backends: loss and gradient",
        (
            "loss",
            "N x D x C",
            "contender" if results.has_peers else "backend",
            "median",
            "IQR",
            *baselines,
            "of limit",
            "extra memory",
        ),
        [
            _backend_row(cell, timing, baselines.values())
            for cell in results.cells
            for timing in cell.timings
        ],
        (*notes, *contender_notes(results.cells)),
        n_labels=3,
    )


def contender_notes(cells: Iterable[Cell]) -> Iterator[str]:
    """Yield the notes on contenders that were timed in a special way."""
    timings = [timing for cell in cells for timing in cell.timings]
    for note in dict.fromkeys(timing.note for timing in timings if timing.note):
        names = dict.fromkeys(timing.contender for timing in timings if timing.note == note)
        yield f"{', '.join(names)}: {note}."


def peers_table(results: Results) -> Table:
    """Compare fastloss's fastest backend with the fastest peer at each problem."""
    rows = []
    for cell in results.cells:
        ours, theirs = cell.fastest("backend"), cell.fastest("peer")
        if ours is None or theirs is None:
            continue
        auto = cell.timing(AUTO)
        rows.append(
            (
                cell.loss,
                f"{cell.size} {cell.dtype}",
                f"{ours.contender} {seconds(ours.summary.median)}",
                f"{theirs.contender} {seconds(theirs.summary.median)}",
                _speedup(ours, theirs),
                verdict(ours, theirs),
                "-" if auto is None else _speedup(auto, theirs),
                limit_share(cell, ours),
            )
        )
    return Table(
        "fastloss against the best peer",
        (
            "loss",
            "N x D x C",
            "fastest backend",
            "fastest peer",
            "speed-up",
            "fastloss is",
            "speed-up of auto",
            "of limit",
        ),
        rows,
        (
            "Speed-up: the peer's time over fastloss's, below 1 where the peer wins. Of limit: the "
            "share of fastloss's fastest.",
        ),
        n_labels=4,
    )


def skipped_table(results: Results) -> Table:
    """List the contenders that were skipped or refused, with the problems and the reasons."""
    places: dict[tuple[str, str], list[Cell]] = {}
    for cell in results.cells:
        refused = {name: f"refused: {reason}" for name, reason in cell.refused.items()}
        for contender, reason in (cell.skipped | refused).items():
            places.setdefault((contender, reason), []).append(cell)
    rows = [
        (contender, ", ".join(_places(cells, results)), reason)
        for (contender, reason), cells in places.items()
    ]
    return Table("Skipped", ("contender", "where", "why"), rows, n_labels=3)


def _places(cells: list[Cell], results: Results) -> Iterator[str]:
    """Yield the cells' problems, or only the loss if they are all of its problems."""
    for loss in dict.fromkeys(cell.loss for cell in cells):
        among = [cell for cell in cells if cell.loss == loss]
        if len(among) == sum(cell.loss == loss for cell in results.cells):
            yield loss
        else:
            yield from (f"{loss} {cell.size} {cell.dtype}" for cell in among)


def first_calls_table(results: Results) -> Table:
    """List the times of a fresh process's first call, with and without a cached kernel."""
    rows = [
        (
            cell.loss,
            f"{cell.size} {cell.dtype}",
            timing.contender,
            seconds(timing.first_call_cold),
            seconds(timing.first_call),
        )
        for cell in results.cells
        for timing in cell.timings
        if timing.first_call_cold is not None and timing.contender != "naive"
    ]
    return Table(
        "First call of a fresh process, on a few rows",
        ("loss", "N x D x C", "backend", "nothing cached", "from the cache"),
        rows,
        (
            "A compiled backend's first call imports Numba, and compiles or loads a kernel.",
            *(["A peer's is of the whole problem, without importing it."] * results.has_peers),
        ),
        n_labels=3,
    )


def accuracy_table(results: Results) -> Table:
    """List each contender's error against the float64 reference."""
    rows = [
        (
            cell.loss,
            f"{cell.size} {cell.dtype}",
            timing.contender,
            f"{timing.loss_error:.0e}",
            f"{timing.gradient_error:.0e}",
        )
        for cell in results.cells
        for timing in cell.timings
    ]
    return Table(
        "Verified before timing: error against float64",
        ("loss", "N x D x C", "backend", "loss", "gradient"),
        rows,
        ("Relative; the gradient's largest error, relative to its largest entry.",),
        n_labels=3,
    )


def gradient_table(study: GradientStudy) -> Table:
    """List the time of one full gradient by method and parameter count, and the slope."""
    counts = sorted({point.n_parameters for point in study.points})
    rows = []
    for method in study.methods:
        by_count = {point.n_parameters: point for point in study.of(method)}
        law = study.slope(method)
        slope = "-" if law is None else f"{law.slope:.2f} [{law.low:.2f}, {law.high:.2f}]"
        times = tuple(point_seconds(by_count.get(count)) for count in counts)
        rows.append((method, *times, slope))
    return Table(
        f"Time of one full gradient, {study.loss}, {study.n_rows} rows, {study.n_classes} classes",
        ("method", *(f"{count:,}" for count in counts), "slope"),
        rows,
        (
            "Columns: parameter counts. Slope: exponent of the parameter count, fitted from "
            f"{study.fit_from:,} on, 95 % interval.",
            *gradient_notes(study),
            f"{EXTRAPOLATED}: timed on some coordinates (a naive loss: some rows), and scaled up.",
        ),
    )


def point_seconds(point: GradientPoint | None) -> str:
    """Format the median time of a full gradient, marked if it is extrapolated."""
    return time_of(None if point is None else point.timing)


def gradient_cost_table(study: GradientStudy, n_parameters: int) -> Table:
    """List each method's evaluations, time and error at one parameter count."""
    rows = []
    for method in study.methods:
        for point in study.of(method):
            if point.n_parameters == n_parameters:
                error = "-" if point.error is None else f"{point.error:.0e}"
                evaluations = (
                    "one pass" if point.loss_evaluations == 1 else f"{point.loss_evaluations:,}"
                )
                rows.append((method, evaluations, point_seconds(point), error))
    return Table(
        f"What a gradient of {n_parameters:,} parameters costs, and how far off it is",
        ("method", "loss evaluations", "time", "error"),
        rows,
        (
            "Error: largest over the sampled coordinates against an extended-precision gradient, "
            "relative to its largest entry.",
        ),
    )


def crossover_lines(study: GradientStudy) -> list[str]:
    """Return a sentence for each parameter count where one method overtakes another."""
    return [
        f"{above} overtakes {below} at about {_round(count):,} parameters"
        for below, above, count in study.crossovers()
    ]


def _round(count: float) -> int:
    """Round to two digits."""
    return int(float(f"{count:.1e}"))


def environment_table(results: Results) -> Table:
    """List the machine's properties in two columns."""
    environment = results.environment
    packages = ", ".join(f"{name} {number}" for name, number in environment["packages"].items())
    rows = [
        ("CPU", f"{environment['cpu']}, {environment['affinity']} of {environment['cpus']} CPUs"),
        ("threads", str(environment["threads"])),
        ("system", f"{environment['system']}, {environment['python']}"),
        ("packages", packages),
        ("BLAS", ", ".join(environment["blas"])),
        ("Numba threading layer", environment["threading_layer"]),
        ("fastloss", f"{environment['fastloss']} {environment['git']}".strip()),
        *_surroundings_rows(environment),
        ("seed", str(environment["seed"])),
        ("measured", environment["time"]),
    ]
    rows += [(_ceiling_name(key), _ceiling_value(key, v)) for key, v in results.ceilings.items()]
    return Table("Machine", ("", ""), rows, n_labels=2)


def _surroundings_rows(environment: dict[str, Any]) -> Iterator[tuple[str, str]]:
    if (quota := environment.get("cpu_quota")) is not None:
        yield "CPU quota", count_of(quota, "CPU")
    if (load := environment.get("load")) is not None:
        yield "load average before", f"{load:.2f}"
    if governor := environment.get("governor"):
        yield "clock governor", governor
    yield from environment.get("variables", {}).items()


def _ceiling_name(key: str) -> str:
    kind, _, n_bytes = key.partition(" ")
    return f"reading {size_of(int(n_bytes))}" if kind == "read" else f"multiply-add peak, {kind}"


def _ceiling_value(key: str, value: float) -> str:
    return f"{value / 1e9:.0f} {'GB/s' if key.startswith('read') else 'GFLOP/s'}"


def all_tables(results: Results) -> list[Table]:
    """Return every table that has data, and the lost comparisons."""
    tables = [environment_table(results)]
    if results.cells:
        tables.append(backends_table(results))
    if (first_calls := first_calls_table(results)).rows:
        tables.append(first_calls)
    if results.has_peers:
        tables.append(peers_table(results))
    if any(cell.skipped or cell.refused for cell in results.cells):
        tables.append(skipped_table(results))
    if results.gradient is not None and results.gradient.points:
        study = results.gradient
        tables.append(gradient_table(study))
        tables.append(gradient_cost_table(study, study.main_count))
    tables.append(losses_table([results]))
    return tables

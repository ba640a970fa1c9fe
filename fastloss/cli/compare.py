"""``fastloss compare``."""

from __future__ import annotations

import json as jsons
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from fastloss import files
from fastloss.benchmark.comparison import (
    MOST_DRIFT,
    Change,
    Comparison,
    Interval,
    Key,
    compare_runs,
    load,
)
from fastloss.benchmark.measure import MIN_ROUNDS
from fastloss.benchmark.report import EXTRAPOLATED
from fastloss.cli.common import Attempts, app, check_files, console, results_file, say_saved
from fastloss.tables import Table, seconds

# More names than this are counted, not listed.
_MOST_NAMES = 8


@app.command()
def compare(
    before: Annotated[Path, typer.Argument(help="results.json of the older run, or its folder.")],
    after: Annotated[Path, typer.Argument(help="results.json of the newer run, or its folder.")],
    fail_above: Annotated[
        str | None,
        typer.Option(
            help="Exit with 1 if a contender became slower by more than this: 10% or 0.1. "
            "The whole 95 % interval must be above it, and above the A/A controls."
        ),
    ] = None,
    drift: Annotated[
        bool,
        typer.Option(
            help="Cancel a change that the A/A controls and the median contender share, up to "
            f"{100 * (MOST_DRIFT - 1):.0f} %: the machine's own."
        ),
    ] = True,
    json: Annotated[
        str | None,
        typer.Option(help="Write the comparison as JSON there; - for standard output."),
    ] = None,
) -> None:
    """Say what became faster or slower between two runs of bench on the same machine.

    Problems match by loss, size and dtype; contenders match by name. Ratios are medians, after over
    before, with 95 % intervals; a contender with fewer than 6 rounds has none and never fails.

    Exit code 0: nothing fails (a slowdown within the noise of the A/A controls is "Not decidable"),
    or no --fail-above. 1: a contender fails. 2: the files cannot be
    compared.
    """
    before, after = results_file(before), results_file(after)
    threshold = None if fail_above is None else parse_threshold(fail_above)
    outputs = [] if json in (None, "-") else [("--json", Path(json))]
    check_files(outputs, None, [("BEFORE", before), ("AFTER", after)])
    comparison = compare_runs(load(before), load(after), fail_above=threshold, cancel_drift=drift)
    _write(comparison, before, after, threshold, json)
    if comparison.failures:
        raise typer.Exit(1)


def parse_threshold(text: str) -> float:
    """Return a slowdown as a fraction: 0.1 for ``"10%"`` and for ``"0.1"``.

    Raises
    ------
    ValueError : it is not a number, negative, not finite, or 1 or more without a percent sign.
    """
    number = text.strip()
    percent = number.endswith("%")
    try:
        value = float(number.removesuffix("%"))
    except ValueError:
        value = math.nan
    if not 0.0 <= value < math.inf:
        raise ValueError(f"--fail-above must be a slowdown such as 10% or 0.1, got {text!r}")
    if percent:
        return value / 100.0
    if value >= 1.0:
        raise ValueError(f"--fail-above {text} could mean {text}%; write it with the percent sign")
    return value


def _write(
    comparison: Comparison, before: Path, after: Path, threshold: float | None, json: str | None
) -> None:
    """Print the table (JSON instead, if asked for) and write the JSON file."""
    record = {
        "before": str(before),
        "after": str(after),
        "fail_above": threshold,
        **comparison.record(),
    }
    text = jsons.dumps(record, indent=1, allow_nan=False)
    attempts = Attempts()
    if json not in (None, "-"):
        with attempts:
            files.write(Path(json), text + "\n")
    with attempts:
        if json == "-":
            typer.echo(text)
        else:
            _print(comparison)
            say_saved([] if json is None else [Path(json)])
    attempts.finish()


def _print(comparison: Comparison) -> None:
    terminal = console()
    terminal.print(comparison_table(comparison).rich())
    for line in _lines(comparison):
        terminal.print(line, soft_wrap=True)
    for warning in comparison.warnings:
        terminal.print(f"Warning: {warning}", soft_wrap=True)
    terminal.print(_summary(comparison), style="bold", soft_wrap=True)


def comparison_table(comparison: Comparison) -> Table:
    """Return the table of all changes, worst first."""
    notes = [
        "After / before: ratio of medians with a 95 % interval for independent runs, "
        "the drift of the machine cancelled."
        if comparison.drift != 1.0
        else "After / before: ratio of medians with a 95 % interval for independent runs."
    ]
    if any(change.extrapolated for change in comparison.changes):
        notes.append(f"{EXTRAPOLATED}: timed on a part of the problem and scaled up.")
    if any(change.ratio.low is None for change in comparison.changes):
        notes.append(
            f"No interval, and no failure, with fewer than {MIN_ROUNDS} rounds in either run: "
            "give bench more --seconds."
        )
    return Table(
        "Comparison of two runs: seconds of one call",
        ("loss", "problem", "contender", "before", "after", "after / before", "verdict"),
        [_row(change) for change in comparison.changes],
        tuple(notes),
        n_labels=3,
    )


def _row(change: Change) -> tuple[str, ...]:
    mark = EXTRAPOLATED if change.extrapolated else ""
    times = (
        f"{EXTRAPOLATED if timing.extrapolated else ''}{seconds(timing.summary.median)}"
        for timing in (change.before, change.after)
    )
    verdict = f"{change.ratio.verdict}, FAILS" if change.fails else change.ratio.verdict
    key = change.key
    problem = f"{key.size} {key.dtype}"
    return key.loss, problem, key.contender, *times, f"{mark}{_ratio(change.ratio)}", verdict


def _ratio(ratio: Interval) -> str:
    if ratio.low is None or ratio.high is None:
        return f"{ratio.value:.3g}"
    digits = 2 if ratio.low >= 0.1 else 4
    return f"{ratio.value:.{digits}f} [{ratio.low:.{digits}f}, {ratio.high:.{digits}f}]"


def _percent(ratio: float) -> str:
    return f"{100 * (ratio - 1):+.1f} %"


def _lines(comparison: Comparison) -> Iterator[str]:
    """Say what the machine did, and which contenders only one of the runs has."""
    if comparison.drift != 1.0:
        yield (
            "Drift of the machine: the A/A controls and the median contender agree on "
            f"{_percent(comparison.shared)}; {_percent(comparison.drift)} is cancelled."
        )
    if comparison.drift != comparison.shared:
        yield (
            "So large a change of everything is not the machine alone: measure both versions "
            "again, or look for code and packages that all contenders share."
        )
    before, after = ("none" if end is None else _percent(end) for end in comparison.controls)
    yield f"Farthest end of the A/A control: {before} before, {after} after."
    for name, keys in (("before", comparison.only_before), ("after", comparison.only_after)):
        if keys:
            yield f"Only in the run {name}: {_names(keys)}."


def _names(keys: list[Key]) -> str:
    names = "; ".join(map(str, keys[:_MOST_NAMES]))
    more = len(keys) - _MOST_NAMES
    return f"{names}; and {more} more" if more > 0 else names


def _summary(comparison: Comparison) -> str:
    verdicts = [change.ratio.verdict for change in comparison.changes]
    counts = ", ".join(
        f"{verdicts.count(verdict)} {verdict}" for verdict in dict.fromkeys(verdicts)
    )
    if comparison.fail_above is None or comparison.limit is None:
        return f"{counts}."
    asked = f"slower by more than {100 * comparison.fail_above:.3g} %"
    noise = f"{100 * (comparison.limit - 1):,.0f} %"
    if failed := comparison.failures:
        limit = asked if comparison.limit == 1.0 + comparison.fail_above else f"{asked} and {noise}"
        return f"FAILED: {counts}; surely {limit}: {_names([change.key for change in failed])}."
    if undecided := comparison.undecided:
        return (
            f"Not decidable: {counts}; {_names([change.key for change in undecided])}: {asked}, "
            f"but the A/A controls of these runs differ by up to {noise}, so nothing fails. "
            "Measure both again on a quieter machine."
        )
    return f"Passed: {counts}; no contender is surely {asked}."

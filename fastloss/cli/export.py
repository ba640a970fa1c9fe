"""``fastloss export``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from fastloss import files
from fastloss.benchmark.comparison import load, timings
from fastloss.benchmark.exports import asv_results, asv_tree, pytest_benchmark, to_json
from fastloss.benchmark.results import Results
from fastloss.cli.common import app, check_files, results_file, say_saved

_FORMATS = ("pytest-benchmark", "asv")


@app.command()
def export(
    results: Annotated[Path, typer.Argument(help="results.json of a run of bench, or its folder.")],
    format: Annotated[str, typer.Option(help="pytest-benchmark or asv.")],
    out: Annotated[
        Path,
        typer.Option(
            help="The file. For asv: a result file if it ends in .json, else a results folder with "
            "all that asv show and asv compare need."
        ),
    ],
    commit: Annotated[
        str | None,
        typer.Option(help="For asv: the commit, if the results name none or a changed checkout."),
    ] = None,
    machine: Annotated[
        str | None, typer.Option(help="For asv: a name of the machine. Made of the CPU's.")
    ] = None,
) -> None:
    """Write the timings of a run in the format of another tool: pytest-benchmark or asv.

    Seconds are those of one call on the whole problem, a number a round. Timings that were scaled
    up from a part of the problem have a ~ before the contender's name. asv's dates are those of the
    measurement, not of the commit.
    """
    if format not in _FORMATS:
        raise ValueError(f"--format must be {' or '.join(_FORMATS)}, got {format!r}")
    if format != "asv" and (commit or machine):
        raise ValueError("--commit and --machine are for --format asv")
    for name, value in (("--commit", commit), ("--machine", machine)):
        _check_name(name, value)
    results = results_file(results)
    run = load(results)
    content = _content(run, format, out, commit, machine)
    check_files([("--out", path) for path in content], None, [("RESULTS", results)])
    for path, text in content.items():
        files.write(path, text)
    say_saved(content)
    _say_notes(run, format, commit)


def _check_name(option: str, value: str | None) -> None:
    """Raise ValueError if a name would leave its place in a file's name."""
    if value is not None and (not value.strip(".") or set(value) & set('/\\:*?"<>|\0')):
        raise ValueError(f"{option} must be a name that can stand in a file's name, got {value!r}")


def _content(
    run: Results, format: str, out: Path, commit: str | None, machine: str | None
) -> dict[Path, str]:
    """Return the files to write and their content."""
    if format == "pytest-benchmark":
        return {out: to_json(pytest_benchmark(run))}
    if out.suffix == ".json":
        return {out: to_json(asv_results(run, commit=commit, machine=machine))}
    return asv_tree(run, out, commit=commit, machine=machine)


def _say_notes(run: Results, format: str, commit: str | None) -> None:
    """Say on stderr what a reader of the files could not know."""
    notes: dict[str, Callable[[], bool]] = {
        "the run was interrupted: only what it had measured is in the file": (
            lambda: not run.complete
        ),
        "timings with a ~ were scaled up from a part of the problem": lambda: any(
            timing.extrapolated for timing in timings(run).values()
        ),
        "the checkout had changes beside the commit; --commit names another one": lambda: (
            format == "asv"
            and commit is None
            and str(run.environment.get("git", "")).endswith("-dirty")
        ),
    }
    for note, holds in notes.items():
        if holds():
            typer.echo(f"fastloss: {note}", err=True)

"""``fastloss bench``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from fastloss.arrays import ROW_TYPE_NAMES, as_integer
from fastloss.benchmark import Results, Settings, VerificationError
from fastloss.benchmark.findings import control_line
from fastloss.benchmark.plan import Plan, parse_size
from fastloss.benchmark.plots import PICTURES, pictures_of
from fastloss.benchmark.report import all_tables, crossover_lines
from fastloss.benchmark.results import check_published
from fastloss.candidates import USUAL
from fastloss.cli.common import (
    Attempts,
    BackendOption,
    CandidateOption,
    DataOption,
    InterceptOption,
    L2Option,
    LayoutOption,
    LossOption,
    OrderOption,
    SeedOption,
    app,
    check_files,
    console,
    convention_of,
    progress_bar,
    save_pictures,
    say_saved,
)
from fastloss.plots import picture_paths, require_matplotlib
from fastloss.settings import threads_to_use

# Some libraries crash if they are told to start many more.
_MOST_THREADS = 512
#: Peers add contenders to a cell, and each interval needs enough rounds.
PEERS_SECONDS = 6.0


@app.command()
def bench(
    data: DataOption = None,
    loss: LossOption = None,
    backend: BackendOption = None,
    sizes: Annotated[
        str | None,
        typer.Option(help="N or NxDxC, separated by commas: 256x3073x10,4000x3073x10."),
    ] = None,
    candidate: CandidateOption = None,
    l2: L2Option = USUAL.l2,
    intercept: InterceptOption = USUAL.intercept,
    layout: LayoutOption = USUAL.layout,
    order: OrderOption = USUAL.order,
    dtype: Annotated[str, typer.Option(help=f"Type of X: {ROW_TYPE_NAMES}.")] = "float32",
    quick: Annotated[bool, typer.Option("--quick", help="One loss, fewer rounds.")] = False,
    gradient_study: Annotated[
        bool, typer.Option(help="Also time numerical gradients at growing parameter counts.")
    ] = True,
    first_calls: Annotated[
        bool, typer.Option(help="Compile all kernels anew and time that; else use cached ones.")
    ] = True,
    peers: Annotated[bool, typer.Option(help="Also time PyTorch, JAX and scikit-learn.")] = False,
    threads: Annotated[int | None, typer.Option(help="Threads of each contender.")] = None,
    seconds: Annotated[
        float | None,
        typer.Option(
            min=0.1,
            help=f"Time budget of a cell: a loss at a size. {Settings.cell_seconds:g}; "
            f"{PEERS_SECONDS:g} with --peers.",
        ),
    ] = None,
    seed: SeedOption = 0,
    out: Annotated[Path, typer.Option(help="Folder for the plots and the JSON file.")] = Path(
        "fastloss-bench"
    ),
    json: Annotated[
        str | None, typer.Option(help="Also write the JSON to this file; - for standard output.")
    ] = None,
    allow_dirty: Annotated[
        bool, typer.Option(help="Allow uncommitted changes when writing to the published results.")
    ] = False,
) -> None:
    """Verify and time every backend, and compare numerical with analytic gradients.

    Without arguments, it takes two to three minutes on a synthetic problem of CIFAR-10's shape.
    With --peers, it compares with other libraries, without a gradient study. If a candidate is
    wrong, the exit code is 1.
    """
    outputs = _check_outputs(out, json, data, candidate or [])
    if not allow_dirty:
        check_published(outputs)
    if threads is not None:
        as_integer("threads", threads, 1, _MOST_THREADS)
    settings = Settings(
        n_threads=threads or threads_to_use(),
        seed=seed,
        first_calls=first_calls,
        cell_seconds=seconds or (PEERS_SECONDS if peers else Settings.cell_seconds),
    )
    convention = convention_of(candidate, l2, intercept, layout, order)
    try:
        plan = Plan.make(
            data=data,
            losses=loss,
            backends=backend,
            sizes=None if sizes is None else [parse_size(size) for size in sizes.split(",")],
            candidates=candidate,
            convention=convention,
            dtype=dtype,
            quick=quick,
            gradient_study=gradient_study,
            peers=peers,
            settings=settings,
        )
    except VerificationError as error:
        typer.echo(f"fastloss: no candidate is right, so nothing was timed\n{error}", err=True)
        raise typer.Exit(1) from None
    results = _run(plan)
    _write(results, out, json)
    if not results.complete:
        raise typer.Exit(130)
    if any(cell.refused for cell in results.cells):
        raise typer.Exit(1)


def _run(plan: Plan) -> Results:
    with progress_bar(plan.n_steps) as progress:
        try:
            return plan.run(progress)
        except KeyboardInterrupt:
            return plan.interrupted()


def _check_outputs(
    out: Path, json: str | None, data: Path | None, candidates: Sequence[str]
) -> list[Path]:
    """Return all files to write; raise if one cannot be written.

    Called before the measurements, which take minutes.
    """
    require_matplotlib()
    files = [out / "results.json"]
    files += (path for stem in PICTURES for path in picture_paths(out / stem))
    outputs = [("--out", path) for path in files]
    if json not in (None, "-"):
        outputs.append(("--json", Path(json)))
    modules = (candidate.partition(":")[0].replace(".", "/") for candidate in candidates)
    check_files(outputs, data, [("--candidate", f"{module}.py") for module in modules])
    return [path for _, path in outputs]


def _write(results: Results, out: Path, json: str | None) -> None:
    """Print the tables (or the JSON, if asked for), and write the files to ``out``."""
    attempts, saved = Attempts(), []
    for path in (out / "results.json", *(() if json in (None, "-") else (Path(json),))):
        with attempts:
            results.save(path)
            saved.append(path)
    with attempts:
        if json == "-":
            typer.echo(results.to_json())
        else:
            _print(results, saved)
    with attempts:
        pictures = save_pictures(pictures_of(results, out))
        if json != "-":
            say_saved(pictures)
    attempts.finish()


def _print(results: Results, saved: list[Path]) -> None:
    terminal = console()
    terminal.print(f"{results.title}: {results.data}", style="bold")
    for table in all_tables(results):
        terminal.print(table.rich())
    if results.gradient is not None:
        for line in crossover_lines(results.gradient):
            terminal.print(f"  {line}")
    terminal.print(control_line(results))
    if not results.complete:
        terminal.print("Interrupted: the tables show the results until then.", style="bold")
    say_saved(saved)

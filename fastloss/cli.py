"""The command line: ``fastloss bench | check | doctor | warmup``."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

import fastloss
from fastloss import data as datasets
from fastloss.backends import available_backends, get_backend
from fastloss.benchmark import Results, Settings
from fastloss.benchmark.plan import Plan, parse_size
from fastloss.benchmark.report import all_tables, control_line, crossover_lines
from fastloss.gradcheck import check_gradient
from fastloss.losses import get_loss
from fastloss.threads import available_threads, check_n_threads

app = typer.Typer(
    help="Losses and gradients of linear classifiers: benchmark, check, and keep them fast.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

#: Peers are many contenders to a cell, and an interval needs rounds.
PEERS_SECONDS = 6.0
# Wide enough for the tables when the output goes to a file or a pipe.
_PLAIN_WIDTH = 150

DataOption = Annotated[
    Path | None,
    typer.Option("--data", help="Folder or file: CIFAR-10, MNIST, or .npz with X and y."),
]
_TYPES = ("float32", "float64", "uint8")
LossOption = Annotated[
    list[str] | None, typer.Option("--loss", help="Only this loss; may be repeated.")
]
BackendOption = Annotated[
    list[str] | None, typer.Option("--backend", help="Only this backend; may be repeated.")
]
SeedOption = Annotated[int, typer.Option("--seed", help="Of the data, W, and the order of turns.")]


def _console(stderr: bool = False) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    return Console(file=stream, width=None if stream.isatty() else _PLAIN_WIDTH, highlight=False)


@contextmanager
def _clear_errors() -> Iterator[None]:
    """What the user got wrong ends in one clear line, not in a traceback."""
    try:
        yield
    except (ValueError, TypeError, OSError, ImportError, RuntimeError) as error:
        typer.echo(f"fastloss: {error}", err=True)
        raise typer.Exit(2) from None


@contextmanager
def _progress_bar(total: int) -> Iterator[Callable[[str, int], None]]:
    """A live bar on stderr, if that is a terminal."""
    console = _console(stderr=True)
    columns = (
        TextColumn("{task.percentage:3.0f} %"),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(
        *columns, console=console, disable=not console.is_terminal, transient=True
    ) as bar:
        task = bar.add_task("starting", total=total)
        yield lambda message, done: bar.update(task, description=message, completed=done)


@app.command()
def bench(
    data: DataOption = None,
    loss: LossOption = None,
    backend: BackendOption = None,
    sizes: Annotated[
        str | None,
        typer.Option(help="N or NxDxC, separated by commas: 256x3073x10,4000x3073x10."),
    ] = None,
    candidate: Annotated[
        list[str] | None,
        typer.Option(help="Your own my_module:my_loss_and_grad(W, X, y) -> (loss, dW)."),
    ] = None,
    dtype: Annotated[str, typer.Option(help="Of X: float32, float64 or uint8.")] = "float32",
    quick: Annotated[bool, typer.Option("--quick", help="One loss, fewer rounds.")] = False,
    gradient_study: Annotated[
        bool, typer.Option(help="Also time numerical gradients as parameters grow.")
    ] = True,
    peers: Annotated[
        bool, typer.Option(help="Put PyTorch, JAX and scikit-learn into the table too.")
    ] = False,
    threads: Annotated[int | None, typer.Option(help="For all contenders alike.")] = None,
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
        str | None, typer.Option(help="Write the JSON there too; - for standard output.")
    ] = None,
) -> None:
    """Verify and time every backend, and numerical against analytic gradients.

    Without arguments: a synthetic problem of the shape of CIFAR-10, in under two minutes. With
    --peers: against other libraries, and no gradient study.
    """
    with _clear_errors():
        settings = Settings(
            n_threads=available_threads()
            if threads is None
            else check_n_threads(threads, "threads"),
            seed=seed,
            cell_seconds=seconds or (PEERS_SECONDS if peers else Settings.cell_seconds),
        )
        plan = Plan.make(
            data=data,
            losses=loss,
            backends=backend,
            sizes=None if sizes is None else [parse_size(size) for size in sizes.split(",")],
            candidates=candidate,
            dtype=dtype,
            quick=quick,
            gradient_study=gradient_study,
            peers=peers,
            settings=settings,
        )
        results = _run(plan)
        _write(results, out, json)
    if not results.complete:
        raise typer.Exit(130)


def _run(plan: Plan) -> Results:
    with _progress_bar(plan.n_steps) as progress:
        try:
            return plan.run(progress)
        except KeyboardInterrupt:
            return plan.interrupted()


def _write(results: Results, out: Path, json: str | None) -> None:
    """Tables to stdout (JSON instead, if asked for), files to ``out``."""
    from fastloss.benchmark.plots import save_all

    saved = [out / "results.json"]
    results.save(saved[0])
    saved += save_all(results, out)
    if json == "-":
        typer.echo(results.to_json())
        return
    if json is not None:
        results.save(Path(json))
        saved.append(Path(json))
    console = _console()
    console.print(f"{results.title}: {results.data}", style="bold")
    for table in all_tables(results):
        console.print(table.rich())
    if results.gradient is not None:
        for line in crossover_lines(results.gradient):
            console.print(f"  {line}")
    console.print(control_line(results))
    if not results.complete:
        console.print("Interrupted: what was measured until then is above.", style="bold")
    console.print("Saved " + ", ".join(str(path) for path in saved))


@app.command()
def check(
    data: DataOption = None,
    loss: LossOption = None,
    backend: BackendOption = None,
    candidate: Annotated[
        list[str] | None, typer.Option(help="Check your own my_module:my_function instead.")
    ] = None,
    rows: Annotated[int, typer.Option(min=1, help="How many rows to check on.")] = 50,
    verbose: Annotated[bool, typer.Option("--verbose", help="Print every report whole.")] = False,
    seed: SeedOption = 0,
) -> None:
    """Check gradients against finite differences; exit code 1 if one fails."""
    with _clear_errors():
        X, y, n_classes = _small_problem(data, rows, seed)
        checks = {
            name: run(X, y, n_classes, seed) for name, run in _checks(loss, backend, candidate)
        }
    table = Table(title=f"Gradient check on {len(X)} rows x {X.shape[1]} features")
    for column in ("what", "verdict", "max relative error", "kinks crossed", "evaluations"):
        table.add_column(column)
    for name, result in checks.items():
        verdict = "passed" if result.passed else "FAILED"
        table.add_row(
            name,
            verdict,
            f"{result.max_relative_error:.1e}",
            str(result.n_kinks),
            str(result.n_evaluations),
        )
    console = _console()
    console.print(table)
    for name, result in checks.items():
        if verbose or not result.passed:
            console.print(f"{name}:\n{result}", markup=False)
    if not all(result.passed for result in checks.values()):
        raise typer.Exit(1)


Check = Callable[[NDArray[np.float64], NDArray[np.int64], int, int], fastloss.GradientCheck]


def _checks(
    losses: list[str] | None, backends: list[str] | None, candidates: list[str] | None
) -> Iterator[tuple[str, Check]]:
    """What to check, by name: the user's functions, or every loss on every backend."""
    from fastloss.benchmark.run import small_weights
    from fastloss.benchmark.tasks import LossAndGrad, resolve_candidate

    def of_backend(loss: str, backend: str) -> Check:
        def run(
            X: NDArray[np.float64], y: NDArray[np.int64], n_classes: int, seed: int
        ) -> fastloss.GradientCheck:
            objective = fastloss.Objective(
                X, y, loss=loss, l1=1e-3, l2=1e-2, intercept=True, backend=backend
            )
            W = small_weights(X, n_classes, X.dtype, seed)
            return check_gradient(objective, np.vstack([W, np.full_like(W[:1], 0.1)]), seed=seed)

        return run

    def of_candidate(function: LossAndGrad) -> Check:
        def run(
            X: NDArray[np.float64], y: NDArray[np.int64], n_classes: int, seed: int
        ) -> fastloss.GradientCheck:
            W = small_weights(X, n_classes, X.dtype, seed)
            return check_gradient(lambda W: function(W, X, y), W, seed=seed)

        return run

    if candidates:
        for name in candidates:
            yield name, of_candidate(resolve_candidate(name))
        return
    for loss in losses or fastloss.available_losses():
        for backend in backends or available_backends(get_loss(loss)):
            get_backend(backend, get_loss(loss))
            yield f"{loss}, {backend}", of_backend(loss, backend)


def _small_problem(
    path: Path | None, rows: int, seed: int
) -> tuple[NDArray[np.float64], NDArray[np.int64], int]:
    """A few rows in float64; pixels scaled to [0, 1]."""
    if path is None:
        dataset = datasets.synthetic(rows, 20, 5, seed=seed, dtype=np.float64)
    else:
        whole = datasets.load(path)
        chosen = np.random.default_rng(seed).permutation(len(whole))[:rows]
        dataset = whole.rows(np.sort(chosen))
    scale = 255.0 if dataset.X.dtype == np.uint8 else 1.0
    return dataset.X / scale, dataset.y, dataset.n_classes


@app.command()
def doctor() -> None:
    """Look at the CPU, threads, BLAS and the kernel cache, and say what to do."""
    from fastloss.doctor import examine

    table = Table(title="fastloss doctor", show_lines=False)
    table.add_column("what")
    table.add_column("found", overflow="fold")
    table.add_column("what to do", overflow="fold")
    for finding in examine():
        style = "yellow" if finding.advice else ""
        table.add_row(finding.topic, finding.found, finding.advice or "nothing", style=style)
    _console().print(table)


@app.command()
def warmup(
    loss: LossOption = None,
    dtype: Annotated[
        list[str] | None, typer.Option(help="Only this type of X; may be repeated.")
    ] = None,
    calibrate: Annotated[
        bool, typer.Option(help="Also measure what calls cost here, for the choices of 'auto'.")
    ] = True,
) -> None:
    """Compile the kernels, so that no first call has to, and measure what calls cost here."""
    from fastloss.backends import costs
    from fastloss.backends.aside import kernels as ready
    from fastloss.backends.compiled import all_kernels, cache_folder, cached_kernels
    from fastloss.benchmark import calibration

    with _clear_errors():
        losses = [get_loss(name) for name in loss or fastloss.available_losses()]
        jobs = all_kernels(losses, [np.dtype(name) for name in dtype or _TYPES])
        start = time.perf_counter()
        with _progress_bar(len(jobs)) as progress:
            for done, (name, sources, make) in enumerate(jobs):
                progress(name, done)
                ready.make(name, sources, make)
        typer.echo(
            f"{len(jobs)} kernels ready in {time.perf_counter() - start:.1f} s; "
            f"{len(cached_kernels())} files in {cache_folder()}"
        )
        if calibrate:
            with _progress_bar(2 * len(calibration.SHAPES)) as progress:
                costs.store(calibration.calibrate(progress))
            typer.echo(f"costs measured and kept in {costs.path()}")

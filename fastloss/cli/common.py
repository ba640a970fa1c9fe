"""Code that the commands share: the app, common options, the console, errors and progress."""

from __future__ import annotations

import os
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Annotated, Any, NoReturn

import typer
import typer.core
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from fastloss import data as datasets
from fastloss.candidates import USUAL, Convention
from fastloss.files import Named, check_outputs, named
from fastloss.settings import AUTO, checked_environment, requested_backend, requested_threads


class _Commands(typer.core.TyperGroup):
    """Commands that report an error in one line instead of a traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            _end("interrupted", 130)
        except Exception as error:
            # Typer's own exceptions end a command or report bad options: Typer handles them.
            if isinstance(error, (typer.Abort, BrokenPipeError)) or hasattr(error, "exit_code"):
                raise
            if os.environ.get("FASTLOSS_DEBUG"):
                raise
            _end(_told(error), 2)


def _end(message: str, code: int) -> NoReturn:
    typer.echo(f"fastloss: {message}", err=True)
    raise typer.Exit(code) from None


def _told(error: Exception) -> str:
    """Return the error's message, with its type unless the message alone is clear."""
    if isinstance(error, MemoryError):
        return f"not enough memory: {error}".rstrip(": ")
    explained = (ValueError, TypeError, OSError, ImportError, RuntimeError)
    return str(error) if isinstance(error, explained) and str(error) else named(error)


app = typer.Typer(
    cls=_Commands,
    help="Losses and gradients of linear classifiers: benchmark, check, train, learn. "
    "FASTLOSS_DEBUG=1 shows the traceback of an error.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def check_environment(ctx: typer.Context) -> None:
    """Raise at a bad environment variable of fastloss, and name unknown ones."""
    if ctx.invoked_subcommand == "doctor":
        return  # it lists them all, with advice
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        variables = checked_environment()
    for warning in found:
        typer.echo(f"fastloss: {warning.message}", err=True)
    requested_backend(AUTO, variables)
    requested_threads(None, variables)


# Characters. Files and pipes have no width of their own: this one fits the tables.
_PLAIN_WIDTH = 150
_LEAST_WIDTH = 60
# Log files of a CI show that a command is alive, and stay short.
_LINE_SECONDS = 10.0

DataOption = Annotated[
    Path | None,
    typer.Option(
        "--data",
        help="Folder or file: CIFAR-10, MNIST, .npz, X.npy beside y.npy, Parquet, Arrow.",
    ),
]
LabelsOption = Annotated[
    str | None,
    typer.Option(
        "--labels",
        help="File of the labels of X.npy; default: y.npy beside it. Or column of the labels of a "
        "table; default: label, labels, y or target.",
    ),
]
LossOption = Annotated[
    list[str] | None, typer.Option("--loss", help="Use only this loss; may be repeated.")
]
BackendOption = Annotated[
    list[str] | None, typer.Option("--backend", help="Use only this backend; may be repeated.")
]
CandidateOption = Annotated[
    list[str] | None,
    typer.Option(
        "--candidate",
        help="Your own my_module:my_loss_and_grad(W, X, y) -> (loss, dW); may be repeated.",
    ),
]
L2Option = Annotated[
    float, typer.Option("--l2", min=0.0, help="The candidate's loss has l2 * sum(W**2) in it.")
]
InterceptOption = Annotated[
    bool, typer.Option("--intercept/--no-intercept", help="The candidate's W has a bias row, last.")
]
LayoutOption = Annotated[
    str, typer.Option("--layout", help="The candidate's W and dW: dc for (D, C), cd for (C, D).")
]
OrderOption = Annotated[
    str, typer.Option("--order", help="The order of the candidate's arguments, such as X,y,W.")
]
SeedOption = Annotated[
    int, typer.Option("--seed", help="Seed of the data, W, and the order of turns.")
]


class _PlainConsole(Console):
    """A console that ignores markup in names and survives a closed pipe."""

    def __init__(self, stream: IO[str]) -> None:
        width = None if stream.isatty() else _PLAIN_WIDTH
        super().__init__(file=stream, width=width, highlight=False, markup=False, emoji=False)
        self.width = max(self.width, _LEAST_WIDTH)

    def on_broken_pipe(self) -> None:
        # ``| head`` closes the pipe early; the command may still have files to write.
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.file.fileno())


def console(stderr: bool = False) -> Console:
    """Return a console on standard output, or on standard error."""
    return _PlainConsole(sys.stderr if stderr else sys.stdout)


def convention_of(
    candidates: list[str] | None, l2: float, intercept: bool, layout: str, order: str
) -> Convention:
    """Return how the candidates are called; raise if options say so, but there are none."""
    convention = Convention(order, layout, l2, intercept)
    if convention != USUAL and not candidates:
        raise ValueError("--l2, --intercept, --layout and --order describe a --candidate: give one")
    return convention


def results_file(path: Path) -> Path:
    """Return the file of results that ``path`` is, or that is in the folder ``path``."""
    return path / "results.json" if path.is_dir() else path


def check_files(
    outputs: Named, data: Path | None, inputs: Named = (), labels: str | None = None
) -> None:
    """Raise unless every output can be written and overwrites no input and no other output."""
    read = () if data is None else datasets.files_of(data, labels)
    check_outputs(outputs, [*inputs, *(("--data", path) for path in read)])


class Attempts:
    """Independent final steps of a command, each in a block ``with attempts: ...``.

    A block that fails does not prevent the next one. `finish` raises the first error or interrupt.
    """

    def __init__(self) -> None:
        self._first: BaseException | None = None

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, where: object) -> bool:
        self._first = self._first or error
        return isinstance(error, (Exception, KeyboardInterrupt))

    def finish(self) -> None:
        """Raise the first error."""
        if self._first is not None:
            raise self._first


def save_pictures(draw: Mapping[str, Callable[[], list[Path]]]) -> list[Path]:
    """Draw pictures and return their files; report failures on standard error.

    The data behind the pictures is saved already, so a missing picture is no failed command.
    """
    saved: list[Path] = []
    for name, picture in draw.items():
        try:
            saved += picture()
        except Exception as error:
            typer.echo(f"fastloss: no picture of {name}: {_told(error)}", err=True)
    return saved


def say_saved(paths: Iterable[Path]) -> None:
    """Print the names of saved files, if there are any."""
    if names := ", ".join(map(str, paths)):
        console().print(f"Saved {names}", soft_wrap=True)


@contextmanager
def progress_bar(total: float, *, in_lines: bool = False) -> Iterator[Callable[[str, float], None]]:
    """Show a live bar on standard error if that is a terminal; yield ``update(message, done)``.

    ``in_lines`` prints a line now and then if it is no terminal.
    """
    terminal = console(stderr=True)
    if in_lines and not terminal.is_terminal:
        yield _lines(total)
        return
    columns = (
        TextColumn("{task.percentage:3.0f} %", markup=False),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("left:"),
        TimeRemainingColumn(),
        TextColumn("{task.description}", markup=False),
    )
    with Progress(
        *columns, console=terminal, disable=not terminal.is_terminal, transient=True
    ) as bar:
        task = bar.add_task("starting", total=total)
        yield lambda message, done: bar.update(task, description=message, completed=done)


def _lines(total: float) -> Callable[[str, float], None]:
    """Return a function that prints a line with the progress every ten seconds.

    The time left is that of the pace so far, because other programs change the pace.
    """
    start = printed = time.monotonic()

    def update(message: str, done: float) -> None:
        nonlocal printed
        now = time.monotonic()
        if now - printed >= _LINE_SECONDS:
            printed = now
            passed = now - start
            left = f", about {passed * (total / done - 1):.0f} s left" if done else ""
            typer.echo(f"{done / total:.0%}, {passed:.0f} s{left}: {message}", err=True)

    return update

"""What the commands share: the app, options that recur, the console, errors and progress."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

app = typer.Typer(
    help="Losses and gradients of linear classifiers: benchmark, check, train, learn.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

# Wide enough for the tables when the output goes to a file or a pipe.
_PLAIN_WIDTH = 150

DataOption = Annotated[
    Path | None,
    typer.Option("--data", help="Folder or file: CIFAR-10, MNIST, or .npz with X and y."),
]
LossOption = Annotated[
    list[str] | None, typer.Option("--loss", help="Only this loss; may be repeated.")
]
BackendOption = Annotated[
    list[str] | None, typer.Option("--backend", help="Only this backend; may be repeated.")
]
SeedOption = Annotated[int, typer.Option("--seed", help="Of the data, W, and the order of turns.")]


def console(stderr: bool = False) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    return Console(file=stream, width=None if stream.isatty() else _PLAIN_WIDTH, highlight=False)


@contextmanager
def clear_errors() -> Iterator[None]:
    """What the user got wrong ends in one clear line, not in a traceback."""
    try:
        yield
    except (ValueError, TypeError, OSError, ImportError, RuntimeError) as error:
        typer.echo(f"fastloss: {error}", err=True)
        raise typer.Exit(2) from None


@contextmanager
def progress_bar(total: int) -> Iterator[Callable[[str, int], None]]:
    """A live bar on stderr, if that is a terminal."""
    terminal = console(stderr=True)
    columns = (
        TextColumn("{task.percentage:3.0f} %"),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(
        *columns, console=terminal, disable=not terminal.is_terminal, transient=True
    ) as bar:
        task = bar.add_task("starting", total=total)
        yield lambda message, done: bar.update(task, description=message, completed=done)

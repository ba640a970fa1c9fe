"""``fastloss lesson``."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markdown import Markdown
from rich.syntax import Syntax
from rich.table import Table

from fastloss.cli.common import app, clear_errors, console
from fastloss.lessons import Cell, Lesson, all_lessons, find_lesson
from fastloss.lessons.tools import DEFAULT_FOLDER, saving_to

_ALL = "all"


@app.command()
def lesson(
    number: Annotated[
        str | None, typer.Argument(help=f"Which one, or {_ALL}; without it, they are listed.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the figures.")] = DEFAULT_FOLDER,
    notebook: Annotated[
        Path | None,
        typer.Option(help="Write the lesson as a notebook, instead of running it."),
    ] = None,
    step: Annotated[
        bool, typer.Option("--step", help="Wait for Enter before each piece of code.")
    ] = False,
) -> None:
    """Lessons in profiling: list them, run one, or write it as a notebook."""
    if number is None:
        console().print(_table(all_lessons()))
        return
    if number == _ALL:
        _play_all(out)
        return
    with clear_errors():
        chosen = find_lesson(number)
        if notebook is not None:
            chosen.save_notebook(notebook)
            typer.echo(f"Saved {notebook}")
            return
    # What goes wrong inside a lesson is the lesson's to show, with its traceback.
    _play(chosen, out, step)


def _table(lessons: tuple[Lesson, ...]) -> Table:
    table = Table(title="fastloss lesson NUMBER runs one", show_lines=True)
    table.add_column("number", justify="right")
    for column in ("title", "what it shows", "exercises"):
        table.add_column(column, overflow="fold")
    for each in lessons:
        exercises = "\n".join(f"{k}. {_first_sentence(e)}" for k, e in enumerate(each.exercises, 1))
        table.add_row(str(each.number), each.title, each.summary, exercises)
    return table


def _first_sentence(text: str) -> str:
    return text.replace("**", "").partition(". ")[0].rstrip(".") + "."


def _play(chosen: Lesson, out: Path, step: bool) -> None:
    """Text, code and what it prints, as they come; then where the figures are."""
    terminal = console()
    with saving_to(out) as paths, _named_if_missing(chosen):
        chosen.play(lambda cell: _show(cell, terminal, step))
    terminal.print(f"\nThe script: {chosen.path}", markup=False)
    for path in paths:
        terminal.print(f"The figure: {path}", markup=False)


@contextmanager
def _named_if_missing(chosen: Lesson) -> Iterator[None]:
    """What a lesson needs and is not installed ends in one clear line."""
    try:
        yield
    except ModuleNotFoundError as error:
        with clear_errors():
            raise ImportError(
                f"lesson {chosen.number} needs {error.name}; install it with "
                "pip install 'fastloss[lessons]'"
            ) from None


def _show(cell: Cell, terminal: Console, step: bool) -> None:
    terminal.print()
    if cell.kind == "markdown":
        terminal.print(Markdown(cell.source))
        return
    terminal.print(Syntax(cell.source, "python", background_color="default", theme="ansi_dark"))
    if step:
        input("Enter runs it. ")


def _play_all(out: Path) -> None:
    """Each in a process of its own, as lessons measure memory, threads and first calls."""
    failed = []
    for each in all_lessons():
        command = [sys.executable, "-m", "fastloss", "lesson", str(each.number), "--out", str(out)]
        if subprocess.run(command, check=False).returncode:
            failed.append(str(each.number))
    if failed:
        typer.echo(f"fastloss: failed: lesson {', '.join(failed)}", err=True)
        raise typer.Exit(1)

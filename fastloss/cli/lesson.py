"""The command ``fastloss lesson``."""

from __future__ import annotations

import subprocess
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markdown import Markdown
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from fastloss.cli.common import app, check_files, console
from fastloss.files import check_writable
from fastloss.lessons import Cell, Lesson, all_lessons, find_lesson
from fastloss.lessons.tools import DEFAULT_FOLDER, saving_to
from fastloss.version import install_extra

_ALL = "all"


@app.command()
def lesson(
    number: Annotated[
        str | None, typer.Argument(help=f"Lesson number, or {_ALL}; list the lessons if omitted.")
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
    """List the lessons in profiling, run one, or write it as a notebook."""
    if notebook is not None:
        if number is None or number == _ALL:
            raise ValueError("--notebook needs the number of one lesson")
        chosen = find_lesson(number)
        check_files([("--notebook", notebook)], None, [("the lesson", chosen.path)])
        chosen.save_notebook(notebook)
        typer.echo(f"Saved {notebook}")
        return
    if number is None:
        console().print(_table(all_lessons()))
        return
    lessons = all_lessons() if number == _ALL else (find_lesson(number),)
    # Lessons take minutes: fail first if their figures cannot be written.
    check_writable(out / "figure.png")
    if number == _ALL:
        _play_apart(lessons, out)
    else:
        _play(lessons[0], out, step)


def _table(lessons: tuple[Lesson, ...]) -> Table:
    table = Table(title="fastloss lesson NUMBER runs one", show_lines=True)
    table.add_column("number", justify="right")
    for column, ratio in {"title": 2, "summary": 4, "exercises": 2}.items():
        table.add_column(column, overflow="fold", ratio=ratio)
    for each in lessons:
        exercises = "\n".join(f"{k}. {name}" for k, name in enumerate(each.exercises, 1))
        # Text, because Rich would read the brackets of indices as markup.
        table.add_row(str(each.number), *map(Text, (each.title, each.summary, exercises)))
    return table


def _play(chosen: Lesson, out: Path, step: bool) -> None:
    """Run a lesson in this process: show each cell, then the paths of script and figures."""
    terminal = console()
    with saving_to(out) as paths, _errors_of(chosen):
        chosen.play(lambda cell: _show(cell, terminal, step))
    terminal.print(f"\nThe script: {chosen.path}", markup=False)
    for path in paths:
        terminal.print(f"The figure: {path}", markup=False)


@contextmanager
def _errors_of(chosen: Lesson) -> Iterator[None]:
    """Show an error of a lesson with its traceback, but a missing package in one line."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise ImportError(
            f"lesson {chosen.number} needs {error.name}; install it with {install_extra('lessons')}"
        ) from None
    except Exception:
        traceback.print_exc()
        raise typer.Exit(1) from None


def _show(cell: Cell, terminal: Console, step: bool) -> None:
    terminal.print()
    if cell.kind == "markdown":
        terminal.print(Markdown(cell.source))
        return
    terminal.print(
        Syntax(cell.source.strip("\n"), "python", background_color="default", theme="ansi_dark")
    )
    if step:
        with suppress(EOFError):  # standard input is closed
            input("Enter runs it. ")


def _play_apart(lessons: tuple[Lesson, ...], out: Path) -> None:
    """Run each lesson in its own process: lessons measure memory, threads and first calls."""
    failed = []
    for each in lessons:
        command = [sys.executable, "-m", "fastloss", "lesson", str(each.number), "--out", str(out)]
        if subprocess.run(command, check=False).returncode:
            failed.append(str(each.number))
    if failed:
        typer.echo(f"fastloss: failed: lesson {', '.join(failed)}", err=True)
        raise typer.Exit(1)

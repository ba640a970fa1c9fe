"""The command ``fastloss lesson``."""

from __future__ import annotations

import subprocess
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
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
from fastloss.lessons.tools import (
    DEFAULT_FOLDER,
    NOT_SHOWN,
    Claim,
    WrongResult,
    keeping_claims,
    saving_to,
)
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
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Let --notebook replace an edited notebook.")
    ] = False,
    wait: Annotated[
        bool,
        typer.Option(
            "--wait/--no-wait",
            help="Wait for your guess at each question, in a terminal. "
            f"{_ALL!r} and pipes never wait.",
        ),
    ] = True,
    step: Annotated[
        bool, typer.Option("--step", help="Also wait before each piece of code.")
    ] = False,
) -> None:
    """List the lessons in profiling, run one, or write it as a notebook."""
    if notebook is not None:
        if number is None or number == _ALL:
            raise ValueError("--notebook needs the number of one lesson")
        chosen = find_lesson(number)
        check_files([("--notebook", notebook)], None, [("the lesson", chosen.path)])
        chosen.save_notebook(notebook, overwrite=overwrite)
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
        waits = wait and _has_reader()
        _play(lessons[0], out, at_questions=waits, at_code=waits and step)


def _has_reader() -> bool:
    """Whether a person reads the output and can press a key."""
    return sys.stdin.isatty() and sys.stdout.isatty()


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


def _play(chosen: Lesson, out: Path, *, at_questions: bool, at_code: bool) -> None:
    """Run a lesson in this process: show each cell, then the paths of script and figures."""
    terminal = console()

    def before(cell: Cell) -> None:
        _show(cell, terminal)
        if cell.asks and at_questions:
            _wait("Your guess? Enter goes on: ")
        elif cell.kind == "code" and not cell.hidden and at_code:
            _wait("Enter runs it. ")

    with saving_to(out) as paths, keeping_claims() as claims, _errors_of(chosen):
        chosen.play(before)
    terminal.print()
    if claims:
        terminal.print(_summary(claims))
    terminal.print(f"The script: {chosen.path}")
    for path in paths:
        terminal.print(f"The figure: {path}")


def _summary(claims: list[Claim]) -> str:
    n_shown = sum(claim.holds for claim in claims)
    if n_shown == len(claims):
        return f"This machine showed all {len(claims)} claims of the lesson."
    return (
        f"This machine showed {n_shown} of the {len(claims)} claims of the lesson; the others "
        f"begin with {NOT_SHOWN!r} above. If it was busy, run the lesson again."
    )


@contextmanager
def _errors_of(chosen: Lesson) -> Iterator[None]:
    """Show an error of a lesson with its traceback, but those with one cause in one line."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise ImportError(
            f"lesson {chosen.number} needs {error.name}; install it with {install_extra('lessons')}"
        ) from None
    except WrongResult as error:
        typer.echo(f"fastloss: lesson {chosen.number} stopped: {error}", err=True)
        raise typer.Exit(1) from None
    except Exception:
        traceback.print_exc()
        raise typer.Exit(1) from None


def _show(cell: Cell, terminal: Console) -> None:
    if cell.hidden:
        return
    terminal.print()
    if cell.kind == "markdown":
        terminal.print(Markdown(cell.source))
        return
    terminal.print(
        Syntax(
            cell.source.strip("\n"),
            "python",
            background_color="default",
            theme="ansi_dark",
            word_wrap=True,
        )
    )


def _wait(prompt: str) -> None:
    """Wait for a line. Ctrl-D goes on like Enter; Ctrl-C ends the command."""
    try:
        input(f"\n{prompt}")
    except EOFError:
        print()
    except KeyboardInterrupt:
        print()
        raise


def _play_apart(lessons: tuple[Lesson, ...], out: Path) -> None:
    """Run each lesson in its own process: lessons measure memory, threads and first calls."""
    failed = []
    for each in lessons:
        arguments = ["lesson", str(each.number), "--out", str(out), "--no-wait"]
        command = [sys.executable, "-m", "fastloss", *arguments]
        if subprocess.run(command, check=False).returncode:
            failed.append(str(each.number))
    if failed:
        typer.echo(f"fastloss: failed: lesson {', '.join(failed)}", err=True)
        raise typer.Exit(1)

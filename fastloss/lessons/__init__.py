"""The lessons: scripts in cells. Run one as a script, open it as a notebook, or play it here.

A lesson is a Python script in percent format. ``# %% [markdown]`` starts a cell of text, ``# %%`` a
cell of code, and ``# %% jupyter={"source_hidden": true}`` code that readers need not see: figures,
and claims, whose sentences would answer the question before them. The scripts are in
``bench/lessons`` of a checkout, or inside this package in an installed wheel.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from fastloss import files
from fastloss.version import install_extra

_MARKER = "# %%"
_TEXT_MARKER = "# %% [markdown]"
_HIDDEN_MARKER = '# %% jupyter={"source_hidden": true}'
_QUESTION = "**Predict"
_FILE_NAME = re.compile(r"(\d+)_\w+\.py")
_TITLE = re.compile(r"# Lesson \d+: (.+)")
_EXERCISE = re.compile(r"### Exercise \d+: (.+)")


@dataclass(frozen=True)
class Cell:
    """A piece of a lesson, Markdown or code, that starts at ``line`` of the script (from 1).

    Code that is ``hidden`` runs without being shown; notebooks collapse it.
    """

    kind: Literal["markdown", "code"]
    source: str
    line: int
    hidden: bool = False

    @property
    def asks(self) -> bool:
        """Whether the cell asks the reader for a guess, which the next cells answer."""
        return self.kind == "markdown" and _QUESTION in self.source


@dataclass(frozen=True)
class Lesson:
    """A lesson, read from its script."""

    path: Path

    @property
    def number(self) -> int:
        """Place of the lesson in the course, from 1."""
        found = _FILE_NAME.fullmatch(self.path.name)
        assert found is not None
        return int(found[1])

    @cached_property
    def cells(self) -> tuple[Cell, ...]:
        """Cells of the script, in order."""
        return tuple(_cells(self.path.read_text(encoding="utf-8")))

    @property
    def title(self) -> str:
        """Title in the first line, without the number."""
        found = _TITLE.match(self.cells[0].source)
        if found is None:
            raise ValueError(f"{self.path}: the first line must be '# # Lesson N: title'")
        return found[1]

    @property
    def summary(self) -> str:
        """First paragraph of the lesson, which says what it teaches."""
        return " ".join(self.cells[0].source.split("\n\n")[1].split())

    @property
    def exercises(self) -> tuple[str, ...]:
        """Names of the exercises: titles of cells of text such as ``### Exercise 1: name``."""
        headings = (_EXERCISE.match(cell.source) for cell in self.cells)
        return tuple(heading[1] for heading in headings if heading is not None)

    def play(self, before: Callable[[Cell], None] = lambda cell: None) -> None:
        """Run the cells of code in order, in one namespace. Exceptions are not caught.

        ``before`` is called with every cell, of text or code, before the cell runs.
        """
        namespace: dict[str, Any] = {"__name__": "__main__", "__file__": str(self.path)}
        for cell in self.cells:
            before(cell)
            if cell.kind == "code":
                # Empty lines in front give profilers and tracebacks the script's line numbers.
                padded = "\n" * (cell.line - 1) + cell.source
                exec(compile(padded, str(self.path), "exec"), namespace)

    def save_notebook(self, path: Path, *, overwrite: bool = False) -> None:
        """Write the lesson as a notebook, in one step.

        Raises
        ------
        FileExistsError : ``path`` is another file, such as an edited notebook; ``overwrite``
            replaces it.
        ImportError : Jupytext is not installed.
        ValueError : ``path`` does not end in ``.ipynb``.
        """
        if path.suffix != ".ipynb":
            raise ValueError(f"a notebook's name must end in .ipynb, got {str(path)!r}")
        files.write_all({path: self.notebook()}, overwrite=overwrite)

    def notebook(self, first_cell: str = "") -> str:
        """Return the lesson as a notebook; ``first_cell`` is code to put in front.

        The same lesson gives the same text, so a notebook that differs was edited.

        Raises
        ------
        ImportError : Jupytext is not installed.
        """
        try:
            import jupytext
        except ModuleNotFoundError as error:
            raise ImportError(
                f"a notebook needs {error.name}; install it with {install_extra('lessons')}"
            ) from None
        script = self.path.read_text(encoding="utf-8")
        if first_cell:
            script = f"{_MARKER}\n{first_cell}\n{script}"
        notebook = jupytext.reads(script, fmt="py:percent")
        notebook.metadata["kernelspec"] = {
            "display_name": "Python 3",
            "language": "python",
            "name": "python3",
        }
        for number, cell in enumerate(notebook.cells):
            cell["id"] = f"cell-{number}"  # nbformat's own ids are random
        return str(jupytext.writes(notebook, fmt="ipynb"))


def folder() -> Path:
    """Return the folder of the lessons' scripts.

    Raises
    ------
    FileNotFoundError : neither a checkout nor an installed wheel contains them.
    """
    here = Path(__file__).parent
    places = (here.parents[1] / "bench" / "lessons", here / "scripts")
    for place in places:
        # An installed package may lie beside another project's bench/lessons.
        with suppress(OSError):
            if any(_FILE_NAME.fullmatch(path.name) for path in place.iterdir()):
                return place
    raise FileNotFoundError(f"no lessons in {' or '.join(map(str, places))}")


def all_lessons() -> tuple[Lesson, ...]:
    """Return every lesson, in the order of the course."""
    lessons = (Lesson(path) for path in folder().iterdir() if _FILE_NAME.fullmatch(path.name))
    return tuple(sorted(lessons, key=lambda lesson: lesson.number))


def find_lesson(number: str | int) -> Lesson:
    """Return the lesson of this number.

    Raises
    ------
    ValueError : no lesson has this number; the message lists the numbers.
    """
    lessons = {str(lesson.number): lesson for lesson in all_lessons()}
    if str(number) not in lessons:
        raise ValueError(f"unknown lesson {str(number)!r}; known: {', '.join(lessons)}")
    return lessons[str(number)]


def _cells(text: str) -> Iterator[Cell]:
    """Yield the cells of a script in percent format, without the lines before the first."""
    lines = text.splitlines()
    starts = [k for k, line in enumerate(lines) if line.startswith(_MARKER)]
    for start, stop in zip(starts, [*starts[1:], len(lines)], strict=True):
        body = lines[start + 1 : stop]
        if lines[start] == _TEXT_MARKER:
            source = "\n".join(line.removeprefix("#").removeprefix(" ") for line in body)
            yield Cell("markdown", source.strip(), start + 2)
        else:
            source = "\n".join(body).rstrip() + "\n"
            yield Cell("code", source, start + 2, hidden=lines[start] == _HIDDEN_MARKER)

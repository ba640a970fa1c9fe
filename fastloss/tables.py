"""Format tables as text, Markdown and HTML and for Rich; format their times and sizes.

A name or message in a table may hold anything, such as ``[red]``: no format reads it as markup.
"""

from __future__ import annotations

import html
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from rich.console import RenderableType

# Characters in a line of notes.
_NOTE_WIDTH = 100


@dataclass(frozen=True)
class Table:
    """A title, column heads, rows of text, and notes; without rows, only the title and the notes.

    The first ``n_labels`` columns are text, the others numbers.
    """

    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    notes: tuple[str, ...] = ()
    n_labels: int = 1

    def markdown(self) -> str:
        """Return a GitHub table, without the title."""
        if not self.rows:
            return "\n\n".join(self.notes)
        rule = [" --- " if i < self.n_labels else " ---: " for i in range(len(self.columns))]
        lines = [_line(self.columns), "|" + "|".join(rule) + "|", *map(_line, self.rows)]
        return "\n".join([*lines, *(f"\n{note}" for note in self.notes)])

    def rich(self) -> RenderableType:
        """Return a table for a `rich.console.Console`, in colour or plain."""
        from rich import box
        from rich.table import Table as RichTable
        from rich.text import Text

        # Text, because Rich reads brackets and colons in a str as markup and emoji.
        if not self.rows:
            return Text("\n".join([self.title, *self.notes]), style="italic")
        table = RichTable(
            title=Text(self.title, style="table.title"),
            caption=Text("\n".join(self.notes), style="table.caption") if self.notes else None,
            box=box.SIMPLE,
            title_justify="left",
            caption_justify="left",
        )
        for i, column in enumerate(self.columns):
            side: Literal["left", "right"] = "left" if i < self.n_labels else "right"
            # On a narrow terminal, wrap numbers instead of cutting them off.
            table.add_column(Text(column), justify=side, overflow="fold")
        for row in self.rows:
            table.add_row(*map(Text, row))
        return table

    def text(self) -> str:
        """Return aligned plain text, for output without Rich."""
        lines = [self.title, ""]
        if self.rows:
            cells = [[_one_line(cell) for cell in row] for row in (self.columns, *self.rows)]
            widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
            aligned = [
                "  ".join(
                    cell.ljust(width) if i < self.n_labels else cell.rjust(width)
                    for i, (cell, width) in enumerate(zip(row, widths, strict=True))
                ).rstrip()
                for row in cells
            ]
            lines += [aligned[0], "-" * max(map(len, aligned)), *aligned[1:], ""]
        # A line break in a note is kept.
        parts = (part for note in self.notes for part in note.splitlines())
        lines += (textwrap.fill(part, _NOTE_WIDTH, subsequent_indent="  ") for part in parts)
        return "\n".join(lines).rstrip("\n")

    def html(self) -> str:
        """Return an HTML table, for notebooks."""
        sides = ["left" if i < self.n_labels else "right" for i in range(len(self.columns))]

        def line(tag: str, cells: Iterable[str]) -> str:
            shown = (
                f'<{tag} style="text-align: {side}">{html.escape(cell)}</{tag}>'
                for side, cell in zip(sides, cells, strict=True)
            )
            return f"<tr>{''.join(shown)}</tr>"

        parts = [f"<p><b>{html.escape(self.title)}</b></p>"]
        if self.rows:
            body = "".join(line("td", row) for row in self.rows)
            head = line("th", self.columns)
            parts.append(f"<table><thead>{head}</thead><tbody>{body}</tbody></table>")
        # Line breaks in a note are kept.
        style = "white-space: pre-line"
        parts += (f'<p style="{style}">{html.escape(note)}</p>' for note in self.notes)
        return "\n".join(parts)


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(_one_line(cell).replace("|", "\\|") for cell in cells) + " |"


def _one_line(cell: str) -> str:
    return " ".join(cell.splitlines())


def seconds(value: float | None) -> str:
    """Format a duration with a unit, to three digits."""
    if value is None:
        return "-"
    for factor, unit in ((1e6, "µs"), (1e3, "ms"), (1.0, "s"), (1 / 60, "min")):
        if value * factor < (120.0 if unit == "s" else 1000.0):
            return f"{value * factor:.3g} {unit}"
    return f"{value / 3600:.3g} h"


def count_of(n: int, noun: str) -> str:
    """Format a count with its noun: ``1 round``, ``2 rounds``."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def size_of(n_bytes: int | None) -> str:
    """Format a size in KiB or MiB."""
    if n_bytes is None:
        return "-"
    if n_bytes < 2**20:
        return f"{n_bytes / 2**10:.0f} KiB"
    return f"{n_bytes / 2**20:.{0 if n_bytes >= 10 * 2**20 else 1}f} MiB"

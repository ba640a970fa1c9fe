"""Format tables for the terminal and for Markdown, and their times and sizes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from rich.console import RenderableType


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

        if not self.rows:
            return Text("\n".join([self.title, *self.notes]), style="italic")
        table = RichTable(
            title=self.title,
            caption="\n".join(self.notes) or None,
            box=box.SIMPLE,
            title_justify="left",
            caption_justify="left",
        )
        for i, column in enumerate(self.columns):
            side: Literal["left", "right"] = "left" if i < self.n_labels else "right"
            # On a narrow terminal, wrap numbers instead of cutting them off.
            table.add_column(column, justify=side, overflow="fold")
        for row in self.rows:
            table.add_row(*row)
        return table


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


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

"""Define records of single comparisons, and the verdict of a gradient check with its table."""

from __future__ import annotations

import html
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

PartName = Literal["data", "penalty", "total"]
Status = Literal["good", "fine", "uneasy", "wrong", "kink", "too small"]

FAILING = ("wrong", "uneasy")
_STATUSES: tuple[Status, ...] = ("wrong", "uneasy", "kink", "fine", "good", "too small")
_SHOWN_PER_PART = 5


@dataclass(frozen=True)
class GradientRecord:
    """One comparison of an analytic with a numerical slope.

    ``index`` is the entry of ``W``, None for a direction. ``relative_error`` is
    ``|a - n| / max(|a|, |n|)``; if ``status`` is "kink", ``n`` is the nearest slope at the corner.
    ``h`` is the chosen step. ``kink`` tells whether the first step met a kink.
    """

    part: PartName
    block: str
    index: tuple[int, ...] | None
    analytic: float
    numerical: float
    relative_error: float
    status: Status
    h: float
    kink: bool = False

    @property
    def failed(self) -> bool:
        """Return whether the status is "wrong" or "uneasy"."""
        return self.status in FAILING

    @property
    def severity(self) -> tuple[bool, bool, float]:
        """Return a sort key, worst last: failures, among these entries, then by error."""
        error = math.inf if math.isnan(self.relative_error) else self.relative_error
        return self.failed, self.failed and self.index is not None, error


@dataclass(frozen=True)
class GradientCheck:
    """The verdict of `check_gradient`; print it for the table."""

    records: tuple[GradientRecord, ...]
    subject: str
    n_evaluations: int
    notes: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Return whether no record failed and at least one of data or total was judged."""
        judged = any(r.status != "too small" and r.part != "penalty" for r in self.records)
        return judged and not any(record.failed for record in self.records)

    @property
    def judged(self) -> tuple[GradientRecord, ...]:
        """Return the records with a graded error: neither "kink" nor "too small"."""
        return tuple(r for r in self.records if r.status not in ("kink", "too small"))

    @property
    def max_relative_error(self) -> float:
        """Return the largest graded error; NaN if one is NaN, or if there are none."""
        errors = [record.relative_error for record in self.judged]
        return float(np.max(errors)) if errors else math.nan

    @property
    def worst(self) -> GradientRecord:
        """Return a failing entry, else a failing direction, else the record of largest error."""
        return max(self.judged or self.records, key=lambda record: record.severity)

    @property
    def n_kinks(self) -> int:
        """Return the number of records with a kink within the first step."""
        return sum(record.kink for record in self.records)

    @property
    def counts(self) -> dict[Status, int]:
        """Return the number of records of each status."""
        found = Counter(record.status for record in self.records)
        return {status: found[status] for status in _STATUSES}

    def __str__(self) -> str:
        rows = [_COLUMNS, *map(_cells, self._shown())]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        table = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ]
        return "\n".join([*self._summary(), "", *table])

    def _repr_html_(self) -> str:
        summary = "<br>".join(html.escape(line) for line in self._summary())
        header = "".join(f"<th>{html.escape(name)}</th>" for name in _COLUMNS)
        body = "".join(
            "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in _cells(record)) + "</tr>"
            for record in self._shown()
        )
        return (
            f"<p>{summary}</p><table><thead><tr>{header}</tr></thead><tbody>{body}</tbody></table>"
        )

    def _summary(self) -> Iterator[str]:
        verdict = "passed" if self.passed else "FAILED"
        yield (
            f"Gradient check {verdict}: largest relative error {self.max_relative_error:.1e} "
            f"in {len(self.judged)} judged of {len(self.records)}"
        )
        yield f"{self.subject}; {self.n_evaluations} evaluations"
        for part in dict.fromkeys(record.part for record in self.records):
            found = Counter(r.status for r in self.records if r.part == part)
            counts = ", ".join(f"{found[s]} {s}" for s in _STATUSES if found[s])
            yield f"  {part}: {counts}"
        if self.n_kinks:
            yield f"  {self.n_kinks} met a kink within the first step"
        for note in self.notes:
            yield f"  note: {note}"

    def _shown(self) -> Iterator[GradientRecord]:
        """Yield the worst few records of each part."""
        for part in dict.fromkeys(record.part for record in self.records):
            records = [record for record in self.records if record.part == part]
            records.sort(key=lambda record: record.severity, reverse=True)
            yield from records[:_SHOWN_PER_PART]


_COLUMNS = ("part", "where", "index", "analytic", "numerical", "relative error", "status", "h")


def _cells(record: GradientRecord) -> tuple[str, ...]:
    return (
        record.part,
        record.block,
        "" if record.index is None else str(record.index),
        f"{record.analytic: .6e}",
        f"{record.numerical: .6e}",
        f"{record.relative_error:.1e}",
        record.status,
        f"{record.h:.0e}",
    )

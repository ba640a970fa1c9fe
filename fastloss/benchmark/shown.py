"""Results that show themselves: as text, in notebooks, as a picture and as a data frame."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastloss.benchmark.findings import limit_notes, plain_machine, surroundings_notes
from fastloss.benchmark.measure import Ratio
from fastloss.benchmark.plots import contenders_drawing
from fastloss.benchmark.report import (
    EXTRAPOLATED,
    contender_notes,
    limit_share,
    ratio,
    time_of,
)
from fastloss.benchmark.results import Cell, Results, Timing
from fastloss.files import StrPath
from fastloss.plots import figure, picture
from fastloss.tables import Table, count_of, size_of
from fastloss.version import install_extra

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


@dataclass(repr=False)
class ShownResults(Results):
    """The results of `compare`: ``print`` shows a table, and so does a notebook.

    ``ShownResults.load(path)`` shows the results of ``fastloss bench`` in the same way.
    """

    def tables(self) -> list[Table]:
        """Return a table of contenders for each problem."""
        return [contenders_table(cell, self) for cell in self.cells]

    def __str__(self) -> str:
        return "\n\n".join(table.text() for table in self.tables())

    def __repr__(self) -> str:
        problems = "; ".join(f"{cell.loss}, {cell.size} {cell.dtype}" for cell in self.cells)
        n_contenders = sum(len(cell.timings) for cell in self.cells)
        return f"<{count_of(n_contenders, 'contender')} timed: {problems}; print it for the table>"

    def _repr_html_(self) -> str:
        return "\n".join(table.html() for table in self.tables())

    def plot(self, path: StrPath | None = None) -> Figure | list[Path]:
        """Plot the times; return the figure, or write files and return their paths.

        Parameters
        ----------
        path : PNG and SVG are written beside it, in a light and a dark theme; a suffix is replaced.
            None returns a figure in the light theme.

        Raises
        ------
        ImportError : Matplotlib is not installed.
        """
        draw, height = contenders_drawing(self.cells)
        if path is None:
            return figure(draw, height=height)
        stem = Path(path)
        if stem.suffix in (".png", ".svg"):
            stem = stem.with_suffix("")
        return picture(draw, stem, height=height)

    def to_frame(self) -> pd.DataFrame:
        """Return a data frame with a row for each contender.

        ``median`` is in seconds. ``ratio`` is the time over the best backend's, with its 95 %
        interval ``ratio_low`` to ``ratio_high`` (0 to infinity with fewer than six rounds). A
        refused contender has its reason in ``note``, and NaN for all figures.

        Raises
        ------
        ImportError : pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise ImportError(f"a data frame needs pandas: {install_extra('notebook')}") from error
        return pd.DataFrame([record for cell in self.cells for record in _records(cell)])


def contenders_table(cell: Cell, results: Results) -> Table:
    """Return the table of one problem: each contender's time, ratio, memory, errors and process."""
    best = cell.fastest("backend")
    rows: list[tuple[str, ...]] = [
        (
            timing.contender,
            time_of(timing),
            _ratio_text(timing, best),
            limit_share(cell, timing),
            size_of(timing.peak_extra_bytes),
            f"{timing.loss_error:.0e}",
            f"{timing.gradient_error:.0e}",
            timing.where,
        )
        for timing in sorted(cell.timings, key=lambda timing: timing.summary.median)
    ]
    left_out = {"skipped": cell.skipped, "refused": cell.refused}
    rows += [(name, word, *["-"] * 6) for word, names in left_out.items() for name in names]
    return Table(
        f"{cell.loss}: loss and gradient, {cell.size} {cell.dtype}",
        (
            "contender",
            "median",
            "time ratio" if best is None else f"time / {best.contender}",
            "of limit",
            "extra memory",
            "loss error",
            "gradient error",
            "where",
        ),
        rows,
        tuple(_notes(cell, results, best)),
    )


def _ratio_text(timing: Timing, best: Timing | None) -> str:
    if best is None:
        return "-"
    value = _ratio(timing, best)
    return ratio(value, extrapolated=timing.extrapolated or best.extrapolated)


def _ratio(timing: Timing, best: Timing | None) -> Ratio | None:
    """Return the time over the best backend's; None for that backend itself."""
    if best is None or timing is best:
        return None
    return Ratio.of(timing.full_seconds, best.full_seconds)


def _notes(cell: Cell, results: Results, best: Timing | None) -> Iterator[str]:
    for name, reason in (cell.refused | cell.skipped).items():
        word = "Refused" if name in cell.refused else "Skipped"
        yield f"{word}: {reason if reason.startswith(name) else f'{name}: {reason}'}"
    yield from contender_notes([cell])
    if best is not None:
        yield (
            f"time / {best.contender}: the time over that of the fastest backend, the median of "
            "the rounds' ratios with its 95 % interval."
        )
    yield "Errors are relative to a float64 reference."
    if cell.limit_seconds is not None:
        yield (
            "Of limit: the longer of one read of X and the arithmetic, at this machine's own "
            "ceilings, over the median."
        )
    if any(timing.extrapolated for timing in cell.timings):
        yield f"{EXTRAPOLATED}: timed on some of the rows and scaled up."
    yield from limit_notes([cell], results.environment.get("matrix_unit", False))
    yield from surroundings_notes(results)
    yield plain_machine(results)


def _records(cell: Cell) -> Iterator[dict[str, Any]]:
    best = cell.fastest("backend")
    problem = {
        "loss": cell.loss,
        "n_rows": cell.n_rows,
        "n_features": cell.n_features,
        "n_classes": cell.n_classes,
        "dtype": cell.dtype,
    }
    for timing in cell.timings:
        found = _ratio(timing, best)
        if best is timing:
            found = Ratio(1.0, 1.0, 1.0, len(timing.seconds))
        yield {
            **problem,
            "contender": timing.contender,
            "kind": timing.kind,
            "median": timing.summary.median,
            "ratio": found and found.value,
            "ratio_low": found and found.low,
            "ratio_high": found and found.high,
            "rounds": len(timing.seconds),
            "loss_error": timing.loss_error,
            "gradient_error": timing.gradient_error,
            "where": timing.where,
            "extrapolated": timing.extrapolated,
            "note": timing.note,
        }
    for kind, word, names in (
        ("candidate", "refused", cell.refused),
        ("peer", "skipped", cell.skipped),
    ):
        for name, reason in names.items():
            note = f"{word}: {reason}"
            yield {**problem, "contender": name, "kind": kind, "rounds": 0, "note": note}

"""Plot the results of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from math import ceil, floor, log2
from pathlib import Path
from typing import TYPE_CHECKING

from fastloss.backends import registered_backends
from fastloss.benchmark.measure import Ratio
from fastloss.benchmark.results import Cell, GradientPoint, GradientStudy, Kind, Results
from fastloss.plots import (
    BLUE,
    FAINT,
    GREEN,
    GREY,
    INK,
    PAPER,
    SERIES,
    VERMILION,
    Draw,
    heading,
    label,
    label_ends,
    label_points,
    picture,
    plain,
    title,
)
from fastloss.tables import seconds as format_seconds

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def save_all(results: Results, folder: Path) -> list[Path]:
    """Save each plot that has data, as PNG and SVG; return the paths."""
    return [path for draw in pictures_of(results, folder).values() for path in draw()]


#: The stems of all possible pictures.
PICTURES = ("peers", "backends", "gradient", "gradient-error")


def pictures_of(results: Results, folder: Path) -> dict[str, Callable[[], list[Path]]]:
    """Return the function that saves each picture with data, by its stem (see `picture`)."""
    pictures: dict[str, Callable[[Path], list[Path]]] = {}
    if results.has_peers:
        pictures["peers"] = partial(plot_peers, results.cells)
    elif results.cells:
        pictures["backends"] = partial(plot_backends, results)
    if results.gradient is not None and results.gradient.points:
        pictures["gradient"] = partial(plot_gradient_study, results.gradient)
        pictures["gradient-error"] = partial(plot_error_against_cost, results.gradient)
    return {name: partial(draw, folder / name) for name, draw in pictures.items()}


def colours_of(names: Iterable[str]) -> dict[str, str]:
    """Give each name a colour: backends (or their titles) by their order, then the others."""
    names = list(dict.fromkeys(names))
    places: dict[str, int] = {}
    for place, (name, backend) in enumerate(registered_backends().items()):
        places[name] = places[backend.title or name] = place
    first = len(registered_backends())
    others = [name for name in names if name not in places]
    places |= {name: place for place, name in enumerate(others, first)}
    return {name: SERIES[places[name] % len(SERIES)] for name in names}


def plot_backends(results: Results, stem: Path) -> list[Path]:
    """Plot the time of each loss and backend, one panel per size, with the machine's limit."""
    sizes = list(dict.fromkeys((cell.size, cell.dtype) for cell in results.cells))
    colours = colours_of(timing.contender for cell in results.cells for timing in cell.timings)
    groups = [[cell for cell in results.cells if (cell.size, cell.dtype) == s] for s in sizes]
    heights = [max(2, len(group)) + 1.2 for group in groups]

    def draw(figure: Figure) -> None:
        axes = figure.subplots(len(sizes), 1, squeeze=False, height_ratios=heights)[:, 0]
        for ax, (size, dtype), cells in zip(axes, sizes, groups, strict=True):
            title(ax, f"{size}, {dtype}")
            _draw_cells(ax, cells, colours)
        axes[-1].set_xlabel("seconds for loss and gradient (log scale; left is faster)")
        heading(figure, "Loss and gradient by backend")

    return picture(draw, stem, height=1.0 + 0.42 * sum(heights))


def _draw_cells(ax: Axes, cells: list[Cell], colours: dict[str, str]) -> None:
    labels: list[tuple[float, float, str, str]] = []
    for y, cell in enumerate(cells):
        medians = [timing.summary.median for timing in cell.timings]
        ax.plot([min(medians), max(medians)], [y, y], color=FAINT, zorder=1)
        for timing in cell.timings:
            colour = colours[timing.contender]
            face = PAPER if timing.extrapolated else colour
            median = timing.summary.median
            ax.plot(median, y, "o", color=colour, markerfacecolor=face, markersize=7)
            text = timing.contender + (" (extrapolated)" if timing.extrapolated else "")
            labels.append((median, y, text, colour))
        if cell.limit_seconds is not None:
            ax.plot(cell.limit_seconds, y, "|", color=INK, markersize=14)
            labels.append((cell.limit_seconds, y, "limit", INK))
    ax.set_xscale("log")
    ax.set_yticks(range(len(cells)), [plain(cell.loss) for cell in cells])
    # The labels of the first row need room below it too.
    ax.set_ylim(max(2, len(cells)) - 0.5, -0.9)
    ax.margins(x=0.12)
    label_points(ax, [place for place in labels if place[1] == 0])
    ax.grid(axis="y", visible=False)


_KIND_COLOURS: dict[Kind, str] = {"backend": BLUE, "candidate": VERMILION, "peer": GREEN}
_KINDS_NOTE = "blue: backends of fastloss; red: candidates; green: other libraries"


def contenders_drawing(cells: Sequence[Cell]) -> tuple[Draw, float]:
    """Return a function that draws each contender's time, a panel per cell, and its height."""
    heights = [len(cell.timings) + 1.5 for cell in cells]

    def draw(figure: Figure) -> None:
        axes = figure.subplots(len(cells), 1, squeeze=False, height_ratios=heights)[:, 0]
        for ax, cell in zip(axes, cells, strict=True):
            title(ax, f"{cell.loss}, {cell.size}, {cell.dtype}", _KINDS_NOTE)
            _draw_contenders(ax, cell)
        axes[-1].set_xlabel("seconds for loss and gradient (log scale; left is faster)")
        heading(figure, "Loss and gradient: median time, with quartiles")

    return draw, 0.8 + 0.34 * sum(heights)


def _draw_contenders(ax: Axes, cell: Cell) -> None:
    timings = sorted(cell.timings, key=lambda timing: timing.summary.median)
    for y, timing in enumerate(timings):
        colour, summary = _KIND_COLOURS[timing.kind], timing.summary
        ax.plot([summary.low, summary.high], [y, y], color=colour)
        face = PAPER if timing.extrapolated else colour
        ax.plot(summary.median, y, "o", color=colour, markerfacecolor=face, markersize=7)
        scaled = " (timed in part, scaled up)" if timing.extrapolated else ""
        text = f"{format_seconds(summary.median)}{scaled}"
        label(ax, text, (summary.high, y), colour, offset=(9, 0))
    if cell.limit_seconds is not None:
        ax.axvline(cell.limit_seconds, color=INK, linewidth=1.2)
        label(ax, "this machine's limit", (cell.limit_seconds, -0.6), offset=(5, 0))
    ax.set_xscale("log")
    ax.set_yticks(range(len(timings)), [plain(timing.contender) for timing in timings])
    ax.set_ylim(len(timings) - 0.4, -1.0)
    ax.margins(x=0.15)
    ax.grid(axis="y", visible=False)


def plot_peers(cells: list[Cell], stem: Path) -> list[Path]:
    """Plot the speed-up over the best peer, from small to large problems, one panel per loss."""
    compared = sorted(
        (cell for cell in cells if cell.fastest("backend") and cell.fastest("peer")),
        key=lambda cell: (cell.n_rows * cell.n_features * cell.n_classes, cell.dtype),
    )
    losses = list(dict.fromkeys(cell.loss for cell in cells if cell in compared))
    groups = [[cell for cell in compared if cell.loss == loss] for loss in losses]
    heights = [len(group) + 1.5 for group in groups]

    def draw(figure: Figure) -> None:
        axes = figure.subplots(len(losses), 1, squeeze=False, sharex=True, height_ratios=heights)
        for ax, loss, group in zip(axes[:, 0], losses, groups, strict=True):
            title(ax, loss)
            _draw_speedups(ax, [(f"{cell.size} {cell.dtype}", cell) for cell in group])
        _scale_speedups(axes[-1, 0])
        heading(figure, "Loss and gradient: fastloss against the best peer")

    return picture(draw, stem, 8.4, 1.2 + 0.36 * sum(heights))


def plot_named_peers(cells: Sequence[tuple[str, Cell]], stem: Path) -> list[Path]:
    """Plot the speed-up over the best peer, one row per name."""

    def draw(figure: Figure) -> None:
        ax = figure.subplots()
        _draw_speedups(ax, cells)
        _scale_speedups(ax)
        heading(figure, "Loss and gradient: fastloss against the best peer")

    return picture(draw, stem, 8.4, 1.6 + 0.42 * len(cells))


def _draw_speedups(ax: Axes, cells: Sequence[tuple[str, Cell]]) -> None:
    """Draw each problem's speed-up and interval; right of the line at 1, fastloss wins."""
    ax.axvline(1.0, color=INK, linewidth=1.2)
    for y, (_, cell) in enumerate(cells):
        # As in the tables. The faster of `fused` and `auto` would be chosen after the fact.
        ours, theirs = cell.timing("fused") or cell.fastest("backend"), cell.fastest("peer")
        assert ours is not None
        assert theirs is not None
        speedup = Ratio.of(theirs.full_seconds, ours.full_seconds)
        colour = BLUE if speedup.value >= 1 else VERMILION
        end = speedup.value
        if speedup.has_interval:
            end = speedup.high
            ax.plot([speedup.low, end], [y, y], color=colour, linewidth=1.6)
        ax.plot(speedup.value, y, "o" if speedup.value >= 1 else "X", color=colour, markersize=7)
        ax.annotate(
            plain(f"{speedup.value:.2f}: {ours.contender} against {theirs.contender}"),
            (end, y),
            xytext=(8, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
            color=colour,
            # Keeps the text readable where it crosses the line at 1.
            bbox={"facecolor": PAPER, "edgecolor": "none", "pad": 1.0},
        )
    ax.set_yticks(range(len(cells)), [name for name, _ in cells])
    ax.set_ylim(len(cells) - 0.5, -0.8)
    ax.grid(axis="y", visible=False)


def _scale_speedups(ax: Axes) -> None:
    """Scale the axis in powers of 2, always with the line at 1, and room for labels at right."""
    low, high = (log2(value) for value in ax.dataLim.intervalx)
    first, last = floor(min(low, -1.0)), ceil(max(high, 1.0))
    ax.set_xscale("log", base=2)
    ax.set_xlim(2.0 ** (first - 0.1), 2.0 ** (last + 0.6 * (last - first)))
    ticks = range(first, last + 1)
    ax.set_xticks([2.0**k for k in ticks], [f"{2.0**k:g}" for k in ticks])
    ax.set_xlabel(
        "time of the best peer / time of fastloss (crosses left of 1: the peer is faster)"
    )


def _method_styles(study: GradientStudy) -> dict[str, tuple[str, str]]:
    """Choose each method's colour by its backend, and its line by its kind of gradient."""
    # Names: "analytic, naive", "per element, naive loss", and "incremental" (run by NumPy).
    parts = {method: method.partition(", ") for method in study.methods}
    runners = {method: of.removesuffix(" loss") or "numpy" for method, (_, _, of) in parts.items()}
    colours = colours_of(runners.values())
    lines = {"analytic": "-", "per element": "--"}
    return {m: (colours[runners[m]], lines.get(kind, "-.")) for m, (kind, _, _) in parts.items()}


def plot_gradient_study(study: GradientStudy, stem: Path) -> list[Path]:
    """Plot the time of one full gradient against the parameter count, log-log."""

    styles = _method_styles(study)

    def draw(figure: Figure) -> None:
        ax = figure.subplots()
        ends = []
        for method in study.methods:
            points = study.of(method)
            colour, line = styles[method]
            _draw_method(ax, points, colour, line)
            ends.append((points[-1].timing.summary.median, _method_label(study, method), colour))
        ax.set_xscale("log")
        ax.set_yscale("log")
        ax.set_xlabel("parameters (features x classes)")
        ax.set_ylabel("seconds for one full gradient")
        counts = sorted({point.n_parameters for point in study.points})
        ax.set_xlim(counts[0] / 1.3, counts[-1] * 1.3)
        _mark_reference_times(ax)
        _mark_cifar(ax, counts)
        label_ends(ax, ends, gap=0.045)
        title(
            ax,
            "Per element, a gradient takes two loss evaluations for each parameter",
            f"{study.loss}, {study.n_rows} rows, {study.n_classes} classes; slopes from "
            f"{study.fit_from:,} parameters on; hollow: timed in part and scaled up",
        )

    return picture(draw, stem, 8.4, 5.6)


def _draw_method(ax: Axes, points: list[GradientPoint], colour: str, line: str) -> None:
    x = [point.n_parameters for point in points]
    y = [point.timing.summary.median for point in points]
    ax.plot(x, y, line, color=colour, linewidth=1.6)
    for point, size, value in zip(points, x, y, strict=True):
        face = PAPER if point.timing.extrapolated else colour
        ax.plot(size, value, "o", color=colour, markerfacecolor=face, markersize=5)


def _method_label(study: GradientStudy, method: str) -> str:
    law = study.slope(method)
    return method if law is None else f"{method}: slope {law.slope:.2f}"


def _mark_reference_times(ax: Axes) -> None:
    """Mark 1 ms, 1 s, 1 min and 1 h for comparison."""
    low, high = ax.get_ylim()
    for value, name in ((1e-3, "1 ms"), (1.0, "1 s"), (60.0, "1 min"), (3600.0, "1 h")):
        if low < value < high:
            ax.axhline(value, color=GREY, linewidth=0.8, alpha=0.5, zorder=0)
            ax.text(
                0.005,
                value,
                name,
                transform=ax.get_yaxis_transform(),
                fontsize=8,
                color=GREY,
                va="bottom",
            )


def _mark_cifar(ax: Axes, counts: list[int]) -> None:
    if 30_730 in counts:
        ax.axvline(30_730, color=GREY, linewidth=0.8, alpha=0.5, zorder=0)
        ax.text(
            30_730,
            0.01,
            "3073 x 10: CIFAR-10 ",
            transform=ax.get_xaxis_transform(),
            fontsize=8,
            color=GREY,
            ha="right",
            va="bottom",
        )


def plot_error_against_cost(study: GradientStudy, stem: Path) -> list[Path]:
    """Plot each gradient's error against its time, at 30,730 parameters or the largest count."""
    judged = [point for point in study.points if point.error is not None]
    if not judged:
        return []
    counts = sorted({point.n_parameters for point in judged})
    count = 30_730 if 30_730 in counts else counts[-1]
    styles = _method_styles(study)

    def draw(figure: Figure) -> None:
        ax = figure.subplots()
        labels = []
        for point in (point for point in judged if point.n_parameters == count):
            colour, _ = styles[point.method]
            median = point.timing.summary.median
            # The error may be 0 (exact at every sampled coordinate), which a log scale cannot show.
            error = max(point.error or 0.0, 1e-18)
            face = PAPER if point.timing.extrapolated else colour
            ax.plot(median, error, "o", color=colour, markerfacecolor=face, markersize=8)
            text = f"{point.method} ({format_seconds(median)})"
            labels.append((median, error, text, colour))
        ax.set_xscale("log")
        ax.set_yscale("log")
        ax.margins(0.25)
        label_points(ax, labels)
        ax.set_xlabel("seconds for one full gradient (left is faster)")
        ax.set_ylabel("largest error / largest entry (down is better)")
        title(ax, f"The analytic gradient is faster and more accurate ({count:,} parameters)")

    return picture(draw, stem, height=4.2)

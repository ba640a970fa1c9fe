"""Plots of results: one style, colours that the colour-blind can tell apart, direct labels."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from math import ceil, floor, log, log2
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastloss.benchmark.measure import Ratio
from fastloss.benchmark.report import seconds as format_seconds
from fastloss.benchmark.results import Cell, GradientPoint, GradientStudy, Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette.
ORANGE, SKY, GREEN, BLUE, VERMILION, PURPLE, GREY = (
    "#E69F00",
    "#56B4E9",
    "#009E73",
    "#0072B2",
    "#D55E00",
    "#CC79A7",
    "#666666",
)
_BACKEND_COLOURS = {"naive": VERMILION, "numpy": BLUE, "numba": GREEN}
_OTHER_COLOURS = (PURPLE, ORANGE, SKY, GREY)
_STYLE: Any = {
    "figure.dpi": 130,
    "savefig.dpi": 130,
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "axes.axisbelow": True,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "svg.fonttype": "none",
    # The same picture gives the same file.
    "svg.hashsalt": "fastloss",
}


@contextmanager
def _figure(width: float, height: float) -> Iterator[Figure]:
    """A figure in the house style, off screen."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(_STYLE):
        yield Figure(figsize=(width, height), layout="constrained")


def _save(figure: Figure, stem: Path) -> list[Path]:
    paths = [stem.with_suffix(suffix) for suffix in (".png", ".svg")]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        metadata = {"Date": None} if path.suffix == ".svg" else {"Software": None}
        figure.savefig(path, metadata=metadata)
    return paths


def save_all(results: Results, folder: Path) -> list[Path]:
    """Every plot that there is something for, as PNG and SVG; the paths."""
    paths = []
    if results.has_peers:
        paths += plot_peers(results.cells, folder / "peers")
    elif results.cells:
        paths += plot_backends(results, folder / "backends")
    if results.gradient is not None and results.gradient.points:
        paths += plot_gradient_study(results.gradient, folder / "gradient")
        paths += plot_error_against_cost(results.gradient, folder / "gradient-error")
    return paths


def _backend_colour(name: str, others: list[str]) -> str:
    if name in _BACKEND_COLOURS:
        return _BACKEND_COLOURS[name]
    return _OTHER_COLOURS[others.index(name) % len(_OTHER_COLOURS)]


def plot_backends(results: Results, stem: Path) -> list[Path]:
    """Time of loss and gradient by loss and backend, a panel a size, with the machine's limit."""
    sizes = list(dict.fromkeys((cell.size, cell.dtype) for cell in results.cells))
    names = {timing.contender for cell in results.cells for timing in cell.timings}
    others = sorted(names - set(_BACKEND_COLOURS))
    groups = [[cell for cell in results.cells if (cell.size, cell.dtype) == s] for s in sizes]
    heights = [len(group) + 1.2 for group in groups]
    with _figure(8.0, 1.0 + 0.42 * sum(heights)) as figure:
        axes = figure.subplots(len(sizes), 1, squeeze=False, height_ratios=heights)[:, 0]
        for ax, (size, dtype), cells in zip(axes, sizes, groups, strict=True):
            ax.set_title(f"{size}, {dtype}", fontsize=10)
            _draw_cells(ax, cells, others)
        axes[-1].set_xlabel("seconds for loss and gradient (log scale; left is faster)")
        figure.suptitle(
            "Loss and gradient by backend", x=0.01, ha="left", fontweight="bold", fontsize=12
        )
        return _save(figure, stem)


def _draw_cells(ax: Axes, cells: list[Cell], others: list[str]) -> None:
    for y, cell in enumerate(cells):
        medians = [timing.summary.median for timing in cell.timings]
        ax.plot([min(medians), max(medians)], [y, y], color="#cccccc", zorder=1)
        for timing in cell.timings:
            colour = _backend_colour(timing.contender, others)
            face = "white" if timing.extrapolated else colour
            median = timing.summary.median
            ax.plot(median, y, "o", color=colour, markerfacecolor=face, markersize=7)
            if y == 0:
                text = timing.contender + (" (extrapolated)" if timing.extrapolated else "")
                # NumPy and Numba are often close: one above, one below.
                _label(ax, text, (median, y), colour, -15 if timing.contender == "numba" else 9)
        if cell.limit_seconds is not None:
            ax.plot(cell.limit_seconds, y, "|", color="black", markersize=14)
            if y == 0:
                _label(ax, "limit", (cell.limit_seconds, y), "black")
    ax.set_xscale("log")
    ax.set_yticks(range(len(cells)), [cell.loss for cell in cells])
    ax.set_ylim(len(cells) - 0.5, -0.9)
    ax.margins(x=0.12)
    ax.grid(axis="y", visible=False)


def _label(ax: Axes, text: str, place: tuple[float, float], colour: str, offset: float = 9) -> None:
    """Text above (or below) a point."""
    ax.annotate(
        text,
        place,
        xytext=(0, offset),
        textcoords="offset points",
        ha="center",
        fontsize=9,
        color=colour,
    )


def plot_peers(cells: list[Cell], stem: Path) -> list[Path]:
    """Speed-up over the best peer, problem by problem from small to large, a panel a loss."""
    compared = sorted(
        (cell for cell in cells if cell.fastest("backend") and cell.fastest("peer")),
        key=lambda cell: (cell.n_rows * cell.n_features * cell.n_classes, cell.dtype),
    )
    losses = list(dict.fromkeys(cell.loss for cell in cells if cell in compared))
    groups = [[cell for cell in compared if cell.loss == loss] for loss in losses]
    heights = [len(group) + 1.5 for group in groups]
    with _figure(8.4, 1.2 + 0.36 * sum(heights)) as figure:
        axes = figure.subplots(len(losses), 1, squeeze=False, sharex=True, height_ratios=heights)
        for ax, loss, group in zip(axes[:, 0], losses, groups, strict=True):
            ax.set_title(loss, fontsize=10)
            _draw_speedups(ax, group)
        _scale_speedups(axes[-1, 0])
        figure.suptitle(
            "Loss and gradient: fastloss against the best peer",
            x=0.01,
            ha="left",
            fontweight="bold",
            fontsize=12,
        )
        return _save(figure, stem)


def _draw_speedups(ax: Axes, cells: list[Cell]) -> None:
    """A row a problem: a point with its interval, right of the line at 1 where fastloss wins."""
    ax.axvline(1.0, color="black", linewidth=1.2)
    for y, cell in enumerate(cells):
        ours, theirs = cell.fastest("backend"), cell.fastest("peer")
        assert ours is not None
        assert theirs is not None
        speedup = Ratio.of(theirs.full_seconds, ours.full_seconds)
        colour = BLUE if speedup.value >= 1 else VERMILION
        ax.plot([speedup.low, speedup.high], [y, y], color=colour, linewidth=1.6)
        ax.plot(speedup.value, y, "o" if speedup.value >= 1 else "X", color=colour, markersize=7)
        ax.annotate(
            f"{speedup.value:.2f}: {ours.contender} against {theirs.contender}",
            (max(speedup.value, speedup.high), y),
            xytext=(8, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
            color=colour,
            # Readable across the line at 1.
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.0},
        )
    ax.set_yticks(range(len(cells)), [f"{cell.size} {cell.dtype}" for cell in cells])
    ax.set_ylim(len(cells) - 0.5, -0.8)
    ax.grid(axis="y", visible=False)


def _scale_speedups(ax: Axes) -> None:
    """Doublings on a log scale, the line at 1 always in sight, and room for labels on the right."""
    low, high = (log2(value) for value in ax.dataLim.intervalx)
    first, last = floor(min(low, -1.0)), ceil(max(high, 1.0))
    ax.set_xscale("log", base=2)
    ax.set_xlim(2.0 ** (first - 0.1), 2.0 ** (last + 0.6 * (last - first)))
    ticks = range(first, last + 1)
    ax.set_xticks([2.0**k for k in ticks], [f"{2.0**k:g}" for k in ticks])
    ax.set_xlabel(
        "time of the best peer / time of fastloss (crosses left of 1: the peer is faster)"
    )


def _method_style(method: str) -> tuple[str, str]:
    """Colour by what runs it, line by what it does."""
    family = "-" if method.startswith("analytic") else "--"
    if method == "incremental":
        return PURPLE, "-."
    for key, colour in {"naive": VERMILION, "NumPy": BLUE, "Numba": GREEN}.items():
        if key in method:
            return colour, family
    return GREY, family


def plot_gradient_study(study: GradientStudy, stem: Path) -> list[Path]:
    """Time of one full gradient against the parameter count, log-log, each line labelled."""
    with _figure(8.4, 5.6) as figure:
        ax = figure.subplots()
        ends = []
        for method in study.methods:
            points = study.of(method)
            colour, line = _method_style(method)
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
        _label_ends(ax, counts[-1] * 1.3, ends)
        ax.set_title(
            "Numerical gradients cost the parameter count squared, analytic ones do not\n",
            fontsize=11,
        )
        ax.text(
            0,
            1.01,
            f"{study.loss}, {study.n_rows} rows, {study.n_classes} classes; "
            "hollow: timed in part and scaled up",
            transform=ax.transAxes,
            fontsize=9,
            color=GREY,
        )
        return _save(figure, stem)


def _draw_method(ax: Axes, points: list[GradientPoint], colour: str, line: str) -> None:
    x = [point.n_parameters for point in points]
    y = [point.timing.summary.median for point in points]
    ax.plot(x, y, line, color=colour, linewidth=1.6)
    for point, size, value in zip(points, x, y, strict=True):
        face = "white" if point.timing.extrapolated else colour
        ax.plot(size, value, "o", color=colour, markerfacecolor=face, markersize=5)


def _method_label(study: GradientStudy, method: str) -> str:
    law = study.slope(method)
    return method if law is None else f"{method}: slope {law.slope:.2f}"


def _mark_reference_times(ax: Axes) -> None:
    """Durations a reader knows."""
    low, high = ax.get_ylim()
    for value, name in ((1e-3, "1 ms"), (1.0, "1 s"), (60.0, "1 min"), (3600.0, "1 h")):
        if low < value < high:
            ax.axhline(value, color="#bbbbbb", linewidth=0.8, zorder=0)
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
        ax.axvline(30_730, color="#bbbbbb", linewidth=0.8, zorder=0)
        ax.text(
            30_730,
            0.01,
            " 3073 x 10: CIFAR-10",
            transform=ax.get_xaxis_transform(),
            rotation=90,
            fontsize=8,
            color=GREY,
            ha="right",
            va="bottom",
        )


def _label_ends(ax: Axes, x: float, ends: list[tuple[float, str, str]]) -> None:
    """Labels beside the ends of the lines, moved apart where they would overlap."""
    low, high = ax.get_ylim()
    gap = (high / low) ** 0.045
    y = 0.0
    for value, text, colour in sorted(ends):
        y = max(value, y * gap)
        ax.annotate(
            text,
            (x, y),
            xytext=(4, 0),
            textcoords="offset points",
            color=colour,
            fontsize=9,
            va="center",
            annotation_clip=False,
        )


def plot_error_against_cost(study: GradientStudy, stem: Path) -> list[Path]:
    """Error of a gradient against what it costs, at the largest count all errors are known for."""
    judged = [point for point in study.points if point.error is not None]
    if not judged:
        return []
    counts = sorted({point.n_parameters for point in judged})
    count = 30_730 if 30_730 in counts else counts[-1]
    with _figure(8.0, 4.2) as figure:
        ax = figure.subplots()
        shown = [point for point in judged if point.n_parameters == count]
        for point in shown:
            colour, _ = _method_style(point.method)
            median = point.timing.summary.median
            # A gradient may be exact at every sampled coordinate; a log scale has no place for 0.
            error = max(point.error or 0.0, 1e-18)
            face = "white" if point.timing.extrapolated else colour
            ax.plot(median, error, "o", color=colour, markerfacecolor=face, markersize=8)
            text = f"{point.method} ({format_seconds(median)})"
            offset = 9 if _above_neighbour(point, shown) else -15
            _label(ax, text, (median, error), colour, offset)
        ax.set_xscale("log")
        ax.set_yscale("log")
        ax.margins(0.25)
        ax.set_xlabel("seconds for one full gradient (left is faster)")
        ax.set_ylabel("largest error / largest entry (down is better)")
        ax.set_title(
            f"The analytic gradient is faster and more accurate ({count:,} parameters)", fontsize=11
        )
        return _save(figure, stem)


def _above_neighbour(point: GradientPoint, points: list[GradientPoint]) -> bool:
    """Whether the point has the larger error of itself and its neighbour in time."""
    seconds = point.timing.summary.median
    others = [other for other in points if other is not point]
    if not others:
        return True
    neighbour = min(others, key=lambda other: abs(log(other.timing.summary.median / seconds)))
    return (point.error or 0.0) >= (neighbour.error or 0.0)

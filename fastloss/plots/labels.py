"""Text on a picture: headings, and labels that do not overlap."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fastloss.plots.themes import GREY, INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.transforms import Transform


def plain(text: str) -> str:
    """Return text that Matplotlib shows unchanged: escape ``$``, replace control characters."""
    shown = (c if c == "\n" or c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
    return "".join(shown).replace("$", r"\$")


def heading(figure: Figure, text: str) -> None:
    """Write the picture's message above all panels."""
    figure.suptitle(plain(text), x=0.01, ha="left", fontweight="bold", fontsize=12)


def footnote(figure: Figure, text: str) -> None:
    """Write a reading aid below all panels."""
    figure.supxlabel(plain(text), x=0.01, ha="left", fontsize=9, color=GREY)


def percent(share: float, digits: int = 1) -> str:
    """Format a share of 1 as a percentage."""
    return f"{100 * share:.{digits}f} %"


def title(ax: Axes, text: str, note: str = "") -> None:
    """Write a panel's title, and a smaller note under it."""
    ax.set_title(plain(text) + ("\n" if note else ""))
    if note:
        ax.text(0, 1.015, plain(note), transform=ax.transAxes, fontsize=9, color=GREY)


def label(
    ax: Axes,
    text: str,
    place: tuple[float, float],
    colour: str = INK,
    offset: float | tuple[float, float] = 9,
) -> None:
    """Write text at an ``offset`` (in points) from a point: upwards, or (right, up).

    With a pair, the text starts at the offset position, or ends there if that is left of the point.
    """
    right, up = offset if isinstance(offset, tuple) else (0.0, offset)
    alignment = "left" if right > 0 else "right" if right < 0 else "center"
    ax.annotate(
        plain(text),
        place,
        xytext=(right, up),
        textcoords="offset points",
        ha=alignment,
        va="center" if right else "baseline",
        fontsize=9,
        color=colour,
        annotation_clip=False,
    )


def label_points(
    ax: Axes, points: Sequence[tuple[float, float, str, str]], fontsize: float = 9
) -> None:
    """Label each ``(x, y, text, colour)``, above or below, clear of points and other labels.

    Call it after the limits of the axes are final. The size of the axes before the layout is used,
    as an estimate of the final size.
    """
    inches = ax.get_position().size * ax.get_figure(root=True).get_size_inches()  # type: ignore[union-attr]
    places = _to_axes(ax).transform([(x, y) for x, y, _, _ in points]) * 72 * inches
    taken = [(x - 5, x + 5, y - 5, y + 5) for x, y in places]
    for (x, y), (*place, text, colour) in zip(places, points, strict=True):
        half = 0.3 * fontsize * len(text)
        for offset in (9, -15, 21, -27, 33, -39):
            box = (x - half, x + half, y + offset, y + offset + fontsize)
            if not any(_overlap(box, other) for other in taken):
                break
        taken.append(box)
        label(ax, text, (place[0], place[1]), colour, offset)


def _to_axes(ax: Axes) -> Transform:
    """Return the transform from data to fractions of the axes."""
    ax.get_xlim(), ax.get_ylim()  # Matplotlib computes pending limits on access
    return ax.transScale + ax.transLimits


def _overlap(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    """Whether two boxes (left, right, bottom, top) overlap."""
    return a[0] < b[1] and b[0] < a[1] and a[2] < b[3] and b[2] < a[3]


def label_ends(ax: Axes, ends: Iterable[tuple[float, str, str]], gap: float = 0.055) -> None:
    """Label each ``(y, text, colour)`` right of the axes, near its ``y``, without overlaps.

    Call it after the limits of the axes are final. ``gap`` is the height of a line of text as a
    fraction of the height of the axes.
    """
    ends = list(ends)
    to_axes, (_, right) = _to_axes(ax), ax.get_xlim()
    heights = [float(to_axes.transform((right, y))[1]) for y, _, _ in ends]
    for height, (_, text, colour) in zip(apart(heights, gap), ends, strict=True):
        ax.annotate(
            plain(text),
            (1.0, height),
            xycoords="axes fraction",
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
            color=colour,
            annotation_clip=False,
        )


def apart(places: Sequence[float], gap: float) -> NDArray[np.float64]:
    """Return the nearest places (least squares), in the same order, at least ``gap`` apart."""
    from scipy.optimize import isotonic_regression

    order = np.argsort(places, kind="stable")
    steps = gap * np.arange(len(places))
    moved = np.empty(len(places))
    # Less the steps, "at least a gap apart" becomes "not decreasing": an isotonic regression.
    moved[order] = isotonic_regression(np.asarray(places, float)[order] - steps).x + steps
    return moved

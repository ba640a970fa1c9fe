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
    """The text as it is to be read: no ``$`` begins a formula, nothing that a file cannot hold."""
    shown = (c if c == "\n" or c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
    return "".join(shown).replace("$", r"\$")


def heading(figure: Figure, text: str) -> None:
    """What the picture says, above all its panels."""
    figure.suptitle(plain(text), x=0.01, ha="left", fontweight="bold", fontsize=12)


def footnote(figure: Figure, text: str) -> None:
    """How to read the picture, below all its panels."""
    figure.supxlabel(plain(text), x=0.01, ha="left", fontsize=9, color=GREY)


def percent(share: float, digits: int = 1) -> str:
    """A share of 1 as text."""
    return f"{100 * share:.{digits}f} %"


def title(ax: Axes, text: str, note: str = "") -> None:
    """What a panel says, and a smaller line under it."""
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
    """Text above a point (below it for a negative ``offset``), or ``offset`` = (right, up) of it.

    Offsets are in points. With two of them the text starts there, or ends there if it is left of
    the point.
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
    """A label above or below each ``(x, y, text, colour)``, clear of the points and other labels.

    Call it once the limits of the axes are final. Their size in the end is not known yet; what
    they have before the layout is near enough.
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
    """From data to fractions of the axes."""
    ax.get_xlim(), ax.get_ylim()  # which are worked out when they are asked for
    return ax.transScale + ax.transLimits


def _overlap(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    """Whether boxes (left, right, bottom, top) do."""
    return a[0] < b[1] and b[0] < a[1] and a[2] < b[3] and b[2] < a[3]


def label_ends(ax: Axes, ends: Iterable[tuple[float, str, str]], gap: float = 0.055) -> None:
    """Labels right of the axes, at the ``y`` of each ``(y, text, colour)``, none over another.

    Call it once the limits of the axes are final. ``gap`` is the height of a line of text as a
    fraction of that of the axes.
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
    """The nearest places, in the order of the given ones, that are at least ``gap`` apart."""
    from scipy.optimize import isotonic_regression

    order = np.argsort(places, kind="stable")
    steps = gap * np.arange(len(places))
    moved = np.empty(len(places))
    # Without the steps they need only not decrease.
    moved[order] = isotonic_regression(np.asarray(places, float)[order] - steps).x + steps
    return moved

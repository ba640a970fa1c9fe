"""Pictures: one style, light and dark, colours that the colour-blind can tell apart, direct labels.

`picture` hands a figure to a function once for each theme and writes what it drew. The colours
below are names that the theme resolves, so the function need not know which theme it draws for.
"""

from __future__ import annotations

import html
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

StrPath: TypeAlias = str | os.PathLike[str]
Draw: TypeAlias = "Callable[[Figure], object]"

# Places in the theme's cycle of colours: Matplotlib looks them up while it draws.
BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY, GREY = (f"C{place}" for place in range(7))
#: Text and marks that belong to no series; lines behind the data; the background.
INK, FAINT, PAPER = "C7", "C8", "C9"


@dataclass(frozen=True)
class Theme:
    """A background and the colours on it; ``suffix`` goes into the file name.

    The hues are those of M. Okabe and K. Ito, Color Universal Design, 2008, darker or lighter
    where that makes a line or a label stand out from the background.
    """

    suffix: str
    paper: str
    ink: str
    faint: str
    hues: tuple[str, ...]

    @property
    def colours(self) -> tuple[str, ...]:
        """Of the names above, in their order."""
        return (*self.hues, self.ink, self.faint, self.paper)

    def style(self) -> dict[str, Any]:
        """Matplotlib's parameters."""
        import matplotlib as mpl

        inked = ("axes.edgecolor", "axes.labelcolor", "text.color", "xtick.color", "ytick.color")
        return {
            **dict.fromkeys(inked, self.ink),
            **dict.fromkeys(
                ("axes.facecolor", "figure.facecolor", "savefig.facecolor"), self.paper
            ),
            "axes.prop_cycle": mpl.cycler(color=self.colours),
            "axes.axisbelow": True,
            "axes.grid": True,
            "axes.spines.right": False,
            "axes.spines.top": False,
            "axes.titlelocation": "left",
            "axes.titlesize": 11,
            "axes.titleweight": "bold",
            "figure.dpi": 130,
            "savefig.dpi": 130,
            "font.size": 10,
            "grid.color": self.faint,
            "grid.linewidth": 0.6,
            "lines.linewidth": 1.8,
            "svg.fonttype": "none",
            # The same picture gives the same file.
            "svg.hashsalt": "fastloss",
        }


THEMES = (
    Theme(
        suffix="",
        paper="#FFFFFF",
        ink="#1F2328",
        faint="#D5D9DE",
        hues=("#00508F", "#A83600", "#00875F", "#BF8700", "#D65FA8", "#2F9BD8", "#595959"),
    ),
    Theme(
        suffix="-dark",
        paper="#0D1117",
        ink="#E6EDF3",
        faint="#343B44",
        hues=("#2F8FE8", "#E8692F", "#1FD19A", "#F5B820", "#E58FC8", "#A5DAFF", "#9A9A94"),
    ),
)


def picture(draw: Draw, stem: StrPath, width: float = 8.0, height: float = 4.5) -> list[Path]:
    """Draw once for each theme; write ``stem.png``, ``.svg``, ``stem-dark.png`` and ``.svg``.

    Parameters
    ----------
    draw : called with an empty figure, in the house style.
    stem : path without a suffix; missing folders are made.
    width, height : inches, at 130 pixels an inch: 8 fill the width of a page, with text of 10 pt.

    Raises
    ------
    ImportError
        Matplotlib is not installed.
    """
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("pictures need Matplotlib: pip install 'fastloss[bench]'") from error

    paths = []
    for theme in THEMES:
        with mpl.rc_context():
            mpl.rcdefaults()  # whatever the reader's own matplotlibrc says
            mpl.rcParams.update(theme.style())
            figure = Figure(figsize=(width, height), layout="constrained")
            draw(figure)
            paths += _save(figure, f"{os.fspath(stem)}{theme.suffix}")
    return paths


def _save(figure: Figure, stem: str) -> list[Path]:
    png, svg = Path(f"{stem}.png"), Path(f"{stem}.svg")
    png.parent.mkdir(parents=True, exist_ok=True)
    drawn = BytesIO()
    figure.savefig(drawn, format="png")
    _write(png, _small_png(drawn))
    drawn = BytesIO()
    figure.savefig(drawn, format="svg", metadata={"Date": None})
    _write(svg, drawn.getvalue())
    return [png, svg]


def _small_png(drawn: BytesIO) -> bytes:
    """A palette of 256 colours is a third of the bytes, and nobody sees the difference."""
    from PIL import Image

    with Image.open(drawn) as image:
        few = image.convert("RGB").quantize(256, dither=Image.Dither.NONE)
    small = BytesIO()
    few.save(small, format="png", optimize=True)
    return small.getvalue()


def _write(path: Path, content: bytes) -> None:
    """The whole file or none of it."""
    draft = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        draft.write_bytes(content)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def embed(stem: StrPath, alt: str) -> str:
    """HTML for a Markdown page: the picture at ``stem``, dark where the reader's page is dark."""
    stem, alt = html.escape(os.fspath(stem)), html.escape(alt)
    return (
        "<picture>\n"
        f'  <source media="(prefers-color-scheme: dark)" srcset="{stem}-dark.png">\n'
        f'  <img alt="{alt}" src="{stem}.png">\n'
        "</picture>"
    )


def heading(figure: Figure, text: str) -> None:
    """What the picture says, above all its panels."""
    figure.suptitle(text, x=0.01, ha="left", fontweight="bold", fontsize=12)


def title(ax: Axes, text: str, note: str = "") -> None:
    """What a panel says, and a smaller line under it."""
    ax.set_title(text + ("\n" if note else ""))
    if note:
        ax.text(0, 1.015, note, transform=ax.transAxes, fontsize=9, color=GREY)


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
        text,
        place,
        xytext=(right, up),
        textcoords="offset points",
        ha=alignment,
        va="center" if right else "baseline",
        fontsize=9,
        color=colour,
        annotation_clip=False,
    )


def label_ends(ax: Axes, ends: Iterable[tuple[float, str, str]], gap: float = 0.055) -> None:
    """Labels right of the axes, at the ``y`` of each ``(y, text, colour)``, none over another.

    Call it once the limits of the axes are final. ``gap`` is the height of a line of text as a
    fraction of that of the axes.
    """
    ends = list(ends)
    to_axes = ax.transScale + ax.transLimits
    heights = [float(to_axes.transform((ax.get_xlim()[1], y))[1]) for y, _, _ in ends]
    for height, (_, text, colour) in zip(_apart(heights, gap), ends, strict=True):
        ax.annotate(
            text,
            (1.0, height),
            xycoords="axes fraction",
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
            color=colour,
            annotation_clip=False,
        )


def _apart(places: Sequence[float], gap: float) -> NDArray[np.float64]:
    """The nearest places, in the order of the given ones, that are at least ``gap`` apart."""
    order = np.argsort(places, kind="stable")
    steps = gap * np.arange(len(places))
    # Without the steps they need only not decrease: pool neighbours that do into their mean.
    pools: list[tuple[float, int]] = []
    for place in np.asarray(places, float)[order] - steps:
        pools.append((float(place), 1))
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            (a, n_a), (b, n_b) = pools[-2:]
            pools[-2:] = [((a * n_a + b * n_b) / (n_a + n_b), n_a + n_b)]
    moved = np.empty(len(places))
    moved[order] = np.repeat([mean for mean, _ in pools], [n for _, n in pools]) + steps
    return moved

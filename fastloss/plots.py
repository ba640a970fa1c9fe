"""Pictures: one style, light and dark, colours that the colour-blind can tell apart, direct labels.

`picture` hands a figure to a function once for each theme and writes what it drew. The colours
below are names that the theme resolves, so the function need not know which theme it draws for.
"""

from __future__ import annotations

import html
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure
    from matplotlib.transforms import Transform

StrPath: TypeAlias = str | os.PathLike[str]
Draw: TypeAlias = "Callable[[Figure], object]"

# Places in the theme's cycle of colours: Matplotlib looks them up while it draws.
BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY, GREY = (f"C{place}" for place in range(7))
#: Text and marks that belong to no series; lines behind the data; the background.
INK, FAINT, PAPER = "C7", "C8", "C9"
#: For one series after the other.
SERIES = (BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY, GREY)


class History(Protocol):
    """The records of a run, such as `fastloss.optim.Result.history`."""

    def __len__(self) -> int: ...

    def column(self, name: str) -> NDArray[Any]:
        """One field of all records, NaN where it is not known."""


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

    def style(self) -> Any:
        """Matplotlib's parameters."""
        from matplotlib.rcsetup import cycler

        inked = ("axes.edgecolor", "axes.labelcolor", "text.color", "xtick.color", "ytick.color")
        return {
            **dict.fromkeys(inked, self.ink),
            **dict.fromkeys(
                ("axes.facecolor", "figure.facecolor", "savefig.facecolor"), self.paper
            ),
            "axes.prop_cycle": cycler(color=self.colours),
            "axes.axisbelow": True,
            "axes.grid": True,
            "axes.spines.right": False,
            "axes.spines.top": False,
            "axes.titlelocation": "left",
            "axes.titlesize": 11,
            "axes.titleweight": "bold",
            **dict.fromkeys((f"axes3d.{axis}axis.panecolor" for axis in "xyz"), self.paper),
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


def footnote(figure: Figure, text: str) -> None:
    """How to read the picture, below all its panels."""
    figure.supxlabel(text, x=0.01, ha="left", fontsize=9, color=GREY)


def percent(share: float, digits: int = 1) -> str:
    """A share of 1 as text."""
    return f"{100 * share:.{digits}f} %"


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
    from scipy.optimize import isotonic_regression

    order = np.argsort(places, kind="stable")
    steps = gap * np.arange(len(places))
    moved = np.empty(len(places))
    # Without the steps they need only not decrease.
    moved[order] = isotonic_regression(np.asarray(places, float)[order] - steps).x + steps
    return moved


# What training leaves behind


def plot_loss_curves(
    histories: Mapping[str, History],
    stem: StrPath,
    *,
    against: str = "evaluations",
    text: str = "Loss while training",
) -> list[Path]:
    """Loss by run, and below it validation accuracy where there is any.

    Parameters
    ----------
    histories : by the name that the line is labelled with.
    stem : as in `picture`.
    against : "evaluations", "seconds" or "epoch".
    text : the heading.

    Raises
    ------
    ValueError : no history or an empty one; another ``against``.
    """
    _check_histories(histories)
    if against not in _ABSCISSAS:
        raise ValueError(f"against must be one of {', '.join(_ABSCISSAS)}, got {against!r}")
    is_validated = any(
        np.isfinite(history.column("validation_accuracy")).any() for history in histories.values()
    )

    def draw(figure: Figure) -> None:
        axes = figure.subplots(1 + is_validated, 1, squeeze=False, sharex=True)[:, 0]
        axes[0].set_ylabel("loss, penalty included")
        ends = _draw_runs(axes[0], histories, against, "loss")
        low, high = axes[0].dataLim.intervaly
        if low > 0 and high / low > _LOG_FROM:
            axes[0].set_yscale("log")
            axes[0].yaxis.set_major_formatter("{x:g}")
            axes[0].yaxis.set_minor_formatter(_some_minor)
        label_ends(
            axes[0],
            [(last, f"{name} {last:.3g}", colour) for name, (last, colour) in ends.items()],
            gap=0.07,
        )
        if is_validated:
            _draw_accuracies(axes[1], histories, against, zoom=True)
        axes[-1].set_xlabel(_ABSCISSAS[against])
        heading(figure, text)

    return picture(draw, stem, height=3.4 + 2.4 * is_validated)


#: Losses that span this factor are drawn on a log scale.
_LOG_FROM = 5.0
#: Runs of so many have a start, and what comes after it.
_MANY_RECORDS = 10
#: What loss curves can be drawn against.
_ABSCISSAS = {
    "evaluations": "evaluations of all rows (a batch is a part of one)",
    "seconds": "seconds",
    "epoch": "passes over the rows",
}


def _some_minor(value: float, place: int) -> str:
    """Minor ticks of a log scale with labels that leave each other room."""
    text = f"{value:g}"
    return text if text.strip("0.") in ("2", "3", "5") else ""


def plot_ladder(
    histories: Mapping[str, History],
    stem: StrPath,
    *,
    text: str,
    remarks: Mapping[str, str] | None = None,
) -> list[Path]:
    """Validation accuracy of each method against evaluations of the loss, on a log scale.

    ``remarks``: what to add to the label of a method, such as a figure from elsewhere.
    """
    _check_histories(histories)

    def draw(figure: Figure) -> None:
        ax = figure.subplots()
        ax.set_xscale("log")
        ax.set_xlabel(f"{_ABSCISSAS['evaluations']}, log scale")
        ax.xaxis.set_major_formatter("{x:,g}")
        _draw_accuracies(ax, histories, "evaluations", remarks=remarks)
        ax.set_xlim(left=1.0)
        heading(figure, text)

    return picture(draw, stem)


def _check_histories(histories: Mapping[str, History]) -> None:
    if not histories:
        raise ValueError("histories must hold at least one history, got none")
    for name, history in histories.items():
        if not len(history):
            raise ValueError(f"the history of {name!r} has no records")


def _draw_runs(
    ax: Axes, histories: Mapping[str, History], x: str, y: str
) -> dict[str, tuple[float, str]]:
    """A line a run; by name, the last value and the colour of those that have any."""
    ends = {}
    for colour, (name, history) in zip(cycle(SERIES), histories.items(), strict=False):
        abscissas, values = history.column(x), history.column(y)
        known = np.isfinite(values)
        if known.any():
            marker = "o" if known.sum() == 1 else ""
            ax.plot(abscissas[known], values[known], color=colour, marker=marker)
            ends[name] = float(values[known][-1]), colour
    return ends


def _draw_accuracies(
    ax: Axes,
    histories: Mapping[str, History],
    x: str,
    *,
    remarks: Mapping[str, str] | None = None,
    zoom: bool = False,
) -> None:
    """``zoom``: to what comes after the start, which is too steep to leave room for the rest."""
    ax.set_ylabel("validation accuracy")
    ax.yaxis.set_major_formatter(lambda share, _: f"{100 * share:.3g} %")
    ends = _draw_runs(ax, histories, x, "validation_accuracy")
    if zoom and min(map(len, histories.values())) >= _MANY_RECORDS:
        every = [history.column("validation_accuracy") for history in histories.values()]
        later = np.concatenate([values[len(values) // 10 + 1 :] for values in every])
        low, high = np.nanmin(later), np.nanmax(later)
        ax.set_ylim(low - 0.1 * (high - low) - 0.005, high + 0.1 * (high - low) + 0.005)
    remarks = remarks or {}
    label_ends(
        ax,
        [
            (last, f"{name} {percent(last)}{remarks.get(name, '')}", colour)
            for name, (last, colour) in ends.items()
        ],
        gap=0.07,
    )


def plot_templates(
    W: ArrayLike,
    image_shape: Sequence[int],
    class_names: Sequence[str],
    stem: StrPath,
    *,
    text: str = "What each class looks for",
) -> list[Path]:
    """The weights of each class as an image: what the class looks for.

    Parameters
    ----------
    W : (D, C), or (D + 1, C) with a bias row, which is left out.
    image_shape : what a column reshapes to, D in all: (height, width), or (3, height, width) with
        the colours first.
    class_names : C of them.
    stem : as in `picture`.
    text : the heading.

    Raises
    ------
    ValueError : another shape.
    """
    W = np.asarray(W, np.float64)
    n_pixels = math.prod(image_shape)
    if len(image_shape) not in (2, 3) or (len(image_shape) == 3 and image_shape[0] != 3):
        raise ValueError(
            f"image_shape must be (height, width) or (3, height, width), got {tuple(image_shape)}"
        )
    if W.ndim != 2 or len(W) not in (n_pixels, n_pixels + 1):
        raise ValueError(
            f"W must have {n_pixels} rows for images of {tuple(image_shape)}, or one more for the "
            f"bias, got shape {W.shape}"
        )
    _check_names(class_names, W.shape[1], "column of W")
    templates = W[:n_pixels].T.reshape(-1, *image_shape)
    columns = min(5, len(templates))
    rows = -(-len(templates) // columns)

    def draw(figure: Figure) -> None:
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        for ax in axes:
            ax.set_axis_off()
        # A few extreme pixels must not leave the rest grey.
        limit = float(np.quantile(np.abs(templates), 0.995)) or 1.0
        for ax, template, name in zip(axes, templates, class_names, strict=False):
            title(ax, name)
            if template.ndim == 3:
                shares = 0.5 + 0.5 * template.transpose(1, 2, 0) / limit
                ax.imshow(shares.clip(0.0, 1.0))
            else:
                image = ax.imshow(template, cmap=_diverging(), vmin=-limit, vmax=limit)
        if templates.ndim == 3:
            figure.colorbar(image, ax=axes, label="weight", shrink=0.7, aspect=30)
        else:
            footnote(
                figure,
                f"In each colour, grey is a weight of 0, bright {limit:.2g}, dark {-limit:.2g}",
            )
        heading(figure, text)

    return picture(draw, stem, height=0.6 + 1.7 * rows)


def plot_confusion(matrix: ArrayLike, class_names: Sequence[str], stem: StrPath) -> list[Path]:
    """Which class is taken for which.

    Parameters
    ----------
    matrix : (C, C) counts: row i, column j is how many rows of class i are taken for class j.
    class_names : C of them.
    stem : as in `picture`.

    Raises
    ------
    ValueError : another shape, or negative counts.
    """
    counts = np.asarray(matrix)
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1]:
        raise ValueError(f"matrix must be square, got shape {counts.shape}")
    if (counts < 0).any() or not counts.any():
        raise ValueError("matrix must hold counts >= 0, and not only zeros")
    _check_names(class_names, len(counts), "row of matrix")
    n_classes, total = len(counts), counts.sum()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    size = min(max(4.2, 1.8 + 0.45 * n_classes), 12.0)

    def draw(figure: Figure) -> None:
        ax = figure.subplots()
        ax.grid(visible=False)
        ax.imshow(shares, cmap=_sequential(), vmin=0.0, vmax=1.0)
        if n_classes <= _NAMED_CLASSES:
            ax.set_xticks(range(n_classes), class_names)
            if max(map(len, class_names)) > 3:
                for tick in ax.get_xticklabels():
                    tick.set(rotation=40, ha="right")
            ax.set_yticks(range(n_classes), class_names)
            for (i, j), share in np.ndenumerate(shares):
                if share >= 0.005:
                    colour = PAPER if share > 0.5 else INK
                    ax.text(
                        j, i, percent(share, 0), ha="center", va="center", color=colour, fontsize=9
                    )
        ax.set_xlabel("predicted class")
        ax.set_ylabel("true class (rows sum to 100 %)")
        heading(figure, f"{percent(np.trace(counts) / total)} of {total:,} rows right")

    return picture(draw, stem, size + 0.6, size)


#: More than so many are not told apart by name in a picture.
_NAMED_CLASSES = 25


def _check_names(class_names: Sequence[str], n_classes: int, of: str) -> None:
    if len(class_names) != n_classes:
        raise ValueError(
            f"class_names must hold {n_classes} names, one a {of}, got {len(class_names)}"
        )


# Slices through a loss


def plot_slice(
    a: ArrayLike,
    losses: Mapping[str, ArrayLike],
    stem: StrPath,
    *,
    text: str,
    xlabel: str = "a, in L(W + a W1)",
    ylabel: str = "loss",
    highest: float | None = None,
) -> list[Path]:
    """Losses (A,) along a line, by name: see `fastloss.slices.line`.

    ``highest``: what is above it is left out.
    """
    a = np.asarray(a)
    curves = {name: np.asarray(values) for name, values in losses.items()}
    for name, values in curves.items():
        if values.shape != a.shape:
            raise ValueError(
                f"losses[{name!r}] must have the shape of a, {a.shape}, got {values.shape}"
            )

    def draw(figure: Figure) -> None:
        ax = figure.subplots()
        ax.set_xlabel(xlabel)
        ax.set_ylabel(ylabel)
        ax.set_xlim(a.min(), a.max())
        ends = []
        for colour, (name, values) in zip(cycle(SERIES), curves.items(), strict=False):
            ax.plot(a, values, color=colour)
            ends.append((float(values[-1]), name, colour))
        if highest is not None:
            lowest = min(float(values.min()) for values in curves.values())
            ax.set_ylim(lowest - 0.05 * (highest - lowest), highest)
        label_ends(ax, ends)
        heading(figure, text)

    return picture(draw, stem, height=4.0)


def plot_surface(
    a: ArrayLike,
    b: ArrayLike,
    losses: ArrayLike,
    stem: StrPath,
    *,
    text: str,
    xlabel: str = "a, along W1",
    ylabel: str = "b, along W2",
    zlabel: str = "loss",
) -> list[Path]:
    """Losses (A, B) on a plane, as contours and in perspective: see `fastloss.slices.plane`."""
    a, b, losses = np.asarray(a), np.asarray(b), np.asarray(losses)
    if losses.shape != (*a.shape, *b.shape):
        raise ValueError(
            f"losses must have shape {(*a.shape, *b.shape)}, for a and b, got {losses.shape}"
        )
    across, up = np.meshgrid(a, b, indexing="ij")
    lowest = np.unravel_index(np.nanargmin(losses), losses.shape)

    def draw(figure: Figure) -> None:
        left = figure.add_subplot(1, 2, 1)
        # Fills without the seams between them that vector graphics show.
        filled = left.contourf(across, up, losses, levels=24, cmap=_LOSS_COLOURS)
        filled.set_edgecolor("face")
        left.contour(across, up, losses, levels=8, colors=PAPER, linewidths=0.6, alpha=0.6)
        place = float(a[lowest[0]]), float(b[lowest[1]])
        left.plot(*place, "o", color=PAPER, markeredgecolor=INK)
        left.set_xlabel(xlabel)
        left.set_ylabel(ylabel)
        left.locator_params(nbins=5)
        figure.colorbar(filled, ax=left, label=zlabel, location="bottom", aspect=30)
        title(left, f"lowest here: {losses[lowest]:.3g}")
        right: Any = figure.add_subplot(1, 2, 2, projection="3d")
        right.plot_surface(
            across,
            up,
            losses,
            cmap=_LOSS_COLOURS,
            rcount=60,
            ccount=60,
            linewidth=0,
            antialiased=False,
        ).set_rasterized(True)
        right.set_box_aspect(None, zoom=0.85)  # else the labels are cut off
        right.set_xlabel(xlabel)
        right.set_ylabel(ylabel)
        right.set_zlabel(zlabel)
        right.locator_params(nbins=5)
        heading(figure, text)

    return picture(draw, stem, height=4.8)


#: Lightness rises with the loss, for every kind of sight.
_LOSS_COLOURS = "viridis"


def _sequential() -> Colormap:
    """From the background to full colour; of the theme that is drawn."""
    return _blend(PAPER, BLUE)


def _diverging() -> Colormap:
    """Negative, the background at 0, positive."""
    return _blend(BLUE, PAPER, VERMILION)


def _blend(*colours: str) -> Colormap:
    from matplotlib.colors import LinearSegmentedColormap, to_rgb

    return LinearSegmentedColormap.from_list("fastloss", [to_rgb(colour) for colour in colours])

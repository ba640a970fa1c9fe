"""Pictures of slices through a loss: along a line, and over a plane."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from fastloss.files import StrPath
from fastloss.plots.labels import heading, label_ends, plain, title
from fastloss.plots.saving import picture
from fastloss.plots.themes import INK, LOSS_COLOURS, PAPER, SERIES

if TYPE_CHECKING:
    from matplotlib.figure import Figure


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
    """Draw losses (A,) along a line, by name: see `fastloss.slices.line`.

    ``highest`` is the upper limit of the vertical axis.
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
        ax.set_xlabel(plain(xlabel))
        ax.set_ylabel(plain(ylabel))
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
    """Draw losses (A, B) on a plane, as contours and in 3D: see `fastloss.slices.plane`."""
    a, b, losses = np.asarray(a), np.asarray(b), np.asarray(losses)
    if losses.shape != (*a.shape, *b.shape):
        raise ValueError(
            f"losses must have shape {(*a.shape, *b.shape)}, for a and b, got {losses.shape}"
        )
    across, up = np.meshgrid(a, b, indexing="ij")
    lowest = np.unravel_index(np.nanargmin(losses), losses.shape)

    def draw(figure: Figure) -> None:
        left = figure.add_subplot(1, 2, 1)
        # Without coloured edges, vector graphics show seams between the fills.
        filled = left.contourf(across, up, losses, levels=24, cmap=LOSS_COLOURS)
        filled.set_edgecolor("face")
        left.contour(across, up, losses, levels=8, colors=PAPER, linewidths=0.6, alpha=0.6)
        place = float(a[lowest[0]]), float(b[lowest[1]])
        left.plot(*place, "o", color=PAPER, markeredgecolor=INK)
        left.set_xlabel(plain(xlabel))
        left.set_ylabel(plain(ylabel))
        left.locator_params(nbins=5)
        figure.colorbar(filled, ax=left, label=plain(zlabel), location="bottom", aspect=30)
        title(left, f"lowest here: {losses[lowest]:.3g}")
        right: Any = figure.add_subplot(1, 2, 2, projection="3d")
        right.plot_surface(
            across,
            up,
            losses,
            cmap=LOSS_COLOURS,
            rcount=60,
            ccount=60,
            linewidth=0,
            antialiased=False,
        ).set_rasterized(True)
        right.set_box_aspect(None, zoom=0.85)  # at 1 the labels are cut off
        right.set_xlabel(plain(xlabel))
        right.set_ylabel(plain(ylabel))
        right.set_zlabel(plain(zlabel))
        right.locator_params(nbins=5)
        heading(figure, text)

    return picture(draw, stem, height=4.8)

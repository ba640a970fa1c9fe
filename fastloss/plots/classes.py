"""Pictures of a classifier's classes: their templates and the confusion matrix."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastloss.files import StrPath
from fastloss.plots.labels import footnote, heading, percent, plain, title
from fastloss.plots.saving import picture
from fastloss.plots.themes import INK, PAPER, diverging, sequential

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Most classes that are labelled by name in a picture.
_NAMED_CLASSES = 25


def plot_templates(
    W: ArrayLike,
    image_shape: Sequence[int],
    class_names: Sequence[str],
    stem: StrPath,
    *,
    text: str = "What each class looks for",
) -> list[Path]:
    """Draw the weights of each class as an image.

    Parameters
    ----------
    W : (D, C), or (D + 1, C) with a bias row, which is not drawn.
    image_shape : shape of a column as an image, of D entries: (height, width), or with 1 or 3
        colours first, (3, height, width), or last, (height, width, 3).
    class_names : C names.
    stem : as in `picture`.
    text : the heading.

    Raises
    ------
    ValueError : shapes or numbers of names do not match.
    """
    W = np.asarray(W, np.float64)
    n_pixels = math.prod(image_shape)
    if W.ndim != 2 or len(W) not in (n_pixels, n_pixels + 1):
        raise ValueError(
            f"W must have {n_pixels} rows for images of {tuple(image_shape)}, or one more for the "
            f"bias, got shape {W.shape}"
        )
    _check_names(class_names, W.shape[1], "column of W")
    templates = _as_images(W[:n_pixels].T, tuple(image_shape))
    columns = min(5, len(templates))
    rows = -(-len(templates) // columns)

    def draw(figure: Figure) -> None:
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        for ax in axes:
            ax.set_axis_off()
        # A quantile, because a few extreme pixels would leave the others grey.
        limit = float(np.quantile(np.abs(templates), 0.995)) or 1.0
        for ax, template, name in zip(axes, templates, class_names, strict=False):
            title(ax, name)
            if template.ndim == 3:
                shares = 0.5 + 0.5 * template / limit
                ax.imshow(shares.clip(0.0, 1.0))
            else:
                image = ax.imshow(template, cmap=diverging(), vmin=-limit, vmax=limit)
        if templates.ndim == 3:
            figure.colorbar(image, ax=axes, label="weight", shrink=0.7, aspect=30)
        else:
            footnote(
                figure,
                f"In each colour, grey is a weight of 0, bright {limit:.2g}, dark {-limit:.2g}",
            )
        heading(figure, text)

    return picture(draw, stem, height=0.6 + 1.7 * rows)


def _as_images(rows: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Return ``rows`` as (C, height, width), or as (C, height, width, 3)."""
    images = rows.reshape(-1, *shape)
    if len(shape) == 3 and 3 in (shape[0], shape[2]):
        return images if shape[2] == 3 and shape[0] != 3 else images.transpose(0, 2, 3, 1)
    if len(shape) == 3 and 1 in (shape[0], shape[2]):
        return images.squeeze(1 if shape[0] == 1 else 3)
    if len(shape) != 2:
        raise ValueError(
            "image_shape must be (height, width), or have 1 or 3 colours first or last, "
            f"got {shape}"
        )
    return images


def plot_confusion(matrix: ArrayLike, class_names: Sequence[str], stem: StrPath) -> list[Path]:
    """Draw a confusion matrix.

    Parameters
    ----------
    matrix : (C, C) counts; entry (i, j) counts rows of class i that are predicted as class j.
    class_names : C names.
    stem : as in `picture`.

    Raises
    ------
    ValueError : a matrix that is not square, negative counts, or only zeros.
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
        ax.imshow(shares, cmap=sequential(), vmin=0.0, vmax=1.0)
        if n_classes <= _NAMED_CLASSES:
            names = [plain(name) for name in class_names]
            ax.set_xticks(range(n_classes), names)
            if max(map(len, class_names)) > 3:
                for tick in ax.get_xticklabels():
                    tick.set(rotation=40, ha="right")
            ax.set_yticks(range(n_classes), names)
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


def _check_names(class_names: Sequence[str], n_classes: int, of: str) -> None:
    if len(class_names) != n_classes:
        raise ValueError(
            f"class_names must hold {n_classes} names, one a {of}, got {len(class_names)}"
        )

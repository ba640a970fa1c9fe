"""Draw a picture in every theme, write its files, and embed it in a page."""

from __future__ import annotations

import html
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from fastloss import files
from fastloss.files import StrPath
from fastloss.plots.themes import THEMES, Theme, themed
from fastloss.version import install_extra

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Draw: TypeAlias = "Callable[[Figure], object]"


@np.errstate(under="ignore")
def picture(draw: Draw, stem: StrPath, width: float = 8.0, height: float = 4.5) -> list[Path]:
    """Draw a picture in each theme; write and return ``stem.png``, ``.svg`` and ``stem-dark.*``.

    Parameters
    ----------
    draw : function that is called with an empty figure in the style of a theme.
    stem : path without a suffix; missing folders are created.
    width, height : inches, at 130 pixels per inch; 8 inches fill a page, with text of 10 pt.

    Raises
    ------
    ImportError
        Matplotlib is not installed.
    """
    require_matplotlib()
    from matplotlib.figure import Figure

    for theme in THEMES:
        with themed(theme):
            figure = Figure(figsize=(width, height), layout="constrained")
            draw(figure)
            _save(figure, *_paths(stem, theme))
    return picture_paths(stem)


def figure(draw: Draw, width: float = 8.0, height: float = 4.5) -> Figure:
    """Return a picture in the light theme as a figure, which notebooks show; see `picture`."""
    require_matplotlib()
    from fastloss.plots.inline import InlineFigure

    with themed(THEMES[0]):
        made = InlineFigure(figsize=(width, height), layout="constrained")
        draw(made)
    return made


def require_matplotlib() -> None:
    """Import Matplotlib, or raise ImportError with the command to install it.

    An unknown backend in ``MPLBACKEND`` is ignored, because pictures need no backend.
    """
    # Importing Matplotlib fails if MPLBACKEND names an unknown backend.
    backend = os.environ.pop("MPLBACKEND", None)
    try:
        import matplotlib as mpl
    except ImportError as error:
        raise ImportError(f"pictures need Matplotlib: {install_extra('bench')}") from error
    finally:
        if backend is not None:
            os.environ["MPLBACKEND"] = backend
    if backend and "matplotlib.pyplot" not in sys.modules:
        with suppress(ValueError):
            mpl.rcParams["backend"] = backend


def picture_paths(stem: StrPath) -> list[Path]:
    """Return the files that `picture` writes."""
    return [path for theme in THEMES for path in _paths(stem, theme)]


def _paths(stem: StrPath, theme: Theme) -> tuple[Path, Path]:
    png, svg = (Path(f"{os.fspath(stem)}{theme.suffix}.{kind}") for kind in ("png", "svg"))
    return png, svg


def _save(figure: Figure, png: Path, svg: Path) -> None:
    drawn = BytesIO()
    figure.savefig(drawn, format="png")
    files.write(png, _small_png(drawn))
    drawn = BytesIO()
    figure.savefig(drawn, format="svg", metadata={"Date": None})
    files.write(svg, drawn.getvalue())


def _small_png(drawn: BytesIO) -> bytes:
    """Reduce a PNG to 256 colours: a third of the bytes, with no visible difference."""
    from PIL import Image

    with Image.open(drawn) as image:
        few = image.convert("RGB").quantize(256, dither=Image.Dither.NONE)
    small = BytesIO()
    few.save(small, format="png", optimize=True)
    return small.getvalue()


def embed(stem: StrPath, alt: str) -> str:
    """Return HTML that shows the picture at ``stem`` on a Markdown page, in the page's theme."""
    stem, alt = html.escape(os.fspath(stem)), html.escape(alt)
    return (
        "<picture>\n"
        f'  <source media="(prefers-color-scheme: dark)" srcset="{stem}-dark.png">\n'
        f'  <img alt="{alt}" src="{stem}.png">\n'
        "</picture>"
    )

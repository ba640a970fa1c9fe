"""Draw a picture in every theme, write its files, and embed them in a page."""

from __future__ import annotations

import html
import os
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from fastloss import files
from fastloss.files import StrPath
from fastloss.plots.themes import THEMES, Theme

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Draw: TypeAlias = "Callable[[Figure], object]"


@np.errstate(under="ignore")
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
    require_matplotlib()
    import matplotlib as mpl
    from matplotlib.figure import Figure

    for theme in THEMES:
        with mpl.rc_context(), warnings.catch_warnings():
            # Names in any script; what the font does not have becomes a box.
            warnings.filterwarnings("ignore", "Glyph .* missing from")
            mpl.rcdefaults()  # whatever the reader's own matplotlibrc says
            mpl.rcParams.update(theme.style())
            figure = Figure(figsize=(width, height), layout="constrained")
            draw(figure)
            _save(figure, *_paths(stem, theme))
    return picture_paths(stem)


def require_matplotlib() -> None:
    """Import Matplotlib, or raise ImportError that says how to install it.

    A backend in ``MPLBACKEND`` that Matplotlib does not know is left out: no picture needs one.
    """
    # Matplotlib refuses to be imported with it.
    backend = os.environ.pop("MPLBACKEND", None)
    try:
        import matplotlib as mpl
    except ImportError as error:
        raise ImportError("pictures need Matplotlib: pip install 'fastloss[bench]'") from error
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
    """A palette of 256 colours is a third of the bytes, and nobody sees the difference."""
    from PIL import Image

    with Image.open(drawn) as image:
        few = image.convert("RGB").quantize(256, dither=Image.Dither.NONE)
    small = BytesIO()
    few.save(small, format="png", optimize=True)
    return small.getvalue()


def embed(stem: StrPath, alt: str) -> str:
    """HTML for a Markdown page: the picture at ``stem``, dark where the reader's page is dark."""
    stem, alt = html.escape(os.fspath(stem)), html.escape(alt)
    return (
        "<picture>\n"
        f'  <source media="(prefers-color-scheme: dark)" srcset="{stem}-dark.png">\n'
        f'  <img alt="{alt}" src="{stem}.png">\n'
        "</picture>"
    )

"""Two themes, light and dark, with colours that the colour-blind can tell apart."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.colors import Colormap

# Indices into the theme's colour cycle, which Matplotlib looks up while it draws.
BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY, GREY = (f"C{place}" for place in range(7))
#: Text and marks that belong to no series; lines behind the data; the background.
INK, FAINT, PAPER = "C7", "C8", "C9"
#: Colours for consecutive series.
SERIES = (BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY, GREY)


@dataclass(frozen=True)
class Theme:
    """A background and the colours on it; ``suffix`` is appended to file names.

    The hues are from M. Okabe and K. Ito, Color Universal Design, 2008, some of them darker or
    lighter for contrast with the background.
    """

    suffix: str
    paper: str
    ink: str
    faint: str
    hues: tuple[str, ...]

    @property
    def colours(self) -> tuple[str, ...]:
        """Colours of the names above, in their order."""
        return (*self.hues, self.ink, self.faint, self.paper)

    def style(self) -> Any:
        """Return Matplotlib's parameters."""
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
            # A fixed salt makes equal pictures equal files.
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


@contextmanager
def themed(theme: Theme) -> Iterator[None]:
    """Draw in a theme, whatever the user's settings of Matplotlib are."""
    import matplotlib as mpl

    with mpl.rc_context(), warnings.catch_warnings():
        # Class names may be in any script; a character missing from the font becomes a box.
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        mpl.rcdefaults()  # ignores the user's matplotlibrc
        mpl.rcParams.update(theme.style())
        yield


#: A colour map whose lightness rises with the loss, also for the colour-blind.
LOSS_COLOURS = "viridis"


def sequential() -> Colormap:
    """Return a colour map from the background to full colour, for the current theme."""
    return _blend(PAPER, BLUE)


def diverging() -> Colormap:
    """Return a colour map from negative to positive, with the background at 0."""
    return _blend(BLUE, PAPER, VERMILION)


def _blend(*colours: str) -> Colormap:
    from matplotlib.colors import LinearSegmentedColormap, to_rgb

    return LinearSegmentedColormap.from_list("fastloss", [to_rgb(colour) for colour in colours])

"""Two themes, light and dark, with colours that the colour-blind can tell apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.colors import Colormap

# Places in the theme's cycle of colours: Matplotlib looks them up while it draws.
BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY, GREY = (f"C{place}" for place in range(7))
#: Text and marks that belong to no series; lines behind the data; the background.
INK, FAINT, PAPER = "C7", "C8", "C9"
#: For one series after the other.
SERIES = (BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY, GREY)


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
#: Lightness rises with the loss, for every kind of sight.
LOSS_COLOURS = "viridis"


def sequential() -> Colormap:
    """From the background to full colour; of the theme that is drawn."""
    return _blend(PAPER, BLUE)


def diverging() -> Colormap:
    """Negative, the background at 0, positive."""
    return _blend(BLUE, PAPER, VERMILION)


def _blend(*colours: str) -> Colormap:
    from matplotlib.colors import LinearSegmentedColormap, to_rgb

    return LinearSegmentedColormap.from_list("fastloss", [to_rgb(colour) for colour in colours])

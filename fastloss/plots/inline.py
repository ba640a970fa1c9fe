"""A figure for notebooks; importing this module imports Matplotlib."""

from __future__ import annotations

from io import BytesIO
from typing import Any

from matplotlib.figure import Figure

from fastloss.plots.themes import THEMES, themed


class InlineFigure(Figure):
    """A figure that keeps the light theme whenever it is drawn, and that a notebook shows.

    Matplotlib looks up colours and fonts while it draws, which may be long after the call that
    made the figure.
    """

    def draw(self, renderer: Any) -> None:
        with themed(THEMES[0]):
            super().draw(renderer)

    def _repr_png_(self) -> bytes:
        drawn = BytesIO()
        self.savefig(drawn, format="png")
        return drawn.getvalue()

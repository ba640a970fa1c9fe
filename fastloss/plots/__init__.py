"""Pictures in one style: two themes, colour-blind-safe colours, and direct labels.

`picture` calls a drawing function with a figure once for each theme, and writes the files. The
theme resolves the names of colours, so the function need not know its theme.
"""

from fastloss.plots.classes import plot_confusion, plot_templates
from fastloss.plots.history import History, plot_ladder, plot_loss_curves
from fastloss.plots.labels import (
    apart,
    footnote,
    heading,
    label,
    label_ends,
    label_points,
    percent,
    plain,
    title,
)
from fastloss.plots.saving import Draw, embed, figure, picture, picture_paths, require_matplotlib
from fastloss.plots.surfaces import plot_slice, plot_surface
from fastloss.plots.themes import (
    BLUE,
    FAINT,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PAPER,
    PURPLE,
    SERIES,
    SKY,
    THEMES,
    VERMILION,
    Theme,
)

__all__ = [
    "BLUE",
    "FAINT",
    "GREEN",
    "GREY",
    "INK",
    "ORANGE",
    "PAPER",
    "PURPLE",
    "SERIES",
    "SKY",
    "THEMES",
    "VERMILION",
    "Draw",
    "History",
    "Theme",
    "apart",
    "embed",
    "figure",
    "footnote",
    "heading",
    "label",
    "label_ends",
    "label_points",
    "percent",
    "picture",
    "picture_paths",
    "plain",
    "plot_confusion",
    "plot_ladder",
    "plot_loss_curves",
    "plot_slice",
    "plot_surface",
    "plot_templates",
    "require_matplotlib",
    "title",
]

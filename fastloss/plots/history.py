"""Pictures of a run's records: curves of loss and validation accuracy."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fastloss.files import StrPath
from fastloss.plots.labels import heading, label_ends, percent
from fastloss.plots.saving import picture
from fastloss.plots.themes import SERIES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Losses that span more than this factor are drawn on a log scale.
_LOG_FROM = 5.0
#: Runs with fewer records are drawn from their start.
_MANY_RECORDS = 10
#: Labels of the horizontal axis.
_ABSCISSAS = {
    "evaluations": "evaluations of all rows (a batch is a part of one)",
    "seconds": "seconds",
    "epoch": "passes over the rows",
}


class History(Protocol):
    """The records of a run, such as `fastloss.optim.Result.history`."""

    def __len__(self) -> int: ...

    def column(self, name: str) -> NDArray[Any]:
        """Return one field of all records, NaN where it is unknown."""


def plot_loss_curves(
    histories: Mapping[str, History],
    stem: StrPath,
    *,
    against: str = "evaluations",
    text: str = "Loss while training",
) -> list[Path]:
    """Draw the loss of each run, and the validation accuracy if any run has it.

    Parameters
    ----------
    histories : history of each run, by the label of its line.
    stem : as in `picture`.
    against : "evaluations", "seconds" or "epoch".
    text : the heading.

    Raises
    ------
    ValueError : no history, an empty history, or an unknown ``against``.
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


def _some_minor(value: float, place: int) -> str:
    """Label only the minor ticks 2, 3 and 5 of a log scale: more labels would overlap."""
    text = f"{value:g}"
    return text if text.strip("0.") in ("2", "3", "5") else ""


def plot_ladder(
    histories: Mapping[str, History],
    stem: StrPath,
    *,
    text: str,
    remarks: Mapping[str, str] | None = None,
) -> list[Path]:
    """Draw the validation accuracy of each method against evaluations, on a log scale.

    ``remarks`` holds text to append to a method's label, such as a published accuracy.
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
    """Draw a line for each run; return by name the last value and the colour of each line."""
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
    """Draw the accuracy of each run. ``zoom`` cuts off the start, which is too steep to show."""
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

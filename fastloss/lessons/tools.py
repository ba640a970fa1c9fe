"""What lessons share: contenders that take turns, bytes of a call, figures that are kept."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fastloss.benchmark import measure
from fastloss.benchmark.worker import Session

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Where figures go, unless `saving_to` says otherwise.
DEFAULT_FOLDER = Path("fastloss-lessons")


@dataclass(frozen=True)
class _Saving:
    folder: Path
    paths: list[Path] = field(default_factory=list)


_saving: ContextVar[_Saving | None] = ContextVar("figures", default=None)


@contextmanager
def saving_to(folder: Path) -> Iterator[list[Path]]:
    """Figures drawn inside the block go to ``folder``; gives the list of those that are there."""
    saving = _Saving(folder)
    token = _saving.set(saving)
    try:
        yield saving.paths
    finally:
        _saving.reset(token)


@dataclass(frozen=True)
class Picture:
    """A saved figure. A notebook shows it where it is the last expression of a cell."""

    path: Path

    def _repr_png_(self) -> bytes:
        return self.path.read_bytes()


def keep_picture(
    draw: Callable[[Figure], None], name: str, width: float = 8.0, height: float = 4.5
) -> Picture:
    """Save a figure, light and dark, as PNG and SVG, and say where the light PNG is.

    ``draw`` is called with an empty figure of the house's style, once for each of its themes;
    ``width`` and ``height`` are inches.
    """
    from fastloss import plots

    saving = _saving.get() or _Saving(DEFAULT_FOLDER)
    paths = plots.picture(draw, saving.folder / name, width, height)
    path = next(path for path in paths if path.name == f"{name}.png")
    saving.paths.append(path)
    print(f"The figure is in {path}")
    return Picture(path)


@dataclass(frozen=True)
class _Given:
    """A task of `Session`: a call that is there already."""

    call: Callable[[], Any]

    def bind(self) -> Callable[[], Any]:
        return self.call


def take_turns(
    contenders: Mapping[str, Callable[[], Any]],
    *,
    seconds: float = 2.0,
    max_rounds: int = 15,
) -> dict[str, list[float]]:
    """Seconds a call of each contender, a number a round, measured in turns in random order.

    Each contender is called once before the clock runs, and is warm when it does. The rounds stop
    after ``max_rounds`` or about ``seconds``. Compare with `fastloss.benchmark.measure.Ratio`.
    """
    sessions = {name: Session() for name in contenders}
    for name, call in contenders.items():
        sessions[name].prepare(_Given(call))
    return measure.race(
        sessions, max_rounds=max_rounds, max_seconds=seconds, rng=np.random.default_rng(0)
    )


def peak_bytes(call: Callable[[], Any]) -> int:
    """By how many bytes the memory in use rises during a call, at most.

    What Python and NumPy ask for, result included; the workspace of BLAS is its own affair.
    """
    gc.collect()
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

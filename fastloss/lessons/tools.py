"""Tools for lessons: time contenders in turns, count a call's bytes, save figures."""

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

#: Folder for figures outside of `saving_to`.
DEFAULT_FOLDER = Path("fastloss-lessons")


@dataclass(frozen=True)
class _Saving:
    folder: Path
    paths: list[Path] = field(default_factory=list)


_saving: ContextVar[_Saving | None] = ContextVar("figures", default=None)


@contextmanager
def saving_to(folder: Path) -> Iterator[list[Path]]:
    """Save figures drawn inside the block to ``folder``; yield the growing list of their paths."""
    saving = _Saving(folder)
    token = _saving.set(saving)
    try:
        yield saving.paths
    finally:
        _saving.reset(token)


@dataclass(frozen=True)
class Picture:
    """A saved figure. A notebook shows it if it is the last expression of a cell."""

    path: Path

    def _repr_png_(self) -> bytes:
        return self.path.read_bytes()


def keep_picture(
    draw: Callable[[Figure], None], name: str, width: float = 8.0, height: float = 4.5
) -> Picture:
    """Save a figure in both themes, as PNG and SVG; print and return the light PNG's path.

    ``draw`` is called once for each theme, with an empty figure in the house style. ``width`` and
    ``height`` are in inches.
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
    """A task of `Session` that needs no preparation: the call is given."""

    call: Callable[[], Any]

    def bind(self) -> Callable[[], Any]:
        return self.call


def take_turns(
    contenders: Mapping[str, Callable[[], Any]],
    *,
    seconds: float = 2.0,
    max_rounds: int = 15,
) -> dict[str, list[float]]:
    """Time the contenders in turns, in random order; return seconds per call, one per round.

    Each contender is called once before it is timed, so that it is warm. Measuring stops after
    ``max_rounds`` rounds, or after about ``seconds`` if there were rounds enough for an interval.
    Compare with `fastloss.benchmark.measure.Ratio`.
    """
    sessions = {name: Session() for name in contenders}
    for name, call in contenders.items():
        sessions[name].prepare(_Given(call))
    return measure.race(
        sessions, max_rounds=max_rounds, max_seconds=seconds, rng=np.random.default_rng(0)
    )


def peak_bytes(call: Callable[[], Any]) -> int:
    """Return the largest rise of the memory in use during a call, in bytes.

    Counts allocations of Python and NumPy, including the result, but not the workspace of BLAS.
    """
    gc.collect()
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

"""Tools for lessons: state claims, compare results, time contenders, count bytes, save figures."""

from __future__ import annotations

import gc
import shutil
import textwrap
import tracemalloc
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastloss.benchmark import measure
from fastloss.benchmark.worker import Session

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Folder for figures outside of `saving_to`.
DEFAULT_FOLDER = Path("fastloss-lessons")

#: Beginnings of the sentences that `claim` prints.
SHOWN, NOT_SHOWN = "Shown:", "Not shown here:"


@dataclass(frozen=True)
class Claim:
    """A claim of a lesson, and the sentence printed about it."""

    holds: bool
    sentence: str


_claims: ContextVar[list[Claim] | None] = ContextVar("claims", default=None)


@contextmanager
def keeping_claims() -> Iterator[list[Claim]]:
    """Keep the claims made inside the block; yield the growing list."""
    claims: list[Claim] = []
    token = _claims.set(claims)
    try:
        yield claims
    finally:
        _claims.reset(token)


def claim(holds: bool, said: str, otherwise: str) -> None:
    """Print whether a measurement shows a claim.

    Time and memory depend on the machine, so a claim that does not hold stops nothing: the lesson
    prints ``otherwise``, a sentence with the measured numbers and the probable reason.
    """
    sentence = said if holds else otherwise
    claims = _claims.get()
    if claims is not None:
        claims.append(Claim(holds, sentence))
    say(f"{SHOWN if holds else NOT_SHOWN} {sentence}")


def say(sentence: str) -> None:
    """Print a sentence in lines of the terminal's width."""
    print(textwrap.fill(sentence, shutil.get_terminal_size((100, 24)).columns))


class WrongResult(Exception):
    """Two computations of the same quantity differ by more than rounding."""


def agree(
    name: str,
    found: tuple[float, ArrayLike],
    expected: tuple[float, ArrayLike],
    tolerance: float,
    loss_tolerance: float | None = None,
) -> None:
    """Stop the lesson if a version's loss or gradient is wrong: no machine excuses that.

    Parameters
    ----------
    name : the version, for the message.
    found, expected : loss and gradient.
    tolerance : largest difference, relative to the largest entry of the expected array.
    loss_tolerance : the same for the loss; by default ``tolerance``.

    Raises
    ------
    WrongResult : a shape differs, or an entry is off by more than the tolerance, or is NaN.
    """
    tolerances = tolerance if loss_tolerance is None else loss_tolerance, tolerance
    parts = zip(("loss", "gradient"), found, expected, tolerances, strict=True)
    for part, one, other, most in parts:
        values, wanted = np.asarray(one, np.float64), np.asarray(other, np.float64)
        if values.shape != wanted.shape:
            raise WrongResult(
                f"the {part} of {name} has the shape {values.shape}, expected {wanted.shape}"
            )
        wrong, place = find_off(values, wanted, most)
        if wrong.any():
            raise WrongResult(
                f"the {part}{index(place)} of {name} is {values[place]:.6g}, expected "
                f"{wanted[place]:.6g}; {wrong.sum()} of {wrong.size} entries differ by more than "
                f"{most:g} of the largest"
            )


def find_off(
    found: NDArray[np.float64], expected: NDArray[np.float64], tolerance: float
) -> tuple[NDArray[np.bool_], tuple[int, ...]]:
    """Return a mask of the entries that are off, and the place of the first one.

    An entry is off if it differs by more than ``tolerance`` times the largest entry of
    ``expected``, or is NaN. The arrays have the same shape. Without such an entry the place is ().
    """
    # Written so that NaN is off too.
    is_off = np.asarray(~(np.abs(found - expected) <= tolerance * np.abs(expected).max()))
    return is_off, tuple(int(k) for k in np.argwhere(is_off)[0]) if is_off.any() else ()


def index(place: tuple[int, ...]) -> str:
    """Return a place as an index, ``[1, 2]``; empty for a single number."""
    return f"[{', '.join(map(str, place))}]" if place else ""


def times_as_fast(ratio: measure.Ratio) -> str:
    """Return "2.1 times as fast (1.9 to 2.4)", with the 95 % interval if there is one."""
    value, low, high = (
        f"{number:,.0f}" if number >= 100 else f"{number:.2g}" if number >= 10 else f"{number:.2f}"
        for number in (ratio.value, ratio.low, ratio.high)
    )
    return f"{value} times as fast" + (f" ({low} to {high})" if ratio.has_interval else "")


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

"""Call a candidate, and keep what came of it: a result, an exception, changed arguments."""

from __future__ import annotations

import sysconfig
import traceback
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastloss.arrays import Floats
from fastloss.candidates.candidate import Candidate, resolve_candidate

#: Changes how the arrays of a call lie in memory, but not their values.
Layout = Callable[[NDArray[Any]], NDArray[Any]]

_PACKAGE = Path(__file__).parents[1]
_STANDARD_LIBRARY = Path(sysconfig.get_path("stdlib"))
_INSTALLED = {"site-packages", "dist-packages"}
# Numba reports a type that it cannot compile on pages of text.
_MOST_LINES = 4


@dataclass(frozen=True)
class Outcome:
    """What came of one call. ``loss`` and ``gradient`` are None if ``problem`` says why.

    ``returned`` is the function's own result, and ``changed`` the names of the arguments that it
    wrote to. If the function ``raised`` an exception, ``frames`` are those of the user's code.
    """

    returned: Any = None
    loss: float | None = None
    gradient: NDArray[np.float64] | None = None
    gradient_dtype: str = ""
    problem: str = ""
    raised: bool = False
    frames: tuple[traceback.FrameSummary, ...] = ()
    changed: tuple[str, ...] = ()

    @property
    def is_usable(self) -> bool:
        """Return whether the call returned a loss and a gradient of the shape of ``W``."""
        return not self.problem


def attempt(
    candidate: Candidate,
    W: Floats,
    X: NDArray[Any],
    y: NDArray[Any],
    layout: Layout = np.asarray,
) -> Outcome:
    """Call the candidate with copies of the arguments; return what came of it, never raise.

    Text that it prints is left out: a check makes dozens of calls.
    """
    function = resolve_candidate(candidate.function)
    arguments = [layout(array.copy()) for array in candidate.arguments(W, X, y)]
    before = [array.copy() for array in arguments]
    try:
        # A user's code may warn as it likes; the verdict says what came of it.
        with (
            np.errstate(all="ignore"),
            warnings.catch_warnings(),
            redirect_stdout(StringIO()),
        ):
            warnings.simplefilter("ignore")
            returned = function(*arguments)
            changed = tuple(
                name
                for name, array, copy in zip(
                    candidate.convention.order.split(","), arguments, before, strict=True
                )
                if not np.array_equal(array, copy)
            )
            return _outcome(candidate, returned, W, changed)
    except (Exception, SystemExit) as error:
        problem = f"raises {_message(error)}"
        return Outcome(problem=problem, raised=True, frames=tuple(user_frames(error, function)))


def _outcome(candidate: Candidate, returned: Any, W: Floats, changed: tuple[str, ...]) -> Outcome:
    got = f"returns {described(returned)}"
    try:
        loss, gradient = candidate.result(returned)
    except RuntimeError as error:  # PyTorch's words on a tensor in a graph
        problem = f"{got}, not (loss, dW): {_message(error)}"
        return Outcome(returned, problem=problem, changed=changed)
    except (TypeError, ValueError):
        return Outcome(returned, problem=f"{got}, not (loss, dW)", changed=changed)
    dtype = str(gradient.dtype)
    if gradient.shape != W.shape:
        own = candidate.convention.gradient(W).shape
        return Outcome(
            returned, problem=f"{got}; dW must have the shape of W, {own}", changed=changed
        )
    if gradient.dtype.kind in "cOSU":
        problem = f"{got}; dW must hold real numbers, not {dtype}"
        return Outcome(returned, problem=problem, changed=changed)
    # A copy: the function may write its next result to the same array.
    return Outcome(returned, loss, gradient.astype(np.float64), dtype, changed=changed)


def described(value: Any) -> str:
    """Describe a result by the types and shapes in it: ``(array (13, 5), float)``."""
    if isinstance(value, (tuple, list)):
        return f"({', '.join(map(_described_item, value))})"
    return _described_item(value)


def _described_item(value: Any) -> str:
    if value is None:
        return "None"
    shape = getattr(value, "shape", ())
    kind = "array" if isinstance(value, np.ndarray) else type(value).__name__
    return f"{kind} {tuple(shape)}" if shape else kind


def _message(error: BaseException) -> str:
    """Return an exception's type and the first lines of its message."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return ": ".join([type(error).__name__, *filter(None, ["\n".join(lines[:_MOST_LINES])])])


def user_frames(error: BaseException, function: Any) -> list[traceback.FrameSummary]:
    """Return the frames of an exception in the user's code: ``function``'s file, or no library."""
    own = file_of(function)
    return [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename == own or not _is_library(frame.filename)
    ]


def file_of(function: Any) -> str:
    """Return the file that a function is defined in; empty if it does not tell."""
    return str(getattr(getattr(function, "__code__", None), "co_filename", ""))


def _is_library(filename: str) -> bool:
    if filename.startswith("<frozen"):  # importlib
        return True
    path = Path(filename)
    inside = path.is_relative_to(_PACKAGE) or path.is_relative_to(_STANDARD_LIBRARY)
    return inside or not _INSTALLED.isdisjoint(path.parts)

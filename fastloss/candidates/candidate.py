"""A user's function with its name and its convention."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastloss.arrays import Floats
from fastloss.candidates.convention import USUAL, Convention
from fastloss.files import named

#: A user's function; it returns ``(loss, dW)``.
LossAndGrad = Callable[..., Any]


@dataclass(frozen=True)
class Candidate:
    """A user's function, or its place ``"module:function"``, called as the package calls its own.

    It can be pickled if the function can. A place is looked up in the process that calls it.
    ``precision`` names the tolerances of its results. ``dtype`` is the only type of ``W`` and ``X``
    that it takes, None if it takes float32 and float64; ``labels`` is the type of ``y`` that it
    takes, None for int64.
    """

    name: str
    function: str | LossAndGrad
    convention: Convention = USUAL
    precision: str = "float64"
    dtype: str | None = None
    labels: str | None = None

    @classmethod
    def of(cls, function: str | LossAndGrad, convention: Convention = USUAL) -> Candidate:
        """Return the candidate of a function, with a name that tells it from others."""
        return cls(name_of(function), function, convention)

    @property
    def short_name(self) -> str:
        """Return the name without its module, for code in a message."""
        return self.name.rpartition(":")[2]

    def arguments(self, W: Floats, X: NDArray[Any], y: NDArray[Any]) -> tuple[NDArray[Any], ...]:
        """Return the function's arguments, with labels of the type that it takes."""
        labels = y if self.labels is None else y.astype(self.labels)
        return self.convention.arguments(W, X, labels)

    def bind(self, W: Floats, X: NDArray[Any], y: NDArray[np.int64]) -> Callable[[], Any]:
        """Return the bare call: its arguments are laid out, its result is the function's own."""
        function = resolve_candidate(self.function)
        if self.dtype is not None:
            W, X = W.astype(self.dtype, copy=False), X.astype(self.dtype, copy=False)
        arguments = self.arguments(W, X, y)
        return lambda: function(*arguments)

    def result(self, returned: Any) -> tuple[float, NDArray[Any]]:
        """Return what the function returned as ``(loss, dW)``, with ``dW`` (D, C).

        Raises
        ------
        TypeError, ValueError : it is not a pair of a number and an array of floats.
        """
        value, gradient = returned
        return float(value), self.convention.gradient(np.asarray(gradient))

    def __call__(
        self, W: Floats, X: NDArray[Any], y: NDArray[np.int64]
    ) -> tuple[float, NDArray[Any]]:
        """Compute loss and gradient at ``W`` (D, C), or (D + 1, C) with a bias row."""
        return self.result(self.bind(W, X, y)())


def resolve_candidate(candidate: str | LossAndGrad) -> LossAndGrad:
    """Return the function at ``"module:function"``; search the current folder too."""
    if callable(candidate):
        return candidate
    module_name, _, function_name = candidate.partition(":")
    if not (module_name and function_name):
        raise ValueError(f"candidate must look like 'my_module:my_function', got {candidate!r}")
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        module = import_module(module_name)
    except (Exception, SystemExit) as error:
        hint = _import_hint(module_name, function_name, error)
        raise ValueError(f"candidate {candidate!r}: {named(error)}{hint}") from error
    function: object = getattr(module, function_name, None)
    if not callable(function):
        own = [
            name
            for name, value in vars(module).items()
            if callable(value) and not name.startswith("_")
        ]
        close = get_close_matches(function_name, own, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"{module_name} has {', '.join(own)}"
        raise ValueError(f"candidate {candidate!r}: no such function; {hint}")
    return function


def _import_hint(module_name: str, function_name: str, error: BaseException) -> str:
    """Return what to do if the module itself cannot be found, else an empty text."""
    missing = error.name if isinstance(error, ModuleNotFoundError) else None
    stem = module_name.removesuffix(".py")
    if missing is not None and stem != module_name:
        return f"; leave out .py: {stem.replace('/', '.')}:{function_name}"
    if missing is None or missing != module_name.partition(".")[0]:
        return ""
    return f"; looked in {Path.cwd()}, PYTHONPATH and the installed packages"


def name_of(function: str | LossAndGrad) -> str:
    """Return a function's name; a lambda's is its place, ``lambda, file.py:12``, if in a file."""
    if isinstance(function, str):
        return function
    if isinstance(function, partial):
        return name_of(function.func)
    name = str(getattr(function, "__name__", type(function).__name__))
    code = getattr(function, "__code__", None)
    if name != "<lambda>" or code is None:
        return name
    file = Path(code.co_filename)
    # The cell of a notebook has a made-up file name.
    return f"lambda, {file.name}:{code.co_firstlineno}" if file.is_file() else "lambda"


def missing_arguments(function: str | LossAndGrad) -> tuple[list[str], int] | None:
    """Return the arguments that a call with three leaves out, and how many it can take.

    The result is None if the function does not tell its signature, as some compiled ones.
    """
    try:
        parameters = inspect.signature(resolve_candidate(function)).parameters.values()
    except (TypeError, ValueError):
        return None
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return [], 3
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    rest = [*positional[3:], *(p for p in parameters if p.kind is p.KEYWORD_ONLY)]
    return [p.name for p in rest if p.default is p.empty], len(positional)

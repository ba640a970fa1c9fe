"""A user's function with its name and its convention."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
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
    that it takes, None if it takes float32 and float64.
    """

    name: str
    function: str | LossAndGrad
    convention: Convention = USUAL
    precision: str = "float64"
    dtype: str | None = None

    @classmethod
    def of(cls, function: str | LossAndGrad, convention: Convention = USUAL) -> Candidate:
        """Return the candidate of a function, with a name that tells it from others."""
        return cls(name_of(function), function, convention)

    @property
    def short_name(self) -> str:
        """Return the name without its module, for code in a message."""
        return self.name.rpartition(":")[2]

    def bind(self, W: Floats, X: NDArray[Any], y: NDArray[np.int64]) -> Callable[[], Any]:
        """Return the bare call: its arguments are laid out, its result is the function's own."""
        function = resolve_candidate(self.function)
        if self.dtype is not None:
            W, X = W.astype(self.dtype, copy=False), X.astype(self.dtype, copy=False)
        arguments = self.convention.arguments(W, X, y)
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
        raise ValueError(f"candidate {candidate!r}: {named(error)}") from error
    function: object = getattr(module, function_name, None)
    if not callable(function):
        known = ", ".join(name for name in vars(module) if not name.startswith("_"))
        raise ValueError(f"candidate {candidate!r}: no such function; {module_name} has {known}")
    return function


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

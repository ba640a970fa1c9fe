"""How a user's function takes its arguments, and which terms its loss has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastloss.arrays import Floats, as_bool, as_choice, as_real, convert
from fastloss.losses.base import Loss
from fastloss.objective import Objective
from fastloss.settings import AUTO

_ARGUMENTS = ("W", "X", "y")
_LAYOUTS = ("dc", "cd")


@dataclass(frozen=True)
class Convention:
    """The call of a function, ``f(W, X, y) -> (loss, dW)`` by default.

    Parameters
    ----------
    order : the order of the arguments, such as ``"X,y,W"`` or ``("X", "y", "W")``; letters may be
        of either case, here and in ``layout``.
    layout : ``"dc"`` if ``W`` and ``dW`` are (D, C); ``"cd"`` if they are (C, D).
    l2 : the loss includes the penalty ``l2 * sum(W**2)``; >= 0.
    intercept : ``W`` has one more row (a column for ``"cd"``), the bias, which is not penalised.

    Raises
    ------
    ValueError : ``order`` is not a permutation of W, X, y, or another value is not allowed.
    """

    order: str = "W,X,y"
    layout: str = "dc"
    l2: float = 0.0
    intercept: bool = False

    def __post_init__(self) -> None:
        given: Any = self.order
        given = given.split(",") if isinstance(given, str) else tuple(given)
        known = {name.lower(): name for name in _ARGUMENTS}
        names = [known.get(str(name).strip().lower(), "") for name in given]
        if sorted(names) != sorted(_ARGUMENTS):
            raise ValueError(f"order must be a permutation of W,X,y, got {self.order!r}")
        object.__setattr__(self, "order", ",".join(names))
        layout = str(self.layout).lower()
        object.__setattr__(self, "layout", as_choice("layout", layout, _LAYOUTS))
        convert(self, "l2", as_real)
        convert(self, "intercept", as_bool)

    @property
    def signature(self) -> str:
        """Return the call as text: ``f(W, X, y)``."""
        return f"f({self.order.replace(',', ', ')})"

    @property
    def terms(self) -> str:
        """Return the terms that it adds to a loss, as text after the loss's name."""
        penalty = f" + {self.l2:g} * sum(W**2)" if self.l2 else ""
        return f"{penalty}{' with a bias row' if self.intercept else ''}"

    @property
    def as_note(self) -> str:
        """Return the terms as a note on a whole table; empty without any."""
        return f"; every loss{self.terms}" if self.terms else ""

    def arguments(self, W: Floats, X: NDArray[Any], y: NDArray[Any]) -> tuple[NDArray[Any], ...]:
        """Return the function's arguments for ``W`` (D, C); for "cd", ``W`` becomes a copy."""
        if self.layout == "cd":
            W = np.ascontiguousarray(W.T)
        values = {"W": W, "X": X, "y": y}
        return tuple(values[name] for name in self.order.split(","))

    def gradient(self, dW: NDArray[Any]) -> NDArray[Any]:
        """Return the function's gradient as (D, C)."""
        return dW.T if self.layout == "cd" else dW

    def objective(
        self, X: ArrayLike, y: ArrayLike, loss: str | Loss, backend: str = AUTO
    ) -> Objective:
        """Return the objective that the function should compute."""
        return Objective(X, y, loss=loss, l2=self.l2, intercept=self.intercept, backend=backend)


def options(**values: str | float | bool) -> str:
    """Return options as the command line takes them, and as Python does."""
    flags = (
        f"--{'' if value else 'no-'}{name}"
        if isinstance(value, bool)
        else f"--{name} {value if isinstance(value, str) else format(value, '.10g')}"
        for name, value in values.items()
    )
    arguments = (
        f"{name}={format(value, '.10g') if isinstance(value, float) else repr(value)}"
        for name, value in values.items()
    )
    return f"{' '.join(flags)} (in Python: {', '.join(arguments)})"


#: The convention of a function that is given without options.
USUAL = Convention()

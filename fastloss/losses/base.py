"""Define `Loss`: a function of scores, with one form for each backend.

A loss maps the scores and the label of one row to a number and a gradient with respect to the
scores. Backends handle ``W``, ``X``, averaging, weights and threads. A new loss is one new file.

Backends also handle NaN and infinity, in the same way for every loss. A row with a NaN or ``+inf``
score, or with a NaN loss, gets the loss NaN and a gradient of NaN.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fastloss.arrays import as_integer
from fastloss.losses.jit import Jit

Scores = NDArray[np.floating[Any]]
Labels = NDArray[np.int64]
BlockKernel = Callable[[Any, Any, tuple[float, ...], Any], None]


def exp(x: float) -> float:
    """Return ``e**x``. Calls in block forms compile to vector instructions."""
    return math.exp(x)


def log1p(x: float) -> float:
    """Return ``log(1 + x)`` for ``x >= 0``. Calls in block forms compile as for `exp`."""
    return math.log1p(x)


# With more classes, visiting each row's label takes less time than comparing it with all classes.
_MOST_COMPARED = 4


def take_labelled(scores: Any, labels: Any, taken: Any) -> None:
    """For block forms: write the score of each row's label in ``scores`` (C, R) to ``taken``."""
    n_classes, n_rows = scores.shape
    if n_classes <= _MOST_COMPARED:
        for j in range(n_classes):
            row = scores[j]
            for r in range(n_rows):
                # Loaded first: LLVM vectorises a choice between values, but not between loads.
                score, old = row[r], taken[r]
                taken[r] = score if labels[r] == j else old
    else:
        for r in range(n_rows):
            taken[r] = scores[labels[r], r]


def put_labelled(scores: Any, labels: Any, values: Any) -> None:
    """For block forms: overwrite the score of each row's label in ``scores`` (C, R)."""
    n_classes, n_rows = scores.shape
    if n_classes <= _MOST_COMPARED:
        for j in range(n_classes):
            row = scores[j]
            for r in range(n_rows):
                value, old = values[r], row[r]
                row[r] = value if labels[r] == j else old
    else:
        for r in range(n_rows):
            scores[labels[r], r] = values[r]


class Loss(ABC):
    """Base class of all losses. A subclass is a frozen dataclass of its parameters.

    All forms compute the same steps from ``parameters``, the loss's numbers as a tuple of floats:

    - `naive` and `vectorized` are methods, for ``backend="naive"`` and ``"numpy"``.
    - ``row`` and ``parallel`` are for ``backend="numba"``. ``row(scores, label, parameters)``,
      decorated with `jit.njit`, returns the loss of one row and overwrites ``scores`` (C,) with
      the gradient. ``parallel``, decorated with ``njit(parallel=True)``, calls ``row`` for each
      row of ``X``; see `softmax.softmax_parallel`.
    - ``block`` is for ``backend="fused"``: a plain function ``block(scores, labels, parameters,
      losses)`` in the part of Python that Numba compiles. ``scores`` (C, R) holds the scores of one
      row in each column. The function overwrites ``scores`` with the gradient and ``losses`` (R,)
      float64 with the losses. Loops along R inside loops along C become vector instructions if they
      choose between values (``a if test else b``) rather than between statements.

    A compiled form may be None; its backend then refuses the loss. A file of this package attaches
    its compiled forms to the class at its end, so that the mathematics comes first.

    ``order`` sorts losses in tables and plots, the best known first; ties are sorted by name.
    """

    name: ClassVar[str]
    order: ClassVar[int] = 100
    row: ClassVar[Jit | None] = None
    parallel: ClassVar[Jit | None] = None
    block: ClassVar[staticmethod[[Any, Any, tuple[float, ...], Any], None] | None] = None

    @property
    def parameters(self) -> tuple[float, ...]:
        """Return the numbers that all forms use; a class always has the same number of them."""
        return ()

    @abstractmethod
    def naive(self, scores: list[float], label: int) -> tuple[float, list[float]]:
        """Return loss and gradient (C,) of one row, in plain Python loops."""

    @abstractmethod
    def vectorized(self, scores: Scores, labels: Labels) -> tuple[Scores, Scores]:
        """Return losses (N,) and gradients (N, C) of all rows, with the dtype of ``scores``."""

    def pieces(self, scores: Scores, labels: Labels) -> NDArray[Any] | None:
        """Return an array (N, ...) that identifies the smooth piece of the loss for each row.

        Two score matrices with equal pieces have no kink between them. ``None`` means that the loss
        is smooth everywhere.
        """
        return None

    def column_losses(
        self, scores: Scores, labels: Labels, column: int
    ) -> Callable[[Scores], Scores]:
        """Return the losses (N,) as a function of one column (N,) of the scores, others fixed.

        A change of ``W[d, c]`` reaches column c only. A call of this fallback costs O(N C); losses
        override this method to make it O(N).
        """
        changed = scores.copy()

        def losses(values: Scores) -> Scores:
            changed[:, column] = values
            return self.vectorized(changed, labels)[0]

        return losses


def as_power(name: str, value: object) -> int:
    """Return ``value`` as an int; raise unless it is 1 (hinge) or 2 (squared hinge)."""
    power = as_integer(name, value)
    if power not in (1, 2):
        raise ValueError(f"{name} must be 1 (hinge) or 2 (squared hinge), got {power}")
    return power

"""What is minimised, as the methods see it, and how many of its rows have been evaluated."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastloss.api import Minibatch, Objective
from fastloss.arrays import Floats
from fastloss.numerical import as_number

#: ``W -> (loss, gradient)``
LossAndGradient = Callable[[Any], tuple[float, Any]]


class Function(ABC):
    """A loss with its gradient. ``rows_evaluated`` counts what the methods ask for."""

    n_rows: int

    def __init__(self) -> None:
        self.rows_evaluated = 0

    @abstractmethod
    def value_and_gradient(self, W: Floats) -> tuple[float, Floats]:
        """The loss of all rows at ``W``, and its gradient, which nobody else holds."""

    @abstractmethod
    def value(self, W: Floats) -> float:
        """The loss of all rows at ``W``."""

    @abstractmethod
    def terms(self, W: Floats, loss: float | None) -> tuple[float, float]:
        """Data loss and penalty at ``W``, for the record; ``loss``: their sum, if it is known."""


class RowsFunction(Function):
    """An `Objective`, evaluated in a way that gives the same bits on any number of threads."""

    def __init__(self, objective: Objective, W: Floats) -> None:
        super().__init__()
        self.objective = objective.reproducible(W.shape[-1], W.dtype)
        self.n_rows = len(objective.X)

    def value_and_gradient(self, W: Floats) -> tuple[float, Floats]:
        self.rows_evaluated += self.n_rows
        return self.objective(W)

    def value(self, W: Floats) -> float:
        self.rows_evaluated += self.n_rows
        return self.objective.loss(W)

    def terms(self, W: Floats, loss: float | None) -> tuple[float, float]:
        if loss is None:
            return self.objective.terms(W)
        penalty = self.objective.penalty.value(W[: self.objective.X.shape[1]])
        return loss - penalty, penalty


class PlainFunction(Function):
    """Any callable; one call of it counts as one row."""

    n_rows = 1

    def __init__(self, f: LossAndGradient, W: Floats) -> None:
        super().__init__()
        self._f = f
        self._shape, self._dtype = W.shape, W.dtype

    def value_and_gradient(self, W: Floats) -> tuple[float, Floats]:
        self.rows_evaluated += 1
        result = self._f(W)
        if not (isinstance(result, tuple) and len(result) == 2):
            raise TypeError(f"f must return (loss, gradient), got {type(result).__name__}")
        # A copy: f may write its next gradient to the same array.
        gradient = np.array(result[1], dtype=self._dtype)
        if gradient.shape != self._shape:
            raise ValueError(
                f"the gradient must have the shape of W, {self._shape}, got {gradient.shape}"
            )
        return as_number(result[0]), gradient

    def value(self, W: Floats) -> float:
        return self.value_and_gradient(W)[0]

    def terms(self, W: Floats, loss: float | None) -> tuple[float, float]:
        return (as_number(self._f(W)[0]) if loss is None else loss), 0.0


class Batches:
    """The rows of an objective, a batch at a time; each epoch in an order of its own.

    The order follows from the seed and the epoch alone, so nothing of it has to be kept. Rows that
    count for nothing (no weight, or the label to ignore) are left out. The last batch of an epoch
    has what is left.
    """

    def __init__(
        self, function: Function, W: Floats, batch_size: int, shuffle: bool, seed: int
    ) -> None:
        if not isinstance(function, RowsFunction):
            raise TypeError("batches need an Objective, whose rows are known; f is a callable")
        self._function = function
        self._shuffle, self._seed = shuffle, seed
        counted = np.flatnonzero(function.objective.row_weights > 0)
        self._rows = counted if counted.size else np.arange(function.n_rows)
        self._batch_size = min(batch_size, len(self._rows))
        self.per_epoch = -(-len(self._rows) // self._batch_size)
        self._W = W
        self._memory: dict[int, Minibatch] = {}
        self._order: tuple[int, NDArray[np.intp]] = (-1, self._rows)

    def value_and_gradient(self, W: Floats, step: int) -> tuple[float, Floats]:
        """Loss and gradient, estimated from the batch of this step (counted from 0)."""
        epoch, place = divmod(step, self.per_epoch)
        start = place * self._batch_size
        rows = self._order_of(epoch)[start : start + self._batch_size]
        batch = self._memory_for(len(rows))
        batch.take(rows)
        self._function.rows_evaluated += len(rows)
        return batch(W)

    def _order_of(self, epoch: int) -> NDArray[np.intp]:
        if not self._shuffle:
            return self._rows
        if self._order[0] != epoch:
            rng = np.random.default_rng([self._seed, epoch])
            self._order = epoch, rng.permutation(self._rows)
        return self._order[1]

    def _memory_for(self, n_rows: int) -> Minibatch:
        if n_rows not in self._memory:
            objective = self._function.objective.reproducible(
                self._W.shape[-1], self._W.dtype, n_rows
            )
            self._memory[n_rows] = objective.minibatch(n_rows, len(self._rows))
        return self._memory[n_rows]

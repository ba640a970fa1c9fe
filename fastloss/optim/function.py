"""Functions to minimise, as the methods see them, with a count of the rows evaluated."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastloss.arrays import Floats, as_floats, check_finite
from fastloss.base_objective import BaseObjective, Estimate
from fastloss.numerical import as_number
from fastloss.objective import Objective
from fastloss.optim.orders import BlockOrder, reads_blocks
from fastloss.passes import Report
from fastloss.settings import threads_to_use

#: ``W -> (loss, gradient)``
LossAndGradient = Callable[[Any], tuple[float, Any]]


class Function(ABC):
    """A loss with its gradient. ``rows_evaluated`` counts rows in evaluations by the methods."""

    n_rows: int

    def __init__(self) -> None:
        self.rows_evaluated = 0

    @abstractmethod
    def value_and_gradient(self, W: Floats) -> tuple[float, Floats]:
        """Return the loss of all rows at ``W``, and its gradient in an array of its own."""

    @abstractmethod
    def value(self, W: Floats) -> float:
        """Return the loss of all rows at ``W``."""

    @abstractmethod
    def terms(self, W: Floats, loss: float | None) -> tuple[float, float]:
        """Return data loss and penalty at ``W``; ``loss`` is their sum, or None if unknown."""

    @property
    def n_threads(self) -> int:
        """Return the number of threads that a method may use between the evaluations."""
        return threads_to_use()

    def fault(self, W: Floats) -> str:
        """Return the reason why the loss at ``W`` is not finite."""
        try:
            self._check_finite(W)
        except ValueError as error:
            return str(error)
        return "a sum or a product overflows"

    def _check_finite(self, W: Floats) -> None:
        check_finite("W", np.atleast_1d(W))


class RowsFunction(Function):
    """An objective; ``reproducible``: with the same bits on any number of threads."""

    def __init__(self, objective: BaseObjective, W: Floats, reproducible: bool) -> None:
        super().__init__()
        self._given, self._W, self._reproducible = objective, W, reproducible
        self.n_rows = objective.shape[0]
        self.objective = self._settled()

    def _settled(self, n_rows: int | None = None) -> BaseObjective:
        if not self._reproducible:
            return self._given
        return self._given.reproducible(self._W, n_rows)

    @property
    def n_threads(self) -> int:
        return self._given.n_threads

    def minibatch(self, n_rows: int, n_candidates: int) -> Estimate:
        """Return a function that estimates the loss from ``n_rows`` of ``n_candidates`` rows."""
        return self._settled(n_rows).minibatch(n_rows, n_candidates)

    def value_and_gradient(self, W: Floats) -> tuple[float, Floats]:
        self.rows_evaluated += self.n_rows
        return self.objective(W)

    def value(self, W: Floats) -> float:
        self.rows_evaluated += self.n_rows
        return self.objective.loss(W)

    def terms(self, W: Floats, loss: float | None) -> tuple[float, float]:
        if loss is None:
            return self.objective.terms(W)
        penalty = self.objective.penalty.value(W[: self.objective.shape[1]])
        return loss - penalty, penalty

    def _check_finite(self, W: Floats) -> None:
        super()._check_finite(W)
        self.objective.check_finite()


class PlainFunction(Function):
    """Any callable; a call counts as one row."""

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
        gradient = np.array(as_floats("the gradient", result[1]), dtype=self._dtype)
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
    """Batches of an objective's rows, in a new order in each epoch.

    The order depends on the seed and the epoch alone, so a checkpoint need not store it. Rows on
    disk that are large (`rows_on_disk.is_large`) are shuffled by `BlockOrder`. Rows of weight 0 and
    ignored rows are left out. The last batch of an epoch may be smaller.
    """

    def __init__(self, function: Function, batch_size: int, shuffle: bool, seed: int) -> None:
        if not isinstance(function, RowsFunction):
            raise TypeError("f must be an Objective, because batches need rows; got a callable")
        self._function = function
        self._shuffle, self._seed = shuffle, seed
        counted = function.objective.counted_rows()
        self._rows = counted if counted.size else np.arange(function.n_rows)
        self._batch_size = min(batch_size, len(self._rows))
        self.per_epoch = -(-len(self._rows) // self._batch_size)
        self._estimates: dict[int, Estimate] = {}
        self._order: tuple[int, NDArray[np.intp]] = (-1, self._rows)
        f = function.objective
        self._blocks: BlockOrder | None = None
        if shuffle and isinstance(f, Objective) and reads_blocks(f.X):
            self._blocks = BlockOrder(f.X, self._rows)
        self._report = Report()

    def value_and_gradient(self, W: Floats, step: int) -> tuple[float, Floats]:
        """Return loss and gradient, estimated from the batch of this step (counted from 0)."""
        epoch, place = divmod(step, self.per_epoch)
        if place == 0:
            self._report = Report()
        self._report(place / self.per_epoch)
        start = place * self._batch_size
        stop = start + self._batch_size
        order = self._order_of(epoch)
        rows = order[start:stop]
        if self._blocks is not None:
            self._blocks.read_ahead(start)
        self._function.rows_evaluated += len(rows)
        return self._estimate_of(len(rows))(rows, W, order[stop : stop + self._batch_size])

    def _order_of(self, epoch: int) -> NDArray[np.intp]:
        if not self._shuffle:
            return self._rows
        known, order = self._order
        if known != epoch:
            rng = np.random.default_rng([self._seed, epoch])
            blocks = self._blocks
            order = blocks.shuffled(rng) if blocks else rng.permutation(self._rows)
            self._order = epoch, order
        return order

    def _estimate_of(self, n_rows: int) -> Estimate:
        if n_rows not in self._estimates:
            self._estimates[n_rows] = self._function.minibatch(n_rows, len(self._rows))
        return self._estimates[n_rows]

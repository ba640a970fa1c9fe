"""Define `BaseObjective`: a loss over rows, as the methods of `optim` use it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastloss.arrays import Floats
from fastloss.losses.base import Loss
from fastloss.penalties import Penalty
from fastloss.settings import threads_to_use

#: ``(rows, W, next_rows) -> (loss, dW)``: an estimate from some of the rows, as `Minibatch` is.
Estimate = Callable[[NDArray[np.int64], Floats, NDArray[np.int64]], tuple[float, Floats]]


class BaseObjective(ABC):
    """Base class of `Objective`, whose rows are in this process, and of objectives on a cluster."""

    penalty: Penalty
    reduction: str

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int]:
        """Return the number of rows and of features (N, D)."""

    @property
    @abstractmethod
    def loss_function(self) -> Loss:
        """Return the loss, a function of a row's scores."""

    @property
    @abstractmethod
    def intercept(self) -> bool:
        """Return whether the last row of ``W`` is the bias."""

    @property
    @abstractmethod
    def weight_sum(self) -> float:
        """Return the sum of the factors of the rows' losses: 1 for the mean."""

    @property
    def n_threads(self) -> int:
        """Return the number of threads that a method may use between evaluations."""
        return threads_to_use()

    @property
    def n_parameter_rows(self) -> int:
        """Return the number of rows of ``W``: the features, and the bias if there is one."""
        return self.shape[1] + self.intercept

    @abstractmethod
    def __call__(self, W: ArrayLike) -> tuple[float, Floats]:
        """Return the loss, penalty included, and its gradient."""

    def loss(self, W: ArrayLike) -> float:
        """Return the loss, penalty included, without its gradient."""
        return sum(self.terms(W))

    @abstractmethod
    def terms(self, W: ArrayLike) -> tuple[float, float]:
        """Return the data loss and the penalty."""

    @abstractmethod
    def minibatch(self, n_rows: int, n_candidates: int | None = None) -> Estimate:
        """Return an estimate of this objective from ``n_rows`` rows a call: see `Minibatch`."""

    @abstractmethod
    def reproducible(self, W: ArrayLike, n_rows: int | None = None) -> BaseObjective:
        """Return the same objective, with results of the same bits on any number of threads."""

    @abstractmethod
    def count_right(self, W: Floats) -> tuple[int, int]:
        """Return how many rows have their highest score at their label, and how many count."""

    @abstractmethod
    def counted_rows(self) -> NDArray[np.intp]:
        """Return the numbers of the rows that are neither ignored nor of weight 0."""

    @abstractmethod
    def weighted_rows(self, rows: NDArray[np.intp]) -> tuple[NDArray[Any], NDArray[np.float64]]:
        """Return some rows (K, D), and the factors (K,) of their losses."""

    @abstractmethod
    def check_finite(self) -> None:
        """Raise ValueError at the first entry of a counted row that is not finite."""

    @abstractmethod
    def facts(self) -> dict[str, str]:
        """Return what a checkpoint compares, by name: the data, the loss and the penalty."""

    def close(self) -> None:  # noqa: B027  (rows of this process need nothing)
        """Free rows that are kept elsewhere; the objective cannot be called again."""

    def penalised(self, W: Floats) -> Floats:
        """Return the rows of ``W`` that the penalty counts: all but the bias."""
        return W[:-1] if self.intercept else W

    def add_penalty(self, data_loss: float, W: Floats, dW: Floats) -> float:
        """Return the total loss, and add the penalty's gradient to ``dW``."""
        if not self.penalty.is_active:
            return data_loss
        weights = self.penalised(W)
        self.penalty.add_gradient(weights, self.penalised(dW))
        return data_loss + self.penalty.value(weights)

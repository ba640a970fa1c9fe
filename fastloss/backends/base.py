"""Define `Backend`, which turns any loss of scores into ``(W, X, y) -> (loss, dW)``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from threading import local
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fastloss.arrays import Floats
from fastloss.losses.base import Labels, Loss
from fastloss.problem import BatchEvaluator, Evaluator, Problem
from fastloss.rows_on_disk import copy_rows
from fastloss.threads import available_threads


@dataclass(frozen=True)
class Workload:
    """A call as "auto" sees it; ``shape`` is (N, D, C), with D = 0 if scores are given."""

    loss: Loss
    shape: tuple[int, int, int]
    X_type: np.dtype[Any]
    W_type: np.dtype[Any]
    rows_contiguous: bool = True
    n_threads: int = field(default_factory=available_threads)

    @property
    def kind(self) -> tuple[Hashable, ...]:
        """Return a key of everything that compiled code depends on; a loss may have no hash."""
        loss = self.loss
        return type(loss), loss.block, loss.parallel, loss.parameters, self.X_type, self.W_type


class Gathered(local):
    """A `BatchEvaluator` that copies the rows to memory of its own, one copy for each thread.

    ``rows`` may also be a slice.
    """

    def __init__(
        self,
        backend: Backend,
        problem: Problem,
        n_rows: int,
        n_classes: int,
        dtype: np.dtype[Any],
    ) -> None:
        self._all = problem
        self._some = replace(
            problem,
            X=np.empty((n_rows, problem.X.shape[1]), problem.X.dtype),
            labels=np.empty(n_rows, np.int64),
            weights=None if problem.weights is None else np.empty(n_rows),
        )
        self._evaluate = backend.prepare(self._some, n_classes, dtype)

    def __call__(
        self,
        rows: NDArray[np.int64] | slice,
        W: Floats,
        dW: Floats | None,
        n_threads: int | None,
        next_rows: object = None,
    ) -> float:
        all_rows, some = self._all, self._some
        copy_rows(all_rows.X, rows, some.X)
        copy_rows(all_rows.labels, rows, some.labels)
        if all_rows.weights is not None and some.weights is not None:
            copy_rows(all_rows.weights, rows, some.weights)
        return self._evaluate(W, dW, n_threads)


class Backend(ABC):
    """Base class of backends. A backend has no state, so one instance serves all threads.

    ``same_bits`` tells whether results have the same bits for any number of threads.

    ``order`` sorts backends in tables and plots, from the plainest to the fastest; ties are sorted
    by name. ``title`` replaces ``name`` in plots and tables.
    """

    name: ClassVar[str]
    title: ClassVar[str] = ""
    order: ClassVar[int] = 100
    same_bits: ClassVar[bool] = False

    def unavailable(self, loss: Loss | None = None) -> str | None:
        """Return the reason why this backend cannot run here (or run ``loss``); None if it can."""
        return None

    def predict(self, workload: Workload) -> Mapping[int, float]:
        """Return the seconds of a call by number of threads; "auto" skips an empty prediction."""
        return {}

    def ready(self, workload: Workload) -> bool:
        """Return whether a call needs no compilation; do not import Numba."""
        return True

    def make_ready(self, workload: Workload) -> None:  # noqa: B027  (most have nothing to do)
        """Compile or load the kernels of a call; raise an exception if that fails."""

    def prepare(self, problem: Problem, n_classes: int, dtype: np.dtype[Any]) -> Evaluator:
        """Return `evaluate` for repeated calls with ``n_classes`` and a ``W`` of ``dtype``."""
        return partial(self.evaluate, problem)

    def prepare_batches(
        self, problem: Problem, n_rows: int, n_classes: int, dtype: np.dtype[Any]
    ) -> BatchEvaluator:
        """Return `evaluate` for batches of ``n_rows`` rows; the problem's divisor is a batch's."""
        return Gathered(self, problem, n_rows, n_classes, dtype)

    @abstractmethod
    def evaluate(
        self, problem: Problem, W: Floats, dW: Floats | None, n_threads: int | None
    ) -> float:
        """Return the data loss; write its gradient to ``dW`` (C-contiguous) unless that is None."""

    @abstractmethod
    def score_gradient(
        self, loss: Loss, scores: Floats, labels: Labels, n_threads: int | None
    ) -> tuple[Floats, Floats]:
        """Return losses (N,) and gradients (N, C), with the dtype of ``scores``.

        `losses.base` gives the rule for NaN and infinite scores.
        """

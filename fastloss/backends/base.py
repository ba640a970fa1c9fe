"""The contract of a backend: it turns any loss in score space into ``(W, X, y) -> (loss, dW)``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fastloss.arrays import Floats
from fastloss.losses.base import Labels, Loss


@dataclass(frozen=True)
class Problem:
    """Validated rows and the loss over them: everything a backend needs but ``W``.

    ``loss_total = sum_i w_i loss_i / divisor`` over the rows whose label is not `arrays.SKIP`.
    """

    X: NDArray[Any]  # (N, D) float32, float64 or uint8, any strides
    labels: Labels  # (N,) int64, contiguous, `arrays.SKIP` where the row is to be skipped
    loss: Loss
    intercept: bool  # the last row of W is the bias
    weights: NDArray[np.float64] | None  # (N,) w_i, None: all are 1
    divisor: float  # the sum of the weights for the mean, 1 for the sum
    any_skipped: bool


#: ``(W, dW or None, n_threads) -> data loss``: `Backend.evaluate` of one problem.
Evaluator = Callable[[Floats, Floats | None, int | None], float]


class Backend(ABC):
    """A way of running a loss. Stateless; one instance serves all threads."""

    name: ClassVar[str]

    def unavailable(self, loss: Loss | None = None) -> str | None:
        """Why this backend cannot run here (or cannot run ``loss``); None if it can."""
        return None

    def prepare(self, problem: Problem, n_classes: int, dtype: np.dtype[Any]) -> Evaluator:
        """`evaluate` for many calls with a ``W`` of this type and so many classes."""
        return partial(self.evaluate, problem)

    @abstractmethod
    def evaluate(
        self, problem: Problem, W: Floats, dW: Floats | None, n_threads: int | None
    ) -> float:
        """The data loss; its gradient is written to ``dW`` (C-contiguous) unless that is None."""

    @abstractmethod
    def score_gradient(
        self, loss: Loss, scores: Floats, labels: Labels, n_threads: int | None
    ) -> tuple[Floats, Floats]:
        """Losses (N,) and gradients (N, C), in the type of ``scores``; NaN rows as in `losses`."""

"""What a backend evaluates: validated rows, labels and weights, and a loss."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

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


#: ``(rows, W, dW or None, n_threads) -> data loss`` of some rows of a problem: their indices, in
#: range, always as many.
BatchEvaluator = Callable[[NDArray[np.int64], Floats, Floats | None, int | None], float]

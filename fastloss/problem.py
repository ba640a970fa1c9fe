"""Define `Problem`: the validated rows, labels, weights and loss that a backend evaluates."""

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
    """Validated rows and their loss: everything a backend needs except ``W``.

    ``loss_total = sum_i w_i loss_i / divisor`` over the rows whose label is not `arrays.SKIP`.
    """

    X: NDArray[Any]  # (N, D) of one of `arrays.ROW_TYPES`, any strides
    labels: Labels  # (N,) int64, contiguous, `arrays.SKIP` for rows to skip
    loss: Loss
    intercept: bool  # the last row of W is the bias
    weights: NDArray[np.float64] | None  # (N,) w_i; None if all are 1
    divisor: float  # the sum of the weights for the mean, 1 for the sum
    any_skipped: bool


#: ``(W, dW or None, n_threads) -> data loss``: `Backend.evaluate` of one problem.
Evaluator = Callable[[Floats, Floats | None, int | None], float]


#: ``(rows, W, dW or None, n_threads, next_rows) -> data loss`` of a batch. ``rows`` holds indices
#: in range; their number is the same at every call. ``next_rows`` holds the rows of the next call,
#: if known, for backends that prefetch them. They are not validated.
BatchEvaluator = Callable[
    [NDArray[np.int64], Floats, Floats | None, int | None, NDArray[np.int64]], float
]

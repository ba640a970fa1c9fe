"""Run a loss in NumPy: two matrix products in BLAS, and the loss on the whole score matrix.

``X`` is read twice, and N x C temporaries are formed. Float rows are taken as one block; ``uint8``
rows, and problems with rows to skip, go through copies of a few rows at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fastloss.arrays import SKIP, Floats, ieee_arithmetic
from fastloss.backends import cost_model
from fastloss.backends.base import Backend, Workload
from fastloss.blocks import float_blocks
from fastloss.losses.base import Labels, Loss
from fastloss.problem import Problem
from fastloss.threads import blas_threads

# Large enough for BLAS to work at full speed, small beside any X worth converting in blocks.
_BLOCK_BYTES = 16 * 2**20


class NumpyBackend(Backend):
    """``backend="numpy"``."""

    name: ClassVar[str] = "numpy"
    title: ClassVar[str] = "NumPy"
    order: ClassVar[int] = 1

    def predict(self, workload: Workload) -> dict[int, float]:
        return cost_model.predict("numpy", workload)

    def evaluate(
        self, problem: Problem, W: Floats, dW: Floats | None, n_threads: int | None
    ) -> float:
        if dW is not None:
            dW[...] = 0.0
        total = 0.0
        with blas_threads(n_threads), ieee_arithmetic():
            for rows, X in _blocks(problem, W):
                total += _add_block(problem, rows, X, W, dW)
        return total / problem.divisor

    def score_gradient(
        self, loss: Loss, scores: Floats, labels: Labels, n_threads: int | None
    ) -> tuple[Floats, Floats]:
        with ieee_arithmetic():
            return losses_of_rows(loss, scores, labels)


def _blocks(problem: Problem, W: Floats) -> Iterator[tuple[slice | NDArray[np.intp], Floats]]:
    """Yield all rows at once if they can be used as they are, else copies of those that count."""
    if problem.X.dtype == W.dtype and not problem.any_skipped:
        yield slice(None), problem.X
        return
    counted = np.flatnonzero(problem.labels != SKIP) if problem.any_skipped else None
    for block, X in float_blocks(
        problem.X, W.dtype, W.shape[1], rows=counted, n_bytes=_BLOCK_BYTES
    ):
        yield block if counted is None else counted[block], X


def _add_block(
    problem: Problem,
    rows: slice | NDArray[np.intp],
    X: Floats,
    W: Floats,
    dW: Floats | None,
) -> float:
    """Add the gradient of a block to ``dW``, and return the weighted sum of its losses."""
    scores = X @ W[: X.shape[1]]
    if problem.intercept:
        scores += W[-1]
    losses, dscores = losses_of_rows(problem.loss, scores, problem.labels[rows])
    if problem.weights is None:
        total = float(losses.sum(dtype=np.float64))
        dscores /= problem.divisor
    else:
        weights = problem.weights[rows]
        total = float(weights @ losses.astype(np.float64))
        dscores *= (weights / problem.divisor).astype(X.dtype)[:, None]
    if dW is not None:
        dW[: X.shape[1]] += X.T @ dscores
        if problem.intercept:
            dW[-1] += dscores.sum(axis=0)
    return total


def losses_of_rows(loss: Loss, scores: Floats, labels: Labels) -> tuple[Floats, Floats]:
    """Apply the loss's vectorised form, and the rule for NaN and infinite scores."""
    losses, dscores = loss.vectorized(scores, labels)
    losses[~(scores.max(axis=1) < np.inf)] = np.nan
    bad = np.isnan(losses)
    if bad.any():
        dscores[bad] = np.nan
    return losses, dscores


BACKEND = NumpyBackend()

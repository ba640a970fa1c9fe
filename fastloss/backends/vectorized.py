"""Run a loss in NumPy: two matrix products in BLAS, and the loss on the scores between them.

The backend takes a block of rows at a time, so temporaries stay small. Gradients of blocks are
added in float64, so no sum in float32 runs over many rows. ``X`` is read twice. Rows are copied if
they do not have the dtype of ``W`` or if some rows are skipped.
"""

from __future__ import annotations

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

# Bytes of a block, with and without a copy: large enough for BLAS to run at full speed.
_COPY_BYTES, _BLOCK_BYTES = 16 * 2**20, 64 * 2**20
# A block has at least this many times the bytes of W; adding its gradient then costs little.
_WEIGHTS_A_BLOCK = 4
# Most rows that BLAS sums in the dtype of W. For a W of at least _LARGE numbers the limit is
# higher, because BLAS then splits the sums itself.
_FEW_ROWS, _MANY_ROWS, _LARGE = 1024, 4096, 4096


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
        counted = np.flatnonzero(problem.labels != SKIP) if problem.any_skipped else None
        is_copied = counted is not None or problem.X.dtype != W.dtype
        n_bytes = max(_COPY_BYTES if is_copied else _BLOCK_BYTES, _WEIGHTS_A_BLOCK * W.nbytes)
        blocks = float_blocks(
            problem.X,
            W.dtype,
            W.shape[1],
            rows=counted,
            n_bytes=n_bytes,
            most_rows=_FEW_ROWS if W.size < _LARGE else _MANY_ROWS,
        )
        losses, gradient = [], np.zeros(W.shape if dW is not None else 0)
        with blas_threads(n_threads), ieee_arithmetic():
            for block, X in blocks:
                rows = block if counted is None else counted[block]
                losses.append(_add_block(problem, rows, X, W, gradient))
            if dW is not None:
                dW[...] = gradient
            return float(np.sum(losses)) / problem.divisor

    def score_gradient(
        self, loss: Loss, scores: Floats, labels: Labels, n_threads: int | None
    ) -> tuple[Floats, Floats]:
        with ieee_arithmetic():
            return losses_of_rows(loss, scores, labels)


def _add_block(
    problem: Problem,
    rows: slice | NDArray[np.intp],
    X: Floats,
    W: Floats,
    gradient: NDArray[np.float64],
) -> float:
    """Add a block's gradient to ``gradient`` unless that is empty; return the sum of losses."""
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
    if len(gradient):
        gradient[: X.shape[1]] += X.T @ dscores
        if problem.intercept:
            gradient[-1] += dscores.sum(axis=0, dtype=np.float64)
    return total


def losses_of_rows(loss: Loss, scores: Floats, labels: Labels) -> tuple[Floats, Floats]:
    """Apply the loss's vectorised form and the rule for NaN and infinite scores."""
    losses, dscores = loss.vectorized(scores, labels)
    losses[~(scores.max(axis=1) < np.inf)] = np.nan
    bad = np.isnan(losses)
    if bad.any():
        dscores[bad] = np.nan
    return losses, dscores


BACKEND = NumpyBackend()

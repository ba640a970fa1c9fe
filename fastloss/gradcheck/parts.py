"""Prepare the functions to check: data loss and penalty of an `Objective`, or a callable."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastloss.arrays import as_floats, ieee_arithmetic
from fastloss.gradcheck.records import PartName
from fastloss.numerical import Matrix, as_number, scores_of
from fastloss.objective import Objective
from fastloss.penalties import Penalty


class EvaluationCounter:
    """Counter of evaluations, which also notes whether all losses are float32 numbers."""

    def __init__(self) -> None:
        self.evaluations = 0
        self.all_float32 = True

    def take(self, loss: float) -> float:
        self.evaluations += 1
        with ieee_arithmetic():
            self.all_float32 &= float(np.float32(loss)) == loss
        return loss


@dataclass(frozen=True)
class Part:
    """A function with its gradient at ``W``, and facts about its kinks and rounding."""

    name: PartName
    W: Matrix
    loss: Callable[[Matrix], float]
    value: float
    gradient: Matrix
    # Returns the smooth piece of a W; None if unknown.
    piece: Callable[[Matrix], NDArray[Any]] | None
    # Size of the numbers that the loss is computed from; it inherits their rounding.
    scale: float = 0.0
    bias_row: int | None = None
    n_rows: int | None = None

    @property
    def smooth(self) -> bool:
        """Return whether the function is known to have no kinks."""
        return self.name == "data" and self.piece is None


def reduced(
    f: Objective, max_rows: int, seed: int, rng: np.random.Generator
) -> tuple[Objective, str]:
    """Return ``f`` in float64 over at most ``max_rows`` rows, and a description."""
    n_rows, n_features = f.X.shape
    taken = f"all {n_rows} rows"
    if n_rows > max_rows:
        candidates = np.flatnonzero(f.row_weights > 0)
        if candidates.size > max_rows:
            candidates = np.sort(rng.choice(candidates, max_rows, replace=False))
        # Without candidates all weights are 0, and any rows do.
        rows = candidates if candidates.size else np.arange(max_rows)
        f = f.batch(rows)
        taken = f"{len(rows)} of {n_rows} rows (seed {seed})"
    penalty = f"l1={f.penalty.l1:g}, l2={f.penalty.l2:g}, intercept={f.intercept}"
    return f.astype(np.float64), f"{f.loss_function!r}, {taken} of {n_features} features, {penalty}"


def parts_of_objective(objective: Objective, W: Matrix, counter: EvaluationCounter) -> list[Part]:
    data = objective.without_penalty()
    rows = np.flatnonzero(data.row_weights > 0)
    labels = data.labels[rows]
    value, gradient = _evaluate(data, W, counter)

    def data_piece(at: Matrix) -> NDArray[Any] | None:
        with ieee_arithmetic():
            return data.loss_function.pieces(scores_of(data, at, rows), labels)

    bias_row = len(W) - 1 if objective.intercept else None
    has_pieces = rows.size and data_piece(W) is not None
    parts = [
        Part(
            name="data",
            W=W,
            loss=lambda at: counter.take(data.loss(at)),
            value=value,
            gradient=gradient,
            piece=data_piece if has_pieces else None,  # type: ignore[arg-type]  # it is not None
            scale=_score_scale(data, W, rows),
            bias_row=bias_row,
            n_rows=len(rows),
        )
    ]
    if objective.penalty != Penalty():
        parts.append(_penalty_part(objective.penalty, W[:bias_row], counter))
    return parts


def _score_scale(data: Objective, W: Matrix, rows: NDArray[np.intp]) -> float:
    """Return the weighted mean (or sum) over rows of the largest ``sqrt(sum_d (x_d w_d)^2)``.

    Scores are rounded relative to their terms, so a small loss of large scores has their error.
    """
    n_features = data.X.shape[1]
    with ieee_arithmetic():
        squares = data.X[rows] ** 2 @ W[:n_features] ** 2
        if data.intercept:
            squares += W[-1] ** 2
    return float(data.row_weights[rows] @ np.sqrt(squares.max(axis=1, initial=0.0)))


def _penalty_part(penalty: Penalty, W: Matrix, counter: EvaluationCounter) -> Part:
    gradient = np.zeros_like(W)
    penalty.add_gradient(W, gradient)
    return Part(
        name="penalty",
        W=W,
        loss=lambda at: counter.take(penalty.value(at)),
        value=counter.take(penalty.value(W)),
        gradient=gradient,
        piece=np.sign if penalty.l1 else None,
    )


def part_of_callable(f: Callable[..., Any], W: Matrix, counter: EvaluationCounter) -> Part:
    if not callable(f):
        raise TypeError(f"f must be a fastloss.Objective or callable, got {type(f).__name__}")
    value, gradient = _evaluate(f, W, counter)
    return Part(
        name="total",
        W=W,
        loss=lambda at: counter.take(as_number(f(at)[0])),
        value=value,
        gradient=gradient,
        piece=None,
        # The typical size of margins and probabilities, however small the loss.
        scale=1.0,
    )


def _evaluate(f: Callable[..., Any], W: Matrix, counter: EvaluationCounter) -> tuple[float, Matrix]:
    """Return loss and gradient at a copy of ``W``; raise if they are not valid."""
    result = f(W.copy())
    if not (isinstance(result, tuple) and len(result) == 2):
        raise TypeError(f"f must return (loss, gradient), got {type(result).__name__}")
    loss = counter.take(as_number(result[0]))
    gradient = as_floats("the gradient", result[1])
    if gradient.shape != W.shape:
        raise ValueError(f"the gradient must have the shape of W, {W.shape}, got {gradient.shape}")
    if not math.isfinite(loss):
        raise ValueError(f"the loss at W is {loss}; its gradient cannot be checked")
    # Always a copy: f may write its next gradient to the same array.
    return loss, gradient.astype(np.float64)

"""Run a loss in plain Python loops, one number at a time, as a readable reference.

Arithmetic is in Python floats (float64); the gradient is rounded to the dtype of ``W`` at the end.
"""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np

from fastloss.arrays import SKIP, Floats, ieee_arithmetic
from fastloss.backends.base import Backend
from fastloss.losses.base import Labels, Loss
from fastloss.problem import Problem


class NaiveBackend(Backend):
    """``backend="naive"``."""

    name: ClassVar[str] = "naive"
    order: ClassVar[int] = 0
    same_bits: ClassVar[bool] = True

    def evaluate(
        self, problem: Problem, W: Floats, dW: Floats | None, n_threads: int | None
    ) -> float:
        weights_by_class = [column.tolist() for column in W.T]
        n_features = W.shape[0]
        gradient = [[0.0] * n_features for _ in weights_by_class]
        total = 0.0
        for i, label in enumerate(problem.labels.tolist()):
            if label == SKIP:
                continue
            row = problem.X[i].tolist()
            if problem.intercept:
                row.append(1.0)
            row_weight = 1.0 if problem.weights is None else float(problem.weights[i])
            scores = []
            for class_weights in weights_by_class:
                score = 0.0
                for d in range(n_features):
                    score += row[d] * class_weights[d]
                scores.append(score)
            row_loss, dscores = loss_of_row(problem.loss, scores, label)
            total += row_weight * row_loss
            if dW is None:
                continue
            for class_gradient, dscore in zip(gradient, dscores, strict=True):
                step = row_weight * dscore / problem.divisor
                for d in range(n_features):
                    class_gradient[d] += row[d] * step
        if dW is not None:
            with ieee_arithmetic():  # overflow to inf, as in float32 arithmetic
                dW[...] = np.array(gradient).T
        return total / problem.divisor

    def score_gradient(
        self, loss: Loss, scores: Floats, labels: Labels, n_threads: int | None
    ) -> tuple[Floats, Floats]:
        losses = np.empty(len(scores), dtype=scores.dtype)
        gradient = np.empty(scores.shape, dtype=scores.dtype)
        with ieee_arithmetic():
            for i, label in enumerate(labels.tolist()):
                losses[i], gradient[i] = loss_of_row(loss, scores[i].tolist(), label)
        return losses, gradient


def loss_of_row(loss: Loss, scores: list[float], label: int) -> tuple[float, list[float]]:
    """Apply the loss's naive form and the rule for NaN and infinite scores."""
    row_loss = math.nan
    if all(score < math.inf for score in scores):
        row_loss, gradient = loss.naive(scores, label)
    if math.isnan(row_loss):
        return math.nan, [math.nan] * len(scores)
    return row_loss, gradient


BACKEND = NaiveBackend()

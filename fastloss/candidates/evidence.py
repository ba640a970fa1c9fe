"""What is known about a call with a wrong result, for hypotheses to be compared with."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fastloss.arrays import Floats
from fastloss.candidates.calling import Outcome, attempt
from fastloss.candidates.candidate import Candidate
from fastloss.candidates.cases import Case, Expected, Size, expect, scores_of_case
from fastloss.candidates.convention import Convention
from fastloss.candidates.judging import misfits, tolerances
from fastloss.losses.base import Loss
from fastloss.penalties import Penalty

Pair = tuple[float, Floats]


@dataclass(frozen=True)
class Evidence:
    """A call on a case with arrays of ``dtype``, judged with the tolerances of ``precision``."""

    candidate: Candidate
    loss: Loss
    case: Case
    dtype: str
    precision: str
    outcome: Outcome
    expected: Expected

    @classmethod
    def gather(
        cls, candidate: Candidate, loss: Loss, case: Case, dtype: str, precision: str
    ) -> Evidence:
        """Call the candidate on a case."""
        outcome = attempt(candidate, *case.arguments(dtype))
        expected = expect(case, candidate.convention, loss)
        return cls(candidate, loss, case, dtype, precision, outcome, expected)

    @cached_property
    def misfits(self) -> dict[str, str]:
        """Return what is wrong with "loss" and "gradient"; of a usable result."""
        assert self.outcome.loss is not None
        assert self.outcome.gradient is not None
        allowed = tolerances(self.expected, self.precision)
        return misfits(self.outcome.loss, self.outcome.gradient, self.expected, allowed)

    @property
    def is_right(self) -> bool:
        """Return whether the result is usable and right."""
        return self.outcome.is_usable and not self.misfits

    def judged(self, precision: str) -> Evidence:
        """Return the same call, judged with other tolerances."""
        return replace(self, precision=precision)

    def matches(self, predicted: Pair) -> set[str]:
        """Return which of "loss" and "gradient" are wrong, and equal the predicted ones."""
        value, gradient = predicted
        other = Expected.exactly(value, gradient, self.expected.largest_score)
        assert self.outcome.loss is not None
        assert self.outcome.gradient is not None
        wrong = misfits(
            self.outcome.loss, self.outcome.gradient, other, tolerances(other, self.precision)
        )
        return {part for part in self.misfits if part not in wrong}

    @property
    def size(self) -> Size:
        """Return N, D and C of the case."""
        return *self.case.X.shape, self.n_classes

    @property
    def n_rows(self) -> int:
        return len(self.case.X)

    @property
    def n_classes(self) -> int:
        return self.case.W.shape[1]

    @property
    def penalised(self) -> Floats:
        """Return ``W`` without its bias row."""
        return self.case.W[:-1] if self.candidate.convention.intercept else self.case.W

    @cached_property
    def penalty(self) -> Pair:
        """Return the penalty and its gradient, zero in the bias row."""
        return self.penalty_of(self.candidate.convention.l2)

    def penalty_of(self, l2: float) -> Pair:
        """Return ``l2 * sum(W**2)`` and its gradient."""
        penalty, gradient = Penalty(0.0, l2), np.zeros(self.case.W.shape)
        penalty.add_gradient(self.penalised, gradient[: len(self.penalised)])
        return penalty.value(self.penalised), gradient

    @cached_property
    def scores(self) -> Floats:
        """Return the scores (N, C) of the case."""
        return scores_of_case(self.case, self.candidate.convention, self.loss)

    def of_scores(self, losses: Floats, dscores: Floats) -> Pair:
        """Return the mean of losses (N,) and ``dW`` of score gradients (N, C), with the penalty."""
        X = self.case.X
        if self.candidate.convention.intercept:
            X = np.hstack([X, np.ones((len(X), 1))])
        value, gradient = self.penalty
        return float(losses.mean()) + value, X.T @ dscores / len(X) + gradient

    def of_labels(self, labels: NDArray[np.int64]) -> Pair:
        """Return the right loss and gradient for other labels."""
        return self.of_scores(*self.loss.vectorized(self.scores.copy(), labels))

    def scaled(self, factor: float) -> Pair:
        """Return loss and gradient with the data's part multiplied, but not the penalty."""
        value, gradient = self.penalty
        data = self.expected.loss - value, self.expected.gradient - gradient
        return factor * data[0] + value, factor * data[1] + gradient

    def of_loss(self, loss: Loss) -> Pair:
        """Return loss and gradient of another loss."""
        objective = self.candidate.convention.objective(self.case.X, self.case.y, loss, "numpy")
        return objective(self.case.W)

    def called(self, convention: Convention, case: Case) -> Evidence:
        """Call the candidate by another convention."""
        candidate = replace(self.candidate, convention=convention)
        return Evidence.gather(candidate, self.loss, case, self.dtype, self.precision)

    def elsewhere(self, W: Floats) -> Evidence:
        """Call the candidate at another ``W``."""
        return self.on(replace(self.case, W=W.astype(np.float32).astype(np.float64)))

    def on(self, case: Case) -> Evidence:
        """Call the candidate on another case, or again on the same one."""
        return self.called(self.candidate.convention, case)

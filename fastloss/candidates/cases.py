"""The small problems on which candidates are verified, with the results they should have.

All numbers are float32 numbers, so that float32 and float64 code get the same problem. In all cases
but the first three, they are multiples of 1/4 and few digits long: any order of summation gives the
same scores, without rounding, so ties and kinks are the same in every implementation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastloss.arrays import Floats, ieee_arithmetic
from fastloss.candidates.convention import Convention
from fastloss.losses.base import Loss
from fastloss.numerical import Matrix, scores_of

#: Shared by all columns of a row: exp overflows, or underflows, unless it is subtracted first.
SHIFT = 2048.0
# The step of one-sided slopes at a kink. Scores are multiples of 1/16, so no other kink is as near.
_STEP = 2.0**-20
# Draws of a problem, until no kink is near its W.
_MOST_DRAWS = 50


@dataclass(frozen=True)
class Case:
    """A problem. ``has_kinks``: margins may be exactly 0. ``extreme``: scores are large.

    ``far_apart``: the scores of a row differ so much that probabilities underflow.
    """

    name: str
    W: Matrix
    X: Matrix
    y: NDArray[np.int64]
    extreme: bool = False
    has_kinks: bool = False
    far_apart: bool = False

    def arguments(self, dtype: str) -> tuple[Floats, Floats, NDArray[np.int64]]:
        """Return ``W, X, y`` in a type."""
        return self.W.astype(dtype), self.X.astype(dtype), self.y


@dataclass(frozen=True)
class Expected:
    """The right loss, and bounds of every entry of the right gradients; equal without a kink.

    ``largest_score`` is the largest absolute score: results inherit its rounding.
    """

    loss: float
    gradient: Floats
    lower: Floats
    upper: Floats
    largest_score: float


def make_cases(convention: Convention, seed: int) -> list[Case]:
    """Return the cases, the ordinary one first. Rows, features and classes differ in number."""
    rng = np.random.default_rng(seed)

    def normal(*shape: int, grid: float = 0.0) -> Matrix:
        numbers = rng.standard_normal(shape)
        if grid:
            return np.round(numbers / grid) * grid
        return numbers.astype(np.float32).astype(np.float64)

    def case(name: str, X: Matrix, W: Matrix, **traits: bool) -> Case:
        if convention.intercept:
            W = np.vstack([W, np.arange(W.shape[1]) % 3 - 1.0])
        return Case(name, W, X, rng.integers(0, W.shape[1], len(X)), **traits)

    n_rows, n_features, n_classes = 37, 13, 5
    shape, weights = (n_rows, n_features), (n_features, n_classes)

    def shifted(name: str, shift: float) -> Case:
        """Return scores of about ``shift``, with ordinary differences in a row."""
        X, W = normal(*shape, grid=1 / 4), normal(*weights, grid=1 / 4)
        X[:, 3], W[3] = 64.0, shift / 64.0
        return case(name, X, W, has_kinks=True, extreme=True)

    pixels = np.round(255.0 * rng.random(shape))
    pixels[0] = 0.0
    return [
        case("ordinary scores", normal(*shape), normal(*weights, grid=1 / 8) * 0.375),
        case("one row", normal(1, n_features), normal(*weights, grid=1 / 8) * 0.375),
        case("two classes", normal(21, 7), normal(7, 2, grid=1 / 8)),
        case("ties", normal(*shape, grid=1.0), normal(*weights, grid=1.0), has_kinks=True),
        case("W of zeros", normal(*shape, grid=1 / 4), np.zeros(weights), has_kinks=True),
        shifted("very large scores", SHIFT),
        shifted("very negative scores", -SHIFT),
        case(
            "scores far apart",
            pixels,
            normal(*weights, grid=1 / 4),
            has_kinks=True,
            extreme=True,
            far_apart=True,
        ),
    ]


def smooth_case(convention: Convention, loss: Loss, seed: int) -> Case:
    """Return a problem of few rows for finite differences, without a kink near ``W`` if possible.

    A step of float32's differences, 1e-2, would cross a kink of most larger problems.
    """
    rng = np.random.default_rng(seed)
    for _ in range(_MOST_DRAWS):
        X, W = (rng.standard_normal(shape).astype(np.float32) for shape in ((7, 13), (13, 5)))
        W = np.vstack([0.3 * W, W[: convention.intercept]])
        y = rng.integers(0, 5, len(X))
        case = Case("finite differences", W.astype(np.float64), X.astype(np.float64), y)
        if _is_smooth(case, convention, loss):
            break
    return case


def _is_smooth(case: Case, convention: Convention, loss: Loss) -> bool:
    """Return whether no kink lies within a few steps of ``W`` along any entry."""
    scores = scores_of_case(case, convention, loss)
    reach = 3e-2 * np.maximum(np.abs(case.X).max(axis=1), 1.0)
    here = loss.pieces(scores, case.y)
    for column in range(scores.shape[1]):
        for move in (reach, -reach):
            moved = scores.copy()
            moved[:, column] += move
            if here is not None and not np.array_equal(loss.pieces(moved, case.y), here):  # type: ignore[arg-type]
                return False
    return True


def scores_of_case(case: Case, convention: Convention, loss: Loss) -> Matrix:
    """Return the scores (N, C) of a case."""
    objective = convention.objective(case.X, case.y, loss, "numpy")
    return scores_of(objective, case.W, np.arange(len(case.X)))


def expect(case: Case, convention: Convention, loss: Loss) -> Expected:
    """Compute the result of a case by the NumPy backend in float64."""
    objective = convention.objective(case.X, case.y, loss, "numpy")
    value, gradient = objective(case.W)
    scores = scores_of_case(case, convention, loss)
    lower = upper = gradient
    if case.has_kinks and loss.pieces(scores, case.y) is not None:
        slopes = _one_sided_slopes(objective.loss, case.W, value)
        lower = np.minimum(gradient, slopes.min(axis=0))
        upper = np.maximum(gradient, slopes.max(axis=0))
    return Expected(value, gradient, lower, upper, float(np.abs(scores).max()))


def _one_sided_slopes(loss: Callable[[Floats], float], W: Floats, value: float) -> Floats:
    """Return the slopes (2, D, C) to the left and to the right of every entry."""
    slopes = np.empty((2, *W.shape))
    moved = W.copy()
    with ieee_arithmetic():
        for index in np.ndindex(W.shape):
            for side, step in enumerate((-_STEP, _STEP)):
                moved[index] = W[index] + step
                slopes[(side, *index)] = (loss(moved) - value) / step
            moved[index] = W[index]
    return slopes

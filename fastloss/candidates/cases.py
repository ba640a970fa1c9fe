"""The small problems on which candidates are verified, with the results they should have.

All numbers are float32 numbers, so that float32 and float64 code get the same problem. In all cases
but the first three, they are multiples of 1/4 and few digits long: any order of summation gives the
same scores, without rounding, so ties and kinks are the same in every implementation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastloss.arrays import Floats, as_integer, ieee_arithmetic
from fastloss.candidates.convention import Convention
from fastloss.losses.base import Loss
from fastloss.numerical import Matrix, scores_of

#: Shared by all columns of a row: exp overflows, or underflows, unless it is subtracted first.
SHIFT = 2048.0
# The step of one-sided slopes at a kink. Scores are multiples of 1/16, so no other kink is as near.
_STEP = 2.0**-20
# Draws of a problem, until no kink is near its W.
_MOST_DRAWS = 50
_ROWS_OF_DIFFERENCES = 7

Size = tuple[int, int, int]
#: Rows, features and classes of the problems: all different, and unlike those of data sets.
USUAL_SIZE: Size = (37, 13, 5)


def as_size(size: Sequence[int]) -> Size:
    """Return a size; raise unless it is N >= 1, D >= 1 and C >= 2."""
    if isinstance(size, str) or len(size) != 3:
        raise ValueError(f"size must be (N, D, C), such as (37, 13, 10), got {size!r}")
    n_rows, n_features, n_classes = size
    return (
        as_integer("N of size", n_rows, 1),
        as_integer("D of size", n_features, 1),
        as_integer("C of size", n_classes, 2),
    )


def size_text(size: Size) -> str:
    """Return a size as options take it: ``37x13x5``."""
    return "x".join(map(str, size))


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
    largest_score: float = 0.0

    @classmethod
    def exactly(cls, loss: float, gradient: Floats, largest_score: float = 0.0) -> Expected:
        """Return the result of a problem without kinks."""
        return cls(loss, gradient, gradient, gradient, largest_score)


def make_cases(convention: Convention, seed: int, size: Size = USUAL_SIZE) -> list[Case]:
    """Return the cases, the ordinary one first.

    With another ``size`` than the usual one, all cases are of that size, but "one row" stays if
    the number of rows is the usual one.
    """
    rng = np.random.default_rng(seed)
    n_rows, n_features, n_classes = size
    # Further features are 0: the slopes at kinks take two evaluations for each entry of W.
    n_used = min(n_features, USUAL_SIZE[1], max(2, 1000 // n_classes))
    shape, weights = (n_rows, n_used), (n_used, n_classes)

    def normal(*shape: int, grid: float = 0.0) -> Matrix:
        numbers = rng.standard_normal(shape)
        if grid:
            return np.round(numbers / grid) * grid
        return numbers.astype(np.float32).astype(np.float64)

    def case(name: str, X: Matrix, W: Matrix, **traits: bool) -> Case:
        X = np.pad(X, ((0, 0), (0, n_features - n_used)))
        W = np.pad(W, ((0, n_features - n_used), (0, 0)))
        if convention.intercept:
            W = np.vstack([W, np.arange(W.shape[1]) % 3 - 1.0])
        return Case(name, W, X, rng.integers(0, W.shape[1], len(X)), **traits)

    def shifted(name: str, shift: float) -> Case:
        """Return scores of about ``shift``, with ordinary differences in a row."""
        X, W = normal(*shape, grid=1 / 4), normal(*weights, grid=1 / 4)
        X[:, n_used // 4], W[n_used // 4] = 64.0, shift / 64.0
        return case(name, X, W, has_kinks=True, extreme=True)

    pixels = np.round(255.0 * rng.random(shape))
    pixels[0] = 0.0
    cases = [case("ordinary scores", normal(*shape), normal(*weights, grid=1 / 8) * 0.375)]
    if n_rows == USUAL_SIZE[0]:
        cases.append(case("one row", normal(1, n_used), normal(*weights, grid=1 / 8) * 0.375))
    if size == USUAL_SIZE:
        cases.append(case("two classes", normal(21, 7), normal(7, 2, grid=1 / 8)))
    return [
        *cases,
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


def smooth_case(convention: Convention, loss: Loss, seed: int, size: Size = USUAL_SIZE) -> Case:
    """Return a problem of few rows for finite differences, without a kink near ``W`` if possible.

    A step of float32's differences, 1e-2, would cross a kink of most larger problems.
    """
    rng = np.random.default_rng(seed)
    n_rows, n_features, n_classes = size
    # Each row has a kink for each wrong class, so many rows are copies of a few.
    n_drawn = max(1, min(_ROWS_OF_DIFFERENCES, n_rows, 70 // n_classes))
    rows = np.arange(_ROWS_OF_DIFFERENCES if n_rows == USUAL_SIZE[0] else n_rows) % n_drawn
    shapes = (n_drawn, n_features), (n_features, n_classes)
    scale = 0.3 * np.sqrt(USUAL_SIZE[1] / n_features)
    for _ in range(_MOST_DRAWS):
        X, W = (rng.standard_normal(shape).astype(np.float32) for shape in shapes)
        W = np.vstack([scale.astype(np.float32) * W, W[: convention.intercept]])
        X, y = X[rows], rng.integers(0, n_classes, n_drawn)[rows]
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
        slopes = _one_sided_slopes(case, convention, loss, gradient)
        lower = np.minimum(gradient, slopes.min(axis=0))
        upper = np.maximum(gradient, slopes.max(axis=0))
    return Expected(value, gradient, lower, upper, float(np.abs(scores).max()))


def _one_sided_slopes(case: Case, convention: Convention, loss: Loss, gradient: Floats) -> Floats:
    """Return the slopes (2, D, C) to the left and to the right of every entry.

    Where a feature is 0 in all rows there is no kink, and both are the ``gradient``.
    """
    features = np.asarray(case.X.any(axis=0), np.bool_)
    used = np.append(features, np.ones(len(case.W) - len(features), np.bool_))
    evaluate = convention.objective(case.X[:, features], case.y, loss, "numpy").loss
    W, slopes = case.W[used], np.empty((2, int(used.sum()), case.W.shape[1]))
    value, moved = evaluate(W), W.copy()
    with ieee_arithmetic():
        for index in np.ndindex(W.shape):
            for side, step in enumerate((-_STEP, _STEP)):
                moved[index] = W[index] + step
                slopes[(side, *index)] = (evaluate(moved) - value) / step
            moved[index] = W[index]
    found = np.stack([gradient] * 2)
    found[:, used] = slopes
    return found

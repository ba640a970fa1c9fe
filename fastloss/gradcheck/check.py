"""Check a gradient, from the parts and places to the records and notes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from fastloss.arrays import FLOAT_TYPES, as_integer, as_real
from fastloss.gradcheck.line import EPS, band, relative_error
from fastloss.gradcheck.notes import notes_on
from fastloss.gradcheck.parts import (
    EvaluationCounter,
    Part,
    part_of_callable,
    parts_of_objective,
    reduced,
)
from fastloss.gradcheck.places import check_part
from fastloss.gradcheck.records import GradientCheck, GradientRecord
from fastloss.numerical import Matrix, as_parameters
from fastloss.objective import Objective

Oracle: TypeAlias = "Objective | Callable[[NDArray[Any]], tuple[float, Any]]"


# About the third root of the rounding error.
_FIRST_STEPS = {"float64": 1e-5, "float32": 1e-2}


def check_gradient(
    f: Oracle,
    W: ArrayLike,
    *,
    h: float | None = None,
    n_coordinates: int = 60,
    n_directions: int = 4,
    max_rows: int = 100,
    seed: int = 0,
    dtype: DTypeLike = np.float64,
) -> GradientCheck:
    """Compare the gradient that ``f`` returns with centred differences of its loss.

    Relative errors ``|a - n| / max(|a|, |n|)`` (0 if both are 0) are graded as in CS231n: above
    1e-2 "wrong", above 1e-4 "uneasy", above 1e-7 "fine" (usual near kinks), else "good". Slopes
    that are both below 1e-10, or differ by rounding only, are "too small" to judge. A correct
    subgradient at a kink of the loss is a "kink". `fastloss.gradcheck` describes the rules.

    For an `Objective`, the data loss and the penalty are checked separately. One record, of the
    part "total", checks that the gradient of the objective is their sum.

    Parameters
    ----------
    f : an `Objective`, cast to float64 and reduced to ``max_rows`` random rows of weight > 0; or
        any callable ``W -> (loss, gradient)``, which gets copies of ``W`` of ``dtype``.
    W : floats of any shape; (D, C) or (D + 1, C) for an `Objective`. Never modified.
    h : first step, finite and > 0; smaller steps follow if it does not settle the matter. Default
        1e-5, or 1e-2 in float32.
    n_coordinates : number of entries to compare, at least 1, spread over all rows and columns of
        ``W``. A sixth of them, at least one, are in the bias row. A separate direction covers the
        whole bias row.
    n_directions : number of dense random directions. They cover every entry. If a direction
        disagrees and no entry does, bisection searches for an entry that does.
    max_rows : most rows of an `Objective`, at least 1.
    seed : seed of the rows, entries and directions; the same seed gives the same records.
    dtype : float64, or float32 for a callable that computes in float32. It gets a float32 ``W``,
        and differences within float32's rounding are "too small" to judge.

    Raises
    ------
    TypeError : ``f`` is not callable or does not return ``(loss, gradient)``.
    ValueError : the gradient does not have the shape of ``W``, or the loss is not finite.

    Source: CS231n, "Neural Networks Part 3: gradient checks".

    Examples
    --------
    >>> import numpy as np, fastloss
    >>> objective = fastloss.Objective([[1.0, 2.0], [3.0, 4.0]], [0, 2], loss="hinge", l2=0.1)
    >>> check = fastloss.check_gradient(objective, np.eye(2, 3))
    >>> check.passed
    True
    >>> def wrong(W):
    ...     return float((W**2).sum()), W  # the gradient is 2 W
    >>> check = fastloss.check_gradient(wrong, np.ones((2, 3)))
    >>> check.worst.status, round(check.worst.relative_error, 4)
    ('wrong', 0.5)
    """
    dtype = np.dtype(dtype)
    if dtype not in FLOAT_TYPES:
        raise TypeError(f"dtype must be float32 or float64, got {dtype}")
    h = as_real("h", _FIRST_STEPS[dtype.name] if h is None else h, above=0.0)
    n_coordinates = as_integer("n_coordinates", n_coordinates, 1)
    n_directions = as_integer("n_directions", n_directions, 0)
    max_rows = as_integer("max_rows", max_rows, 1)
    seed = as_integer("seed", seed, 0)
    rng = np.random.default_rng(seed)
    counter = EvaluationCounter()
    if isinstance(f, Objective):
        if dtype != np.float64:
            raise ValueError("an Objective is checked in float64: leave out dtype")
        objective, subject = reduced(f, max_rows, seed, rng)
        parameters = as_parameters(W).astype(np.float64)
        parts = parts_of_objective(objective, parameters, counter)
    else:
        parts = [part_of_callable(f, as_parameters(W).astype(dtype), counter)]
        name = ascii(getattr(f, "__name__", type(f).__name__)).strip("'")
        subject = f"{name}, W of shape {parts[0].W.shape}"
    records = [
        record for part in parts for record in check_part(part, h, n_coordinates, n_directions, rng)
    ]
    if isinstance(f, Objective) and len(parts) == 2:
        records.append(_check_sum(objective, parameters, parts, h))
        counter.evaluations += 1
    notes = notes_on(records, parts, counter)
    return GradientCheck(tuple(records), f"{subject}, h = {h:g}", counter.evaluations, notes)


def _check_sum(objective: Objective, W: Matrix, parts: Sequence[Part], h: float) -> GradientRecord:
    """Compare the objective's gradient with the sum of its parts; return the worst entry."""
    data, penalty = (part.gradient for part in parts)
    expected = data.copy()
    expected[: len(penalty)] += penalty
    total = objective(W)[1]
    rounding = np.abs(data)
    rounding[: len(penalty)] += np.abs(penalty)
    excess = np.abs(total - expected) - 16 * EPS * rounding
    place = np.unravel_index(int(np.argmax(excess)), W.shape)
    index = tuple(int(i) for i in place)
    analytic, sum_of_parts = float(total[index]), float(expected[index])
    error = 0.0 if excess[index] <= 0 else relative_error(analytic, sum_of_parts)
    return GradientRecord(
        "total", "data + penalty", index, analytic, sum_of_parts, error, band(error), h
    )

"""Accuracy of a linear classifier, and the validation of a run."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeAlias

from numpy.typing import ArrayLike

from fastloss.arrays import Floats, as_weights
from fastloss.base_objective import BaseObjective
from fastloss.objective import Objective

Accuracy: TypeAlias = Callable[[Floats], float]
Validation: TypeAlias = BaseObjective | Accuracy | tuple[ArrayLike, ArrayLike]


def accuracy(objective: BaseObjective, W: ArrayLike) -> float:
    """Return the share of rows whose label has the highest score, in [0, 1].

    On a tie the lowest class wins. Ignored rows do not count; the result is NaN if all rows are
    ignored. Row weights have no effect. BLAS runs on one thread, so that the result does not depend
    on the number of threads.

    Raises
    ------
    ValueError : a ``W`` of another shape, or a row that counts with an entry that is not finite.

    Examples
    --------
    >>> import numpy as np, fastloss
    >>> objective = fastloss.Objective(np.eye(3), [0, 1, 1])
    >>> round(fastloss.optim.accuracy(objective, np.eye(3)), 2)
    0.67
    """
    W = as_weights(W)
    if len(W) != objective.n_parameter_rows:
        raise ValueError(
            f"W must have {objective.n_parameter_rows} rows for {objective}, got shape {W.shape}"
        )
    n_right, n_counted = objective.count_right(W)
    return n_right / n_counted if n_counted else float("nan")


def as_accuracy(validation: Validation | None, f: object) -> Accuracy | None:
    """Return ``validation`` of a run on ``f`` as a function of ``W``."""
    if isinstance(validation, tuple) and len(validation) == 2:
        if not isinstance(f, BaseObjective):
            raise TypeError("validation=(X, y) needs an f that is a fastloss.Objective")
        validation = Objective(*validation, intercept=f.intercept)
    if isinstance(validation, BaseObjective):
        return partial(accuracy, validation)
    if validation is None or callable(validation):
        return validation
    kind = type(validation).__name__
    raise TypeError(f"validation must be a fastloss.Objective, (X, y) or callable, got {kind}")

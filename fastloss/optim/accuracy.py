"""Accuracy of a linear classifier, and the validation of a run."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from fastloss.arrays import SKIP, Floats, as_weights, check_finite, ieee_arithmetic
from fastloss.blocks import float_blocks
from fastloss.objective import Objective
from fastloss.threads import blas_threads

Accuracy: TypeAlias = Callable[[Floats], float]
Validation: TypeAlias = Objective | Accuracy | tuple[ArrayLike, ArrayLike]


def accuracy(objective: Objective, W: ArrayLike) -> float:
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
    rows = np.flatnonzero(objective.labels != SKIP)
    n_features = objective.X.shape[1]
    labels = objective.labels[rows]
    n_right = 0
    with blas_threads(1), ieee_arithmetic():
        for block, X in float_blocks(objective.X, W.dtype, W.shape[1], rows=rows):
            scores = X @ W[:n_features]
            if objective.intercept:
                scores += W[-1]
            if not np.isfinite(scores).all() and np.isfinite(W).all():
                check_finite("X", objective.X, objective.labels != SKIP)
            n_right += int(np.count_nonzero(scores.argmax(axis=1) == labels[block]))
    return n_right / len(rows) if len(rows) else float("nan")


def as_accuracy(validation: Validation | None, f: object) -> Accuracy | None:
    """Return ``validation`` of a run on ``f`` as a function of ``W``."""
    if isinstance(validation, tuple) and len(validation) == 2:
        if not isinstance(f, Objective):
            raise TypeError("validation=(X, y) needs an f that is a fastloss.Objective")
        validation = Objective(*validation, intercept=f.intercept)
    if isinstance(validation, Objective):
        return partial(accuracy, validation)
    if validation is None or callable(validation):
        return validation
    kind = type(validation).__name__
    raise TypeError(f"validation must be a fastloss.Objective, (X, y) or callable, got {kind}")

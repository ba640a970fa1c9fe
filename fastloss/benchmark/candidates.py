"""Check candidates, a user's own functions, and time them beside the backends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastloss import data
from fastloss.arrays import as_labels, as_rows, count_classes
from fastloss.backends import available_backends
from fastloss.benchmark.backend_study import measure_cell
from fastloss.benchmark.results import Results
from fastloss.benchmark.run import (
    Progress,
    Settings,
    VerificationError,
    silent,
    small_weights,
    start,
    verify,
)
from fastloss.candidates import Candidate, Convention, LossAndGrad
from fastloss.gradcheck import check_gradient
from fastloss.losses import get_loss
from fastloss.losses.base import Loss


def check_candidate(candidate: Candidate, loss: Loss, seed: int = 0) -> None:
    """Raise `VerificationError` unless the function computes this loss and its gradient.

    The check uses float64 and a small problem with an odd number of rows. It compares the result
    with the NumPy backend's, and the gradient with finite differences of the function's loss.
    """
    name = candidate.name
    X = np.random.default_rng(seed).standard_normal((37, 13))
    y = np.random.default_rng(seed + 1).integers(0, 5, 37)
    W = small_weights(X, 5, X.dtype, seed)
    if candidate.convention.intercept:
        W = np.vstack([W, np.full_like(W[:1], 0.1)])
    before = [array.copy() for array in (W, X, y)]
    try:
        result = candidate(W, X, y)
    except Exception as error:
        raise VerificationError(
            f"{name}(W, X, y) raises {type(error).__name__}: {error}"
        ) from error
    for argument, array, copy in zip("WXy", (W, X, y), before, strict=True):
        if not np.array_equal(array, copy):
            raise VerificationError(f"{name} changes its argument {argument}")
    objective = candidate.convention.objective(X, y, loss, "numpy")
    verify(name, result, objective, W)
    check = check_gradient(lambda W: candidate(W, X, y), W, seed=seed)
    if not check.passed:
        raise VerificationError(f"{name} fails the gradient check:\n{check}")


def compare(
    candidates: Mapping[str, str | LossAndGrad],
    X: NDArray[Any] | None = None,
    y: NDArray[np.int64] | None = None,
    *,
    loss: str = "softmax",
    l2: float = 0.0,
    intercept: bool = False,
    layout: str = "dc",
    order: str = "W,X,y",
    backends: tuple[str, ...] | None = None,
    settings: Settings | None = None,
    progress: Progress = silent,
) -> Results:
    """Check functions ``(W, X, y) -> (loss, dW)``, then time them beside the backends.

    Parameters
    ----------
    candidates : maps a name to a function or to ``"module:function"``. The latter, and functions of
        importable modules, are timed in their own process; other functions in this one.
    X, y : the problem; by default synthetic with CIFAR-10's row size, 2000 x 3073 x 10. The classes
        are 0 to the largest label.
    loss : the name of the loss that the functions compute (mean over the rows).
    l2, intercept, layout, order : terms of their loss and how they are called; see
        `fastloss.candidates.Convention`.

    Raises
    ------
    VerificationError : a function is wrong; the message says where and by how much.
    """
    settings = settings or Settings()
    if X is None or y is None:
        problem = data.synthetic(2000, 3073, 10, seed=settings.seed)
        X, y = problem.X, problem.y
    X = as_rows(X)
    y = as_labels(y, len(X))
    n_classes = count_classes(y)
    convention = Convention(order, layout, l2, intercept)
    chosen = [Candidate(name, function, convention) for name, function in candidates.items()]
    for candidate in chosen:
        check_candidate(candidate, get_loss(loss), settings.seed)
    with start("comparison", f"{len(X)} rows", settings, progress) as run:
        names = backends or available_backends()
        measure_cell(run, loss, X, y, n_classes, names, chosen, convention=convention)
        run.results.complete = True
    return run.results

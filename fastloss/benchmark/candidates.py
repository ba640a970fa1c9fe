"""Check candidates, a user's own functions, and time them beside the backends."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastloss import data
from fastloss.arrays import as_labels, as_rows, count_classes
from fastloss.backends import available_backends
from fastloss.benchmark.backend_study import measure_cell
from fastloss.benchmark.run import (
    Progress,
    Settings,
    VerificationError,
    silent,
    small_weights,
    start,
    verify,
)
from fastloss.benchmark.shown import ShownResults
from fastloss.candidates import Candidate, Convention, Functions, as_candidates, resolve_candidate
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


def verified(
    candidates: Iterable[Candidate], loss: Loss, seed: int = 0
) -> tuple[list[Candidate], dict[str, str]]:
    """Return the right candidates, and by name why the others are wrong.

    Raises
    ------
    VerificationError : all candidates are wrong.
    ValueError : a place ``"module:function"`` has no function.
    """
    right: list[Candidate] = []
    refused: dict[str, str] = {}
    for candidate in candidates:
        resolve_candidate(candidate.function)
        try:
            check_candidate(candidate, loss, seed)
        except VerificationError as error:
            refused[candidate.name] = str(error)
        else:
            right.append(candidate)
    if refused and not right:
        raise VerificationError("\n".join(refused.values()))
    return right, refused


def compare(
    candidates: Functions,
    X: ArrayLike | None = None,
    y: ArrayLike | None = None,
    *,
    loss: str | Loss = "softmax",
    l2: float = 0.0,
    intercept: bool = False,
    layout: str = "dc",
    order: str = "W,X,y",
    backends: tuple[str, ...] | None = None,
    settings: Settings | None = None,
    progress: Progress = silent,
) -> ShownResults:
    """Check functions ``(W, X, y) -> (loss, dW)``, then time them beside the backends.

    Each contender has a process of its own. cloudpickle, if installed, sends lambdas, closures and
    functions of a notebook there. A function that cannot be sent runs in this process, and the
    table says so.

    Parameters
    ----------
    candidates : a function, its place ``"module:function"``, a list of them, or a mapping from
        names to them.
    X, y : the problem, ``X`` (N, D) and ``y`` (N,): arrays or lists, both or neither. By default
        synthetic with CIFAR-10's row size, 2000 x 3073 x 10. The classes are 0 to the largest
        label.
    loss : the loss that the functions compute (mean over the rows): a name or an instance.
    l2, intercept, layout, order : terms of their loss and how they are called; see
        `fastloss.candidates.Convention`.
    backends : the backends to time; by default all.
    settings : by default `Settings` with the kernels already cached, because the table shows no
        first calls.

    Returns
    -------
    ShownResults : ``print`` and notebooks show a table; see its ``plot`` and ``to_frame``. A wrong
        function is in the table as refused, with the reason.

    Raises
    ------
    VerificationError : all functions are wrong; the message says where and by how much.
    ValueError : ``X`` without ``y``, or ``y`` without ``X``.

    Examples
    --------
    >>> result = compare(my_loss_and_grad, X, y, loss="hinge")  # doctest: +SKIP
    >>> print(result)  # doctest: +SKIP
    """
    settings = settings or Settings(first_calls=False)
    X, y, source = _problem(X, y, settings.seed)
    loss_of_all, n_classes = get_loss(loss), count_classes(y)
    names = backends or available_backends()
    convention = Convention(order, layout, l2, intercept)
    given = as_candidates(candidates, convention, taken=names)
    right, refused = verified(given, loss_of_all, settings.seed)
    with start("comparison", source, settings, progress) as run:
        measure_cell(
            run, loss, X, y, n_classes, names, right, convention=convention, refused=refused
        )
        run.results.complete = True
    return ShownResults(**vars(run.results))


def _problem(
    X: ArrayLike | None, y: ArrayLike | None, seed: int
) -> tuple[NDArray[Any], NDArray[np.int64], str]:
    """Return validated rows and labels, and the source of the data."""
    if X is None and y is None:
        problem = data.synthetic(2000, 3073, 10, seed=seed)
        return problem.X, problem.y, "synthetic"
    if X is None or y is None:
        given, missing = ("y", "X") if X is None else ("X", "y")
        raise ValueError(f"{given} is given without {missing}: give both, or neither")
    rows = as_rows(X)
    return rows, as_labels(y, len(rows)), "your own"

"""Check candidates, a user's own functions, and time them beside the backends."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastloss import data
from fastloss.arrays import as_labels, as_rows, check_finite, count_classes
from fastloss.backends import available_backends
from fastloss.benchmark.backend_study import measure_cell
from fastloss.benchmark.run import (
    Progress,
    Settings,
    VerificationError,
    silent,
    start,
)
from fastloss.benchmark.shown import ShownResults
from fastloss.candidates import Candidate, Convention, Functions, as_candidates, examine
from fastloss.candidates.cases import Size
from fastloss.losses.base import Loss


def verified(
    candidates: Iterable[Candidate], loss: str | Loss, seed: int = 0, sizes: Sequence[Size] = ()
) -> tuple[list[Candidate], dict[str, str]]:
    """Return the right candidates, and by name why the others are wrong.

    ``sizes`` (N, D, C) are those of the data: a candidate may be right for one of them only.

    Raises
    ------
    VerificationError : all candidates are wrong.
    ValueError : a place ``"module:function"`` has no function.
    """
    reports = [(candidate, examine(candidate, loss, seed, sizes=sizes)) for candidate in candidates]
    right = [
        replace(
            candidate,
            precision=report.precision,
            dtype=report.dtypes[0] if len(report.dtypes) == 1 else None,
            labels=report.labels,
        )
        for candidate, report in reports
        if report.passed
    ]
    wrong = [report for _, report in reports if not report.passed]
    if wrong and not right:
        raise VerificationError("\n\n".join(map(str, wrong)))
    refused = {report.name: report.reason for report in wrong}
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
    backends: str | tuple[str, ...] | None = None,
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
    backends : the backends to time, or one; by default all.
    settings : by default `Settings` with the kernels already cached, because the table shows no
        first calls.

    Returns
    -------
    ShownResults : ``print`` and notebooks show a table; see its ``plot`` and ``to_frame``. A wrong
        function is in the table as refused, with the reason.

    Raises
    ------
    VerificationError : all functions are wrong; the message says where and by how much.
    ValueError : ``X`` without ``y``, ``y`` without ``X``, or numbers in ``X`` that are not finite.

    Warns
    -----
    UserWarning : no row has the label 0.

    Examples
    --------
    >>> result = compare(my_loss_and_grad, X, y, loss="hinge")  # doctest: +SKIP
    >>> print(result)  # doctest: +SKIP
    """
    settings = settings or Settings(first_calls=False)
    X, y, source = _problem(X, y, settings.seed)
    n_classes = count_classes(y)
    names = (backends,) if isinstance(backends, str) else backends or available_backends()
    convention = Convention(order, layout, l2, intercept)
    given = as_candidates(candidates, convention, taken=names)
    size = (len(X), X.shape[1], n_classes)
    right, refused = verified(given, loss, settings.seed, [size])
    with start("comparison", source + convention.as_note, settings, progress) as run:
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
    labels = as_labels(y, len(rows))
    check_finite("X", rows)
    if labels.min() > 0:
        warnings.warn(
            f"no row has the label 0: labels start at 0, so {count_classes(labels)} classes are "
            f"timed, 0 to {labels.max()}",
            UserWarning,
            stacklevel=3,
        )
    return rows, labels, "your own"

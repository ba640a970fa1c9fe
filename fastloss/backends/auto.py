"""Which backend ``backend="auto"`` takes for a problem, on how many threads, and why.

Whatever the model of `costs` predicts to be fastest: NumPy or (if the loss has a compiled form and
Numba can run) the compiled backend, on one thread or on all that may be used. While its kernels are
not ready NumPy it is: see `aside`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fastloss.backends import costs, fused
from fastloss.backends.aside import kernels
from fastloss.losses.base import Loss
from fastloss.threads import available_threads

Shape = tuple[int, int, int]  # N, D, C; D = 0 where the scores are there already


@dataclass(frozen=True)
class Choice:
    """What to run; ``predicted``: the seconds of each backend and number of threads."""

    backend: str
    n_threads: int
    reason: str
    predicted: dict[tuple[str, int], float]
    is_final: bool = True  # or will be another one as soon as the kernels are ready


# Choices that will not change any more. Emptied when it is full, which takes many shapes.
_final: dict[tuple[object, ...], Choice] = {}
_MAX_FINAL = 10_000


def choose(
    loss: Loss,
    shape: Shape,
    X_type: np.dtype[Any],
    W_type: np.dtype[Any],
    *,
    rows_contiguous: bool = True,
    n_threads: int | None = None,
    prepare: bool = True,
) -> Choice:
    """The choice for a problem; ``prepare=False``: whether or not the kernels are ready."""
    # Not the loss itself, which may hold what has no hash.
    kind = (type(loss), loss.block, loss.parameters)
    key = (kind, shape, X_type, W_type, rows_contiguous, n_threads)
    choice = _final.get(key)
    if choice is None:
        most = n_threads or available_threads()
        choice = _choose(loss, shape, X_type, W_type, rows_contiguous, most, prepare)
        if choice.is_final and prepare:
            if len(_final) >= _MAX_FINAL:
                _final.clear()
            _final[key] = choice
    return choice


def _choose(
    loss: Loss,
    shape: Shape,
    X_type: np.dtype[Any],
    W_type: np.dtype[Any],
    rows_contiguous: bool,
    most: int,
    prepare: bool,
) -> Choice:
    without = fastest(loss, shape, W_type.itemsize, most, with_numba=False)
    if (why_not := fused.BACKEND.unavailable(loss)) is not None:
        return replace(without, reason=f"fused cannot run: {why_not}")
    if not rows_contiguous and fused.way(*shape[1:], W_type.itemsize) == "narrow":
        return replace(without, reason="the columns of X lie together in memory, not its rows")
    choice = fastest(loss, shape, W_type.itemsize, most, with_numba=True)
    if choice.backend == "numpy" or not prepare:
        return choice
    name, compiled, make = fused.kernels_of(loss, shape, X_type, W_type)
    if kernels.ready(name, compiled, make):
        return choice
    if (failure := kernels.failure(name)) is not None:
        return replace(without, reason=f"fused cannot compile the loss: {failure}")
    return replace(without, reason="the kernels are being compiled", is_final=False)


def fastest(loss: Loss, shape: Shape, itemsize: int, most_threads: int, with_numba: bool) -> Choice:
    """Of NumPy and, if wanted, the compiled backend, on one thread and on as many as may be."""
    ways = {"numpy": "numpy"}
    if with_numba:
        ways["fused"] = fused.way(*shape[1:], itemsize) if shape[1] else "wide"
    table = costs.current()
    predicted = {
        (backend, n): table.seconds(way, shape, itemsize, n, repr(loss))
        for backend, way in ways.items()
        for n in sorted({1, most_threads})
    }
    backend, n_threads = min(predicted, key=lambda key: predicted[key])
    reason = f"predicted to be fastest (costs {table.source})"
    return Choice(backend, n_threads, reason, predicted)


def reproducible(
    loss: Loss,
    shape: Shape,
    X_type: np.dtype[Any],
    W_type: np.dtype[Any],
    *,
    backend: str,
    rows_contiguous: bool,
    n_threads: int | None,
) -> tuple[str, int]:
    """A backend and a number of threads for a problem, with the same bits whatever ``n_threads``.

    So the compiled backend for "auto", if it can run: this waits until its kernels are ready. What
    NumPy runs stays on one thread.
    """
    if backend == "auto":
        backend = "numpy"
        if fused.BACKEND.unavailable(loss) is None and (
            rows_contiguous or fused.way(*shape[1:], W_type.itemsize) == "wide"
        ):
            name, compiled, make = fused.kernels_of(loss, shape, X_type, W_type)
            if not kernels.ready(name, compiled, make):
                kernels.wait()
            if kernels.failure(name) is None:
                backend = "fused"
    most = n_threads or available_threads()
    if backend != "fused" or most == 1:
        return backend, 1
    predicted = fastest(loss, shape, W_type.itemsize, most, with_numba=True).predicted
    return backend, min((1, most), key=lambda n: predicted[backend, n])

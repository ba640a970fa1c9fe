"""Choose the backend and the number of threads for ``backend="auto"``.

Every registered backend predicts the seconds of a call (`Backend.predict`), and "auto" chooses the
fastest. If its kernels are not compiled, they compile in the background. Meanwhile the next best
backend that is ready runs the call.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from functools import partial

from fastloss.backends import (
    available_backends,
    cost_model,
    get_backend,
    registered_backends,
    registry_version,
)
from fastloss.backends.background import compilations
from fastloss.backends.base import Workload

Predictions = dict[tuple[str, int], float]


@dataclass(frozen=True)
class Choice:
    """A backend and a number of threads; ``predicted`` has the seconds of all candidates."""

    backend: str
    n_threads: int
    reason: str
    predicted: Predictions
    is_final: bool = True  # False: a faster backend's kernels are still being compiled


# Choices that no longer change. Cleared when full, after many different shapes.
_final: dict[Hashable, Choice] = {}
_MAX_FINAL = 10_000


def choose(workload: Workload, *, prepare: bool = True) -> Choice:
    """Return the choice for a call; ``prepare=False`` assumes that all kernels are compiled."""
    if not prepare:
        return _choose(workload, prepare)
    key = (
        *(registry_version(), cost_model.current()),
        *(workload.kind, workload.shape, workload.rows_contiguous, workload.n_threads),
    )
    choice = _final.get(key)
    if choice is None:
        choice = _choose(workload, prepare)
        if choice.is_final:
            if len(_final) >= _MAX_FINAL:
                _final.clear()
            _final[key] = choice
    return choice


def _choose(workload: Workload, prepare: bool) -> Choice:
    predicted = predict(workload)
    if not predicted:
        name = available_backends(workload.loss)[-1]
        return Choice(name, workload.n_threads, "no backend predicts its time", predicted)
    reasons = []
    is_final = True
    for name, n_threads in _best_of_each(predicted):
        # Compile the best backend only; meanwhile the next one runs if it is ready.
        if not prepare or _is_ready(name, workload, start=is_final):
            reasons.append(f"predicted to be fastest (costs {cost_model.current().source})")
            return Choice(name, n_threads, reasons[0], predicted, is_final)
        failure = compilations.failure((name, workload.kind))
        if failure is None:
            reasons.append(f"the kernels of {name} are being compiled")
            is_final = False
        else:
            reasons.append(f"{name} cannot compile the loss: {failure}")
    raise RuntimeError(f"no backend is ready: {'; '.join(reasons)}")


def predict(workload: Workload) -> Predictions:
    """Return the seconds of a call by backend and number of threads, fastest first."""
    predicted = {
        (name, n): seconds
        for name in available_backends(workload.loss)
        for n, seconds in get_backend(name).predict(workload).items()
    }
    return dict(sorted(predicted.items(), key=lambda item: item[1]))


def _best_of_each(predicted: Predictions) -> list[tuple[str, int]]:
    """Return the best number of threads of each backend, fastest backend first."""
    best: dict[str, int] = {}
    for name, n_threads in predicted:
        best.setdefault(name, n_threads)
    return list(best.items())


def _is_ready(name: str, workload: Workload, start: bool) -> bool:
    # Not `get_backend`: another backend may have found that Numba cannot be imported, and
    # `get_backend` would then raise.
    backend = registered_backends()[name]
    if backend.ready(workload):
        return True
    make_ready = partial(backend.make_ready, workload)
    return start and compilations.start((name, workload.kind), make_ready)


def reproducible(workload: Workload, backend: str) -> tuple[str, int]:
    """Return a backend and a thread count whose results have the same bits on any thread count.

    "auto" becomes the fastest backend with the property `Backend.same_bits`; this call waits until
    its kernels are compiled. A named backend without the property gets one thread.
    """
    best = dict(_best_of_each(predict(workload)))
    if backend == "auto":
        backend = next(filter(partial(_has_same_bits, workload), best), "numpy")
    if not get_backend(backend).same_bits:
        return backend, 1
    return backend, best.get(backend, workload.n_threads)


def _has_same_bits(workload: Workload, name: str) -> bool:
    if not get_backend(name).same_bits:
        return False
    if not _is_ready(name, workload, start=True):
        compilations.wait()
    return get_backend(name).ready(workload)

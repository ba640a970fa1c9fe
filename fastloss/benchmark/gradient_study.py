"""Time numerical and analytic gradients as the parameter count grows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastloss.arrays import Floats
from fastloss.backends import get_backend
from fastloss.benchmark import measure
from fastloss.benchmark.results import GradientPoint, GradientStudy, Timing
from fastloss.benchmark.run import Run, affordable, small_weights
from fastloss.benchmark.tasks import BackendTask, Inputs, NumericalTask
from fastloss.benchmark.worker import Session
from fastloss.losses import get_loss
from fastloss.losses.base import Loss

# Methods that may be slow are first timed on this many rows.
_PROBE_ROWS = 16
# Methods differ by factors of ten: the cost of a colder start is negligible beside that.
_WARM_SECONDS = 0.04
# Share of a cell's time per call: here most methods use all of it.
_CALL_SHARE = 0.3


@dataclass(frozen=True)
class _Method:
    """A way to compute a full gradient; ``kind`` is None if it is analytic."""

    label: str
    backend: str
    kind: str | None

    def evaluations(self, n_parameters: int) -> int:
        """Return the loss evaluations of one full gradient; an analytic one takes one pass."""
        return 1 if self.kind is None else 2 * n_parameters


def gradient_methods(backends: tuple[str, ...]) -> list[_Method]:
    """Return the methods: per element and analytic for each backend, and incremental."""
    named = [(name, get_backend(name).title or name) for name in backends]
    return [
        *(_Method(f"per element, {label} loss", name, "per_element") for name, label in named),
        _Method("incremental", "numpy", "incremental"),
        *(_Method(f"analytic, {label}", name, None) for name, label in named),
    ]


def measure_gradient_study(
    run: Run,
    loss_name: str,
    X: NDArray[Any],
    y: NDArray[np.int64],
    n_classes: int,
    feature_counts: tuple[int, ...],
    backends: tuple[str, ...],
) -> Iterator[GradientStudy]:
    """Time one full gradient in float64 at each parameter count ``D * C``.

    Yields the study after each count. ``X`` is widened by repeating its columns, or narrowed to a
    random choice of them.
    """
    # The fixed cost of a call is small in the last factor of ten, so lines have their slope there.
    fit_from = max(feature_counts) * n_classes // 10
    study = GradientStudy(loss_name, len(X), n_classes, fit_from=fit_from)
    run.results.gradient = study
    order = run.rng.permutation(X.shape[1])
    loss = get_loss(loss_name)
    with ExitStack() as stack:
        sessions = {
            method: stack.enter_context(run.session((loss, get_backend(method.backend))))
            for method in gradient_methods(backends)
            if get_backend(method.backend).unavailable(loss) is None
        }
        for n_features in feature_counts:
            # Selecting columns leaves them contiguous, but users have rows.
            columns = np.ascontiguousarray(X[:, np.resize(order, n_features)], np.float64)
            _measure_gradient_size(run, study, columns, y, sessions)
            yield study


def _measure_gradient_size(
    run: Run,
    study: GradientStudy,
    X: Floats,
    y: NDArray[np.int64],
    sessions: Mapping[_Method, Session],
) -> None:
    loss = get_loss(study.loss)
    W = small_weights(X, study.n_classes, X.dtype, run.settings.seed)
    inputs = Inputs.save(run.scratch / "inputs" / f"gradient-{W.size}", X, y, W)
    run.progress(f"gradient study, {W.size:,} parameters")
    prepared: dict[str, tuple[Timing, float | None]] = {}
    for method, session in sessions.items():
        task = BackendTask(inputs, loss, method.backend, get_backend(method.backend))
        prepared[method.label] = _prepare_gradient(run, session, method, task)
    seconds = measure.race(
        {method.label: session for method, session in sessions.items()},
        max_rounds=run.settings.max_rounds,
        max_seconds=run.settings.cell_seconds,
        rng=run.rng,
        warm_seconds=_WARM_SECONDS,
    )
    for method in sessions:
        timing, error = prepared[method.label]
        timing = replace(timing, seconds=seconds[method.label])
        evaluations = method.evaluations(W.size)
        study.points.append(GradientPoint(method.label, W.size, timing, evaluations, error))


def _prepare_gradient(
    run: Run, session: Session, method: _Method, task: BackendTask
) -> tuple[Timing, float | None]:
    """Prepare as much of the gradient as one call's budget allows; return timing and error."""
    X, y, W = task.inputs.load()
    probe = replace(task, n_rows=min(len(X), _PROBE_ROWS))
    chosen = np.arange(W.size)
    if method.kind is None:
        task = affordable(session, probe, len(X), _CALL_SHARE * run.settings.call_seconds)
        gradient = session.prepare(task)[1][1].ravel()
    else:
        spread = run.rng.permutation(W.size)
        n_coordinates, n_rows = _affordable_part(run, session, method, probe, spread)
        chosen = np.sort(spread[:n_coordinates])
        task = replace(_numerical(method, task, chosen), n_rows=n_rows)
        gradient = session.prepare(task)[1]
    rows = slice(task.n_rows or len(X))
    reference = high_precision_gradient(task.loss, W, X[rows], y[rows]).ravel()
    fraction = (len(chosen) / W.size) * (len(X[rows]) / len(X))
    return Timing(method.label, [], fraction=fraction), _error(gradient, reference, chosen)


def _numerical(method: _Method, task: BackendTask, chosen: NDArray[np.intp]) -> NumericalTask:
    places = np.unravel_index(chosen, task.inputs.load()[2].shape)
    return NumericalTask(
        task.inputs,
        task.loss,
        task.name,
        task.backend,
        n_rows=task.n_rows,
        method=method.kind,  # type: ignore[arg-type]  # not None here
        coordinates=tuple(zip(*(place.tolist() for place in places), strict=True)),
    )


def _affordable_part(
    run: Run, session: Session, method: _Method, probe: BackendTask, spread: NDArray[np.intp]
) -> tuple[int, int]:
    """Return how many coordinates, over how many rows (0: all), fit one call's budget.

    They are more than fit if one pass over the rows takes a large part of the budget.
    """
    budget = _CALL_SHARE * run.settings.call_seconds
    if method.kind == "per_element":
        n_rows = len(probe.inputs.load()[0])
        few = affordable(session, _numerical(method, probe, spread[:2]), n_rows, budget)
        if few.n_rows:
            return 2, few.n_rows
    n, first = 2, 0.0
    while n < len(spread):
        session.prepare(_numerical(method, replace(probe, n_rows=0), spread[:n]))
        seconds = session.sample(1, 0.0)
        first = first or seconds
        if seconds > max(budget / 4, 2 * first):
            each = (seconds - first) / (n - 2)
            # The incremental method makes one pass before the first coordinate. Scaling up scales
            # it too, so it has to be a small part.
            one_pass = max(0.0, first - 2 * each)
            return int(np.clip(max(budget, 4 * one_pass) / each, 2, len(spread))), 0
        n *= 8
    return len(spread), 0


def _error(
    gradient: Floats, reference: NDArray[np.longdouble], chosen: NDArray[np.intp]
) -> float | None:
    """Return the largest error over the largest entry; None without a wider float."""
    if np.finfo(np.longdouble).eps >= np.finfo(np.float64).eps:
        return None
    return float(np.abs(gradient - reference[chosen]).max() / np.abs(reference).max())


def high_precision_gradient(
    loss: Loss, W: Floats, X: Floats, y: NDArray[np.int64]
) -> NDArray[np.longdouble]:
    """Compute the mean loss's gradient in the platform's widest float (80 bits on x86)."""
    wide = X.astype(np.longdouble)
    dscores = loss.vectorized(wide @ W.astype(np.longdouble), y)[1]
    return np.asarray(wide.T @ dscores / len(y), np.longdouble)

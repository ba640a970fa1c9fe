"""Numerical against analytic gradients as the parameter count grows: the heart of the lesson."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastloss.arrays import Floats
from fastloss.backends import get_backend
from fastloss.benchmark import measure
from fastloss.benchmark.results import GradientPoint, GradientStudy, Timing
from fastloss.benchmark.run import Run, small_weights
from fastloss.benchmark.tasks import BackendTask, Inputs, NumericalTask
from fastloss.benchmark.worker import Session
from fastloss.losses import get_loss
from fastloss.losses.base import Loss

# A naive loss is first timed on so few rows.
_PROBE_ROWS = 16


@dataclass(frozen=True)
class _Method:
    """A way to a full gradient: an analytic one has no numerical ``kind``."""

    label: str
    backend: str
    kind: str | None

    def evaluations(self, n_parameters: int) -> int:
        """Loss evaluations of one full gradient; an analytic one is one pass."""
        return 1 if self.kind is None else 2 * n_parameters


def gradient_methods(backends: tuple[str, ...]) -> list[_Method]:
    """Numerical per element and analytic for each backend, and the incremental one."""
    labels = {"numpy": "NumPy", "numba": "Numba"}
    named = [(name, labels.get(name, name)) for name in backends]
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
    """Time of one full gradient, in float64, against the parameter count ``D * C``.

    Yields the study after each count. ``X`` is widened by repeating its columns, or cut to a random
    choice of them.
    """
    study = GradientStudy(loss_name, len(X), n_classes)
    run.results.gradient = study
    order = run.rng.permutation(X.shape[1])
    for n_features in feature_counts:
        columns = X[:, np.resize(order, n_features)].astype(np.float64)
        _measure_gradient_size(run, study, columns, y, gradient_methods(backends))
        yield study


def _measure_gradient_size(
    run: Run,
    study: GradientStudy,
    X: Floats,
    y: NDArray[np.int64],
    methods: list[_Method],
) -> None:
    loss = get_loss(study.loss)
    W = small_weights(X, study.n_classes, X.dtype, run.settings.seed)
    inputs = Inputs.save(run.scratch / "inputs" / f"gradient-{W.size}", X, y, W)
    reference = high_precision_gradient(loss, W, X, y)
    run.progress(f"gradient study, {W.size:,} parameters")
    prepared: dict[str, Timing] = {}
    errors: dict[str, float | None] = {}
    with ExitStack() as stack:
        sessions: dict[str, Session] = {}
        for method in methods:
            if get_backend(method.backend).unavailable(loss) is not None:
                continue
            task = BackendTask(inputs, loss, method.backend, get_backend(method.backend))
            session = sessions[method.label] = stack.enter_context(run.session(task))
            prepared[method.label], errors[method.label] = _prepare_gradient(
                run, session, method, task, reference
            )
        seconds = measure.race(
            sessions,
            max_rounds=run.settings.max_rounds,
            max_seconds=run.settings.cell_seconds,
            rng=run.rng,
        )
    for method in methods:
        if method.label in sessions:
            study.points.append(
                GradientPoint(
                    method.label,
                    W.size,
                    replace(prepared[method.label], seconds=seconds[method.label]),
                    method.evaluations(W.size),
                    errors[method.label],
                )
            )


def _prepare_gradient(
    run: Run,
    session: Session,
    method: _Method,
    task: BackendTask,
    reference: NDArray[np.longdouble],
) -> tuple[Timing, float | None]:
    """As much of the gradient as the budget for one call allows, and its error."""
    if method.kind is None:
        gradient = session.prepare(task)[1][1]
        return Timing(method.label, []), _error(gradient, reference, reference)
    spread = run.rng.permutation(reference.size)
    n_coordinates, n_rows = _affordable(run, session, method, task, spread)
    chosen = np.sort(spread[:n_coordinates])
    numerical = _numerical(method, task, chosen, reference.shape[1])
    gradient = session.prepare(replace(numerical, n_rows=n_rows))[1]
    total_rows = len(task.inputs.load()[0])
    fraction = (n_coordinates / reference.size) * (n_rows or total_rows) / total_rows
    # Too few rows are another function: its gradient is not the one of the reference.
    error = None if n_rows else _error(gradient, reference.ravel()[chosen], reference)
    return Timing(method.label, [], fraction=fraction), error


def _numerical(
    method: _Method, task: BackendTask, chosen: NDArray[np.intp], n_classes: int
) -> NumericalTask:
    coordinates = tuple((int(k) // n_classes, int(k) % n_classes) for k in chosen)
    return NumericalTask(
        task.inputs,
        task.loss,
        task.name,
        task.backend,
        method=method.kind,  # type: ignore[arg-type]
        coordinates=coordinates,
    )


def _affordable(
    run: Run, session: Session, method: _Method, task: BackendTask, spread: NDArray[np.intp]
) -> tuple[int, int]:
    """How many coordinates (and of how many rows; 0: all) fit the budget of one call."""
    n_rows = len(task.inputs.load()[0])
    n_classes = task.inputs.load()[2].shape[1]
    budget = run.settings.call_seconds
    few = _numerical(method, task, spread[:2], n_classes)
    if method.backend == "naive":
        probe = replace(few, n_rows=min(n_rows, _PROBE_ROWS))
        session.prepare(probe)
        seconds = session.sample(1, 0.0) * n_rows / probe.n_rows
        if seconds > budget:
            return 2, max(1, int(n_rows * budget / seconds))
    session.prepare(few)
    two = session.sample(1, 0.0)
    session.prepare(_numerical(method, task, spread[:12], n_classes))
    # From the difference: the incremental method spends one pass before the first coordinate.
    each = max((session.sample(1, 0.0) - two) / (len(spread[:12]) - 2), 1e-9)
    return int(np.clip((budget - two) / each, 2, len(spread))), 0


def _error(
    value: Floats, expected: NDArray[np.longdouble], reference: NDArray[np.longdouble]
) -> float | None:
    """Largest error relative to the gradient's largest entry, if the reference is more precise."""
    if np.finfo(np.longdouble).eps >= np.finfo(np.float64).eps:
        return None
    return float(np.abs(value - expected).max() / np.abs(reference).max())


def high_precision_gradient(
    loss: Loss, W: Floats, X: Floats, y: NDArray[np.int64]
) -> NDArray[np.longdouble]:
    """The gradient of the mean loss in the platform's widest float (80 bits on x86)."""
    wide = X.astype(np.longdouble)
    dscores = loss.vectorized(wide @ W.astype(np.longdouble), y)[1]
    return np.asarray(wide.T @ dscores / len(y), np.longdouble)

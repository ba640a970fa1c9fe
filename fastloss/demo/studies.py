"""Compute what the page asks for now and then: gradient check, loss surface, all losses at once.

Each study reads the fields of its message, and returns the work that is left. The work gets a
function that it calls between pieces; that function raises an exception to end it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from fastloss import slices
from fastloss.demo import geometry, readings, updates
from fastloss.demo.messages import Message, MessageError
from fastloss.demo.state import BOX, LOSSES, MOST_COMPARED, N_CLASSES, Matrix, State
from fastloss.gradcheck import GradientRecord, check_gradient
from fastloss.numerical import numerical_gradient
from fastloss.objective import Objective
from fastloss.optim.accuracy import accuracy

Check = Callable[[], None]
#: A class and a column.
Place = tuple[int, int]
Work = Callable[[Check], dict[str, Any]]

#: Points of a surface along each parameter.
SURFACE_POINTS = 41
LEAST_RADIUS, MOST_RADIUS = 1e-3, 1e4


def gradient_check(state: State, objective: Objective, message: Message) -> Work:
    """Return the analytic and the numerical gradient, and the verdict of `check_gradient`.

    ``entries`` has a dictionary for each weight and bias: class, column, analytic, numerical.
    ``records`` are the comparisons behind the verdict, of data loss and penalty separately; their
    ``place`` is a class and a column, or None for a direction.
    """
    return lambda check: _checked(state.W, objective)


def _checked(W: Matrix, objective: Objective) -> dict[str, Any]:
    verdict = check_gradient(objective, W)
    analytic = objective(W)[1].T.tolist()
    numerical = numerical_gradient(objective, W).T.tolist()
    return {
        "passed": verdict.passed,
        "max_relative_error": _finite(verdict.max_relative_error),
        "n_evaluations": verdict.n_evaluations,
        "notes": list(verdict.notes),
        "entries": [
            {"class": k, "column": c, "analytic": analytic[k][c], "numerical": numerical[k][c]}
            for k in range(N_CLASSES)
            for c in range(3)
        ],
        "records": [_record(record) for record in verdict.records],
    }


def _record(record: GradientRecord) -> dict[str, Any]:
    return {
        "part": record.part,
        "block": record.block,
        "place": None if record.index is None else record.index[::-1],
        "analytic": _finite(record.analytic),
        "numerical": _finite(record.numerical),
        "relative_error": _finite(record.relative_error),
        "status": record.status,
        "h": record.h,
    }


def surface(state: State, objective: Objective, message: Message) -> Work:
    """Return the total loss over two parameters around their present values.

    ``losses[i][j]`` is the loss at ``a_values[i]`` and ``b_values[j]``; all other parameters keep
    their present values. ``path`` holds the values of both before each update, and now. The other
    parameters changed along the path, so its losses differ from those of the surface.
    """
    a, b = (message.place(name, (N_CLASSES, 3)) for name in "ab")
    if a == b:
        raise MessageError("a surface needs two different parameters")
    radius = message.number("radius", LEAST_RADIUS, MOST_RADIUS)
    return lambda check: _surface(state, objective, (a, b), radius, check)


def _surface(
    state: State, objective: Objective, places: tuple[Place, Place], radius: float, check: Check
) -> dict[str, Any]:
    a, b = places
    steps = np.linspace(-radius, radius, SURFACE_POINTS)
    W1, W2 = np.zeros((2, *state.W.shape))
    W1.T[a] = W2.T[b] = 1.0
    check()  # once: 100 points take about 20 ms on a 2-core machine
    # NumPy: the backend of the settings may be naive, or not compiled yet.
    losses = slices.plane(objective, state.W, W1, W2, steps, steps, backend="numpy")
    return {
        "a": a,
        "b": b,
        "a_values": (state.W.T[a] + steps).tolist(),
        "b_values": (state.W.T[b] + steps).tolist(),
        "losses": losses.tolist(),
        "path": [[float(W.T[a]), float(W.T[b])] for W in (*state.path, state.W)],
    }


def compare(state: State, objective: Objective, message: Message) -> Work:
    """Return the curves of all losses, on the same points and from the present weights.

    Each curve has ``totals`` and ``accuracies`` from before the first update on, the ``regions``
    at the end, and ``error``, the reason why it is shorter, or None.
    """
    n_updates = message.integer("updates", 1, MOST_COMPARED)
    return lambda check: {
        "updates": n_updates,
        "curves": [_curve(state, loss, n_updates, check) for loss in LOSSES],
    }


def _curve(state: State, loss: str, n_updates: int, check: Check) -> dict[str, Any]:
    settings = replace(state.settings, loss=loss, gradient="analytic", backend="numpy")
    runner = replace(State(), points=state.points, labels=state.labels, W=state.W)
    runner.settings = settings
    objective = runner.objective()
    totals, accuracies = [objective.loss(runner.W)], [accuracy(objective, runner.W)]
    error = None
    for _ in range(n_updates):
        check()
        try:
            updates.update(runner, objective)
        except MessageError as failure:
            error = str(failure)
            break
        totals.append(objective.loss(runner.W))
        accuracies.append(accuracy(objective, runner.W))
    return {
        "loss": loss,
        "totals": totals,
        "accuracies": accuracies,
        "regions": geometry.regions(readings.scores_of_classes(runner.W), BOX),
        "error": error,
    }


def _finite(value: float) -> float | None:
    """Return None for NaN and infinities, which JSON lacks."""
    return value if math.isfinite(value) else None

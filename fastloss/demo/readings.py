"""Compute everything that the page shows of a state, as one dictionary of plain values."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastloss.api import score_gradient
from fastloss.demo import geometry
from fastloss.demo.address import address_of
from fastloss.demo.state import BOX, N_CLASSES, SETTINGS, Matrix, State
from fastloss.numerical import scores_of
from fastloss.objective import Objective


def view(state: State, objective: Objective, *, running: bool, preparing: bool) -> dict[str, Any]:
    """Return the readings of a state; ``objective`` is that of the state.

    The keys: ``points`` (a dictionary each: x, y, class, scores, loss, right), ``W`` (a row for
    each class) and ``b`` with the gradients ``dW`` and ``db``, penalty included; ``data_loss``,
    ``penalty``, ``total``, ``accuracy``; the settings; the shapes ``regions`` (a polygon for each
    class), ``lines``, ``arrows`` and ``gradient_arrows`` (two points, or None); ``history`` (pairs
    of updates and total loss), ``n_updates``; ``evaluations`` and ``seconds`` of the last update;
    ``address``; ``running``; ``preparing``, true while NumPy stands in for a backend that compiles.
    """
    W = state.W
    total, dW = objective(W)
    data_loss, penalty = objective.terms(W)
    points = _points(state, objective)
    return {
        "points": points,
        "W": W[:2].T.tolist(),
        "b": W[2].tolist(),
        "dW": dW[:2].T.tolist(),
        "db": dW[2].tolist(),
        "data_loss": data_loss,
        "penalty": penalty,
        "total": total,
        "accuracy": sum(point["right"] for point in points) / len(points),
        **{name: getattr(state.settings, name) for name in SETTINGS},
        **_shapes(state, dW.T.tolist()),
        "history": [*state.history, (state.n_updates, total)],
        "n_updates": state.n_updates,
        "evaluations": state.evaluations,
        "seconds": state.seconds,
        "address": address_of(state),
        "running": running,
        "preparing": preparing,
    }


def _points(state: State, objective: Objective) -> list[dict[str, Any]]:
    """Return the table of the points: position, class, scores, loss, and right or wrong."""
    scores = scores_of(objective, state.W, np.arange(len(state.points)))
    # NumPy on every backend: the kernels of single rows' losses would have to be compiled too.
    losses, _ = score_gradient(
        scores, state.labels, loss=state.settings.loss, backend="numpy", n_threads=1
    )
    right = scores.argmax(axis=1) == state.labels
    table = zip(
        state.points.tolist(),
        state.labels.tolist(),
        scores.tolist(),
        losses.tolist(),
        right.tolist(),
        strict=True,
    )
    return [
        {"x": x, "y": y, "class": label, "scores": row, "loss": loss, "right": is_right}
        for (x, y), label, row, loss, is_right in table
    ]


def scores_of_classes(W: Matrix) -> list[geometry.Score]:
    """Return the coefficients of each class's score: weight of x, weight of y, bias."""
    return [(a, b, c) for a, b, c in W.T.tolist()]


def _shapes(state: State, gradient: list[list[float]]) -> dict[str, Any]:
    """Return regions, lines and arrows; ``gradient`` has a row (x, y, bias) for each class."""
    scores = scores_of_classes(state.W)
    lines = [geometry.zero_line(score, BOX) for score in scores]
    classes = range(N_CLASSES)
    return {
        "regions": geometry.regions(scores, BOX),
        "lines": lines,
        "arrows": [geometry.arrow(lines[k], (scores[k][0], scores[k][1]), BOX) for k in classes],
        # An update goes along minus the gradient.
        "gradient_arrows": [
            geometry.arrow(lines[k], (-gradient[k][0], -gradient[k][1]), BOX) for k in classes
        ],
    }

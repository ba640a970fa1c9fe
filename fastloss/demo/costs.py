"""Measure an update by each kind of gradient and each backend, in a process of its own.

The problem is that of the page, made larger: its points are repeated, and random features with
zero weights are added. Its loss is therefore that of the page. `main` writes
the table in JSON lines to standard output, while it fills.

A numerical gradient that takes too long is stopped between two evaluations, and its time is
projected from the evaluations that were done. If one evaluation of ``naive`` takes too long, it
gets fewer rows, and its time is scaled up.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from fastloss.backends import available_backends
from fastloss.demo.processes import read_task
from fastloss.demo.state import State
from fastloss.losses.base import Labels, Loss, Scores
from fastloss.numerical import numerical_gradient
from fastloss.objective import Objective

# Seconds between two lines of output.
_TELL_SECONDS = 0.1
# An analytic gradient is repeated this often, as long as its seconds allow.
_REPEATS = 7
_PROBE_ROWS = 16


@dataclass(frozen=True)
class Problem:
    """The points (x, y), labels, weights (3, 3), and the size that they are enlarged to.

    ``seconds`` is the time that each cell of the table may take.
    """

    points: list[list[float]]
    labels: list[int]
    W: list[list[float]]
    loss: str
    l2: float
    rows: int
    features: int
    seconds: float

    @classmethod
    def of(cls, state: State, seconds: float) -> Problem:
        """Return the problem of a state."""
        settings = state.settings
        return cls(
            points=state.points.tolist(),
            labels=state.labels.tolist(),
            W=state.W.tolist(),
            loss=settings.loss,
            l2=settings.l2,
            rows=settings.rows,
            features=settings.features,
            seconds=seconds,
        )

    def objective(self) -> tuple[Objective, Any]:
        """Return the objective of the larger problem, and its weights (features + 1, 3)."""
        repeats = max(1, self.rows // len(self.points))
        rows = repeats * len(self.points)
        X = np.random.default_rng(0).standard_normal((rows, self.features))
        X[:, :2] = np.tile(self.points, (repeats, 1))
        W = np.zeros((self.features + 1, len(self.W[0])))
        W[:2], W[-1] = self.W[:2], self.W[2]
        y = np.tile(self.labels, repeats)
        return Objective(X, y, loss=self.loss, l2=self.l2, intercept=True), W


@dataclass
class Cell:
    """One kind of gradient on one backend.

    ``status`` is "waiting", "preparing", "running", "done", "projected" or "failed". ``done`` of
    ``needed`` loss evaluations, on ``rows`` rows, took ``seconds``. All of them on all rows take
    ``projected`` seconds, which is None if unknown.
    """

    gradient: str
    backend: str
    needed: int
    rows: int
    status: str = "waiting"
    done: int = 0
    seconds: float = 0.0
    projected: float | None = None
    error: str | None = None


class _Enough(Exception):
    """The time of a cell is used up."""


class Measurement:
    """The table of cells; ``tell`` gets it as a dictionary each time that it has changed."""

    def __init__(self, problem: Problem, tell: Callable[[dict[str, Any]], None]) -> None:
        self._problem = problem
        self._tell = tell
        self._told = 0.0
        self._objective, self._W = problem.objective()
        rows, size = len(self._objective.X), self._W.size
        backends = available_backends(self._objective.loss_function)[::-1]
        self._cells = [
            *(Cell("analytic", name, 1, rows) for name in backends),
            # Its arithmetic is NumPy's, whatever the backend.
            Cell("incremental", "numpy", 2 * size, rows),
            *(Cell("per_element", name, 2 * size, rows) for name in backends),
        ]

    def run(self) -> None:
        """Fill the table, cell by cell."""
        for cell in self._cells:
            cell.status = "preparing"
            self._show()
            try:
                self._measure(cell)
            except Exception as error:
                cell.status, cell.error = "failed", f"{type(error).__name__}: {error}"
        self._show(running=False)

    def _measure(self, cell: Cell) -> None:
        objective = self._reduced(cell)
        if cell.gradient == "analytic":
            self._time_analytic(cell, objective)
        else:
            self._time_numerical(cell, objective)
        if cell.done < cell.needed or cell.rows < len(self._objective.X):
            cell.status = "projected"

    def _reduced(self, cell: Cell) -> Objective:
        """Return the objective on the cell's backend, on as many rows as its time allows."""
        objective = _on_backend(self._objective, cell.backend)
        if cell.backend != "naive" or cell.rows <= _PROBE_ROWS:
            return objective
        probe = objective.batch(slice(0, _PROBE_ROWS))
        start = time.perf_counter()
        probe(self._W)
        per_row = (time.perf_counter() - start) / _PROBE_ROWS
        # A few evaluations must fit.
        affordable = self._problem.seconds / 4 / per_row
        cell.rows = int(np.clip(affordable, _PROBE_ROWS, cell.rows))
        return objective.batch(slice(0, cell.rows))

    def _time_analytic(self, cell: Cell, objective: Objective) -> None:
        gradient = np.empty_like(self._W)
        seconds = [_seconds_of(objective, self._W, gradient)]  # lays the rows out, and compiles
        cell.status = "running"
        end = time.perf_counter() + self._problem.seconds
        while len(seconds) <= _REPEATS and time.perf_counter() < end:
            seconds.append(_seconds_of(objective, self._W, gradient))
        cell.done, cell.status = 1, "done"
        cell.seconds = statistics.median(seconds[1:] or seconds)
        cell.projected = cell.seconds * self._scale(cell)

    def _time_numerical(self, cell: Cell, objective: Objective) -> None:
        method: Any = cell.gradient
        if method == "per_element":
            objective.loss(self._W)  # lays the rows out, and compiles
        cell.status = "running"
        start = time.perf_counter()
        set_up = None

        def count() -> None:
            """Note an evaluation that is about to begin."""
            nonlocal set_up
            now = time.perf_counter()
            cell.seconds = now - start
            if set_up is None:
                set_up = cell.seconds
            if cell.done:
                per_evaluation = (cell.seconds - set_up) / cell.done
                cell.projected = (set_up + per_evaluation * cell.needed) * self._scale(cell)
            if cell.seconds - set_up > self._problem.seconds:
                raise _Enough
            if now - self._told > _TELL_SECONDS:
                self._show()
            cell.done += 1

        with suppress(_Enough):
            numerical_gradient(_counted(objective, method, count), self._W, method=method)
            cell.seconds = time.perf_counter() - start
            cell.projected = cell.seconds * self._scale(cell)
            cell.status = "done"

    def _scale(self, cell: Cell) -> float:
        return len(self._objective.X) / cell.rows

    def _show(self, running: bool = True) -> None:
        self._told = time.perf_counter()
        n_rows, n_features = self._objective.X.shape
        self._tell(
            {
                "rows": n_rows,
                "features": n_features,
                "parameters": self._W.size,
                "cells": [asdict(cell) for cell in self._cells],
                "running": running,
            }
        )


def _seconds_of(objective: Objective, W: Any, gradient: Any) -> float:
    start = time.perf_counter()
    objective(W, out=gradient)
    return time.perf_counter() - start


def _on_backend(objective: Objective, backend: str) -> Objective:
    return Objective(
        objective.X,
        objective.labels,
        loss=objective.loss_function,
        l2=objective.penalty.l2,
        intercept=True,
        backend=backend,
    )


def _counted(objective: Objective, method: str, count: Callable[[], None]) -> Any:
    """Return a function, or an objective for "incremental", that counts its evaluations."""
    if method == "incremental":
        loss = _CountedLoss(objective.loss_function, count)
        return Objective(
            objective.X, objective.labels, loss=loss, l2=objective.penalty.l2, intercept=True
        )

    def evaluate(W: Any) -> float:
        count()
        return objective.loss(W)

    return evaluate


@dataclass(frozen=True)
class _CountedLoss(Loss):
    """A loss that counts the evaluations of a column of the scores."""

    loss: Loss
    count: Callable[[], None]
    name = "counted"

    def naive(self, scores: list[float], label: int) -> tuple[float, list[float]]:
        return self.loss.naive(scores, label)

    def vectorized(self, scores: Scores, labels: Labels) -> tuple[Scores, Scores]:
        return self.loss.vectorized(scores, labels)

    def column_losses(
        self, scores: Scores, labels: Labels, column: int
    ) -> Callable[[Scores], Scores]:
        losses = self.loss.column_losses(scores, labels, column)

        def counting(values: Scores) -> Scores:
            self.count()
            return losses(values)

        return counting


def main() -> None:
    """Measure the problem that is the task of this process."""

    def tell(table: dict[str, Any]) -> None:
        print(json.dumps(table), flush=True)

    Measurement(Problem(**read_task()), tell).run()

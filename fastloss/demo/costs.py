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
class Task:
    """The points (x, y), labels, weights (3, 3), and the size that they are enlarged to.

    ``seconds`` is the time that each entry of the table may take.
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
    def of(cls, state: State, seconds: float) -> Task:
        """Return the task for a state."""
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
class Entry:
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
    """The time of an entry is used up."""


class Measurement:
    """The table of entries; ``tell`` gets it as a dictionary each time that it has changed."""

    def __init__(self, task: Task, tell: Callable[[dict[str, Any]], None]) -> None:
        self._task = task
        self._tell = tell
        self._told = 0.0
        self._objective, self._W = task.objective()
        rows, size = len(self._objective.X), self._W.size
        backends = available_backends(self._objective.loss_function)[::-1]
        self._entries = [
            *(Entry("analytic", name, 1, rows) for name in backends),
            # Its arithmetic is NumPy's, whatever the backend.
            Entry("incremental", "numpy", 2 * size, rows),
            *(Entry("per_element", name, 2 * size, rows) for name in backends),
        ]

    def run(self) -> None:
        """Fill the table, entry by entry."""
        for entry in self._entries:
            entry.status = "preparing"
            self._show()
            try:
                self._measure(entry)
            except Exception as error:
                entry.status, entry.error = "failed", f"{type(error).__name__}: {error}"
        self._show(running=False)

    def _measure(self, entry: Entry) -> None:
        objective = self._reduced(entry)
        if entry.gradient == "analytic":
            self._time_analytic(entry, objective)
        else:
            self._time_numerical(entry, objective)
        if entry.done < entry.needed or entry.rows < len(self._objective.X):
            entry.status = "projected"

    def _reduced(self, entry: Entry) -> Objective:
        """Return the objective on the entry's backend, on as many rows as its time allows."""
        objective = _on_backend(self._objective, entry.backend)
        if entry.backend != "naive" or entry.rows <= _PROBE_ROWS:
            return objective
        probe = objective.batch(slice(0, _PROBE_ROWS))
        start = time.perf_counter()
        probe(self._W)
        per_row = (time.perf_counter() - start) / _PROBE_ROWS
        # A few evaluations must fit.
        affordable = self._task.seconds / 4 / per_row
        entry.rows = int(np.clip(affordable, _PROBE_ROWS, entry.rows))
        return objective.batch(slice(0, entry.rows))

    def _time_analytic(self, entry: Entry, objective: Objective) -> None:
        gradient = np.empty_like(self._W)
        seconds = [_seconds_of(objective, self._W, gradient)]  # lays the rows out, and compiles
        entry.status = "running"
        end = time.perf_counter() + self._task.seconds
        while len(seconds) <= _REPEATS and time.perf_counter() < end:
            seconds.append(_seconds_of(objective, self._W, gradient))
        entry.done, entry.status = 1, "done"
        entry.seconds = statistics.median(seconds[1:] or seconds)
        entry.projected = entry.seconds * self._scale(entry)

    def _time_numerical(self, entry: Entry, objective: Objective) -> None:
        method: Any = entry.gradient
        if method == "per_element":
            objective.loss(self._W)  # lays the rows out, and compiles
        entry.status = "running"
        start = time.perf_counter()
        set_up = None

        def count() -> None:
            """Note an evaluation that is about to begin."""
            nonlocal set_up
            now = time.perf_counter()
            entry.seconds = now - start
            if set_up is None:
                set_up = entry.seconds
            if entry.done:
                per_evaluation = (entry.seconds - set_up) / entry.done
                entry.projected = (set_up + per_evaluation * entry.needed) * self._scale(entry)
            if entry.seconds - set_up > self._task.seconds:
                raise _Enough
            if now - self._told > _TELL_SECONDS:
                self._show()
            entry.done += 1

        with suppress(_Enough):
            numerical_gradient(_counted(objective, method, count), self._W, method=method)
            entry.seconds = time.perf_counter() - start
            entry.projected = entry.seconds * self._scale(entry)
            entry.status = "done"

    def _scale(self, entry: Entry) -> float:
        return len(self._objective.X) / entry.rows

    def _show(self, running: bool = True) -> None:
        self._told = time.perf_counter()
        n_rows, n_features = self._objective.X.shape
        self._tell(
            {
                "rows": n_rows,
                "features": n_features,
                "parameters": self._W.size,
                "entries": [asdict(entry) for entry in self._entries],
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
    """Run the measurement that is the task of this process."""

    def tell(table: dict[str, Any]) -> None:
        print(json.dumps(table), flush=True)

    Measurement(Task(**read_task()), tell).run()

"""Records and result of a run, and the error of a run that diverged."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import NDArray

from fastloss.arrays import Floats

#: Reasons for stopping. "stalled": no further step lowers the loss in this precision. "patience":
#: validation accuracy has not risen for so many records.
Why = Literal[
    "max_steps",
    "max_epochs",
    "max_evaluations",
    "max_seconds",
    "converged",
    "stalled",
    "patience",
    "callback",
    "interrupted",
]


@dataclass(frozen=True)
class Record:
    """Numbers of a run after a step; step 0 is the start.

    ``loss`` (``data_loss`` + ``penalty``) is the loss of all rows at ``W``, even if steps see
    batches.
    """

    step: int
    epoch: float  # passes over the rows; the step, if each step uses all rows
    evaluations: float  # of all rows (a batch counts in part), by steps and not by records
    seconds: float  # since the start, including records and checkpoints
    loss: float
    data_loss: float  # the loss for a plain callable, whose penalty is unknown
    penalty: float
    gradient_norm: float | None  # Euclidean; of the last batch if steps see batches
    learning_rate: float | None  # of the last step
    validation_accuracy: float | None  # in [0, 1]


@dataclass(frozen=True)
class Best:
    """The record with the highest validation accuracy so far, and its ``W``."""

    record: Record
    W: Floats

    @property
    def accuracy(self) -> float:
        """Return the validation accuracy; -inf if it is NaN, so that any number is better."""
        accuracy = self.record.validation_accuracy
        return -math.inf if accuracy is None or math.isnan(accuracy) else accuracy


class History(Sequence[Record]):
    """The records of a run, in order."""

    def __init__(self, records: Iterable[Record] = ()) -> None:
        self._records = tuple(records)

    @overload
    def __getitem__(self, index: int) -> Record: ...

    @overload
    def __getitem__(self, index: slice) -> History: ...

    def __getitem__(self, index: int | slice) -> Record | History:
        if isinstance(index, slice):
            return History(self._records[index])
        return self._records[index]

    def __len__(self) -> int:
        return len(self._records)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, History) and self._records == other._records

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"History({len(self)} records)"

    def column(self, name: str) -> NDArray[Any]:
        """Return one field of all records (R,); NaN where the field is None."""
        known = [field.name for field in fields(Record)]
        if name not in known:
            raise ValueError(f"unknown column {name!r}; known: {', '.join(map(repr, known))}")
        values = [getattr(record, name) for record in self._records]
        return np.array(
            [np.nan if value is None else value for value in values],
            dtype=np.int64 if name == "step" else np.float64,
        )


@dataclass(frozen=True)
class Result:
    """Weights and loss of a run, its history, and its reason for stopping."""

    W: Floats  # the last, or with ``restore_best`` the best on the validation rows
    record: Record  # of ``W``
    history: History
    why: Why
    message: str
    n_steps: int
    n_evaluations: float  # as in `Record.evaluations`
    seconds: float

    @property
    def loss(self) -> float:
        """Return the loss of all rows at ``W``, penalty included."""
        return self.record.loss

    def __repr__(self) -> str:
        return (
            f"Result(loss={self.loss:.6g}, why={self.why!r}, n_steps={self.n_steps}, "
            f"n_evaluations={self.n_evaluations:g}, seconds={self.seconds:.3g}, "
            f"W{self.W.shape} {self.W.dtype}, {self.history!r})"
        )


_ON_RATE = "lower lr, omit it (a rate for these rows is computed), or scale X (X / 255 for pixels)"


class DivergedError(RuntimeError):
    """The loss became NaN or infinite, or exploded. The message names the step and the remedy.

    ``history`` holds the records before the divergence, ``lr`` the method's learning rate, from
    which a schedule computes the ``learning_rate`` of the step.
    """

    def __init__(
        self,
        step: int,
        loss_before: float,
        loss: float,
        learning_rate: float | None,
        history: History,
        lr: float | None = None,
    ) -> None:
        # Unpickling calls __init__ with all arguments.
        super().__init__(step, loss_before, loss, learning_rate, history, lr)
        self.step = step
        self.loss_before = loss_before
        self.loss = loss
        self.learning_rate = learning_rate
        self.history = history
        self.lr = lr

    def __str__(self) -> str:
        taken, rate = "lower the step size", self.learning_rate
        if rate is not None:
            origin = "" if self.lr in (None, rate) else f" (from lr={self.lr:g})"
            taken = f"the learning rate was {rate:g}{origin}: {_ON_RATE}"
        return (
            f"diverged in step {self.step}: the loss went from {self.loss_before:.6g} to "
            f"{self.loss:.6g}; {taken}"
        )

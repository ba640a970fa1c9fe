"""The run: steps, records, and when to stop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastloss import arrays
from fastloss.api import Objective
from fastloss.arrays import Floats
from fastloss.optim.base import Method, Setting, State, Stop
from fastloss.optim.checkpoint import Checkpoint, fingerprint
from fastloss.optim.function import Function, LossAndGradient, PlainFunction, RowsFunction
from fastloss.optim.methods import get_method
from fastloss.optim.result import DivergedError, History, Record, Result, Why

Callback = Callable[[Record], Any]
Accuracy = Callable[[Floats], float]

# A run without a limit ends some time.
_DEFAULT_EPOCHS = 10
_DEFAULT_STEPS = 1000
# A rise of the loss by so many times its size at the start (or 1, if that is more) is no noise.
_EXPLOSION = 1e3
# A power failure costs no more than this, unless ``checkpoint_every`` says otherwise.
_CHECKPOINT_SECONDS = 30.0


def minimize(
    f: Objective | LossAndGradient,
    W: ArrayLike,
    method: str | Method = "sgd",
    *,
    max_steps: int | None = None,
    max_epochs: float | None = None,
    max_evaluations: float | None = None,
    max_seconds: float | None = None,
    tolerance: float = 1e-6,
    seed: int = 0,
    validation: Accuracy | None = None,
    record_every: int | None = None,
    callback: Callback | None = None,
    checkpoint: str | PathLike[str] | None = None,
    checkpoint_every: int | None = None,
    resume: bool = False,
) -> Result:
    method = get_method(method)
    start = _as_start(f, W)
    function: Function
    if isinstance(f, Objective):
        function = RowsFunction(f, start)
    elif callable(f):
        function = PlainFunction(f, start)
    else:
        raise TypeError(f"f must be a fastloss.Objective or callable, got {type(f).__name__}")
    batches = method.batches_of(function, start, seed)
    setting = Setting(function, seed, tolerance, batches)
    limits = _Limits(max_steps, max_epochs, max_evaluations, max_seconds).with_default(setting)
    run = _Run(
        method,
        setting,
        limits,
        validation=validation,
        record_every=record_every or setting.steps_per_epoch,
        callback=callback,
    )
    if checkpoint is not None:
        run.keep(Path(checkpoint), checkpoint_every, fingerprint(f, start, method, seed))
    elif resume:
        raise ValueError("resume=True needs the checkpoint to resume from: pass checkpoint=")
    if resume:
        run.resume()
    return run.complete(start)


def _as_start(f: object, W: ArrayLike) -> Floats:
    """A copy of ``W``, so that the caller's is never the result's."""
    array = arrays.as_weights(W) if isinstance(f, Objective) else np.asarray(W)
    if array.dtype not in arrays.FLOAT_TYPES:
        raise TypeError(f"W must be float32 or float64, got {array.dtype}")
    if not array.size:
        raise ValueError(f"W must not be empty, got shape {array.shape}")
    return np.array(array, order="C")


@dataclass(frozen=True)
class _Limits:
    max_steps: float | None
    max_epochs: float | None
    max_evaluations: float | None
    max_seconds: float | None

    def with_default(self, setting: Setting) -> _Limits:
        if self != _Limits(None, None, None, None):
            return self
        if setting.batches is None:
            return replace(self, max_steps=_DEFAULT_STEPS)
        return replace(self, max_epochs=_DEFAULT_EPOCHS)

    def reached(self, record: Record) -> tuple[Why, str] | None:
        raise NotImplementedError


class _Run:
    """A run on its way."""

    def __init__(
        self,
        method: Method,
        setting: Setting,
        limits: _Limits,
        *,
        validation: Accuracy | None,
        record_every: int,
        callback: Callback | None,
    ) -> None:
        self._method = method
        self._setting = setting
        self._limits = limits
        self._validation = validation
        self._record_every = record_every
        self._callback = callback
        self._path: Path | None = None
        self._save_every: int | None = None
        self._fingerprint: Any = None
        # State and count of rows change together: an interrupt finds either both or neither.
        self._at: tuple[State, int] | None = None
        self._records: list[Record] = []
        self._began = time.perf_counter()
        self._saved_at = self._began

    # --- around the steps

    def keep(self, path: Path, every: int | None, facts: Any) -> None:
        """Keep a checkpoint in this file."""
        if not path.parent.is_dir():
            raise FileNotFoundError(f"the folder of the checkpoint {path} does not exist")
        self._path, self._save_every, self._fingerprint = path, every, facts

    def resume(self) -> None:
        """Go on from the checkpoint."""
        assert self._path is not None
        kept = Checkpoint.load(self._path)
        kept.check(self._path, self._fingerprint)
        self._at = kept.state, kept.rows_evaluated
        self._setting.function.rows_evaluated = kept.rows_evaluated
        self._records = list(kept.records)
        self._began -= kept.seconds

    def complete(self, W: Floats) -> Result:
        """Take steps until something stops the run."""
        try:
            if self._at is None:
                self._begin(W)
            self._between_steps()
            self._method.advance(self._setting, self._state, self._commit)
            raise AssertionError(f"{self._method!r} stopped without a reason")
        except Stop as stop:
            why, message = stop.why, stop.message
        except KeyboardInterrupt:
            if self._at is None:
                raise
            why, message = "interrupted", f"interrupted after step {self._state.step}"
        except DivergedError:
            raise
        except BaseException:
            self._save()
            raise
        self._save()
        return self._result(why, message)

    def _begin(self, W: Floats) -> None:
        function = self._setting.function
        with np.errstate(over="ignore", invalid="ignore"):
            state = self._method.start(self._setting, W)
        self._at = state, function.rows_evaluated

    @property
    def _state(self) -> State:
        assert self._at is not None
        return self._at[0]

    @property
    def _evaluations(self) -> float:
        assert self._at is not None
        return self._at[1] / self._setting.function.n_rows

    @property
    def _seconds(self) -> float:
        return time.perf_counter() - self._began

    # --- between two steps

    def _commit(self, state: State) -> None:
        """Take the state after a step, unless the run diverged in it."""
        self._check_loss(state.step, state.loss, state.learning_rate)
        self._at = state, self._setting.function.rows_evaluated
        self._between_steps()

    def _between_steps(self) -> None:
        state = self._state
        if state.step % self._record_every == 0 and self._last_recorded < state.step:
            record = self._record()
            self._records.append(record)
            if self._callback is not None and self._callback(record):
                raise Stop("callback", f"the callback stopped the run after step {state.step}")
        self._check_limits()
        self._check_converged()
        if self._save_is_due():
            self._save()

    @property
    def _last_recorded(self) -> int:
        return self._records[-1].step if self._records else -1

    def _record(self) -> Record:
        state, function = self._state, self._setting.function
        is_known = self._setting.batches is None
        with np.errstate(over="ignore", invalid="ignore"):
            data_loss, penalty = function.terms(state.W, state.loss if is_known else None)
        loss = state.loss if is_known else data_loss + penalty
        if state.step == 0 and not math.isfinite(loss):
            raise ValueError(f"the loss at the start is {loss}: W or X is not finite, or too large")
        self._check_loss(state.step, loss, state.learning_rate)
        return Record(
            step=state.step,
            epoch=state.step / self._setting.steps_per_epoch,
            evaluations=self._evaluations,
            seconds=self._seconds,
            loss=loss,
            data_loss=data_loss,
            penalty=penalty,
            gradient_norm=None
            if state.gradient is None
            else float(np.linalg.norm(state.gradient.astype(np.float64))),
            learning_rate=state.learning_rate,
            validation_accuracy=None if self._validation is None else self._validation(state.W),
        )

    def _check_loss(self, step: int, loss: float, learning_rate: float | None) -> None:
        if not self._records:
            return
        first = self._records[0].loss
        if math.isfinite(loss) and loss - first <= _EXPLOSION * max(1.0, abs(first)):
            return
        before = self._state.loss
        if math.isnan(before):
            before = self._records[-1].loss
        raise DivergedError(step, before, loss, learning_rate, History(self._records))

    def _check_limits(self) -> None:
        state, limits = self._state, self._limits
        if limits.max_steps is not None and state.step >= limits.max_steps:
            raise Stop("max_steps", f"took max_steps = {limits.max_steps} steps")
        epoch = state.step / self._setting.steps_per_epoch
        if limits.max_epochs is not None and epoch >= limits.max_epochs:
            raise Stop("max_epochs", f"max_epochs = {limits.max_epochs:g} are over")
        if limits.max_evaluations is not None and self._evaluations >= limits.max_evaluations:
            raise Stop("max_evaluations", f"max_evaluations = {limits.max_evaluations:g} are done")
        if limits.max_seconds is not None and self._seconds >= limits.max_seconds:
            raise Stop("max_seconds", f"max_seconds = {limits.max_seconds:g} are over")

    def _check_converged(self) -> None:
        state, tolerance = self._state, self._setting.tolerance
        if self._setting.batches is not None or state.gradient is None:
            return
        largest = float(np.abs(state.gradient).max())
        if largest <= tolerance:
            message = f"the largest entry of the gradient is {largest:.3g} <= {tolerance:g}"
            raise Stop("converged", message)

    # --- the file, and the end

    def _save_is_due(self) -> bool:
        if self._path is None or self._state.step == 0:
            return False
        if self._save_every is not None:
            return self._state.step % self._save_every == 0
        return time.perf_counter() - self._saved_at >= _CHECKPOINT_SECONDS

    def _save(self) -> None:
        if self._path is None or self._at is None:
            return
        state, rows_evaluated = self._at
        kept = Checkpoint(
            self._fingerprint, state, rows_evaluated, self._seconds, tuple(self._records)
        )
        kept.save(self._path)
        self._saved_at = time.perf_counter()

    def _result(self, why: Why, message: str) -> Result:
        state = self._state
        records = list(self._records)
        # Off the grid, so that it is not in the checkpoint.
        if self._last_recorded < state.step:
            records.append(self._record())
        return Result(
            W=state.W,
            loss=records[-1].loss,
            history=History(records),
            why=why,
            message=message,
            n_steps=state.step,
            n_evaluations=self._evaluations,
            seconds=self._seconds,
        )

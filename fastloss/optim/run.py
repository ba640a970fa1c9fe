"""Run a method: take steps, keep records, check limits, and write checkpoints."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastloss import advice, arrays
from fastloss.arrays import Floats, as_bool, as_integer, as_real, ieee_arithmetic
from fastloss.base_objective import BaseObjective
from fastloss.optim.accuracy import Accuracy, Validation, as_accuracy
from fastloss.optim.base import Method, Setting, State, Stop, squared_norm
from fastloss.optim.checkpoint import Checkpoint, Fingerprint, check_place, fingerprint
from fastloss.optim.function import Function, LossAndGradient, PlainFunction, RowsFunction
from fastloss.optim.limits import Limits, as_count
from fastloss.optim.methods import get_method
from fastloss.optim.result import Best, DivergedError, History, Record, Result, Why

Callback = Callable[[Record], Any]

# A rise of the loss by this many times max(1, loss at the start) is no noise of batches.
_EXPLOSION = 100.0
# A power failure costs at most this time, unless ``checkpoint_every`` is given.
_CHECKPOINT_SECONDS = 30.0


def minimize(
    f: BaseObjective | LossAndGradient,
    W: ArrayLike,
    method: str | Method = "sgd",
    *,
    max_steps: int | None = None,
    max_epochs: float | None = None,
    max_evaluations: float | None = None,
    max_seconds: float | None = None,
    tolerance: float = 1e-6,
    seed: int = 0,
    validation: Validation | None = None,
    restore_best: bool = False,
    patience: int | None = None,
    record_every: int | None = None,
    callback: Callback | None = None,
    checkpoint: str | PathLike[str] | None = None,
    checkpoint_every: int | None = None,
    resume: bool = False,
    reproducible: bool = True,
) -> Result:
    """Minimise a loss; return the weights and the history of the run.

    Parameters
    ----------
    f : an `Objective`, a `fastloss.dask.DaskObjective`, or any callable ``W -> (loss, gradient)``
        that does not modify ``W``. Methods on batches need one of the first two.
    W : start, (D, C) or (D + 1, C), float32 or float64; any shape if ``f`` is a callable. It is
        not modified; the result has its type.
    method : a name (see `available_methods`) or an instance, e.g. ``SGD(lr=0.5, momentum=0.9)``.
    max_steps, max_epochs, max_evaluations, max_seconds : limits, in the units of `Record`. The run
        stops after the first step that reaches one. Default: 10 epochs of batches, or 1000 steps.
    tolerance : methods on all rows stop when no entry of the gradient is larger in absolute value.
    seed : seed >= 0 of all random numbers.
    validation : source of ``validation_accuracy`` in the records: an `Objective` (see `accuracy`),
        rows and labels ``(X, y)`` if ``f`` is an `Objective`, or a callable ``W -> accuracy``.
    restore_best : return the ``W`` of the record with the highest validation accuracy, the earliest
        on a tie, instead of the last ``W``.
    patience : stop when so many records in a row do not exceed the highest validation accuracy.
    record_every : steps between two records; default: an epoch of batches, or one step. For a
        method on batches, a record costs one evaluation of all rows, without the gradient. Start
        and end are always recorded.
    callback : called with each `Record` except a final one off the interval. A true result stops
        the run. KeyboardInterrupt ends it like Ctrl-C.
    checkpoint : path of a file to resume from. It is written when the run ends, fails or is
        interrupted (Ctrl-C returns the result so far), and every ``checkpoint_every`` steps
        (default: every 30 seconds). A write that fails, as on a full disk, causes a warning. A
        checkpoint that is there already is an error without ``resume``.
    resume : continue from ``checkpoint``, with the bits of an uninterrupted run. Limits,
        ``restore_best``, ``patience``, ``record_every`` and ``callback`` may differ from before.
    reproducible : give the same bits on any number of threads: see `Objective.reproducible`. False
        is faster where NumPy is, and does not wait for a compilation.

    Returns
    -------
    Result : ``W``, its loss, the history, and the reason ``why`` the run stopped.

    Raises
    ------
    DivergedError : the loss became NaN or infinite, or rose by 100 times max(1, loss at the start).
    ValueError : a wrong value or shape, a loss or gradient at the start that is not finite, a
        checkpoint that is damaged or belongs to another run.
    TypeError : an argument of the wrong type.
    OSError : the checkpoint is missing, cannot be written, or would replace an archive.

    Examples
    --------
    >>> import numpy as np, fastloss
    >>> from fastloss import optim
    >>> objective = fastloss.Objective([[1.0, 2.0], [3.0, 4.0]], [0, 2], l2=0.1)
    >>> result = optim.minimize(objective, np.zeros((2, 3)), "gradient_descent", max_steps=100)
    >>> result.why, round(result.loss, 2), result.history.column("loss")[:2].round(2)
    ('max_steps', 0.65, array([1.1 , 0.82]))
    """
    method = get_method(method)
    record_every = as_count("record_every", record_every)
    checkpoint_every = as_count("checkpoint_every", checkpoint_every)
    seed = as_integer("seed", seed, 0)
    resume, reproducible = as_bool("resume", resume), as_bool("reproducible", reproducible)
    tolerance = as_real("tolerance", tolerance)
    limits = Limits(max_steps, max_epochs, max_evaluations, max_seconds)
    restore_best, patience = as_bool("restore_best", restore_best), as_count("patience", patience)
    if validation is None and (restore_best or patience is not None):
        raise ValueError("restore_best and patience need validation rows: set validation")
    start = _as_start(f, W)
    function = _as_function(f, start, reproducible)
    method = method.completed(function, start)
    batches = method.batches_of(function, seed)
    setting = Setting(function, seed, tolerance, batches)
    run = _Run(
        method,
        setting,
        limits,
        as_accuracy(validation, f),
        restore_best,
        patience,
        record_every,
        callback,
    )
    if checkpoint is not None:
        path = Path(checkpoint)
        if not path.parent.is_dir():
            raise FileNotFoundError(f"there is no folder {path.parent} for the checkpoint")
        check_place(path, f, is_resumed=resume)
        run.keep(path, checkpoint_every, fingerprint(f, start, method, seed))
    elif resume or checkpoint_every is not None:
        raise ValueError("resume and checkpoint_every need a file: pass checkpoint=")
    if resume:
        run.resume()
    return run.complete(start)


def _as_start(f: object, W: ArrayLike) -> Floats:
    """Return a validated copy of ``W``, so that the result never shares the caller's memory."""
    array = arrays.as_weights(W) if isinstance(f, BaseObjective) else arrays.as_array("W", W)
    if array.dtype not in arrays.FLOAT_TYPES:
        hint = advice.on_float_type("W", W, array)
        raise TypeError(f"W must be float32 or float64, got {array.dtype}{hint}")
    if not array.size:
        raise ValueError(f"W must not be empty, got shape {array.shape}")
    return np.array(array, order="C")


def _as_function(f: object, W: Floats, reproducible: bool) -> Function:
    if isinstance(f, BaseObjective):
        return RowsFunction(f, W, reproducible)
    if callable(f):
        return PlainFunction(f, W)
    raise TypeError(f"f must be a fastloss.Objective or callable, got {type(f).__name__}")


class _Run:
    """A run in progress: its last state and its records."""

    def __init__(
        self,
        method: Method,
        setting: Setting,
        limits: Limits,
        accuracy: Accuracy | None,
        restore_best: bool,
        patience: int | None,
        record_every: int | None,
        callback: Callback | None,
    ) -> None:
        self._method = method
        self._setting = replace(setting, check_time=self._check_limits)
        self._limits = limits.or_default(on_batches=setting.batches is not None)
        self._accuracy = accuracy
        self._restore_best, self._patience = restore_best, patience
        self._record_every = record_every or setting.steps_per_epoch
        self._callback = callback
        self._path: Path | None = None
        self._save_every: int | None = None
        self._fingerprint: Fingerprint = {}
        # State and rows evaluated, in one attribute: an interrupt cannot separate them.
        self._at: tuple[State, int] | None = None
        self._records: list[Record] = []
        self._best: Best | None = None
        self._began = self._saved = time.perf_counter()

    def keep(self, path: Path, every: int | None, facts: Fingerprint) -> None:
        """Keep a checkpoint in this file, after every ``every`` steps, or every 30 seconds."""
        self._path, self._save_every, self._fingerprint = path, every, facts

    def resume(self) -> None:
        """Continue from the checkpoint."""
        assert self._path is not None
        kept = Checkpoint.load(self._path)
        kept.check(self._path, self._fingerprint)
        self._at = kept.state, kept.rows_evaluated
        self._setting.function.rows_evaluated = kept.rows_evaluated
        self._records, self._best = list(kept.records), kept.best
        self._began -= kept.seconds

    def complete(self, W: Floats) -> Result:
        """Take steps until the run stops; return its result and keep its checkpoint."""
        try:
            stop = self._take_steps(W)
            # Before the save: the final record may show that the last step diverged.
            result = self._result(stop.why, stop.message + self._hint())
            self._save()
        except KeyboardInterrupt:
            # Without a record there is no result, and an import may have been cut short.
            if self._at is None or not self._records:
                raise
            with suppress(KeyboardInterrupt):  # a second Ctrl-C, which waited for the file
                self._save()
            return self._result("interrupted", f"interrupted after step {self._state.step}")
        except DivergedError:
            raise
        except BaseException:
            self._save()
            raise
        return result

    def _hint(self) -> str:
        """Return a hint for the end of a search that has accepted nothing, else an empty text."""
        state, setting = self._state, self._setting
        is_search = setting.batches is None and state.gradient is None
        if not (is_search and state.step and self._records[0].loss == state.loss):
            return ""
        return "; no step lowered the loss: try smaller ones, or scale X (X / 255 for pixels)"

    def _take_steps(self, W: Floats) -> Stop:
        try:
            if self._at is None:
                with ieee_arithmetic():
                    state = self._method.start(self._setting, W)
                self._at = state, self._setting.function.rows_evaluated
            self._between_steps()
            self._method.advance(self._setting, self._state, self._commit)
        except Stop as stop:
            return stop
        raise RuntimeError(f"{self._method!r} returned from advance without raising Stop")

    @property
    def _state(self) -> State:
        assert self._at is not None
        return self._at[0]

    @property
    def _evaluations(self) -> float:
        assert self._at is not None
        return self._at[1] / self._setting.function.n_rows

    @property
    def _epochs(self) -> float:
        return self._state.step / self._setting.steps_per_epoch

    @property
    def _seconds(self) -> float:
        return time.perf_counter() - self._began

    def _commit(self, state: State) -> None:
        """Accept the state after a step, unless the run diverged in it."""
        self._check_loss(state.loss, state)
        self._at = state, self._setting.function.rows_evaluated
        self._between_steps()

    def _check_limits(self) -> None:
        self._limits.check(self._state.step, self._epochs, self._evaluations, self._seconds)

    def _between_steps(self) -> None:
        step = self._state.step
        # A resumed run adds the record before which it was interrupted.
        if step % self._record_every == 0 and not self._is_recorded:
            record = self._record()
            # Before the append: an interrupt between the two must not lose a better W.
            self._best = self._better(record)
            self._records.append(record)
            if self._callback is not None and self._callback(record):
                raise Stop("callback", f"stopped by the callback after step {step}")
        # First: a last step that reaches the tolerance has converged.
        self._check_gradient()
        self._check_limits()
        self._check_patience()
        if self._save_is_due():
            self._save()

    def _better(self, record: Record) -> Best | None:
        """Return the best of a record of this state and those before."""
        if record.validation_accuracy is None:
            return self._best
        new = Best(record, self._state.W)
        return new if self._best is None or new.accuracy > self._best.accuracy else self._best

    def _check_patience(self) -> None:
        """Raise `Stop` if the last ``patience`` records are all later than the best one."""
        n, best = self._patience, self._best
        if n is None or best is None or len(self._records) <= n:
            return
        if self._records[-n].step > best.record.step:
            message = f"no higher validation accuracy in {n} records since step {best.record.step}"
            raise Stop("patience", message)

    @property
    def _is_recorded(self) -> bool:
        return bool(self._records) and self._records[-1].step == self._state.step

    def _record(self) -> Record:
        state, function = self._state, self._setting.function
        is_known = self._setting.batches is None
        with ieee_arithmetic():
            data_loss, penalty = function.terms(state.W, state.loss if is_known else None)
        loss = state.loss if is_known else data_loss + penalty
        if not self._records and not math.isfinite(loss):
            raise ValueError(f"the loss at the start is {loss}: {function.fault(state.W)}")
        self._check_loss(loss, state)
        norm = None if state.gradient is None else math.sqrt(squared_norm(state.gradient))
        return Record(
            step=state.step,
            epoch=self._epochs,
            evaluations=self._evaluations,
            seconds=self._seconds,
            loss=loss,
            data_loss=data_loss,
            penalty=penalty,
            gradient_norm=norm,
            learning_rate=state.learning_rate,
            validation_accuracy=None if self._accuracy is None else float(self._accuracy(state.W)),
        )

    def _check_loss(self, loss: float, state: State) -> None:
        """Raise if the loss seen in the step to ``state`` is not finite or has exploded."""
        if not self._records:
            return
        first = self._records[0].loss
        if math.isfinite(loss) and loss - first <= _EXPLOSION * max(1.0, abs(first)):
            return
        before = self._state.loss if math.isfinite(self._state.loss) else self._records[-1].loss
        raise DivergedError(
            *(state.step, before, loss, state.learning_rate, History(self._records)),
            lr=getattr(self._method, "lr", None),
        )

    def _check_gradient(self) -> None:
        """Raise if the gradient of all rows is not finite, or below the tolerance."""
        state, tolerance = self._state, self._setting.tolerance
        if self._setting.batches is not None or state.gradient is None:
            return
        largest = float(np.abs(state.gradient).max())
        if not math.isfinite(largest):
            problem = f"the gradient after step {state.step} has an entry that is not finite"
            if state.step == 0:
                raise ValueError(f"{problem}: is something in W or X not finite, or too large?")
            raise Stop("stalled", problem)
        if largest <= tolerance:
            message = f"no entry of the gradient is larger than {largest:.3g} <= {tolerance:g}"
            raise Stop("converged", message)

    def _save_is_due(self) -> bool:
        if self._path is None or self._state.step == 0:
            return False
        if self._save_every is None:
            return time.perf_counter() - self._saved >= _CHECKPOINT_SECONDS
        return self._state.step % self._save_every == 0

    def _save(self) -> None:
        # On batches, only the next batch shows a diverged step. No run can resume from such a W.
        if self._path is None or self._at is None or not np.isfinite(self._state.W).all():
            return
        state, rows_evaluated = self._at
        records = tuple(self._records)
        kept = Checkpoint(
            self._fingerprint, state, rows_evaluated, self._seconds, records, self._best
        )
        try:
            kept.save(self._path)
        except OSError as error:
            # A full disk must not cost the result of the run.
            warnings.warn(f"the checkpoint is not kept: {error}", RuntimeWarning, stacklevel=2)
        self._saved = time.perf_counter()

    def _result(self, why: Why, message: str) -> Result:
        # The checkpoint has no record of the end, because a longer run may resume from it.
        records = [*self._records, *(() if self._is_recorded else (self._record(),))]
        best = self._better(records[-1]) if self._restore_best else None
        return Result(
            W=self._state.W if best is None else best.W,
            record=records[-1] if best is None else best.record,
            history=History(records),
            why=why,
            message=message,
            n_steps=self._state.step,
            n_evaluations=self._evaluations,
            seconds=self._seconds,
        )

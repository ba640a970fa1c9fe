"""``fastloss train`` without its command line: load data, train, evaluate, and report."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastloss import data as datasets
from fastloss.arrays import as_integer
from fastloss.backends import auto
from fastloss.backends.base import Workload
from fastloss.files import check_outputs, late_interrupts, write
from fastloss.losses import get_loss
from fastloss.losses.base import Loss
from fastloss.machine import cpu_name
from fastloss.model import LinearModel, confusion_matrix
from fastloss.optim import History, Record, Result
from fastloss.optim.checkpoint import check_place
from fastloss.passes import watched
from fastloss.preprocessing import PreprocessingKind
from fastloss.settings import threads_to_use
from fastloss.training.problem import SYNTHETIC_SHAPE, Prepared, Splits, fit, load_splits
from fastloss.training.settings import Settings, fill_in, total_steps
from fastloss.training.sweep import Trial, parse_sweep, plan_trials, run_sweep
from fastloss.version import __version__

SCHEMA = 1
# All trials are held in memory at once.
_MOST_TRIALS = 1_000_000
#: Most classes with a confusion matrix: a larger one would have more entries than W.
MOST_CONFUSED = 2000

#: Function from a number of steps to a context manager: a bar with ``update(message, done)``.
Bar: TypeAlias = Callable[[int], AbstractContextManager[Callable[[str, int], None]]]


def no_bar(total: int) -> AbstractContextManager[Callable[[str, int], None]]:
    """Return a `Bar` that shows nothing."""
    return nullcontext(lambda message, done: None)


@contextmanager
def reading(bar: Bar) -> Iterator[None]:
    """Show a bar for each pass over the rows that takes seconds, until the block ends."""
    with ExitStack() as stack:
        progress, last = None, 1.0

        def tell(share: float) -> None:
            nonlocal progress, last
            if progress is None or share < last:  # another pass
                stack.close()
                progress = stack.enter_context(bar(100))
            last = share
            progress("reading rows", round(100 * share))

        with watched(tell):
            yield


@dataclass(frozen=True)
class Job:
    """A request to ``fastloss train``, validated before any data is read."""

    settings: Settings
    data: Path | None = None
    labels: str | None = None
    stream: bool | None = None
    preprocessing: PreprocessingKind = "standardize"
    validation: int | None = None
    sweep: str | None = None
    n_trials: int | None = None
    n_threads: int = field(default_factory=threads_to_use)
    checkpoint: Path | None = None
    resume: bool = False
    points: list[Settings] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "n_threads", as_integer("threads", self.n_threads, 1))
        if self.sweep is not None and self.checkpoint is not None:
            raise ValueError("a sweep keeps no checkpoint: pass either sweep or checkpoint")
        if self.sweep is None and self.n_trials is not None:
            raise ValueError("trials need a sweep: pass sweep too")
        if self.labels is not None and self.data is None:
            raise ValueError("labels need data: pass data too")
        if self.resume and self.checkpoint is None:
            raise ValueError("resume needs the checkpoint to continue from")
        if self.checkpoint is not None:
            inputs = () if self.data is None else datasets.files_of(self.data, self.labels)
            check_outputs([("checkpoint", self.checkpoint)], [("data", path) for path in inputs])
            check_place(self.checkpoint, is_resumed=self.resume)
        points = [self.settings]
        if self.sweep is not None:
            if self.n_trials is not None:
                as_integer("trials", self.n_trials, 1, _MOST_TRIALS)
            points = plan_trials(parse_sweep(self.sweep), self.settings, self.n_trials)
        object.__setattr__(self, "points", points)

    def run(self, bar: Bar = no_bar, say: Callable[[str], None] | None = None) -> Outcome:
        """Load the data, train, and evaluate the model.

        ``say`` is called with a line of text if the rows are read in blocks.

        Raises
        ------
        optim.DivergedError : the learning rate is too high.
        RuntimeError : every trial of a sweep diverged, or none was finished.
        ValueError, TypeError, OSError : invalid settings or files.
        """
        began = time.perf_counter()
        warm_up(self.settings.loss)
        with reading(bar):
            splits = load_splits(
                self.data, labels=self.labels, validation=self.validation, seed=self.settings.seed
            )
            prepared = Prepared.of(splits, self.preprocessing, stream=self.stream)
            points = [fill_in(point, prepared.scale) for point in self.points]
        prepared.check_model(points[0])
        if say is not None and prepared.is_streamed:
            say(prepared.about_reading)
        loaded = time.perf_counter()
        if self.sweep is None:
            trials = [Trial(0, points[0], self._fit(prepared, points[0], bar))]
        else:
            with bar(len(points)) as progress:
                trials = run_sweep(prepared, points, n_threads=self.n_threads, progress=progress)
        seconds = {"loading": loaded - began, "training": time.perf_counter() - loaded}
        outcome: Outcome | None = None
        # A Ctrl-C right after the training must not lose the model.
        with suppress(KeyboardInterrupt), late_interrupts(), reading(bar):
            outcome = Outcome.of(prepared, trials, self, seconds)
        if outcome is None:
            raise KeyboardInterrupt
        return outcome

    def _fit(self, prepared: Prepared, settings: Settings, bar: Bar) -> Result:
        with shown_records(bar, total_steps(settings, len(prepared.X))) as show:
            return fit(
                prepared,
                settings,
                n_threads=self.n_threads,
                callback=show,
                checkpoint=self.checkpoint,
                resume=self.resume,
            )


@contextmanager
def shown_records(bar: Bar, n_steps: int) -> Iterator[Callable[[Record], None]]:
    """Show a bar with the records of a run and its long passes; yield the run's callback."""
    with ExitStack() as stack:
        progress = stack.enter_context(bar(n_steps))
        last = ("starting", 0)

        def show(record: Record) -> None:
            nonlocal last
            accuracy = record.validation_accuracy
            shown = "" if accuracy is None else f", validation {accuracy:.1%}"
            last = (f"loss {record.loss:.4g}{shown}", record.step)
            progress(*last)

        stack.enter_context(
            watched(lambda share: progress(f"{last[0]}; {share:.0%} of a pass", last[1]))
        )
        yield show


def warm_up(loss: str | Loss) -> None:
    """Compile the kernels in the background unless they are in the cache."""
    kind = np.dtype(np.float32)
    auto.choose(Workload(get_loss(loss), SYNTHETIC_SHAPE, kind, kind))


@dataclass(frozen=True)
class Outcome:
    """A finished or interrupted training: the best model, its accuracies, and all trials.

    ``accuracies`` holds the share of correct predictions for each split. ``confusions`` counts rows
    by true class (C rows) and predicted class (C columns), for at most `MOST_CONFUSED` classes.
    """

    job: Job
    splits: Splits
    model: LinearModel
    trials: list[Trial]  # best first
    accuracies: dict[str, float]
    confusions: dict[str, NDArray[np.int64]]
    seconds: dict[str, float]

    @classmethod
    def of(
        cls, prepared: Prepared, trials: list[Trial], job: Job, seconds: dict[str, float]
    ) -> Outcome:
        """Make the model of the best trial and evaluate it on all rows."""
        best = trials[0]
        if best.result is None:
            raise RuntimeError(f"none of {len(trials)} trials has a result: {best.failure}")
        model, predicted = prepared.trained(best.result, best.settings)
        splits, confusions = prepared.splits, {}
        if model.n_classes <= MOST_CONFUSED:
            confusions = {
                name: confusion_matrix(part.y, predicted[name], model.n_classes)
                for name, part in splits.parts.items()
            }
        accuracies = model.about["accuracy"]
        return cls(job, splits, model, trials, accuracies, confusions, seconds)

    @property
    def result(self) -> Result:
        """Result of the best trial."""
        assert self.trials[0].result is not None
        return self.trials[0].result

    @property
    def settings(self) -> Settings:
        """Settings of the best trial, filled in."""
        return self.trials[0].settings

    @property
    def complete(self) -> bool:
        """Whether the training ended without an interrupt."""
        return self.result.why != "interrupted" and all(trial.complete for trial in self.trials)

    def to_json(self) -> str:
        """Return the outcome as JSON; numbers that are missing or not finite become null."""
        train, result = self.splits.train, self.result
        record = {
            "schema": SCHEMA,
            "title": "fastloss train",
            "time": time.strftime("%Y-%m-%d %H:%M:%S %z"),
            "fastloss": __version__,
            "cpu": cpu_name(),
            "threads": self.job.n_threads,
            "complete": self.complete,
            "why": result.why,
            "message": result.message,
            "data": {
                "name": train.name,
                "source": train.source,
                "rows": {name: len(getattr(self.splits, name)) for name in self.accuracies},
                "n_features": train.X.shape[1],
                "class_names": train.class_names,
                "preprocessing": self.job.preprocessing,
                "read_in_blocks": self.model.about["read_in_blocks"],
            },
            "settings": asdict(self.settings),
            "accuracy": self.accuracies,
            "confusion": {name: counts.tolist() for name, counts in self.confusions.items()},
            "loss": _number(result.loss),
            "n_steps": result.n_steps,
            "step_kept": result.record.step,
            "n_evaluations": result.n_evaluations,
            "seconds": self.seconds,
            "history": _columns(result.history),
            "sweep": self.job.sweep,
            "trials": [_trial_record(trial) for trial in self.trials],
        }
        return json.dumps(record, indent=1, allow_nan=False)

    def save(self, path: Path) -> None:
        """Write the JSON file in one step."""
        write(path, self.to_json() + "\n")


def _trial_record(trial: Trial) -> dict[str, Any]:
    return {
        "settings": asdict(trial.settings),
        "validation_accuracy": _number(trial.accuracy),
        "loss": None if trial.result is None else _number(trial.result.loss),
        "seconds": None if trial.result is None else trial.result.seconds,
        "failure": trial.failure,
    }


def _columns(history: History) -> dict[str, list[float | None]]:
    names = [f.name for f in fields(Record)]
    return {name: [_number(getattr(record, name)) for record in history] for name in names}


def _number(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else value


def worst_pairs(confusion: NDArray[np.int64], n: int = 5) -> list[tuple[int, int, int]]:
    """Return ``(true class, predicted class, rows)`` of the ``n`` most frequent errors."""
    errors = confusion.copy()
    np.fill_diagonal(errors, 0)
    order = np.argsort(-errors, axis=None, kind="stable")[:n]
    pairs = [divmod(int(place), len(errors)) for place in order]
    return [(true, given, int(errors[true, given])) for true, given in pairs if errors[true, given]]

"""Train on the workers of a dask cluster, from a folder of parts that each of them can read."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from fastloss import optim
from fastloss.arrays import Floats
from fastloss.blocks import row_blocks
from fastloss.dask import DaskObjective
from fastloss.dask.block import rows_in_block
from fastloss.data import Dataset
from fastloss.data.parts import Parts, Piece
from fastloss.labels import class_numbers
from fastloss.losses.base import Labels
from fastloss.model import LinearModel, confusion_matrix
from fastloss.optim import Record, Result
from fastloss.optim.learning_rate import curvature, sample_of
from fastloss.preprocessing import Preprocessing, PreprocessingKind
from fastloss.rows_on_disk import LARGE_SHARE, lazy_rows
from fastloss.training.job import MOST_CONFUSED, Bar, Job, Outcome, no_bar, shown_records
from fastloss.training.problem import Splits, class_weight_by_number, fit_objective, rows_set_aside
from fastloss.training.settings import Scale, Settings, fill_in, total_steps
from fastloss.training.sweep import Trial

_SAMPLE_ROWS, _SAMPLE_NUMBERS = 2000, 2**23
_TIMEOUT = 60.0
_PERCENT = 100


@dataclass(frozen=True)
class Moments:
    """The number, mean and sum of squared deviations (D,) of rows, and the classes in them.

    ``classes`` are labels of other kinds than integers; ``n_numbers`` is the largest integer label
    plus one.
    """

    n_rows: int
    mean: NDArray[np.float64]
    squares: NDArray[np.float64]
    classes: NDArray[Any] | None
    n_numbers: int

    @classmethod
    def of_labels(cls, rows: Dataset) -> Moments:
        """Return the classes in some rows, as the moments of no row."""
        none = np.zeros(rows.X.shape[1])
        return cls(0, none, none, rows.classes, 0 if rows.classes is not None else rows.n_classes)

    @np.errstate(over="ignore", invalid="ignore")
    def __add__(self, other: Moments) -> Moments:
        """Return the moments of both; by Chan, Golub and LeVeque, 1979."""
        n_rows = self.n_rows + other.n_rows
        difference = other.mean - self.mean
        classes = other.classes
        if self.classes is not None and other.classes is not None:
            classes = np.union1d(self.classes, other.classes)
        return Moments(
            n_rows,
            self.mean + difference * (other.n_rows / n_rows),
            self.squares
            + other.squares
            + np.square(difference) * (self.n_rows * other.n_rows / n_rows),
            classes,
            max(self.n_numbers, other.n_numbers),
        )


@np.errstate(over="ignore", invalid="ignore")
def moments_of(piece: Piece) -> Moments:
    """Read the rows of a piece once; raise at an entry that is not finite, or a bad label."""
    rows = piece.load()
    plain = Preprocessing.of_moments(rows.X.dtype, "none", np.empty(0), np.empty(0))
    # Sums of differences from one row lose no digits, however far the rows are from 0.
    origin = plain.apply(rows.X[:1])[0].astype(np.float64)
    sums, squares = np.zeros_like(origin), np.zeros_like(origin)
    for block in row_blocks(len(rows), rows.X.shape[1] * 8):
        differences = plain.apply(rows.X[block]) - origin
        sums += differences.sum(axis=0)
        squares += np.square(differences).sum(axis=0)
    mean = sums / len(rows)
    return replace(
        Moments.of_labels(rows),
        n_rows=len(rows),
        mean=origin + mean,
        squares=np.maximum(squares - len(rows) * np.square(mean), 0.0),
    )


def prepared(
    piece: Piece, preprocessing: Preprocessing, classes: NDArray[Any] | None, stream: bool
) -> tuple[NDArray[Any], Labels]:
    """Return preprocessed rows and class numbers; ``stream`` preprocesses at each reading."""
    rows = piece.load(require_finite=False)  # `moments_of` has looked
    X = lazy_rows(rows.X, preprocessing) if stream else preprocessing.apply(rows.X)
    if classes is None:
        return X, rows.y
    return X, class_numbers(rows.values, classes, len(rows))


@dataclass(frozen=True)
class _Rows:
    """What a report says about rows that are elsewhere."""

    n_rows: int
    X: NDArray[Any]  # without rows
    name: str
    class_names: tuple[str, ...]
    source: str

    def __len__(self) -> int:
        return self.n_rows


@dataclass(frozen=True)
class _Problem:
    """Everything that is known once all rows were read once."""

    parts: Parts
    train: list[Piece]
    held_out: list[Dataset]
    moments: Moments
    preprocessing: Preprocessing
    names: tuple[str, ...]

    @classmethod
    def of(
        cls,
        parts: Parts,
        kind: PreprocessingKind,
        validation: int | None,
        client: Any,
        progress: Callable[[str, float], Any],
    ) -> _Problem:
        train, pieces = split(parts, validation)
        held_out = [piece.load() for piece in pieces]
        found = _computed(client, moments_of, train, progress)
        # A rare class may have all its rows among those held out.
        found += map(Moments.of_labels, held_out)
        if len({"i" if m.classes is None else m.classes.dtype.kind for m in found}) > 1:
            raise TypeError("y must hold integers, strings or bools: the same kind in all parts")
        moments = reduce(add, found)
        with np.errstate(over="ignore"):
            squares = moments.squares + np.square(moments.mean)
        if not np.isfinite(squares).all():
            raise ValueError(
                f"X has too large entries for {parts.dtype}: the sums of their squares overflow; "
                "divide the features by their size first"
            )
        deviation = np.sqrt(moments.squares / moments.n_rows)
        classes = moments.classes
        names = range(moments.n_numbers) if classes is None else classes.tolist()
        if len(names) < 2:
            raise ValueError(f"{parts.folder.name} has too few classes: {len(names)}; 2 needed")
        return cls(
            parts,
            train,
            held_out,
            moments,
            Preprocessing.of_moments(parts.dtype, kind, moments.mean, deviation),
            tuple(map(str, names)),
        )

    def scale(self) -> Scale:
        """Return statistics of the preprocessed training rows."""
        preprocessing, moments = self.preprocessing, self.moments
        mean = 0.0 if preprocessing.mean is None else preprocessing.mean
        deviation = 1.0 if preprocessing.deviation is None else preprocessing.deviation
        squares = moments.squares / moments.n_rows + np.square(moments.mean - mean)
        most = min(_SAMPLE_ROWS, max(100, _SAMPLE_NUMBERS // self.parts.n_features))
        sample = preprocessing.apply(self.parts.sample(most))
        return Scale(
            moments.n_rows,
            float((squares / np.square(deviation)).sum()) + 1.0,
            curvature(sample_of(sample, True)),
        )

    def validation(self) -> Dataset | None:
        """Return the rows set aside, which are few, in the memory of this process."""
        if not self.held_out:
            return None
        classes = self.moments.classes
        labels = [
            part.y if classes is None else class_numbers(part.values, classes, len(part))
            for part in self.held_out
        ]
        name = self.parts.folder.name
        X = np.concatenate([part.X for part in self.held_out])
        y = np.concatenate(labels)
        return Dataset(X, y, name, self.names, None, name, classes)

    def model(self, W: Floats, settings: Settings) -> LinearModel:
        """Return the model with weights ``W``."""
        shape = self.parts.shape
        return LinearModel(
            W=W,
            loss=settings.loss,
            preprocessing=self.preprocessing,
            class_names=self.names,
            classes=self.moments.classes,  # type: ignore[arg-type]  # None: the numbers from 0
            image_shape=shape if len(shape) > 1 else None,
        )


def split(parts: Parts, validation: int | None) -> tuple[list[Piece], list[Piece]]:
    """Cut the parts by their shape; set the last rows of each piece aside for validation.

    So all parts are represented, also if they are sorted by class.
    """
    n_held_out = rows_set_aside(len(parts), validation)
    n_rows = rows_in_block(len(parts), parts.n_features, parts.dtype.itemsize)
    pieces = parts.pieces(n_rows)
    ends = np.cumsum([piece.stop - piece.start for piece in pieces]) * n_held_out // len(parts)
    train, held_out = [], []
    for piece, n in zip(pieces, np.diff(ends, prepend=0).tolist(), strict=True):
        middle = piece.stop - n
        train += [replace(piece, stop=middle)] if middle > piece.start else []
        held_out += [replace(piece, start=middle)] if n else []
    return train, held_out


def train_on_cluster(job: Job, client: Any, bar: Bar = no_bar) -> Outcome:
    """Do the work of `Job.run` on the workers of a dask client.

    Raises
    ------
    optim.DivergedError : the learning rate is too high.
    RuntimeError : the cluster has no workers, or loses them repeatedly.
    ValueError, TypeError, OSError : invalid settings or files.
    """
    if job.data is None:
        raise ValueError("a cluster needs data: a folder of X-*.npy and y-*.npy (--data)")
    if job.sweep is not None:
        raise ValueError("a sweep runs on one machine: pass either sweep or a cluster")
    if job.labels is not None:
        raise ValueError("parts have their labels beside them: pass no labels")
    parts = Parts.of(job.data)
    threads = sum(client.nthreads().values())
    job = replace(job, n_threads=max(1, threads))
    began = time.perf_counter()
    with _shares(bar) as progress:
        problem = _Problem.of(parts, job.preprocessing, job.validation, client, progress)
    settings = fill_in(job.settings, problem.scale())
    problem.model(np.zeros(_shape(problem), problem.preprocessing.dtype), settings)
    stream = _is_streamed(parts, client) if job.stream is None else job.stream
    with _shares(bar) as progress:
        objective = _objective(problem, settings, client, stream, progress)
    with objective as f:
        validation = problem.validation()
        loaded = time.perf_counter()
        result = _fit(problem, f, settings, validation, job, bar)
        trained = time.perf_counter()
        model, accuracies, confusions = _evaluated(problem, f, result, settings, validation)
    splits = _splits(problem, validation)
    about = {
        "data": str(splits),
        "read_in_blocks": stream,
        "settings": str(settings),
        "accuracy": accuracies,
        "stopped": result.message,
    }
    model = replace(model, about=about, history=result.history)
    seconds = {"loading": loaded - began, "training": trained - loaded}
    trial = Trial(0, settings, result)
    return Outcome(job, splits, model, [trial], accuracies, confusions, seconds)


def _shape(problem: _Problem) -> tuple[int, int]:
    return problem.parts.n_features + 1, len(problem.names)


def _objective(
    problem: _Problem,
    settings: Settings,
    client: Any,
    stream: bool,
    progress: Callable[[str, float], Any],
) -> DaskObjective:
    import dask

    make = dask.delayed(prepared, pure=False)
    preprocessing, classes = problem.preprocessing, problem.moments.classes
    return DaskObjective(
        [make(piece, preprocessing, classes, stream) for piece in problem.train],
        n_classes=len(problem.names),
        loss=settings.loss,
        l1=settings.l1,
        l2=settings.l2 or 0.0,
        intercept=True,
        class_weight=class_weight_by_number(settings, problem.names),
        client=client,
        progress=progress,
        timeout=_TIMEOUT,
    )


def _fit(
    problem: _Problem,
    objective: DaskObjective,
    settings: Settings,
    validation: Dataset | None,
    job: Job,
    bar: Bar,
) -> Result:
    held_out = None
    if validation is not None:
        held_out = problem.preprocessing.apply(validation.X), validation.y
    with shown_records(bar, total_steps(settings, objective.shape[0])) as show:
        callback: Callable[[Record], Any] = show
        return fit_objective(
            objective,
            np.zeros(_shape(problem), problem.preprocessing.dtype),
            settings,
            validation=held_out,
            callback=callback,
            checkpoint=job.checkpoint,
            resume=job.resume,
        )


def _evaluated(
    problem: _Problem,
    objective: DaskObjective,
    result: Result,
    settings: Settings,
    validation: Dataset | None,
) -> tuple[LinearModel, dict[str, float], dict[str, NDArray[np.int64]]]:
    """Return the model, its accuracies by split, and the errors on the validation rows."""
    model = problem.model(result.W, settings)
    accuracies = {"train": optim.accuracy(objective, result.W)}
    confusions = {}
    if validation is not None:
        numbers = model.class_numbers(validation.X, require_finite=False)
        accuracies["validation"] = float((numbers == validation.y).mean())
        if model.n_classes <= MOST_CONFUSED:
            confusions["validation"] = confusion_matrix(validation.y, numbers, model.n_classes)
    return model, accuracies, confusions


class _Splits(Splits):
    """Splits whose training rows are elsewhere, and have passed the checks there."""

    def __post_init__(self) -> None:
        pass


def _splits(problem: _Problem, validation: Dataset | None) -> Splits:
    name = problem.parts.folder.name
    X = np.empty((0, problem.parts.n_features), problem.parts.dtype)
    rows = _Rows(problem.moments.n_rows, X, name, problem.names, str(problem.parts.folder))
    return _Splits(cast("Dataset", rows), validation)


def _is_streamed(parts: Parts, client: Any) -> bool:
    """Return whether float copies of the rows would take too much of the workers' memory."""

    def limits(dask_scheduler: Any) -> list[int]:
        return [state.memory_limit for state in dask_scheduler.workers.values()]

    found: Sequence[int] = client.run_on_scheduler(limits)
    n_bytes = len(parts) * parts.n_features * max(4, parts.dtype.itemsize)
    return min(found, default=0) > 0 and n_bytes > 2 * LARGE_SHARE * sum(found)


def _computed(
    client: Any,
    function: Callable[[Piece], Moments],
    pieces: Sequence[Piece],
    progress: Callable[[str, float], Any],
) -> list[Moments]:
    from fastloss.dask.cluster import follow

    futures = client.map(function, pieces, pure=False)
    try:
        follow(client, futures, _TIMEOUT, progress)
        return cast("list[Moments]", client.gather(futures))
    finally:
        client.cancel(futures)


@contextmanager
def _shares(bar: Bar) -> Iterator[Callable[[str, float], Any]]:
    """Yield a function that shows a share in [0, 1]."""
    with bar(_PERCENT) as progress:
        yield lambda message, share: progress(message, round(_PERCENT * share))

"""Load, split and preprocess the rows of a problem, and fit one model to them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastloss import data as datasets
from fastloss.arrays import ClassWeight, Floats, as_integer
from fastloss.base_objective import BaseObjective
from fastloss.blocks import Room
from fastloss.data import Dataset
from fastloss.files import StrPath, read_archive
from fastloss.labels import listed
from fastloss.losses.base import Labels
from fastloss.model import LinearModel, accuracy
from fastloss.objective import Objective
from fastloss.optim import Record, Result, minimize
from fastloss.optim.learning_rate import curvature, sample_of
from fastloss.passes import pass_over
from fastloss.preprocessing import Preprocessing, PreprocessingKind
from fastloss.rows_on_disk import LazyRows, is_large, lazy_rows
from fastloss.training.settings import Scale, Settings, make_method

#: Rows, features and classes of the synthetic problem for runs without data; MNIST's width.
SYNTHETIC_SHAPE = (12_000, 784, 10)
_SYNTHETIC_TEST_ROWS = 2000

# One row in eight; 2,000 rows measure an accuracy of 95 % to half a percent (1 sigma).
_VALIDATION_SHARE = 8
_MOST_VALIDATION_ROWS = 2000


def _kind(rows: Dataset) -> str:
    pixels = "pixels" if rows.X.dtype == np.uint8 else "features"
    return f"{rows.X.shape[1]} {pixels} and {rows.n_classes} classes"


@dataclass(frozen=True)
class Splits:
    """Rows for training, validation and test; the last two may be missing."""

    train: Dataset
    validation: Dataset | None = None
    test: Dataset | None = None

    def __post_init__(self) -> None:
        """Raise ValueError unless all splits have the same features and classes."""
        for name in ("validation", "test"):
            part = getattr(self, name)
            if part is not None and _kind(part) != _kind(self.train):
                raise ValueError(
                    f"the rows for {name} have {_kind(part)}, those to train on {_kind(self.train)}"
                )

    @property
    def parts(self) -> dict[str, Dataset]:
        """Return the splits that are not missing, by name."""
        parts = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: part for name, part in parts.items() if part is not None}

    def __str__(self) -> str:
        counts = [f"{len(self.train):,} rows to train on"]
        for name in ("validation", "test"):
            part = getattr(self, name)
            counts.append(f"{len(part):,} for {name}" if part is not None else f"none for {name}")
        return f"{self.train.name}: {', '.join(counts)}"


def load_splits(
    path: StrPath | None,
    *,
    labels: str | None = None,
    validation: int | None = None,
    seed: int = 0,
) -> Splits:
    """Read the data set at ``path`` and set rows aside for validation.

    Parameters
    ----------
    path, labels : as for `data.load`; no path: a synthetic problem. A single file has no test rows,
        and neither has a folder without test files.
    validation, seed : number of training rows to set aside, and how: see `set_aside`.

    Raises
    ------
    FileNotFoundError, fastloss.data.DataFormatError : as for `data.load`.
    ValueError : ``validation`` leaves no rows for training.
    """
    test: Dataset | None = None
    if path is None:
        whole = datasets.synthetic(*SYNTHETIC_SHAPE, seed=seed)
        rows = whole.rows(slice(_SYNTHETIC_TEST_ROWS, None))
        test = whole.rows(slice(_SYNTHETIC_TEST_ROWS))
    else:
        rows = datasets.load(path, labels=labels)
        if Path(path).is_dir():
            test = _test_rows(path, labels, rows)
    train, held_out = set_aside(rows.y, validation, seed)
    return Splits(rows.rows(train), None if held_out is None else rows.rows(held_out), test)


Selection: TypeAlias = slice | NDArray[np.bool_]


def set_aside(
    labels: Labels, validation: int | None, seed: int
) -> tuple[Selection, Selection | None]:
    """Choose the rows to train on, and the rows for validation or None.

    Parameters
    ----------
    labels : (N,) in [0, C).
    validation : number of rows for validation; default: one in eight, at most 2,000. They are the
        last rows. But if those misrepresent a class, as in rows sorted by class, rows are drawn
        with ``seed``, in proportion from each class.

    Raises
    ------
    ValueError : ``validation`` leaves no rows for training.
    """
    n_rows = len(labels)
    validation = rows_set_aside(n_rows, validation)
    n_train = n_rows - validation
    if validation == 0:
        return slice(n_rows), None
    if _are_fair(labels[:n_train], labels[n_train:]):
        # Slices do not copy the rows.
        return slice(n_train), slice(n_train, None)
    is_validation = _stratified(labels, validation, seed)
    return ~is_validation, is_validation


def rows_set_aside(n_rows: int, validation: int | None) -> int:
    """Return the number of rows for validation; default: one in eight, at most 2,000."""
    if validation is None:
        validation = min(n_rows // _VALIDATION_SHARE, _MOST_VALIDATION_ROWS)
    validation = as_integer("validation", validation)
    if not 0 <= validation < n_rows:
        raise ValueError(
            f"validation must be in [0, {n_rows}), the number of rows, got {validation}"
        )
    return validation


def _are_fair(train: Labels, validation: Labels) -> bool:
    """Whether both splits have about the share of each class that random order would give."""
    n_classes = int(max(train.max(), validation.max())) + 1
    counts = np.bincount(train, minlength=n_classes)
    found = np.bincount(validation, minlength=n_classes)
    expected = (counts + found) * (len(validation) / (len(train) + len(validation)))
    is_missing = (counts == 0) & (found > 0) | (found == 0) & (expected >= 1)
    # Four standard deviations of a random draw, plus one row for very rare classes.
    is_far = np.abs(found - expected) > 4 * np.sqrt(expected) + 1
    return not (is_missing | is_far).any()


def _stratified(labels: Labels, n_chosen: int, seed: int) -> NDArray[np.bool_]:
    """Choose rows (a mask) in proportion from each class.

    At least one row of each class is not chosen, if that is possible.
    """
    order = np.random.default_rng(seed).permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    is_first = np.diff(labels[order], prepend=-1) > 0
    candidates = order[~is_first] if n_chosen <= np.count_nonzero(~is_first) else order
    chosen = np.zeros(len(labels), bool)
    # The candidates are sorted by class, so evenly spread places give each class its share.
    chosen[candidates[(2 * np.arange(n_chosen) + 1) * len(candidates) // (2 * n_chosen)]] = True
    return chosen


def _test_rows(folder: StrPath, labels: str | None, train: Dataset) -> Dataset | None:
    try:
        test = datasets.load(folder, "test", labels=labels)
    except FileNotFoundError:
        return None
    try:
        return test.numbered_as(train)
    except (TypeError, ValueError) as error:
        raise type(error)(f"the rows for test: {error}") from None


def load_rows(
    path: StrPath, split: datasets.Split, labels: str | None = None
) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """Return ``X`` (N, D) and the labels of a data set; None if a file has rows alone.

    ``X`` may have entries that are not finite. Labels are as in the file, such as strings.

    Raises
    ------
    FileNotFoundError, fastloss.data.DataFormatError : as for `data.load`.
    """
    path = Path(path)
    if path.suffix == ".npz":
        # `data.load` below has better messages for damaged files.
        with suppress(OSError, ValueError):
            if rows := read_archive(path, _rows_alone):
                return rows["X"].reshape(len(rows["X"]), -1), None
    X = datasets.load_unlabelled(path, split) if labels is None else None
    if X is not None:
        return X, None
    labelled = datasets.load(path, split, labels=labels, require_finite=False)
    return labelled.X, labelled.values


def _rows_alone(names: list[str]) -> list[str]:
    """Choose ``X`` if there are no labels, else nothing."""
    return ["X"] if "X" in names and "y" not in names else []


@dataclass(frozen=True)
class Prepared:
    """Splits, with preprocessed rows for training and validation, which runs read repeatedly.

    ``X`` is a copy of the rows, or a `LazyRows` that preprocesses rows when they are read.
    ``weights`` are the sample weights of the training rows.
    """

    splits: Splits
    preprocessing: Preprocessing
    X: Floats
    X_validation: Floats | None
    weights: NDArray[np.float64] | None = None

    @classmethod
    def of(
        cls,
        splits: Splits,
        kind: PreprocessingKind = "standardize",
        weights: NDArray[np.float64] | None = None,
        stream: bool | None = None,
    ) -> Prepared:
        """Learn the preprocessing from the training rows, which must be finite, and apply it.

        ``stream`` leaves the rows where they are, and preprocesses them when they are read.
        Default: for rows that are `rows_on_disk.is_large`.
        """
        if splits.train.n_classes < 2:
            names = " and ".join(map(repr, splits.train.class_names)) or "none"
            raise ValueError(f"{splits.train.name} has too few classes: {names}; 2 needed")
        preprocessing = Preprocessing.fit(splits.train.X, kind)

        def prepared(X: NDArray[Any]) -> Floats:
            # Some rows of a large file are lazy already.
            is_streamed = isinstance(X, LazyRows) or is_large(X) if stream is None else stream
            return lazy_rows(X, preprocessing) if is_streamed else preprocessing.apply(X)

        return cls(
            splits,
            preprocessing,
            prepared(splits.train.X),
            None if splits.validation is None else prepared(splits.validation.X),
            weights,
        )

    @property
    def is_streamed(self) -> bool:
        """Return whether the training rows are preprocessed when they are read."""
        return isinstance(self.X, LazyRows)

    @property
    def about_reading(self) -> str:
        """Return a line that says how streamed rows are read."""
        n_bytes = self.X.shape[0] * self.X.shape[1] * self.X.dtype.itemsize
        return (
            f"rows are read in blocks (a float copy would take {n_bytes / 1e9:.3g} GB of memory); "
            "batches mix rows of shuffled blocks"
        )

    @cached_property
    @np.errstate(under="ignore")
    def scale(self) -> Scale:
        """Statistics of the training rows for `fill_in`."""
        blocks = pass_over(self.X, self.X[:1].nbytes)
        room, squares = Room(self.X.shape[1], np.dtype(np.float64)), 0.0
        with np.errstate(over="ignore"):
            for rows in blocks:
                squares += float(np.square(self.X[rows], out=room.of(rows), dtype=np.float64).sum())
        if not math.isfinite(squares):
            raise ValueError(
                f"X has too large entries for {self.X.dtype}: the squared lengths of its rows sum "
                f"to {squares}; divide the features by their size first"
            )
        return Scale(len(self.X), squares / len(self.X) + 1.0, curvature(sample_of(self.X, True)))

    def objective(self, settings: Settings, n_threads: int | None = None) -> Objective:
        """Return the penalised loss over the training rows, with a bias."""
        return Objective(
            self.X,
            self.splits.train.y,
            loss=settings.loss,
            l1=settings.l1,
            l2=settings.l2 or 0.0,
            intercept=True,
            sample_weight=self.weights,
            class_weight=self._class_weight(settings),
            n_threads=n_threads,
        )

    def _class_weight(self, settings: Settings) -> ClassWeight | None:
        """Return the class weights by class number."""
        return class_weight_by_number(settings, self.splits.train.class_names)

    @property
    def validation(self) -> tuple[Floats, Labels] | None:
        """Return the preprocessed rows for validation and their labels, for `optim.minimize`."""
        if self.X_validation is None or self.splits.validation is None:
            return None
        return self.X_validation, self.splits.validation.y

    def check_model(self, settings: Settings) -> None:
        """Raise errors of `model` and of the class weights now, before the training."""
        self._class_weight(settings)
        n_features, n_classes = self.X.shape[1], self.splits.train.n_classes
        W = np.zeros((n_features + 1, n_classes), self.preprocessing.dtype)
        self.model(W, settings)

    def model(
        self, W: Floats, settings: Settings, about: Mapping[str, Any] | None = None
    ) -> LinearModel:
        """Return the model with weights ``W``."""
        train = self.splits.train
        return LinearModel(
            W=W,
            loss=settings.loss,
            preprocessing=self.preprocessing,
            class_names=train.class_names,
            classes=train.classes,  # type: ignore[arg-type]  # None: the numbers from 0
            image_shape=train.image_shape,
            about=dict(about or {}),
        )

    def trained(self, result: Result, settings: Settings) -> tuple[LinearModel, dict[str, Labels]]:
        """Return the model of a run, and its predicted class numbers (N,) by split."""
        model = self.model(result.W, settings)
        parts = self.splits.parts
        # Test rows that overflow must not cost the trained model.
        predicted = {
            name: model.class_numbers(part.X, require_finite=False) for name, part in parts.items()
        }
        about = {
            "data": str(self.splits),
            "read_in_blocks": self.is_streamed,
            "settings": str(settings),
            "accuracy": {name: accuracy(part.y, predicted[name]) for name, part in parts.items()},
            "stopped": result.message,
        }
        return replace(model, about=about, history=result.history), predicted


def class_weight_by_number(settings: Settings, names: Sequence[str]) -> ClassWeight | None:
    """Return the class weights by class number; raise if one names no class."""
    weights = settings.class_weight
    if not isinstance(weights, Mapping):
        return "balanced" if weights == "balanced" else None
    for name in weights:
        if name not in names:
            known = listed(np.array(names))
            raise ValueError(f"class_weight names {name}, which is none of the classes {known}")
    return {names.index(name): weight for name, weight in weights.items()}


def fit(
    prepared: Prepared,
    settings: Settings,
    *,
    n_threads: int | None = None,
    callback: Callable[[Record], Any] | None = None,
    checkpoint: Path | None = None,
    resume: bool = False,
) -> Result:
    """Minimise the loss over the training rows, from ``W = 0``.

    ``settings`` must be filled in.

    Raises
    ------
    optim.DivergedError : the learning rate is too high.
    ValueError : a setting that the method does not take, or a checkpoint of another run.
    """
    return fit_objective(
        prepared.objective(settings, n_threads),
        np.zeros(
            (prepared.X.shape[1] + 1, prepared.splits.train.n_classes), prepared.preprocessing.dtype
        ),
        settings,
        validation=prepared.validation,
        callback=callback,
        checkpoint=checkpoint,
        resume=resume,
    )


def fit_objective(
    objective: BaseObjective,
    W: Floats,
    settings: Settings,
    *,
    validation: tuple[Floats, Labels] | None,
    callback: Callable[[Record], Any] | None = None,
    checkpoint: Path | None = None,
    resume: bool = False,
) -> Result:
    """Minimise an objective from ``W``: see `fit`."""
    restore_best = settings.restore_best
    if restore_best is None:
        # The last W usually has the better probabilities: on synthetic rows, the best W was often
        # one of the first, with three times the log loss on test rows. With softmax on 1,200 of
        # scikit-learn's digits, the last W had half a percent more test accuracy on average, too.
        restore_best = settings.patience is not None
    return minimize(
        objective,
        W,
        make_method(settings, objective.shape[0]),
        max_epochs=settings.epochs,
        max_steps=settings.steps,
        seed=settings.seed,
        validation=validation,
        restore_best=restore_best,
        patience=settings.patience,
        callback=callback,
        checkpoint=checkpoint,
        resume=resume,
    )

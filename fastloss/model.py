"""Define `LinearModel`: a trained classifier with its weights, preprocessing and classes.

A model is saved to one ``.npz`` file of plain arrays. Loading runs no code from the file. A file
that is truncated, damaged or no model raises an error of one line.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastloss import arrays
from fastloss.advice import in_order
from fastloss.arrays import Floats
from fastloss.blocks import Room
from fastloss.files import DataFormatError, StrPath, check_archive, read_archive, written_whole
from fastloss.labels import as_classes, class_numbers
from fastloss.losses import available_losses, get_loss, name_of
from fastloss.losses.base import Labels, Loss
from fastloss.losses.softmax import Softmax
from fastloss.optim.result import History, Record
from fastloss.passes import pass_over
from fastloss.preprocessing import Preprocessing, PreprocessingKind

_FORMAT = "fastloss.LinearModel 2"
# Without classes and history.
_OLDER_FORMAT = "fastloss.LinearModel 1"


@dataclass(frozen=True, eq=False, repr=False)
class LinearModel:
    """A linear classifier: the class of a row ``x`` is the largest of ``preprocess(x) @ W + b``.

    Attributes
    ----------
    W : (D + 1, C) float32 or float64; the last row is the bias ``b``.
    loss : the loss of the training, a name or an instance.
    preprocessing : the `Preprocessing` of rows.
    class_names : C names for tables and pictures; default: the classes as text.
    image_shape : the shape of a row's D features as an image, or None.
    about : the origin of the model, as a dict that JSON can hold. `fit` and ``fastloss train``
        write "data", "settings", "accuracy" (of each split) and "stopped" (the reason).
    classes : (C,) labels: strings, integers, bools or floats; default: the numbers from 0.
    history : the records of the training, see `optim.Record`.

    Raises
    ------
    TypeError, ValueError : parts that do not fit each other.

    Examples
    --------
    >>> W = np.array([[1.0, -1.0], [0.0, 0.5]])  # one feature, a bias
    >>> plain = Preprocessing(of_pixels=False, dtype=np.dtype(np.float64))
    >>> model = LinearModel(W, "softmax", plain, ("positive", "negative"))
    >>> X = np.array([[2.0], [-3.0]])
    >>> model.predict(X)
    array([0, 1])
    >>> model.accuracy(X, np.array([0, 0]))
    0.5
    >>> model = LinearModel.fit([[2.0], [1.0], [-3.0], [-1.0]], ["up", "up", "down", "down"])
    >>> model.predict([[4.0], [-2.0]])
    array(['up', 'down'], dtype='<U4')
    """

    W: Floats
    loss: str | Loss
    preprocessing: Preprocessing
    class_names: tuple[str, ...] = ()
    image_shape: tuple[int, ...] | None = None
    about: dict[str, Any] = field(default_factory=dict)
    classes: NDArray[Any] = None  # type: ignore[assignment]  # __post_init__ makes it an array
    history: History = field(default_factory=History)

    def __post_init__(self) -> None:
        object.__setattr__(self, "loss", get_loss(self.loss))
        object.__setattr__(self, "W", arrays.as_weights(self.W))
        n_rows, n_classes = self.W.shape
        object.__setattr__(self, "classes", as_classes(self.classes, n_classes))
        if not self.class_names:
            object.__setattr__(self, "class_names", tuple(map(str, self.classes.tolist())))
        if self.W.dtype != self.preprocessing.dtype:
            dtype = self.preprocessing.dtype
            raise TypeError(f"W must be {dtype} as preprocessed rows, got {self.W.dtype}")
        if not np.isfinite(self.W).all():
            raise ValueError("W has entries that are not finite")
        if len(self.class_names) != n_classes:
            raise ValueError(f"class_names has {len(self.class_names)} names, expected {n_classes}")
        for name in ("mean", "deviation"):
            array = getattr(self.preprocessing, name)
            if array is not None and array.shape != (n_rows - 1,):
                raise ValueError(f"{name} has shape {array.shape}, expected ({n_rows - 1},)")
            if array is not None and not np.isfinite(array).all():
                raise ValueError(f"{name} has entries that are not finite")
        deviation = self.preprocessing.deviation
        if deviation is not None and not (deviation > 0).all():
            raise ValueError("deviation has entries that are not > 0")
        if self.image_shape is not None and math.prod(self.image_shape) != n_rows - 1:
            raise ValueError(f"image_shape {self.image_shape} does not hold {n_rows - 1} features")

    @classmethod
    def fit(
        cls,
        X: ArrayLike,
        y: ArrayLike,
        *,
        loss: str | Loss = "softmax",
        optimizer: str = "sgd",
        lr: float | None = None,
        l1: float = 0.0,
        l2: float | None = None,
        epochs: float | None = None,
        steps: int | None = None,
        batch_size: int | None = None,
        momentum: float | None = None,
        nesterov: bool | None = None,
        line_search: bool | None = None,
        schedule: str | None = None,
        preprocessing: PreprocessingKind = "standardize",
        validation: int | tuple[ArrayLike, ArrayLike] | None = None,
        class_weight: Mapping[Any, float] | Literal["balanced"] | None = None,
        sample_weight: ArrayLike | None = None,
        ignore_index: int | None = None,
        stream: bool | None = None,
        patience: int | None = None,
        restore_best: bool | None = None,
        n_threads: int | None = None,
        seed: int = 0,
        callback: Callable[[Record], Any] | None = None,
    ) -> LinearModel:
        """Train a model on the rows ``X`` (N, D) with labels ``y`` (N,) as ``fastloss train`` does.

        Settings that are None are computed from the data: see `training.fill_in`.

        Parameters
        ----------
        X : float16, float32, float64 or uint8 (pixels); lists and data frames of these.
            Other integers and bools become float32 if that is exact.
        y : labels: strings, integers, bools or floats. ``classes`` has them sorted. -1 is a class
            too, unless ``ignore_index=-1`` leaves unlabelled rows out.
        loss : a name, see `available_losses`, or an instance. Only softmax gives `predict_proba`.
        optimizer : "sgd", "adam", "gradient_descent", "lbfgs" or another method of `optim`.
        lr, batch_size, momentum, nesterov, line_search : parameters of the optimizer.
        l1, l2 : strengths of the penalties, see `loss_and_grad`.
        epochs, steps : limits; the first one reached ends the training.
        schedule : name of a learning-rate schedule, see `training.SCHEDULES`.
        preprocessing : see `Preprocessing.fit`.
        validation : number of rows of ``X`` to set aside, or rows of their own as ``(X, y)``.
            Default: one row in eight, at most 2,000. They are the last rows, or drawn with ``seed``
            in proportion from each class if the last rows misrepresent a class. 0: none.
        class_weight : weights by label, 1 for missing labels; or "balanced", N / (C * rows of the
            class).
        sample_weight : (N,) weights >= 0 of the rows.
        ignore_index : rows with this integer as their label are left out, also for validation.
        stream : leave the rows where they are, and preprocess them in blocks when they are read.
            Batches then mix rows of shuffled blocks. Default: for a memory-mapped ``X`` (as of
            ``np.load("X.npy", mmap_mode="r")``) whose float copy takes a quarter of the memory.
            Other rows are copied once, which makes later passes faster; True saves this copy.
        patience : stop when so many records (one an epoch of batches, or one a step on all rows)
            in a row do not exceed the highest validation accuracy.
        restore_best : keep the ``W`` of the record with the highest validation accuracy, the
            earliest on a tie. Default: only with ``patience``, because the last ``W`` usually has
            the lower loss and the better probabilities.
        n_threads : default: all available. The result does not depend on it.
        seed : seed of the order of rows.
        callback : called with each `optim.Record`; a true result stops the training.

        Returns
        -------
        LinearModel : ``history`` holds the records; ``about["accuracy"]`` the accuracies by split.
            Ctrl-C ends the training and returns the model so far.

        Raises
        ------
        optim.DivergedError : the learning rate is too high.
        TypeError, ValueError : invalid arguments, fewer than two classes, or entries of ``X`` that
            are not finite.
        """
        # Imported here, because training makes LinearModels and imports this module.
        from fastloss.training import Settings, fit_model

        settings = Settings(
            loss=loss,
            optimizer=optimizer,
            lr=lr,
            l1=l1,
            l2=l2,
            epochs=epochs,
            steps=steps,
            batch_size=batch_size,
            momentum=momentum,
            nesterov=nesterov,
            line_search=line_search,
            schedule=schedule,
            patience=patience,
            restore_best=restore_best,
            seed=seed,
        )
        return fit_model(
            X,
            y,
            settings,
            preprocessing=preprocessing,
            validation=validation,
            class_weight=class_weight,
            sample_weight=sample_weight,
            ignore_index=ignore_index,
            stream=stream,
            n_threads=n_threads,
            callback=callback,
        )

    @property
    def n_features(self) -> int:
        """Return D, the number of features without the bias."""
        return len(self.W) - 1

    @property
    def n_classes(self) -> int:
        """Return C, the number of classes."""
        return self.W.shape[1]

    def __repr__(self) -> str:
        return f"LinearModel({self.n_features} features, {self.n_classes} classes, {self.loss!r})"

    def _score_blocks(
        self, X: NDArray[Any], source: ArrayLike, require_finite: bool = True
    ) -> Iterator[tuple[slice, Floats]]:
        if X.shape[1] != self.n_features:
            raise ValueError(
                f"X has {X.shape[1]} features a row, the model was trained on {self.n_features}"
            )
        row_bytes = max(self.n_features, self.n_classes) * self.W.itemsize
        room = Room(self.n_features, self.W.dtype)
        for rows in pass_over(X, row_bytes):
            block = self.preprocessing.apply(X[rows], room.of(rows)) @ self.W[:-1] + self.W[-1]
            # Checking the scores first is cheaper: most rows have more features than scores.
            if require_finite and not np.isfinite(block).all():
                arrays.check_finite("X", X, source=source)
                row = rows.start + int(np.argmin(np.isfinite(block).all(axis=1)))
                raise ValueError(f"X[{row}] has too large entries: its scores are not finite")
            yield rows, block

    @arrays.ieee_arithmetic()
    def scores(self, X: ArrayLike, *, require_finite: bool = True) -> Floats:
        """Return the scores (N, C) of rows ``X`` (N, D), which are not yet preprocessed.

        Raises
        ------
        ValueError : another number of features, or an entry of ``X`` that is not finite.
            ``require_finite=False`` accepts such entries; the scores of their rows are not finite.
        """
        rows = arrays.as_rows(X, cast_integers=True)
        scores = np.empty((len(rows), self.n_classes), self.W.dtype)
        for places, block in self._score_blocks(rows, X, require_finite):
            scores[places] = block
        return scores

    @arrays.ieee_arithmetic()
    def predict_proba(self, X: ArrayLike) -> Floats:
        """Return the probability (N, C) of each class, the softmax of the scores; rows sum to 1.

        Raises
        ------
        ValueError : as for `scores`, or the model was trained with another loss, whose scores are
            no logarithms of probabilities.
        """
        if not isinstance(self.loss, Softmax):
            known = [name for name in available_losses() if isinstance(get_loss(name), Softmax)]
            raise ValueError(
                f"{self.loss!r} gives scores but no probabilities: "
                f"train with {' or '.join(map(repr, known))}, or use the scores"
            )
        rows = arrays.as_rows(X, cast_integers=True)
        probabilities = np.empty((len(rows), self.n_classes), self.W.dtype)
        for places, block in self._score_blocks(rows, X):
            block -= block.max(axis=1, keepdims=True)
            np.exp(block, out=block)
            probabilities[places] = block / block.sum(axis=1, keepdims=True)
        return probabilities

    @arrays.ieee_arithmetic()
    def class_numbers(self, X: ArrayLike, *, require_finite: bool = True) -> NDArray[np.int64]:
        """Return the place in ``classes`` (N,) of each row's class, which `predict` returns.

        Parameters and errors are those of `scores`. Without ``require_finite``, the class of a row
        with an entry that is not finite is arbitrary.
        """
        rows = arrays.as_rows(X, cast_integers=True)
        numbers = np.empty(len(rows), np.int64)
        for places, block in self._score_blocks(rows, X, require_finite):
            numbers[places] = block.argmax(axis=1)
        return numbers

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Return the class (N,), an entry of ``classes``, with the largest score of each row.

        Ties go to the first class. Errors are those of `scores`.
        """
        return self.classes[self.class_numbers(X)]

    def accuracy(self, X: ArrayLike, y: ArrayLike) -> float:
        """Return the share of rows, in [0, 1], whose predicted class is their label."""
        return accuracy(*self._compared(X, y))

    def confusion(self, X: ArrayLike, y: ArrayLike) -> NDArray[np.int64]:
        """Count the rows by label (C rows) and predicted class (C columns)."""
        return confusion_matrix(*self._compared(X, y), self.n_classes)

    def _compared(self, X: ArrayLike, y: ArrayLike) -> tuple[Labels, Labels]:
        """Return the class number (N,) of each label, and of each row's predicted class."""
        with in_order(X=X, y=y):
            places = self.class_numbers(X)
            return class_numbers(y, self.classes, len(places)), places

    def save(self, path: StrPath) -> None:
        """Write one ``.npz`` file; an older model there is replaced whole or not at all.

        Raises
        ------
        OSError : the file cannot be written, or is an archive of another kind, such as data.
        """
        check_place(path)
        loss = get_loss(self.loss)
        record = {
            "format": _FORMAT,
            "loss": {"name": name_of(loss), "parameters": asdict(loss)},  # type: ignore[call-overload]
            "of_pixels": self.preprocessing.of_pixels,
            "class_names": self.class_names,
            "image_shape": self.image_shape,
            "about": self.about,
            "history": [asdict(record) for record in self.history],
        }
        learnt = {"mean": self.preprocessing.mean, "deviation": self.preprocessing.deviation}
        parts: dict[str, Any] = {name: part for name, part in learnt.items() if part is not None}
        with written_whole(path) as stream:
            text = np.array(json.dumps(record))
            np.savez(stream, model=text, W=self.W, classes=self.classes, **parts)

    @classmethod
    def load(cls, path: StrPath) -> LinearModel:
        """Read a model that `save` wrote.

        Raises
        ------
        FileNotFoundError : there is no such file.
        fastloss.data.DataFormatError : the file is truncated, damaged or no model.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file")
        record, parts = _read(path)
        is_new = record["format"] == _FORMAT
        try:
            return cls(
                W=parts["W"],
                loss=type(get_loss(record["loss"]["name"]))(**record["loss"]["parameters"]),
                preprocessing=Preprocessing(
                    of_pixels=record["of_pixels"],
                    dtype=parts["W"].dtype,
                    mean=parts.get("mean"),
                    deviation=parts.get("deviation"),
                ),
                class_names=tuple(record["class_names"]),
                image_shape=record["image_shape"] and tuple(record["image_shape"]),
                about=record["about"],
                classes=parts["classes"] if is_new else np.arange(parts["W"].shape[1]),
                history=History(Record(**entry) for entry in record.get("history", ())),
            )
        except (KeyError, TypeError, ValueError) as error:
            reason = f"missing {error}" if isinstance(error, KeyError) else str(error)
            raise DataFormatError(path, f"the parts of the model do not fit: {reason}") from error


def check_place(path: StrPath) -> None:
    """Raise FileExistsError if ``path`` is an archive that is no model, such as data."""
    check_archive(path, "model")


def confusion_matrix(
    labels: NDArray[np.int64], predicted: NDArray[np.int64], n_classes: int
) -> NDArray[np.int64]:
    """Count the rows by class number (C rows) and by predicted class number (C columns)."""
    counts = np.bincount(labels * n_classes + predicted, minlength=n_classes**2)
    return counts.reshape(n_classes, n_classes)


def accuracy(labels: NDArray[np.int64], predicted: NDArray[np.int64]) -> float:
    """Return the share of rows, in [0, 1], whose predicted class number is their own."""
    return float(np.mean(labels == predicted))


def _read(path: Path) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Return the record and the arrays of a file; raise DataFormatError unless it is a model."""
    try:
        parts = read_archive(path)
    except DataFormatError as error:
        raise DataFormatError(
            path, f"not a model that fastloss saved: {error.problem}", error.offset
        ) from error
    try:
        record = json.loads(str(parts["model"]))
        saved_as = record["format"]
    except (KeyError, TypeError, ValueError):
        found = ", ".join(parts) or "nothing"
        raise DataFormatError(
            path, f"expected a model that fastloss saved, found an archive of {found}"
        ) from None
    if saved_as not in (_FORMAT, _OLDER_FORMAT) or "W" not in parts:
        raise DataFormatError(path, f"expected {_FORMAT!r} with W, found {saved_as!r}")
    return record, parts

"""Define `LinearModel`: a trained classifier with its weights, preprocessing and class names.

A model is saved to one ``.npz`` file of plain arrays. Loading runs no code from the file. A file
that is truncated, damaged or no model raises an error of one line.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from fastloss import arrays
from fastloss.arrays import Floats
from fastloss.blocks import row_blocks
from fastloss.files import DataFormatError, StrPath, check_archive, read_archive, written_whole
from fastloss.losses import get_loss, name_of
from fastloss.losses.base import Loss

PreprocessingKind = Literal["none", "mean_image", "standardize"]

_PIXEL_DEVIATION = 8 / 255
_FORMAT = "fastloss.LinearModel 1"


@dataclass(frozen=True, eq=False)
class Preprocessing:
    """The transformation of a row before the product with ``W``: ``(x / 255 - mean) / deviation``.

    Only uint8 pixels are divided by 255, which maps them to [0, 1].

    Attributes
    ----------
    of_pixels : whether rows are uint8.
    dtype : dtype of the result: float64 for rows of float64, else float32.
    mean : (D,), or None to subtract nothing.
    deviation : (D,), all > 0, or None to skip the division.
    """

    of_pixels: bool
    dtype: np.dtype[Any] = field(default_factory=lambda: np.dtype(np.float32))
    mean: Floats | None = None
    deviation: Floats | None = None

    @classmethod
    @np.errstate(under="ignore")
    def fit(cls, X: NDArray[Any], kind: PreprocessingKind = "standardize") -> Preprocessing:
        """Learn the preprocessing from the training rows ``X`` (N, D).

        Parameters
        ----------
        X : uint8, float32 or float64; never copied to floats as a whole.
        kind : "none"; "mean_image", which subtracts the mean of each column; or "standardize",
            which also divides by its standard deviation. For pixels, a standard deviation of 8 grey
            levels is added in quadrature, so that a nearly constant pixel is not amplified. A
            constant column of floats is not divided.

        Raises
        ------
        TypeError, ValueError : an ``X`` of another dtype or shape, or an unknown kind.
        """
        X = arrays.as_rows(X)
        if kind not in get_args(PreprocessingKind):
            known = ", ".join(map(repr, get_args(PreprocessingKind)))
            raise ValueError(f"unknown preprocessing {kind!r}; known: {known}")
        plain = cls(
            of_pixels=X.dtype == np.uint8,
            dtype=np.dtype(np.float64 if X.dtype == np.float64 else np.float32),
        )
        if kind == "none":
            return plain
        # Scaling by powers of two is exact, and keeps sums and squares from over- or underflowing.
        scale = plain._scale(X)
        mean = plain._mean(X, lambda block: block / scale) * scale
        centred = replace(plain, mean=mean.astype(plain.dtype))
        if kind == "mean_image":
            return centred
        # Centred on the stored mean: a constant column then deviates by rounding only.
        scale = centred._scale(X)
        deviation = np.sqrt(centred._mean(X, lambda block: np.square(block / scale))) * scale
        if plain.of_pixels:
            deviation = np.hypot(deviation, _PIXEL_DEVIATION)
        typed = deviation.astype(plain.dtype)
        typed[(deviation <= np.finfo(plain.dtype).eps * np.abs(mean)) | (typed == 0)] = 1.0
        return replace(centred, deviation=typed)

    def _mean(
        self, X: NDArray[Any], function: Callable[[NDArray[np.float64]], NDArray[np.float64]]
    ) -> NDArray[np.float64]:
        """Return the mean (D,) over rows of ``function`` of the preprocessed rows in float64."""
        total = np.zeros(X.shape[1])
        for rows in row_blocks(len(X), X.shape[1] * total.itemsize):
            total += function(self.apply(X[rows]).astype(np.float64)).sum(axis=0)
        return total / len(X)

    def _scale(self, X: NDArray[Any]) -> NDArray[np.float64]:
        """Return a power of two (D,) near the largest preprocessed number of each column."""
        largest = np.zeros(X.shape[1], self.dtype)
        if self.of_pixels:
            return largest + 1.0
        for rows in row_blocks(len(X), X.shape[1] * self.dtype.itemsize):
            np.maximum(largest, np.abs(self.apply(X[rows])).max(axis=0), out=largest)
        return np.ldexp(1.0, np.frexp(largest)[1] - 1)

    @np.errstate(under="ignore")
    def apply(self, X: NDArray[Any]) -> Floats:
        """Return a preprocessed copy of ``X`` (N, D), in ``self.dtype``."""
        self.check(X)
        rows = np.empty(X.shape, self.dtype)
        for block in row_blocks(len(X), X.shape[1] * self.dtype.itemsize):
            part = rows[block]
            part[...] = X[block]
            if self.of_pixels:
                part *= self.dtype.type(1 / 255)
            if self.mean is not None:
                part -= self.mean
            if self.deviation is not None:
                part /= self.deviation
        return rows

    def check(self, X: NDArray[Any]) -> None:
        """Raise TypeError unless ``X`` is uint8 exactly if the training rows were."""
        if (X.dtype == np.uint8) != self.of_pixels:
            fitted = "uint8 pixels" if self.of_pixels else "float rows"
            raise TypeError(f"X must be {fitted} as in training, got {X.dtype}")


@dataclass(frozen=True, eq=False, repr=False)
class LinearModel:
    """A linear classifier: the class of a row ``x`` is the largest of ``preprocess(x) @ W + b``.

    Attributes
    ----------
    W : (D + 1, C) float32 or float64; the last row is the bias ``b``.
    loss : the loss of the training, a name or an instance.
    preprocessing : the `Preprocessing` of rows.
    class_names : C names.
    image_shape : the shape of a row's D features as an image, or None.
    about : the origin of the model, as a dict that JSON can hold.

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
    """

    W: Floats
    loss: str | Loss
    preprocessing: Preprocessing
    class_names: tuple[str, ...]
    image_shape: tuple[int, ...] | None = None
    about: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "loss", get_loss(self.loss))
        n_rows, n_classes = arrays.as_weights(self.W).shape
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

    def _score_blocks(self, X: NDArray[Any]) -> Iterator[tuple[slice, Floats]]:
        X = arrays.as_rows(X)
        if X.shape[1] != self.n_features:
            raise ValueError(
                f"X has {X.shape[1]} features a row, the model was trained on {self.n_features}"
            )
        row_bytes = max(self.n_features, self.n_classes) * self.W.itemsize
        for rows in row_blocks(len(X), row_bytes):
            yield rows, self.preprocessing.apply(X[rows]) @ self.W[:-1] + self.W[-1]

    @np.errstate(under="ignore")
    def scores(self, X: NDArray[Any]) -> Floats:
        """Return the scores (N, C) of rows ``X`` (N, D), which are not yet preprocessed."""
        scores = np.empty((len(X), self.n_classes), self.W.dtype)
        for rows, block in self._score_blocks(X):
            scores[rows] = block
        return scores

    @np.errstate(under="ignore")
    def predict(self, X: NDArray[Any]) -> NDArray[np.int64]:
        """Return the class (N,) with the largest score of each row; ties go to the lowest class."""
        classes = np.empty(len(X), np.int64)
        for rows, block in self._score_blocks(X):
            classes[rows] = block.argmax(axis=1)
        return classes

    def accuracy(self, X: NDArray[Any], y: NDArray[np.int64]) -> float:
        """Return the share of rows, in [0, 1], whose predicted class is their label."""
        return accuracy(y, self.predict(X), self.n_classes)

    def confusion(self, X: NDArray[Any], y: NDArray[np.int64]) -> NDArray[np.int64]:
        """Count the rows by label (C rows) and predicted class (C columns)."""
        return confusion_matrix(y, self.predict(X), self.n_classes)

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
        }
        learnt = {"mean": self.preprocessing.mean, "deviation": self.preprocessing.deviation}
        parts: dict[str, Any] = {name: part for name, part in learnt.items() if part is not None}
        with written_whole(path) as stream:
            np.savez(stream, model=np.array(json.dumps(record)), W=self.W, **parts)

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
            )
        except (KeyError, TypeError, ValueError) as error:
            reason = f"missing {error}" if isinstance(error, KeyError) else str(error)
            raise DataFormatError(path, f"the parts of the model do not fit: {reason}") from error


def check_place(path: StrPath) -> None:
    """Raise FileExistsError if ``path`` is an archive that is no model, such as data."""
    check_archive(path, "model")


def confusion_matrix(
    y: NDArray[np.int64], classes: NDArray[np.int64], n_classes: int
) -> NDArray[np.int64]:
    """Count the rows by label ``y`` (C rows) and by predicted ``classes`` (C columns).

    Raises
    ------
    ValueError : labels that are not in [0, C), or another number of labels than of classes.
    """
    labels = _labels(y, classes, n_classes)
    counts = np.bincount(labels * n_classes + classes, minlength=n_classes**2)
    return counts.reshape(n_classes, n_classes)


def accuracy(y: NDArray[np.int64], classes: NDArray[np.int64], n_classes: int) -> float:
    """Return the share of rows whose class is their label ``y``; errors as `confusion_matrix`."""
    return float(np.mean(_labels(y, classes, n_classes) == classes))


def _labels(y: NDArray[np.int64], classes: NDArray[np.int64], n_classes: int) -> NDArray[np.int64]:
    labels = arrays.as_labels(y, len(classes))
    arrays.check_label_range(labels, int(labels.max()), n_classes)
    return labels


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
    if saved_as != _FORMAT or "W" not in parts:
        raise DataFormatError(path, f"expected {_FORMAT!r} with W, found {saved_as!r}")
    return record, parts

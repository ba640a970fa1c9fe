"""Define `Dataset`: labelled rows, validated when built."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from fastloss.arrays import ROW_TYPE_NAMES, ROW_TYPES, as_selection
from fastloss.labels import class_numbers
from fastloss.rows_on_disk import select

Split: TypeAlias = Literal["train", "test"]
Bytes: TypeAlias = npt.NDArray[np.uint8]
Labels: TypeAlias = npt.NDArray[np.int64]
DIGITS = tuple("0123456789")


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """A labelled data set, validated when built.

    Attributes
    ----------
    X : (N, D) array of float16, float32, float64 or uint8
        It may be memory-mapped. Some rows of a large one are read when they are indexed.
    y : (N,) array of int64
        Labels in ``[0, n_classes)``.
    name : str
    class_names : tuple of str
    image_shape : tuple of int or None
        Shape of a row as an image: ``(3, 32, 32)`` (channel-major), ``(28, 28)``, ...
    source : str
        One-line citation.
    classes : (C,) array or None
        Labels of the classes in the file, if these are not the integers from 0.

    Raises
    ------
    TypeError
        Another dtype.
    ValueError
        A shape that does not fit, or a label out of range.
    """

    X: npt.NDArray[Any]
    y: Labels
    name: str
    class_names: tuple[str, ...]
    image_shape: tuple[int, ...] | None
    source: str
    classes: npt.NDArray[Any] | None = None

    def __post_init__(self) -> None:
        X, y, shape = self.X, self.y, self.image_shape
        if X.dtype not in ROW_TYPES:
            raise TypeError(f"X has dtype {X.dtype}; expected {ROW_TYPE_NAMES}")
        if y.dtype != np.int64:
            raise TypeError(f"y has dtype {y.dtype}; expected int64")
        if X.ndim != 2:
            raise ValueError(f"X has shape {X.shape}; expected (N, D)")
        if y.shape != X.shape[:1]:
            raise ValueError(f"y has shape {y.shape}; expected {X.shape[:1]}, one label a row")
        if shape is not None and math.prod(shape) != X.shape[1]:
            raise ValueError(f"image_shape = {shape} does not hold the {X.shape[1]} columns of X")
        bad = first_bad_label(y, self.n_classes)
        if bad is not None:
            raise ValueError(f"y[{bad}] = {y[bad]} is not in [0, {self.n_classes})")

    @property
    def n_classes(self) -> int:
        """Return the number of classes C, whether or not each class has a row."""
        return len(self.class_names)

    def __len__(self) -> int:
        return len(self.y)

    def __repr__(self) -> str:
        image = "" if self.image_shape is None else f", image_shape={self.image_shape}"
        X = f"{self.X.shape} {self.X.dtype}"
        return f"Dataset({self.name!r}, X={X}, n_classes={self.n_classes}{image})"

    def rows(self, selection: slice | Sequence[int] | npt.NDArray[Any]) -> Dataset:
        """Return the data set of some rows: a view for a slice, a copy for indices or a mask."""
        rows = as_selection(selection, len(self))
        return replace(self, X=select(self.X, rows), y=self.y[rows])

    @property
    def values(self) -> npt.NDArray[Any]:
        """Return the labels (N,) as in the file: strings or integers."""
        return self.y if self.classes is None else self.classes[self.y]

    def numbered_as(self, other: Dataset) -> Dataset:
        """Return the same rows, with labels that are numbers of the classes of another data set.

        Raises
        ------
        TypeError, ValueError
            A label that is none of these classes.
        """
        if self.class_names == other.class_names:
            return self
        classes = np.arange(other.n_classes) if other.classes is None else other.classes
        y = class_numbers(self.values, classes, len(self))
        return replace(self, y=y, class_names=other.class_names, classes=other.classes)


def first_bad_label(labels: npt.NDArray[Any], n_classes: int) -> int | None:
    bad = (labels < 0) | (labels >= n_classes)
    return int(bad.argmax()) if bad.any() else None


def listed(items: Iterable[object]) -> str:
    return ", ".join(map(str, items)) or "nothing"

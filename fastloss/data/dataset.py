"""Define `Dataset`: labelled rows, validated when built."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from fastloss.arrays import ROW_TYPE_NAMES, ROW_TYPES, as_selection

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
    y : (N,) array of int64
        Labels in ``[0, n_classes)``.
    name : str
    class_names : tuple of str
    image_shape : tuple of int or None
        Shape of a row as an image: ``(3, 32, 32)`` (channel-major), ``(28, 28)``, ...
    source : str
        One-line citation.

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
        return replace(self, X=self.X[rows], y=self.y[rows])


def first_bad_label(labels: npt.NDArray[Any], n_classes: int) -> int | None:
    bad = (labels < 0) | (labels >= n_classes)
    return int(bad.argmax()) if bad.any() else None


def listed(items: Iterable[object]) -> str:
    return ", ".join(map(str, items)) or "nothing"

"""Make a `Dataset` of rows and labels that come from files of arrays or tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fastloss.arrays import MOST_CLASSES, ROW_TYPE_NAMES, ROW_TYPES, check_finite, flat_column
from fastloss.data.dataset import Dataset, Labels, first_bad_label
from fastloss.files import DataFormatError, StrPath
from fastloss.labels import as_values, distinct_classes


def labelled(
    X: npt.NDArray[Any],
    values: npt.NDArray[Any],
    *,
    file: Path,
    labels_place: StrPath,
    name: str,
    require_finite: bool,
) -> Dataset:
    """Return checked rows ``X`` (N, D, ...) with labels ``values`` (N,) or (N, 1).

    Integers are class numbers from 0 to the largest. Strings and bools are sorted into classes.

    Raises
    ------
    DataFormatError
        The rows of `file`, or the labels of `labels_place`, are at fault.
    """
    X, shape = checked_rows(X, file, require_finite=require_finite), X.shape
    values = flat_column(values)
    check_one_label_a_row(values, len(X), file, labels_place)
    try:
        y, classes = _numbered(values)
    except (TypeError, ValueError) as error:
        raise DataFormatError(labels_place, str(error)) from error
    names = range(int(y.max()) + 1) if classes is None else classes.tolist()
    return Dataset(
        X=X,
        y=y,
        name=name,
        class_names=tuple(map(str, names)),
        image_shape=shape[1:] if len(shape) > 2 else None,
        source=file.name,
        classes=classes,
    )


def checked_rows(X: npt.NDArray[Any], file: Path, *, require_finite: bool) -> npt.NDArray[Any]:
    """Return ``X`` (N, D, ...) as (N, D); raise DataFormatError at the first thing at fault."""
    if X.dtype not in ROW_TYPES:
        raise DataFormatError(file, f"X has dtype {X.dtype}; expected {ROW_TYPE_NAMES}")
    if X.ndim < 2 or X.size == 0:
        raise DataFormatError(file, f"X has shape {X.shape}; expected (N, D, ...), not empty")
    X = X.reshape(len(X), -1)
    if require_finite:
        try:
            check_finite("X", X)
        except ValueError as error:
            raise DataFormatError(file, str(error)) from error
    return X


def check_one_label_a_row(
    values: npt.NDArray[Any], n_rows: int, file: Path, labels_place: StrPath
) -> None:
    """Raise DataFormatError unless ``values`` has shape (``n_rows``,), as X in `file`."""
    if values.ndim != 1:
        problem = f"labels have shape {values.shape}; expected ({n_rows},), one label a row"
        raise DataFormatError(labels_place, problem)
    if len(values) != n_rows:
        problem = f"{len(values)} labels, but {n_rows} rows in {file.name}"
        raise DataFormatError(labels_place, problem)


def _numbered(values: npt.NDArray[Any]) -> tuple[Labels, npt.NDArray[Any] | None]:
    """Return class numbers (N,), and the classes (C,) if these are not the numbers from 0."""
    values = as_values(values, len(values))
    if values.dtype.kind == "S":
        values = np.char.decode(values, "utf-8")
    if values.dtype.kind in "bU":
        classes, y = distinct_classes(values)
        return y, classes
    if not np.can_cast(values.dtype, np.int64):
        raise TypeError(f"y has dtype {values.dtype}; expected integers that fit int64, or strings")
    bad = first_bad_label(values, MOST_CLASSES)
    if bad is not None:
        raise ValueError(f"y[{bad}] = {values[bad]} is not in [0, {MOST_CLASSES})")
    return values.astype(np.int64), None

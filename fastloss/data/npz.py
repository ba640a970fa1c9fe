"""Read data sets from ``.npz`` archives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fastloss.arrays import MOST_CLASSES, check_finite, flat_column
from fastloss.data.dataset import Dataset, listed
from fastloss.data.reading import existing
from fastloss.files import DataFormatError, StrPath, read_archive


def load_npz(path: StrPath, *, require_finite: bool = True) -> Dataset:
    """Load an ``.npz`` archive with the arrays X and y, or else x_train and y_train.

    An X of more than two dimensions is flattened to (N, D); `image_shape` keeps its shape. Classes
    range from 0 to the largest label. ``require_finite=False`` accepts NaN and infinity in X.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    DataFormatError
        No such archive (the message lists its keys), pickled objects, an X of a dtype that
        `Dataset` rejects, labels that are not integers >= 0, shapes that disagree, or a number of
        X that is not finite.
    """
    path = existing(path)
    X, y = _read_npz(path)
    if X.ndim < 2 or X.size == 0:
        raise DataFormatError(path, f"X has shape {X.shape}; expected (N, D, ...), not empty")
    if not np.can_cast(y.dtype, np.int64):
        raise DataFormatError(path, f"y has dtype {y.dtype}; expected integers that fit int64")
    n_classes = min(1 + int(y.max(initial=0)), MOST_CLASSES)
    try:
        X, shape = np.ascontiguousarray(X.reshape(len(X), -1), X.dtype.newbyteorder("=")), X.shape
        if require_finite:
            check_finite("X", X)
        return Dataset(
            X=X,
            y=y.astype(np.int64),
            name=path.stem,
            class_names=tuple(map(str, range(n_classes))),
            image_shape=shape[1:] if len(shape) > 2 else None,
            source=path.name,
        )
    except (TypeError, ValueError) as error:
        raise DataFormatError(path, str(error)) from error


def _read_npz(path: Path) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    def choose(found: list[str]) -> tuple[str, str]:
        for keys in (("X", "y"), ("x_train", "y_train")):
            if set(keys) <= set(found):
                return keys
        raise DataFormatError(
            path, f"expected the keys X and y, or x_train and y_train; found {listed(found)}"
        )

    X, y = read_archive(path, choose).values()
    return X, flat_column(y)

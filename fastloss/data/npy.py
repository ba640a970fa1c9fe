"""Map ``.npy`` files into memory: rows in ``X.npy``, labels in ``y.npy``."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fastloss.data.dataset import Dataset, Split
from fastloss.data.labelled import checked_rows, labelled
from fastloss.data.reading import existing, find
from fastloss.files import DataFormatError, StrPath, named, read_npy_header
from fastloss.rows_on_disk import is_large

#: Files of rows in a folder; the first one that is there is used.
ROWS = {
    "train": ("X.npy", "X_train.npy", "train/X.npy"),
    "test": ("X_test.npy", "test/X.npy"),
}


def load_npy(
    path: StrPath,
    split: Split = "train",
    *,
    labels: StrPath | None = None,
    require_finite: bool = True,
) -> Dataset:
    """Map the rows of a ``.npy`` file into memory, and read their labels from another one.

    Numbers of X are read from the disk when they are used, so X may be larger than memory. All are
    read once to check that they are finite. An X of more than two dimensions is flattened to
    (N, D); `image_shape` keeps its shape.

    Parameters
    ----------
    path : str or path
        The file of X (N, D, ...), or its folder, which has ``X.npy``, ``X_train.npy`` or
        ``train/X.npy``, and for the test split ``X_test.npy`` or ``test/X.npy``.
    split : {"train", "test"}
        The part of a folder to load; a single file ignores `split`.
    labels : str or path, optional
        The file of y (N,) or (N, 1), integers or strings. Default: beside X, with its name after
        ``y`` instead of ``X``; ``y.npy`` if the name does not start with ``X``. The test rows of a
        folder always have the default.
    require_finite : bool
        Whether NaN or infinity in X is an error.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    DataFormatError
        A file that is truncated or no ``.npy`` file, Python objects, another dtype or shape, no
        labels, another number of them than of rows, or a number of X that is not finite.
    """
    path = existing(path, split)
    file = _rows_file(path, split)
    if labels is None or (path.is_dir() and split == "test"):
        labels_file = _labels_beside(file)
        if not labels_file.is_file():
            other = ", or --labels FILE" if split == "train" or path.is_file() else ""
            problem = f"has no labels: expected {labels_file.name} beside it{other}"
            raise DataFormatError(file, problem)
    else:
        labels_file = existing(labels)
    return labelled(
        _map_rows(file),
        np.array(map_npy(labels_file)),
        file=file,
        labels_place=labels_file,
        name=path.name if path.is_dir() else file.stem,
        require_finite=require_finite,
    )


def load_npy_rows(path: StrPath, split: Split) -> npt.NDArray[Any] | None:
    """Return X as `load_npy` does, perhaps with numbers that are not finite; None if it has a y."""
    file = _rows_file(existing(path, split), split)
    if _labels_beside(file).is_file():
        return None
    return checked_rows(_map_rows(file), file, require_finite=False)


def _rows_file(path: Path, split: Split) -> Path:
    return path if path.is_file() else find(path, ROWS[split])[0]


def _labels_beside(file: Path) -> Path:
    return file.with_name(f"y{file.name[1:]}" if file.name.startswith("X") else "y.npy")


def _map_rows(file: Path) -> npt.NDArray[Any]:
    """Map X; a small X in another order of bytes or of axes is copied."""
    X = map_npy(file)
    if X.flags.c_contiguous and X.dtype.isnative:
        return X
    if is_large(X):
        problem = "in Fortran order, so each row is scattered over the file"
        if not X.dtype.isnative:
            problem = f"of dtype {X.dtype}, in the byte order of other machines"
        raise DataFormatError(
            file, f"X is {problem}, and too large to convert: save it in C order as {X.dtype.name}"
        )
    return np.array(X, X.dtype.newbyteorder("="), order="C")


def map_npy(file: Path) -> npt.NDArray[Any]:
    """Map the array of a ``.npy`` file into memory, read-only."""
    with file.open("rb") as stream:
        start = stream.read(8)
        if not start.startswith(np.lib.format.MAGIC_PREFIX):
            found = f"it starts with {start!r}" if start else "an empty file"
            raise DataFormatError(file, f"expected a .npy file, found {found}", 0)
        stream.seek(0)
        try:
            shape, is_fortran, dtype = read_npy_header(stream)
            if min(shape, default=0) < 0:
                raise ValueError(f"shape {shape}")
        except Exception as error:  # ast, struct and NumPy raise a dozen types
            raise DataFormatError(file, f"damaged header ({named(error)})", 6) from error
        offset, size = stream.tell(), os.fstat(stream.fileno()).st_size
    if dtype.hasobject:
        raise DataFormatError(file, "holds Python objects; save an array of numbers or strings")
    n_bytes = math.prod(shape) * dtype.itemsize
    if size - offset < n_bytes:
        problem = f"{size - offset} bytes of data, but the header gives the shape {shape}"
        raise DataFormatError(file, f"truncated: {problem} of {dtype}: {n_bytes} bytes", size)
    if n_bytes == 0:  # no file can be mapped from its end
        return np.empty(shape, dtype)
    return np.memmap(file, dtype, "r", offset, shape, "F" if is_fortran else "C")

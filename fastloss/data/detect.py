"""Load a data set of any kind, recognised by the names of its files."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fastloss.data import arrow, npy
from fastloss.data.cifar10 import load_cifar10
from fastloss.data.dataset import Dataset, Split, listed
from fastloss.data.mnist import load_mnist
from fastloss.data.npz import load_npz
from fastloss.data.parts import PARTS
from fastloss.data.reading import existing, find
from fastloss.files import DataFormatError, StrPath

_IMAGES = {
    **dict.fromkeys(("data_batch_*", "test_batch*"), load_cifar10),
    **dict.fromkeys(("*-ubyte", "*-ubyte.gz"), load_mnist),
}
_ARRAYS: dict[str, Any] = {
    "*.npy": (npy.load_npy, npy.load_npy_rows),
    **dict.fromkeys(
        (f"*{end}" for end in arrow.SUFFIXES), (arrow.load_arrow, arrow.load_arrow_rows)
    ),
}
_IN_FOLDERS = (
    *_IMAGES,
    *(name for names in npy.ROWS.values() for name in names),
    *(f"{split}{end}" for split in ("train", "test") for end in arrow.SUFFIXES),
)
# Stricter than `PARTS`: the folder may hold X-train.npy, whose labels are elsewhere.
_NUMBERED_PARTS = "X-[0-9]*.npy"


def load(
    path: StrPath,
    split: Split = "train",
    *,
    labels: StrPath | None = None,
    require_finite: bool = True,
) -> Dataset:
    """Load the data set at `path`, recognised by its file names.

    Parameters
    ----------
    path : str or path
        A folder, or one of its files:

        - CIFAR-10 (``data_batch_*``, ``test_batch*``) or MNIST (``*-ubyte``, ``*-ubyte.gz``);
        - an ``.npz`` archive, see `load_npz`;
        - ``X.npy`` with ``y.npy``, mapped into memory, so that X may be larger than it: see
          `load_npy`. A folder has ``X_train.npy`` and ``X_test.npy``, or ``train/X.npy`` and
          ``test/X.npy``, each with its ``y``, or only ``X.npy``;
        - ``.parquet``, ``.arrow`` or ``.feather``, read into memory: see `load_arrow`. A folder has
          ``train.parquet`` and perhaps ``test.parquet``.
    split : {"train", "test"}
        The part of a folder to load; a single file ignores `split`.
    labels : str or path, optional
        For ``.npy`` files, the file of the labels; for tables, their column.
    require_finite : bool
        Whether NaN or infinity in X is an error.

    Raises
    ------
    FileNotFoundError
        There is nothing at `path`, or the folder has none of these files.
    DataFormatError
        The file is damaged, or none of these.
    ImportError
        The file needs pyarrow.
    """
    path = existing(path, split)
    name = _name_of(path)
    if (readers := _array_readers(name)) is not None:
        return readers[0](path, split, labels=labels, require_finite=require_finite)
    if labels is not None:
        raise ValueError(f"{path} has its own labels: labels= (--labels) is for .npy and tables")
    if path.is_file() and path.suffix == ".npz":
        return load_npz(path, require_finite=require_finite)
    for pattern, reader in _IMAGES.items():
        if fnmatchcase(name, pattern):
            return reader(path, split)
    start = np.fromfile(path, np.uint8, count=8).tobytes()
    looked_for = listed([*_IMAGES, *_ARRAYS, "*.npz"])
    raise DataFormatError(path, f"looked for the name {looked_for}; the file starts {start!r}", 0)


def load_unlabelled(path: StrPath, split: Split = "train") -> npt.NDArray[Any] | None:
    """Return X (N, D) of ``.npy`` files and tables without labels; None if there are labels.

    Numbers of X need not be finite. Errors are those of `load`.
    """
    path = existing(path, split)
    readers = _array_readers(_name_of(path))
    return None if readers is None else readers[1](path, split)


def _array_readers(name: str) -> Any:
    """Return the readers of a file of an array or a table, with and without labels, or None."""
    return next((_ARRAYS[pattern] for pattern in _ARRAYS if fnmatchcase(name, pattern)), None)


def _name_of(path: Path) -> str:
    """Return the name of a file, or of the file that tells which data set a folder holds."""
    if path.is_file():
        return path.name
    if parts := sorted(path.glob(_NUMBERED_PARTS)):
        raise DataFormatError(
            path,
            f"holds {len(parts)} parts such as {parts[0].name}: train on them with fastloss train "
            f"--workers 2 --data {path}; other commands take one part",
        )
    return find(path, _IN_FOLDERS)[0].name


def files_of(path: StrPath, labels: StrPath | None = None) -> list[Path]:
    """Return the files that `load` may read for `path`, including those beside a single file."""
    path = Path(path)
    if path.suffix == ".npz":
        return [path]
    given = [] if labels is None else [Path(labels)]
    folder = path if path.is_dir() else path.parent
    names = (*_IN_FOLDERS, PARTS)
    patterns = (*names, *(name.replace("X", "y") for name in names), "batches.meta*")
    return [path, *given, *(file for pattern in patterns for file in folder.glob(pattern))]

"""Load a data set of any kind, recognised by the names of its files."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np

from fastloss.data.cifar10 import load_cifar10
from fastloss.data.dataset import Dataset, Split, listed
from fastloss.data.mnist import load_mnist
from fastloss.data.npz import load_npz
from fastloss.data.reading import existing, find
from fastloss.files import DataFormatError, StrPath

_READERS = {
    **dict.fromkeys(("data_batch_*", "test_batch*"), load_cifar10),
    **dict.fromkeys(("*-ubyte", "*-ubyte.gz"), load_mnist),
}


def load(path: StrPath, split: Split = "train", *, require_finite: bool = True) -> Dataset:
    """Load the data set at `path`, recognised by its file names.

    Parameters
    ----------
    path : str or path
        A folder of CIFAR-10 (``data_batch_*``, ``test_batch*``) or MNIST (``*-ubyte``,
        ``*-ubyte.gz``) files, one such file, or an ``.npz`` archive.
    split : {"train", "test"}
        The part of a folder to load; a single file ignores `split`.
    require_finite : bool
        Whether NaN or infinity in X is an error.

    Raises
    ------
    FileNotFoundError
        There is nothing at `path`, or the folder has none of these files.
    DataFormatError
        The file is damaged, or none of these.
    """
    path = existing(path, split)
    if path.is_file() and path.suffix == ".npz":
        return load_npz(path, require_finite=require_finite)
    name = path.name if path.is_file() else find(path, _READERS)[0].name
    for pattern, reader in _READERS.items():
        if fnmatchcase(name, pattern):
            return reader(path, split)
    start = np.fromfile(path, np.uint8, count=8).tobytes()
    looked_for = listed([*_READERS, "*.npz"])
    raise DataFormatError(path, f"looked for the name {looked_for}; the file starts {start!r}", 0)


def files_of(path: StrPath) -> list[Path]:
    """Return the files that `load` may read for `path`, including those beside a single file."""
    path = Path(path)
    if path.suffix == ".npz":
        return [path]
    folder, patterns = path if path.is_dir() else path.parent, (*_READERS, "batches.meta*")
    return [path, *(file for pattern in patterns for file in folder.glob(pattern))]

"""Load a data set of any kind, going by the names of its files."""

from __future__ import annotations

from fnmatch import fnmatchcase

import numpy as np

from fastloss.data.cifar10 import load_cifar10
from fastloss.data.dataset import Dataset, Split, listed
from fastloss.data.mnist import load_mnist
from fastloss.data.npz import load_npz
from fastloss.data.reading import existing, find
from fastloss.files import DataFormatError, StrPath


def load(path: StrPath, split: Split = "train") -> Dataset:
    """Load the data set at `path`, whichever it is, going by the file names there.

    Parameters
    ----------
    path : str or path
        A folder of CIFAR-10 (``data_batch_*``, ``test_batch*``) or MNIST (``*-ubyte``,
        ``*-ubyte.gz``) files, one such file, or an ``.npz`` archive.
    split : {"train", "test"}
        Which part of a folder; a single file is loaded whatever `split` says.

    Raises
    ------
    FileNotFoundError
        Nothing at `path`, or a folder with none of these files.
    DataFormatError
        A file that is none of these, or is damaged.
    """
    path = existing(path, split)
    if path.is_file() and path.suffix == ".npz":
        return load_npz(path)
    readers = dict.fromkeys(("data_batch_*", "test_batch*"), load_cifar10)
    readers |= dict.fromkeys(("*-ubyte", "*-ubyte.gz"), load_mnist)
    name = path.name if path.is_file() else find(path, readers)[0].name
    for pattern, reader in readers.items():
        if fnmatchcase(name, pattern):
            return reader(path, split)
    start = np.fromfile(path, np.uint8, count=8).tobytes()
    looked_for = listed([*readers, "*.npz"])
    raise DataFormatError(path, f"looked for the name {looked_for}; the file starts {start!r}", 0)

"""Read CIFAR-10 from its binary version or its Python pickles."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fastloss.data.dataset import Bytes, Dataset, Split
from fastloss.data.pickles import pickled_labels, pickled_pixels, read_pickled_dict
from fastloss.data.reading import brief, check_label_bytes, existing, find, read_bytes
from fastloss.files import DataFormatError, StrPath

_SHAPE = (3, 32, 32)
_N_PIXELS = math.prod(_SHAPE)
_FILES = {
    "train": ("data_batch_[0-9].bin", "data_batch_[0-9]"),
    "test": ("test_batch.bin", "test_batch"),
}
_OBJECTS = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)


def load_cifar10(path: StrPath, split: Split = "train") -> Dataset:
    """Load CIFAR-10 from its binary version or its Python pickles.

    Parameters
    ----------
    path : str or path
        The folder, or one file. In a folder with both versions, the binary one is read. A single
        file ignores `split`; ``*.bin`` is read as binary, any other name as a pickle.
    split : {"train", "test"}
        ``data_batch_*`` or ``test_batch``.

    Returns
    -------
    Dataset
        X (N, 3072) uint8, channel-major as in the files. Class names come from
        ``batches.meta.txt`` or ``batches.meta`` beside the files, else from the official list.

    Raises
    ------
    FileNotFoundError
        There are no such files.
    DataFormatError
        A truncated or foreign file, a label over 9, or a pickle of anything other than arrays
        and plain containers. Loading a pickle runs nothing that it names.
    """
    path = existing(path, split)
    files = [path] if path.is_file() else find(path, _FILES[split])
    batches = [_read_file(file) for file in files]
    return Dataset(
        X=np.concatenate([pixels for pixels, _ in batches]),
        y=np.concatenate([labels for _, labels in batches]).astype(np.int64),
        name=f"CIFAR-10 {path.name if path.is_file() else split}",
        class_names=_class_names(files[0].parent),
        image_shape=_SHAPE,
        source="A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009",
    )


def _read_file(path: Path) -> tuple[Bytes, npt.NDArray[Any]]:
    """Return pixels (n, 3072) and labels (n,)."""
    if path.suffix == ".bin":
        return _read_binary(path)
    batch = read_pickled_dict(path, b"data", b"labels")
    pixels = pickled_pixels(path, batch[b"data"], _N_PIXELS)
    return pixels, pickled_labels(path, batch[b"labels"], len(pixels))


def _read_binary(path: Path) -> tuple[Bytes, Bytes]:
    record = 1 + _N_PIXELS
    place, raw = read_bytes(path)
    # Also check the label of an incomplete record, to report the first fault of the file.
    labels = raw[::record]
    check_label_bytes(place, labels, first=0, step=record)
    extra = raw.size % record
    if extra:
        raise DataFormatError(
            place, f"truncated record: {extra} bytes, expected {record}", raw.size - extra
        )
    return raw.reshape(-1, record)[:, 1:], labels


def _class_names(folder: Path) -> tuple[str, ...]:
    text, meta = folder / "batches.meta.txt", folder / "batches.meta"
    names: object
    if text.is_file():
        path, names = text, text.read_bytes().split()
    elif meta.is_file():
        path, names = meta, read_pickled_dict(meta, b"label_names")[b"label_names"]
    else:
        return _OBJECTS
    if isinstance(names, list) and [type(name) for name in names] == [bytes] * 10:
        return tuple(name.decode("utf-8", "backslashreplace") for name in names)
    raise DataFormatError(path, f"expected 10 class names, found {brief(names)}")

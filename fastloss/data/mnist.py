"""Read MNIST from its IDX files, plain or gzipped."""

from __future__ import annotations

import glob
import math
import re
from pathlib import Path

import numpy as np

from fastloss.data.dataset import DIGITS, Bytes, Dataset, Split
from fastloss.data.reading import check_label_bytes, existing, find, read_bytes
from fastloss.files import DataFormatError, StrPath

_PREFIX = {"train": "train", "test": "t10k"}
_IDX_IMAGES, _IDX_LABELS = 0x0803, 0x0801  # unsigned bytes (08), of three dimensions and of one


def load_mnist(path: StrPath, split: Split = "train") -> Dataset:
    """Load MNIST from its IDX files, plain or gzipped (recognised by content, not by ``.gz``).

    Parameters
    ----------
    path : str or path
        The folder, or one of the two files with the other beside it; a single file ignores `split`.
        Fashion-MNIST has the same file names; it is read too, under the name MNIST.
    split : {"train", "test"}
        ``train-*`` or ``t10k-*``.

    Returns
    -------
    Dataset
        X (N, rows * columns) uint8.

    Raises
    ------
    FileNotFoundError
        The image or the label file is missing.
    DataFormatError
        A wrong magic number, a length that contradicts the header, counts that disagree, a label
        over 9, or a gzip stream that is truncated or corrupt.
    """
    path = existing(path, split)
    images_path, labels_path = _files(path, split)
    _, images = _read_idx(images_path, _IDX_IMAGES)
    place, labels = _read_idx(labels_path, _IDX_LABELS)
    check_label_bytes(place, labels, first=8, step=1)
    if len(images) != len(labels):
        raise DataFormatError(
            place, f"{len(labels)} labels, but {len(images)} images in {images_path.name}", 4
        )
    return Dataset(
        X=images.reshape(len(images), -1),
        y=labels.astype(np.int64),
        name=f"MNIST {images_path.name if path.is_file() else split}",
        class_names=DIGITS,
        image_shape=images.shape[1:],
        source="Y. LeCun, C. Cortes, C. Burges, The MNIST Database of Handwritten Digits",
    )


def _files(path: Path, split: Split) -> tuple[Path, Path]:
    """Return the image file and the label file; one of them is `path` if that is a file."""
    folder, prefix, given = path, _PREFIX[split], {}
    if path.is_file():
        parts = re.fullmatch(r"(.+)-(images|labels).idx\d-ubyte(\.gz)?", path.name)
        if parts is None:
            raise DataFormatError(path, "expected a name like train-images-idx3-ubyte.gz")
        folder, prefix, given = path.parent, glob.escape(parts[1]), {parts[2]: path}
    images, labels = (
        given.get(kind)
        or find(folder, [f"{prefix}-{kind}?idx?-ubyte{gz}" for gz in ("", ".gz")])[0]
        for kind in ("images", "labels")
    )
    return images, labels


def _read_idx(path: Path, magic: int) -> tuple[str, Bytes]:
    """Return a name for messages, and the unsigned bytes in the shape of the header."""
    place, raw = read_bytes(path)
    found = raw[:4].tobytes()
    if len(found) == 4 and int.from_bytes(found, "big") != magic:
        raise DataFormatError(place, f"IDX magic number 0x{found.hex()}, expected 0x{magic:08x}", 0)
    start = 4 + 4 * (magic & 0xFF)
    if raw.size < start:
        raise DataFormatError(
            place, f"truncated header: {raw.size} bytes, expected {start}", raw.size // 4 * 4
        )
    shape = tuple(raw[4:start].view(">u4").tolist())
    if 0 in shape:
        raise DataFormatError(
            place, f"empty: the header gives the shape {shape}", 4 + 4 * shape.index(0)
        )
    size, expected, item = raw.size - start, math.prod(shape), math.prod(shape[1:])
    if size != expected:
        raise DataFormatError(
            place,
            f"{size} bytes of data, but the header gives the shape {shape}: {expected} bytes",
            start + min(size // item * item, expected),
        )
    return place, raw[start:].reshape(shape)

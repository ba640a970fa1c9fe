"""Write small files of every format, and catch the error for a damaged one."""

from __future__ import annotations

import gzip
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

from fastloss.data import DataFormatError

RECORD = 3073
OFFICIAL_NAMES = "airplane automobile bird cat deer dog frog horse ship truck"
fuzz = settings(max_examples=150, deadline=None, derandomize=True)


def images(n: int, width: int = 3072, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, width), np.uint8)


def records(pixels: np.ndarray, labels) -> bytes:
    return np.column_stack([np.array(labels, np.uint8), pixels]).tobytes()


def idx(array: np.ndarray) -> bytes:
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    return header + array.astype(np.uint8).tobytes()


def python2_pickle(pixels: np.ndarray, labels) -> bytes:
    """Return Python 2's pickle of {'data': pixels, 'labels': labels}, as in official batches."""
    n, d = pixels.shape
    return b"".join(
        [
            b"\x80\x02}(U\x04datacnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n",
            b"K\x00\x85U\x01b\x87R(K\x01" + struct.pack("<BHBH", ord("M"), n, ord("M"), d),
            b"\x86cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNN",
            b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T" + struct.pack("<I", n * d),
            pixels.tobytes() + b"tbU\x06labels](",
            b"".join(b"K" + bytes([label]) for label in labels) + b"eu.",
        ]
    )


def python3_pickle(pixels, labels) -> bytes:
    return pickle.dumps({b"data": pixels, b"labels": list(labels)}, protocol=2)


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def write_mnist(folder: Path, n: int = 5, prefix: str = "train", gz: bool = False) -> np.ndarray:
    pack, end = (gzip.compress, ".gz") if gz else (bytes, "")
    pixels = images(n, 12).reshape(n, 4, 3)
    write(folder / f"{prefix}-images-idx3-ubyte{end}", pack(idx(pixels)))
    write(folder / f"{prefix}-labels-idx1-ubyte{end}", pack(idx(np.arange(n) % 10)))
    return pixels.reshape(n, 12)


def failure(reader, path: Path) -> DataFormatError:
    """Return the error of a reader; assert that it names the file."""
    with pytest.raises(DataFormatError) as caught:
        reader(path)
    assert path.name in str(caught.value)
    return caught.value

"""Test that MNIST files are read exactly, and that errors name the bad byte."""

from __future__ import annotations

import gzip
import re
import zlib
from pathlib import Path

import numpy as np
import pytest
from data_files import (
    failure,
    fuzz,
    idx,
    images,
    write,
    write_mnist,
)
from hypothesis import given
from hypothesis import strategies as st

from fastloss import data
from fastloss.data import DataFormatError

# MNIST


@pytest.mark.parametrize("gz", [False, True])
@pytest.mark.parametrize(("split", "prefix"), [("train", "train"), ("test", "t10k")])
def test_mnist_folder(tmp_path, gz, split, prefix):
    pixels = write_mnist(tmp_path, 12, prefix, gz)
    got = data.load_mnist(tmp_path, split)
    np.testing.assert_array_equal(got.X, pixels)
    np.testing.assert_array_equal(got.y, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1])
    assert (got.X.dtype, got.y.dtype) == (np.uint8, np.int64)
    assert got.X.flags.c_contiguous
    assert got.image_shape == (4, 3)
    assert got.class_names == tuple("0123456789")
    assert "LeCun" in got.source


def test_mnist_dotted_names_and_unpacked_gz(tmp_path):
    pixels = write_mnist(tmp_path)
    (tmp_path / "train-images-idx3-ubyte").rename(tmp_path / "train-images.idx3-ubyte")
    (tmp_path / "train-labels-idx1-ubyte").rename(tmp_path / "train-labels.idx1-ubyte.gz")
    np.testing.assert_array_equal(data.load(tmp_path).X, pixels)


def test_mnist_single_file_is_read_itself(tmp_path):
    write_mnist(tmp_path, 3)
    write_mnist(tmp_path, 3, gz=True)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(np.array([5, 5, 5])))
    plain = data.load_mnist(tmp_path / "train-labels-idx1-ubyte", "test")
    packed = data.load_mnist(tmp_path / "train-labels-idx1-ubyte.gz")
    np.testing.assert_array_equal(plain.y, [5, 5, 5])
    np.testing.assert_array_equal(packed.y, [0, 1, 2])
    with pytest.raises(DataFormatError, match=r"digits: expected a name like train-images-idx3"):
        data.load_mnist(write(tmp_path / "digits", b"x"))


def test_mnist_single_file_of_any_prefix(tmp_path):
    pixels = write_mnist(tmp_path, 3, "my[1]*")
    got = data.load_mnist(tmp_path / "my[1]*-labels-idx1-ubyte")
    np.testing.assert_array_equal(got.X, pixels)


def test_mnist_partner_missing(tmp_path):
    write_mnist(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte").unlink()
    expected = r"train-labels\?idx\?-ubyte.gz; found train-images-idx3-ubyte"
    for path in (tmp_path, tmp_path / "train-images-idx3-ubyte"):
        with pytest.raises(FileNotFoundError, match=expected):
            data.load(path)


def broken_mnist(folder: Path, kind: str, content: bytes, gz: bool = False) -> DataFormatError:
    """Return the error for a valid data set with one file replaced."""
    write_mnist(folder)
    name = f"train-{kind}-ubyte"
    path = write(folder / name, gzip.compress(content) if gz else content)
    error = failure(data.load_mnist, path)
    assert ("(decompressed)" in str(error)) == gz
    return error


@pytest.mark.parametrize("gz", [False, True])
@pytest.mark.parametrize(
    ("kind", "content", "offset", "problem"),
    [
        ("images-idx3", b"", 0, "empty file"),
        ("images-idx3", b"\0\0\x08", 0, "truncated header: 3 bytes, expected 16"),
        ("images-idx3", idx(images(5, 12))[:11], 0, "0x00000802, expected 0x00000803"),
        ("images-idx3", idx(np.arange(5)), 0, "0x00000801, expected 0x00000803"),
        ("labels-idx1", idx(np.zeros((5, 4, 3))), 0, "0x00000803, expected 0x00000801"),
        ("labels-idx1", b"not IDX", 0, "0x6e6f7420, expected 0x00000801"),
        ("labels-idx1", idx(np.arange(5))[:6], 4, "truncated header: 6 bytes, expected 8"),
        ("images-idx3", idx(np.zeros((0, 4, 3))), 4, "empty: the header gives the shape (0, 4, 3)"),
        ("images-idx3", idx(np.zeros((5, 4, 0))), 12, "empty: the header gives the shape"),
        ("labels-idx1", idx(np.arange(5)) + b"xy", 13, "7 bytes of data, but the header"),
        ("images-idx3", idx(np.zeros((5, 4, 3))) + b"x", 76, "61 bytes of data, but the header"),
        ("labels-idx1", idx(np.array([0, 1, 10, 11, 0])), 10, "label 10 is not in [0, 10)"),
        ("labels-idx1", idx(np.arange(4)), 4, "4 labels, but 5 images in train-images-idx3-ubyte"),
        ("images-idx3", b"\0\0\x08\x03" + b"\xff" * 12, 16, "0 bytes of data, but the header"),
    ],
)
def test_mnist_damaged(tmp_path, kind, content, offset, problem, gz):
    error = broken_mnist(tmp_path, kind, content, gz)
    assert error.offset == offset
    assert f"byte {offset}: " in str(error)
    assert problem in str(error)


@fuzz
@given(cut=st.integers(0, 16 + 5 * 12 - 1))
def test_mnist_truncated_anywhere(scratch, cut):
    error = broken_mnist(scratch, "images-idx3", idx(images(5, 12).reshape(5, 4, 3))[:cut])
    assert error.offset == (cut // 4 * 4 if cut < 16 else 16 + (cut - 16) // 12 * 12)


@fuzz
@given(cut=st.integers(2, len(gzip.compress(idx(np.zeros((5, 4, 3))))) - 1))
def test_mnist_gzip_truncated_anywhere(scratch, cut):
    packed = gzip.compress(idx(np.zeros((5, 4, 3))), mtime=0)[:cut]
    write_mnist(scratch)
    path = write(scratch / "train-images-idx3-ubyte", packed)
    n = len(zlib.decompressobj(wbits=31).decompress(packed))
    assert f"truncated or corrupt gzip stream, {n} bytes could be" in str(
        failure(data.load_mnist, path)
    )


def test_mnist_gzip_corrupt(tmp_path):
    content = idx(images(2000, 12).reshape(2000, 4, 3))
    packed = bytearray(gzip.compress(content))
    write_mnist(tmp_path)
    name = tmp_path / "train-images-idx3-ubyte.gz"
    for position, least in ((-6, len(content)), (-2, len(content)), (2, 0)):
        damaged = packed.copy()
        damaged[position] ^= 0x55  # the checksum, the length, the method of compression
        error = failure(data.load_mnist, write(name, bytes(damaged)))
        assert f"corrupt gzip stream, {least} bytes could be decompressed (BadGzip" in str(error)
    damaged = packed[:10] + b"\xff" + packed[11:]  # an unknown type of block
    assert "0 bytes could be decompressed (error: " in str(
        failure(data.load_mnist, write(name, bytes(damaged)))
    )


def test_mnist_gzip_corrupt_in_the_middle(tmp_path):
    content = idx(images(10_000, 12).reshape(10_000, 4, 3))
    squeeze = zlib.compressobj(wbits=31)
    packed = squeeze.compress(content[:70_000]) + squeeze.flush(zlib.Z_FULL_FLUSH)
    packed += b"\xff"  # a type of block that does not exist
    write_mnist(tmp_path)
    error = failure(data.load_mnist, write(tmp_path / "train-images-idx3-ubyte", packed))
    count = int(re.search(r"stream, (\d+) bytes could be", str(error))[1])
    assert 70_000 - 8192 <= count <= 70_000

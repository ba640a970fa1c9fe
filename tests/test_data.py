"""fastloss.data: every format read back exactly; every damaged file named, with the bad byte."""

from __future__ import annotations

import dataclasses
import gzip
import os
import pickle
import re
import struct
import sys
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastloss import data
from fastloss.data import DataFormatError, Dataset

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
    """What Python 2 wrote for {'data': pixels, 'labels': labels}, as in the official batches."""
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
    """The error, which must name the file."""
    with pytest.raises(DataFormatError) as caught:
        reader(path)
    assert path.name in str(caught.value)
    return caught.value


@pytest.fixture(scope="module")
def scratch(tmp_path_factory) -> Path:
    """A folder that the many examples of one property can share."""
    return tmp_path_factory.mktemp("data")


# The record


@pytest.fixture
def small() -> Dataset:
    X = np.arange(24, dtype=np.uint8).reshape(4, 6)
    return Dataset(X, np.array([0, 1, 2, 1]), "small", ("a", "b", "c"), (2, 3), "nowhere")


def test_dataset_properties(small):
    assert len(small) == 4
    assert small.n_classes == 3
    assert repr(small) == "Dataset('small', X=(4, 6) uint8, n_classes=3, image_shape=(2, 3))"
    with pytest.raises(dataclasses.FrozenInstanceError):
        small.name = "other"


def test_rows(small):
    part = small.rows(slice(1, 3))
    np.testing.assert_array_equal(part.X, small.X[1:3])
    np.testing.assert_array_equal(part.y, [1, 2])
    assert np.shares_memory(part.X, small.X)
    assert (part.name, part.class_names, part.image_shape) == ("small", ("a", "b", "c"), (2, 3))
    picked = small.rows(np.array([3, 0]))
    np.testing.assert_array_equal(picked.X, small.X[[3, 0]])
    np.testing.assert_array_equal(picked.y, [1, 0])
    assert len(small.rows(small.y == 1)) == 2
    assert len(small.rows([])) == 0


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"X": np.zeros((4, 6), np.int32)}, TypeError, "X has dtype int32; expected uint8, float"),
        ({"X": np.zeros((4, 6), ">f4")}, TypeError, "X has dtype >f4"),
        ({"X": np.zeros((4, 2, 3))}, ValueError, r"X has shape \(4, 2, 3\); expected \(N, D\)"),
        ({"y": np.zeros(4, np.int32)}, TypeError, "y has dtype int32; expected int64"),
        ({"y": np.zeros(3, np.int64)}, ValueError, r"y has shape \(3,\); expected \(4,\)"),
        ({"y": np.array([0, 2, 3, 9])}, ValueError, r"y\[2\] = 3 is not in \[0, 3\)"),
        ({"y": np.array([0, -1, 3, 9])}, ValueError, r"y\[1\] = -1 is not in \[0, 3\)"),
        ({"image_shape": (2, 2)}, ValueError, r"image_shape = \(2, 2\) does not hold the 6"),
    ],
)
def test_dataset_is_validated(small, change, error, match):
    with pytest.raises(error, match=match):
        dataclasses.replace(small, **change)


# load


def test_load_tells_what_is_there(tmp_path):
    cifar, mnist = tmp_path / "cifar", tmp_path / "mnist"
    cifar.mkdir()
    mnist.mkdir()
    one = write(cifar / "data_batch_1.bin", records(images(2), [0, 1]))
    write(cifar / "test_batch", python2_pickle(images(1), [3]))
    write_mnist(mnist, 3, gz=True)
    write_mnist(mnist, 2, "t10k")
    np.savez(tmp_path / "own.npz", X=np.ones((4, 2)), y=[0, 1, 1, 0])
    found = [
        data.load(cifar),
        data.load(cifar, "test"),
        data.load(one),
        data.load(mnist),
        data.load(str(mnist), "test"),
        data.load(mnist / "t10k-labels-idx1-ubyte"),
        data.load(tmp_path / "own.npz"),
    ]
    assert [(d.name, len(d)) for d in found] == [
        ("CIFAR-10 train", 2),
        ("CIFAR-10 test", 1),
        ("CIFAR-10 data_batch_1.bin", 2),
        ("MNIST train", 3),
        ("MNIST test", 2),
        ("MNIST t10k-images-idx3-ubyte", 2),
        ("own", 4),
    ]


def test_load_unrecognised(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent: no such file or folder"):
        data.load(tmp_path / "absent")
    with pytest.raises(FileNotFoundError, match=r"data_batch_\*.*-ubyte.gz; found nothing"):
        data.load(tmp_path)
    picture = write(tmp_path / "cat.jpg", b"\xff\xd8\xff\xe0" + bytes(20))
    with pytest.raises(DataFormatError, match=r"cat.jpg, byte 0: .*\*\.npz; .*xff.xd8.xff.xe0"):
        data.load(picture)
    for i in range(11):
        write(tmp_path / f"note{i:02}", b"")
    with pytest.raises(FileNotFoundError, match=r"found cat.jpg, note00, .*note08 and 2 more$"):
        data.load(tmp_path)


@pytest.mark.parametrize("reader", [data.load, data.load_cifar10, data.load_mnist])
def test_unknown_split(reader, tmp_path):
    with pytest.raises(ValueError, match="split = 'val' is not one of 'train', 'test'"):
        reader(tmp_path, "val")


# CIFAR-10, binary


def test_cifar10_binary_folder(tmp_path):
    pixels, labels = images(5), [9, 0, 3, 3, 1]
    write(tmp_path / "data_batch_2.bin", records(pixels[3:], labels[3:]))
    write(tmp_path / "data_batch_1.bin", records(pixels[:3], labels[:3]))
    write(tmp_path / "test_batch.bin", records(pixels[::-1], labels[::-1]))
    write(tmp_path / "data_batch_1", b"the binary version goes first")
    train, test = data.load_cifar10(tmp_path), data.load_cifar10(tmp_path, "test")
    np.testing.assert_array_equal(train.X, pixels)
    np.testing.assert_array_equal(train.y, labels)
    np.testing.assert_array_equal(test.X, pixels[::-1])
    np.testing.assert_array_equal(test.y, labels[::-1])
    assert (train.X.dtype, train.y.dtype) == (np.uint8, np.int64)
    assert train.X.flags.c_contiguous
    assert train.X.flags.owndata
    assert train.image_shape == (3, 32, 32)
    assert " ".join(train.class_names) == OFFICIAL_NAMES
    assert "Krizhevsky" in train.source


def test_cifar10_missing_split(tmp_path):
    write(tmp_path / "test_batch.bin", records(images(1), [0]))
    expected = r"looked for data_batch_\*.bin, data_batch_\[1-9\]; found test_batch.bin"
    for reader in (data.load, data.load_cifar10):
        with pytest.raises(FileNotFoundError, match=expected):
            reader(tmp_path)


@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
def test_cifar10_class_names_from_text(tmp_path, newline):
    path = write(tmp_path / "data_batch_1.bin", records(images(1), [0]))
    names = [b"c%d" % i for i in range(10)]
    write(tmp_path / "batches.meta.txt", newline.join(names) + 2 * newline)
    assert data.load_cifar10(path).class_names == tuple(f"c{i}" for i in range(10))
    write(tmp_path / "batches.meta.txt", newline.join(names[:9]))
    with pytest.raises(DataFormatError, match=r"batches.meta.txt: expected 10 class names"):
        data.load_cifar10(path)


@fuzz
@given(cut=st.integers(1, 3 * RECORD - 1))
def test_cifar10_binary_truncated_anywhere(scratch, cut):
    path = write(scratch / "cut.bin", records(images(3), [1, 2, 3])[:cut])
    whole, extra = divmod(cut, RECORD)
    if extra == 0:
        assert len(data.load_cifar10(path)) == whole
    else:
        error = failure(data.load_cifar10, path)
        assert error.offset == whole * RECORD
        assert f"truncated record: {extra} bytes, expected 3073" in str(error)


@pytest.mark.parametrize(("labels", "row"), [([0, 10, 255], 1), ([11, 0, 0], 0), ([0, 9, 10], 2)])
@pytest.mark.parametrize("tail", [0, 5])
def test_cifar10_label_out_of_range(tmp_path, labels, row, tail):
    # A truncated end comes after the bad label, so it is the label that is reported.
    path = write(tmp_path / "bad.bin", records(images(3), labels) + bytes(tail))
    error = failure(data.load_cifar10, path)
    assert error.offset == row * RECORD
    assert f"byte {row * RECORD}: label {labels[row]} is not in [0, 10)" in str(error)


def test_cifar10_bad_label_of_an_incomplete_record(tmp_path):
    path = write(tmp_path / "bad.bin", records(images(1), [1]) + b"\x2a123")
    assert f"byte {RECORD}: label 42 is not in" in str(failure(data.load_cifar10, path))


@pytest.mark.parametrize("name", ["data_batch_1.bin", "data_batch_1"])
def test_cifar10_empty_file(tmp_path, name):
    error = failure(data.load_cifar10, write(tmp_path / name, b""))
    assert str(error).endswith("byte 0: empty file")


# CIFAR-10, pickles


@pytest.mark.parametrize("dump", [python2_pickle, python3_pickle])
def test_cifar10_pickles(tmp_path, dump):
    pixels, labels = images(5), [9, 0, 3, 3, 1]
    write(tmp_path / "data_batch_1", dump(pixels[:3], labels[:3]))
    write(tmp_path / "data_batch_2", dump(pixels[3:], labels[3:]))
    meta = {b"label_names": [b"c%d" % i for i in range(10)], b"num_vis": 3072}
    write(tmp_path / "batches.meta", pickle.dumps(meta, protocol=2))
    train = data.load(tmp_path)
    np.testing.assert_array_equal(train.X, pixels)
    np.testing.assert_array_equal(train.y, labels)
    assert (train.X.dtype, train.y.dtype) == (np.uint8, np.int64)
    assert train.X.flags.c_contiguous
    assert train.class_names == tuple(f"c{i}" for i in range(10))


@pytest.mark.parametrize("protocol", range(5))
def test_cifar10_pickle_protocols_and_fortran_order(tmp_path, protocol):
    pixels = images(4)
    batch = {b"data": np.asfortranarray(pixels), b"labels": [0, 1, 2, 3]}
    train = data.load_cifar10(write(tmp_path / "b", pickle.dumps(batch, protocol=protocol)))
    np.testing.assert_array_equal(train.X, pixels)
    assert train.X.flags.c_contiguous


class Call:
    """Pickles as a call, made when the pickle is loaded."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize(
    ("function", "name"),
    [(os.mkdir, f"{os.mkdir.__module__}.mkdir"), (exec, "exec"), (getattr, "getattr")],
)
def test_hostile_pickle_is_refused_and_not_run(tmp_path, function, name, protocol):
    mark = tmp_path / "was_run"
    args = {
        os.mkdir: (str(mark),),
        exec: (f"import os; os.mkdir({str(mark)!r})",),
        getattr: (Call(os.mkdir, str(mark)), "x", None),
    }[function]
    content = pickle.dumps({b"data": Call(function, *args), b"labels": []}, protocol=protocol)
    pickle.loads(content)
    assert mark.exists(), "the pickle must be a live one"
    mark.rmdir()
    error = failure(data.load_cifar10, write(tmp_path / "data_batch_1", content))
    assert "refused the global" in str(error)
    assert f"{name}," in str(error)
    assert not mark.exists()


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("os", "system"),
        ("numpy", "load"),
        ("numpy", "dtype.type"),
        ("numpy.core.multiarray", "scalar"),
        ("numpy._core.numeric", "_frombuffer"),
        ("codecs", "encode"),
        ("__builtin__", "bytes"),
    ],
)
def test_refused_globals_and_where(tmp_path, module, name):
    asks = f"c{module}\n{name}\n".encode()
    path = write(tmp_path / "data_batch_1", b"\x80\x02" + asks + b"U\x04true\x85R.")
    error = failure(data.load_cifar10, path)
    assert error.offset == 2 + len(asks)
    assert str(error).startswith(
        f"{path}, byte {error.offset}: refused the global {module}.{name},"
    )


def test_allowed_globals_are_inert(tmp_path):
    """Even NumPy's own constructors are only noted: no dtype, shape or state reaches NumPy."""
    before = pickle.dumps(np.dtype("u1"))
    for attack in (
        b"cnumpy\ndtype\n}U\x04nameU\x04evilsb.",  # set attributes on the shared class
        b"cnumpy.core.multiarray\n_reconstruct\n(N}U\x0c__defaults__)stb.",  # ... or function
        b"cnumpy\nndarray\nJ\xff\xff\xff\x7f\x85R.",  # an array of 2**31 - 1 doubles
        b"c_codecs\nencode\nX\x01\x00\x00\x00aX\x05\x00\x00\x00bogus\x86R.",  # load a codec
        b"c_codecs\nencode\nX\x02\x00\x00\x00\xc4\x80X\x06\x00\x00\x00latin1\x86R.",
    ):
        failure(data.load_cifar10, write(tmp_path / "attack", b"\x80\x02" + attack))
    assert pickle.dumps(np.dtype("u1")) == before
    good = write(tmp_path / "good", python2_pickle(images(1), [7]))
    np.testing.assert_array_equal(data.load_cifar10(good).X, images(1))


@pytest.mark.parametrize(
    ("array", "found"),
    [
        (np.array([[b"x"] * 3072], object), r"dtype 'O8', shape \(1, 3072\) and 3072 bytes or"),
        (np.zeros((1, 3072)), "dtype 'f8'"),
        (np.zeros((1, 3072), np.int8), "dtype 'i1'"),
        (np.zeros((1, 3071), np.uint8), r"shape \(1, 3071\)"),
        (np.zeros(3072, np.uint8), r"shape \(3072,\)"),
        ([1, 2], "found list"),
    ],
)
def test_cifar10_pickle_of_another_array(tmp_path, array, found):
    path = write(tmp_path / "b", python3_pickle(array, [0]))
    assert path.name in str(failure(data.load_cifar10, path))
    with pytest.raises(DataFormatError, match=rf"expected a uint8 array .*{found}"):
        data.load_cifar10(path)


def test_cifar10_pickle_shape_that_lies(tmp_path):
    content = python2_pickle(images(2), [0, 1])
    lie = content.replace(b"M\x02\x00M", b"M\x03\x00M")
    assert lie != content
    error = failure(data.load_cifar10, write(tmp_path / "b", lie))
    assert "shape (3, 3072) and 6144 bytes" in str(error)


def test_cifar10_pickle_with_another_encoding(tmp_path):
    content = python3_pickle(images(1), [0]).replace(b"latin1", b"latin2")
    assert "found [_Recorded(" in str(failure(data.load_cifar10, write(tmp_path / "b", content)))


def test_cifar10_pickle_without_rows(tmp_path):
    error = failure(data.load_cifar10, write(tmp_path / "b", python2_pickle(images(0), [])))
    assert "shape (0, 3072) and 0 bytes" in str(error)


@pytest.mark.parametrize(
    ("labels", "found"),
    [
        ([0, 10], r"b'labels'\[1\] = 10 is not an integer in \[0, 10\)"),
        ([-1, 0], r"b'labels'\[0\] = -1 is not"),
        ([0, 1.0], r"b'labels'\[1\] = 1.0 is not"),
        ([True, 1], r"b'labels'\[0\] = True is not"),
        ([0, 10**5000], r"b'labels'\[1\] = int is not"),
        ([0, 1, 2], r"expected a list of 2, one a row, found 3 items"),
        ("ab", "expected a list of 2, one a row, found str"),
    ],
)
def test_cifar10_pickled_labels(tmp_path, labels, found):
    content = pickle.dumps({b"data": images(2), b"labels": labels}, protocol=2)
    with pytest.raises(DataFormatError, match=rf"batch: .*{found}"):
        data.load_cifar10(write(tmp_path / "batch", content))


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ({b"data": 1, b"fine_labels": 2}, r"found \[b'data', b'fine_labels'\]"),
        ({"data": 1, "labels": 2}, r"found \['data', 'labels'\]"),
        ([1, 2], r"found \[1, 2\]"),
    ],
)
def test_cifar10_pickle_of_something_else(tmp_path, content, found):
    path = write(tmp_path / "batch", pickle.dumps(content, protocol=2))
    with pytest.raises(DataFormatError, match=rf"batch: .*b'data', b'labels', {found}"):
        data.load_cifar10(path)


@pytest.mark.parametrize("names", [[b"a"] * 9, ["a"] * 10, b"0123456789"])
def test_cifar10_bad_pickled_meta(tmp_path, names):
    path = write(tmp_path / "data_batch_1", python2_pickle(images(1), [0]))
    write(tmp_path / "batches.meta", pickle.dumps({b"label_names": names}, protocol=2))
    with pytest.raises(DataFormatError, match=r"batches.meta: expected 10 class names, found "):
        data.load_cifar10(path)


@pytest.mark.parametrize("content", [b"\x89PNG\r\n\x1a\n", b"PK\x03\x04", b"hello", b"\x80\xff."])
def test_cifar10_foreign_pickle(tmp_path, content):
    error = failure(data.load_cifar10, write(tmp_path / "batch", content + bytes(9)))
    assert "not a complete pickle, reading stopped here" in str(error)
    assert 0 < error.offset <= len(content) + 9


@fuzz
@given(st.data())
def test_cifar10_pickle_truncated_anywhere(scratch, draw):
    whole = python2_pickle(images(2), [1, 2])
    ends = st.integers(0, 130) | st.integers(len(whole) - 20, len(whole) - 1)
    cut = draw.draw(ends | st.integers(0, len(whole) - 1))
    error = failure(data.load_cifar10, write(scratch / "batch", whole[:cut]))
    # Reading stops at the end of the file, or where the last whole item before it began or ended.
    assert 0 <= error.offset <= cut


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


def test_mnist_single_file_is_the_one_read(tmp_path):
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
    """The error for a good data set with one file replaced."""
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


# .npz


@pytest.mark.parametrize("keys", [("X", "y"), ("x_train", "y_train")])
@pytest.mark.parametrize("dtype", ["u1", "<f4", ">f4", "<f8", ">f8"])
def test_npz(tmp_path, keys, dtype):
    X = np.asfortranarray(np.arange(24).reshape(4, 6).astype(dtype))
    np.savez(tmp_path / "own.npz", **{keys[0]: X, keys[1]: np.array([2, 0, 0, 1], np.uint8)})
    got = data.load_npz(tmp_path / "own.npz")
    np.testing.assert_array_equal(got.X, X)
    np.testing.assert_array_equal(got.y, [2, 0, 0, 1])
    assert got.X.dtype == np.dtype(dtype).newbyteorder("=")
    assert got.X.flags.c_contiguous
    assert (got.name, got.class_names, got.image_shape) == ("own", ("0", "1", "2"), None)


def test_npz_images_and_precedence(tmp_path):
    X = images(3, 12).reshape(3, 3, 2, 2)
    others = {"x_train": np.ones((1, 1)), "y_train": [0]}
    np.savez_compressed(tmp_path / "own.npz", X=X, y=[0, 1, 5], **others)
    got = data.load(tmp_path / "own.npz")
    np.testing.assert_array_equal(got.X, X.reshape(3, 12))
    assert (got.image_shape, got.n_classes) == ((3, 2, 2), 6)


@pytest.mark.parametrize(
    ("arrays", "match"),
    [
        ({"data": [[1.0]], "labels": [0]}, "expected the keys X and y.*; found data, labels$"),
        ({"X": [[1.0]]}, "expected the keys X and y, or x_train and y_train; found X$"),
        ({}, ".*; found nothing$"),
        ({"X": [1.0], "y": [0]}, r"X has shape \(1,\); expected \(N, D, ...\)"),
        ({"X": np.ones((0, 3)), "y": np.ones(0, int)}, r"X has shape \(0, 3\); .* not empty"),
        ({"X": [[1]], "y": [0]}, "X has dtype int64; expected uint8, float32, float64"),
        ({"X": [["a"]], "y": [0]}, "X has dtype <U1"),
        ({"X": [[1.0]], "y": [0.0]}, "y has dtype float64; expected integers that fit int64"),
        ({"X": [[1.0]], "y": np.ones(1, np.uint64)}, "y has dtype uint64"),
        ({"X": [[1.0]], "y": [0, 1]}, r"y has shape \(2,\); expected \(1,\)"),
        ({"X": [[1.0]], "y": [[0]]}, r"y has shape \(1, 1\); expected \(1,\)"),
        ({"X": [[1.0]], "y": np.ones(0, int)}, r"y has shape \(0,\); expected \(1,\)"),
        ({"X": [[1.0], [2.0]], "y": [1, -2]}, r"y\[1\] = -2 is not in \[0, 2\)"),
        ({"X": [[1.0]], "y": [10**15]}, r"y\[0\] = 1000000000000000 is not in \[0, 1048576\)"),
        (
            {"X": np.array([[None]]), "y": [0]},
            "not a complete .npz archive of plain arrays.*pickle",
        ),
    ],
)
def test_npz_refused(tmp_path, arrays, match):
    np.savez(tmp_path / "own.npz", **arrays)
    with pytest.raises(DataFormatError, match=rf"own\.npz: {match}"):
        data.load_npz(tmp_path / "own.npz")


def test_npz_of_another_format(tmp_path):
    np.save(tmp_path / "own.npy", np.ones((2, 2)))
    for content, found in (
        ((tmp_path / "own.npy").read_bytes(), r"it starts with b'\x93NUM'"),
        (b"", "an empty file"),
    ):
        error = failure(data.load, write(tmp_path / "own.npz", content))
        assert error.offset == 0
        assert f"expected an .npz (zip) archive, found {found}" in str(error)
    with pytest.raises(FileNotFoundError, match=r"absent.npz: no such file"):
        data.load_npz(tmp_path / "absent.npz")


# Damage of any kind: a Dataset or a DataFormatError, and nothing else


def npz_bytes(folder: Path) -> bytes:
    np.savez_compressed(folder / "fuzz.npz", X=np.ones((4, 6), np.float32), y=[0, 1, 2, 1])
    return (folder / "fuzz.npz").read_bytes()


@pytest.mark.parametrize("kind", ["npz", "pickle", "idx", "gzip"])
def test_any_damage_is_a_data_format_error(tmp_path, kind):
    write_mnist(tmp_path)
    small_idx = idx(images(5, 12).reshape(5, 4, 3))
    name, content, positions = {
        "npz": ("fuzz.npz", npz_bytes(tmp_path), None),
        # Past the pixels, which may be anything.
        "pickle": ("data_batch_1", python2_pickle(images(1), [3]), [*range(135), *range(-20, 0)]),
        "idx": ("train-images-idx3-ubyte", small_idx, None),
        "gzip": ("train-images-idx3-ubyte", gzip.compress(small_idx), None),
    }[kind]
    rng = np.random.default_rng(0)
    messages = []
    for position in positions or range(len(content)):
        damaged = bytearray(content)
        # Not "r", LONG_BINPUT: it makes CPython allocate as much as the next four bytes say.
        damaged[position] = rng.choice([b for b in range(256) if b != ord("r")])
        try:
            data.load(write(tmp_path / name, bytes(damaged)))
        except DataFormatError as error:
            messages.append(str(error))
    assert len(messages) >= 16
    assert all(name in message for message in messages)


@fuzz
@given(st.data())
def test_npz_truncated_anywhere(scratch, draw):
    whole = npz_bytes(scratch)
    cut = draw.draw(st.integers(0, len(whole) - 1))
    failure(data.load_npz, write(scratch / "cut.npz", whole[:cut]))


# scikit-learn's digits


def test_digits():
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    digits = data.load_digits()
    assert repr(digits) == (
        "Dataset('digits', X=(1797, 64) float64, n_classes=10, image_shape=(8, 8))"
    )
    assert (digits.X.min(), digits.X.max()) == (0, 16)
    np.testing.assert_array_equal(digits.y[:10], range(10))


def test_digits_without_sklearn(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ImportError, match="load_digits needs scikit-learn: pip install"):
        data.load_digits()


# Synthetic


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8])
@pytest.mark.parametrize("shape", [(1, 1, 1), (7, 1, 2), (50, 5, 60), (300, 2000, 3)])
def test_synthetic_shapes(shape, dtype):
    N, D, C = shape
    a, b = (data.synthetic(N, D, C, seed=3, dtype=dtype) for _ in range(2))
    np.testing.assert_array_equal(a.X, b.X)
    np.testing.assert_array_equal(a.y, b.y)
    assert (a.X.shape, a.X.dtype, a.n_classes) == ((N, D), dtype, C)
    assert a.X.flags.c_contiguous
    counts = np.bincount(a.y, minlength=C)
    assert counts.max() - counts.min() <= 1
    assert np.any(data.synthetic(N, D, C, seed=4, dtype=dtype).X != a.X)


def test_synthetic_blocks_do_not_repeat():
    X = data.synthetic(700, 2000, 1).X  # several blocks
    assert len(np.unique(X[:, 0])) == 700
    np.testing.assert_allclose(X.std(), 1, atol=0.01)


def test_synthetic_uint8_looks_like_an_image():
    X = data.synthetic(500, 100, 10, dtype=np.uint8).X
    np.testing.assert_allclose(X.mean(), 128, atol=1)
    np.testing.assert_allclose(X.std(), 32 * np.hypot(1, 2.29 / np.sqrt(50)), rtol=0.1)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8])
@pytest.mark.parametrize("n_classes", [2, 10, 50])
def test_synthetic_is_solved_well_but_not_perfectly(n_classes, dtype):
    problem = data.synthetic(6000, 100, n_classes, dtype=dtype)
    X = np.column_stack([problem.X.astype(float), np.ones(len(problem))])
    W = np.linalg.lstsq(X[:4000], np.eye(n_classes)[problem.y[:4000]], rcond=None)[0]
    accuracy = np.mean((X[4000:] @ W).argmax(axis=1) == problem.y[4000:])
    assert 0.8 < accuracy < 0.95


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8])
def test_synthetic_is_memory_lean(dtype):
    data.synthetic(10, 10, 2)
    tracemalloc.start()
    X = data.synthetic(20_000, 500, 10, dtype=dtype).X
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak - X.nbytes < 8e6


@pytest.mark.parametrize(
    ("args", "options", "error", "match"),
    [
        ((0, 1, 1), {}, ValueError, "n_rows = 0 is not at least 1"),
        ((1, -2, 1), {}, ValueError, "n_features = -2 is not at least 1"),
        ((1, 1, 0), {}, ValueError, "n_classes = 0 is not at least 1"),
        ((1, 2.0, 1), {}, TypeError, "n_features = 2.0 is not an integer"),
        ((1, 1, 1), {"seed": -1}, ValueError, "seed = -1 is not at least 0"),
        ((1, 1, 1), {"seed": None}, TypeError, "seed = None is not an integer"),
        ((1, 1, 1), {"dtype": "i4"}, TypeError, "dtype = int32; expected uint8, float32, float64"),
    ],
)
def test_synthetic_arguments(args, options, error, match):
    with pytest.raises(error, match=match):
        data.synthetic(*args, **options)


# The real files


def test_real_cifar10(real):
    folder = real / "cifar-10-batches-bin"
    train = data.load(folder)
    raw = (folder / "data_batch_1.bin").read_bytes()
    assert len(train) == len(raw) // RECORD
    assert " ".join(train.class_names) == OFFICIAL_NAMES
    for i in (0, 1, len(train) - 1):
        assert bytes([train.y[i]]) + train.X[i].tobytes() == raw[i * RECORD : (i + 1) * RECORD]
    assert train.n_classes == len(np.unique(train.y)) == 10


def test_real_cifar10_truncated(real, tmp_path):
    raw = (real / "cifar-10-batches-bin" / "data_batch_1.bin").read_bytes()[: 5 * RECORD - 1]
    error = failure(data.load, write(tmp_path / "data_batch_1.bin", raw))
    assert error.offset == 4 * RECORD


@pytest.mark.parametrize(("split", "n", "first"), [("train", 60_000, 5), ("test", 3000, 7)])
def test_real_mnist(real, split, n, first):
    mnist = data.load(real / "mnist", split)
    assert mnist.X.shape == (n, 784)
    assert mnist.image_shape == (28, 28)
    assert mnist.y[0] == first
    assert set(mnist.y) == set(range(10))
    # A drawn digit has ink inside and none in the corner.
    assert mnist.X[:, 0].max() == 0
    assert mnist.X.reshape(n, 28, 28)[:, 14, 14].mean() > 50

"""Test that CIFAR-10 is read exactly, errors name the bad byte, and pickles run no code."""

from __future__ import annotations

import os
import pickle

import numpy as np
import pytest
from data_files import (
    OFFICIAL_NAMES,
    RECORD,
    failure,
    fuzz,
    images,
    python2_pickle,
    python3_pickle,
    records,
    write,
)
from hypothesis import given
from hypothesis import strategies as st

from fastloss import data
from fastloss.data import DataFormatError

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
    expected = r"looked for data_batch_\[0-9\].bin, data_batch_\[0-9\]; found test_batch.bin"
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
    # The bad label comes before the truncated end, so the error reports the label.
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
    """An object that pickles as a call, which loading the pickle makes."""

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
def test_refused_globals_are_named_with_offset(tmp_path, module, name):
    asks = f"c{module}\n{name}\n".encode()
    path = write(tmp_path / "data_batch_1", b"\x80\x02" + asks + b"U\x04true\x85R.")
    error = failure(data.load_cifar10, path)
    assert error.offset == 2 + len(asks)
    assert str(error).startswith(
        f"{path}, byte {error.offset}: refused the global {module}.{name},"
    )


def test_allowed_globals_are_inert(tmp_path):
    """NumPy's own constructors are only recorded; no dtype, shape or state reaches NumPy."""
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


def test_cifar10_pickle_with_false_shape(tmp_path):
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


def test_duplicate_downloads_count_once(tmp_path):
    content = records(images(2), [0, 1])
    for name in ("data_batch_1.bin", "data_batch_1 (1).bin", "data_batch_1 - Copy.bin"):
        write(tmp_path / name, content)
    assert len(data.load(tmp_path)) == 2

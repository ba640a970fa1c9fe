"""Test `.npy` files as data sets: what is mapped, where labels are found, and damaged files."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from data_files import failure, images, write

from fastloss import data
from fastloss.data import DataFormatError
from fastloss.rows_on_disk import mapped_file

X = np.random.default_rng(0).standard_normal((6, 4)).astype(np.float32)
NAMES = np.array(["cat", "dog", "ant", "cat", "dog", "cat"])


def save(folder: Path, X=X, y=NAMES, stem="X") -> Path:
    folder.mkdir(exist_ok=True)
    np.save(folder / f"{stem}.npy", X)
    if y is not None:
        np.save(folder / f"{stem.replace('X', 'y', 1)}.npy", y)
    return folder / f"{stem}.npy"


@pytest.mark.parametrize("dtype", ["u1", "f2", "f4", "f8"])
def test_rows_are_mapped_and_string_labels_are_sorted(tmp_path, dtype):
    rows = (40 * np.abs(X)).astype(dtype)
    file = save(tmp_path, rows)
    for path in (tmp_path, file):
        got = data.load(path)
        assert Path(mapped_file(got.X).filename) == file
        np.testing.assert_array_equal(got.X, rows)
        assert (got.X.dtype, got.class_names) == (np.dtype(dtype), ("ant", "cat", "dog"))
        np.testing.assert_array_equal(got.y, [1, 2, 0, 1, 2, 1])
        np.testing.assert_array_equal(got.values, NAMES)
        np.testing.assert_array_equal(got.rows([1, 2]).values, NAMES[1:3])


@pytest.mark.parametrize(
    ("y", "names"),
    [
        (np.array([[2], [0], [0], [1], [5], [0]], np.uint8), tuple("012345")),
        (np.array([1, 0, 0, 1, 1, 0], bool), ("False", "True")),
        (NAMES.astype("S"), ("ant", "cat", "dog")),
        (NAMES[:, None], ("ant", "cat", "dog")),
    ],
)
def test_labels_of_other_kinds(tmp_path, y, names):
    got = data.load(save(tmp_path, y=y))
    assert got.class_names == names
    assert [names[i] for i in got.y] == [
        v.decode() if isinstance(v, bytes) else str(v) for v in y.ravel().tolist()
    ]


def test_images_keep_their_shape(tmp_path):
    got = data.load(save(tmp_path, images(6, 12).reshape(6, 3, 2, 2)))
    assert (got.X.shape, got.image_shape) == ((6, 12), (3, 2, 2))


def test_small_rows_in_another_order_are_converted(tmp_path):
    for other in (np.asfortranarray(X), X.astype(">f4"), np.asfortranarray(X.astype(">f4"))):
        got = data.load(save(tmp_path, other))
        np.testing.assert_array_equal(got.X, X)
        assert got.X.flags.c_contiguous
        assert got.X.dtype == np.float32


def test_large_rows_in_another_order_raise(tmp_path, monkeypatch):
    monkeypatch.setattr("fastloss.rows_on_disk.LARGE_SHARE", 0.0)
    error = failure(data.load, save(tmp_path, np.asfortranarray(X)))
    assert "X is in Fortran order, so each row is scattered over the file" in str(error)
    error = failure(data.load, save(tmp_path, X.astype(">f4")))
    assert "of dtype >f4, in the byte order of other machines" in str(error)
    error = failure(data.load, save(tmp_path, np.asfortranarray(X.reshape(6, 2, 2))))
    assert "X is in Fortran order" in str(error)


@pytest.mark.parametrize("names", [("X_train", "X_test"), ("train/X", "test/X"), ("X", "X_test")])
def test_splits_of_a_folder(tmp_path, names):
    for n, name in zip((6, 3), names, strict=True):
        place = tmp_path / name
        save(place.parent, X[:n], NAMES[:n], place.name)
    train, test = data.load(tmp_path), data.load(tmp_path, "test")
    assert (len(train), len(test)) == (6, 3)
    assert train.name == tmp_path.name


def test_labels_in_a_file_of_their_own(tmp_path):
    file = save(tmp_path, y=None, stem="features")
    error = failure(data.load, file)
    assert "has no labels: expected y.npy beside it, or --labels FILE" in str(error)
    np.save(tmp_path / "names.npy", NAMES)
    assert data.load(file, labels=tmp_path / "names.npy").n_classes == 3
    with pytest.raises(FileNotFoundError, match=r"absent\.npy: no such file"):
        data.load(file, labels=str(tmp_path / "absent.npy"))
    np.savez(tmp_path / "own.npz", X=X, y=[0] * 6)
    with pytest.raises(ValueError, match=r"own\.npz has its own labels"):
        data.load(tmp_path / "own.npz", labels="y")


def test_rows_without_labels(tmp_path):
    file = save(tmp_path, y=None)
    bad = X.copy()
    bad[1, 1] = np.nan
    for path in (tmp_path, save(tmp_path, bad, None)):
        np.testing.assert_array_equal(data.load_unlabelled(path)[0], X[0])
    save(tmp_path)
    assert data.load_unlabelled(file) is None


def test_classes_of_other_rows(tmp_path):
    train = data.load(save(tmp_path / "a"))
    test = data.load(save(tmp_path / "b", X[:2], NAMES[:2]))
    np.testing.assert_array_equal(test.y, [0, 1])
    renumbered = test.numbered_as(train)
    np.testing.assert_array_equal(renumbered.y, [1, 2])
    assert renumbered.class_names == train.class_names
    with pytest.raises(ValueError, match=r"y\[2\] = 'ant' is not one of the classes 'cat', 'dog'"):
        train.numbered_as(test)
    few = data.load(save(tmp_path / "c", X[:2], [0, 1]))
    many = data.load(save(tmp_path / "d", y=[0, 1, 2, 3, 3, 3]))
    assert few.numbered_as(many).n_classes == 4
    with pytest.raises(ValueError, match=r"y\[2\] = 2 is not in \[0, 2\)"):
        many.numbered_as(few)


def test_parts_of_a_cluster_raise(tmp_path):
    for i in range(3):
        save(tmp_path, stem=f"X-{i:04}")
    with pytest.raises(DataFormatError, match=r"3 parts such as X-0000.npy.* --workers 2 --data "):
        data.load(tmp_path)


nan = X.copy()
nan[3, 2] = np.nan


@pytest.mark.parametrize(
    ("arrays", "named", "told"),
    [
        ({"X": nan}, "X.npy", "X[3, 2] is nan, expected a finite number"),
        ({"X": X[:, 0]}, "X.npy", "X has shape (6,); expected (N, D, ...), not empty"),
        ({"X": X[:0], "y": NAMES[:0]}, "X.npy", "X has shape (0, 4); expected"),
        ({"X": X.astype(int)}, "X.npy", "X has dtype int64; expected float16, float32, float64 or"),
        ({"X": NAMES[:, None]}, "X.npy", "X has dtype <U3; expected"),
        ({"X": np.array([[None]])}, "X.npy", "holds Python objects; save an array of numbers"),
        ({"y": NAMES.astype(object)}, "y.npy", "holds Python objects"),
        ({"y": NAMES[:5]}, "y.npy", "5 labels, but 6 rows in X.npy"),
        ({"y": np.tile(NAMES, 2)}, "y.npy", "12 labels, but 6 rows in X.npy"),
        ({"y": X}, "y.npy", "labels have shape (6, 4); expected (6,), one label"),
        ({"y": [0, 1, -2, 0, 0, 0]}, "y.npy", "y[2] = -2 is not in [0, 1048576)"),
        ({"y": [0, 1, 10**9, 0, 0, 0]}, "y.npy", "y[2] = 1000000000 is not in [0, 1048576)"),
        ({"y": np.zeros(6)}, "y.npy", "y has dtype float64; expected integers that fit int64, or"),
        ({"y": np.full(6, np.nan)}, "y.npy", "y[0] is nan, expected a finite number"),
        ({"y": np.zeros(6, "M8[s]")}, "y.npy", "y must hold strings, integers, bools or floats"),
    ],
)
def test_invalid_arrays_raise_in_one_line(tmp_path, arrays, named, told):
    path = save(tmp_path, **arrays)
    with pytest.raises(DataFormatError, match=re.escape(f"{tmp_path / named}: {told}")) as caught:
        data.load(path)
    assert "\n" not in str(caught.value)
    if "is nan" in told and named == "X.npy":
        assert data.load(path, require_finite=False).n_classes == 3


def test_damaged_files_raise(tmp_path):
    file = save(tmp_path)
    whole = file.read_bytes()
    error = failure(data.load, write(file, whole[:-1]))
    assert error.offset == len(whole) - 1
    assert "truncated: 95 bytes of data, but the header gives the shape (6, 4)" in str(error)
    for content, told in (
        (b"", "byte 0: expected a .npy file, found an empty file"),
        (b"\x89PNG\r\n\x1a\n" + bytes(90), r"found it starts with b'\x89PNG"),
        (whole[:30], "byte 6: damaged header"),
        (whole[:6] + b"\x07" + whole[7:], "byte 6: damaged header"),
        (whole.replace(b"(6, 4)", b"(-6,4)"), "byte 6: damaged header"),
        (whole.replace(b"(6, 4)", b"(9**9)"), "byte 6: damaged header"),
    ):
        assert told in str(failure(data.load, write(file, content)))
    rng = np.random.default_rng(0)
    for position in range(len(whole) - X.nbytes):
        damaged = bytearray(whole)
        damaged[position] = rng.integers(256)
        with suppress(DataFormatError):
            data.load(write(file, bytes(damaged)), require_finite=False)

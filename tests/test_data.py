"""Test `fastloss.data`: loading, synthetic problems, and errors that name a damaged file."""

from __future__ import annotations

import dataclasses
import gzip
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from data_files import (
    OFFICIAL_NAMES,
    RECORD,
    failure,
    fuzz,
    idx,
    images,
    python2_pickle,
    records,
    write,
    write_mnist,
)
from hypothesis import given
from hypothesis import strategies as st

from fastloss import data
from fastloss.arrays import ROW_TYPES
from fastloss.data import DataFormatError, Dataset

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
        ({"X": np.zeros((4, 6), np.int32)}, TypeError, "X has dtype int32; expected float16"),
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


def test_load_recognises_data_sets(tmp_path):
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


def test_load_of_unrecognised_files_raises(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent: no such file or folder"):
        data.load(tmp_path / "absent")
    with pytest.raises(FileNotFoundError, match=r"data_batch_\*.*X_train.npy.*; found nothing"):
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


# .npz


@pytest.mark.parametrize("keys", [("X", "y"), ("x_train", "y_train")])
@pytest.mark.parametrize("dtype", ["u1", ">f2", "<f4", ">f4", "<f8", ">f8"])
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
        ({"X": [[1]], "y": [0]}, "X has dtype int64; expected float16, float32, float64 or u"),
        ({"X": [["a"]], "y": [0]}, "X has dtype <U1"),
        ({"X": [[1.0]], "y": [0.0]}, "y has dtype float64; expected integers that fit int64"),
        ({"X": [[1.0]], "y": np.ones(1, np.uint64)}, "y has dtype uint64"),
        ({"X": [[1.0]], "y": [0, 1]}, r"y has shape \(2,\); expected \(1,\)"),
        ({"X": [[1.0]], "y": [[0, 0]]}, r"y has shape \(1, 2\); expected \(1,\)"),
        ({"X": [[1.0]], "y": np.ones(0, int)}, r"y has shape \(0,\); expected \(1,\)"),
        ({"X": [[1.0], [2.0]], "y": [1, -2]}, r"y\[1\] = -2 is not in \[0, 2\)"),
        ({"X": [[1.0]], "y": [10**15]}, r"y\[0\] = 1000000000000000 is not in \[0, 1048576\)"),
        (
            {"X": np.array([[None]]), "y": [0]},
            "not a complete .npz archive of plain arrays.*pickle",
        ),
    ],
)
def test_invalid_npz_raises(tmp_path, arrays, match):
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
def test_damaged_files_raise_data_format_error(tmp_path, kind):
    write_mnist(tmp_path)
    small_idx = idx(images(5, 12).reshape(5, 4, 3))
    name, content, positions = {
        "npz": ("fuzz.npz", npz_bytes(tmp_path), None),
        # Not in the pixels, where every byte is valid.
        "pickle": ("data_batch_1", python2_pickle(images(1), [3]), [*range(135), *range(-20, 0)]),
        "idx": ("train-images-idx3-ubyte", small_idx, None),
        "gzip": ("train-images-idx3-ubyte", gzip.compress(small_idx), None),
    }[kind]
    rng = np.random.default_rng(0)
    messages = []
    for position in positions or range(len(content)):
        damaged = bytearray(content)
        # Not "r", LONG_BINPUT: CPython would allocate the size in the next four bytes.
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


@pytest.mark.parametrize("dtype", ROW_TYPES, ids=str)
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


@pytest.mark.parametrize("dtype", ROW_TYPES, ids=str)
def test_synthetic_needs_little_extra_memory(dtype):
    data.synthetic(10, 10, 2)
    tracemalloc.start()
    X = data.synthetic(20_000, 500, 10, dtype=dtype).X
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak - X.nbytes < 8e6


@pytest.mark.parametrize(
    ("args", "options", "error", "match"),
    [
        ((0, 1, 1), {}, ValueError, "n_rows must be >= 1, got 0"),
        ((1, -2, 1), {}, ValueError, "n_features must be >= 1, got -2"),
        ((1, 1, 0), {}, ValueError, "n_classes must be >= 1, got 0"),
        ((1, 2.0, 1), {}, TypeError, "n_features must be an integer, got 2.0"),
        ((1, 1, 1), {"seed": -1}, ValueError, "seed must be >= 0, got -1"),
        ((1, 1, 1), {"seed": None}, TypeError, "seed must be an integer, got None"),
        (
            (1, 1, 1),
            {"dtype": "i4"},
            TypeError,
            "dtype = int32; expected float16, float32, float64",
        ),
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

"""Test that memory does not grow with a label, a thread count or the header of a file."""

from __future__ import annotations

import tracemalloc
import zipfile
from io import BytesIO

import numpy as np
import pytest

import fastloss
from fastloss import benchmark
from fastloss.files import DataFormatError, read_archive
from fastloss.model import LinearModel
from fastloss.preprocessing import Preprocessing
from fastloss.training import MOST_CONFUSED, Job, Settings


def test_compare_rejects_huge_labels():
    with pytest.raises(ValueError, match=r"y\[2\] = 4294967295 is not in \[0, 1048576\)"):
        benchmark.compare({}, np.eye(3, dtype=np.float32), np.array([0, 1, 2**32 - 1]))


@pytest.mark.parametrize("shape", [(2**40,), (2**20, 2**20)])
def test_oversized_header_raises_before_allocation(shape, tmp_path):
    header = BytesIO()
    record = {"descr": "<f8", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, record)
    path = tmp_path / "huge.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("X.npy", header.getvalue() + bytes(80))
    with pytest.raises(DataFormatError, match=r"X.npy has \d+ bytes, but its header gives"):
        read_archive(path)


@pytest.mark.parametrize("backend", fastloss.available_backends())
def test_huge_n_threads(backend):
    X, W, y = np.ones((300, 80)), np.zeros((80, 100)), np.zeros(300, int)
    for n_threads in (10**9, 10**30):
        loss, _ = fastloss.loss_and_grad(W, X, y, backend=backend, n_threads=n_threads)
        assert loss == pytest.approx(np.log(100))


def test_numpy_backend_computes_scores_in_blocks():
    X, W = np.ones((30_000, 1), np.float32), np.zeros((1, 1000), np.float32)
    objective = fastloss.Objective(X, np.zeros(len(X), int), backend="numpy")
    assert peak_of(objective, W) < 100e6  # the scores alone are 120 MB


def test_accuracy_of_many_classes_needs_no_confusion_matrix():
    n_classes = 20_000
    names = tuple(map(str, range(n_classes)))
    model = LinearModel(np.zeros((2, n_classes), "f4"), "softmax", Preprocessing(False), names)
    y = np.zeros(50, int)
    assert model.accuracy(np.ones((50, 1), "f4"), y) == 1
    assert peak_of(model.accuracy, np.ones((50, 1), "f4"), y) < 50e6


def test_training_of_many_classes_makes_no_confusion_matrix(tmp_path):
    n_rows = MOST_CONFUSED + 1
    X = np.random.default_rng(0).standard_normal((n_rows, 2)).astype(np.float32)
    np.savez(tmp_path / "many.npz", X=X, y=np.arange(n_rows))
    settings = Settings(optimizer="gradient_descent", steps=1)
    outcome = Job(data=tmp_path / "many.npz", settings=settings, validation=0).run()
    assert outcome.confusions == {}
    assert list(outcome.accuracies) == ["train"]


def peak_of(function, *arguments) -> int:
    """Return the peak of allocated bytes during a call."""
    tracemalloc.start()
    try:
        function(*arguments)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

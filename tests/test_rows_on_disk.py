"""Test training on rows that stay on the disk: the same results as in memory, without a copy."""

from __future__ import annotations

import pickle
import re
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import fastloss
from fastloss import LinearModel, Objective, data, optim, rows_on_disk
from fastloss.cli import app
from fastloss.files import DataFormatError
from fastloss.optim import orders
from fastloss.optim.checkpoint import check_place
from fastloss.optim.function import Batches, RowsFunction
from fastloss.passes import pass_over, watched
from fastloss.preprocessing import Preprocessing
from fastloss.rows_on_disk import LazyRows, is_large, lazy_rows, mapped_file, read_ahead, select
from fastloss.training import Job, Settings

ROWS = data.synthetic(400, 15, 4, seed=3)
NAMES = np.array(["d", "c", "b", "a"])


def mapped(path: Path, X=ROWS.X) -> np.memmap:
    np.save(path / "X.npy", X)
    return np.load(path / "X.npy", mmap_mode="r")


@pytest.fixture
def all_large(monkeypatch):
    """Let every mapped file count as large, and cut blocks of a few rows."""
    monkeypatch.setattr(rows_on_disk, "LARGE_SHARE", 0.0)
    monkeypatch.setattr("fastloss.backends.lazily.BLOCK_BYTES", 100 * 15 * 4)
    monkeypatch.setattr(orders, "BLOCK_BYTES", 20 * 15 * 4)
    monkeypatch.setattr(orders, "BLOCKS_IN_BUFFER", 4)


# Lazy rows


def test_lazy_rows_stand_for_their_array():
    scaled = Preprocessing.fit(ROWS.X)
    numbers = np.arange(0, 400, 3)
    lazy = lazy_rows(LazyRows(ROWS.X, numbers), scaled)
    expected = scaled.apply(ROWS.X[numbers])
    assert (lazy.shape, lazy.ndim, len(lazy)) == (expected.shape, 2, len(expected))
    assert (lazy.dtype, lazy.strides) == (expected.dtype, expected.strides)
    for rows in (slice(7), slice(None, None, 5), np.array([3, 1]), numbers < 100):
        np.testing.assert_array_equal(lazy[rows], expected[rows])
    np.testing.assert_array_equal(np.asarray(lazy), expected)
    assert LazyRows(ROWS.X.astype("u1")).dtype == np.uint8


def test_only_large_selections_of_files_are_lazy(tmp_path, monkeypatch):
    X, numbers = mapped(tmp_path), np.arange(0, 400, 2)
    assert mapped_file(np.asarray(X)[5:].T) is X
    assert not is_large(X)
    assert mapped_file(X.copy()) is mapped_file(X[numbers]) is mapped_file(X + 1) is None
    monkeypatch.setattr(rows_on_disk, "LARGE_SHARE", 150 * 15 * 4 / rows_on_disk.memory_bytes())
    assert is_large(X)
    assert not is_large(ROWS.X)
    assert isinstance(select(X, slice(9, 300)), np.memmap)
    large = select(X, numbers)
    assert isinstance(large, LazyRows)
    assert isinstance(select(large, slice(160)), LazyRows)
    for small in (select(X, numbers[:90]), select(large, slice(90)), select(large, np.arange(90))):
        assert isinstance(small, np.ndarray)
        np.testing.assert_array_equal(small, ROWS.X[numbers[:90]])


def test_memory_is_the_least_limit(tmp_path, monkeypatch):
    whole = rows_on_disk.memory_bytes()
    assert whole > 2**28
    (tmp_path / "memory.max").write_text("max\n")
    monkeypatch.setattr(rows_on_disk, "CONTAINER_LIMITS", (tmp_path / "memory.max",))
    assert rows_on_disk.memory_bytes() >= whole
    (tmp_path / "memory.max").write_text(f"{2**28}\n")
    assert rows_on_disk.memory_bytes() == 2**28


def test_reading_ahead_is_advice_only(tmp_path):
    X = mapped(tmp_path)
    some = LazyRows(X, np.arange(3, 90))
    for rows in (X, X[5:], np.asarray(X), X[:, ::2], X.T, some, ROWS.X):
        for start, stop in ((0, 5), (2, 10**6), (10**6, 10**7)):
            read_ahead(rows, start, stop)


# Evaluations


@pytest.mark.parametrize("backend", fastloss.available_backends())
@pytest.mark.parametrize("dtype", ["u1", "f2", "f4", "f8"])
def test_blocks_give_the_loss_of_all_rows(backend, dtype, all_large):
    X = np.clip(40 * ROWS.X + 128, 0, 255).astype(dtype)[:250]
    y = np.where(np.arange(250) < 120, -1, ROWS.y[:250])  # the first block has no row that counts
    scaled = Preprocessing.fit(X)
    options = {
        "l2": 0.1,
        "intercept": True,
        "ignore_index": -1,
        "sample_weight": np.linspace(0, 2, 250),
        "backend": backend,
    }
    whole = Objective(scaled.apply(X), y, **options)
    lazy = Objective(lazy_rows(X, scaled), y, **options)
    W = np.random.default_rng(0).standard_normal((16, 4)).astype(scaled.dtype)
    tolerance = 1e-12 if dtype == "f8" else 1e-5
    for one, other in zip(lazy(W), whole(W), strict=True):
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(lazy.terms(W), whole.terms(W), rtol=tolerance)
    rows = np.array([249, 130, 0, 248])
    for one, other in zip(lazy.minibatch(4)(rows, W), whole.minibatch(4)(rows, W), strict=True):
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance)
    assert optim.accuracy(lazy, W) == optim.accuracy(whole, W)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(lazy))(W)[1], lazy(W)[1])


def test_blocks_give_the_same_bits_on_any_number_of_threads(all_large):
    lazy = lazy_rows(ROWS.X, Preprocessing.fit(ROWS.X))
    results = [
        optim.minimize(
            Objective(lazy, ROWS.y, n_threads=n), np.zeros((15, 4), "f4"), "lbfgs", max_steps=5
        ).W
        for n in (1, 2)
    ]
    np.testing.assert_array_equal(*results)


# Orders


def test_order_visits_every_row_a_few_blocks_at_a_time(tmp_path, all_large):
    X = mapped(tmp_path)
    weights = (np.arange(400) % 10 > 0).astype(float)  # 360 rows count: 18 blocks, 5 buffers
    objective = Objective(X, ROWS.y, sample_weight=weights)
    seen = []

    class Recorder(RowsFunction):
        def minibatch(self, n_rows, n_candidates):
            return lambda rows, W, _: (seen.extend(rows), (0.0, W))[1]

    W = np.zeros((15, 4), "f4")
    batches = Batches(Recorder(objective, W, True), 16, shuffle=True, seed=1)
    for step in range(2 * batches.per_epoch):
        batches.value_and_gradient(W, step)
    epochs = np.array(seen).reshape(2, -1)
    counted = np.flatnonzero(weights)
    assert not np.array_equal(*epochs)
    for epoch in epochs:
        np.testing.assert_array_equal(np.sort(epoch), counted)
        blocks = np.searchsorted(counted, epoch) // 20
        for start in range(0, 320, 80):
            assert len(set(blocks[start : start + 80])) == 4
            assert set(blocks[start : start + 80]) != set(range(start // 20, start // 20 + 4))
            assert len(set(blocks[start : start + 16])) > 1
    assert orders.reads_blocks(X)
    assert not orders.reads_blocks(ROWS.X)


# Training


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "lbfgs", "gradient_descent"])
def test_streamed_fit_is_the_fit_in_memory(tmp_path, monkeypatch, optimizer):
    X = mapped(tmp_path)
    limit = {"epochs": 3} if optimizer in ("sgd", "adam") else {"steps": 12}
    for y in (NAMES[ROWS.y], np.sort(ROWS.y)):  # sorted labels: validation rows are drawn
        in_memory = LinearModel.fit(ROWS.X, y, optimizer=optimizer, **limit)
        monkeypatch.setattr(rows_on_disk, "LARGE_SHARE", 0.0)
        streamed = LinearModel.fit(X, y, optimizer=optimizer, **limit)
        # A block holds all rows, so even the order is the same.
        np.testing.assert_array_equal(streamed.W, in_memory.W)
        np.testing.assert_array_equal(streamed.predict(X), in_memory.predict(ROWS.X))
        assert streamed.about["accuracy"] == in_memory.about["accuracy"]
        assert [m.about["read_in_blocks"] for m in (streamed, in_memory)] == [True, False]
        monkeypatch.undo()


def test_many_blocks_learn_as_well(tmp_path, all_large):
    X, y = mapped(tmp_path), ROWS.y.copy()
    y[::50] = -1
    held_out = (X[300:], ROWS.y[300:])
    options = {"ignore_index": -1, "validation": held_out}
    models = [LinearModel.fit(X, y, stream=stream, **options) for stream in (None, True, False)]
    losses = [model.history[-1].loss for model in models]
    assert losses[0] == losses[1] != losses[2]
    np.testing.assert_allclose(losses[0], losses[2], rtol=0.02)
    lbfgs = [
        LinearModel.fit(X, y, stream=stream, optimizer="lbfgs", steps=200, l2=0.01, **options).W
        for stream in (True, False)
    ]
    np.testing.assert_allclose(*lbfgs, atol=1e-3)


def test_statistics_of_float32_need_no_scaling():
    extreme = np.array([[1e38, -1e-45, 1.0], [1e38, 1e-45, 3.0], [-1e38, 0.0, 5.0]], np.float32)
    scaled, exact = Preprocessing.fit(extreme), extreme.astype(np.float64)
    np.testing.assert_allclose(scaled.mean, exact.mean(axis=0), rtol=1e-6, atol=1e-45)
    np.testing.assert_allclose(scaled.deviation[[0, 2]], exact.std(axis=0)[[0, 2]], rtol=1e-6)


def test_resumed_job_gives_the_same_bits_and_knows_its_mode(tmp_path, all_large):
    mapped(tmp_path)
    np.save(tmp_path / "y.npy", ROWS.y)
    run = tmp_path / "run.npz"
    whole = Job(Settings(epochs=4, batch_size=32), tmp_path).run()
    stopped = Job(Settings(epochs=4, batch_size=32), tmp_path, checkpoint=run)

    def interrupt_at(step):
        @contextmanager
        def bar(total):
            def update(message, done):
                if done >= step:
                    raise KeyboardInterrupt

            yield update

        return bar

    assert not stopped.run(interrupt_at(11)).complete
    with pytest.raises(
        ValueError, match=r"X \(350, 15\) float32 in blocks there, \(350, 15\) float"
    ):
        Job(
            Settings(epochs=4, batch_size=32), tmp_path, checkpoint=run, resume=True, stream=False
        ).run()
    resumed = Job(Settings(epochs=4, batch_size=32), tmp_path, checkpoint=run, resume=True).run()
    np.testing.assert_array_equal(resumed.model.W, whole.model.W)


def test_checkpoint_never_replaces_the_rows(tmp_path):
    X = mapped(tmp_path)
    for rows in (X, lazy_rows(X, Preprocessing.fit(X))):
        with pytest.raises((OSError, ValueError), match=r"X\.npy"):
            check_place(tmp_path / "X.npy", Objective(rows, ROWS.y))


# Progress


def test_long_passes_are_reported(tmp_path, monkeypatch, all_large):
    monkeypatch.setattr("fastloss.passes.LONG_SECONDS", -1.0)
    shares = []
    with watched(shares.append):
        assert len(list(pass_over(ROWS.X, 60, 60 * 100))) == 4
    assert shares == [0, 0.25, 0.5, 0.75]
    list(pass_over(ROWS.X, 60, 60))
    assert len(shares) == 4
    mapped(tmp_path)
    np.save(tmp_path / "y.npy", ROWS.y)
    shown, said = [], []

    @contextmanager
    def bar(total):
        yield lambda message, done: shown.append((message, done / total))

    Job(Settings(epochs=2, batch_size=32), tmp_path).run(bar, said.append)
    assert shown[0] == ("reading rows", 0)
    assert any(re.fullmatch(r"loss .*, validation .*; \d\d% of a pass", text) for text, _ in shown)
    assert all(0 <= share <= 1 for _, share in shown)
    assert len(said) == 1
    assert said[0].startswith("rows are read in blocks (a float copy would take 2.1e-05 GB of mem")


# Commands


def test_commands_on_mapped_rows_with_names(tmp_path, all_large):
    def run(*arguments):
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        assert result.exit_code == 0, result.output
        return result

    folder, out = tmp_path / "rows", tmp_path / "out"
    folder.mkdir()
    mapped(folder)
    np.save(folder / "names.npy", NAMES[ROWS.y])
    file, options = folder / "X.npy", ("--labels", folder / "names.npy")
    result = run("train", "--data", file, *options, "--epochs", 3, "--out", out)
    assert result.stderr.startswith("fastloss: rows are read in blocks")
    assert "350 rows to train on, 50 for validation" in result.stdout
    model = LinearModel.load(out / "model.npz")
    assert model.predict(ROWS.X[:1])[0] in "abcd"
    result = run("predict", out / "model.npz", "--data", file, *options)
    share = model.accuracy(ROWS.X, NAMES[ROWS.y])
    assert f"Accuracy: {share:.2%}" in result.stdout
    result = run("predict", out / "model.npz", "--data", file, "--out", out / "p.csv")
    assert "400 rows" in result.stdout
    assert (out / "p.csv").read_text().splitlines()[1].split(",")[1] in "abcd"
    result = CliRunner().invoke(app, ["train", "--data", str(file), "--out", str(out)])
    assert result.exit_code == 2
    assert "X.npy: has no labels: expected y.npy beside it, or --labels FILE" in result.stderr


def test_splits_with_fewer_classes_in_the_test_rows(tmp_path):
    for name, rows in (("train", ROWS.rows(slice(300))), ("test", ROWS.rows(ROWS.y > 1))):
        np.save(tmp_path / f"X_{name}.npy", rows.X)
        np.save(tmp_path / f"y_{name}.npy", NAMES[rows.y])
    outcome = Job(Settings(epochs=3), tmp_path).run()
    assert outcome.accuracies["test"] == outcome.model.accuracy(
        ROWS.X[ROWS.y > 1], NAMES[ROWS.y[ROWS.y > 1]]
    )
    np.save(tmp_path / "y_test.npy", np.full(np.count_nonzero(ROWS.y > 1), "zebra"))
    with pytest.raises(ValueError, match=r"the rows for test: y\[0\] = 'zebra' is not one of the"):
        Job(Settings(epochs=3), tmp_path).run()
    (tmp_path / "y_test.npy").unlink()
    with pytest.raises(DataFormatError, match=r"X_test\.npy: has no labels: expected y_test\.npy"):
        Job(Settings(epochs=3), tmp_path).run()


# Memory

CHILD = """
import re, resource, sys
from pathlib import Path
import numpy as np
from fastloss import LinearModel, data

small = data.synthetic(2000, 512, 4)
runs = {"optimizer": "sgd", "epochs": 0.3}, {"optimizer": "lbfgs", "steps": 1}
for run in runs:
    LinearModel.fit(small.X, small.y, **run).predict(small.X)  # kernels, BLAS and threads
used = 1024 * int(re.search(r"VmData:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
resource.setrlimit(resource.RLIMIT_DATA, (used + 110 * 2**20,) * 2)
X, y = np.load(sys.argv[1], mmap_mode="r"), np.load(sys.argv[2])
try:
    np.array(X)
except MemoryError:
    print("no room for a copy")
for run in runs:
    model = LinearModel.fit(X, y, **run)
    print(model.about["read_in_blocks"], np.mean(model.predict(X) == y) > 0.9)
"""


def test_rows_larger_than_memory(tmp_path):
    pytest.importorskip("resource", reason="this system has no limit on memory")
    if not Path("/proc/self/status").exists():
        pytest.skip("this system does not tell how much memory a process uses")
    N, D = 100_000, 512
    X = np.lib.format.open_memmap(tmp_path / "X.npy", "w+", np.float32, (N, D))  # 205 MB
    y = np.arange(N) * 4 // N  # sorted, so that validation rows are drawn
    X[:, 0], X[:, 1] = y // 2, y % 2  # the other columns are 0
    X.flush()
    np.save(tmp_path / "y.npy", y)
    done = subprocess.run(
        [sys.executable, "-c", CHILD, tmp_path / "X.npy", tmp_path / "y.npy"],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.stdout.splitlines() == ["no room for a copy", "True True", "True True"], done.stderr

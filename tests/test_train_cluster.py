"""Test ``fastloss train`` on a cluster: a folder of parts, and the commands."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import reduce
from operator import add
from pathlib import Path

import numpy as np
import pytest
from clusters import local_client
from distributed import Client
from typer.testing import CliRunner

from fastloss import data
from fastloss.cli import app
from fastloss.data.parts import Parts
from fastloss.files import DataFormatError
from fastloss.model import LinearModel
from fastloss.preprocessing import Preprocessing
from fastloss.training import Job, Settings
from fastloss.training.cluster import moments_of, split, train_on_cluster

NAMES = np.array(["ant", "bee", "cat", "dog"])
ROWS = data.synthetic(3000, 30, 4, seed=0)


def save_parts(folder: Path, X: np.ndarray, y: np.ndarray, n_parts: int = 3) -> Path:
    folder.mkdir(exist_ok=True)
    for k, rows in enumerate(np.array_split(np.arange(len(X)), n_parts)):
        np.save(folder / f"X-{k:03}.npy", X[rows])
        np.save(folder / f"y-{k:03}.npy", y[rows])
    return folder


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with local_client(2, processes=False) as client:
        yield client


@pytest.fixture(scope="module")
def sorted_names(tmp_path_factory) -> Path:
    """Return parts whose labels are strings, sorted by class."""
    order = np.argsort(ROWS.y, kind="stable")
    return save_parts(tmp_path_factory.mktemp("sorted"), ROWS.X[order], NAMES[ROWS.y[order]])


def train(*arguments: object):
    return CliRunner().invoke(app, ["train", *map(str, arguments)])


@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float32, np.float64])
def test_moments_of_pieces_give_the_preprocessing_of_all_rows(tmp_path, dtype):
    X = data.synthetic(500, 6, 3, seed=1, dtype=dtype).X.copy()
    X[:, 1] = 7  # constant
    if dtype == np.float64:
        X[:, 2] += 1e6
    parts = Parts.of(save_parts(tmp_path / "parts", X, np.arange(500) % 3))
    moments = reduce(add, map(moments_of, parts.pieces(90)))
    assert (moments.n_rows, moments.n_numbers) == (500, 3)
    deviation = np.sqrt(moments.squares / moments.n_rows)
    for kind in ("none", "mean_image", "standardize"):
        expected = Preprocessing.fit(X, kind)
        actual = Preprocessing.of_moments(X.dtype, kind, moments.mean, deviation)
        assert (actual.of_pixels, actual.dtype) == (expected.of_pixels, expected.dtype)
        for name in ("mean", "deviation"):
            a, b = getattr(actual, name), getattr(expected, name)
            assert (a is None) == (b is None)
            if b is not None:
                np.testing.assert_allclose(a, b, rtol=1e-6)


def test_rows_for_validation_come_from_every_piece(sorted_names, monkeypatch):
    monkeypatch.chdir(sorted_names.parent)
    parts = Parts.of(sorted_names.name)
    assert parts.files == Parts.of(sorted_names).files  # workers may be in another folder
    train_pieces, held_out = split(parts, 90)
    assert sum(piece.stop - piece.start for piece in held_out) == 90
    assert sum(piece.stop - piece.start for piece in train_pieces) == 2910
    assert {piece.X_file for piece in held_out} == {file for file, _ in parts.files}
    assert split(parts, 0)[1] == []
    with pytest.raises(ValueError, match=r"validation must be in \[0, 3000\)"):
        split(parts, 3000)


@contextmanager
def only_bar(total: float) -> Iterator[Callable[[str, float], None]]:
    """Be a bar that is never shown with another one, which old versions of rich refuse."""
    assert not only_bar.is_open
    only_bar.is_open = True
    yield lambda message, done: None
    only_bar.is_open = False


only_bar.is_open = False


@pytest.mark.parametrize("stream", [False, True])
def test_model_is_that_of_one_process(client, tmp_path, stream):
    parts = save_parts(tmp_path / "parts", ROWS.X, ROWS.y)
    np.savez(tmp_path / "whole.npz", X=ROWS.X, y=ROWS.y)
    settings = Settings(optimizer="lbfgs", steps=8, class_weight={"1": 2.0})
    expected = Job(settings, data=tmp_path / "whole.npz", validation=0).run()
    outcome = train_on_cluster(
        Job(settings, data=parts, validation=0, stream=stream), client, only_bar
    )
    assert outcome.settings.l2 == expected.settings.l2
    np.testing.assert_allclose(outcome.model.W, expected.model.W, atol=1e-4)
    assert outcome.accuracies == pytest.approx(expected.accuracies, abs=1e-3)
    assert outcome.model.about["read_in_blocks"] is stream


def test_command_trains_on_local_workers_and_saves_a_model(sorted_names, tmp_path):
    out = tmp_path / "out"
    result = train("--data", sorted_names, "--workers", 2, "--epochs", 2, "--out", out)
    assert result.exit_code == 0, result.output
    assert "2,625 rows to train on, 375 for validation" in result.stdout
    model = LinearModel.load(out / "model.npz")
    assert model.classes.tolist() == NAMES.tolist()
    assert model.accuracy(ROWS.X, NAMES[ROWS.y]) > 0.85
    record = json.loads((out / "history.json").read_text())
    assert record["data"]["rows"] == {"train": 2625, "validation": 375}
    assert record["accuracy"]["validation"] > 0.85


def test_errors_of_workers_are_one_line(tmp_path):
    parts = _broken(tmp_path / "parts", "NaN")
    command = [sys.executable, "-m", "fastloss", "train", "--data", parts, "--workers", "1"]
    done = subprocess.run([*map(str, command), "--out", tmp_path], capture_output=True, text=True)
    told = f"fastloss: {parts / 'X-001.npy'}: X[17, 3] is nan, expected a finite number\n"
    assert (done.returncode, done.stderr) == (2, told)


def test_command_resumes_on_a_scheduler(client, sorted_names, tmp_path):
    arguments = (
        *("--data", sorted_names, "--scheduler", client.scheduler.address, "--out", tmp_path),
        *("--optimizer", "gradient_descent", "--lr", 0.1, "--checkpoint", tmp_path / "run.npz"),
    )
    assert train(*arguments, "--steps", 2).exit_code == 0
    resumed = train(*arguments, "--steps", 4, "--resume")
    assert "resumed after step 2" in resumed.stderr, resumed.output


def _broken(folder: Path, fault: str) -> Path:
    save_parts(folder, ROWS.X[:90], ROWS.y[:90])
    X, y = np.load(folder / "X-001.npy"), np.load(folder / "y-001.npy")
    match fault:
        case "no labels":
            (folder / "y-001.npy").unlink()
        case "rows":
            np.save(folder / "y-001.npy", y[:-1])
        case "NaN":
            X[17, 3] = np.nan
            np.save(folder / "X-001.npy", X)
        case "label":
            y[20] = -1
            np.save(folder / "y-001.npy", y)
        case "width":
            np.save(folder / "X-001.npy", X[:, 1:])
        case "no list":
            np.save(folder / "y-001.npy", np.int64(1))
        case "large":
            for k in range(3):
                np.save(folder / f"X-00{k}.npy", X.astype(float) * 1e300)
        case "kinds":
            np.save(folder / "y-001.npy", NAMES[y])
        case "one class":
            for k in range(3):
                np.save(folder / f"y-00{k}.npy", 0 * y)
        case "empty":
            for file in folder.iterdir():
                file.unlink()
    return folder


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("no labels", "X-001.npy: has no labels: expected y-001.npy beside it"),
        ("rows", "y-001.npy: 29 labels, but 30 rows in X-001.npy"),
        ("NaN", "X-001.npy: X[17, 3] is nan, expected a finite number"),
        ("label", "y-001.npy: y[20] = -1 is not in [0, "),
        ("width", "X-001.npy: X has rows of shape (29,) and float32, but (30,)"),
        ("no list", "y-001.npy: labels have shape (); expected (30,), one label a row"),
        ("large", "X has too large entries for float64: the sums of their squares overflow"),
        ("kinds", "y must hold integers, strings or bools: the same kind in all parts"),
        ("one class", "has too few classes: 1; 2 needed"),
        ("empty", "expected parts named X-*.npy with y-*.npy"),
    ],
)
def test_bad_parts_are_one_line(client, tmp_path, fault, message):
    with pytest.raises((DataFormatError, OSError, TypeError, ValueError)) as caught:
        train_on_cluster(Job(Settings(), data=_broken(tmp_path / "parts", fault)), client)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_class_whose_rows_are_all_held_out(client, tmp_path):
    y = ROWS.y[:90].copy()
    y[-1] = 4
    for labels, names in ((y, "01234"), (np.array([*NAMES, "fox"])[y], [*NAMES, "fox"])):
        parts = save_parts(tmp_path / labels.dtype.kind, ROWS.X[:90], labels)
        outcome = train_on_cluster(Job(Settings(steps=1), data=parts), client)
        assert outcome.model.class_names == tuple(names)
        assert outcome.splits.validation.y[-1] == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--workers", 1, "--scheduler", "tcp://127.0.0.1:1"), "give either it or --workers"),
        (("--scheduler", "no address"), "--scheduler no address does not answer"),
    ],
)
def test_bad_options_are_one_line(sorted_names, tmp_path, arguments, message):
    result = train("--data", sorted_names, *arguments, "--out", tmp_path)
    assert result.exit_code == 2
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_outputs_never_replace_a_part(sorted_names, tmp_path):
    part = sorted_names / "X-001.npy"
    for option in ("--save", "--checkpoint"):
        result = train("--data", sorted_names, "--workers", 1, option, part, "--out", tmp_path)
        assert f"{part} are the same file; name another one" in result.stderr


def test_jobs_that_need_one_machine_are_refused(client, sorted_names):
    for job, message in [
        (Job(Settings()), "a cluster needs data"),
        (Job(Settings(), data=sorted_names, sweep="l2=1|2"), "a sweep runs on one machine"),
        (Job(Settings(), data=sorted_names, labels="y.npy"), "pass no labels"),
    ]:
        with pytest.raises(ValueError, match=message):
            train_on_cluster(job, client)


@pytest.mark.deep
def test_ctrl_c_in_a_terminal_keeps_the_model_and_leaves_no_worker(sorted_names, tmp_path):
    code = """if __name__ == "__main__":
        import signal
        signal.signal(signal.SIGINT, signal.default_int_handler)
        from fastloss.__main__ import main
        main()"""
    command = [sys.executable, "-c", code, "train", "--data", sorted_names, "--workers", "2"]
    command += ["--epochs", "100000", "--out", tmp_path, "--checkpoint", tmp_path / "run.npz"]
    process = subprocess.Popen(
        [*map(str, command)], start_new_session=True, stderr=subprocess.PIPE, text=True
    )
    try:
        time.sleep(20)  # it trains by now, or else ends as well
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        assert process.wait(60) == 130, process.communicate()[1]
        with pytest.raises(ProcessLookupError):
            os.killpg(process.pid, 0)
    finally:
        process.stderr.close()
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)

"""Tests of ``fastloss train`` and ``fastloss predict``, as a user runs them."""

from __future__ import annotations

import csv
import json
import re
import shutil
import signal
import time
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from typer.testing import CliRunner

from fastloss import data, plots
from fastloss.cli import app
from fastloss.cli import train as cli_train
from fastloss.model import LinearModel
from fastloss.training import Job
from fastloss.training import job as job_module


def run(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def npz(tmp_path) -> Path:
    rows = data.synthetic(300, 12, 4, seed=1)
    np.savez(tmp_path / "d.npz", X=rows.X, y=rows.y)
    return tmp_path / "d.npz"


@pytest.fixture
def images(tmp_path) -> Path:
    rows = data.synthetic(300, 48, 4, seed=1, dtype=np.uint8)
    np.savez(tmp_path / "i.npz", X=rows.X.reshape(-1, 3, 4, 4), y=rows.y)
    return tmp_path / "i.npz"


TINY = ("--epochs", "3", "--batch-size", "32")


def test_train_prints_a_report_and_saves_its_files(npz, tmp_path):
    out = tmp_path / "out"
    result = run("train", "--data", npz, *TINY, "--out", out)
    assert result.exit_code == 0, result.output
    for text in (
        "263 rows to train on, 37 for validation, none for test",
        *("loss=softmax, optimizer=sgd, lr=", "epoch", "|gradient|"),
        *("Accuracy: train", "validation", "Time: loading", "Saved"),
    ):
        assert text in result.stdout
    # No escape codes and no progress bar without a terminal.
    assert "\x1b" not in result.stdout
    assert result.stderr == ""
    names = {path.stem for path in out.iterdir()}
    assert {"model", "history", "loss", "confusion"} <= names
    assert "templates" not in names
    assert not [path for path in out.iterdir() if path.suffix == ".part"]
    record = json.loads((out / "history.json").read_text())
    model = LinearModel.load(out / "model.npz")
    rows = data.load(npz)
    np.testing.assert_allclose(
        record["accuracy"]["validation"], model.accuracy(rows.X[263:], rows.y[263:])
    )
    for name in map(str, out.iterdir()):
        assert Path(name).name in result.stdout


def test_images_get_templates(images, tmp_path):
    result = run("train", "--data", images, *TINY, "--standardize", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "out" / "templates.png").exists()
    model = LinearModel.load(tmp_path / "out" / "model.npz")
    assert model.image_shape == (3, 4, 4)
    assert model.preprocessing.deviation is not None


def test_train_json_to_stdout_is_json_and_nothing_else(npz, tmp_path):
    result = run("train", "--data", npz, *TINY, "--json", "-", "--out", tmp_path / "out")
    assert json.loads(result.stdout)["settings"]["epochs"] == 3
    result = run(
        *("train", "--data", npz, *TINY, "--out", tmp_path / "out"),
        *("--json", tmp_path / "more.json", "--save", tmp_path / "elsewhere" / "m.npz"),
    )
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "more.json").read_text())["complete"]
    LinearModel.load(tmp_path / "elsewhere" / "m.npz")


def test_train_without_data_is_synthetic(tmp_path):
    result = run("train", "--epochs", "2", "--out", tmp_path)
    assert result.exit_code == 0, result.output
    record = json.loads((tmp_path / "history.json").read_text())
    assert record["data"]["name"] == "synthetic"
    # Noise costs one row in ten.
    assert 0.8 < record["accuracy"]["test"] < 0.95


@pytest.mark.parametrize(
    "options",
    [
        ("--optimizer", "lbfgs", "--steps", "10", "--raw"),
        ("--optimizer", "adam", "--loss", "hinge", "--lr", "0.01", "--schedule", "cosine"),
        ("--optimizer", "gradient_descent", "--line-search", "--steps", "5"),
        ("--momentum", "0.5", "--nesterov", "--l1", "1e-4", "--l2", "0", "--mean-image"),
    ],
)
def test_options_reach_the_run(npz, tmp_path, options):
    result = run("train", "--data", npz, *options, "--out", tmp_path, "--threads", "1")
    assert result.exit_code == 0, result.output
    settings = json.loads((tmp_path / "history.json").read_text())["settings"]
    given = dict(pairwise(options))
    for option, value in given.items():
        name = option.removeprefix("--").replace("-", "_")
        if option.startswith("--") and not value.startswith("--") and name in settings:
            assert str(settings[name]) == value or float(settings[name]) == float(value)


def test_best_model_with_class_weights_is_kept_and_predicts_names(npz, tmp_path):
    options = ("--class-weight", "1=3,2=0.5", "--patience", "2", "--lr", "0.5")
    options += ("--schedule", "constant", "--batch-size", "32")
    result = run("train", "--data", npz, *options, "--out", tmp_path)
    assert result.exit_code == 0, result.output
    assert "Stopped: no higher validation accuracy in 2 records since step " in result.stdout
    assert "Kept W of epoch " in result.stdout
    record = json.loads((tmp_path / "history.json").read_text())
    shares = record["history"]["validation_accuracy"]
    assert record["accuracy"]["validation"] == max(shares)
    assert record["history"]["step"][shares.index(max(shares))] == record["step_kept"]
    assert record["settings"]["class_weight"] == {"1": 3.0, "2": 0.5}
    # A model of labels that are no numbers from 0: the labels are predicted.
    rows = data.load(npz)
    LinearModel.fit(rows.X, 10 * rows.y, steps=5).save(tmp_path / "tens.npz")
    np.savez(tmp_path / "tens_data.npz", X=rows.X, y=10 * rows.y)
    out = tmp_path / "p.csv"
    result = run(
        "predict", tmp_path / "tens.npz", "--data", tmp_path / "tens_data.npz", "--out", out
    )
    assert result.exit_code == 0, result.output
    with out.open() as stream:
        lines = list(csv.DictReader(stream))
    assert {line["predicted"] for line in lines} == {"0", "10", "20", "30"}
    assert all(line["predicted"] == line["class"] for line in lines)
    share = np.mean([line["predicted"] == line["y"] for line in lines])
    assert f"Accuracy: {share:.2%}" in result.stdout


def test_same_seed_gives_the_same_model_on_any_number_of_threads(npz, tmp_path):
    for threads in (1, 2):
        arguments = ("--seed", "5", "--threads", threads, "--out", tmp_path / f"{threads}")
        assert run("train", "--data", npz, *TINY, *arguments).exit_code == 0
    one, two = (LinearModel.load(tmp_path / f"{threads}" / "model.npz") for threads in (1, 2))
    np.testing.assert_array_equal(one.W, two.W)


def test_sweep_prints_its_trials_and_keeps_the_best(npz, tmp_path):
    sweep = "lr=1e-6|0.5|1e9,schedule=constant"
    result = run("train", "--data", npz, *TINY, "--sweep", sweep, "--out", tmp_path)
    assert result.exit_code == 0, result.output
    assert "3 trials, best first" in result.stdout
    assert "diverged in step" in result.stdout
    assert "lr=0.5" in result.stdout
    assert json.loads((tmp_path / "history.json").read_text())["settings"]["lr"] == 0.5
    again = run(
        *("train", "--data", npz, *TINY, "--sweep", "lr=1e-3:1:log,l2=0|1e-3"),
        *("--trials", "4", "--out", tmp_path),
    )
    assert again.exit_code == 0, again.output
    assert "4 trials" in again.stdout


@pytest.mark.parametrize("options", [(), ("--sweep", "lr=0.01|0.02|0.03|0.04")])
def test_ctrl_c_keeps_the_trained_model(npz, tmp_path, options, start_python):
    """A real signal is sent to another process once it has begun to train."""
    checkpoint, started = tmp_path / "c.npz", tmp_path / "started"
    arguments = ["train", "--data", str(npz), *options]
    arguments += ["--epochs", "1000000", "--schedule", "constant", "--out", str(tmp_path / "out")]
    if not options:
        arguments += ["--checkpoint", str(checkpoint)]
    process = start_python(f"""
        import pathlib, sys
        from fastloss.training import problem
        minimize = problem.minimize
        def begin(*a, callback=None, **k):
            def told(record):
                if record.step >= 50:  # by then all trials of a sweep are queued
                    pathlib.Path({str(started)!r}).touch()
                return callback(record)
            return minimize(*a, callback=told, **k)
        problem.minimize = begin
        from fastloss.__main__ import main
        sys.argv = ["fastloss", *{arguments!r}]
        main()
    """)
    deadline = time.monotonic() + 100
    while not started.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=100)
    assert process.returncode == 130, stderr
    assert stderr == ""
    assert "Interrupted; the model trained so far is kept." in stdout
    LinearModel.load(tmp_path / "out" / "model.npz")
    assert not json.loads((tmp_path / "out" / "history.json").read_text())["complete"]
    assert checkpoint.exists() == (not options)


def test_resume_continues_only_the_same_run(npz, tmp_path):
    arguments = ("train", "--data", npz, *TINY, "--out", tmp_path, "--checkpoint", tmp_path / "c")
    assert run(*arguments).exit_code == 0
    result = run(*arguments, "--resume")
    assert result.exit_code == 0, result.output
    assert re.match(rf"fastloss: resumed after step \d+ of {tmp_path / 'c'}\n", result.stderr)
    result = run(*arguments)
    assert result.exit_code == 2
    assert "a checkpoint is there; pass resume=True (--resume), or delete it" in result.stderr
    result = run(*arguments, "--resume", "--l2", "0.5")
    assert result.exit_code == 2
    assert "is a checkpoint of another run: penalty" in result.stderr


def test_interrupt_while_loading_is_reported(npz, tmp_path, monkeypatch):
    def interrupt(*arguments, **keywords):
        raise KeyboardInterrupt

    monkeypatch.setattr(job_module, "load_splits", interrupt)
    result = run("train", "--data", npz, "--out", tmp_path)
    assert result.exit_code == 130
    assert result.stderr == "fastloss: interrupted\n"


def test_bar_counts_every_step(npz, tmp_path, monkeypatch):
    shown = []

    class Bar:
        def __init__(self, total):
            shown.append(total)

        def __enter__(self):
            return lambda message, done: shown.append((message, done))

        def __exit__(self, *error):
            return None

    monkeypatch.setattr("fastloss.cli.train.progress_bar", Bar)
    assert run("train", "--data", npz, *TINY, "--out", tmp_path).exit_code == 0
    total, *updates = shown
    assert total == 27
    assert updates[-1][1] == total
    assert "validation" in updates[-1][0]


# Bad input


def bad(tmp_path, npz) -> dict[str, tuple[tuple[object, ...], str]]:
    truncated = tmp_path / "data_batch_1.bin"
    truncated.write_bytes(bytes(3073 + 5))
    (tmp_path / "file").write_text("")
    train = ("train", "--data", npz, "--out", tmp_path / "out")
    return {
        "no folder": (("train", "--data", "/no/such/place"), "/no/such/place: no such file"),
        "truncated": (("train", "--data", truncated, "--out", tmp_path), "truncated record"),
        "loss": ((*train, "--loss", "nope"), "unknown loss 'nope'; known: "),
        "optimizer": ((*train, "--optimizer", "nope"), "unknown method 'nope'; known: "),
        "schedule": ((*train, "--schedule", "nope"), "unknown schedule 'nope'"),
        "parameter": ((*train, "--optimizer", "lbfgs", "--momentum", 0.9), "takes no momentum"),
        "sweep": ((*train, "--sweep", "nope=1|2"), "unknown sweep parameter 'nope'"),
        "sweep text": ((*train, "--sweep", "lr"), "a sweep reads"),
        "sweep and checkpoint": (
            (*train, "--sweep", "lr=1|2", "--checkpoint", tmp_path / "c"),
            "either sweep or checkpoint",
        ),
        "trials": ((*train, "--trials", 3), "trials need a sweep"),
        "diverges": (
            (*train, "--lr", 1e9, "--schedule", "constant"),
            "the learning rate was 1e+09: lower lr",
        ),
        "lr": ((*train, "--lr", -1), "lr must be finite and > 0"),
        "l2": ((*train, "--l2", -1), "l2 must be finite and >= 0"),
        "epochs": ((*train, "--epochs", 0), "epochs must be > 0"),
        "endless": ((*train, "--epochs", "inf"), "epochs must be < 1e+15"),
        "too long": ((*train, "--epochs", "1e308"), "epochs must be < 1e+15"),
        "batch size": ((*train, "--batch-size", 0), "batch_size must be >= 1"),
        "threads": ((*train, "--threads", 0), "threads must be >= 1"),
        "validation": ((*train, "--validation", 300), "validation must be in [0, 300)"),
        "patience": ((*train, "--patience", 0), "patience must be >= 1"),
        "no rows to be patient with": (
            (*train, "--patience", 2, "--validation", 0),
            "restore_best and patience need validation rows",
        ),
        "class weight": ((*train, "--class-weight", "9=2"), "class_weight names 9, which is none"),
        "raw": ((*train, "--raw", "--standardize"), "--raw"),
        "save": ((*train, "--save", tmp_path / "file" / "m.npz"), "cannot write"),
        "save to a folder": ((*train, "--save", tmp_path), "it is a folder"),
        "out": (("train", "--data", npz, "--out", tmp_path / "file"), "cannot write"),
        "resume": ((*train, "--resume"), "resume needs the checkpoint"),
        "no checkpoint": ((*train, "--resume", "--checkpoint", tmp_path / "x"), "no checkpoint"),
        "foreign checkpoint": (
            (*train, "--resume", "--checkpoint", npz.with_name("other.npz")),
            "not a checkpoint of this version of fastloss",
        ),
        "no model": (("predict", tmp_path / "m", "--data", npz), "no such file"),
        "foreign model": (("predict", npz, "--data", npz), "found an archive of X, y"),
    }


@pytest.mark.parametrize(
    "case",
    [
        *("no folder", "truncated", "loss", "optimizer", "schedule", "parameter", "sweep"),
        *("sweep text", "sweep and checkpoint", "trials", "diverges", "lr", "l2", "epochs"),
        *("endless", "too long", "batch size"),
        *("threads", "validation", "raw", "save", "save to a folder", "out", "resume"),
        *("no checkpoint", "foreign checkpoint", "no model", "foreign model"),
    ],
)
def test_bad_input_ends_in_one_clear_line(tmp_path, npz, case, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(npz, tmp_path / "other.npz")
    arguments, message = bad(tmp_path, npz)[case]
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert result.stdout == ""


# predict


@pytest.fixture
def trained(npz, tmp_path) -> Path:
    assert run("train", "--data", npz, *TINY, "--out", tmp_path / "out").exit_code == 0
    return tmp_path / "out" / "model.npz"


def test_predict_uses_the_saved_model(trained, npz, tmp_path):
    rows, model = data.load(npz), LinearModel.load(trained)
    classes = model.predict(rows.X)
    share = f"{np.mean(classes == rows.y):.2%}"
    for name in ("p.csv", "p.npz"):
        result = run("predict", trained, "--data", npz, "--out", tmp_path / "new" / name)
        assert result.exit_code == 0, result.output
        for text in (f"Accuracy: {share}", "of 300 rows", "Most often confused", "Saved"):
            assert text in result.stdout
    with np.load(tmp_path / "new" / "p.npz") as saved:
        np.testing.assert_array_equal(saved["predicted"], classes)
        np.testing.assert_array_equal(saved["y"], rows.y)
        np.testing.assert_array_equal(saved["scores"], model.scores(rows.X))
    with (tmp_path / "new" / "p.csv").open(newline="") as stream:
        table = list(csv.DictReader(stream))
    assert list(table[0]) == ["row", "predicted", "y", "class"]
    np.testing.assert_array_equal([int(row["predicted"]) for row in table], classes)
    assert table[7]["class"] == model.class_names[classes[7]]


def test_predict_without_labels_counts_classes(trained, npz, tmp_path):
    X = data.load(npz).X
    np.savez(tmp_path / "x.npz", X=X)
    result = run("predict", trained, "--data", tmp_path / "x.npz", "--out", tmp_path / "p.csv")
    assert result.exit_code == 0, result.output
    assert "300 rows" in result.stdout
    assert "Accuracy" not in result.stdout
    assert (tmp_path / "p.csv").read_text().splitlines()[0] == "row,predicted,class"


def test_predict_reports_data_that_do_not_fit(trained, images, tmp_path):
    for arguments, message in (
        (("--data", images), "X has 48 features a row, the model was trained on 12"),
        (("--data", tmp_path / "none"), "no such file"),
        (("--data", images, "--out", tmp_path / "p.txt"), "must end in .csv or .npz"),
        (("--data", images, "--split", "nope"), "split = 'nope'"),
    ):
        result = run("predict", trained, *arguments)
        assert result.exit_code == 2
        assert message in result.stderr
        assert len(result.stderr.strip().splitlines()) == 1


# The real files


def test_defaults_reach_90_percent_on_mnist(real, tmp_path):
    result = run("train", "--data", real / "mnist", "--out", tmp_path)
    assert result.exit_code == 0, result.output
    accuracy = json.loads((tmp_path / "history.json").read_text())["accuracy"]
    assert accuracy["test"] >= 0.905
    result = run("predict", tmp_path / "model.npz", "--data", real / "mnist")
    assert f"Accuracy: {accuracy['test']:.2%} (" in result.stdout


@pytest.mark.parametrize("loss", ["softmax", "hinge"])
def test_defaults_reach_38_percent_on_cifar10(real, tmp_path, loss):
    folder = real / "cifar-10-batches-bin"
    result = run("train", "--data", folder, "--loss", loss, "--out", tmp_path)
    assert result.exit_code == 0, result.output
    record = json.loads((tmp_path / "history.json").read_text())
    assert record["data"]["rows"] == {"train": 3500, "validation": 500}
    assert record["accuracy"]["validation"] >= 0.38
    assert (tmp_path / "templates.png").exists()
    result = run("predict", tmp_path / "model.npz", "--data", folder)
    assert result.exit_code == 2
    assert "--split train uses the training rows" in result.stderr


def test_truncated_mnist_file_is_named(real, tmp_path):
    folder = tmp_path / "mnist"
    shutil.copytree(real / "mnist", folder)
    images = folder / "train-images-idx3-ubyte.gz"
    images.write_bytes(images.read_bytes()[:-1000])
    result = run("train", "--data", folder, "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert "train-images-idx3-ubyte.gz" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


# Files, pictures and names


@pytest.mark.parametrize(
    "options",
    [
        ("--save", "m.npz", "--json", "m.npz"),
        ("--save", "o/history.json"),
        ("--save", "o/loss-dark.svg"),
        ("--checkpoint", "m.npz", "--save", "./m.npz"),
        ("--checkpoint", "o/confusion.png"),
        ("--checkpoint", "d.npz"),
        ("--save", "d.npz"),
        ("--json", "hard.npz"),
        ("--json", "soft.npz"),
        ("--save", "m.npz", "--json", "missing.json", "--checkpoint", "missing.json"),
    ],
)
def test_output_over_another_file_is_refused_before_training(npz, tmp_path, monkeypatch, options):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hard.npz").hardlink_to("d.npz")
    (tmp_path / "soft.npz").symlink_to("d.npz")
    before = npz.read_bytes()
    monkeypatch.setattr(Job, "run", None)
    result = run("train", "--data", "d.npz", "--out", "o", *options)
    assert result.exit_code == 2, result.output
    assert "are the same file" in result.stderr
    assert npz.read_bytes() == before


def test_outputs_beside_the_data_are_allowed(tmp_path, monkeypatch):
    folder = cifar10(tmp_path)
    monkeypatch.setattr(cli_train, "save_pictures", lambda pictures: [])
    for _ in range(2):
        result = run("train", "--data", folder, "--epochs", "1", "--out", folder)
        assert result.exit_code == 0, result.output
    for name in ("data_batch_1.bin", "test_batch.bin", "batches.meta.txt"):
        result = run("train", "--data", folder, "--save", folder / name, "--out", tmp_path)
        assert "are the same file" in result.stderr


def test_model_does_not_replace_another_archive(npz, tmp_path, monkeypatch):
    shutil.copy(npz, tmp_path / "other.npz")
    monkeypatch.setattr(Job, "run", None)
    result = run("train", "--data", npz, "--save", tmp_path / "other.npz", "--out", tmp_path)
    assert result.exit_code == 2
    assert "another archive is there, of X, y" in result.stderr


@pytest.mark.parametrize("name", ["model.npz", "hard.npz"])
def test_predictions_do_not_replace_an_input(npz, tmp_path, name):
    assert run("train", "--data", npz, *TINY, "--out", tmp_path).exit_code == 0
    (tmp_path / "hard.npz").hardlink_to(npz)
    result = run("predict", tmp_path / "model.npz", "--data", npz, "--out", tmp_path / name)
    assert result.exit_code == 2
    assert "are the same file" in result.stderr


def cifar10(folder: Path, names: str = "a b c d e f g h i j") -> Path:
    """Write a folder of 60 training rows, 60 test rows and the class names."""
    rows = np.random.default_rng(0).integers(0, 256, (60, 3073)).astype(np.uint8)
    rows[:, 0] = np.arange(60) % 10
    (folder / "c").mkdir()
    for name in ("data_batch_1.bin", "test_batch.bin"):
        rows.tofile(folder / "c" / name)
    (folder / "c" / "batches.meta.txt").write_text("\n".join(names.split()))
    return folder / "c"


def test_any_class_name_is_shown_unchanged(tmp_path):
    names = ["[cat]", "[/b]", "$\\frac$", "a$b", "_x", "<&>", "\a", "猫", ":cat:", "\\$"]
    folder, out = cifar10(tmp_path, " ".join(names)), tmp_path / "o"
    result = run("train", "--data", folder, "--epochs", 1, "--out", out)
    assert (result.exit_code, result.stderr) == (0, "")
    drawn = ElementTree.parse(out / "confusion.svg")
    texts = {element.text for element in drawn.iter("{http://www.w3.org/2000/svg}text")}
    assert {name.replace("\a", "\N{REPLACEMENT CHARACTER}") for name in names} <= texts
    rows = np.random.default_rng(0).standard_normal((60, 3072)).astype(np.float32)
    pixels = np.clip(60 * rows + 128, 0, 255).astype(np.uint8)
    np.savez(tmp_path / "X.npz", X=pixels)
    result = run("predict", out / "model.npz", "--data", tmp_path / "X.npz")
    assert result.exit_code == 0
    for name in names:
        assert name == "\a" or f" {name} " in result.stdout


def test_brackets_in_paths_are_shown(npz, tmp_path):
    npz.rename(tmp_path / "d[new].npz")
    result = run("train", "--data", tmp_path / "d[new].npz", *TINY, "--out", tmp_path / "z[/a][b]")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("d[new]: 263 rows")
    assert "z[/a][b]/model.npz" in result.stdout
    assert "z[/a][b]/loss.png" in result.stdout


def test_failed_picture_costs_one_line(tmp_path, monkeypatch):
    def no_memory(*arguments, **keywords):
        raise MemoryError

    monkeypatch.setattr(plots, "plot_loss_curves", no_memory)
    rows = data.synthetic(100, 24, 3)
    np.savez(tmp_path / "i.npz", X=rows.X.reshape(-1, 2, 3, 2, 2), y=rows.y)
    result = run("train", "--data", tmp_path / "i.npz", "--epochs", 1, "--out", tmp_path)
    assert result.exit_code == 0
    loss, templates = result.stderr.splitlines()
    assert loss == "fastloss: no picture of loss: not enough memory"
    assert templates.startswith("fastloss: no picture of templates: image_shape must be")
    assert "confusion.png" in result.stdout
    LinearModel.load(tmp_path / "model.npz")


@pytest.mark.parametrize("error", [OSError(28, "disk full"), KeyboardInterrupt()])
def test_failed_model_save_costs_no_other_output(npz, tmp_path, monkeypatch, error):
    def fail(*arguments):
        raise error

    monkeypatch.setattr(LinearModel, "save", fail)
    result = run("train", "--data", npz, *TINY, "--out", tmp_path)
    assert result.exit_code == (2 if isinstance(error, OSError) else 130)
    assert "disk full" in result.stderr or result.stderr == "fastloss: interrupted\n"
    assert "Accuracy: train" in result.stdout
    assert "model.npz" not in result.stdout
    assert json.loads((tmp_path / "history.json").read_text())["complete"]
    assert (tmp_path / "loss.png").exists()


def test_data_that_cannot_become_a_model_fail_before_training(npz, tmp_path, monkeypatch):
    monkeypatch.setattr(job_module, "fit", None)
    rows = data.load(npz)
    for scale, options in ((1e200, ["--raw"]), (np.nan, [])):
        X = rows.X.astype(np.float64)
        X[17, 3] = scale
        np.savez(npz, X=X, y=rows.y)
        result = run("train", "--data", npz, *options, "--out", tmp_path / "out")
        assert result.exit_code == 2
        assert ("X has too large entries" if scale > 1 else "X[17, 3] is nan") in result.stderr
    result = run("bench", "--data", npz, "--out", tmp_path / "out")
    assert "X[17, 3] is nan, expected a finite number" in result.stderr


def test_predict_warns_of_nonfinite_rows(npz, tmp_path):
    assert run("train", "--data", npz, *TINY, "--out", tmp_path).exit_code == 0
    rows = data.load(npz)
    rows.X[17, 3] = np.inf
    for name, arrays in (("y.npz", {"y": rows.y}), ("n.npz", {})):
        np.savez(tmp_path / name, X=rows.X, **arrays)
        result = run("predict", tmp_path / "model.npz", "--data", tmp_path / name)
        assert result.exit_code == 0
        assert result.stderr.startswith("fastloss: X[17, 3] is inf")


def test_bad_variables_stop_every_command(npz, tmp_path, monkeypatch):
    """Also ``predict``, which uses neither threads nor a backend."""
    for name, value in [
        ("FASTLOSS_NUM_THREADS", "abc"),
        ("FASTLOSS_BACKEND", "cuda"),
        ("FASTLOSS_AMX", "maybe"),
    ]:
        with monkeypatch.context() as patched:
            patched.setenv(name, value)
            result = run("predict", tmp_path / "model.npz", "--data", npz)
            assert result.exit_code == 2
            assert result.stderr.startswith(f"fastloss: {name}")
            assert repr(value) in result.stderr
            assert run("doctor").exit_code == 0


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (MemoryError("Unable to allocate"), "not enough memory: Unable to allocate"),
        (RecursionError("too deep"), "too deep"),
        (KeyError("x"), "KeyError: 'x'"),
        (OverflowError("too large"), "OverflowError: too large"),
        (AssertionError(), "AssertionError: "),
        (PermissionError(13, "Permission denied", "f"), "[Errno 13] Permission denied: 'f'"),
    ],
)
def test_errors_are_one_line_without_traceback(npz, tmp_path, monkeypatch, error, told):
    def fail(*arguments):
        raise error

    monkeypatch.setattr(Job, "run", fail)
    result = run("train", "--data", npz, "--out", tmp_path)
    assert (result.exit_code, result.stderr) == (2, f"fastloss: {told}\n")
    monkeypatch.setenv("FASTLOSS_DEBUG", "1")
    assert run("train", "--data", npz, "--out", tmp_path).exception is error

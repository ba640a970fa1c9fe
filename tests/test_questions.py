"""Tests that the answers to the lecture's questions hold, and that the gallery can be drawn."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import experiments
import gallery
import numpy as np
import pytest
import questions
from asking import Problems, Refuted
from studio import Effort, Studio

import fastloss
from fastloss import data

ROOT = Path(__file__).parents[1]
REAL = ROOT.parent / "shared" / "data"
FOLDERS = [
    pytest.param(None, id="synthetic"),
    pytest.param(
        REAL,
        id="real",
        marks=pytest.mark.skipif(not REAL.is_dir(), reason=f"no real data: {REAL} does not exist"),
    ),
]

pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture(autouse=True)
def _nothing_to_compile():
    with fastloss.use(backend="numpy"):
        yield


@pytest.fixture(scope="module", params=FOLDERS)
def problems(request):
    return Problems(request.param, n_rows=2000)


@pytest.mark.parametrize("name", questions.QUESTIONS)
def test_answer_holds(name, problems):
    asked = questions.QUESTIONS[name]
    answer = asked.answer(problems)
    assert asked.asked.endswith("?")
    assert answer.said.endswith(".")
    assert answer.data.endswith(".")
    assert {len(row) for row in answer.table.rows} == {len(answer.table.columns)}
    assert "nan" not in answer.table.markdown()


def large_weights(images, scale):
    return np.eye(193, 10, dtype=np.float32)


def objective_of_another_loss(images, *_, **__):
    return fastloss.Objective(images.train.X, images.train.y, loss="hinge", intercept=True)


def objective_without_pixels(images, loss, *_, **__):
    rows = images.train.rows(slice(20))
    return fastloss.Objective(np.zeros_like(rows.X), rows.y, loss=loss, intercept=True)


@pytest.mark.parametrize(
    ("name", "method", "broken", "said"),
    [
        ("svm-q3", "weights", large_weights, r"should be C - 1 = 9; it is \d"),
        ("softmax-q2", "objective", objective_of_another_loss, "log C = 2.303; it is 9"),
        ("overfit", "objective", objective_without_pixels, r"hinge predicts \d of them"),
    ],
)
def test_wrong_answer_is_refuted_with_its_numbers(name, method, broken, said, monkeypatch):
    monkeypatch.setattr(experiments.Images, method, broken)
    with pytest.raises(Refuted, match=said):
        questions.QUESTIONS[name].answer(Problems(n_rows=500))


def test_command_says_which_answer_does_not_hold_and_goes_on(monkeypatch, capsys):
    assert questions.main(["svm-q6"]) == 0
    monkeypatch.setattr(experiments.Images, "weights", large_weights)
    capsys.readouterr()
    assert questions.main(["svm-q3", "svm-q6"]) == 1
    shown = " ".join(capsys.readouterr().out.split())
    assert "The usual answer does not hold on these data: the loss at the smallest W" in shown
    assert "83.25" in shown


def test_questions_of_the_lecture_are_complete():
    expected = [f"svm-q{i}" for i in range(1, 8)] + ["softmax-q1", "softmax-q2"]
    assert [name for name in questions.QUESTIONS if "-q" in name] == expected


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", str(ROOT / "bench" / "questions.py"), *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_command_answers_the_named_questions():
    done = run("svm-q6", "l1-against-l2")
    assert done.returncode == 0, done.stderr
    assert "83.25" in done.stdout
    assert done.stdout.index("svm-q6") < done.stdout.index("l1-against-l2")
    assert "softmax" not in done.stdout
    assert done.stdout.startswith("Data: synthetic stand-ins for CIFAR-10 and MNIST.")


def test_unknown_question_or_folder_is_reported_in_one_line():
    done = run("svm-q9")
    assert done.returncode == 2
    assert "no question is called 'svm-q9'; there are svm-q1, " in done.stderr
    done = run("svm-q3", "--data-folder", "/no/such/folder")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith("does not exist: /no/such/folder")


def test_data_folder_comes_from_the_argument_or_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv(experiments.DATA_VARIABLE, str(tmp_path))
    assert experiments.data_folder(None) == tmp_path
    assert experiments.data_folder(ROOT) == ROOT
    monkeypatch.delenv(experiments.DATA_VARIABLE)
    assert experiments.data_folder(None) is None


# Experiments


def test_all_rungs_have_the_same_start_and_number_of_evaluations():
    images = experiments.cifar10(None)
    rungs = experiments.ladder(images, n_evaluations=20)
    assert [*rungs] == ["random search", "random local search", "gradient descent", "SGD"]
    losses = {name: result.history.column("loss") for name, result in rungs.items()}
    for name, result in rungs.items():
        np.testing.assert_allclose(result.n_evaluations, 20, atol=0.5)
        np.testing.assert_allclose(losses[name][0], losses["SGD"][0], rtol=1e-6)
    assert losses["SGD"][-1] < losses["gradient descent"][-1]
    for each in losses.values():
        assert each[-1] < each[0]


@pytest.mark.skipif(not REAL.is_dir(), reason=f"no real data: {REAL} does not exist")
def test_ladder_on_cifar10_has_the_order_of_the_lecture():
    images = experiments.cifar10(REAL)
    assert (len(images.train), len(images.held_out)) == (3500, 500)
    np.testing.assert_array_equal(images.train.y, data.load(REAL / "cifar-10-batches-bin").y[:3500])
    ends = {
        name: result.history[-1].validation_accuracy
        for name, result in experiments.ladder(images, n_evaluations=60).items()
    }
    assert 0.09 < ends["random search"] < 0.20
    assert ends["random search"] + 0.05 < ends["gradient descent"] < ends["SGD"]
    assert ends["SGD"] > 0.35


def test_proximal_steps_reach_the_minimum_of_the_penalised_loss():
    """At the minimum, the loss's slope is -l1 sign(w), or at most l1 in size if w = 0."""
    rows = data.synthetic(200, 10, 3, dtype=np.float64)
    l1, options = 0.05, {"intercept": True, "backend": "numpy"}
    smooth = fastloss.Objective(rows.X, rows.y, **options)
    W = experiments.proximal_descent(smooth, np.zeros((11, 3)), l1, lr=0.05, n_steps=3000)
    _, gradient = smooth(W)
    weights, slopes = W[:-1], gradient[:-1]
    zero = weights == 0
    assert 0.1 < zero.mean() < 0.9
    assert np.abs(slopes[zero]).max() <= l1
    np.testing.assert_allclose(slopes[~zero], -l1 * np.sign(weights[~zero]), atol=1e-6)
    np.testing.assert_allclose(gradient[-1], 0, atol=1e-6)


def test_kinks_are_the_changes_of_the_slope():
    """The slope changes at a = 1 and a = 3, where a class reaches the margin."""
    W1 = np.array([[0.0, 1.0, -1.0], [0.0, 0.0, 0.0]])  # the last row is the bias
    W = np.array([[0.0, -2.0, 2.0], [0.0, 0.0, 0.0]])
    one_row = fastloss.Objective([[1.0]], [0], loss="hinge", intercept=True)
    a = np.linspace(0, 4, 10)
    assert experiments.kinks(one_row, W, W1, a) == 2
    assert experiments.kinks(one_row, W, W1, a[a < 2]) == 1
    smooth = fastloss.Objective([[1.0]], [0], loss="softmax", intercept=True)
    assert experiments.kinks(smooth, W, W1, a) == 0


def test_confusion_matrix_counts_every_held_out_row():
    images = experiments.mnist(None, 500)
    W = images.weights(0.1)
    counts = images.confusion(W)
    assert counts.sum() == len(images.held_out)
    np.testing.assert_array_equal(counts.sum(axis=1), np.bincount(images.held_out.y, minlength=10))
    np.testing.assert_allclose(np.trace(counts) / counts.sum(), images.accuracy(W))


# The gallery


@pytest.mark.deep
def test_gallery_page_shows_every_picture_and_question(tmp_path):
    effort = Effort(n_evaluations=12, n_seeds=2, n_epochs=2, n_rows=600, n_steps=20)
    studio = Studio(Problems(n_rows=2000), tmp_path, effort)
    entries = list(gallery.draw_all(studio))
    answered = gallery.answers(studio.problems)
    text = "\n".join(gallery.page(entries, answered, studio))
    for entry in entries:
        for suffix in (".png", ".svg", "-dark.png", "-dark.svg"):
            path = gallery.PICTURES / f"{entry.name}{suffix}"
            assert (tmp_path / path).stat().st_size > 1000
        assert f'src="{(gallery.PICTURES / entry.name).as_posix()}.png"' in text
        assert entry.see in text
    for name, asked in questions.QUESTIONS.items():
        assert asked.asked in text
        assert answered[name].data in text
    assert "nan" not in text
    assert str(tmp_path) not in text

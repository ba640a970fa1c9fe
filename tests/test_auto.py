"""How auto decides: the model of costs, the choice, and kernels made ready aside."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import pytest

import fastloss
from fastloss.backends import aside, auto, costs
from fastloss.losses import get_loss

pytest.importorskip("numba")

SINGLE = np.dtype(np.float32)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder for what is learnt."""
    monkeypatch.setenv("FASTLOSS_CACHE_DIR", str(tmp_path / "learnt"))
    costs.current.cache_clear()
    auto._final.clear()
    yield tmp_path / "learnt"
    costs.current.cache_clear()
    auto._final.clear()


def with_line(way: str, n: str, line: tuple[float, ...]) -> costs.Costs:
    """The default with one line replaced."""
    return costs.Costs(2, {**costs.DEFAULT.lines, (way, 4, n): line}, "measured here")


# --- costs ---------------------------------------------------------------------------------------


def test_fit_finds_the_line_it_was_given():
    line = (2e-5, 1e-8, 3e-9, 1e-9, 4e-10, 0.0, 5e-11)
    rng = np.random.default_rng(0)
    shapes = [tuple(map(int, 10 ** rng.uniform(0, 4, 3))) for _ in range(40)]
    factors = [costs.terms("numpy", shape, 4, 1) for shape in shapes]
    seconds = [float(np.dot(line, row)) for row in factors]
    found = costs.fit(factors, seconds)
    predicted = [float(np.dot(found, row)) for row in factors]
    np.testing.assert_allclose(predicted, seconds, rtol=1e-3)
    np.testing.assert_allclose(found, line, rtol=0.02, atol=1e-11)


def test_fit_gives_no_negative_cost():
    shapes = [(1, 1, 1), (10, 1, 1), (100, 1, 1), (1, 100, 2), (1, 1, 100)]
    factors = [costs.terms("narrow", shape, 4, 2) for shape in shapes]
    assert min(costs.fit(factors, [5.0, 4.0, 3.0, 2.0, 1.0])) >= 0.0


def test_rows_of_many_classes_count_by_strips():
    """By one of the products; and no thread is done with the losses before the others."""
    n_classes = 50_000
    for n_rows, n_threads, multiplied, scored in [
        (1, 1, 32, 32),
        (32, 1, 32, 32),
        (32, 2, 32, 64),
        (65, 1, 96, 96),
        (65, 2, 96, 128),
    ]:
        factors = costs.terms("wide", (n_rows, 7, n_classes), 4, n_threads)
        assert factors[2] == scored * n_classes
        assert factors[3] == factors[2]  # beyond cache
        assert factors[4] == n_rows * 7
        assert factors[6] == (n_rows + multiplied) / 2 * 7 * n_classes


def test_few_scores_stay_in_cache():
    assert costs.terms("numpy", (1000, 7, 200), 4, 1)[2:4] == (200_000, 0)
    assert costs.terms("numpy", (1000, 7, 200), 8, 1)[2:4] == (200_000, 200_000)


def test_a_loss_has_costs_of_its_own():
    line = (1.0,) * costs.N_TERMS
    table = costs.Costs(2, {("numpy", 8, "one"): line}, "", {("numpy", 8, "one", "mine"): 3.0})
    shape = 1000, 7, 200
    others = 1 + 1000 * 7 + 7 * 200 + 1000 * 7 * 200
    of_loss = 1000 + 2 * 1000 * 200
    assert table.seconds("numpy", shape, 8, 1, "mine") == others + 3 * of_loss
    assert table.seconds("numpy", shape, 8, 1, "another") == others + of_loss


def test_known_seconds_are_left_out_of_a_fit():
    (ratio,) = costs.fit([[1.0], [2.0]], [11.0, 7.0], known=[8.0, 1.0])
    np.testing.assert_allclose(ratio, 3.0)


def test_costs_are_kept(folder):
    assert costs.current() is costs.DEFAULT
    mine = with_line("numpy", "one", (1.0,) * costs.N_TERMS)
    mine.of_losses["numpy", 4, "one", repr(fastloss.Softmax())] = 0.5
    costs.store(mine)
    assert costs.current() == mine
    assert [path.name for path in folder.iterdir()] == ["costs.json"]  # no draft is left


@pytest.mark.parametrize(
    "text", ["", "[]", '{"n_threads": 2, "lines": []}', json.dumps({"lines": [{"key": [1]}]})]
)
def test_a_file_that_cannot_be_read_is_passed_over(text, folder):
    folder.mkdir()
    costs.path().write_text(text)
    assert costs.current() is costs.DEFAULT


def test_default_covers_every_way():
    assert {way for way, _, _ in costs.DEFAULT.lines} == set(costs.WAYS)
    assert len(costs.DEFAULT.lines) == 2 * 2 * len(costs.WAYS)
    for line in costs.DEFAULT.lines.values():
        assert len(line) == costs.N_TERMS
        assert min(line) >= 0 < max(line)


# --- the choice ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("way", "threads", "expected"),
    [
        ("numpy", "one", ("numpy", 1)),
        ("numpy", "all", ("numpy", 2)),
        ("narrow", "one", ("fused", 1)),
        ("narrow", "all", ("fused", 2)),
    ],
)
def test_the_cheapest_is_chosen(way, threads, expected, folder):
    costs.store(with_line(way, threads, (0.0,) * costs.N_TERMS))
    told = fastloss.explain(100, 20, 10, n_threads=2)
    assert (told.backend, told.n_threads) == expected
    assert told.predicted[expected] == 0.0
    assert "measured here" in told.reason


def test_ready_scores_have_no_features_to_pay_for():
    """The choice for `score_gradient`: only calls, rows and scores count."""
    one = auto.fastest(fastloss.Softmax(), (1000, 0, 10), 4, 2, with_numba=True)
    line = costs.current().lines["wide", 4, "one"]
    expected = line[0] + line[1] * 1000 + line[2] * 1024 * 10  # strips of 32 rows
    np.testing.assert_allclose(one.predicted["fused", 1], expected)


@dataclass(frozen=True)
class Uncompilable(fastloss.losses.softmax.Softmax):
    """Its compiled form is none."""

    name: ClassVar[str] = "uncompilable"
    block = staticmethod(lambda scores, labels, parameters, losses: open("/nowhere"))  # noqa: SIM115


@dataclass(frozen=True)
class Unhashable(fastloss.losses.softmax.Softmax):
    """Holds what has no hash."""

    notes: list[str] = field(default_factory=list)


def test_a_loss_need_not_be_hashable(folder):
    single = np.dtype(np.float32)
    assert auto.choose(Unhashable(), (200, 65, 10), single, single).backend in ("numpy", "fused")


def test_numpy_answers_until_the_kernels_are_ready(folder, monkeypatch):
    kernels = aside.Kernels()
    may_go_on = threading.Event()
    made = []

    def make() -> None:
        assert may_go_on.wait(30)
        made.append(threading.current_thread().name)

    monkeypatch.setattr(aside, "kernels", kernels)
    monkeypatch.setattr(auto, "kernels", kernels)
    monkeypatch.setattr(auto.fused, "kernels_of", lambda *_: ("a-kernel", (), make))

    def choice() -> auto.Choice:
        return auto.choose(get_loss("softmax"), (6000, 500, 10), SINGLE, SINGLE)

    for _ in range(2):  # asked for twice, compiled once
        assert choice().backend == "numpy"
        assert not choice().is_final
        assert "being compiled" in choice().reason
    may_go_on.set()
    kernels.wait()
    assert (choice().backend, choice().is_final) == ("fused", True)
    assert made == ["fastloss-aside"]


def test_a_loss_that_cannot_be_compiled_stays_with_numpy(folder, monkeypatch):
    kernels = aside.Kernels()
    monkeypatch.setattr(auto, "kernels", kernels)
    X, y, W = np.ones((6000, 500)), np.zeros(6000, int), np.zeros((500, 10))
    objective = fastloss.Objective(X, y, loss=Uncompilable())
    expected = objective.loss(W)
    kernels.wait()
    np.testing.assert_allclose(objective.loss(W), expected)
    choice = auto.choose(Uncompilable(), (6000, 500, 10), X.dtype, X.dtype)
    assert (choice.backend, choice.is_final) == ("numpy", True)
    assert "cannot compile the loss" in choice.reason
    with pytest.raises(Exception, match=r"(?i)nopython|typing"):
        fastloss.loss_and_grad(W, X, y, Uncompilable(), backend="fused")


# --- kernels aside -------------------------------------------------------------------------------


def test_cached_kernels_are_loaded_at_once(folder, tmp_path):
    source = tmp_path / "source.py"
    source.write_text("old")
    sources = (str(source),)
    made = []
    first = aside.Kernels()
    assert not first.ready("kernel", sources, lambda: made.append("aside"))
    first.wait()
    assert first.ready("kernel", sources, lambda: made.append("never"))
    # As another process would find it.
    assert aside.Kernels().ready("kernel", sources, lambda: made.append("at once"))
    assert made == ["aside", "at once"]
    # Its source was edited: not known any more, and what was known is forgotten.
    source.write_text("newer")
    other = aside.Kernels()
    assert not other.ready("kernel", sources, lambda: made.append("again"))
    other.wait()
    assert made[-1] == "again"
    assert len(list((folder / "kernels").iterdir())) == 1


def test_nothing_can_be_written(tmp_path, monkeypatch):
    file = tmp_path / "file"
    file.touch()
    monkeypatch.setenv("FASTLOSS_CACHE_DIR", str(file / "folder"))
    kernels = aside.Kernels()
    assert not kernels.ready("kernel", (), lambda: None)
    kernels.wait()
    assert kernels.ready("kernel", (), lambda: None)
    with pytest.raises(OSError, match="folder"):
        costs.store(costs.DEFAULT)


COLD = """
import numpy as np
import fastloss
from fastloss.backends import aside

X, W, y = np.ones((6000, 500), "f4"), np.zeros((500, 10), "f4"), np.arange(6000) % 10
import sys
results = [fastloss.loss_and_grad(W, X, y)]
print("numba" in sys.modules)
aside.kernels.wait()
objective = fastloss.Objective(X, y)
results += [objective(W), fastloss.loss_and_grad(W, X, y, backend="fused")]
for loss, dW in results:
    np.testing.assert_allclose(loss, np.log(10), rtol=1e-6)
    np.testing.assert_allclose(dW, results[0][1], atol=1e-6)
np.testing.assert_array_equal(results[1][1], results[2][1])  # the same kernel
"""


def test_a_fresh_process_finds_what_another_compiled(tmp_path, run_python):
    environment = {
        "FASTLOSS_CACHE_DIR": str(tmp_path / "learnt"),
        "NUMBA_CACHE_DIR": str(tmp_path / "numba"),
    }
    run_python(COLD, **environment)
    assert list((tmp_path / "learnt" / "kernels").iterdir())
    assert run_python(COLD, **environment) == "True\n"  # loaded during the first call

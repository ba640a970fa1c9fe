"""Test the cost model, the choice of "auto", and compilation in the background."""

from __future__ import annotations

import json
import math
import threading
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
import pytest

import fastloss
from fastloss.backends import auto, cost_model, default_costs, get_backend
from fastloss.backends.background import Compilations, compilations
from fastloss.backends.base import Workload
from fastloss.kernels import wide_problem

pytest.importorskip("numba")

SINGLE = np.dtype(np.float32)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Return a folder for costs, which does not exist yet."""
    monkeypatch.setenv("FASTLOSS_CACHE_DIR", str(tmp_path / "learnt"))
    cost_model.current.cache_clear()
    yield tmp_path / "learnt"
    cost_model.current.cache_clear()


def with_line(way: str, n: str, line: tuple[float, ...]) -> cost_model.Costs:
    """Return the default costs with one line replaced."""
    return cost_model.Costs(2, {**cost_model.default().lines, (way, 4, n): line}, "measured here")


# --- costs ---------------------------------------------------------------------------------------


def test_wide_kernel_rounds_rows_to_strips():
    """One product counts whole strips; the losses count the same number of strips per thread."""
    n_classes = 50_000
    for n_rows, n_threads, multiplied, scored in [
        (1, 1, 32, 32),
        (32, 1, 32, 32),
        (32, 2, 32, 64),
        (65, 1, 96, 96),
        (65, 2, 96, 128),
    ]:
        factors = cost_model.terms("wide", (n_rows, 7, n_classes), 4, n_threads)
        assert factors[2] == scored * n_classes
        assert factors[3] == factors[2]  # beyond cache
        assert factors[4] == n_rows * 7
        assert factors[6] == (n_rows + multiplied) / 2 * 7 * n_classes


def test_few_scores_have_no_cost_beyond_cache():
    assert cost_model.terms("numpy", (1000, 7, 200), 4, 1)[2:4] == (200_000, 0)
    assert cost_model.terms("numpy", (1000, 7, 200), 8, 1)[2:4] == (200_000, 200_000)


def test_factor_of_a_loss():
    line = (1.0,) * cost_model.N_TERMS
    table = cost_model.Costs(2, {("numpy", 8, "one"): line}, "", {("numpy", 8, "one", "mine"): 3.0})
    shape = 1000, 7, 200
    others = 1 + 1000 * 7 + 7 * 200 + 1000 * 7 * 200
    of_loss = 1000 + 2 * 1000 * 200
    assert table.seconds("numpy", shape, 8, 1, "mine") == others + 3 * of_loss
    assert table.seconds("numpy", shape, 8, 1, "another") == others + of_loss


def test_stored_costs_are_loaded(folder):
    assert cost_model.current() is cost_model.default()
    mine = with_line("numpy", "one", (1.0,) * cost_model.N_TERMS)
    mine.of_losses["numpy", 4, "one", repr(fastloss.Softmax())] = 0.5
    cost_model.store(mine)
    assert cost_model.current() == mine
    assert [path.name for path in folder.iterdir()] == ["costs.json"]  # no draft is left


@pytest.mark.parametrize(
    "text", ["", "[]", '{"n_threads": 2, "lines": []}', json.dumps({"lines": [{"key": [1]}]})]
)
def test_invalid_file_gives_default_costs(text, folder):
    folder.mkdir()
    cost_model.path().write_text(text)
    assert cost_model.current() is cost_model.default()


WRONG_COSTS = {
    "NaN": ("lines", [{"key": ["numpy", 4, "one"], "costs": [math.nan] * 7}]),
    "infinite": ("lines", [{"key": ["numpy", 4, "one"], "costs": [math.inf] * 7}]),
    "negative": ("lines", [{"key": ["numpy", 4, "one"], "costs": [-1.0] * 7}]),
    "too large for a float": ("lines", [{"key": ["numpy", 4, "one"], "costs": [10**400] * 7}]),
    "a loss of NaN": ("of_losses", [{"key": ["numpy", 4, "one", "x"], "times": math.nan}]),
    "a negative loss": ("of_losses", [{"key": ["numpy", 4, "one", "x"], "times": -2.0}]),
    "no threads": ("n_threads", 0),
    "another version": ("version", cost_model.VERSION + 1),
    "another kind of CPU": ("cpu", "0123456789abcdef"),
}


@pytest.mark.parametrize(("name", "value"), WRONG_COSTS.values(), ids=WRONG_COSTS)
def test_impossible_costs_give_default_costs(name, value, folder):
    cost_model.store(replace(cost_model.default(), source="measured here"))
    document = json.loads(cost_model.path().read_text())
    if name == "lines":
        value = [*document["lines"][1:], *value]  # the first line is numpy, 4 bytes, one thread
    cost_model.path().write_text(json.dumps({**document, name: value}))
    cost_model.current.cache_clear()
    assert cost_model.current() is cost_model.default()


def test_deeply_nested_json_gives_default_costs(folder):
    folder.mkdir()
    cost_model.path().write_text("[" * 100_000)
    assert cost_model.current() is cost_model.default()


@pytest.mark.parametrize(
    ("features", "kind"),
    [
        ("", "AVX2"),
        ("+avx2,+fma", "AVX2"),
        ("+avx512f", "AVX-512"),
        ("+avx512f,+amx-tile,+amx-bf16", "AMX"),
    ],
)
def test_default_costs_are_those_of_the_kind_of_cpu(features, kind, folder, monkeypatch):
    monkeypatch.setenv("NUMBA_CPU_FEATURES", features)
    monkeypatch.setattr(wide_problem, "is_allowed", lambda: True)
    cost_model.default.cache_clear()
    assert cost_model.current().lines == default_costs.LINES[kind]
    assert f"another machine with {kind};" in cost_model.current().source
    cost_model.default.cache_clear()


@pytest.mark.parametrize("lines", default_costs.LINES.values(), ids=default_costs.LINES)
def test_default_covers_every_way(lines):
    assert {way for way, _, _ in lines} == set(cost_model.WAYS)
    assert len(lines) == 2 * 2 * len(cost_model.WAYS)
    for line in lines.values():
        assert len(line) == cost_model.N_TERMS
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
def test_cheapest_backend_is_chosen(way, threads, expected, folder):
    cost_model.store(with_line(way, threads, (0.0,) * cost_model.N_TERMS))
    told = fastloss.explain(100, 20, 10, n_threads=2)
    assert (told.backend, told.n_threads) == expected
    assert told.predicted[expected] == 0.0
    assert "measured here" in told.reason


def test_given_scores_have_no_feature_costs():
    """For `score_gradient`, only calls, rows and scores have costs."""
    workload = Workload(fastloss.Softmax(), (1000, 0, 10), SINGLE, SINGLE)
    line = cost_model.current().lines["wide", 4, "one"]
    expected = line[0] + line[1] * 1000 + line[2] * 1024 * 10  # strips of 32 rows
    np.testing.assert_allclose(auto.predict(workload)["fused", 1], expected)


@dataclass(frozen=True)
class Uncompilable(fastloss.losses.softmax.Softmax):
    """A softmax whose block form cannot be compiled."""

    name: ClassVar[str] = "uncompilable"
    row = parallel = None
    block = staticmethod(lambda scores, labels, parameters, losses: open("/nowhere"))  # noqa: SIM115


@dataclass(frozen=True)
class Unhashable(fastloss.losses.softmax.Softmax):
    """A softmax with a field that has no hash."""

    notes: list[str] = field(default_factory=list)


def test_loss_need_not_be_hashable(folder):
    workload = Workload(Unhashable(), (200, 65, 10), SINGLE, SINGLE)
    assert auto.choose(workload).backend in fastloss.available_backends()


class Eager(fastloss.Backend):
    """A backend that predicts the least time, and runs NumPy's forms after compilation."""

    name = "eager"
    same_bits = True

    def __init__(self) -> None:
        self.may_compile, self.compiled_by = threading.Event(), []

    def predict(self, workload):
        return {1: 1e-12, 2: 1e-9}

    def ready(self, workload):
        return bool(self.compiled_by)

    def make_ready(self, workload):
        assert self.may_compile.wait(30)
        self.compiled_by.append(threading.current_thread().name)

    def evaluate(self, problem, W, dW, n_threads):
        return get_backend("numpy").evaluate(problem, W, dW, n_threads)

    def score_gradient(self, loss, scores, labels, n_threads):
        return get_backend("numpy").score_gradient(loss, scores, labels, n_threads)


@pytest.fixture
def eager():
    """Register a backend that needs compilation and predicts the least time."""
    backend = Eager()
    fastloss.register_backend(backend)
    yield backend
    backend.may_compile.set()
    fastloss.unregister_backend("eager")


@pytest.fixture
def in_background(monkeypatch):
    """Compile in background threads, as outside of tests."""
    real = Compilations()
    for method in ("start", "run", "failure", "wait"):
        monkeypatch.setattr(compilations, method, getattr(real, method))
    return real


SOFTMAX = Workload(fastloss.Softmax(), (6000, 500, 10), SINGLE, SINGLE, n_threads=2)


def test_plugin_backend_is_chosen(eager):
    eager.may_compile.set()
    choice = auto.choose(SOFTMAX)
    assert (choice.backend, choice.n_threads, choice.is_final) == ("eager", 1, True)
    assert choice.predicted["eager", 2] == 1e-9
    assert auto.reproducible(SOFTMAX, "auto") == ("eager", 1)
    told = fastloss.explain(6000, 500, 10)
    assert next(iter(told.predicted)) == ("eager", 1)
    assert "counts as" not in told.reason
    for dtype in ("uint8", "float16"):
        other = fastloss.explain(6000, 500, 10, dtype=dtype)
        assert other.reason == f"{told.reason}; {dtype} counts as float32"


def test_unregistered_backend_is_not_chosen(eager):
    eager.may_compile.set()
    assert auto.choose(SOFTMAX).backend == "eager"
    fastloss.unregister_backend("eager")
    assert auto.choose(SOFTMAX).backend != "eager"
    fastloss.register_backend(eager)


def test_backend_without_predictions_is_not_chosen(eager, monkeypatch):
    monkeypatch.setattr(eager, "predict", lambda workload: {})
    assert auto.choose(SOFTMAX).backend != "eager"


def test_another_backend_runs_until_kernels_are_compiled(eager, in_background):
    for _ in range(2):  # asked for twice, compiled once
        choice = auto.choose(SOFTMAX)
        assert choice.backend != "eager"
        assert not choice.is_final
        assert choice.reason == "the kernels of eager are being compiled"
    eager.may_compile.set()
    in_background.wait()
    assert (auto.choose(SOFTMAX).backend, auto.choose(SOFTMAX).is_final) == ("eager", True)
    assert eager.compiled_by == ["fastloss-compile"]


def test_reproducible_choice_waits_for_the_compiler(eager, in_background):
    threading.Timer(0.1, eager.may_compile.set).start()
    assert auto.reproducible(SOFTMAX, "auto") == ("eager", 1)
    assert eager.compiled_by == ["fastloss-compile"]


def test_only_the_best_backend_is_compiled(eager, in_background, monkeypatch):
    started = []
    monkeypatch.setattr(compilations, "start", lambda key, make: started.append(key[0]))
    for name in ("numba", "fused"):
        monkeypatch.setattr(type(get_backend(name)), "ready", lambda *_: False)
    assert auto.choose(SOFTMAX).backend == "numpy"
    assert started == ["eager"]


def test_uncompilable_loss_runs_on_numpy(folder, in_background):
    X, y, W = np.ones((6000, 500)), np.zeros(6000, int), np.zeros((500, 10))
    objective = fastloss.Objective(X, y, loss=Uncompilable())
    expected = objective.loss(W)
    in_background.wait()
    np.testing.assert_allclose(objective.loss(W), expected)
    choice = auto.choose(Workload(Uncompilable(), (6000, 500, 10), X.dtype, X.dtype))
    assert (choice.backend, choice.is_final) == ("numpy", True)
    assert "cannot compile the loss" in choice.reason
    with pytest.raises(Exception, match=r"(?i)nopython|typing"):
        fastloss.loss_and_grad(W, X, y, Uncompilable(), backend="fused")


# --- stored costs and kernels --------------------------------------------------------------------


def test_store_in_unwritable_folder_raises(tmp_path, monkeypatch):
    file = tmp_path / "file"
    file.touch()
    monkeypatch.setenv("FASTLOSS_CACHE_DIR", str(file / "folder"))
    with pytest.raises(OSError, match="folder"):
        cost_model.store(cost_model.default())


COLD = """
import numpy as np
import fastloss
from fastloss.backends.background import compilations

X, W, y = np.ones((6000, 500), "f4"), np.zeros((500, 10), "f4"), np.arange(6000) % 10
import sys
results = [fastloss.loss_and_grad(W, X, y)]
print("llvmlite" in sys.modules, "numba" in sys.modules)
compilations.wait()
objective = fastloss.Objective(X, y)
results += [objective(W), fastloss.loss_and_grad(W, X, y, backend="fused")]
for loss, dW in results:
    np.testing.assert_allclose(loss, np.log(10), rtol=1e-6)
    np.testing.assert_allclose(dW, results[0][1], atol=1e-6)
np.testing.assert_array_equal(results[1][1], results[2][1])  # the same kernel
"""


def test_second_process_loads_compiled_kernels(tmp_path, run_python):
    environment = {
        "FASTLOSS_CACHE_DIR": str(tmp_path / "learnt"),
        "NUMBA_CACHE_DIR": str(tmp_path / "numba"),
    }
    run_python(COLD, **environment)
    assert run_python(COLD, **environment) == "True False\n"  # loaded during the first call

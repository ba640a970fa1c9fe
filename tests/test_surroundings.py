"""Tests that results do not depend on error settings, a broken Numba or interpreter shutdown."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastloss
from fastloss import optim, plots
from fastloss.backends.background import Compilations
from fastloss.gradcheck import check_gradient
from fastloss.model import LinearModel
from fastloss.preprocessing import Preprocessing
from fastloss.training import Prepared, Settings, Splits, fill_in, fit

BACKENDS = (*fastloss.available_backends(), "auto")
rng = np.random.default_rng(0)
TINY = 1e-25  # its square underflows in float32
X, y = rng.standard_normal((40, 4)).astype(np.float32), rng.integers(0, 3, 40)
W = rng.standard_normal((4, 3)).astype(np.float32)


# --- numpy.errstate -------------------------------------------------------------------------------


def losses(scale: float, **arguments: Any) -> list[Any]:
    """Return loss and gradient, with and without a penalty, and score gradients of every loss."""
    rows = X * np.float32(scale)
    return [
        result
        for loss in fastloss.available_losses()
        for result in (
            fastloss.loss_and_grad(W, 100 * rows, y, loss=loss, **arguments),
            fastloss.loss_and_grad(TINY * W, rows, y, loss=loss, l1=1e-300, l2=1e-320, **arguments),
            fastloss.score_gradient(100 * rows[:, :3], y, loss=loss, backend=arguments["backend"]),
        )
    ]


def assert_same_where_floating_point_errors_raise(call: Callable[[], Any]) -> None:
    expected = call()
    with np.errstate(all="raise"):
        np.testing.assert_equal(call(), expected)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("scale", [1.0, TINY, 1e30])
def test_losses_do_not_depend_on_errstate(scale, backend):
    weights = {"sample_weight": np.full(40, 1e-200), "class_weight": {0: 1e-200}}
    assert_same_where_floating_point_errors_raise(lambda: losses(scale, backend=backend))
    assert_same_where_floating_point_errors_raise(
        lambda: losses(scale, backend=backend, reduction="sum", **weights)
    )


@pytest.mark.parametrize("method", optim.available_methods())
def test_methods_do_not_depend_on_errstate(method):
    objective = fastloss.Objective(TINY * X, y, l2=1e-3, backend="numpy")
    assert_same_where_floating_point_errors_raise(
        lambda: optim.minimize(objective, TINY * W, method, max_steps=5).W
    )


def test_training_does_not_depend_on_errstate():
    data = fastloss.data.synthetic(60, 4, 3, seed=0)
    rows = TINY * data.X

    def train() -> list[Any]:
        preprocessing = Preprocessing.fit(rows)
        splits = Splits(data.__class__(rows, data.y, "", data.class_names, None, ""), data, None)
        prepared = Prepared.of(splits, "none")
        settings = fill_in(Settings(optimizer="lbfgs", steps=3), prepared.scale)
        model = LinearModel(
            TINY * np.ones((5, 3), np.float32), "hinge", prepared.preprocessing, data.class_names
        )
        return [preprocessing.apply(rows), fit(prepared, settings).W, model.scores(rows)]

    assert_same_where_floating_point_errors_raise(train)


def test_gradient_checks_and_flat_weights_do_not_depend_on_errstate():
    objective = fastloss.Objective(TINY * X, y, l2=1e-3, backend="numpy")
    calls: list[Callable[[], Any]] = [
        lambda: str(check_gradient(objective, TINY * W)),
        lambda: fastloss.numerical_gradient(objective, W),
        lambda: objective.flat(np.full(12, 1e-60)),
        lambda: objective.astype(np.float64).astype(np.float32).X,
    ]
    for call in calls:
        assert_same_where_floating_point_errors_raise(call)


def test_plot_does_not_depend_on_errstate(tmp_path):
    a = np.linspace(-1, 1, 9)
    with np.errstate(all="raise"):
        plots.plot_surface(a, a, 1e-300 * np.add.outer(a, a) ** 2, tmp_path / "s", text="tiny")


# --- a Numba that cannot be imported --------------------------------------------------------------

BROKEN_NUMBA = """
import sys
import numpy as np
import fastloss
from fastloss.backends.background import compilations
from fastloss.doctor import examine

X, y, W = np.ones((6, 2)), [0, 1, 2, 0, 1, 2], np.zeros((2, 3))
for _ in range(2):
    assert abs(fastloss.loss_and_grad(W, X, y)[0] - np.log(3)) < 1e-9
    compilations.wait()
for backend in ("numba", "fused"):
    for _ in range(2):
        try:
            fastloss.loss_and_grad(W, X, y, backend=backend)
        except RuntimeError as error:
            print(error)
print(any("numba cannot be imported" in finding.found for finding in examine()))
"""


def test_numba_that_cannot_be_imported_is_left_out(run_python):
    """The first run fills the cache with kernels; the second one must not use them."""
    run_python(BROKEN_NUMBA.replace("examine()", "[]"))
    output = run_python(BROKEN_NUMBA, NUMBA_NUM_THREADS="0").splitlines()
    reason = "numba cannot be imported (ValueError: Number of threads specified must be > 0.)"
    assert output == [
        *[f"backend 'numba' cannot run: {reason}"] * 2,
        *[f"backend 'fused' cannot run: {reason}"] * 2,
        "True",
    ]


# --- the end of the interpreter -------------------------------------------------------------------


AT_EXIT = """
import atexit, sys, threading
import numpy as np
import fastloss

def start(self):
    raise RuntimeError("can't start new thread at interpreter shutdown")  # as from Python 3.12 on

X, y, W = np.ones((20_000, 100)), np.arange(20_000) % 5, np.zeros((100, 5))

@atexit.register
def call():
    threading.Thread.start = start
    for backend in fastloss.available_backends() + ("auto",):
        rows = slice(50 if backend == "naive" else None)
        loss, _ = fastloss.loss_and_grad(W, X[rows], y[rows], backend=backend, n_threads=2)
        print(backend, abs(loss - np.log(5)) < 1e-9)
    fastloss.Objective(X, y, loss="squared_hinge").reproducible(W)(W)
"""


def test_call_at_exit_needs_no_new_thread(run_python):
    output = run_python(AT_EXIT)
    assert output.splitlines() == [f"{backend} True" for backend in BACKENDS]


def test_compilation_that_cannot_start_is_tried_again(monkeypatch):
    made = []
    compilations = Compilations()
    with monkeypatch.context() as patch:

        def start(thread):
            raise RuntimeError("can't start new thread")

        patch.setattr("threading.Thread.start", start)
        assert not compilations.start("kernel", lambda: made.append(1))
        compilations.wait()
    compilations.start("kernel", lambda: made.append(2))
    compilations.wait()
    assert made == [2]

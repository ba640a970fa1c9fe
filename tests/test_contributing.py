"""Tests that the examples of CONTRIBUTING.md run, and that every table includes them."""

from __future__ import annotations

import doctest
import importlib
import sys
from collections.abc import Iterator
from types import ModuleType

import numpy as np
import oracle
import pytest
from contributing import EXAMPLES
from oracle import BACKENDS, LOSSES, TOLERANCES, assert_close, make_data, reference

import fastloss
from fastloss.backends import registered_backends
from fastloss.benchmark import Settings, gradient_study, plots, report
from fastloss.benchmark.plan import Plan

OPTIONS = {
    "intercept": True,
    "l2": 0.1,
    "sample_weight": np.linspace(0.5, 2.0, 61),
    "ignore_index": 3,
}


def squared_error_of(loss, s, y, exp, log):
    """Return loss and gradient of the example by its definition, as in `oracle`."""
    errors = [s_j - (loss.scale if j == y else 0) for j, s_j in enumerate(s)]
    return sum(e * e for e in errors), [2 * e for e in errors]


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Return a function that imports an example from a file that other processes find too."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def load_it(name: str) -> ModuleType:
        (tmp_path / f"{name}.py").write_text(EXAMPLES[f"{name}.py"])
        monkeypatch.delitem(sys.modules, name, raising=False)
        return importlib.import_module(name)

    yield load_it
    for name in EXAMPLES:
        sys.modules.pop(name.removesuffix(".py"), None)


@pytest.fixture
def squared_error(load, monkeypatch) -> Iterator[type[fastloss.Loss]]:
    loss = load("squared_error").SquaredError
    monkeypatch.setitem(oracle.DEFINITIONS, loss, squared_error_of)
    fastloss.register_loss(loss)
    yield loss
    fastloss.unregister_loss("squared_error")


@pytest.fixture
def einsum(load) -> Iterator[str]:
    fastloss.register_backend(load("einsum").Einsum)
    yield "einsum"
    fastloss.unregister_backend("einsum")


def test_docstring_of_the_new_loss_computes_its_numbers(load):
    assert doctest.testmod(load("squared_error")) == (0, 3)


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
def test_new_loss_runs_on_every_backend(dtype, squared_error):
    data = make_data(61, 13, 5, dtype, dtype, intercept=True)
    for loss, scale in (("squared_error", 1.0), (squared_error(scale=3.0), 3.0)):
        expected = reference(data.W, data.X, data.y, squared_error(scale), **OPTIONS)
        scores = data.X.astype(float) @ data.W[:-1].astype(float)
        errors = scores - scale * np.eye(5)[data.y]
        for backend in BACKENDS:
            actual = fastloss.loss_and_grad(
                data.W, data.X, data.y, loss, backend=backend, **OPTIONS
            )
            assert_close(actual, expected, dtype)
            losses, dscores = fastloss.score_gradient(scores, data.y, loss=loss, backend=backend)
            np.testing.assert_allclose(losses, np.square(errors).sum(axis=1), rtol=1e-13)
            np.testing.assert_allclose(dscores, 2 * errors, rtol=1e-13)
        assert fastloss.explain(60_000, 785, 10, loss=loss).backend == "fused"


@pytest.mark.parametrize("types", [("f4", "f4"), ("f8", "f8"), ("u1", "f8")], ids="-".join)
@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_new_backend_runs_every_loss(loss, types, einsum):
    data = make_data(61, 13, 5, *types, intercept=True)
    assert_close(
        fastloss.loss_and_grad(data.W, data.X, data.y, loss, backend=einsum, **OPTIONS),
        reference(data.W, data.X, data.y, loss, **OPTIONS),
        types[1],
    )


def test_new_loss_runs_on_a_new_backend(squared_error, einsum):
    data = make_data(61, 13, 5)
    assert_close(
        fastloss.loss_and_grad(data.W, data.X, data.y, "squared_error", backend=einsum),
        reference(data.W, data.X, data.y, squared_error()),
        np.float64,
    )


def test_auto_chooses_a_new_backend_that_predicts_the_least_time(einsum, ran):
    told = fastloss.explain(5000, 100, 10)
    assert told.backend != einsum
    assert (einsum, 1) in told.predicted
    type(registered_backends()[einsum]).seconds_per_multiply_add = 0.0
    assert fastloss.explain(5000, 100, 10).backend == einsum
    data = make_data(61, 13, 5)
    objective = fastloss.Objective(data.X, data.y)
    np.testing.assert_allclose(
        objective.loss(data.W), reference(data.W, data.X, data.y, fastloss.Softmax()).loss
    )
    assert set(ran) == {einsum}


def test_tables_include_a_new_loss_and_a_new_backend(squared_error, einsum):
    plan = Plan.make(
        losses=["squared_error"],
        sizes=[(60, 8, 3)],
        settings=Settings(
            max_rounds=1, cell_seconds=0.05, measure_ceilings=False, first_calls=False
        ),
    )
    assert plan.backends == fastloss.available_backends()
    # Only two backends, because compiled ones are compiled anew in each run.
    plan.backends, plan.feature_counts = ("numpy", einsum), (4,)
    results = plan.run()
    assert f"| squared_error | 60 x 8 x 3 float32 | {einsum} |" in (
        report.backends_table(results).markdown()
    )
    assert {f"analytic, {einsum}", f"per element, {einsum} loss"} <= set(results.gradient.methods)


def test_new_backend_comes_after_the_others_of_the_same_order(einsum):
    """``order`` sets the place in tables and plots."""
    default = fastloss.available_backends()
    assert default[:2] == ("naive", "numpy")
    assert default[-1] == einsum
    type(registered_backends()[einsum]).order = 0
    assert fastloss.available_backends()[:3] == (einsum, "naive", "numpy")


def test_new_loss_comes_after_the_others(squared_error):
    assert fastloss.available_losses()[:3] == ("softmax", "hinge", "squared_hinge")
    assert fastloss.available_losses()[-1] == "squared_error"
    assert Plan.make().losses == list(fastloss.available_losses())


def test_new_backend_has_its_own_title_and_colour(einsum):
    type(registered_backends()[einsum]).title = "Einstein's sums"
    methods = gradient_study.gradient_methods(("numpy", einsum))
    assert methods[1].label == "per element, Einstein's sums loss"
    colours = plots.colours_of(["mine", "NumPy", "Einstein's sums", einsum, "numpy"])
    assert colours["NumPy"] == colours["numpy"]
    assert colours["Einstein's sums"] == colours[einsum]
    assert len(set(colours.values())) == 3

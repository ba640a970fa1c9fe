"""A new loss is one file, a new backend is one file; packages find their way in by entry points."""

from __future__ import annotations

import importlib.util
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from oracle import BACKENDS, LOSSES, TOLERANCES, assert_close, make_data

import fastloss
from fastloss.backends import registered_backends
from fastloss.benchmark import gradient_study, plan, plots

SQUARED_ERROR = '''
"""Squared error to the one-hot target: sum_j (s_j - scale * onehot_j)**2."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fastloss import Loss
from fastloss.losses.jit import njit
from fastloss.losses.softmax import softmax_parallel


@njit
def squared_error_row(scores, label, parameters):
    (scale,) = parameters
    loss = 0.0
    for j in range(len(scores)):
        error = scores[j] - (scale if j == label else 0.0)
        loss += error * error
        scores[j] = 2.0 * error
    return loss


def squared_error_block(scores, labels, parameters, losses):
    (scale,) = parameters
    losses[:] = 0.0
    for j in range(scores.shape[0]):
        for r in range(scores.shape[1]):
            error = scores[j, r] - (scale if j == labels[r] else 0.0)
            losses[r] += error * error
            scores[j, r] = 2.0 * error


@dataclass(frozen=True)
class SquaredError(Loss):
    name: ClassVar[str] = "squared_error"
    row = squared_error_row
    parallel = softmax_parallel.binding(softmax_row=squared_error_row)
    block = staticmethod(squared_error_block)
    scale: float = 1.0

    @property
    def parameters(self):
        return (float(self.scale),)

    def naive(self, scores, label):
        errors = [s - (self.scale if j == label else 0.0) for j, s in enumerate(scores)]
        return sum(e * e for e in errors), [2 * e for e in errors]

    def vectorized(self, scores, labels):
        errors = scores.copy()
        errors[np.arange(len(scores)), labels] -= self.scale
        return np.square(errors).sum(axis=1), 2 * errors
'''

EINSUM = '''
"""All of it in einsum, on whole arrays."""

import numpy as np

from fastloss import Backend


class Einsum(Backend):
    name = "einsum"

    def evaluate(self, problem, W, dW, n_threads):
        X = problem.X.astype(W.dtype)
        if problem.intercept:
            X = np.hstack([X, np.ones((len(X), 1), X.dtype)])
        counted = problem.labels >= 0
        X, labels = X[counted], problem.labels[counted]
        weights = np.ones(len(X)) if problem.weights is None else problem.weights[counted]
        losses, dscores = self.score_gradient(
            problem.loss, np.einsum("nd,dc->nc", X, W), labels, n_threads
        )
        if dW is not None:
            dW[...] = np.einsum("nd,nc,n->dc", X, dscores, weights / problem.divisor)
        return float(np.einsum("n,n->", losses, weights)) / problem.divisor

    def score_gradient(self, loss, scores, labels, n_threads):
        return loss.vectorized(scores, labels)
'''


def load(source: str, name: str, folder: Path):
    """The module of that source, imported from a file."""
    path = folder / f"{name}.py"
    path.write_text(source)
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def squared_error(tmp_path):
    module = load(SQUARED_ERROR, "squared_error_module", tmp_path)
    fastloss.register_loss(module.SquaredError)
    yield module.SquaredError
    fastloss.unregister_loss("squared_error")
    del sys.modules["squared_error_module"]


@pytest.fixture
def einsum(tmp_path):
    module = load(EINSUM, "einsum_module", tmp_path)
    fastloss.register_backend(module.Einsum)
    yield "einsum"
    fastloss.unregister_backend("einsum")
    del sys.modules["einsum_module"]


OPTIONS = {
    "intercept": True,
    "l2": 0.1,
    "sample_weight": np.linspace(0.5, 2.0, 61),
    "ignore_index": 3,
}


# --- one file ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
def test_a_new_loss_runs_everywhere(dtype, squared_error):
    assert "squared_error" in fastloss.available_losses()
    data = make_data(61, 13, 5, dtype, dtype, intercept=True)
    for loss, scale in (("squared_error", 1.0), (squared_error(scale=3.0), 3.0)):
        onehot = scale * np.eye(5)[data.y]
        scores = data.X.astype(float) @ data.W[:-1].astype(float) + data.W[-1]
        weight = OPTIONS["sample_weight"] * (data.y != 3)
        error = (scores - onehot) * (weight / weight.sum())[:, None]
        expected = (
            np.sum(error * (scores - onehot)),
            np.vstack([2 * data.X.T @ error, 2 * error.sum(axis=0)]),
        )
        expected[1][:-1] += 0.2 * data.W[:-1]
        penalty = 0.1 * np.square(data.W[:-1].astype(float)).sum()
        for backend in BACKENDS:
            actual = fastloss.loss_and_grad(
                data.W, data.X, data.y, loss, backend=backend, **OPTIONS
            )
            assert_close(actual, (expected[0] + penalty, expected[1]), dtype)
            losses, dscores = fastloss.score_gradient(scores, data.y, loss=loss, backend=backend)
            np.testing.assert_allclose(losses, np.square(scores - onehot).sum(axis=1), rtol=1e-13)
            np.testing.assert_allclose(dscores, 2 * (scores - onehot), rtol=1e-13)
        assert fastloss.explain(60_000, 785, 10, loss=loss).backend == "fused"


@pytest.mark.parametrize("types", [("f4", "f4"), ("f8", "f8"), ("u1", "f8")], ids="-".join)
@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_a_new_backend_runs_every_loss(loss, types, einsum):
    assert einsum in fastloss.available_backends()
    data = make_data(61, 13, 5, *types, intercept=True)
    assert_close(
        fastloss.loss_and_grad(data.W, data.X, data.y, loss, backend=einsum, **OPTIONS),
        fastloss.loss_and_grad(data.W, data.X, data.y, loss, backend="naive", **OPTIONS),
        types[1],
    )
    objective = fastloss.Objective(data.X, data.y, loss=loss, intercept=True)
    with fastloss.use(backend=einsum):
        total = objective.loss(data.W)
        assert fastloss.explain(5000, 100, 10).backend == einsum
    np.testing.assert_allclose(total, objective.loss(data.W), rtol=TOLERANCES[data.W.dtype][0])


def test_a_new_backend_comes_after_the_others_of_the_same_order(einsum):
    """Its place in tables and plots; a lower order moves it, and nothing else names it."""
    default = fastloss.available_backends()
    assert default[:2] == ("naive", "numpy")
    assert default[-1] == einsum
    assert plan.Plan.make().backends == default
    kind = type(registered_backends()[einsum])
    kind.order = 0
    assert fastloss.available_backends()[:3] == (einsum, "naive", "numpy")


def test_a_new_loss_comes_after_the_others(squared_error):
    assert fastloss.available_losses()[:3] == ("softmax", "hinge", "squared_hinge")
    assert fastloss.available_losses()[-1] == "squared_error"
    assert plan.Plan.make().losses == list(fastloss.available_losses())


def test_a_new_backend_has_a_title_and_a_colour_of_its_own(einsum):
    type(registered_backends()[einsum]).title = "Einstein's sums"
    methods = gradient_study.gradient_methods(("numpy", einsum))
    assert methods[1].label == "per element, Einstein's sums loss"
    colours = plots.colours_of(["mine", "NumPy", "Einstein's sums", einsum, "numpy"])
    assert colours["NumPy"] == colours["numpy"]
    assert colours["Einstein's sums"] == colours[einsum]
    assert len(set(colours.values())) == 3


def test_a_new_loss_on_a_new_backend(squared_error, einsum):
    data = make_data(61, 13, 5)
    actual = fastloss.loss_and_grad(data.W, data.X, data.y, "squared_error", backend=einsum)
    expected = fastloss.loss_and_grad(data.W, data.X, data.y, squared_error(), backend="naive")
    assert_close(actual, expected, np.float64)


@dataclass(frozen=True)
class Uncompiled(fastloss.Loss):
    """Minus the score of the true class."""

    name: ClassVar[str] = "uncompiled"

    def naive(self, scores, label):
        return -scores[label], [-1.0 * (j == label) for j in range(len(scores))]

    def vectorized(self, scores, labels):
        rows = np.arange(len(scores))
        gradient = np.zeros_like(scores)
        gradient[rows, labels] = -1.0
        return -scores[rows, labels], gradient


def test_a_loss_without_a_compiled_form(ran):
    X, W, y = np.ones((2000, 20)), np.ones((20, 10)), np.zeros(2000, int)
    total, _ = fastloss.loss_and_grad(W, X, y, Uncompiled())
    fastloss.score_gradient(np.ones((9000, 10)), np.zeros(9000, int), loss=Uncompiled())
    assert ran == ["numpy", "numpy"]
    assert total == -20.0
    assert fastloss.available_backends(Uncompiled()) == ("naive", "numpy")
    message = "backend 'fused' cannot run: the loss 'uncompiled' has no block form"
    calls = [
        lambda **backend: fastloss.loss_and_grad(W, X, y, Uncompiled(), **backend),
        lambda **backend: fastloss.score_gradient(X, y, loss=Uncompiled(), **backend),
        lambda **backend: fastloss.explain(20, 20, 20, loss=Uncompiled(), **backend),
    ]
    for call in calls:
        with pytest.raises(RuntimeError, match=message):
            call(backend="fused")
        with fastloss.use(backend="fused"), pytest.raises(RuntimeError, match=message):
            call()


def test_base_class_fallbacks():
    """What a loss need not write: no kinks, and the losses over one column."""
    scores = np.arange(6.0).reshape(2, 3)
    labels = np.array([0, 2])
    assert Uncompiled().pieces(scores, labels) is None
    losses = Uncompiled().column_losses(scores, labels, 2)
    np.testing.assert_array_equal(losses(np.array([7.0, 8.0])), [0.0, -8.0])
    np.testing.assert_array_equal(losses(np.array([1.0, 2.0])), [0.0, -2.0])


# --- the registries ------------------------------------------------------------------------------


class NoDataclass(fastloss.Loss):
    name = "no_dataclass"
    naive = Uncompiled.naive
    vectorized = Uncompiled.vectorized


@dataclass
class NotFrozen(NoDataclass):
    name: ClassVar[str] = "not_frozen"


@dataclass(frozen=True)
class Nameless(fastloss.Loss):
    naive = Uncompiled.naive
    vectorized = Uncompiled.vectorized


@dataclass(frozen=True)
class Abstract(fastloss.Loss):
    name: ClassVar[str] = "abstract"


@pytest.mark.parametrize(
    ("loss", "name", "error", "message"),
    [
        (Uncompiled, "hinge", ValueError, "loss 'hinge' is already registered: Hinge(margin=1.0"),
        (Uncompiled, "Upper", ValueError, "loss name must match [a-z][a-z0-9_]*, got 'Upper'"),
        (Uncompiled, "two words", ValueError, "loss name must match"),
        (Uncompiled, "", ValueError, "loss name must match"),
        (Uncompiled, "line\n", ValueError, "loss name must match"),
        (NoDataclass, None, TypeError, "NoDataclass must be a frozen dataclass"),
        (NotFrozen, None, TypeError, "NotFrozen must be a frozen dataclass"),
        (Nameless, None, TypeError, "Nameless must have a class variable `name`"),
        (Abstract, None, TypeError, "abstract"),
        (int, None, TypeError, "loss must be a fastloss.Loss, got <class 'int'>"),
        ("hinge", None, TypeError, "loss must be a fastloss.Loss, got 'hinge'"),
    ],
)
def test_register_loss_refuses(loss, name, error, message):
    before = fastloss.available_losses()
    with pytest.raises(error, match=re.escape(message)):
        fastloss.register_loss(loss, name)
    assert fastloss.available_losses() == before


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("numpy", ValueError, "backend 'numpy' is already registered"),
        ("auto", ValueError, "backend name 'auto' is reserved"),
        ("2fast", ValueError, "backend name must match"),
    ],
)
def test_register_backend_refuses(name, error, message, einsum):
    backend = type(fastloss.backends.get_backend(einsum))
    with pytest.raises(error, match=re.escape(message)):
        fastloss.register_backend(backend, name)
    with pytest.raises(TypeError, match="backend must be a fastloss"):
        fastloss.register_backend(object(), "thing")
    with pytest.raises(TypeError, match="abstract"):
        fastloss.register_backend(fastloss.Backend, "thing")


def test_register_under_another_name_and_unregister():
    fastloss.register_loss(fastloss.Hinge(margin=3.0), "wide_hinge")
    try:
        losses, _ = fastloss.score_gradient([[1.0, 2.0]], [0], loss="wide_hinge")
        assert losses[0] == 4.0
    finally:
        fastloss.unregister_loss("wide_hinge")
    for forget in (fastloss.unregister_loss, fastloss.unregister_backend):
        with pytest.raises(ValueError, match="'wide_hinge'; known: "):
            forget("wide_hinge")


def test_every_loss_and_backend_of_the_package_is_registered():
    """Also a guard of the tests: each registry fills the tables that the other tests run over."""
    assert {"softmax", "hinge", "squared_hinge", "crammer_singer", "one_vs_all"} <= set(LOSSES)
    assert set(BACKENDS) == {"naive", "numpy", "numba", "fused"} - set(
        fastloss.unavailable_backends()
    )


# --- entry points --------------------------------------------------------------------------------

PLUGIN = f"""{SQUARED_ERROR}
from fastloss import Backend
{EINSUM.partition("from fastloss import Backend")[2]}
"""


def install(folder: Path, entry_points: str) -> None:
    (folder / "plugin.py").write_text(PLUGIN)
    information = folder / "foo-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: foo\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text(entry_points)


USE = """
import numpy as np
import fastloss
from fastloss.backends import registered_backends
from fastloss.benchmark import gradient_study, plan, plots
{first}
X, y, W = np.ones((4, 2)), np.array([0, 1, 2, 0]), np.ones((2, 3))
losses = [
    fastloss.loss_and_grad(W, X, y, "far_off", backend=backend)[0]
    for backend in ("far_away", "numba", "fused", "naive", "numpy")
]
np.testing.assert_allclose(losses, 9.0)  # 1 + 4 + 4
assert "far_off" in fastloss.available_losses()
assert "far_away" in fastloss.available_backends()
print("done")
"""


@pytest.mark.parametrize("first", ["", "fastloss.available_losses()"], ids=["used", "listed"])
def test_entry_points(first, tmp_path: Path, run_python):
    install(
        tmp_path,
        "[fastloss.losses]\nfar_off = plugin:SquaredError\n"
        "[fastloss.backends]\nfar_away = plugin:Einsum\n",
    )
    assert run_python(USE.format(first=first), tmp_path) == "done\n"


@pytest.mark.parametrize(
    ("entry_point", "reason"),
    [
        ("hinge = plugin:SquaredError", "ValueError: loss 'hinge' is already registered"),
        ("absent = nowhere:Loss", "ModuleNotFoundError: No module named 'nowhere'"),
        ("leaves = leaving:Loss", "SystemExit: 3"),
        ("number = math:pi", "TypeError: loss must be a fastloss.Loss"),
        ("Capital = plugin:SquaredError", "ValueError: loss name must match"),
    ],
)
def test_an_entry_point_that_fails_is_left_out(tmp_path: Path, run_python, entry_point, reason):
    (tmp_path / "leaving.py").write_text("raise SystemExit(3)")
    install(tmp_path, f"[fastloss.losses]\n{entry_point}\nfar_off = plugin:SquaredError\n")
    code = """
        import warnings, fastloss
        with warnings.catch_warnings(record=True, action="always") as told:
            losses = fastloss.available_losses()
        assert {"hinge", "far_off"} <= set(losses), losses
        fastloss.available_losses()
        print(*(warning.message for warning in told), sep="\\n")
        """
    told = run_python(code, tmp_path)
    assert told.startswith(
        f"the entry point {entry_point} of fastloss.losses is left out: {reason}"
    )
    assert told.count("\n") == 1

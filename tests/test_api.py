"""Test `Objective`, the precedence of settings, `explain`, memory and threads."""

from __future__ import annotations

import tracemalloc
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import scipy.optimize
from oracle import BACKENDS, LOSSES, TOLERANCES, assert_close, make_data
from threadpoolctl import threadpool_info

import fastloss
from fastloss import Objective
from fastloss.threads import available_threads

each_backend = pytest.mark.parametrize("backend", BACKENDS)
each_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)

rng = np.random.default_rng(0)
SAMPLE_WEIGHT = rng.uniform(0.5, 2.0, 61)
EVERYTHING = {
    "l1": 0.1,
    "l2": 0.2,
    "intercept": True,
    "sample_weight": SAMPLE_WEIGHT,
    "class_weight": {0: 2.0, 3: 0.5},
    "ignore_index": 2,
}


@dataclass(frozen=True)
class Spying(fastloss.Loss):
    """A loss without a block form; each evaluation calls ``spy``."""

    name: ClassVar[str] = "spying"
    spy: object = staticmethod(lambda: None)

    def naive(self, scores, label):
        self.spy()
        return 0.0, [0.0] * len(scores)

    def vectorized(self, scores, labels):
        self.spy()
        return np.zeros(len(scores), scores.dtype), np.zeros_like(scores)


@pytest.fixture
def data():
    return make_data(61, 13, 5, intercept=True)


# --- Objective -----------------------------------------------------------------------------------


@each_loss
@each_backend
def test_objective_equals_loss_and_grad(loss, backend, data):
    total, dW = fastloss.loss_and_grad(data.W, data.X, data.y, loss, backend=backend, **EVERYTHING)
    objective = Objective(data.X, data.y, loss=loss, backend=backend, **EVERYTHING)
    for _ in range(2):
        again = objective(data.W)
        np.testing.assert_array_equal(again[0], total)
        np.testing.assert_array_equal(again[1], dW)
    np.testing.assert_allclose(objective.loss(data.W), total, rtol=1e-15)


@each_backend
def test_loss_is_a_python_float(backend, data):
    objective = Objective(data.X, data.y, intercept=True, l2=0.1, backend=backend)
    for number in (objective(data.W)[0], objective.loss(data.W), *objective.terms(data.W)):
        assert type(number) is float


@each_backend
def test_terms(backend, data):
    objective = Objective(data.X, data.y, intercept=True, l1=0.1, l2=0.2, backend=backend)
    data_loss, penalty = objective.terms(data.W)
    not_bias = data.W[:-1]
    np.testing.assert_allclose(
        penalty, 0.1 * np.abs(not_bias).sum() + 0.2 * np.square(not_bias).sum(), rtol=1e-14
    )
    without = objective.without_penalty()
    assert without.loss(data.W) == data_loss
    assert without.terms(data.W) == (data_loss, 0.0)
    np.testing.assert_allclose(objective.loss(data.W), data_loss + penalty, rtol=1e-15)
    np.testing.assert_allclose(
        objective(data.W)[1][:-1] - without(data.W)[1][:-1],
        0.1 * np.sign(not_bias) + 0.4 * not_bias,
        rtol=1e-12,
        atol=1e-15,
    )
    assert objective.penalty != without.penalty


@pytest.mark.parametrize(
    "rows",
    [slice(5, 40), slice(None, None, -3), np.array([3, 3, 60, 0]), [1, 2], SAMPLE_WEIGHT > 1],
    ids=["slice", "reversed", "indices", "list", "mask"],
)
@each_backend
def test_batch(rows, backend, data):
    objective = Objective(data.X, data.y, backend=backend, **EVERYTHING)
    batch = objective.batch(rows)
    options = {**EVERYTHING, "sample_weight": SAMPLE_WEIGHT[rows]}
    expected = fastloss.loss_and_grad(
        data.W, data.X[rows], data.y[rows], backend=backend, **options
    )
    assert_close(batch(data.W), expected, np.float64)
    # A slice must not copy X.
    assert np.shares_memory(batch.X, data.X) == isinstance(rows, slice)


def test_batch_keeps_balanced_weights_of_all_rows():
    objective = Objective(np.eye(4), [0, 0, 0, 1], class_weight="balanced", reduction="sum")
    np.testing.assert_allclose(objective.row_weights, [4 / 6, 4 / 6, 4 / 6, 2])
    np.testing.assert_allclose(objective.batch(slice(2, 4)).row_weights, [4 / 6, 2])


def test_row_weights_and_labels(data):
    objective = Objective(data.X, data.y, **EVERYTHING)
    ignored = data.y == 2
    expected = SAMPLE_WEIGHT * np.array([2, 1, 0, 0.5, 1])[data.y]
    np.testing.assert_allclose(objective.row_weights, expected / expected.sum())
    np.testing.assert_array_equal(objective.labels, np.where(ignored, -1, data.y))
    unweighted = Objective(data.X, data.y, ignore_index=2)
    np.testing.assert_allclose(unweighted.row_weights, ~ignored / (~ignored).sum())
    assert objective.n_parameter_rows == 14
    assert unweighted.n_parameter_rows == 13


@pytest.mark.parametrize("X_type", ["f4", "f8", "u1"])
@each_backend
def test_flat(X_type, backend):
    data = make_data(61, 13, 5, X_type, "f4" if X_type == "f4" else "f8")
    objective = Objective(data.X, data.y, l2=0.01, backend=backend)
    total, gradient = objective.flat(data.W.ravel().astype(np.float64))
    assert gradient.dtype == np.float64
    assert_close((total, gradient.reshape(data.W.shape)), objective(data.W), data.W.dtype)


@pytest.mark.parametrize("X_type", ["f4", "f8", "u1"])
@each_backend
def test_scipy_minimises_flat(X_type, backend):
    data = make_data(61, 13, 5, X_type, "f4" if X_type == "f4" else "f8")
    objective = Objective(data.X, data.y, l2=0.01, intercept=True, backend=backend)
    start = np.zeros(14 * 5)
    found = scipy.optimize.minimize(
        objective.flat, start, jac=True, method="L-BFGS-B", options={"maxiter": 10}
    )
    assert found.fun < 0.9 * objective.flat(start)[0]


def test_astype(data):
    objective = Objective(data.X, data.y, intercept=True, l2=0.1)
    single = objective.astype(np.float32)
    assert single.X.dtype == np.float32
    assert objective.X.dtype == np.float64
    assert_close(single(data.W.astype("f4")), objective(data.W), np.float32)


def test_repr(data):
    text = repr(Objective(data.X, data.y, loss="hinge", l2=0.5, reduction="sum"))
    expected = (
        "Objective(61 rows x 13 float64 features, Hinge(margin=1.0, power=1, "
        "include_true_class=False, class_reduction='sum'), l1=0, l2=0.5, intercept=False, "
        "reduction='sum')"
    )
    assert text == expected


@each_backend
def test_array_likes(backend):
    total, dW = fastloss.loss_and_grad(
        [[0.0, 0.0], [0.0, 0.0]], ((1.0, 2.0),), (1,), backend=backend
    )
    np.testing.assert_allclose(total, np.log(2))
    np.testing.assert_allclose(dW, [[0.5, -0.5], [1.0, -1.0]])


@each_loss
@each_backend
def test_inputs_are_never_modified(loss, backend, data):
    inputs = {"W": data.W.copy(), "X": data.X.copy(), "y": data.y.copy()}
    options = {**EVERYTHING, "sample_weight": SAMPLE_WEIGHT.copy(), "class_weight": {0: 2.0}}
    out = np.empty_like(data.W)
    fastloss.loss_and_grad(**inputs, loss=loss, backend=backend, out=out, **options)
    np.testing.assert_array_equal(inputs["W"], data.W)
    np.testing.assert_array_equal(inputs["X"], data.X)
    np.testing.assert_array_equal(inputs["y"], data.y)
    np.testing.assert_array_equal(options["sample_weight"], SAMPLE_WEIGHT)
    assert options["class_weight"] == {0: 2.0}
    scores = data.X @ data.W[:-1]
    before = scores.copy()
    losses, dscores = fastloss.score_gradient(scores, data.y, loss=loss, backend=backend)
    np.testing.assert_array_equal(scores, before)
    assert not np.shares_memory(scores, dscores)
    assert (losses.shape, dscores.shape) == (data.y.shape, scores.shape)


def test_later_changes_of_y_have_no_effect(data):
    y = data.y.copy()
    objective = Objective(data.X, y, intercept=True)
    before = objective.loss(data.W)
    y[:] = 1000
    assert objective.loss(data.W) == before


@each_loss
@each_backend
@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
def test_score_gradient_with_products_equals_loss_and_grad(loss, backend, dtype, data):
    """Scores may have any strides."""
    X, W = data.X.astype(dtype), data.W[:-1].astype(dtype)
    expected = fastloss.loss_and_grad(W, X, data.y, loss, backend="naive", reduction="sum")
    scores = np.empty((2 * len(X), 5), dtype, order="F")[::-2]
    scores[:] = X @ W
    losses, dscores = fastloss.score_gradient(scores, data.y, loss=loss, backend=backend)
    assert_close((losses.sum(dtype=np.float64), X.T @ dscores), expected, dtype)


# --- precedence of settings ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argument", "in_use", "environment", "expected"),
    [
        ("naive", "numpy", "fused", ("naive", "the argument backend=")),
        ("auto", "numpy", "fused", ("numpy", "fastloss.use")),
        ("auto", "auto", "naive", ("naive", "FASTLOSS_BACKEND")),
        ("auto", "auto", None, ("fused", "predicted to be fastest")),
        ("auto", "auto", "auto", ("fused", "predicted to be fastest")),
        ("naive", "auto", None, ("naive", "the argument backend=")),
    ],
)
def test_precedence_of_backends(argument, in_use, environment, expected, ran, data, monkeypatch):
    if environment is not None:
        monkeypatch.setenv("FASTLOSS_BACKEND", environment)
    with fastloss.use(backend=in_use):
        explanation = fastloss.explain(61, 13, 5, backend=argument)
        fastloss.loss_and_grad(data.W, data.X, data.y, intercept=True, backend=argument)
        fastloss.score_gradient(data.X, data.y, backend=argument)
    assert ran == [expected[0]] * 2
    assert explanation.backend == expected[0]
    assert expected[1] in explanation.reason


def test_use_nests_and_is_restored(ran, data):
    objective = Objective(data.X, data.y, intercept=True)

    def backend_now() -> str:
        objective(data.W)
        return ran[-1]

    with fastloss.use(backend="naive"):
        with fastloss.use(n_threads=1):  # keeps the backend of the outer block
            assert backend_now() == "naive"
            with fastloss.use(backend="fused"):
                assert backend_now() == "fused"
                assert fastloss.explain(1, 1, 2).n_threads == 1
            assert backend_now() == "naive"
        with pytest.raises(KeyError), fastloss.use(backend="fused", n_threads=1):
            raise KeyError
        assert backend_now() == "naive"
        assert fastloss.explain(1, 1, 2).n_threads == available_threads()
        with fastloss.use(backend="auto"):
            assert backend_now() == "fused"
    assert backend_now() == "fused"


def test_precedence_of_threads(monkeypatch):
    def threads_now(**argument) -> int:
        return fastloss.explain(100, 10, 10, backend="numpy", **argument).n_threads

    assert threads_now() == available_threads()
    monkeypatch.setenv("FASTLOSS_NUM_THREADS", "3")
    assert threads_now() == 3
    with fastloss.use(n_threads=5):
        assert threads_now() == 5
        assert threads_now(n_threads=7) == 7
    assert threads_now() == 3
    monkeypatch.setenv("FASTLOSS_NUM_THREADS", "")
    assert threads_now() == available_threads()


# --- explain -------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["softmax", Spying()], ids=["softmax", "no block form"])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["f4", "f8", "u1"])
@pytest.mark.parametrize("shape", [(4, 5, 3), (1, 2000, 10), (6000, 500, 10), (100, 50, 90)])
def test_explain_names_the_backend_that_runs(shape, dtype, order, loss, ran):
    n_rows, n_features, n_classes = shape
    X = np.ones((n_rows + 1, n_features), dtype, order=order)[:-1]
    W = np.zeros((n_features, n_classes), "f8" if dtype == "f8" else "f4")
    explanation = fastloss.explain(*shape, dtype=dtype, loss=loss, rows_contiguous=order == "C")
    fastloss.loss_and_grad(W, X, np.zeros(n_rows, int), loss)
    assert ran == [explanation.backend]
    assert ("fused" in explanation.unavailable) == isinstance(loss, Spying)


def test_explain_with_strided_rows_and_missing_forms():
    explain = fastloss.explain
    assert explain(60_000, 785, 10).backend == "fused"
    assert explain(60_000, 785, 10, rows_contiguous=False).backend == "numpy"
    without = explain(60_000, 785, 10, loss=Spying())
    assert without.backend == "numpy"
    assert str(without).count("no block form") == 1


def test_explain_predicts_times():
    told = fastloss.explain(60_000, 785, 10, n_threads=2)
    backends = ("numpy", "numba", "fused")
    assert {*told.predicted} == {(name, n) for name in backends for n in (1, 2)}
    assert [*told.predicted.values()] == sorted(told.predicted.values())
    assert next(iter(told.predicted)) == (told.backend, told.n_threads)
    assert str(told).count("ms predicted") == 6
    assert {n for _, n in fastloss.explain(9, 9, 9, n_threads=1).predicted} == {1}


# --- memory --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.uint8, np.float16])
@pytest.mark.parametrize("backend", ["numpy", "numba", "fused"])
def test_rows_of_other_types_are_not_copied_to_floats(backend, dtype):
    X = np.random.default_rng(0).integers(0, 256, (40_000, 500), np.uint8).astype(dtype)
    y = np.arange(40_000) % 3
    W = np.random.default_rng(1).standard_normal((500, 3)) / 2000
    objective = Objective(X, y, backend=backend)
    objective(W)  # imports and compiles
    tracemalloc.start()
    total, dW = objective(W)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.3 * X.size * W.itemsize
    expected = fastloss.loss_and_grad(W, X.astype(np.float64), y, backend=backend)
    assert_close((total, dW), expected, np.float64)


@pytest.mark.parametrize("backend", ["numpy", "fused"])
def test_strided_rows_and_intercept_are_not_copied(backend):
    X = np.zeros((40_000, 100), np.float32)
    objective = Objective(X[:, :50], np.zeros(40_000, int), intercept=True, backend=backend)
    W = np.zeros((51, 2), np.float32)
    objective(W)
    tracemalloc.start()
    objective(W)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.5 * X[:, :50].nbytes


# --- threads -------------------------------------------------------------------------------------


def blas_threads() -> int:
    """Return the number of threads of NumPy's BLAS, the first BLAS loaded."""
    libraries = [library for library in threadpool_info() if library["user_api"] == "blas"]
    assert libraries, "threadpoolctl does not know NumPy's BLAS"
    return libraries[0]["num_threads"]


@pytest.mark.parametrize("fails", [False, True])
def test_blas_limit_is_set_and_restored(fails, data):
    seen = []

    def spy() -> None:
        seen.append(blas_threads())
        if fails:
            raise KeyError("spy")

    before = blas_threads()
    objective = Objective(data.X, data.y, loss=Spying(spy), intercept=True, backend="numpy")
    for n_threads in (1, 2):
        with fastloss.use(n_threads=n_threads):
            if fails:
                with pytest.raises(KeyError, match="spy"):
                    objective(data.W)
            else:
                objective(data.W)
        assert seen == [n_threads]
        assert blas_threads() == before
        seen.clear()

"""Tests of each method in fastloss.optim against its formulas."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

import fastloss
from fastloss import optim
from fastloss.objective import Minibatch

METHODS = optim.available_methods()


def objective(dtype=np.float32, n: int = 300, **options) -> fastloss.Objective:
    problem = fastloss.data.synthetic(n, 12, 4, seed=3)
    options = {"l2": 1e-3, "intercept": True, **options}
    return fastloss.Objective(problem.X.astype(dtype), problem.y, **options)


def start(dtype=np.float32) -> np.ndarray:
    return np.random.default_rng(5).standard_normal((13, 4)).astype(dtype) * dtype(0.1)


def quadratic(W):
    """A quadratic with minimum 1 at 3, and a different curvature in each entry."""
    curvature = np.arange(1, W.size + 1).reshape(W.shape)
    return 1.0 + 0.5 * float((curvature * (W - 3.0) ** 2).sum()), curvature * (W - 3.0)


def orders(seed: int, n_rows: int, n_epochs: int) -> list[np.ndarray]:
    return [np.random.default_rng([seed, e]).permutation(n_rows) for e in range(n_epochs)]


# --- all methods --------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", METHODS)
def test_loss_falls_and_is_the_loss_of_the_result(name, dtype):
    f, W = objective(dtype), 10 * start(dtype)
    before = W.copy()
    result = optim.minimize(f, W, name, max_steps=40)
    np.testing.assert_array_equal(W, before)
    assert result.W.dtype == dtype
    assert result.W.shape == W.shape
    assert result.loss < f.loss(W)
    np.testing.assert_allclose(result.loss, f.loss(result.W), rtol=1e-6)
    last = result.history[-1]
    assert last.step == result.n_steps
    assert last.loss == result.loss
    np.testing.assert_allclose(
        [last.data_loss, last.penalty], f.terms(result.W), rtol=1e-5, atol=1e-7
    )


@pytest.mark.parametrize("name", METHODS)
def test_float64_parameters_of_a_method_do_not_widen_w(name):
    method = optim.get_method(name)
    changes = {
        field.name: np.float64(getattr(method, field.name))
        for field in dataclasses.fields(method)
        if type(getattr(method, field.name)) is float
    }
    result = optim.minimize(objective(), start(), dataclasses.replace(method, **changes))
    assert result.W.dtype == np.float32


@pytest.mark.parametrize("name", METHODS)
def test_history_has_increasing_steps_and_one_row_per_record(name):
    f, W = objective(), start()
    result = optim.minimize(f, W, name, max_steps=7, record_every=2, validation=f)
    steps = result.history.column("step")
    np.testing.assert_array_equal(steps, [0, 2, 4, 6, 7])
    assert np.all(np.diff(result.history.column("seconds")) >= 0)
    assert np.all(np.diff(result.history.column("evaluations")) > 0)
    assert result.history[0].loss == pytest.approx(f.loss(W), rel=1e-6)
    parts = result.history.column("data_loss") + result.history.column("penalty")
    np.testing.assert_allclose(parts, result.history.column("loss"), rtol=1e-12)
    np.testing.assert_array_equal(
        result.history.column("validation_accuracy")[-1], optim.accuracy(f, result.W)
    )
    assert len(result.history[1:3]) == 2


def test_unknown_column_lists_known_columns():
    with pytest.raises(ValueError, match="unknown column 'los'; known: 'step', 'epoch'"):
        optim.History().column("los")


# --- searches -----------------------------------------------------------------------------------


def test_random_search_keeps_the_best_of_its_draws():
    f, W = objective(), start()
    result = optim.minimize(f, W, optim.RandomSearch(scale=0.5), max_steps=20, seed=7)
    draws = [W] + [
        np.float32(0.5) * np.random.default_rng([7, k]).standard_normal(W.shape, dtype=np.float32)
        for k in range(20)
    ]
    g = f.reproducible(W)
    losses = [g.loss(draw) for draw in draws]
    np.testing.assert_array_equal(result.W, draws[int(np.argmin(losses))])
    np.testing.assert_array_equal(result.history.column("loss"), np.minimum.accumulate(losses))


def test_random_local_search_takes_steps_that_lower_the_loss():
    f, W = objective(), start()
    result = optim.minimize(f, W, optim.RandomLocalSearch(step=0.05), max_steps=30, seed=2)
    g = f.reproducible(W)
    n_kept = 0
    for k in range(30):
        noise = np.random.default_rng([2, k]).standard_normal(W.shape, dtype=np.float32)
        candidate = W + np.float32(0.05) * noise
        if g.loss(candidate) < g.loss(W):
            W, n_kept = candidate, n_kept + 1
    assert 5 < n_kept < 30
    np.testing.assert_allclose(result.W, W, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("method", [optim.RandomSearch(1e3), optim.RandomLocalSearch(1e3)])
def test_searches_reject_losses_that_are_not_finite(method):
    def f(W):
        return (math.nan if abs(W).max() > 10 else float((W**2).sum())), 2 * W

    W = np.ones((2, 2))
    result = optim.minimize(f, W, method, max_steps=5)
    np.testing.assert_array_equal(result.W, W)


# --- descent ------------------------------------------------------------------------------------

RULES = {
    "plain": (optim.GradientDescent(lr=0.05), lambda v, g: (-0.05 * g,) * 2),
    "momentum": (
        optim.GradientDescent(lr=0.05, momentum=0.8),
        lambda v, g: (0.8 * v - 0.05 * g,) * 2,
    ),
    "nesterov": (
        optim.GradientDescent(lr=0.05, momentum=0.8, nesterov=True),
        # The form in CS231n.
        lambda v, g: (0.8 * v - 0.05 * g, -0.8 * v + 1.8 * (0.8 * v - 0.05 * g)),
    ),
}


@pytest.mark.parametrize("rule", RULES)
def test_gradient_descent_follows_its_formula(rule):
    method, step = RULES[rule]
    W = np.zeros((2, 3))
    result = optim.minimize(quadratic, W, method, max_steps=15)
    velocity = np.zeros_like(W)
    for _ in range(15):
        velocity, change = step(velocity, quadratic(W)[1])
        W = W + change
    np.testing.assert_allclose(result.W, W, rtol=1e-12)
    assert result.n_evaluations == 16


def test_adam_follows_its_formula():
    method = optim.Adam(lr=0.3, beta1=0.8, beta2=0.9, eps=0.1, batch_size=None)
    result = optim.minimize(quadratic, np.zeros((2, 3)), method, max_steps=12)
    W, m, v = np.zeros((3, 2, 3))
    for t in range(1, 13):
        g = quadratic(W)[1]
        m = 0.8 * m + 0.2 * g
        v = 0.9 * v + 0.1 * g**2
        W = W - 0.3 * (m / (1 - 0.8**t)) / (np.sqrt(v / (1 - 0.9**t)) + 0.1)
    np.testing.assert_allclose(result.W, W, rtol=1e-12)


@pytest.mark.parametrize("lr", [1e-4, 1.0, 1e6])
def test_line_search_finds_its_step_size(lr):
    method = optim.GradientDescent(lr=lr, line_search=True)
    result = optim.minimize(quadratic, np.zeros((2, 3)), method, max_steps=300, tolerance=1e-9)
    assert result.why in ("converged", "stalled")
    np.testing.assert_allclose(result.W, 3.0, rtol=1e-6)
    history = result.history
    losses, rates = history.column("loss"), history.column("learning_rate")
    slopes = history.column("gradient_norm")[:-1] ** 2
    assert np.all(losses[1:] <= losses[:-1] - 1e-4 * rates[1:] * slopes)


def test_line_search_stalls_if_no_step_lowers_the_loss():
    def kink(W):
        return float(np.abs(W).sum()), np.full_like(W, -1.0)  # the wrong sign

    result = optim.minimize(
        kink, np.ones((1, 2)), optim.GradientDescent(line_search=True), max_steps=10
    )
    assert (result.why, result.n_steps) == ("stalled", 0)


@pytest.mark.parametrize(
    ("method", "match"),
    [
        (lambda: optim.SGD(lr=0.0), "lr must be finite and > 0, got 0.0"),
        (lambda: optim.SGD(lr=math.nan), "lr must be finite and > 0, got nan"),
        (lambda: optim.SGD(batch_size=0), "batch_size must be >= 1, got 0"),
        (lambda: optim.SGD(momentum=1.0), r"momentum must be in \[0, 1\), got 1.0"),
        (lambda: optim.SGD(nesterov=True), "nesterov=True needs momentum > 0"),
        (lambda: optim.Adam(beta2=1.0), r"beta2 must be in \[0, 1\), got 1.0"),
        (lambda: optim.Adam(eps=-1.0), "eps must be finite and > 0, got -1.0"),
        (lambda: optim.RandomSearch(scale=-1.0), "scale must be finite and > 0"),
        (lambda: optim.RandomLocalSearch(step=0.0), "step must be finite and > 0"),
        (lambda: optim.LBFGS(memory=0), "memory must be >= 1, got 0"),
        (lambda: optim.LBFGS(max_line_search=-1), "max_line_search must be >= 1, got -1"),
        (lambda: optim.GradientDescent(line_search=True, momentum=0.5), "takes no momentum"),
        (
            lambda: optim.GradientDescent(line_search=True, schedule=optim.Cosine(3)),
            "takes no schedule",
        ),
        (lambda: optim.Cosine(0.0), "epochs must be finite and > 0, got 0.0"),
        (lambda: optim.InverseTime(-1.0), "rate must be finite and >= 0, got -1.0"),
    ],
)
def test_bad_parameters_are_refused(method, match):
    with pytest.raises(ValueError, match=match):
        method()


# --- batches ------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 32, 100, 300, 1000])
@pytest.mark.parametrize("shuffle", [True, False])
def test_sgd_visits_every_row_once_in_each_epoch(batch_size, shuffle):
    f, W = objective(np.float64), start(np.float64)
    method = optim.SGD(lr=0.2, batch_size=batch_size, shuffle=shuffle)
    result = optim.minimize(f, W, method, max_epochs=2, seed=11)
    for order in orders(11, 300, 2):
        rows = order if shuffle else np.arange(300)
        for first in range(0, 300, batch_size):
            W = W - 0.2 * f.batch(rows[first : first + batch_size])(W)[1]
    np.testing.assert_allclose(result.W, W, rtol=1e-10, atol=1e-12)
    assert result.n_steps == 2 * math.ceil(300 / batch_size)
    assert result.n_evaluations == 2.0
    np.testing.assert_array_equal(result.history.column("epoch"), [0, 1, 2])


@pytest.mark.parametrize("backend", ["naive", "numpy", "fused"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"reduction": "sum", "l2": 0.3},
        {"sample_weight": np.arange(60) % 7},
        {"class_weight": "balanced", "ignore_index": 2},
        {"sample_weight": np.arange(60) % 7, "reduction": "sum", "ignore_index": 0},
    ],
    ids=["mean", "sum", "weights", "classes", "all"],
)
def test_batches_of_an_epoch_average_to_the_objective(options, backend):
    f = objective(np.float64, n=60, backend=backend, **options)
    counted = np.flatnonzero(f.row_weights > 0)
    estimate = f.minibatch(1, len(counted))
    W = start(np.float64)
    losses, gradients = [], []
    for i in counted:
        loss, gradient = estimate(np.array([i]), W)
        losses.append(loss)
        gradients.append(gradient)
    loss, gradient = f(W)
    np.testing.assert_allclose(np.mean(losses), loss, rtol=1e-12)
    np.testing.assert_allclose(np.mean(gradients, axis=0), gradient, rtol=1e-10, atol=1e-12)


def test_batches_announce_the_rows_of_the_next_one(monkeypatch):
    seen = []
    call = Minibatch.__call__

    def note(self, rows, W, next_rows):
        seen.append((rows.tolist(), next_rows.tolist()))
        return call(self, rows, W, next_rows)

    monkeypatch.setattr(Minibatch, "__call__", note)
    optim.minimize(objective(n=60), start(), optim.SGD(batch_size=25), max_epochs=2)
    assert [len(rows) for rows, _ in seen] == [25, 25, 10] * 2
    for k, (_, next_rows) in enumerate(seen):
        assert next_rows == (seen[k + 1][0] if k % 3 < 2 else [])


def test_rows_that_do_not_count_are_never_drawn():
    X = np.random.default_rng(0).standard_normal((90, 12))
    y = np.arange(90) % 4
    X[y == 2] = np.nan
    f = fastloss.Objective(X, y, ignore_index=2, intercept=True)
    result = optim.minimize(f, start(np.float64), optim.SGD(batch_size=7), max_epochs=2)
    assert np.isfinite(result.W).all()
    assert result.n_evaluations == pytest.approx(2 * np.mean(y != 2))


@pytest.mark.parametrize("n_rows", [0, 61])
def test_minibatch_of_a_wrong_size_is_refused(n_rows):
    with pytest.raises(ValueError, match=rf"n_rows must be in \[1, 60\], got {n_rows}"):
        objective(n=60).minibatch(n_rows)


@pytest.mark.parametrize(
    ("rows", "error", "match"),
    [
        ([0, 60], IndexError, r"rows must be in \[0, 60\), got 60"),
        ([-1, 3], IndexError, r"rows must be in \[0, 60\), got -1"),
        ([0, 1, 2], ValueError, r"rows must have shape \(2,\), got \(3,\)"),
    ],
)
def test_wrong_rows_of_a_minibatch_are_refused(rows, error, match):
    with pytest.raises(error, match=match):
        objective(n=60).minibatch(2)(np.array(rows), start())


def test_labels_outside_the_batch_are_checked():
    with pytest.raises(ValueError, match=r"= 3 is not in \[0, 3\)"):
        objective(n=60).minibatch(2)(np.array([0, 1]), start()[:, :3].copy())


@pytest.mark.parametrize("kind", ["uint8", "fortran", "read-only"])
def test_batches_of_any_layout_average_to_the_objective(kind):
    problem = fastloss.data.synthetic(100, 12, 4, seed=3)
    X = np.abs(10 * problem.X).astype(np.uint8).astype(np.float32)
    expected = optim.minimize(
        fastloss.Objective(X, problem.y, intercept=True), start(), "sgd", max_epochs=2
    )
    X = {"uint8": X.astype(np.uint8), "fortran": np.asfortranarray(X), "read-only": X.copy()}[kind]
    X.flags.writeable = kind != "read-only"
    result = optim.minimize(
        fastloss.Objective(X, problem.y, intercept=True), start(), "sgd", max_epochs=2
    )
    np.testing.assert_allclose(result.W, expected.W, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", [optim.SGD(), optim.Adam()])
def test_batches_of_a_callable_are_refused(method):
    with pytest.raises(TypeError, match="f must be an Objective, because batches need rows"):
        optim.minimize(quadratic, np.zeros((2, 3)), method)


# --- schedules ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schedule", "factors"),
    [
        (optim.Constant(), {0: 1, 7.3: 1}),
        (optim.StepDecay(every=2, factor=0.1), {0: 1, 1.99: 1, 2: 0.1, 4.5: 0.01}),
        (optim.ExponentialDecay(rate=0.5), {0: 1, 2: math.exp(-1)}),
        (optim.InverseTime(rate=0.5), {0: 1, 2: 0.5, 6: 0.25}),
        (optim.Cosine(epochs=4, floor=0.2), {0: 1, 2: 0.6, 4: 0.2, 9: 0.2}),
        (optim.Warmup(2, optim.InverseTime(1), start=0.5), {0: 0.5, 1: 0.375, 2: 1 / 3, 3: 0.25}),
    ],
)
def test_schedules_follow_their_formulas(schedule, factors):
    assert isinstance(schedule, optim.Schedule)
    for epoch, factor in factors.items():
        np.testing.assert_allclose(schedule(epoch), factor, rtol=1e-12)


@pytest.mark.parametrize("method", [optim.GradientDescent, optim.SGD, optim.Adam])
def test_schedule_scales_the_learning_rate(method):
    schedule = optim.InverseTime(rate=1.0)
    result = optim.minimize(
        objective(), start(), method(lr=0.4, schedule=schedule), max_steps=6, record_every=1
    )
    per_epoch = 1 if method is optim.GradientDescent else 2
    expected = [0.4 / (1 + k / per_epoch) for k in range(6)]
    np.testing.assert_allclose(result.history.column("learning_rate")[1:], expected, rtol=1e-12)
    assert result.history[0].learning_rate is None


def test_unused_libraries_are_not_imported(run_python):
    code = """
    import sys, numpy, fastloss
    assert "fastloss.optim" not in sys.modules
    fastloss.optim.minimize(lambda W: ((W**2).sum(), 2 * W), numpy.ones((2, 2)), "lbfgs")
    assert not {"scipy", "numba", "matplotlib"} & set(sys.modules)
    """
    run_python(code)


# --- accuracy -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
def test_accuracy_counts_rows_that_are_not_ignored(dtype):
    X = np.random.default_rng(0).integers(0, 9, (5000, 300)).astype(dtype)
    y = np.arange(5000) % 5
    f = fastloss.Objective(X, y, intercept=True, ignore_index=4)
    W = np.random.default_rng(1).standard_normal((301, 4)).astype(np.float32)
    scores = X.astype(np.float64) @ W[:-1] + W[-1]
    expected = np.mean((scores.argmax(axis=1) == y)[y != 4])
    np.testing.assert_allclose(optim.accuracy(f, W), expected, rtol=1e-3)
    with pytest.raises(ValueError, match="W must have 301 rows"):
        optim.accuracy(f, W[:-1])


# --- registered methods -------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class SignDescent(optim.Method):
    name = "sign_descent"
    lr: float = 0.1

    def start(self, setting, W):
        return optim.State(0, W, *setting.function.value_and_gradient(W))

    def take_step(self, setting, state):
        W = state.W - self.lr * np.sign(state.gradient)
        return optim.State(state.step + 1, W, *setting.function.value_and_gradient(W))


def test_registered_method_runs_by_name():
    optim.register_method(SignDescent)
    try:
        result = optim.minimize(quadratic, np.zeros((2, 3)), "sign_descent", max_steps=30)
        np.testing.assert_allclose(result.W, 3.0)
        with pytest.raises(ValueError, match="'sign_descent' is already registered"):
            optim.register_method(SignDescent)
    finally:
        optim.unregister_method("sign_descent")
    with pytest.raises(ValueError, match="unknown method 'sign_descent'; known: 'random_search'"):
        optim.minimize(quadratic, np.zeros((2, 3)), "sign_descent")


def test_invalid_methods_are_refused():
    with pytest.raises(TypeError, match=r"method must be a name or a .*Method, got 3"):
        optim.get_method(3)
    with pytest.raises(TypeError, match=r"method must be a fastloss\.optim\.Method"):
        optim.register_method(object())

    class NoDataclass(optim.Method):
        name = "none"
        start = take_step = None

    with pytest.raises(TypeError, match="NoDataclass must be a frozen dataclass"):
        optim.register_method(NoDataclass)

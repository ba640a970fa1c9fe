"""Tests of L-BFGS: against SciPy's L-BFGS-B and the two-loop recursion, its bits, and its ends."""

from __future__ import annotations

import itertools
import math
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastloss
from fastloss import optim, threads
from fastloss.lessons.tools import peak_bytes
from fastloss.optim import vectors
from fastloss.optim.function import PlainFunction
from fastloss.optim.pairs import Pairs, Room

scipy_optimize = pytest.importorskip("scipy.optimize")
EPS = float(np.finfo(float).eps)


def objective(loss="softmax", dtype=np.float64, l2=1e-3, spread=0.0) -> tuple[Any, np.ndarray]:
    """Return an objective and a start; the columns' sizes differ by ``10 ** spread``."""
    data = fastloss.data.synthetic(400, 20, 5, seed=1)
    X = (data.X * 10 ** np.linspace(-spread / 2, spread / 2, 20)).astype(dtype)
    f = fastloss.Objective(X, data.y, loss=loss, l2=l2, intercept=True, backend="numpy")
    W = np.zeros((21, 5), dtype)
    return f.reproducible(W), W


def rosenbrock(n: int) -> tuple[Callable[..., Any], np.ndarray]:
    rosen, derivative = scipy_optimize.rosen, scipy_optimize.rosen_der
    return (lambda w: (rosen(w), derivative(w))), np.tile([-1.2, 1.0], n // 2)


def quadratic(n: int, dtype=np.float64) -> tuple[Callable[..., Any], np.ndarray]:
    curvature = np.linspace(1, 10, n).astype(dtype)
    return (
        lambda w: (float((curvature * (w - 1) ** 2).sum(dtype=float)), 2 * curvature * (w - 1)),
        np.zeros(n, dtype),
    )


def run_scipy(f, W, n_steps: int, tolerance: float) -> tuple[Any, int]:
    """Run SciPy's L-BFGS-B, with f called in the type of ``W``; return its result and calls."""
    n_calls = 0

    def counted(w):
        nonlocal n_calls
        n_calls += 1
        loss, gradient = f(w.reshape(W.shape).astype(W.dtype))
        return loss, gradient.ravel().astype(float)

    options = {"maxiter": n_steps, "maxls": 50, "gtol": tolerance, "ftol": 64 * EPS}
    w = W.ravel().astype(float)
    return scipy_optimize.minimize(
        counted, w, jac=True, method="L-BFGS-B", options=options
    ), n_calls


# --- against SciPy --------------------------------------------------------------------------------

PROBLEMS = {
    "softmax": lambda: objective(),
    "softmax without penalty": lambda: objective(l2=0.0),
    "softmax, uneven": lambda: objective(spread=3.0),
    "softmax, float32": lambda: objective(dtype=np.float32),
    "squared hinge": lambda: objective("squared_hinge"),
    "squared hinge without penalty": lambda: objective("squared_hinge", l2=0.0),
    "squared hinge, uneven": lambda: objective("squared_hinge", spread=3.0),
    "squared hinge, float32": lambda: objective("squared_hinge", np.float32),
    "one_vs_all": lambda: objective(fastloss.OneVsAll(power=2)),
    "one_vs_all, float32": lambda: objective(fastloss.OneVsAll(power=2), np.float32, l2=0.0),
    "rosenbrock 10": lambda: rosenbrock(10),
    "rosenbrock 100": lambda: rosenbrock(100),
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_run_needs_as_many_evaluations_as_scipy(name):
    f, W = PROBLEMS[name]()
    # Near the minimum of a float32 loss, SciPy's searches end in its rounding.
    n_steps = 30 if W.dtype == np.float32 else 150
    result = optim.minimize(f, W, "lbfgs", max_steps=n_steps, tolerance=1e-5)
    expected, n_calls = run_scipy(f, W, n_steps, 1e-5)
    assert abs(result.n_evaluations - n_calls) <= 0.1 * n_calls
    if result.why == "converged":
        np.testing.assert_allclose(result.loss, expected.fun, rtol=1e-5, atol=1e-6)
        if not name.endswith("penalty"):  # else there is no minimiser
            np.testing.assert_allclose(result.W.ravel(), expected.x, rtol=2e-3, atol=2e-3)


def test_first_steps_are_those_of_scipy():
    """With the memory full, dropped pairs matter too."""
    f, W = objective()
    for n_steps in (1, 2, 5, 14, 25):
        result = optim.minimize(f, W, "lbfgs", max_steps=n_steps, tolerance=0.0)
        expected, n_calls = run_scipy(f, W, n_steps, 0.0)
        np.testing.assert_allclose(result.W.ravel(), expected.x, rtol=1e-6, atol=1e-8)
        assert result.n_evaluations == n_calls


def two_loops(pairs: list[tuple[np.ndarray, np.ndarray]], gradient: np.ndarray) -> np.ndarray:
    """Return the direction by algorithm 7.4 of Nocedal and Wright."""
    q, factors = gradient.copy(), []
    for s, y in reversed(pairs):
        factors.append((s @ q) / (s @ y))
        q -= factors[-1] * y
    s, y = pairs[-1]
    q *= (s @ y) / (y @ y)
    for (s, y), factor in zip(pairs, reversed(factors), strict=True):
        q += (factor - (y @ q) / (s @ y)) * s
    return -q


@pytest.mark.parametrize("memory", [1, 2, 5])
@pytest.mark.parametrize("size", [1, 3, 30_000])  # 30,000: four blocks
def test_direction_is_the_one_of_the_two_loop_recursion(memory, size):
    rng = np.random.default_rng(0)
    curvature = rng.uniform(1, 3, size)
    points = [(w, curvature * w) for w in rng.standard_normal((13, size))]
    pairs = Pairs.none(points[0][1])
    room, given = Room(memory, pairs), []
    for before, after in itertools.pairwise(points):
        pairs = room.add(pairs, before, after, n_threads=1)
        given = [*given, (after[0] - before[0], after[1] - before[1])][-memory:]
        assert len(pairs) == len(given)
        expected = two_loops(given, after[1])
        np.testing.assert_allclose(pairs.direction(after[1], 1), expected, rtol=1e-6, atol=1e-9)
    other = rng.standard_normal(size)
    moved = pairs.at(other, n_threads=1)
    np.testing.assert_allclose(moved.direction(other, 1), two_loops(given, other), atol=1e-9)


def test_quadratic_of_few_curvatures_converges_in_as_many_steps():
    curvature = np.repeat([1.0, 3.0, 7.0], 20)
    result = optim.minimize(
        lambda w: (0.5 * (curvature * w * w).sum(), curvature * w), np.ones(60), "lbfgs"
    )
    assert result.why == "converged"
    assert result.n_steps <= 9


# --- bits and memory ------------------------------------------------------------------------------


def states_of(f, W, method: optim.LBFGS, n_steps: int) -> list[optim.State]:
    """Return all states of a run."""

    class Enough(Exception):
        pass

    function = PlainFunction(f, W)
    setting = optim.Setting(function, 0, 0.0, None)
    states = [method.start(setting, W)]

    def commit(state: optim.State) -> None:
        states.append(state)
        if state.step == n_steps:
            raise Enough

    with pytest.raises(Enough):
        method.advance(setting, states[0], commit)
    return states


def arrays_of(state: optim.State) -> list[np.ndarray]:
    return [state.W, state.gradient, np.array(state.loss), *state.memory]


def assert_same_arrays(arrays, expected) -> None:
    for array, other in zip(arrays, expected, strict=True):
        np.testing.assert_array_equal(array, other)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_state_continues_with_the_same_bits(dtype):
    """Also a state that was stored, before and after the memory is full."""
    f, W = objective(dtype=dtype)
    method = optim.LBFGS(memory=3)
    states = states_of(f, W, method, 12)
    copies = [[array.copy() for array in arrays_of(state)] for state in states]
    setting = optim.Setting(PlainFunction(f, W), 0, 0.0, None)
    for state, following in itertools.pairwise(states):
        for given in (state, pickle.loads(pickle.dumps(state))):
            assert_same_arrays(arrays_of(method.take_step(setting, given)), arrays_of(following))
    for state, arrays in zip(states, copies, strict=True):
        assert_same_arrays(arrays_of(state), arrays)


def test_states_are_never_modified_not_even_after_a_restart():
    f, W = rosenbrock(10)
    n_calls, copies = 0, []

    def with_a_wall(w):
        """Let every step fail for a while, so that the method forgets its pairs."""
        nonlocal n_calls
        n_calls += 1
        loss, gradient = f(w)
        return loss + (1e9 if 20 <= n_calls < 23 else 0.0), gradient

    method = optim.LBFGS(memory=6, max_line_search=20)
    setting = optim.Setting(PlainFunction(with_a_wall, W), 0, 0.0, None)
    state = method.start(setting, W)
    room = Room(6, Pairs(*state.memory[:-1]))
    n_pairs = []
    for _ in range(25):
        copies.append((state, [array.copy() for array in arrays_of(state)]))
        state = method._take_step(setting, state, room)
        n_pairs.append(len(Pairs(*state.memory[:-1])))
        for earlier, arrays in copies:
            assert_same_arrays(arrays_of(earlier), arrays)
    assert n_pairs[:7] == [1, 2, 3, 4, 5, 6, 6]
    assert 1 in n_pairs[7:]
    assert n_pairs[-1] == 6


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_same_bits_on_any_number_of_threads(dtype, monkeypatch):
    monkeypatch.setattr(vectors, "_BYTES_PER_THREAD", 2**16)
    f, w = quadratic(100_001, dtype)
    used = []
    run = threads.Team.run
    monkeypatch.setattr(threads.Team, "run", lambda self, *a: (used.append(a[2]), run(self, *a))[1])
    results = []
    for n_threads in (1, 2, 5):
        with fastloss.use(n_threads=n_threads):
            results.append(optim.minimize(f, w, optim.LBFGS(memory=4), max_steps=9, tolerance=0))
    for result in results[1:]:
        np.testing.assert_array_equal(result.W, results[0].W)
    assert set(used) >= {2, 5}
    np.testing.assert_allclose(results[0].W, 1.0, atol=0.1)


def test_threads_of_the_objective_limit_the_method(monkeypatch):
    monkeypatch.setattr(vectors, "_BYTES_PER_THREAD", 1)
    monkeypatch.setattr(threads.Team, "run", lambda *_: pytest.fail("a second thread"))
    data = fastloss.data.synthetic(20, 1000, 40, seed=0)
    f = fastloss.Objective(data.X, data.y, n_threads=1, backend="numpy")
    optim.minimize(f, np.zeros((1000, 40), np.float32), "lbfgs", max_steps=3)


def test_memory_is_bounded():
    f, w = quadratic(200_000, np.float32)
    method = optim.LBFGS(memory=4)
    few, many = (
        peak_bytes(lambda n=n: optim.minimize(f, w, method, max_steps=n, tolerance=0))
        for n in (5, 24)
    )
    assert few <= many <= (4 * 4 + 12) * w.nbytes


# --- ends -----------------------------------------------------------------------------------------


def test_loss_that_is_not_finite_shortens_the_step():
    def barrier(w):
        with np.errstate(invalid="ignore", divide="ignore"):
            return float(-np.log(1 - w).sum() - 200 * w.sum()), 1 / (1 - w) - 200

    result = optim.minimize(barrier, np.zeros(3), "lbfgs", max_steps=200, tolerance=1e-4)
    assert result.why == "converged"
    np.testing.assert_allclose(result.W, 1 - 1 / 200, rtol=1e-6)


def test_overflowing_gradient_shortens_the_step():
    def steep(w):
        with np.errstate(over="ignore"):
            loss = float((w.astype(float) ** 8).sum())
            return loss, 8 * w**7

    result = optim.minimize(steep, np.full(4, 2e5, np.float32), "lbfgs", max_steps=300)
    assert result.loss < 1.0


@pytest.mark.parametrize("loss", ["hinge", "crammer_singer"])
def test_kinks_do_not_hang(loss):
    f, W = objective(loss, np.float32, l2=1e-2)
    result = optim.minimize(f, W, "lbfgs", max_steps=400, max_evaluations=2000)
    assert result.why in ("converged", "stalled", "max_steps")
    assert result.loss < 0.5 * f.loss(W)


@pytest.mark.parametrize("sign", [-1.0, 0.0])
def test_wrong_gradient_stalls_soon(sign):
    n_calls = []

    def wrong(w):
        n_calls.append(1)
        return float((w * w).sum()), sign * w + 0.5 * (sign == 0)

    result = optim.minimize(wrong, -np.ones(5), "lbfgs", max_steps=10)
    assert result.why == "stalled"
    assert result.message == "no step along the gradient lowers the loss"
    assert len(n_calls) <= 2 * 50 + 2


def test_gain_below_rounding_is_convergence():
    f, W = objective(dtype=np.float32)
    result = optim.minimize(f, W, "lbfgs", tolerance=0.0)
    assert result.why == "converged"
    assert result.message.startswith("a step would lower the loss by about")
    wide, start = objective()
    best = optim.minimize(wide, start, "lbfgs", tolerance=1e-9)
    assert best.loss - 1e-12 <= wide.loss(result.W.astype(float)) <= best.loss + 1e-6


def test_decrease_below_rounding_is_convergence():
    result = optim.minimize(*quadratic(4), "lbfgs", tolerance=0.0)
    assert result.why == "converged"
    with_offset = optim.minimize(
        lambda w: (1e6 + float((w**4).sum()), 4 * w**3), np.ones(3), "lbfgs", tolerance=0.0
    )
    assert with_offset.why == "converged"
    assert "lowered the loss by only" in with_offset.message


def test_flat_start_has_converged():
    result = optim.minimize(lambda w: (1.0, 0 * w), np.ones(3), "lbfgs", tolerance=0.0)
    assert (result.why, result.n_steps) == ("converged", 0)


@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_squares_of_a_first_gradient_neither_vanish_nor_overflow(scale):
    f, w = quadratic(6)
    result = optim.minimize(
        lambda w: (scale * f(w)[0], scale * f(w)[1]), w, "lbfgs", max_steps=3, tolerance=0.0
    )
    assert result.n_steps > 0
    assert result.loss < 0.5 * scale * f(w)[0]


def test_huge_gradients_are_followed():
    """Products of such gradients overflow in float32."""
    f, w = quadratic(6, np.float32)
    huge = np.float32(1e20)
    result = optim.minimize(
        lambda w: (float(huge) * f(w)[0], huge * f(w)[1]), w, "lbfgs", max_steps=60
    )
    assert result.loss < 1e-3 * float(huge) * f(w)[0]


def test_maximum_of_a_line_search_is_kept():
    f, W = rosenbrock(10)
    n_calls = []
    result = optim.minimize(
        lambda w: (n_calls.append(1), f(w))[1], W, optim.LBFGS(max_line_search=1), max_steps=40
    )
    assert not math.isnan(result.loss)
    assert len(n_calls) <= 1 + 2 * (result.n_steps + 1)

"""Test that correct gradients pass the check, and that it finds and names planted faults."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any, ClassVar

import numpy as np
import pytest
from gradient_problems import altered, both, problem

import fastloss
from fastloss.losses.base import Loss
from fastloss.penalties import Penalty

LOSSES: list[Any] = [
    *fastloss.available_losses(),
    fastloss.Softmax(label_smoothing=0.1),
    fastloss.Hinge(margin=0.0, class_reduction="mean"),
    fastloss.OneVsAll(power=2),
]


# --- correct gradients -----------------------------------------------------------------------


@pytest.mark.parametrize("loss", LOSSES, ids=str)
@pytest.mark.parametrize("dtype", [np.float64, np.uint8])
@pytest.mark.parametrize("scale", [0.0, 1e-4, 1.0])
def test_every_loss_passes(loss: Any, dtype: Any, scale: float) -> None:
    grid = list(product((False, True), ((0, 0), (0.1, 0.05)), (False, True), (None, 9)))
    # Every third combination covers all pairs of values.
    for seed, (intercept, (l1, l2), weighted, ignore_index) in enumerate(grid[::3]):
        objective, W = problem(
            loss,
            dtype=dtype,
            scale=scale,
            seed=seed,
            intercept=intercept,
            l1=l1,
            l2=l2,
            weighted=weighted,
            ignore_index=ignore_index,
            reduction="sum" if seed % 3 else "mean",
        )
        check = fastloss.check_gradient(objective, W, seed=seed, n_coordinates=40)
        assert check.passed, str(check)
        parts = {record.part for record in check.records}
        assert parts == ({"data", "penalty", "total"} if l1 else {"data"})
        plain = fastloss.check_gradient(lambda w, f=objective: f(w), W, n_coordinates=12)
        assert plain.passed, str(plain)


@pytest.mark.parametrize("backend", ["naive", "fused"])
def test_every_backend_passes(backend: str) -> None:
    X = np.random.default_rng(0).standard_normal((20, 5)).astype(np.float32)
    objective = fastloss.Objective(X, np.arange(20) % 3, l2=0.1, backend=backend)
    check = fastloss.check_gradient(objective, np.ones((5, 3), np.float32))
    assert check.passed, str(check)
    assert check.max_relative_error < 1e-6, str(check)


def test_float32_rows_are_sampled_and_cast_to_float64() -> None:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((400, 6)).astype(np.float32)
    weight = (np.arange(400) % 4 == 0).astype(float)
    objective = fastloss.Objective(X, rng.integers(0, 3, 400), sample_weight=weight, l2=0.1)
    W = rng.standard_normal((6, 3)).astype(np.float32)
    W.flags.writeable = False
    before = W.copy()
    check = fastloss.check_gradient(objective, W, max_rows=40, seed=5)
    assert check.passed, str(check)
    assert check.max_relative_error < 1e-6, str(check)
    assert "40 of 400 rows (seed 5)" in str(check)
    np.testing.assert_array_equal(W, before)
    assert fastloss.check_gradient(objective, W, max_rows=40, seed=5) == check
    assert fastloss.check_gradient(objective, W, max_rows=40, seed=6) != check
    # Rows of weight 0 are not drawn; 100 rows are left.
    assert "100 of 400 rows" in str(fastloss.check_gradient(objective, W, max_rows=200))


def test_zero_loss_passes() -> None:
    objective = fastloss.Objective(np.eye(3), [0, 1, 2], loss="hinge")
    check = fastloss.check_gradient(objective, 9 * np.eye(3))
    assert check.passed
    np.testing.assert_equal(check.counts["good"], len(check.records))
    np.testing.assert_equal(check.max_relative_error, 0.0)


@dataclass(frozen=True)
class Late(Loss):
    """A registered loss, the sum of |s_j - 1|; ``pieces`` reports its kinks if ``tells``."""

    name: ClassVar[str] = "late_of_gradcheck_test"
    tells: bool = True

    def naive(self, scores: list[float], label: int) -> tuple[float, list[float]]:
        raise NotImplementedError

    def vectorized(self, scores: Any, labels: Any) -> tuple[Any, Any]:
        return np.abs(scores - 1.0).sum(axis=1), np.sign(scores - 1.0)

    def pieces(self, scores: Any, labels: Any) -> Any:
        return np.sign(scores - 1.0) if self.tells else None


@pytest.mark.parametrize("tells", [True, False])
def test_registered_loss_is_checked(tells: bool) -> None:
    fastloss.register_loss(Late(tells))
    try:
        # At W = 1 the scores of the unit rows are 1: every entry lies on a kink.
        for W in (np.ones((4, 3)), np.ones((4, 3)) + 1e-6, np.full((4, 3), 0.3)):
            objective = fastloss.Objective(np.eye(4), [0, 1, 2, 0], loss=Late.name)
            check = fastloss.check_gradient(objective, W)
            assert check.passed, str(check)
            wrong = fastloss.check_gradient(altered(objective, lambda g: g + 0.3), W)
            assert wrong.worst.status == "wrong", str(wrong)
    finally:
        fastloss.unregister_loss(Late.name)


# --- planted faults --------------------------------------------------------------------------


@pytest.mark.one_in(2)
@pytest.mark.parametrize("loss", LOSSES, ids=str)
@pytest.mark.parametrize("dtype", [np.float64, np.uint8])
def test_wrong_gradients_fail(loss: Any, dtype: Any) -> None:
    objective, W = problem(loss, dtype=dtype, scale=0.1, intercept=True)
    shifted = fastloss.Objective(
        objective.X, (objective.labels + 1) % 4, loss=loss, intercept=True, backend="numpy"
    )

    def bias(gradient: np.ndarray) -> np.ndarray:
        gradient[-1] *= 1.1
        return gradient

    changes = {
        "sign": np.negative,
        "1/N": lambda gradient: gradient * 30,
        "3 %": lambda gradient: gradient * 1.03,
        "0.1 %": lambda gradient: gradient * 1.001,
        "zero": np.zeros_like,
        "bias": bias,
    }
    for name, change in changes.items():
        for f in both(objective, change):
            check = fastloss.check_gradient(f, W)
            assert not check.passed, f"{name}\n{check}"
            expected = "uneasy" if name == "0.1 %" else "wrong"
            assert check.worst.status == expected, f"{name}\n{check}"
            if name == "bias":
                assert check.worst.index is not None, str(check)
                assert check.worst.index[0] == 12, str(check)
    off_by_one = fastloss.check_gradient(lambda w: (objective.loss(w), shifted(w)[1]), W)
    assert off_by_one.worst.status == "wrong", str(off_by_one)


@pytest.mark.parametrize("loss", LOSSES, ids=str)
@pytest.mark.parametrize("factor", [0.0, 1.2])
def test_one_wrong_row_of_3073_is_found(loss: Any, factor: float) -> None:
    objective, W = problem(loss, N=10, D=3072, C=3, scale=0.01, intercept=True)
    row = 1234

    def change(gradient: np.ndarray) -> np.ndarray:
        gradient[row] *= factor
        return gradient

    for f in both(objective, change):
        check = fastloss.check_gradient(f, W, n_coordinates=20, n_directions=1)
        assert not check.passed, str(check)
        assert check.worst.status == "wrong", str(check)
        assert check.worst.block == f"row {row}", str(check)


@pytest.mark.parametrize("light", [1e-2, 1e-4])
def test_one_wrong_entry_among_large_ones_is_found(light: float) -> None:
    # A dark pixel. At 1e-4 of the others' gradient, all directions stay below 1e-4: "fine".
    objective, W = problem("softmax", D=500, scale=0.01)
    objective.X[:, 123] *= light

    def change(gradient: np.ndarray) -> np.ndarray:
        gradient[123, 2] *= 2.0
        return gradient

    for f in both(objective, change):
        check = fastloss.check_gradient(f, W, n_coordinates=10)
        np.testing.assert_equal(check.worst.index, (123, 2), err_msg=str(check))
        np.testing.assert_allclose(check.worst.relative_error, 0.5, rtol=1e-3)
        directions = {r.status for r in check.records if r.index is None}
        assert ("uneasy" in directions) == (light == 1e-2), str(check)


@dataclass(frozen=True)
class HalvedPenalty(Penalty):
    """A penalty whose gradient follows another convention."""

    factor: float = 0.5

    def add_gradient(self, W: Any, dW: Any) -> None:
        dW += self.factor * self.l2 * W


@pytest.mark.parametrize("loss", LOSSES, ids=str)
@pytest.mark.parametrize("factor", [0.5, 1.0])
def test_penalty_of_another_convention_fails(loss: Any, factor: float) -> None:
    # Tiny compared with the data's gradient; only a separate check shows it.
    objective, W = problem(loss, l2=1e-6, intercept=True)
    objective.penalty = HalvedPenalty(l2=1e-6, factor=factor)
    check = fastloss.check_gradient(objective, W)
    failed = [record for record in check.records if record.failed]
    assert {record.part for record in failed} == {"penalty"}, str(check)
    assert "the gradient of l2 * sum(W**2) is 2 * l2 * W" in str(check)


def test_penalised_bias_fails() -> None:
    class Penalised(fastloss.Objective):
        def penalised(self, W: Any) -> Any:
            return W

    objective, W = problem("softmax", l2=0.1, intercept=True)
    other = fastloss.Objective.__new__(Penalised)
    other.__dict__.update(objective.__dict__)
    check = fastloss.check_gradient(other, W)
    assert not check.passed
    np.testing.assert_equal((check.worst.part, check.worst.index[0]), ("total", 12))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nonfinite_gradient_fails(value: float) -> None:
    objective, W = problem("hinge", D=500)

    def change(gradient: np.ndarray) -> np.ndarray:
        gradient[321, 2] = value
        return gradient

    for f in both(objective, change):
        check = fastloss.check_gradient(f, W)
        assert not check.passed
        np.testing.assert_equal((check.worst.index, check.worst.status), ((321, 2), "wrong"))
        np.testing.assert_equal(check.max_relative_error, np.nan)
        assert "1 of 2000 entries of the gradient are not finite" in str(check)


def test_loss_that_is_nan_near_w_fails() -> None:
    def f(W: np.ndarray) -> tuple[float, np.ndarray]:
        return (float(W.sum()) if (W == 1).all() else np.nan), np.ones_like(W)

    check = fastloss.check_gradient(f, np.ones((2, 2)))
    np.testing.assert_equal(check.counts["wrong"], len(check.records))


@pytest.mark.parametrize(("factor", "passed"), [(1.0, True), (1.05, False), (-1.0, False)])
def test_float32_callable_is_judged_by_float32_rounding(factor: float, passed: bool) -> None:
    objective, W = problem("softmax")

    def f(W: Any) -> tuple[float, Any]:
        assert W.dtype == np.float32
        loss, gradient = objective.astype(np.float32)(W)
        return float(np.float32(loss)), np.float32(factor) * gradient

    check = fastloss.check_gradient(f, W, dtype=np.float32)
    assert check.passed == passed
    assert "h = 0.01" in check.subject
    assert not any("compute it in float64" in note for note in check.notes)


# --- errors ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"h": -1.0}, ValueError, "h must be finite and > 0"),
        ({"n_coordinates": 0}, ValueError, "n_coordinates must be >= 1, got 0"),
        ({"n_directions": -1}, ValueError, "n_directions must be >= 0"),
        ({"max_rows": 2.5}, TypeError, r"max_rows must be an integer, got 2\.5"),
        ({"W": 1e15 * np.ones((12, 4))}, ValueError, "h = 1e-05 does not change W"),
        ({"W": np.ones((11, 4))}, ValueError, "W must have 12 rows"),
        ({"dtype": "float32"}, ValueError, "an Objective is checked in float64"),
        ({"dtype": "int8"}, TypeError, "dtype must be float32 or float64, got int8"),
        ({"W": np.ones((12, 4), complex)}, TypeError, "W must hold real numbers"),
        ({"W": np.ones((0, 4))}, ValueError, "W must be a non-empty array"),
        ({"W": np.full((12, 4), np.nan)}, ValueError, "the loss at W is nan"),
    ],
)
def test_errors(options: dict[str, Any], error: Any, message: str) -> None:
    objective, W = problem("softmax")
    with pytest.raises(error, match=message):
        fastloss.check_gradient(objective, **{"W": W, **options})


@pytest.mark.parametrize(
    ("f", "error", "message"),
    [
        (7, TypeError, "Objective or callable, got int"),
        (lambda w: w.sum(), TypeError, r"must return \(loss, gradient\), got float64"),
        (lambda w: (w, w), TypeError, "the loss must be a number, got ndarray"),
        (lambda w: (1.0, w.T), ValueError, r"shape of W, \(2, 3\), got \(3, 2\)"),
        (lambda w: (1.0, w.ravel()), ValueError, r"shape of W, \(2, 3\), got \(6,\)"),
        (lambda w: (1.0, w * 1j), TypeError, "the gradient must hold real numbers"),
    ],
)
def test_errors_of_f(f: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        fastloss.check_gradient(f, np.ones((2, 3)))

"""Compare numerical gradients with analytic ones and each other, and count evaluations."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import product
from typing import Any, ClassVar

import numpy as np
import pytest

import fastloss
from fastloss.losses import get_loss
from fastloss.losses.base import Loss

LOSSES: list[Any] = [
    *fastloss.available_losses(),
    fastloss.Softmax(label_smoothing=0.1),
    fastloss.Hinge(margin=0.5, include_true_class=True, class_reduction="mean"),
    fastloss.OneVsAll(power=2),
]
METHODS = ("per_element", "incremental")
SCHEMES = ("central", "forward")


def problem(loss: Any, *, N: int = 20, D: int = 5, C: int = 4, seed: int = 0, **options: Any):
    """Return an objective on NumPy, and a W for it."""
    rng = np.random.default_rng(seed)
    dtype = options.pop("dtype", np.float64)
    X = rng.integers(0, 256, (N, D)) if dtype == np.uint8 else rng.standard_normal((N, D))
    y = rng.integers(0, C, N)
    if options.get("ignore_index") is not None:
        y[::6] = options["ignore_index"]
    if options.pop("weighted", False):
        options["sample_weight"] = rng.uniform(0.0, 2.0, N)
        options["class_weight"] = {1: 3.0}
    scale = 0.01 if dtype == np.uint8 else 1.0
    W = scale * rng.standard_normal((D + options.get("intercept", False), C))
    objective = fastloss.Objective(X.astype(dtype), y, loss=loss, backend="numpy", **options)
    return objective, W.astype(np.float32 if dtype == np.float32 else np.float64)


@dataclass
class Counted:
    """A cheap callable that counts its calls and the changed entries of each."""

    W: np.ndarray
    calls: int = 0
    changed: list[int] = field(default_factory=list)

    def __call__(self, W: np.ndarray) -> float:
        self.calls += 1
        if self.W.size < 100:
            self.changed.append(int(np.count_nonzero(self.W != W)))
        return float(W[0, 0])


@pytest.mark.parametrize("loss", LOSSES, ids=str)
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("dtype", [np.float64, np.uint8])
def test_both_methods_equal_the_analytic_gradient(loss: Any, scheme: Any, dtype: Any) -> None:
    for intercept, weighted, ignore_index, reduction in product(
        (False, True), (False, True), (None, -7), ("mean", "sum")
    ):
        objective, W = problem(
            loss,
            dtype=dtype,
            l1=0.1,
            l2=0.05,
            intercept=intercept,
            weighted=weighted,
            ignore_index=ignore_index,
            reduction=reduction,
        )
        analytic = objective(W)[1]
        # Small enough that no kink of these problems lies between the probes.
        slow, fast = (
            fastloss.numerical_gradient(objective, W, h=1e-7, scheme=scheme, method=method)
            for method in METHODS
        )
        tolerance = 2e-5 if scheme == "forward" and dtype == np.uint8 else 5e-7
        atol = tolerance * float(np.abs(analytic).max())
        np.testing.assert_allclose(slow, analytic, rtol=0, atol=atol)
        np.testing.assert_allclose(fast, analytic, rtol=0, atol=atol)
        # The two share their truncation, so they are closer still.
        np.testing.assert_allclose(slow, fast, rtol=0, atol=5e-7 * float(np.abs(analytic).max()))


def test_central_is_of_second_order_and_forward_of_first() -> None:
    objective, W = problem("softmax", l2=0.1)
    analytic = objective(W)[1]

    def error(scheme: Any, method: Any, h: float) -> float:
        numerical = fastloss.numerical_gradient(objective, W, h=h, scheme=scheme, method=method)
        return float(np.abs(numerical - analytic).max())

    for method in METHODS:
        ratios = [error(s, method, 1e-2) / error(s, method, 1e-3) for s in SCHEMES]
        np.testing.assert_allclose(ratios, [100.0, 10.0], rtol=0.1)


def test_evaluations_at_the_size_of_cifar10() -> None:
    W = np.zeros((3073, 10))
    f = Counted(W)
    fastloss.numerical_gradient(f, W, scheme="forward")
    np.testing.assert_equal(f.calls, 30_731)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_evaluations_change_one_entry_at_a_time(scheme: Any) -> None:
    W = np.random.default_rng(0).standard_normal((4, 3))
    f = Counted(W)
    fastloss.numerical_gradient(f, W, scheme=scheme)
    expected = [1] * 24 if scheme == "central" else [0] + [1] * 12
    np.testing.assert_array_equal(f.changed, expected)
    f = Counted(W)
    fastloss.numerical_gradient(f, W, scheme=scheme, coordinates=[(0, 1), (3, 2), (0, 1)])
    np.testing.assert_equal(f.calls, 6 if scheme == "central" else 4)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_coordinates_select_entries_in_order(method: Any, scheme: Any) -> None:
    objective, W = problem("hinge", intercept=True, l1=0.1)
    whole = fastloss.numerical_gradient(objective, W, method=method, scheme=scheme)
    places = np.array([(5, 3), (0, 1), (2, 3), (0, 1), (4, 0)])
    some = fastloss.numerical_gradient(
        objective, W, method=method, scheme=scheme, coordinates=places
    )
    np.testing.assert_array_equal(some, whole[tuple(places.T)])
    none = fastloss.numerical_gradient(objective, W, method=method, coordinates=[])
    np.testing.assert_equal(none.shape, (0,))


@pytest.mark.parametrize("method", METHODS)
def test_w_is_never_modified(method: Any) -> None:
    objective, W = problem("softmax")
    before = W.copy()
    W.flags.writeable = False
    fastloss.numerical_gradient(objective, W, method=method)
    np.testing.assert_array_equal(W, before)


def test_quotient_divides_by_the_rounded_step() -> None:
    # Near 1e4 a step of 1e-5 has a relative error up to 1e-7. f is exact, so the quotient must be.
    W = np.array([[1e4 + 1 / 3, -1e4 / 7]])
    for scheme in SCHEMES:
        gradient = fastloss.numerical_gradient(lambda w: w[0, 0], W, scheme=scheme)
        np.testing.assert_array_equal(gradient, [[1.0, 0.0]])


def test_callables_may_return_a_pair_and_take_any_shape() -> None:
    objective, W = problem("softmax")
    flat = fastloss.numerical_gradient(objective.flat, W.ravel())
    np.testing.assert_array_equal(flat, fastloss.numerical_gradient(objective, W).ravel())
    np.testing.assert_allclose(
        fastloss.numerical_gradient(lambda w: (w**2).sum(), np.arange(8).reshape(2, 2, 2)),
        2.0 * np.arange(8).reshape(2, 2, 2),
        atol=1e-8,
    )


def test_float32_rows_need_float64_or_incremental() -> None:
    objective, W = problem("softmax", dtype=np.float32)
    double = objective.astype(np.float64)
    analytic = double(W.astype(np.float64))[1]
    incremental = fastloss.numerical_gradient(objective, W, method="incremental")
    assert incremental.dtype == np.float64
    np.testing.assert_allclose(incremental, analytic, rtol=0, atol=1e-9)
    cast = fastloss.numerical_gradient(double, W.astype(np.float64))
    np.testing.assert_allclose(cast, analytic, rtol=0, atol=1e-9)
    with pytest.raises(TypeError, match="same float type"):
        fastloss.numerical_gradient(objective, W.astype(np.float64))


def test_scores_of_more_rows_than_a_block_holds() -> None:
    objective, W = problem("hinge", dtype=np.uint8, N=3000, D=1200, intercept=True)  # 28 MB
    rows = np.arange(1, 3000)
    scores = fastloss.numerical.scores_of(objective, W, rows)
    expected = objective.X[rows].astype(np.float64) @ W[:-1] + W[-1]
    np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-10)


@dataclass(frozen=True)
class Cubic(Loss):
    """A loss that inherits ``column_losses`` and records the columns."""

    name: ClassVar[str] = "cubic_of_numerical_test"
    columns_taken: ClassVar[list[int]] = []

    def naive(self, scores: list[float], label: int) -> tuple[float, list[float]]:
        raise NotImplementedError

    def vectorized(self, scores: Any, labels: Any) -> tuple[Any, Any]:
        shifted = scores - 0.1 * labels[:, None]
        return (shifted**3).sum(axis=1), 3.0 * shifted**2

    def column_losses(self, scores: Any, labels: Any, column: int) -> Any:
        self.columns_taken.append(column)
        return super().column_losses(scores, labels, column)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_registered_loss_takes_each_column_once(scheme: Any) -> None:
    objective, W = problem(Cubic(), intercept=True, l2=0.1)
    Cubic.columns_taken.clear()
    numerical = fastloss.numerical_gradient(
        objective, W, h=1e-6, scheme=scheme, method="incremental"
    )
    np.testing.assert_allclose(numerical, objective(W)[1], rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(Cubic.columns_taken, [0, 1, 2, 3])
    Cubic.columns_taken.clear()
    fastloss.numerical_gradient(
        objective, W, method="incremental", coordinates=[(0, 3), (1, 1), (2, 3), (3, 1)]
    )
    np.testing.assert_array_equal(Cubic.columns_taken, [1, 3])


@pytest.mark.parametrize("loss", fastloss.available_losses())
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_in_is_nan_out(loss: str, bad: float) -> None:
    objective, W = problem(loss)
    objective.X[3, 2] = bad
    W[2] = 1.0
    for method in METHODS:
        np.testing.assert_array_equal(
            fastloss.numerical_gradient(objective, W, method=method), np.full_like(W, np.nan)
        )


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"h": 0.0}, ValueError, "h must be finite and > 0, got 0.0"),
        ({"h": np.inf}, ValueError, "h must be finite"),
        ({"h": "small"}, TypeError, "h must be a real number"),
        ({"h": 1e-30}, ValueError, r"h = 1e-30 does not change W\[0, 0\]"),
        ({"scheme": "backward"}, ValueError, "unknown scheme 'backward'; known: 'central'"),
        ({"method": "fast"}, ValueError, "unknown method 'fast'; known: 'per_element', 'incr"),
        ({"coordinates": [(0, 0), (5, 1)]}, ValueError, r"coordinates\[1\] = \(5, 1\) is outside"),
        ({"coordinates": [(0, -1)]}, ValueError, r"coordinates\[0\] = \(0, -1\) is outside"),
        ({"coordinates": [0, 1]}, ValueError, r"must have shape \(K, 2\)"),
        ({"coordinates": [(0.0, 1.0)]}, TypeError, "coordinates must be integers"),
        ({"W": np.ones((4, 4))}, ValueError, "W must have 5 rows"),
        ({"W": np.ones((5, 2))}, ValueError, r"is not in \[0, 2\)"),
        ({"W": np.ones(5)}, ValueError, r"W must be a matrix \(D, C\)"),
        ({"W": np.ones((5, 4), complex)}, TypeError, "W must hold real numbers"),
        ({"W": np.ones((0, 4))}, ValueError, "W must be a non-empty array"),
    ],
)
@pytest.mark.parametrize("method", METHODS)
def test_errors(method: str, options: dict[str, Any], error: Any, message: str) -> None:
    objective, W = problem("softmax")
    with pytest.raises(error, match=message):
        fastloss.numerical_gradient(objective, **{"W": W, "method": method, **options})


def test_errors_of_f() -> None:
    W = np.ones((2, 2))
    with pytest.raises(TypeError, match=r"needs a fastloss\.Objective"):
        fastloss.numerical_gradient(lambda w: 0.0, W, method="incremental")
    with pytest.raises(TypeError, match="Objective or callable, got int"):
        fastloss.numerical_gradient(3, W)
    with pytest.raises(TypeError, match="the loss must be a number, got ndarray of shape"):
        fastloss.numerical_gradient(lambda w: w, W)


@pytest.mark.parametrize("loss", fastloss.available_losses())
def test_column_losses_equal_the_losses(loss):
    """Include rows whose other classes all have a score of -inf."""
    scores = np.array([[2.0, -np.inf, -np.inf], [1.0, -np.inf, 0.5], [0.3, 0.2, 0.1]])
    function = get_loss(loss)
    for label in range(3):
        labels = np.full(3, label)
        with np.errstate(invalid="ignore"):
            expected = function.vectorized(scores, labels)[0]
            for column in range(3):
                actual = function.column_losses(scores, labels, column)(scores[:, column])
                finite = np.isfinite(expected)
                np.testing.assert_allclose(actual[finite], expected[finite], atol=1e-15)
                assert not np.isfinite(actual[~finite]).any()

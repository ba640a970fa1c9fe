"""Test the functions of the matrix unit, and its fallback to vectors."""

from __future__ import annotations

import math

import numpy as np
import pytest
from oracle import assert_close

pytest.importorskip("numba")

from amx_blocks import cache_lines, split
from numba import njit

import fastloss
from fastloss.kernels import amx, simd
from fastloss.kernels.limits import LIMITS, Limits
from fastloss.kernels.wide_problem import Wide
from fastloss.losses import get_loss
from fastloss.problem import Problem

SINGLE = np.dtype(np.float32)

if not amx.is_usable():
    pytest.skip("no matrix unit that may be used", allow_module_level=True)


@pytest.mark.one_in(3)
@pytest.mark.parametrize("parts", [(3, 3), (1, 3), (3, 1), (2, 3), (3, 2)], ids=str)
@pytest.mark.parametrize("is_new", [False, True])
@pytest.mark.parametrize("lacks", [(0, 0), (1, 0), (0, 1), (20, 17)], ids=str)
@pytest.mark.parametrize("n", [1, 7])
def test_matrix_tile(n, lacks, is_new, parts):
    tile = amx.matrix_tile(*parts)

    @njit
    def call(A, A_stride, B, B_stride, n, out, out_stride, n_rows, n_lanes, is_new):
        amx.configure()
        tile(A, A_stride, B, B_stride, n, out, out_stride, n_rows, n_lanes, is_new, A, 0, out)
        amx.release()

    rng = np.random.default_rng(0)
    A, B = cache_lines((n, 32, 32)), cache_lines((n, 32, 32))
    for array, n_parts in ((A, parts[0]), (B, parts[1])):
        array[...] = rng.integers(0, 256, A.shape) if n_parts == 1 else rng.standard_normal(A.shape)
        if n_parts == 2:
            array[...] = array.astype(np.float16)
    left, right = split(A, parts[0], True), split(B, parts[1], False)
    n_rows, n_lanes = 32 - lacks[0], 32 - lacks[1]
    out = np.ones((33, 35), np.float32)
    call(
        *(left.ctypes.data, left.strides[0], right.ctypes.data, right.strides[0], n),
        *(out.ctypes.data, out.strides[0], n_rows, n_lanes, is_new),
    )
    exact = np.einsum("kij,kjl->il", A.astype(np.float64), B.astype(np.float64))
    sizes = np.einsum("kij,kjl->il", np.abs(A), np.abs(B))[:n_rows, :n_lanes]
    errors = np.abs(out[:n_rows, :n_lanes] - exact[:n_rows, :n_lanes] - (not is_new))
    # Omitted products and each rounding of a sum cost 2**-24. Without the smallest products, the
    # error would be 2**-16.
    assert (errors <= 2.0**-22 * sizes).all()
    np.testing.assert_array_equal(out[n_rows:], 1)
    np.testing.assert_array_equal(out[:, n_lanes:], 1)


# --- whole problems ------------------------------------------------------------------------------


def problem(n_rows: int = 200, n_features: int = 70, n_classes: int = 100):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n_rows, n_features)).astype(SINGLE)
    W = rng.standard_normal((n_features, n_classes)).astype(SINGLE) / 9
    return W, X, rng.integers(0, n_classes, n_rows)


class Watched(Wide):
    """A `Wide` that records which units could evaluate a block of rows."""

    def __init__(self, *arguments, **keywords) -> None:
        super().__init__(*arguments, **keywords)
        self.used: list[str] = []

    def run_block(self, unit: str, *arguments) -> bool:
        done = super().run_block(unit, *arguments)
        self.used.append(f"{unit} {'did' if done else 'did not'}")
        return done


def evaluate(
    W, X, y, *, loss="softmax", limits=LIMITS, intercept=False, sample_weight=None, reduction="mean"
):
    """Return the loss and dW, and the record of the units."""
    divisor = 1.0 if reduction == "sum" else float(len(y))
    rows = Problem(X, y, get_loss(loss), intercept, sample_weight, divisor, any_skipped=False)
    watched = Watched(rows, W.shape[1], W.dtype, limits=limits)
    dW = np.empty_like(W)
    return (watched(W, dW, None), dW), watched.used


def test_matrix_unit_needs_float32_and_enough_rows_and_features():
    W, X, y = problem()
    assert evaluate(W, X, y)[1] == ["amx did"]
    for few in ((W, X[:63], y[:63]), (W[:47], X[:, :47], y), (W.astype("f8"), X.astype("f8"), y)):
        assert evaluate(*few)[1] == ["vectors did"]


@pytest.mark.parametrize("loss", ["softmax", "hinge"])
@pytest.mark.parametrize("where", ["X", "W"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30, -1e30])
def test_nonfinite_and_huge_numbers_fall_back_to_vectors(value, where, loss):
    W, X, y = problem()
    (X if where == "X" else W)[3, 5] = value
    with np.errstate(all="ignore"):
        expected = fastloss.loss_and_grad(W, X, y, loss=loss, backend="numpy")
    actual, used = evaluate(W, X, y, loss=loss)
    assert used == ["amx did not", "vectors did"]
    np.testing.assert_allclose(actual[0], expected[0], rtol=1e-5)
    largest = np.nanmax(np.where(np.isfinite(expected[1]), np.abs(expected[1]), 0))
    np.testing.assert_allclose(actual[1], expected[1], atol=1e-5 * largest)


@pytest.mark.parametrize("intercept", [False, True])
@pytest.mark.parametrize("scaled", ["X", "W", "weights"])
def test_tiny_numbers_fall_back_to_vectors(scaled, intercept):
    W, X, y = problem()
    X = X[:, :-1].copy() if intercept else X
    X, W = (a * SINGLE.type(1e-30 if name == scaled else 1) for name, a in (("X", X), ("W", W)))
    weights = np.full(len(y), 1e-30) if scaled == "weights" else None
    options = {"reduction": "sum", "sample_weight": weights, "intercept": intercept}
    actual, used = evaluate(W, X, y, **options)
    assert used == ["amx did not", "vectors did"]
    assert_close(actual, fastloss.loss_and_grad(W, X, y, backend="numpy", **options), SINGLE)


def test_rows_without_gradient_stay_on_the_unit():
    W, X, y = problem()
    X[:64] = 0
    X[:64, 0] = 60
    W[0] = -1
    W[0, 7] = 1
    y[:64] = 7
    actual, used = evaluate(W, X, y)
    assert used == ["amx did"]
    assert_close(actual, fastloss.loss_and_grad(W, X, y, backend="numpy"), SINGLE)


def test_only_the_block_out_of_range_falls_back():
    """The unit evaluates the other blocks, and their results stay."""
    W, X, y = problem()
    X[100] *= SINGLE.type(1e20)
    actual, used = evaluate(W, X, y, loss="hinge", limits=Limits(block_bytes=0, block_rows=64))
    expected = fastloss.loss_and_grad(W, X, y, loss="hinge", backend="numpy")
    did = "amx did"
    assert used == [did, "amx did not", "vectors did", *[did] * (len(used) - 3)]
    assert len(used) > 3
    assert_close(actual, expected, SINGLE)


def test_gradients_of_all_sizes():
    """Probabilities go down to 0, through the subnormal range."""
    W, X, y = problem()
    W *= 20
    actual, used = evaluate(W, X, y)
    assert used == ["amx did"]
    exact = fastloss.loss_and_grad(W.astype(float), X.astype(float), y, backend="numpy")
    assert_close(actual, exact, SINGLE)


@pytest.mark.parametrize("X_type", [np.float32, np.float16, np.uint8])
@pytest.mark.parametrize("shape", [(64, 48, 97), (95, 513, 257), (700, 600, 130), (1100, 50, 300)])
@pytest.mark.parametrize("intercept", [False, True])
def test_shapes(shape, intercept, X_type):
    """Shapes have sums of several pieces, and partial strips and pieces."""
    n_rows, n_features, n_classes = shape
    rng = np.random.default_rng(0)
    X = 50 * rng.standard_normal((n_rows, n_features)) + 99
    X = np.clip(X, 0, 255).astype(X_type)
    W = (rng.standard_normal((n_features + intercept, n_classes)) / 5000).astype(SINGLE)
    call = W, X, rng.integers(0, n_classes, n_rows)
    actual, used = evaluate(*call, intercept=intercept)
    assert set(used) == {"amx did"}
    exact = fastloss.loss_and_grad(
        W.astype(float), X.astype(float), call[2], intercept=intercept, backend="numpy"
    )
    assert_close(actual, exact, SINGLE)


def test_more_accurate_than_vectors():
    W, X, y = problem(3000, 1000, 120)
    exact = fastloss.loss_and_grad(W.astype(float), X.astype(float), y, backend="numpy")[1]
    errors = []
    for least in (0, math.inf):
        (_, dW), _ = evaluate(W, X, y, limits=Limits(matrix_rows=least))
        errors.append(float(np.sqrt(np.square(dW - exact).mean())))
    assert errors[0] < errors[1]


def test_same_bits_for_any_number_of_threads(backend_of):
    W, X, y = problem(900, 223, 283)
    objective = fastloss.Objective(X, y, backend=backend_of(block_bytes=100_000))
    results = []
    for n_threads in (1, 2, 3, 7):
        with fastloss.use(n_threads=n_threads):
            results.append(objective(W))
    for loss, dW in results[1:]:
        assert loss == results[0][0]
        np.testing.assert_array_equal(dW, results[0][1])


def test_cpu_without_the_unit_uses_vectors(run_python):
    code = """
    import numpy as np, fastloss
    from fastloss.kernels.wide_problem import units, units_without_numba
    single = np.dtype("f4")
    print(units_without_numba(single))
    assert units_without_numba(single) == units(10**6, 10**6, single)
    """
    assert run_python(code) == "('amx', 'vectors')\n"
    assert run_python(code, FASTLOSS_AMX="0") == "('vectors',)\n"
    features = ",".join(simd.features()).replace("+amx-bf16", "-amx-bf16")
    assert (
        run_python(code, NUMBA_CPU_FEATURES=features, NUMBA_CPU_NAME="native") == "('vectors',)\n"
    )

"""Test the functions of the matrix unit, and its fallback to vectors."""

from __future__ import annotations

import math

import numpy as np
import pytest
from oracle import assert_close

pytest.importorskip("numba")

from numba import njit

import fastloss
from fastloss.kernels import amx, simd, wide, wide_amx
from fastloss.kernels.limits import LIMITS, Limits
from fastloss.kernels.wide_problem import Wide
from fastloss.losses import get_loss
from fastloss.problem import Problem

SINGLE = np.dtype(np.float32)

if not amx.is_usable():
    pytest.skip("no matrix unit that may be used", allow_module_level=True)


def cache_lines(shape: tuple[int, ...]) -> np.ndarray:
    """Return float32 zeros that begin on a cache line."""
    buffer = np.zeros(4 * math.prod(shape) + 64, np.uint8)
    start = -buffer.ctypes.data % 64
    return buffer[start : start + 4 * math.prod(shape)].view(np.float32).reshape(shape)


def numbers(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Draw numbers of very different sizes."""
    array = cache_lines(shape)
    array[...] = rng.standard_normal(shape) * 2.0 ** rng.integers(-20, 20, shape)
    return array


def split(array: np.ndarray, n_parts: int, is_left: bool) -> np.ndarray:
    """Return blocks (K, part, half, 16, 16 items) of numbers (K, 32, 32)."""
    function = amx.split_block(n_parts, is_left)

    @njit
    def call(source, goal):
        return function(source, goal)

    blocks = cache_lines((len(array), n_parts, 2, 16, 16))
    largest = [call(a.ctypes.data, b.ctypes.data) for a, b in zip(array, blocks, strict=True)]
    expected = np.abs(array).max(axis=(1, 2)).view(np.int32)
    np.testing.assert_array_equal(largest, expected)
    return blocks


def parts_of(blocks: np.ndarray, is_left: bool) -> np.ndarray:
    """Return the parts (K, part, 32, 32) in blocks."""
    items = blocks.view(np.uint32).astype(np.uint64)
    # The lower and the upper half of an item are bfloat16: the upper half of a float32.
    both = np.stack([items << 16 & 0xFFFFFFFF, items & 0xFFFF0000]).astype(np.uint32)
    both = both.view(np.float32)
    if is_left:  # (term half, K, part, half, row, item)
        return both.transpose(1, 2, 3, 4, 0, 5).reshape(*blocks.shape[:2], 32, 32)
    return both.transpose(1, 2, 0, 4, 3, 5).reshape(*blocks.shape[:2], 32, 32)


@pytest.mark.parametrize("is_left", [True, False])
def test_three_parts_sum_to_the_number(is_left):
    array = numbers(np.random.default_rng(0), 2, 32, 32)
    parts = parts_of(split(array, 3, is_left), is_left)
    np.testing.assert_array_equal(parts.astype(np.float64).sum(axis=1), array)
    # Parts are rounded to nearest, which keeps the omitted products small.
    rest = np.abs(array - parts[:, 0])
    assert (rest <= 2.0**-8 * np.abs(array)).all()
    assert (np.abs(rest - np.abs(parts[:, 1])) <= 2.0**-8 * rest).all()


@pytest.mark.parametrize("is_left", [True, False])
def test_subnormal_numbers_stay_small(is_left):
    """Their bits must not reach the other half of an item."""
    array = numbers(np.random.default_rng(0), 2, 32, 32)
    array *= 2.0**-110
    assert (np.abs(array) < np.finfo(SINGLE).tiny).any()
    parts = parts_of(split(array, 3, is_left), is_left).astype(np.float64)
    np.testing.assert_allclose(parts.sum(axis=1), array, rtol=0, atol=2.0**-133)


def test_uint8_is_its_own_first_part():
    array = cache_lines((1, 32, 32))
    array.flat[:] = np.arange(1024) % 256
    parts = parts_of(split(array, 1, True), True)
    np.testing.assert_array_equal(parts[:, 0], array)


@pytest.mark.parametrize("n_parts", [1, 3])
def test_turn_blocks(n_parts):
    function = amx.turn_blocks(n_parts)

    @njit
    def call(source, goal, n):
        function(source, goal, n)

    array = numbers(np.random.default_rng(0), 3, 32, 32)
    left = split(array, n_parts, True)
    turned = np.full_like(left, 9)
    call(left.ctypes.data, turned.ctypes.data, 2)
    np.testing.assert_array_equal(turned[:2], split(array, n_parts, False)[:2])
    np.testing.assert_array_equal(turned[2], 9)


@pytest.mark.one_in(3)
@pytest.mark.parametrize("parts", [(3, 3), (1, 3), (3, 1)], ids=str)
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


@pytest.mark.parametrize("n_lanes", [32, 19, 0])
def test_scale_strip(n_lanes):
    @njit
    def call(strip, n_rows, factors, n_lanes):
        return amx.scale_strip(strip, n_rows, factors, n_lanes)

    rng = np.random.default_rng(0)
    strip, factors = numbers(rng, 5, 32), numbers(rng, 32)
    strip[:, n_lanes:] = np.nan
    expected = strip * factors
    expected[:, n_lanes:] = 0
    expected[4] = strip[4]
    largest = call(strip.ctypes.data, 4, factors.ctypes.data, n_lanes)
    np.testing.assert_array_equal(strip, expected)
    assert largest == np.abs(expected[:4]).max().view(np.int32)


def test_numbers_in_range():
    def fits(number: float, stage: int) -> bool:
        return wide_amx.is_in_range(int(np.float32(number).view(np.int32)), stage)

    assert [fits(x, wide.SCORES) for x in (0, 2.0**-32, 1, 2.0**48)] == [True] * 4
    assert [fits(x, wide.SCORES) for x in (1e-40, 2.0**-33, 2.0**49, np.inf, np.nan)] == [False] * 5
    assert fits(2.0**-64, wide.LOSS)
    assert not fits(2.0**-65, wide.LOSS)


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


@pytest.mark.parametrize("X_type", [np.float32, np.uint8])
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

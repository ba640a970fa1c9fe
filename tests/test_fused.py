"""Test the parts of the fused backend: losses, partition, many classes, compilation."""

from __future__ import annotations

import itertools
import platform
import tracemalloc
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
from oracle import LOSSES, TOLERANCES, assert_close, layouts, make_data

import fastloss
from fastloss.arrays import SKIP
from fastloss.backends import fused
from fastloss.backends.fused import FusedBackend
from fastloss.kernel_cache import kernel_name
from fastloss.kernels import narrow_problem, native, simd
from fastloss.kernels.compile import bind
from fastloss.kernels.few_rows_problem import FewRows
from fastloss.kernels.limits import Limits
from fastloss.kernels.loss_entry import loss_kernel
from fastloss.kernels.narrow import narrow_kernel
from fastloss.kernels.narrow_products import tile_width
from fastloss.kernels.rows import enter, leave
from fastloss.kernels.run import SERIAL_MULTIPLY_ADDS
from fastloss.kernels.strips import strips_kernel
from fastloss.kernels.wide import product_widths
from fastloss.problem import Problem

pytest.importorskip("numba")

SINGLE, DOUBLE = np.dtype(np.float32), np.dtype(np.float64)


# --- the compiled form of a loss is Python --------------------------------------------------------


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_block_forms_run_as_plain_python(loss, dtype):
    rng = np.random.default_rng(0)
    scores, labels = (3 * rng.standard_normal((21, 5))).astype(dtype), rng.integers(0, 5, 21)
    expected, gradient = loss.vectorized(scores.copy(), labels)
    block, losses = np.ascontiguousarray(scores.T), np.empty(21)
    loss.block(block, labels, loss.parameters, losses)
    tolerance = TOLERANCES[dtype][1]
    np.testing.assert_allclose(losses, expected, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(block.T, gradient, rtol=tolerance, atol=tolerance)


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="x86-64 only")
def test_block_forms_compile_to_vector_instructions(tmp_path, run_python):
    """No other test fails if a loss only becomes five times slower."""
    code = """
        import itertools, re, numpy as np, fastloss
        from fastloss.kernels.loss_entry import loss_kernel
        from fastloss.kernels.simd.entry import ObjectLibrary
        emit, emitted = ObjectLibrary.emit, []
        ObjectLibrary.emit = lambda library: (emit(library), emitted.append(library))[0]
        for name, dtype in itertools.product(fastloss.available_losses(), ("f4", "f8")):
            loss = fastloss.losses.get_loss(name)
            loss_kernel(loss, np.dtype(dtype))
            assembly = emitted[-1].get_asm_str()
            arithmetic = r"\\bv(?:add|sub|mul|max|min|cmp\\w*|fn?m\\w+)([ps])[sd]\\b"
            kinds = re.findall(arithmetic, assembly)
            # Scalar loops have no packed instructions, except a few for initial values.
            if kinds.count("p") < 10:
                print(f"{name} {dtype}: {kinds.count('p')} of {len(kinds)} are vectors")
    """
    environment = {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+avx2,+fma"}
    environment["NUMBA_CACHE_DIR"] = str(tmp_path)
    assert run_python(code, **environment) == ""


# --- the partition -------------------------------------------------------------------------------


@pytest.mark.parametrize("itemsize", [4, 8])
@pytest.mark.parametrize("shape", [(5, 2), (10, 3), (65, 10), (784, 7), (3073, 10), (12_000, 96)])
def test_partition(shape, itemsize):
    n_features, n_classes = shape
    for n_rows in (1, 3, 4, 5, 255, 256, 257, 4096, 60_000, 10_000_001):
        cut = narrow_problem.partition(n_rows, n_features, n_classes, itemsize)
        n_chunks, _, n_columns = cut.partials_shape
        assert (n_chunks - 1) * cut.chunk_rows < n_rows <= n_chunks * cut.chunk_rows
        assert 1 <= n_chunks <= narrow_problem.MAX_CHUNKS
        assert n_chunks <= 2 or n_chunks * n_classes * n_columns * itemsize <= (
            narrow_problem.MAX_PARTIAL_BYTES
        )
        # Whole cache lines of features, and one for the bias.
        assert n_columns * itemsize % 64 == 0
        assert n_columns * itemsize >= n_features * itemsize + 64
        assert cut.block_rows * itemsize % 64 == 0 < cut.block_rows
        # Enough chunks for two threads as soon as a second thread pays.
        work = 2 * n_rows * n_features * n_classes
        if work >= SERIAL_MULTIPLY_ADDS and n_rows >= 2 * narrow_problem.MIN_CHUNK_ROWS:
            assert n_chunks >= 2
        if work < SERIAL_MULTIPLY_ADDS:
            assert n_chunks == 1


@pytest.mark.parametrize("n_classes", range(2, 97))
def test_tiles_fit_all_classes(n_classes):
    widths = []
    while sum(widths) < n_classes:
        widths.append(tile_width(n_classes - sum(widths)))
    assert sum(widths) == n_classes
    assert set(widths) <= set(simd.TILE_CLASSES)


# --- few rows -------------------------------------------------------------------------------------


@pytest.mark.parametrize("X_type", [np.float16, np.float32, np.float64, np.uint8])
def test_batches_of_few_rows(X_type):
    """Rows in any order, twice, skipped; fewer than the batch was laid out for."""
    W_type = np.float64 if X_type == np.float64 else np.float32
    rng = np.random.default_rng(0)
    X = rng.uniform(0, 9, (150, 3003)).astype(X_type)
    W = (rng.standard_normal((3004, 7)) / 99).astype(W_type)
    y = rng.integers(0, 7, 150)
    y[::9] = SKIP
    weights = rng.uniform(0, 2, 150)
    problem = Problem(X, y, fastloss.Softmax(), True, weights, 90.0, any_skipped=True)
    evaluate = FusedBackend().prepare_batches(problem, 150, 7, np.dtype(W_type))
    assert isinstance(evaluate.__self__, FewRows)
    for rows in (rng.integers(0, 150, 150), np.arange(3), np.arange(0, 150, 9)):
        dW = np.full_like(W, 7)
        actual = evaluate(rows, W, dW, 2), dW
        expected = fastloss.loss_and_grad(
            W,
            X[rows],
            y[rows],
            backend="numpy",
            intercept=True,
            sample_weight=weights[rows],
            ignore_index=SKIP,
            reduction="sum",
        )
        assert_close(actual, (expected[0] / 90, expected[1] / 90), W_type)


# --- many classes ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "on_unit", "on_vectors"),
    [
        ((513, 3073, 10), "narrow", "narrow"),
        ((512, 2047, 20), "narrow", "narrow"),
        ((512, 2048, 96), "few_rows", "few_rows"),
        ((1, 100_000, 97), "wide", "wide"),
        ((1, 1, 97), "wide", "wide"),
        ((1000, 8000, 20), "narrow", "narrow"),
        ((1000, 8000, 21), "wide", "narrow"),  # W has more than 640 KiB
        ((1000, 8000, 32), "wide", "narrow"),
        ((1000, 8000, 33), "wide", "wide"),  # W has more than 1 MiB
        ((1000, 100_000, 12), "narrow", "narrow"),
        ((1000, 100_000, 24), "wide", "narrow"),
        ((1000, 100_000, 25), "wide", "wide"),
    ],
)
def test_way(shape, on_unit, on_vectors, monkeypatch):
    monkeypatch.setenv("NUMBA_CPU_FEATURES", "+avx512f,+amx-tile,+amx-bf16")
    assert fused.way(*shape, 4) == on_unit
    monkeypatch.setenv("NUMBA_CPU_FEATURES", "+avx512f")
    assert fused.way(*shape, 4) == on_vectors


@pytest.mark.parametrize("several_blocks", [False, True])
@pytest.mark.parametrize("X_type", [np.float16, np.float32, np.float64, np.uint8])
@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_many_classes(loss, X_type, several_blocks, backend_of):
    backend = backend_of(block_bytes=1000, block_rows=7) if several_blocks else "fused"
    rng = np.random.default_rng(0)
    W_type = np.float64 if X_type == np.float64 else np.float32
    X = (rng.uniform(0, 9, (159, 23))).astype(X_type)
    W = (rng.standard_normal((24, 103)) / 9).astype(W_type)
    y = rng.integers(0, 103, 159)
    y[5:9] = 999
    options = {
        "loss": loss,
        "intercept": True,
        "sample_weight": rng.uniform(0, 2, 159),
        "ignore_index": 999,
        "l2": 0.1,
    }
    for rows in (X, np.asfortranarray(X)):
        actual = fastloss.loss_and_grad(W, rows, y, backend=backend, **options)
        expected = fastloss.loss_and_grad(W, rows, y, backend="numpy", **options)
        assert_close(actual, expected, W_type)
    objective = fastloss.Objective(X, y, backend=backend, **options)
    np.testing.assert_allclose(objective.loss(W), objective(W)[0], rtol=1e-12)


@pytest.mark.parametrize("dtype", [SINGLE, DOUBLE], ids=str)
@pytest.mark.parametrize(
    "shape",
    # Odd numbers of features, one strip of rows and several, partial pieces.
    [(1, 1, 97), (31, 2, 98), (32, 31, 130), (33, 257, 257), (70, 600, 97), (1100, 12, 300)],
)
@pytest.mark.parametrize("intercept", [False, True])
def test_wide_shapes(shape, intercept, dtype):
    n_rows, n_features, n_classes = shape
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n_rows, n_features)).astype(dtype)
    W = rng.standard_normal((n_features + intercept, n_classes)).astype(dtype)
    call = W / n_features**0.5, X, rng.integers(0, n_classes, n_rows)
    actual = fastloss.loss_and_grad(*call, intercept=intercept, backend="fused")
    assert_close(actual, fastloss.loss_and_grad(*call, intercept=intercept, backend="numpy"), dtype)


@pytest.mark.parametrize("X_type", [np.float32, np.uint8])
@pytest.mark.parametrize("shape", [(600, 785, 10), (400, 70, 23), (300, 5, 2), (70, 2100, 3)])
def test_next_rows_change_no_bits(shape, X_type):
    n_rows, n_features, n_classes = shape
    rng = np.random.default_rng(0)
    X = rng.integers(0, 9, (n_rows, n_features)).astype(X_type)
    W = rng.standard_normal((n_features, n_classes)).astype(np.float32) / 99
    y = rng.integers(0, n_classes, n_rows)
    y[::7] = 999
    n = n_rows // 2
    estimate = fastloss.Objective(X, y, ignore_index=999, backend="fused").minibatch(n)
    order = rng.permutation(n_rows)
    loss, dW = estimate(order[:n], W)
    # A hint of any length, and of numbers out of range: a prefetch cannot fault.
    for next_rows in (order[n:], order[:3], np.append(order, order), [-1, 10**9], np.empty(0)):
        actual = estimate(order[:n], W, next_rows)
        assert actual[0] == loss
        assert actual[1].tobytes() == dW.tobytes()


def test_helper_waits_for_the_next_call_in_compiled_code():
    memory = {"calls": 5, "threads": 0}
    waited = []

    def fetch_add(address):
        memory[address] += 1
        return memory[address] - 1

    def are_finished(address, n):
        waited.append((address, n))
        return len(waited) > 1

    names = {"fetch_add": fetch_add, "read_shared": memory.get, "are_finished": are_finished}
    begin, end = bind(enter, names), bind(leave, names)
    caller, helper = begin("calls", "threads"), begin("calls", "threads")
    assert (caller, helper, memory["calls"]) == (-1, 6, 6)
    assert end("calls", helper, True)
    assert waited == [("calls", 7), ("calls", 7)]  # until a next call begins
    assert end("calls", caller, True)
    assert memory["calls"] == 6
    assert not end("calls", caller, False)  # helpers have to report to the caller now
    assert memory["calls"] == 7
    assert len(waited) == 2  # the caller never waits


def test_batches_of_many_classes():
    """Rows are in any order, but the first and last of a strip are as in consecutive rows."""
    rng = np.random.default_rng(0)
    X, W = rng.standard_normal((200, 23)), rng.standard_normal((23, 103))
    y = rng.integers(0, 103, 200)
    strip = product_widths(DOUBLE)[0]
    rows = np.concatenate(
        [[0], rng.permutation(np.arange(1, strip - 1)), [strip - 1], rng.permutation(200)]
    )
    problem = Problem(X, y, fastloss.Softmax(), False, None, float(len(rows)), any_skipped=False)
    backend = FusedBackend(Limits(block_bytes=1000, block_rows=64))
    evaluate = backend.prepare_batches(problem, len(rows), 103, DOUBLE)
    dW = np.empty_like(W)
    actual = evaluate(rows, W, dW, 2), dW
    assert_close(actual, fastloss.loss_and_grad(W, X[rows], y[rows], backend="numpy"), np.float64)


def test_many_classes_same_bits_for_any_number_of_threads(backend_of):
    backend = backend_of(block_bytes=100_000)
    rng = np.random.default_rng(0)
    X, W = rng.standard_normal((900, 223)), rng.standard_normal((223, 283))
    objective = fastloss.Objective(X, rng.integers(0, 283, 900), backend=backend)
    results = []
    for n_threads in (1, 2, 3):
        with fastloss.use(n_threads=n_threads):
            results.append(objective(W))
    for loss, dW in results[1:]:
        assert loss == results[0][0]
        np.testing.assert_array_equal(dW, results[0][1])


@pytest.mark.parametrize("n_features", [3, 259])
def test_padding_of_a_strip_does_not_count(n_features):
    """With an excluded class, padded rows and features must not give 0 * -inf."""
    X, W = np.ones((5, n_features)), np.zeros((n_features, 100))
    W[:, 7] = -np.inf
    call = W, X, np.zeros(5, int)
    actual = fastloss.loss_and_grad(*call, backend="fused")
    assert_close(actual, fastloss.loss_and_grad(*call, backend="numpy"), np.float64)
    np.testing.assert_allclose(actual[0], np.log(99))


def test_gradient_without_rows_is_zero():
    X, W = np.ones((4, 3)), np.ones((4, 70))
    dW = np.full_like(W, 7.0)
    options = {"ignore_index": 99, "reduction": "sum", "intercept": True}
    loss, _ = fastloss.loss_and_grad(W, X, [99] * 4, backend="fused", out=dW, **options)
    assert loss == 0.0
    np.testing.assert_array_equal(dW, 0.0)


@pytest.mark.parametrize("n_rows", [1, 15, 16, 17])
@pytest.mark.parametrize("n_classes", [4, 104])
def test_few_rows(n_rows, n_classes):
    data = make_data(n_rows, 33, n_classes, np.float64, np.float64)
    actual = fastloss.loss_and_grad(data.W, data.X, data.y, backend="fused")
    assert_close(
        actual, fastloss.loss_and_grad(data.W, data.X, data.y, backend="numpy"), np.float64
    )


def test_wide_kernel_forms_no_whole_score_matrix():
    n_rows, n_classes = 2048, 8000
    X, W = np.ones((n_rows, 16), np.float32), np.zeros((16, n_classes), np.float32)
    objective = fastloss.Objective(X, np.zeros(n_rows, int), backend="fused")
    dW = np.empty_like(W)
    objective(W, out=dW)  # compiles
    tracemalloc.start()
    objective(W, out=dW)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < n_rows * n_classes * 4 / 4


# --- compiling ------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["softmax", "hinge"])
def test_one_kernel_for_all_layouts(loss):
    """C functions check no types, so each layout must arrive in one that they were compiled for."""
    problem = make_data(37, 17, 7)
    expected = fastloss.loss_and_grad(problem.W, problem.X, problem.y, loss, backend="numpy")
    compiled = []
    for (_, X), (_, W) in itertools.product(layouts(problem.X), layouts(problem.W)):
        call = W, X, problem.y, loss
        assert_close(fastloss.loss_and_grad(*call, backend="fused"), expected, np.float64)
        weighted = fastloss.loss_and_grad(
            *call, backend="fused", sample_weight=np.ones(37), out=np.empty((17, 7))
        )
        assert_close(weighted, expected, np.float64)
        compiled.append(narrow_kernel.cache_info().currsize)
    assert compiled[-1] == compiled[0]
    scores = np.ones((37, 14))[:, ::2]
    scores.flags.writeable = False
    fastloss.score_gradient(scores, problem.y, loss=loss, backend="fused")
    n_strips = strips_kernel.cache_info().currsize
    fastloss.score_gradient(np.ones((37, 7)), problem.y, loss=loss, backend="fused")
    assert strips_kernel.cache_info().currsize == n_strips


def raising_block(scores, labels, parameters, losses):
    if scores[0, 0] > 5:
        raise ValueError("too large")
    losses[:] = 0.0
    scores[:] = 0.0


@dataclass(frozen=True)
class Raising(fastloss.Softmax):
    """A loss whose block form raises at large scores."""

    name: ClassVar[str] = "raising"
    block = staticmethod(raising_block)


@pytest.mark.parametrize("n_classes", [3, 200])
def test_loss_that_raises_is_nan(n_classes):
    X, W, y = np.ones((5, 2)), np.ones((2, n_classes)), [0] * 5
    for factor, expected in ((1.0, 0.0), (9.0, np.nan)):
        loss, dW = fastloss.loss_and_grad(factor * W, X, y, Raising(), backend="fused")
        np.testing.assert_equal(loss, expected)
        np.testing.assert_array_equal(dW, np.full_like(W, expected))


def raising_template(number):
    if number > 0:
        raise ValueError("positive")
    return number == 0


def test_kernel_that_raises():
    from numba import boolean, int64

    make = native.native(lambda: kernel_name("raising", raising_template))
    kernel = make(lambda: (raising_template, boolean(int64)))()
    assert (kernel(0), kernel(-3)) == (1, 0)
    with pytest.raises(native.KernelError, match="out of memory"):
        kernel(1)


def test_losses_of_one_class_share_a_kernel():
    hinges = [loss for loss in LOSSES.values() if isinstance(loss, fastloss.Hinge)]
    assert len({loss_kernel(loss, DOUBLE).address for loss in hinges}) == 1 < len(hinges)

"""Test the functions on vectors, and their machine code on other CPUs."""

from __future__ import annotations

import threading

import numpy as np
import pytest

pytest.importorskip("numba")

from llvmlite import binding, ir
from numba import from_dtype, int64, njit

from fastloss.kernels import simd
from fastloss.kernels.rows import stored_type
from fastloss.kernels.simd.copies import emit_copy, half_to_single
from fastloss.kernels.simd.emitter import INT64, Emitter, instructions
from fastloss.kernels.simd.product import emit_product_tile
from fastloss.kernels.simd.tiles import emit_score_tile

TYPES = [np.dtype(np.float32), np.dtype(np.float64)]
each_type = pytest.mark.parametrize("dtype", TYPES, ids=str)
N_LANES = {dtype: simd.target().vector_bytes // dtype.itemsize for dtype in TYPES}


def aligned(shape: tuple[int, int], dtype: np.dtype) -> np.ndarray:
    buffer = np.zeros(np.prod(shape) * dtype.itemsize + 64, np.uint8)
    start = -buffer.ctypes.data % 64
    return buffer[start : start + np.prod(shape) * dtype.itemsize].view(dtype).reshape(shape)


def padded(n_features: int, dtype: np.dtype) -> int:
    return -(-n_features // N_LANES[dtype]) * N_LANES[dtype]


def rows_with_poison(n_rows: int, n_features: int, dtype: np.dtype):
    """Return unaligned rows with NaN on either side, and their addresses."""
    rng = np.random.default_rng(n_features)
    memory = np.full((n_rows, n_features + 2), np.nan, dtype)
    X = memory[:, 1:-1]
    X[...] = rng.standard_normal(X.shape)
    return X, X.ctypes.data + np.arange(n_rows) * X.strides[0]


@each_type
@pytest.mark.parametrize("n_classes", simd.TILE_CLASSES)
@pytest.mark.parametrize("n_features", [1, 7, 16, 33, 100])
def test_score_tile(n_features, n_classes, dtype):
    tile = simd.score_tile(from_dtype(dtype))

    @njit
    def call(rows, offset, n_vectors, n_left, W_T, stride, S, S_stride):
        tile(n_classes, rows, offset, n_vectors, n_left, W_T, stride, S, S_stride, rows)

    n_rows = simd.target().tile_rows
    X, rows = rows_with_poison(n_rows, n_features, dtype)
    W_T = aligned((n_classes, padded(n_features, dtype)), dtype)
    W_T[:, :n_features] = np.random.default_rng(1).standard_normal((n_classes, n_features))
    S = np.full((n_classes, n_rows + 1), 99, dtype)
    # All features in two slabs; the second one has the partial vector.
    n_whole, n_left = divmod(n_features, N_LANES[dtype])
    first = n_whole // 2
    vector_bytes = simd.target().vector_bytes
    for start, n_vectors, left in ((0, first, 0), (first, n_whole - first, n_left)):
        call(
            rows.ctypes.data,
            start * vector_bytes,
            n_vectors,
            left,
            W_T.ctypes.data + start * vector_bytes,
            W_T.strides[0],
            S.ctypes.data,
            S.strides[0],
        )
    expected = W_T[:, :n_features] @ X.T + 99
    np.testing.assert_allclose(S[:, :n_rows], expected, rtol=0, atol=1e3 * np.finfo(dtype).eps)
    np.testing.assert_array_equal(S[:, n_rows], 99)  # nothing beyond the tile


@each_type
@pytest.mark.parametrize(
    ("n_vectors", "n_missing"), [(1, 0), (1, 1), (simd.target().tile_vectors, 0)]
)
@pytest.mark.parametrize("n_classes", simd.TILE_CLASSES)
@pytest.mark.parametrize("n_rows", [0, 1, 6])
def test_gradient_tile(n_rows, n_classes, n_vectors, n_missing, dtype):
    tile = simd.gradient_tile(from_dtype(dtype), n_vectors)

    @njit
    def call(rows, n_rows, offset, n_lanes, G, G_stride, total, T_stride):
        tile(n_classes, rows, n_rows, offset, n_lanes, G, G_stride, total, T_stride, rows)

    width = n_vectors * N_LANES[dtype] - n_missing
    X, rows = rows_with_poison(n_rows, 3 + width, dtype)
    G = np.random.default_rng(1).standard_normal((n_classes, n_rows + 2)).astype(dtype)
    total = aligned((n_classes, (n_vectors + 1) * N_LANES[dtype]), dtype)
    total[...] = 1
    call(
        rows.ctypes.data,
        n_rows,
        3 * dtype.itemsize,
        N_LANES[dtype] - n_missing,
        G.ctypes.data,
        G.strides[0],
        total.ctypes.data,
        total.strides[0],
    )
    expected = 1 + G[:, :n_rows] @ X[:, 3:]
    np.testing.assert_allclose(total[:, :width], expected, atol=1e2 * np.finfo(dtype).eps)
    np.testing.assert_array_equal(total[:, width:], 1)


@pytest.mark.one_in(3)
@each_type
@pytest.mark.parametrize("is_new", [False, True])
@pytest.mark.parametrize("lacks", [(0, 0), (1, 0), (0, 1), (3, 3), (5, 0), (0, 0.5), (0, 0.6)])
@pytest.mark.parametrize("n_sums", [2, 1.0, 2.5])
def test_product_tile(n_sums, lacks, is_new, dtype):
    strip = simd.PRODUCT_VECTORS * N_LANES[dtype]
    all_rows = simd.target().product_rows
    # Fewer rows than all, or a single vector, take a smaller shape.
    shapes = [(all_rows, 2), (all_rows, 1)] if lacks[0] == 0 else [(all_rows, 2), (all_rows - 4, 2)]
    tile = simd.product_tile(from_dtype(dtype), shapes)
    lacks = lacks[0], int(lacks[1] * strip) if lacks[1] < 1 else lacks[1]

    @njit
    def call(A, A_stride, B, B_stride, n, out, out_stride, n_rows, n_lanes, is_new):
        args = A, A_stride, B, B_stride, n, out, out_stride, n_rows, n_lanes
        return tile(*args, is_new, A, B_stride, 3)

    n_sums = n_sums if isinstance(n_sums, int) else int(n_sums * strip) // 2 * 2
    n_blocks = -(-n_sums // strip)
    rng = np.random.default_rng(0)
    # Blocks of a strip of the columns; the NaN between them must not be read.
    A = aligned((n_blocks, (all_rows + 1) * strip), dtype).reshape(n_blocks, -1, strip)
    B = aligned((n_blocks, (strip + 1) * strip), dtype).reshape(n_blocks, -1, strip)
    A[...], B[...] = rng.standard_normal(A.shape), rng.standard_normal(B.shape)
    A[:, all_rows:], B[:, strip:] = np.nan, np.nan
    n_rows, n_lanes = all_rows - lacks[0], strip - lacks[1]
    A[:, n_rows:all_rows] = np.nan  # multiplied, but in no result
    B[0, 1, 2] = np.inf
    out = np.full((all_rows + 1, strip + 3), 99, dtype)
    strides = A.strides[0], B.strides[0]
    bad = call(
        *(A.ctypes.data, strides[0], B.ctypes.data, strides[1], n_sums),
        *(out.ctypes.data, out.strides[0], n_rows, n_lanes, is_new),
    )
    rows = A[:, :n_rows].transpose(1, 0, 2).reshape(n_rows, -1)[:, :n_sums]
    columns = B[:, :strip].reshape(-1, strip)[:n_sums, :n_lanes]
    expected = rows @ columns + (0 if is_new else 99)
    tolerance = 1e3 * np.finfo(dtype).eps
    np.testing.assert_allclose(out[:n_rows, :n_lanes], expected, rtol=0, atol=tolerance)
    np.testing.assert_array_equal(out[n_rows:], 99)
    np.testing.assert_array_equal(out[:, n_lanes:], 99)
    assert bad & 0b111 == (~(expected < np.inf)).any(axis=0)[:3] @ [1, 2, 4]


@each_type
@pytest.mark.parametrize("source", ["u1", "f2", "same"])
@pytest.mark.parametrize("n", [0, 1, 15, 16, 65])
def test_copy_vector(n, source, dtype):
    kind = dtype if source == "same" else np.dtype(source)
    copy = simd.copy_vector(from_dtype(stored_type(kind)), from_dtype(dtype))

    @njit
    def call(source, goal, n):
        copy(source, goal, n)

    values = (255 - np.arange(n + 1)).astype(kind)[1:]  # not aligned
    goal = np.full(n + 1, -1, dtype)
    call(values.ctypes.data, goal.ctypes.data, n)
    np.testing.assert_array_equal(goal[:n], values)
    assert goal[n] == -1


ALL_HALVES = np.arange(2**16, dtype=np.uint16).view(np.float16)


@each_type
def test_every_float16_is_converted_exactly(dtype):
    """Subnormal numbers, infinities and NaN too, one by one and in vectors."""
    source, number = from_dtype(np.dtype(np.int16)), from_dtype(dtype)
    copy, convert = simd.copy_vector(source, number), simd.convert_number(source, number)

    @njit
    def call(halves, by_vectors, one_by_one):
        copy(simd.address(halves), simd.address(by_vectors), halves.shape[0])
        for i in range(halves.shape[0]):
            one_by_one[i] = convert(halves[i])

    goals = np.empty((2, len(ALL_HALVES)), dtype)
    call(ALL_HALVES.view(np.int16), *goals)
    for goal in goals:
        np.testing.assert_array_equal(goal, ALL_HALVES.astype(dtype))
        np.testing.assert_array_equal(np.signbit(goal), np.signbit(ALL_HALVES))


@pytest.mark.parametrize("lanes", [0, 8])
def test_every_float16_is_converted_exactly_without_an_instruction(lanes):
    half, single = (
        ir.VectorType(kind, lanes) if lanes else kind for kind in (ir.IntType(16), ir.FloatType())
    )

    @instructions(int64, int64)
    def convert(context, builder, source, goal):
        value = builder.load(builder.inttoptr(source, half.as_pointer()), align=2)
        place = builder.inttoptr(goal, single.as_pointer())
        builder.store(half_to_single(builder, value), place, align=4)

    @njit
    def call(source, goal, n, step):
        for i in range(0, n, step):
            convert(source + 2 * i, goal + 4 * i)

    goal = np.empty(len(ALL_HALVES), np.float32)
    call(ALL_HALVES.ctypes.data, goal.ctypes.data, len(goal), max(1, lanes))
    np.testing.assert_array_equal(goal, ALL_HALVES.astype(np.float32))
    np.testing.assert_array_equal(np.signbit(goal), np.signbit(ALL_HALVES))


@each_type
@pytest.mark.parametrize("lacks", [(0, 0), (1, 0), (0, 3), (2, 1)], ids=str)
@pytest.mark.parametrize("n_squares", [(1, 1), (3, 2), (0, 1)], ids=str)
def test_transpose(n_squares, lacks, dtype):
    transpose = simd.transpose(from_dtype(dtype))

    @njit
    def call(source, source_stride, n_rows, n_columns, goal, goal_stride):
        transpose(source, source_stride, n_rows, n_columns, goal, goal_stride)

    lanes = N_LANES[dtype]
    n_rows, n_columns = (max(0, n * lanes - k) for n, k in zip(n_squares, lacks, strict=True))
    source = np.arange((n_rows + 1) * (n_columns + 3), dtype=dtype).reshape(n_rows + 1, -1)
    goal = np.full((n_columns + 1, n_rows + 2), -1, dtype)
    expected = goal.copy()
    expected[:n_columns, :n_rows] = source[:n_rows, :n_columns].T
    call(
        source.ctypes.data,
        source.strides[0],
        n_rows,
        n_columns,
        goal.ctypes.data,
        goal.strides[0],
    )
    np.testing.assert_array_equal(goal, expected)


# --- functions -----------------------------------------------------------------------------------


def errors_in_ulp(actual, exact, dtype):
    rounded = exact.astype(dtype)
    return np.abs(actual - exact) / np.spacing(np.abs(rounded)).astype(np.longdouble)


def apply(function, x):
    @njit
    def call(x, result):
        for i in range(x.shape[0]):
            result[i] = function(x[i])

    result = np.empty_like(x)
    call(x, result)
    return result


@each_type
def test_exp(dtype):
    largest = float(np.log(np.finfo(dtype).max))
    smallest = float(np.log(np.finfo(dtype).smallest_subnormal))
    x = np.random.default_rng(0).uniform(smallest, largest, 100_000).astype(dtype)
    exact = np.exp(x.astype(np.longdouble))
    assert errors_in_ulp(apply(simd.exp, x), exact, dtype).max() < 1.0


@each_type
def test_exp_of_extreme_numbers(dtype):
    finfo = np.finfo(dtype)
    overflow = np.nextafter(dtype.type(np.log(finfo.max.astype(np.longdouble))), dtype.type(2e3))
    x = np.array([-np.inf, np.inf, np.nan, 0, -0.0, -1e5, 1e5, overflow, finfo.max, finfo.min])
    expected = [0, np.inf, np.nan, 1, 1, 0, np.inf, np.inf, np.inf, 0]
    np.testing.assert_array_equal(apply(simd.exp, x.astype(dtype)), np.array(expected, dtype))
    # Below the normal range the result loses digits, not its value.
    subnormal = np.log(finfo.tiny.astype(np.float64)) - np.arange(1, 8)
    actual = apply(simd.exp, subnormal.astype(dtype))
    expected = np.exp(subnormal.astype(dtype).astype(np.longdouble)).astype(dtype)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=finfo.smallest_subnormal)
    assert actual.min() > 0


def test_log1p():
    rng = np.random.default_rng(0)
    x = np.concatenate([10 ** rng.uniform(-320, 308, 100_000), rng.uniform(0, 10, 100_000)])
    exact = np.log1p(x.astype(np.longdouble))
    assert errors_in_ulp(apply(simd.log1p, x), exact, np.float64).max() < 1.0
    ends = np.array([0.0, np.inf, np.nan, 5e-324, 1e-17])
    expected = [0.0, np.inf, np.nan, 5e-324, 1e-17]
    np.testing.assert_array_equal(apply(simd.log1p, ends), expected)


def test_fetch_add_counts_every_call():
    @njit(nogil=True)
    def call(counter, taken):
        for _ in range(10_000):
            taken[simd.fetch_add(simd.address(counter))] += 1

    counter, taken = np.zeros(1, np.int64), np.zeros(40_000, np.int64)
    call(counter, taken)  # compiles
    workers = [threading.Thread(target=call, args=(counter, taken)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert counter[0] == 40_000
    np.testing.assert_array_equal(taken, 1)


# --- other machines ------------------------------------------------------------------------------

ON_CPU = """
import platform
import numpy as np
import fastloss
from fastloss.kernels import simd
from fastloss.kernels.narrow import narrow_kernel
from fastloss.kernels.simd.entry import ObjectLibrary
from fastloss.kernels.wide import vectors_kernel

emit, kernels, single = ObjectLibrary.emit, [], np.dtype("f4")
ObjectLibrary.emit = lambda library: (emit(library), kernels.append(library))[0]
narrow_kernel(single, single), vectors_kernel(single, single)
ObjectLibrary.emit = emit

rng = np.random.default_rng(0)
for X_type, W_type, C in {problems}:
    X, y = (9 * rng.standard_normal((300, 77))).astype(X_type), rng.integers(0, C, 300)
    W = rng.standard_normal((78, C)).astype(W_type) / 99
    ours = fastloss.loss_and_grad(W, X, y, backend="fused", intercept=True)
    theirs = fastloss.loss_and_grad(W, X, y, backend="numpy", intercept=True)
    np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-5)
    np.testing.assert_allclose(ours[1], theirs[1], atol=1e-5 * np.abs(theirs[1]).max())
for library in kernels:
    assembly = library.get_asm_str()
    fused = [line for line in assembly.splitlines() if "fmadd" in line and "ps" in line]
    registers = {{r for r in ("xmm", "ymm", "zmm") for line in fused if r in line}}
    print(simd.target().vector_bytes, sorted(registers))
"""


@pytest.mark.skipif(not binding.get_process_triple().startswith("x86_64"), reason="x86-64 only")
@pytest.mark.parametrize(
    ("cpu", "features", "expected"),
    [
        pytest.param("haswell", "+avx2,+fma", "32 ['ymm']", id="AVX2"),
        pytest.param("nehalem", "+sse4.2", "16 []", id="SSE", marks=pytest.mark.deep),
    ],
)
@pytest.mark.parametrize(
    "problems",
    [
        [("f4", "f4", 7), ("f4", "f4", 107)],
        pytest.param([("f8", "f8", 7), ("u1", "f4", 7)], marks=pytest.mark.deep),
        pytest.param([("f2", "f4", 7), ("f2", "f8", 107)], marks=pytest.mark.deep),
    ],
    ids=["f4", "f8 and u1", "f2"],
)
def test_older_cpus_get_narrower_vectors(cpu, features, expected, problems, tmp_path, run_python):
    """SSE has no fused multiply-add; the code must multiply and add, not call a library."""
    environment = {"NUMBA_CPU_NAME": cpu, "NUMBA_CPU_FEATURES": features}
    environment["NUMBA_CACHE_DIR"] = str(tmp_path)
    if cpu == "haswell" and "+avx2" not in simd.features():
        pytest.skip("this CPU cannot run AVX2")
    assert (
        run_python(ON_CPU.format(problems=problems), **environment) == f"{expected}\n{expected}\n"
    )


def test_this_cpu_gets_its_widest_vectors():
    if "+avx512f" in simd.features():
        assert simd.target() == simd.Target(64, 32)
    elif "+avx" in simd.features():
        assert simd.target() == simd.Target(32, 16)


ARM = simd.Target(16, 32)


def arm_assembly(emit, kinds) -> str:
    """Compile a tile for 64-bit ARM and return its assembly."""
    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()
    try:
        arm = binding.Target.from_triple("aarch64-unknown-linux-gnu")
    except RuntimeError as error:
        pytest.skip(f"this LLVM cannot compile for ARM: {error}")
    module = ir.Module()
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), kinds), "tile")
    builder = ir.IRBuilder(function.append_basic_block())
    emit(Emitter(builder, ir.FloatType(), ARM.vector_bytes), *function.args)
    builder.ret_void()
    parsed = binding.parse_assembly(str(module))
    return arm.create_target_machine(opt=3).emit_assembly(parsed)


def test_arm_uses_fused_multiply_add_and_converts_float16():
    scores = arm_assembly(
        lambda emitter, *arguments: emit_score_tile(emitter, False, ARM.tile_rows, 5, *arguments),
        [INT64] * 9,
    )
    assert scores.count("fmla\tv") >= 5 * 4
    product = arm_assembly(
        lambda emitter, *arguments: emit_product_tile(emitter, [(ARM.product_rows, 2)], *arguments),
        [*[INT64] * 9, ir.IntType(1), *[INT64] * 3],
    )
    assert product.count("fmla\tv") >= 2 * 12 * simd.PRODUCT_VECTORS
    copies = arm_assembly(
        lambda emitter, *arguments: emit_copy(emitter, ir.IntType(16), *arguments), [INT64] * 3
    )
    assert "fcvtl\tv" in copies

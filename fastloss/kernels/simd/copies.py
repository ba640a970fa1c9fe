"""Copy numbers with vectors: converted to another type, or transposed."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import int64

from fastloss.kernels.simd.emitter import INT32, INT64, Emitter, emitter, instructions
from fastloss.kernels.simd.target import converts_halves


def copy_vector(source: Any, number: Any) -> Any:
    """Return ``copy(source, target, n)``, which copies and converts ``n`` contiguous numbers.

    A ``source`` of int16 holds the bits of float16, for which Numba has no type on CPUs.
    """

    @instructions(int64, int64, int64)
    def copy(context: Any, builder: Any, *values: ir.Value) -> None:
        emit_copy(emitter(context, builder, number), context.get_value_type(source), *values)

    return copy


def convert_number(source: Any, number: Any) -> Any:
    """Return ``convert(value)``, which converts a single number as `copy_vector` does."""

    @instructions(source, result=number)
    def convert(context: Any, builder: Any, value: ir.Value) -> ir.Value:
        return _converted(emitter(context, builder, number), value)

    return convert


def emit_copy(e: Emitter, kind: ir.Type, source: ir.Value, goal: ir.Value, n: ir.Value) -> None:
    b = e.builder
    size = kind.width // 8 if isinstance(kind, ir.IntType) else e.itemsize

    def vector(i: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
        address = b.add(source, b.mul(i, INT64(e.lanes * size)))
        value = b.load(e.at(address, 0, ir.VectorType(kind, e.lanes)), align=size)
        e.store(_converted(e, value), b.add(goal, b.mul(i, INT64(e.vector_bytes))))
        return []

    def scalar(i: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
        i = b.add(i, copied)
        value = b.load(e.at(b.add(source, b.mul(i, INT64(size))), 0, kind), align=size)
        place = e.at(b.add(goal, b.mul(i, INT64(e.itemsize))), 0, e.element)
        b.store(_converted(e, value), place)
        return []

    n_vectors = b.sdiv(n, INT64(e.lanes))
    copied = b.mul(n_vectors, INT64(e.lanes))
    e.loop(n_vectors, [], vector)
    e.loop(b.sub(n, copied), [], scalar)


def _converted(e: Emitter, value: ir.Value) -> ir.Value:
    """Return a number or a vector in the element type; integers are uint8 or bits of float16."""
    b = e.builder
    kind = value.type.element if isinstance(value.type, ir.VectorType) else value.type
    if not isinstance(kind, ir.IntType):
        return value
    if kind.width == 8:
        return b.uitofp(value, _like(value, e.element))
    singles = _like(value, ir.FloatType())
    if converts_halves():
        single = b.fpext(b.bitcast(value, _like(value, ir.HalfType())), singles)
    else:
        single = half_to_single(b, value)
    return single if e.itemsize == 4 else b.fpext(single, _like(value, e.element))


def half_to_single(b: ir.IRBuilder, half: ir.Value) -> ir.Value:
    """Convert bits of float16 without an instruction for it, where LLVM would call a library.

    Below infinity, the shifted bits are the number times 2**-112, also for subnormal numbers.
    """
    integers, singles = _like(half, INT32), _like(half, ir.FloatType())

    def constant(number: float, kind: ir.Type = integers) -> ir.Value:
        return kind([number] * kind.count if isinstance(kind, ir.VectorType) else number)

    bits = b.zext(half, integers)
    sign = b.shl(b.and_(bits, constant(0x8000)), constant(16))
    size = b.shl(b.and_(bits, constant(0x7FFF)), constant(13))
    scaled = b.fmul(b.bitcast(size, singles), constant(2.0**112, singles))
    number = b.select(
        b.icmp_unsigned("<", size, constant(0x7C00 << 13)),
        b.bitcast(scaled, integers),
        b.or_(size, constant(0x7F800000)),
    )
    return b.bitcast(b.or_(number, sign), singles)


def _like(value: ir.Value, kind: ir.Type) -> ir.Type:
    """Return ``kind``, or a vector of it if ``value`` is a vector."""
    return ir.VectorType(kind, value.type.count) if isinstance(value.type, ir.VectorType) else kind


def transpose(number: Any) -> Any:
    """Return ``transpose(source, source_stride, n_rows, n_columns, goal, goal_stride)``.

    It computes ``goal[:] = source.T`` for matrices at two addresses, with strides of rows in bytes.
    It touches no other memory.
    """

    @instructions(*[int64] * 6)
    def transpose(context: Any, builder: Any, *values: ir.Value) -> None:
        builder.call(_transpose_function(context, builder.module, number), values)

    return transpose


def _transpose_function(context: Any, module: ir.Module, number: Any) -> ir.Function:
    """Return the module's transpose function; inlined at each call, it would compile for long."""
    name = f"transpose_{number}"
    if name in module.globals:
        return module.globals[name]
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [INT64] * 6), name)
    function.linkage = "internal"
    builder = ir.IRBuilder(function.append_basic_block())
    e = emitter(context, builder, number)
    source, source_stride, n_rows, n_columns, goal, goal_stride = function.args
    lanes = INT64(e.lanes)

    def strip(i: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
        r = builder.mul(i, lanes)

        def tile(j: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
            c = builder.mul(j, lanes)
            _emit_transpose(
                e,
                e.element_at(source, source_stride, r, c),
                source_stride,
                e.element_at(goal, goal_stride, c, r),
                goal_stride,
                builder.sub(n_rows, r),
                builder.sub(n_columns, c),
            )
            return []

        return e.loop(e.n_steps(n_columns), [], tile)

    e.loop(e.n_steps(n_rows), [], strip)
    builder.ret_void()
    return function


def _emit_transpose(
    e: Emitter,
    source: ir.Value,
    source_stride: ir.Value,
    goal: ir.Value,
    goal_stride: ir.Value,
    n_rows: ir.Value,
    n_columns: ir.Value,
) -> None:
    """Transpose a square with at most as many rows and columns as a vector has lanes."""
    b = e.builder
    row_mask, column_mask = e.first_lanes(n_rows), e.first_lanes(n_columns)
    rows = []
    for k in range(e.lanes):
        mask = b.select(b.icmp_signed("<", INT64(k), n_rows), column_mask, column_mask.type(None))
        rows.append(e.load_masked(b.add(source, b.mul(source_stride, INT64(k))), mask))
    size = 1
    # Swap the off-diagonal blocks of 1, 2, 4, ... lanes.
    while size < e.lanes:
        kind = ir.VectorType(INT32, e.lanes)
        blocks = [lane // size for lane in range(e.lanes)]
        upper = [k if blocks[k] % 2 == 0 else k - size + e.lanes for k in range(e.lanes)]
        lower = [k + size if blocks[k] % 2 == 0 else k + e.lanes for k in range(e.lanes)]
        for i in range(e.lanes):
            if i & size == 0:
                pair = rows[i], rows[i + size]
                rows[i] = b.shuffle_vector(*pair, kind(upper))
                rows[i + size] = b.shuffle_vector(*pair, kind(lower))
        size *= 2
    for k, row in enumerate(rows):
        with b.if_then(b.icmp_signed("<", INT64(k), n_columns)):
            e.store_masked(row, b.add(goal, b.mul(goal_stride, INT64(k))), row_mask)

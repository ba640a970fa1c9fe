"""The matrix unit of a CPU with Intel AMX: float32 products out of bfloat16 parts.

The unit multiplies bfloat16, sixteen times as many a cycle as vectors have float32, and adds up in
float32. A bfloat16 has 8 significant bits and the range of float32, whose 24 bits are those of
three::

    x = x0 + x1 + x2      x0 = x rounded to 8 bits, x1 = x - x0 rounded, x2 the rest: exact
    x w = x0 w0 + (x0 w1 + x1 w0) + (x0 w2 + x1 w1 + x2 w0)

What is left out is below ``2**-24 |x w|``, what one rounding may cost. A ``uint8`` is its own first
part. (G. Henry, P.T.P. Tang and A. Heinecke, *Leveraging the bfloat16 Artificial Intelligence
Datatype For Higher-Precision Computations*, ARITH 2019.)

The unit takes what is below the normal range for 0, and infinity times a part that is 0 is NaN. So
the functions that split and scale say how large numbers are; see `wide_amx.is_in_range`.

A tile register holds 16 rows of 64 bytes. A block is two of them for each part, one after the
other: 32 rows or columns, of 32 terms of a sum. Terms k and k + 16 share an item of four bytes::

    left factor    (part, half, row, item)        right factor    (part, half, item, column)

As in `simd`, whose `Emitter` writes these, functions take addresses, and are called from compiled
code only.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from llvmlite import ir
from numba import boolean, int64
from numba.core import cgutils

from fastloss.kernels.matrix_unit import is_allowed
from fastloss.kernels.simd.emitter import INT32, INT64, Emitter, instructions
from fastloss.kernels.simd.target import features

INT8 = ir.IntType(8)
#: Rows and columns that a product has, and terms that a block has of its sums.
BLOCK = 32
TILE_BYTES = 1024
#: Of a block, for each part.
PART_BYTES = 2 * TILE_BYTES
MOST_PARTS = 3
PREFETCHED_LINES = 12
# Of the left and the right factor, the largest product last, and no two without a common part.
_PAIRS = ((0, 2), (0, 1), (1, 1), (1, 0), (2, 0), (0, 0))
# The registers 0 to 3 hold the sums.
_LEFT, _RIGHT = 4, 6
_ROWS, _LANES = 16, 16


def is_usable() -> bool:
    """Return whether there is a matrix unit for which Numba compiles, and the system allows it."""
    return {"+avx512f", "+amx-tile", "+amx-bf16"} <= features() and is_allowed()


@instructions()
def configure(context: Any, builder: Any) -> None:
    """Give this thread its eight tile registers, until `release`."""
    # Palette 1, eight reserved fields; bytes of a row, then rows, of each register.
    numbers = [1] + [0] * 15 + [64, 0] * 8 + [0] * 16 + [_ROWS] * 8 + [0] * 8
    place = cgutils.global_constant(builder, "tiles", ir.ArrayType(INT8, 64)(numbers))
    _emitter(builder).intrinsic("llvm.x86.ldtilecfg", ir.VoidType(), [place])


@instructions()
def release(context: Any, builder: Any) -> None:
    """Give the tile registers back: a thread without has less to be saved when it is stopped."""
    _emitter(builder).intrinsic("llvm.x86.tilerelease", ir.VoidType(), [])


def matrix_tile(left_parts: int, right_parts: int) -> Any:
    """Compiled ``tile(A, ..., B, ..., n, out, ..., n_rows, n_lanes, is_new, next, ..., next_out)``.

    ``out[:n_rows, :n_lanes] += A @ B``, or ``=`` if ``is_new``, of up to `BLOCK` rows and columns.
    A and B are ``n`` blocks each; they, ``out`` and ``next`` are followed by strides in bytes.
    What comes next is prefetched: some lines from ``next`` on for each block, and ``next_out``.
    """

    @instructions(*[int64] * 9, boolean, *[int64] * 3)
    def tile(context: Any, builder: Any, *values: ir.Value) -> None:
        _emit_matrix_tile(_emitter(builder), left_parts, right_parts, *values)

    return tile


def _emit_matrix_tile(
    e: Emitter,
    left_parts: int,
    right_parts: int,
    A: ir.Value,
    A_stride: ir.Value,
    B: ir.Value,
    B_stride: ir.Value,
    n: ir.Value,
    out: ir.Value,
    out_stride: ir.Value,
    n_rows: ir.Value,
    n_lanes: ir.Value,
    is_new: ir.Value,
    next_: ir.Value,
    next_stride: ir.Value,
    next_out: ir.Value,
) -> None:
    b = e.builder
    pairs = [(i, j) for i, j in _PAIRS if i < left_parts and j < right_parts]
    halves = [(i, j) for i in range(2) for j in range(2)]

    def operate(name: str, register: int, *arguments: ir.Value) -> None:
        e.intrinsic(f"llvm.x86.{name}", ir.VoidType(), [INT8(register), *arguments])

    def load_half(register: int, block: ir.Value, part: int, half: int) -> None:
        place = e.at(block, part * PART_BYTES + half * TILE_BYTES, INT8)
        operate("tileloadd64", register + half, place, INT64(64))

    def sums_at(start: ir.Value, stride: ir.Value, name: str) -> None:
        for i, j in halves:
            place = b.add(start, b.mul(stride, INT64(i * _ROWS)))
            operate(name, 2 * i + j, e.at(place, j * 64, INT8), stride)

    sums = cgutils.alloca_once(b, ir.ArrayType(e.vector, 2 * BLOCK))
    sums.align = 64
    start, row_bytes = b.ptrtoint(sums, INT64), INT64(2 * e.vector_bytes)

    def add_block(k: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
        blocks = b.add(A, b.mul(k, A_stride)), b.add(B, b.mul(k, B_stride))
        for line in range(PREFETCHED_LINES):
            e.prefetch(b.add(next_, b.mul(k, next_stride)), INT64(line))
        for i in range(2):
            row = b.and_(b.add(b.mul(k, INT64(2)), INT64(i)), INT64(BLOCK - 1))
            for line in range(2):
                e.prefetch(b.add(next_out, b.mul(out_stride, row)), INT64(line))
        for before, pair in pairwise([(-1, -1), *pairs]):
            for i, j in halves:
                # Loaded when it is first needed, so that multiplying begins at once.
                if j == 0 and pair[0] != before[0]:
                    load_half(_LEFT, blocks[0], pair[0], i)
                if i == 0 and pair[1] != before[1]:
                    load_half(_RIGHT, blocks[1], pair[1], j)
                operate("tdpbf16ps", 2 * i + j, INT8(_LEFT + i), INT8(_RIGHT + j))
        # Nobody reads it. But after 0.6 us without a store the next one, of a sum, takes 0.25 us.
        operate("tilestored64", _LEFT, e.at(start, 0, INT8), INT64(64))
        return []

    is_whole = b.and_(
        b.icmp_signed(">=", n_rows, INT64(BLOCK)), b.icmp_signed(">=", n_lanes, INT64(BLOCK))
    )
    # From 0, not from what is in out: a sum over so many rows that it takes many calls rounds less.
    for register in range(4):
        operate("tilezero", register)
    e.loop(n, [], add_block)
    with b.if_else(b.and_(is_whole, is_new)) as (direct, added):
        with direct:
            sums_at(out, out_stride, "tilestored64")
        with added:
            sums_at(start, row_bytes, "tilestored64")
            masks = [e.first_lanes(b.sub(n_lanes, INT64(v * e.lanes))) for v in range(2)]

            def add_row(i: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
                for v, mask in enumerate(masks):
                    offset = INT64(v * e.vector_bytes)
                    place = b.add(b.add(out, b.mul(out_stride, i)), offset)
                    old = e.load_masked(place, b.select(is_new, mask.type(None), mask))
                    total = e.load(b.add(b.add(start, b.mul(row_bytes, i)), offset))
                    e.store_masked(b.fadd(old, total), place, mask)
                return []

            n_here = b.select(b.icmp_signed("<", n_rows, INT64(BLOCK)), n_rows, INT64(BLOCK))
            e.loop(n_here, [], add_row)


def split_block(n_parts: int, is_left: bool) -> Any:
    """Compiled ``split(source, goal)``: a block of a left or right factor out of its numbers.

    These lie together, in `BLOCK` rows and columns. What a sum runs over are the columns of a left
    factor, and the rows of a right one. Returns the largest, as `wide_amx.is_in_range` takes it.
    """

    @instructions(int64, int64, result=int64)
    def split(context: Any, builder: Any, source: ir.Value, goal: ir.Value) -> ir.Value:
        return _emit_split(_emitter(builder), n_parts, is_left, source, goal)

    return split


def _emit_split(
    e: Emitter, n_parts: int, is_left: bool, source: ir.Value, goal: ir.Value
) -> ir.Value:
    b = e.builder
    integers = ir.VectorType(INT32, e.lanes)
    high = e.splat(INT32(0xFFFF0000))

    def first_part(rest: ir.Value, part: int) -> ir.Value:
        bits = b.bitcast(rest, integers)
        if part < 2:
            # To nearest; half a unit goes away from 0.
            bits = b.add(bits, e.splat(INT32(0x8000)))
        # What is left of two parts is the third, but for what is below the normal range.
        return b.and_(bits, high)

    def split_rows(k: ir.Value, carried: list[ir.Value]) -> list[ir.Value]:
        (most,) = carried
        row = b.add(source, b.mul(k, INT64(2 * e.vector_bytes)))
        place = b.add(goal, b.mul(k, INT64(e.vector_bytes)))
        for half in range(2):
            # Of the left factor rows k and k + 16, whose terms are side by side; of the right one
            # both halves of the columns, whose terms are 16 rows apart.
            sides = [(half, 0), (half, 1)] if is_left else [(0, half), (1, half)]
            offsets = [i * _ROWS * 2 * e.vector_bytes + j * e.vector_bytes for i, j in sides]
            rests = [e.load(row, offset) for offset in offsets]
            for rest in rests:
                most = _larger(e, most, rest)
            for part in range(n_parts):
                bits = [first_part(rest, part) for rest in rests]
                items = b.or_(b.lshr(bits[0], e.splat(INT32(16))), bits[1])
                e.store(b.bitcast(items, e.vector), place, part * PART_BYTES + half * TILE_BYTES)
                rests = [
                    b.fsub(r, b.bitcast(taken, e.vector))
                    for r, taken in zip(rests, bits, strict=True)
                ]
        return [most]

    (most,) = e.loop(INT64(_ROWS), [integers([0] * e.lanes)], split_rows)
    return _largest(e, most)


def turn_blocks(n_parts: int) -> Any:
    """Compiled ``turn(source, goal, n)``: ``n`` blocks of a left factor as those of a right one.

    Of the same numbers: the rows of the one have the terms of the other.
    """

    @instructions(int64, int64, int64)
    def turn(context: Any, builder: Any, source: ir.Value, goal: ir.Value, n: ir.Value) -> None:
        _emit_turn(_emitter(builder), n_parts, source, goal, n)

    return turn


def _emit_turn(e: Emitter, n_parts: int, source: ir.Value, goal: ir.Value, n: ir.Value) -> None:
    b = e.builder
    integers = ir.VectorType(INT32, e.lanes)
    high, low, shift = (e.splat(INT32(k)) for k in (0xFFFF0000, 0xFFFF, 16))

    def turn_part(part: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
        offset = b.mul(part, INT64(PART_BYTES))
        for k in range(_ROWS):
            place = k * e.vector_bytes
            first, second = (
                b.bitcast(e.load(b.add(source, offset), place + half), integers)
                for half in (0, TILE_BYTES)
            )
            turned = (
                b.or_(b.and_(first, low), b.shl(second, shift)),
                b.or_(b.lshr(first, shift), b.and_(second, high)),
            )
            for half, items in zip((0, TILE_BYTES), turned, strict=True):
                e.store(b.bitcast(items, e.vector), b.add(goal, offset), place + half)
        return []

    e.loop(b.mul(n, INT64(n_parts)), [], turn_part)


@instructions(int64, int64, int64, int64, result=int64)
def scale_strip(
    context: Any,
    builder: Any,
    strip: ir.Value,
    n_rows: ir.Value,
    factors: ir.Value,
    n_lanes: ir.Value,
) -> ir.Value:
    """Multiply ``n_rows`` of `BLOCK` numbers by as many factors, in place; beyond ``n_lanes`` 0.

    Returns the largest product, as `wide_amx.is_in_range` takes it.
    """
    e, b = _emitter(builder), builder
    offsets = [v * e.vector_bytes for v in range(BLOCK // e.lanes)]
    scales = [e.load(factors, offset) for offset in offsets]
    masks = [e.first_lanes(b.sub(n_lanes, INT64(v * e.lanes))) for v in range(len(offsets))]

    def scale_row(k: ir.Value, carried: list[ir.Value]) -> list[ir.Value]:
        (most,) = carried
        row = b.add(strip, b.mul(k, INT64(4 * BLOCK)))
        for offset, factor, mask in zip(offsets, scales, masks, strict=True):
            product = b.select(mask, b.fmul(e.load(row, offset), factor), e.zero)
            e.store(product, row, offset)
            most = _larger(e, most, product)
        return [most]

    nothing = ir.VectorType(INT32, e.lanes)([0] * e.lanes)
    return _largest(e, e.loop(n_rows, [nothing], scale_row)[0])


def _larger(e: Emitter, most: ir.Value, numbers: ir.Value) -> ir.Value:
    """By the bits without the sign: these are ordered as the numbers are, NaN above infinity."""
    bits = e.builder.and_(e.builder.bitcast(numbers, most.type), e.splat(INT32(0x7FFFFFFF)))
    return e.intrinsic(f"llvm.umax.v{e.lanes}i32", most.type, [most, bits])


def _largest(e: Emitter, most: ir.Value) -> ir.Value:
    name = f"llvm.vector.reduce.umax.v{e.lanes}i32"
    return e.builder.zext(e.intrinsic(name, INT32, [most]), INT64)


def _emitter(builder: ir.IRBuilder) -> Emitter:
    return Emitter(builder, ir.FloatType(), 4 * _LANES)

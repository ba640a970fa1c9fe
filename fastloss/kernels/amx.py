"""Multiply float32 matrices from bfloat16 parts, on the matrix unit of a CPU with Intel AMX.

The unit multiplies sixteen times as many bfloat16 a cycle as vectors multiply float32, and sums in
float32. A bfloat16 has 8 significant bits and the range of float32. Three of them hold the 24 bits
of a float32::

    x = x0 + x1 + x2      x0 = x rounded to 8 bits, x1 = x - x0 rounded, x2 the rest: exact
    x w = x0 w0 + (x0 w1 + x1 w0) + (x0 w2 + x1 w1 + x2 w0)

The omitted terms are below ``2**-24 |x w|``, the error of one rounding. A ``uint8`` is its own
first part, and two parts hold the 11 bits of a ``float16``. (G. Henry, P.T.P. Tang and A. Heinecke,
*Leveraging the bfloat16 Artificial Intelligence Datatype For Higher-Precision Computations*, ARITH
2019.)

The unit treats numbers below the normal range as 0, and infinity times a part of 0 is NaN. The
functions that split and scale therefore return the largest number; see `wide_amx.is_in_range`.

A tile register holds 16 rows of 64 bytes. A block has two tiles for each part, one after the other:
32 rows or columns, with 32 terms of a sum. Terms k and k + 16 share an item of four bytes::

    left factor    (part, half, row, item)        right factor    (part, half, item, column)

As in `simd`, functions take addresses and are called from compiled code only.
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
#: Rows and columns of a product, and terms of its sums in a block.
BLOCK = 32
TILE_BYTES = 1024
#: Bytes of one part of a block.
PART_BYTES = 2 * TILE_BYTES
MOST_PARTS = 3
PREFETCHED_LINES = 12
# Parts of the left and the right factor. The largest product comes last, and successive pairs share
# a part, which is then not loaded again.
_PAIRS = ((0, 2), (0, 1), (1, 1), (1, 0), (2, 0), (0, 0))
# The registers 0 to 3 hold the sums.
_LEFT, _RIGHT = 4, 6
_ROWS, _LANES = 16, 16


def is_usable() -> bool:
    """Return whether Numba compiles for a matrix unit and the system allows its use."""
    return {"+avx512f", "+amx-tile", "+amx-bf16"} <= features() and is_allowed()


@instructions()
def configure(context: Any, builder: Any) -> None:
    """Configure this thread's eight tile registers, until `release`."""
    # Palette 1, reserved fields; bytes of a row, then rows, of each register.
    numbers = [1] + [0] * 15 + [64, 0] * 8 + [0] * 16 + [_ROWS] * 8 + [0] * 8
    place = cgutils.global_constant(builder, "tiles", ir.ArrayType(INT8, 64)(numbers))
    _emitter(builder).intrinsic("llvm.x86.ldtilecfg", ir.VoidType(), [place])


@instructions()
def release(context: Any, builder: Any) -> None:
    """Release the tile registers, which makes context switches of this thread cheaper."""
    _emitter(builder).intrinsic("llvm.x86.tilerelease", ir.VoidType(), [])


def matrix_tile(left_parts: int, right_parts: int) -> Any:
    """Return ``tile(A, ..., B, ..., n, out, ..., n_rows, n_lanes, is_new, next, ..., next_out)``.

    It computes ``out[:n_rows, :n_lanes] += A @ B``, or ``=`` if ``is_new``, for up to `BLOCK` rows
    and columns. A and B have ``n`` blocks each. A stride in bytes follows each of ``A``, ``B``,
    ``out`` and ``next``. The tile prefetches ``next_out``, and some lines from ``next`` for each
    block.
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
                # Loaded at first use, so that multiplying begins at once.
                if j == 0 and pair[0] != before[0]:
                    load_half(_LEFT, blocks[0], pair[0], i)
                if i == 0 and pair[1] != before[1]:
                    load_half(_RIGHT, blocks[1], pair[1], j)
                operate("tdpbf16ps", 2 * i + j, INT8(_LEFT + i), INT8(_RIGHT + j))
        # Dummy store: after 0.6 us without a store, the store of a sum would stall for 0.25 us.
        operate("tilestored64", _LEFT, e.at(start, 0, INT8), INT64(64))
        return []

    is_whole = b.and_(
        b.icmp_signed(">=", n_rows, INT64(BLOCK)), b.icmp_signed(">=", n_lanes, INT64(BLOCK))
    )
    # Sums start from 0 and not from `out`: a sum over many calls then has less rounding error.
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
    """Return ``split(source, goal)``, which writes a block of a left or right factor.

    The numbers at ``source`` are contiguous, in `BLOCK` rows and columns. Sums run over the columns
    of a left factor, and over the rows of a right one. ``split`` returns the largest number, for
    `wide_amx.is_in_range`.
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
            # Round to nearest, ties away from 0.
            bits = b.add(bits, e.splat(INT32(0x8000)))
        # The third part is the exact rest, except below the normal range.
        return b.and_(bits, high)

    def split_rows(k: ir.Value, carried: list[ir.Value]) -> list[ir.Value]:
        (most,) = carried
        row = b.add(source, b.mul(k, INT64(2 * e.vector_bytes)))
        place = b.add(goal, b.mul(k, INT64(e.vector_bytes)))
        for half in range(2):
            # Terms k and k + 16 are in one row of a left factor, and 16 rows apart in a right one.
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
    """Return ``turn(source, goal, n)``, which turns ``n`` blocks of a left factor into right ones.

    The numbers stay the same; the rows of the left factor become the terms of the right one.
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
    """Multiply ``n_rows`` rows of `BLOCK` numbers by `BLOCK` factors, in place.

    Lanes from ``n_lanes`` on become 0. Return the largest product, for `wide_amx.is_in_range`.
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
    """Return the larger numbers by their bits without the sign, which puts NaN above infinity."""
    bits = e.builder.and_(e.builder.bitcast(numbers, most.type), e.splat(INT32(0x7FFFFFFF)))
    return e.intrinsic(f"llvm.umax.v{e.lanes}i32", most.type, [most, bits])


def _largest(e: Emitter, most: ir.Value) -> ir.Value:
    name = f"llvm.vector.reduce.umax.v{e.lanes}i32"
    return e.builder.zext(e.intrinsic(name, INT32, [most]), INT64)


def _emitter(builder: ir.IRBuilder) -> Emitter:
    return Emitter(builder, ir.FloatType(), 4 * _LANES)

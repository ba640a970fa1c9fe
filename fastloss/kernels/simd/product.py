"""Emit the tiles of the wide kernel: products of strips, a few rows by one or two vectors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

from llvmlite import ir
from numba import boolean, int64
from numba.core import cgutils

from fastloss.kernels.simd.emitter import CACHE_LINE, INT64, Emitter, emitter, instructions

#: Most vectors in a row of a product tile.
PRODUCT_VECTORS = 2


def product_tile(number: Any, shapes: Sequence[tuple[int, int]]) -> Any:
    """Return ``tile(A, ..., B, ..., n, out, ..., n_rows, n_lanes, is_new, next, ..., n_lines)``.

    It computes ``out[:n_rows, :n_lanes] += A @ B``, or ``=`` if ``is_new``. ``shapes`` are rows and
    vectors, from the largest, (`Target.product_rows`, `PRODUCT_VECTORS`), to the smallest; the tile
    has the smallest shape that holds the result. Sums have ``n`` terms, an even number, and take a
    strip of terms at a time: the numbers of `PRODUCT_VECTORS` vectors. Each strip has a block of
    ``A`` (rows, strip) and one of ``B`` (strip, strip), aligned. For each strip, ``n_lines`` cache
    lines from ``next`` on are prefetched. A stride in bytes follows each of ``A``, ``B``, ``out``
    and ``next``. The tile returns a bit for each lane, which is set if a result in it is NaN or
    +inf.
    """

    @instructions(*[int64] * 9, boolean, int64, int64, int64, result=int64)
    def tile(context: Any, builder: Any, *values: ir.Value) -> ir.Value:
        return emit_product_tile(emitter(context, builder, number), shapes, *values)

    return tile


def emit_product_tile(
    e: Emitter, shapes: Sequence[tuple[int, int]], *arguments: ir.Value
) -> ir.Value:
    b = e.builder
    n_rows, n_lanes = arguments[7:9]
    bad_lanes = cgutils.alloca_once_value(b, INT64(0))

    def emit_smallest(shapes: Sequence[tuple[int, int]]) -> None:
        *larger, shape = shapes
        if not larger:
            _emit_shape(e, *shape, True, bad_lanes, *arguments)
            return
        fits = b.and_(
            b.icmp_signed("<=", n_rows, INT64(shape[0])),
            b.icmp_signed("<=", n_lanes, INT64(shape[1] * e.lanes)),
        )
        with b.if_else(fits) as (small, large):
            with small:
                _emit_shape(e, *shape, False, bad_lanes, *arguments)
            with large:
                emit_smallest(larger)

    emit_smallest(shapes)
    return b.load(bad_lanes)


def _emit_shape(
    e: Emitter,
    all_rows: int,
    n_vectors: int,
    is_often_whole: bool,
    bad_lanes: ir.Value,
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
    n_lines: ir.Value,
) -> None:
    b = e.builder
    strip = PRODUCT_VECTORS * e.lanes
    strip_bytes = strip * e.itemsize

    def add_two(a: ir.Value, x: ir.Value, k: ir.Value, sums: list[ir.Value]) -> list[ir.Value]:
        # Two steps at a time need no more registers, and halve the overhead of the loop.
        a = b.add(a, b.mul(k, INT64(2 * e.itemsize)))
        x = b.add(x, b.mul(k, INT64(2 * strip_bytes)))
        for u in range(2):
            places = [u * strip_bytes + v * e.vector_bytes for v in range(n_vectors)]
            row = [e.load(x, place, aligned=True) for place in places]
            before, sums = iter(sums), []
            for i in range(all_rows):
                # Loaded one by one, because there are no registers for all.
                factor = e.splat(e.load_scalar(a, i * strip_bytes + u * e.itemsize))
                sums += [e.multiply_add(factor, vector, next(before)) for vector in row]
        return sums

    def add_block(k: ir.Value, sums: list[ir.Value]) -> list[ir.Value]:
        # Prefetch two rows of the result a block: a core tracks only about a dozen lines in flight.
        for i in range(2):
            row = b.add(b.mul(k, INT64(2)), INT64(i))
            row = b.select(b.icmp_signed("<", row, INT64(all_rows)), row, INT64(0))
            for line in range(strip_bytes // CACHE_LINE):
                e.prefetch(b.add(out, b.mul(out_stride, row)), INT64(line))
        ahead = b.add(next_, b.mul(k, next_stride))

        def prefetch(line: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
            e.prefetch(ahead, line)
            return []

        e.loop(n_lines, [], prefetch)
        a = b.add(A, b.mul(k, A_stride))
        x = b.add(B, b.mul(k, B_stride))
        n_left = b.sub(n, b.mul(k, INT64(strip)))
        count = b.select(b.icmp_signed("<", n_left, INT64(strip)), n_left, INT64(strip))
        return e.loop(b.sdiv(count, INT64(2)), sums, partial(add_two, a, x))

    n_blocks = b.sdiv(b.add(n, INT64(strip - 1)), INT64(strip))
    sums = e.loop(n_blocks, [e.zero] * (all_rows * n_vectors), add_block)
    places = [
        (i, v, b.add(out, b.add(b.mul(out_stride, INT64(i)), INT64(v * e.vector_bytes))))
        for i in range(all_rows)
        for v in range(n_vectors)
    ]

    def mark(total: ir.Value, v: int) -> None:
        bits = b.fcmp_unordered(">=", total, e.vector([math.inf] * e.lanes))
        lanes = b.zext(b.bitcast(bits, ir.IntType(e.lanes)), INT64)
        lanes = b.shl(lanes, INT64(v * e.lanes))
        b.store(b.or_(b.load(bad_lanes), lanes), bad_lanes)

    def store_part() -> None:
        masks = [e.first_lanes(b.sub(n_lanes, INT64(v * e.lanes))) for v in range(n_vectors)]
        old = [b.select(is_new, mask.type(None), mask) for mask in masks]
        for (i, v, place), total in zip(places, sums, strict=True):
            with b.if_then(b.icmp_signed("<", INT64(i), n_rows)):
                total = b.fadd(e.load_masked(place, old[v]), total)
                e.store_masked(total, place, masks[v])
                mark(total, v)

    # Code for whole tiles takes time to compile.
    if not is_often_whole:
        store_part()
        return
    is_whole = b.and_(
        b.icmp_signed(">=", n_rows, INT64(all_rows)),
        b.icmp_signed(">=", n_lanes, INT64(n_vectors * e.lanes)),
    )
    with b.if_else(is_whole) as (whole, part):
        with whole, b.if_else(is_new) as (first, following):
            with first:
                for (_, v, place), total in zip(places, sums, strict=True):
                    e.store(total, place)
                    mark(total, v)
            with following:
                for (_, v, place), total in zip(places, sums, strict=True):
                    total = b.fadd(e.load(place), total)
                    e.store(total, place)
                    mark(total, v)
        with part:
            store_part()

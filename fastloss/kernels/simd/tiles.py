"""Emit the tiles of the narrow kernel: products of a few rows and classes, summed in registers."""

from __future__ import annotations

from functools import partial
from typing import Any

from llvmlite import ir
from numba import int64

from fastloss.kernels.simd.emitter import CACHE_LINE, INT64, Emitter, emitter, instructions
from fastloss.kernels.simd.target import target

#: Numbers of classes of a tile; their sums are all numbers from 2 on.
TILE_CLASSES = (2, 3, 5)


def score_tile(number: Any, prefetches_rows: bool = False) -> Any:
    """Return ``tile(n_classes, rows, offset, n_vectors, n_left, W_T, ..., S, ..., next)``.

    It computes ``S[c, r] += X[r] @ W_T[c]`` for `Target.tile_rows` rows and ``n_classes`` classes,
    over ``n_vectors`` vectors of features and the ``n_left`` numbers after them. The features start
    ``offset`` bytes after each of the addresses that ``rows`` points at. ``W_T`` is aligned and
    padded with zeros. A stride in bytes follows each of ``W_T`` and ``S``. The tile prefetches a
    cache line from ``next`` on for each vector of features; or, if it ``prefetches_rows``, the
    lines ``next`` bytes after the features that it reads.
    """

    @instructions(*[int64] * 10)
    def tile(context: Any, builder: Any, n_classes: ir.Value, *others: ir.Value) -> None:
        e = emitter(context, builder, number)
        for n in TILE_CLASSES:
            with builder.if_then(builder.icmp_signed("==", n_classes, INT64(n))):
                emit_score_tile(e, prefetches_rows, target().tile_rows, n, *others)

    return tile


def emit_score_tile(
    e: Emitter,
    prefetches_rows: bool,
    n_rows: int,
    n_classes: int,
    rows: ir.Value,
    offset: ir.Value,
    n_vectors: ir.Value,
    n_left: ir.Value,
    W_T: ir.Value,
    W_stride: ir.Value,
    S: ir.Value,
    S_stride: ir.Value,
    next_: ir.Value,
) -> None:
    b = e.builder
    x = [b.add(b.load(e.at(rows, 8 * r, INT64)), offset) for r in range(n_rows)]
    w = [b.add(W_T, b.mul(W_stride, INT64(c))) for c in range(n_classes)]
    mask = e.first_lanes(n_left)

    def add_products(masked: bool, i: ir.Value, sums: list[ir.Value]) -> list[ir.Value]:
        place = b.mul(b.add(i, n_vectors) if masked else i, INT64(e.vector_bytes))
        if prefetches_rows:
            for row in x:
                e.prefetch(b.add(b.add(row, place), next_), INT64(0))
        else:
            e.prefetch(next_, i)
        features = [
            e.load_masked(b.add(row, place), mask) if masked else e.load(b.add(row, place))
            for row in x
        ]
        weights = [e.load(b.add(row, place), aligned=True) for row in w]
        pairs = [(f, v) for v in weights for f in features]
        return [e.multiply_add(f, v, total) for (f, v), total in zip(pairs, sums, strict=True)]

    sums = e.loop(n_vectors, [e.zero] * (n_rows * n_classes), partial(add_products, False))
    is_left = b.zext(b.icmp_signed(">", n_left, INT64(0)), INT64)
    totals = e.sums(e.loop(is_left, sums, partial(add_products, True)))
    for c in range(n_classes):
        # At most the rows whose totals are in one vector.
        step = min(n_rows, e.lanes)
        row = b.add(S, b.mul(S_stride, INT64(c)))
        for r in range(0, n_rows, step):
            k = c * n_rows + r
            place = e.at(row, r * e.itemsize, ir.VectorType(e.element, step))
            old = b.load(place, align=e.itemsize)
            b.store(
                b.fadd(old, e.part(totals[k // e.lanes], k % e.lanes, step)),
                place,
                align=e.itemsize,
            )


def gradient_tile(number: Any, n_vectors: int, prefetches_rows: bool = False) -> Any:
    """Return ``tile(n_classes, rows, n_rows, offset, n_lanes, G, ..., total, ..., next)``.

    It computes ``total[c] += sum_r G[c, r] X[r]`` for ``n_classes`` classes and ``n_vectors``
    vectors of features; of a single vector, it takes ``n_lanes`` lanes. The features start
    ``offset`` bytes after each of the addresses that ``rows`` points at. ``total`` is aligned and
    padded. A stride in bytes follows each of ``G`` and ``total``. The tile prefetches a cache line
    from ``next`` on for each row; or, if it ``prefetches_rows``, the lines ``next`` bytes after the
    features that it reads.
    """

    @instructions(*[int64] * 10)
    def tile(context: Any, builder: Any, n_classes: ir.Value, *others: ir.Value) -> None:
        e = emitter(context, builder, number)
        for n in TILE_CLASSES:
            with builder.if_then(builder.icmp_signed("==", n_classes, INT64(n))):
                emit_gradient_tile(e, prefetches_rows, n_vectors, n, *others)

    return tile


def emit_gradient_tile(
    e: Emitter,
    prefetches_rows: bool,
    n_vectors: int,
    n_classes: int,
    rows: ir.Value,
    n_rows: ir.Value,
    offset: ir.Value,
    n_lanes: ir.Value,
    G: ir.Value,
    G_stride: ir.Value,
    total: ir.Value,
    T_stride: ir.Value,
    next_: ir.Value,
) -> None:
    b = e.builder
    goals = [b.add(total, b.mul(T_stride, INT64(c))) for c in range(n_classes)]
    places = [(goal, v * e.vector_bytes) for goal in goals for v in range(n_vectors)]
    mask = e.first_lanes(n_lanes)
    g = [b.add(G, b.mul(G_stride, INT64(c))) for c in range(n_classes)]

    def add_row(r: ir.Value, sums: list[ir.Value]) -> list[ir.Value]:
        row = b.add(b.load(e.at(b.add(rows, b.mul(r, INT64(8))), 0, INT64)), offset)
        if prefetches_rows:
            for line in range(-(-n_vectors * e.vector_bytes // CACHE_LINE)):
                e.prefetch(b.add(row, next_), INT64(line))
        else:
            e.prefetch(next_, r)
        if n_vectors == 1:
            x = [e.load_masked(row, mask)]
        else:
            x = [e.load(row, v * e.vector_bytes) for v in range(n_vectors)]
        factors = [e.splat(e.load_scalar(b.add(c, b.mul(r, INT64(e.itemsize))))) for c in g]
        pairs = [(v, factor) for factor in factors for v in x]
        return [e.multiply_add(v, f, old) for (v, f), old in zip(pairs, sums, strict=True)]

    # Sums start from 0 and not from the total: adding a block's rows to each other first has less
    # rounding error.
    sums = e.loop(n_rows, [e.zero] * len(places), add_row)
    for value, place in zip(sums, places, strict=True):
        e.store(b.fadd(e.load(*place, aligned=True), value), *place, aligned=True)

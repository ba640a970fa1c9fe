"""Explicit vectors for compiled kernels: two matrix tiles, a vector copy, ``exp``, an atomic add.

Left to itself LLVM vectorises a matrix product along one loop and keeps few sums in registers.
Here the tiles are written as LLVM instructions on whole vectors, once for every element type and
vector width; `Target` says how wide the vectors of the compiling machine are and how many
registers hold them. The functions of this module are called from compiled code only, and take
addresses (int64) because LLVM does not know of arrays::

    score_tile     scores[c, r] += sum_d X[r, d] W.T[c, d]      sums run along d
    gradient_tile  partial[c, d] += sum_r G[c, r] X[r, d]       sums run along r

``X`` is read where it is, each row through its own address, unaligned. What is left of a row that
is no whole vector is read with a mask, so that nothing beyond the row is touched. Both tiles ask
for memory that is needed later (prefetch): reading the next rows while these are multiplied is what
brings a call near one read of ``X``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

from llvmlite import binding, ir
from numba import boolean, config, float64, int64, types, void
from numba.core import cgutils
from numba.core.codegen import get_host_cpu_features
from numba.extending import intrinsic

INT32, INT64 = ir.IntType(32), ir.IntType(64)
BYTES = ir.IntType(8).as_pointer()
CACHE_LINE = 64

#: Classes a tile may have. A problem is cut into tiles of one width, 10 classes into two of 5; more
#: widths would fit more problems exactly, and take longer to compile.
TILE_CLASSES = (3, 5)
#: Vectors a row of a product tile has.
PRODUCT_VECTORS = 2
#: So many cache lines of what is needed next are prefetched for each block.
PREFETCHED_LINES = 4


@dataclass(frozen=True)
class Target:
    """The vectors of the machine that code is compiled for."""

    vector_bytes: int
    n_registers: int

    @property
    def tile_rows(self) -> int:
        """Rows of a score tile: with 5 classes, 20 or 10 sums and what feeds them."""
        return 4 if self.n_registers >= 32 else 2

    @property
    def tile_vectors(self) -> int:
        """Vectors of features of a gradient tile, likewise."""
        return 4 if self.n_registers >= 32 else 2

    @property
    def product_rows(self) -> int:
        """Rows of a product tile: with `PRODUCT_VECTORS` each, 24 or 12 sums."""
        return 12 if self.n_registers >= 32 else 6


@cache
def target() -> Target:
    """Of the CPU that Numba compiles for: this one, or what ``NUMBA_CPU_FEATURES`` says.

    ``NUMBA_CPU_NAME`` alone leaves Numba with the features of this one.
    """
    if binding.get_process_triple().startswith(("aarch64", "arm64")):
        return Target(16, 32)
    features = get_host_cpu_features() if config.CPU_FEATURES is None else config.CPU_FEATURES
    if "+avx512f" in features:
        return Target(64, 32)
    return Target(32 if "+avx" in features else 16, 16)


class Emitter:
    """Instructions on vectors of one element type."""

    def __init__(self, builder: ir.IRBuilder, element: ir.Type, vector_bytes: int) -> None:
        self.builder = builder
        self.element = element
        self.itemsize = 4 if element == ir.FloatType() else 8
        self.lanes = vector_bytes // self.itemsize
        self.vector_bytes = vector_bytes
        self.vector = ir.VectorType(element, self.lanes)
        self.zero = self.vector([0.0] * self.lanes)
        self.suffix = f"v{self.lanes}f{8 * self.itemsize}"

    def intrinsic(self, name: str, result: ir.Type, arguments: list[ir.Value]) -> ir.Value:
        """Call an LLVM intrinsic."""
        kind = ir.FunctionType(result, [argument.type for argument in arguments])
        function = self.builder.module.globals.get(name) or ir.Function(
            self.builder.module, kind, name
        )
        return self.builder.call(function, arguments)

    def at(self, address: ir.Value, offset: int, kind: ir.Type) -> ir.Value:
        """A pointer to ``kind`` at ``address + offset`` bytes."""
        return self.builder.inttoptr(
            self.builder.add(address, INT64(offset)) if offset else address, kind.as_pointer()
        )

    def load(self, address: ir.Value, offset: int = 0, aligned: bool = False) -> ir.Value:
        align = self.vector_bytes if aligned else self.itemsize
        return self.builder.load(self.at(address, offset, self.vector), align=align)

    def store(
        self, value: ir.Value, address: ir.Value, offset: int = 0, aligned: bool = False
    ) -> None:
        align = self.vector_bytes if aligned else self.itemsize
        self.builder.store(value, self.at(address, offset, value.type), align=align)

    def first_lanes(self, n: ir.Value) -> ir.Value:
        """A mask of the first ``n`` lanes."""
        lanes = ir.VectorType(INT32, self.lanes)(list(range(self.lanes)))
        return self.builder.icmp_signed(
            "<", lanes, self.splat(self.builder.trunc(n, INT32), self.lanes)
        )

    def load_masked(self, address: ir.Value, mask: ir.Value) -> ir.Value:
        """The lanes of the mask, the others 0 and not touched."""
        arguments = [self.at(address, 0, self.vector), INT32(self.itemsize), mask, self.zero]
        return self.intrinsic(f"llvm.masked.load.{self.suffix}.p0", self.vector, arguments)

    def store_masked(self, value: ir.Value, address: ir.Value, mask: ir.Value) -> None:
        arguments = [value, self.at(address, 0, self.vector), INT32(self.itemsize), mask]
        self.intrinsic(f"llvm.masked.store.{self.suffix}.p0", ir.VoidType(), arguments)

    def element_at(
        self, matrix: ir.Value, stride: ir.Value, row: ir.Value, column: ir.Value
    ) -> ir.Value:
        """The address of an element of a matrix whose rows are strides apart."""
        offset = self.builder.mul(column, INT64(self.itemsize))
        return self.builder.add(self.builder.add(matrix, self.builder.mul(stride, row)), offset)

    def n_steps(self, n: ir.Value) -> ir.Value:
        """Vectors that ``n`` numbers fill or begin."""
        return self.builder.sdiv(self.builder.add(n, INT64(self.lanes - 1)), INT64(self.lanes))

    def load_scalar(self, address: ir.Value, offset: int = 0) -> ir.Value:
        return self.builder.load(self.at(address, offset, self.element))

    def splat(self, scalar: ir.Value, lanes: int = 0) -> ir.Value:
        lanes = lanes or self.lanes
        kind = ir.VectorType(scalar.type, lanes)
        single = self.builder.insert_element(kind(ir.Undefined), scalar, INT32(0))
        zeros = ir.VectorType(INT32, lanes)([0] * lanes)
        return self.builder.shuffle_vector(single, kind(ir.Undefined), zeros)

    def multiply_add(self, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
        """``a * b + c``, fused where the machine can."""
        is_vector = isinstance(a.type, ir.VectorType)
        suffix = self.suffix if is_vector else f"f{8 * self.itemsize}"
        return self.intrinsic(f"llvm.fmuladd.{suffix}", a.type, [a, b, c])

    def prefetch(self, address: ir.Value, line: ir.Value) -> None:
        """Bring a cache line to L2: for reading, locality 2, data."""
        offset = self.builder.mul(line, INT64(CACHE_LINE))
        pointer = self.builder.inttoptr(self.builder.add(address, offset), BYTES)
        hints = [INT32(0), INT32(2), INT32(1)]
        self.intrinsic("llvm.prefetch.p0", ir.VoidType(), [pointer, *hints])

    def sums(self, vectors: list[ir.Value]) -> list[ir.Value]:
        """The sum of the lanes of each vector, packed: lane k of the first result is of vector k.

        Neighbours are added and packed together, so the work halves at each step: a fifth of the
        instructions of one reduction a vector, which tells where rows are short.
        """
        kind = ir.VectorType(INT32, self.lanes)
        even, odd = kind(list(range(0, 2 * self.lanes, 2))), kind(list(range(1, 2 * self.lanes, 2)))
        for _ in range(int(math.log2(self.lanes))):
            pairs = zip(vectors[::2], [*vectors[1::2], *vectors[-1:]], strict=False)
            vectors = [
                self.builder.fadd(
                    self.builder.shuffle_vector(a, b, even), self.builder.shuffle_vector(a, b, odd)
                )
                for a, b in pairs
            ]
        return vectors

    def part(self, vector: ir.Value, first: int, n: int) -> ir.Value:
        """``n`` lanes of a vector."""
        lanes = ir.VectorType(INT32, n)(list(range(first, first + n)))
        return self.builder.shuffle_vector(vector, vector.type(ir.Undefined), lanes)

    def loop(
        self,
        count: ir.Value,
        carried: list[ir.Value],
        body: Callable[[ir.Value, list[ir.Value]], list[ir.Value]],
    ) -> list[ir.Value]:
        """``for i in range(count): carried = body(i, carried)``."""
        builder = self.builder
        before = builder.block
        head, inside, after = (builder.append_basic_block(n) for n in ("head", "body", "after"))
        builder.branch(head)
        builder.position_at_end(head)
        index = builder.phi(INT64)
        values = [builder.phi(value.type) for value in carried]
        builder.cbranch(builder.icmp_signed("<", index, count), inside, after)
        builder.position_at_end(inside)
        results = body(index, values)
        following = builder.add(index, INT64(1))
        builder.branch(head)
        for phi, first, next_ in zip(
            [index, *values], [INT64(0), *carried], [following, *results], strict=True
        ):
            phi.add_incoming(first, before)
            phi.add_incoming(next_, builder.block)
        builder.position_at_end(after)
        return values


# --- tiles ---------------------------------------------------------------------------------------


def score_tile(number: Any) -> Any:
    """Compiled ``tile(n_classes, rows, offset, n_vectors, n_left, W_T, ..., S, ..., next)``.

    ``S[c, r] += X[r] @ W_T[c]`` for `Target.tile_rows` rows, ``n_classes`` and ``n_vectors``
    vectors of features and the ``n_left`` numbers after them. These lie ``offset`` bytes behind
    each of the addresses that ``rows`` points at. ``W_T`` is aligned and padded with zeros; it and
    ``S`` are followed by their strides in bytes. For each vector of features a cache line is
    prefetched, from ``next`` on.
    """

    @intrinsic  # type: ignore[untyped-decorator]
    def tile(
        typing_context: Any,
        n_classes: Any,
        rows: Any,
        offset: Any,
        n_vectors: Any,
        n_left: Any,
        W_T: Any,
        W_stride: Any,
        S: Any,
        S_stride: Any,
        next_: Any,
    ) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            e = _emitter(context, builder, number)
            _for_each_width(builder, arguments, partial(_emit_score_tile, e))
            return context.get_dummy_value()

        return void(*[int64] * 10), generate

    return tile


def _emit_score_tile(
    e: Emitter,
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
    n_rows = target().tile_rows
    x = [b.add(b.load(e.at(rows, 8 * r, INT64)), offset) for r in range(n_rows)]
    w = [b.add(W_T, b.mul(W_stride, INT64(c))) for c in range(n_classes)]
    mask = e.first_lanes(n_left)

    def add_products(masked: bool, i: ir.Value, sums: list[ir.Value]) -> list[ir.Value]:
        e.prefetch(next_, i)
        place = b.mul(b.add(i, n_vectors) if masked else i, INT64(e.vector_bytes))
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
        # As many rows at once as one vector of totals holds.
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


def gradient_tile(number: Any, n_vectors: int) -> Any:
    """Compiled ``tile(n_classes, rows, n_rows, offset, n_lanes, G, ..., total, ..., next)``.

    ``total[c] += sum_r G[c, r] X[r]`` for ``n_classes`` and ``n_vectors`` vectors of features; of a
    single vector ``n_lanes``. These lie ``offset`` bytes behind each of the addresses that ``rows``
    points at. ``G`` and ``total``, which is aligned and padded, are followed by their strides. For
    each row a cache line is prefetched, from ``next`` on.
    """

    @intrinsic  # type: ignore[untyped-decorator]
    def tile(
        typing_context: Any,
        n_classes: Any,
        rows: Any,
        n_rows: Any,
        offset: Any,
        n_lanes: Any,
        G: Any,
        G_stride: Any,
        total: Any,
        T_stride: Any,
        next_: Any,
    ) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            e = _emitter(context, builder, number)
            _for_each_width(builder, arguments, partial(_emit_gradient_tile, e, n_vectors))
            return context.get_dummy_value()

        return void(*[int64] * 10), generate

    return tile


def _emit_gradient_tile(
    e: Emitter,
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
        e.prefetch(next_, r)
        if n_vectors == 1:
            x = [e.load_masked(row, mask)]
        else:
            x = [e.load(row, v * e.vector_bytes) for v in range(n_vectors)]
        factors = [e.splat(e.load_scalar(b.add(c, b.mul(r, INT64(e.itemsize))))) for c in g]
        pairs = [(v, factor) for factor in factors for v in x]
        return [e.multiply_add(v, f, old) for (v, f), old in zip(pairs, sums, strict=True)]

    before = [e.load(*place, aligned=True) for place in places]
    for value, place in zip(e.loop(n_rows, before, add_row), places, strict=True):
        e.store(value, *place, aligned=True)


def product_tile(number: Any) -> Any:
    """Compiled ``tile(A, ..., B, ..., n, out, ..., n_rows, n_lanes, is_new, next, ...)``.

    ``out[:n_rows, :n_lanes] += A @ B``, or ``=`` if ``is_new``; sums run over ``n``, which is even,
    a strip at a time: as many numbers as `PRODUCT_VECTORS` have. ``A`` and ``B`` lie in blocks for
    each, so many bytes apart: of A (`Target.product_rows`, strip), of B (strip, strip), aligned.
    Returns which lanes have a number that is not below infinity, a bit for each.
    """

    @intrinsic  # type: ignore[untyped-decorator]
    def tile(
        typing_context: Any,
        A: Any,
        A_stride: Any,
        B: Any,
        B_stride: Any,
        n: Any,
        out: Any,
        out_stride: Any,
        n_rows: Any,
        n_lanes: Any,
        is_new: Any,
        next_: Any,
        next_stride: Any,
    ) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return _emit_product_tile(_emitter(context, builder, number), *arguments)

        return int64(*[int64] * 9, boolean, int64, int64), generate

    return tile


def _emit_product_tile(
    e: Emitter,
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
) -> ir.Value:
    b = e.builder
    n_vectors, all_rows = PRODUCT_VECTORS, target().product_rows
    strip = n_vectors * e.lanes
    strip_bytes = strip * e.itemsize

    def add_two(a: ir.Value, x: ir.Value, k: ir.Value, sums: list[ir.Value]) -> list[ir.Value]:
        # Two steps at a time keep the registers as they are, and halve what a loop costs.
        a = b.add(a, b.mul(k, INT64(2 * e.itemsize)))
        x = b.add(x, b.mul(k, INT64(2 * strip_bytes)))
        for u in range(2):
            places = [u * strip_bytes + v * e.vector_bytes for v in range(n_vectors)]
            row = [e.load(x, place, aligned=True) for place in places]
            before, sums = iter(sums), []
            for i in range(all_rows):
                # Loaded here, not all at first: there are no registers for them.
                factor = e.splat(e.load_scalar(a, i * strip_bytes + u * e.itemsize))
                sums += [e.multiply_add(factor, vector, next(before)) for vector in row]
        return sums

    def add_block(k: ir.Value, sums: list[ir.Value]) -> list[ir.Value]:
        # Two rows of the result, a few at a time: there is room for some dozen lines on their way.
        for i in range(2):
            row = b.add(b.mul(k, INT64(2)), INT64(i))
            row = b.select(b.icmp_signed("<", row, INT64(all_rows)), row, INT64(0))
            for line in range(strip_bytes // CACHE_LINE):
                e.prefetch(b.add(out, b.mul(out_stride, row)), INT64(line))
        for line in range(PREFETCHED_LINES):
            e.prefetch(b.add(next_, b.mul(k, next_stride)), INT64(line))
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
    is_whole = b.and_(
        b.icmp_signed(">=", n_rows, INT64(all_rows)), b.icmp_signed(">=", n_lanes, INT64(strip))
    )
    bad_lanes = cgutils.alloca_once_value(b, INT64(0))

    def mark(total: ir.Value, v: int) -> None:
        bits = b.fcmp_unordered(">=", total, e.vector([math.inf] * e.lanes))
        lanes = b.zext(b.bitcast(bits, ir.IntType(e.lanes)), INT64)
        lanes = b.shl(lanes, INT64(v * e.lanes))
        b.store(b.or_(b.load(bad_lanes), lanes), bad_lanes)

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
            masks = [e.first_lanes(b.sub(n_lanes, INT64(v * e.lanes))) for v in range(n_vectors)]
            old = [b.select(is_new, mask.type(None), mask) for mask in masks]
            for (i, v, place), total in zip(places, sums, strict=True):
                with b.if_then(b.icmp_signed("<", INT64(i), n_rows)):
                    total = b.fadd(e.load_masked(place, old[v]), total)
                    e.store_masked(total, place, masks[v])
                    mark(total, v)
    return b.load(bad_lanes)


def _for_each_width(
    builder: ir.IRBuilder, arguments: list[ir.Value], emit: Callable[..., None]
) -> None:
    """``emit(n, *others)`` for the first argument ``n``, which is one of `TILE_CLASSES`."""
    n_classes, *others = arguments
    for n in TILE_CLASSES:
        with builder.if_then(builder.icmp_signed("==", n_classes, INT64(n))):
            emit(n, *others)


def copy_vector(source: Any, number: Any) -> Any:
    """Compiled ``copy(source, target, n)``: ``n`` numbers that lie together, converted."""

    @intrinsic  # type: ignore[untyped-decorator]
    def copy(typing_context: Any, source_address: Any, target_address: Any, n: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            e = _emitter(context, builder, number)
            _emit_copy(e, context.get_value_type(source), *arguments)
            return context.get_dummy_value()

        return void(int64, int64, int64), generate

    return copy


def _emit_copy(e: Emitter, kind: ir.Type, source: ir.Value, goal: ir.Value, n: ir.Value) -> None:
    b = e.builder
    size = 1 if isinstance(kind, ir.IntType) else e.itemsize

    def convert(value: ir.Value, wanted: ir.Type) -> ir.Value:
        return b.uitofp(value, wanted) if size == 1 else value

    def vector(i: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
        address = b.add(source, b.mul(i, INT64(e.lanes * size)))
        value = b.load(e.at(address, 0, ir.VectorType(kind, e.lanes)), align=size)
        e.store(convert(value, e.vector), b.add(goal, b.mul(i, INT64(e.vector_bytes))))
        return []

    def scalar(i: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
        i = b.add(i, copied)
        value = b.load(e.at(b.add(source, b.mul(i, INT64(size))), 0, kind), align=size)
        place = e.at(b.add(goal, b.mul(i, INT64(e.itemsize))), 0, e.element)
        b.store(convert(value, e.element), place)
        return []

    n_vectors = b.sdiv(n, INT64(e.lanes))
    copied = b.mul(n_vectors, INT64(e.lanes))
    e.loop(n_vectors, [], vector)
    e.loop(b.sub(n, copied), [], scalar)


def transpose(number: Any) -> Any:
    """Compiled ``transpose(source, source_stride, n_rows, n_columns, goal, goal_stride)``.

    ``goal[:] = source.T`` of the matrices at two addresses, whose rows are strides apart in bytes.
    Nothing else is touched.
    """

    @intrinsic  # type: ignore[untyped-decorator]
    def transpose(
        typing_context: Any,
        source: Any,
        source_stride: Any,
        n_rows: Any,
        n_columns: Any,
        goal: Any,
        goal_stride: Any,
    ) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            builder.call(_transpose_function(context, builder.module, number), arguments)
            return context.get_dummy_value()

        return void(*[int64] * 6), generate

    return transpose


def _transpose_function(context: Any, module: ir.Module, number: Any) -> ir.Function:
    """The one of a module: so much code is not to be compiled for each call."""
    name = f"transpose_{number}"
    if name in module.globals:
        return module.globals[name]
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [INT64] * 6), name)
    function.linkage = "internal"
    builder = ir.IRBuilder(function.append_basic_block())
    e = _emitter(context, builder, number)
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
    """Of a square of up to as many rows and columns as a vector has lanes."""
    b = e.builder
    row_mask, column_mask = e.first_lanes(n_rows), e.first_lanes(n_columns)
    rows = []
    for k in range(e.lanes):
        mask = b.select(b.icmp_signed("<", INT64(k), n_rows), column_mask, column_mask.type(None))
        rows.append(e.load_masked(b.add(source, b.mul(source_stride, INT64(k))), mask))
    size = 1
    # Squares of blocks of 1, 2, 4, ... lanes: those off the diagonal change places.
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


def _emitter(context: Any, builder: ir.IRBuilder, number: Any) -> Emitter:
    return Emitter(builder, context.get_value_type(number), target().vector_bytes)


# --- elementary ----------------------------------------------------------------------------------


@intrinsic  # type: ignore[untyped-decorator]
def exp(typing_context: Any, x: Any) -> Any:
    """``e**x`` to 1 ulp, without a branch, so that a loop over it becomes vector instructions.

    ``x = n log 2 + r`` with ``|r| <= log(2) / 2``; ``e**r`` by its Taylor series, and ``2**n`` is
    put into the exponent in two halves, so that results below the normal range are right too.
    """
    number = x if x in (types.float32, types.float64) else float64

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value = context.cast(builder, arguments[0], signature.args[0], number)
        return _emit_exp(Emitter(builder, context.get_value_type(number), 64), value)

    return number(x), generate


def _emit_exp(e: Emitter, x: ir.Value) -> ir.Value:
    b, real = e.builder, e.element
    bits = ir.IntType(8 * e.itemsize)
    if e.itemsize == 4:
        # The leading part of log 2 has so few digits that n times it is exact.
        low, high, n_terms, mantissa, bias = -104.0, 89.0, 8, 23, 127
        ln2_high, ln2_low = 0.693359375, -2.12194440e-4
    else:
        low, high, n_terms, mantissa, bias = -746.0, 710.0, 14, 52, 1023
        ln2_high, ln2_low = 6.93147180369123816490e-01, 1.90821492927058770002e-10

    def clamp(value: ir.Value, order: str, bound: float) -> ir.Value:
        # Ordered: NaN is not beyond the bound, and stays.
        return b.select(b.fcmp_ordered(order, value, real(bound)), real(bound), value)

    x = clamp(clamp(x, "<", low), ">", high)
    n = e.intrinsic(f"llvm.rint.f{8 * e.itemsize}", real, [b.fmul(x, real(1 / math.log(2)))])
    r = e.multiply_add(n, real(-ln2_high), x)
    r = e.multiply_add(n, real(-ln2_low), r)
    series = real(1.0 / math.factorial(n_terms - 1))
    for k in range(n_terms - 2, -1, -1):
        series = e.multiply_add(series, r, real(1.0 / math.factorial(k)))
    # NaN has no integer; r carries it on.
    exponent = b.fptosi(b.select(b.fcmp_unordered("uno", n, n), real(0.0), n), bits)
    half = b.ashr(exponent, bits(1))
    for part in (half, b.sub(exponent, half)):
        power = b.shl(b.add(part, bits(bias)), bits(mantissa))
        series = b.fmul(series, b.bitcast(power, real))
    return series


@intrinsic  # type: ignore[untyped-decorator]
def log1p(typing_context: Any, x: Any) -> Any:
    """``log(1 + x)`` of a float64 ``x >= 0`` to 1 ulp, without a branch.

    ``u = 1 + x = 2**n (1 + f)`` with ``1 + f`` within a factor of the root of 2 of 1. The series of
    ``log(1 + f) = 2 atanh(s)``, ``s = f / (2 + f)``, is taken apart into ``f - f**2 / 2``, which is
    nearly exact, and the rest. What ``u`` lost by rounding adds its share ``lost / u`` (as in
    FreeBSD's ``s_log1p.c``, K.C. Ng, 1993).
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value = context.cast(builder, arguments[0], signature.args[0], float64)
        return _emit_log1p(Emitter(builder, ir.DoubleType(), 64), value)

    return float64(x), generate


def _emit_log1p(e: Emitter, x: ir.Value) -> ir.Value:
    b, real = e.builder, e.element
    one = real(1.0)
    u = b.fadd(one, x)
    bits = b.bitcast(u, INT64)
    # The exponent of u / sqrt(1/2), as integers: the mantissa wraps into the exponent.
    root = 0x3FE6A09E667F3BCD
    exponent = b.ashr(b.sub(bits, INT64(root)), INT64(52))
    f = b.fsub(b.bitcast(b.sub(bits, b.shl(exponent, INT64(52))), real), one)
    n = b.sitofp(exponent, real)
    # Either difference is exact where it is taken.
    is_below = b.fcmp_ordered("<", x, one)
    lost = b.select(is_below, b.fsub(x, b.fsub(u, one)), b.fsub(one, b.fsub(u, x)))
    s = b.fdiv(f, b.fadd(real(2.0), f))
    square = b.fmul(s, s)
    series = real(2.0 / 23)
    for k in range(21, 1, -2):
        series = e.multiply_add(series, square, real(2.0 / k))
    half_square = b.fmul(b.fmul(real(0.5), f), f)
    rest = b.fmul(s, e.multiply_add(series, square, half_square))
    # The leading part of log 2 has so few digits that n times it is exact.
    rest = b.fadd(rest, e.multiply_add(n, real(1.90821492927058770002e-10), b.fdiv(lost, u)))
    log_u = e.multiply_add(
        n, real(6.93147180369123816490e-01), b.fsub(f, b.fsub(half_square, rest))
    )
    return b.select(b.fcmp_ordered("==", x, real(math.inf)), x, log_u)


@intrinsic  # type: ignore[untyped-decorator]
def prefer_wide_vectors(typing_context: Any) -> Any:
    """Let LLVM vectorise the loops of this function with the widest vectors there are.

    On AVX-512 it prefers half of them, for the sake of a clock that other kernels here ask for
    anyway. Losses of many classes take 0.6 to 0.9 of the time.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        preference = f'"prefer-vector-width"="{8 * target().vector_bytes}"'
        # llvmlite's own method takes only what it knows, which is no attribute of a target.
        set.add(builder.function.attributes, preference)
        return context.get_dummy_value()

    return void(), generate


@intrinsic  # type: ignore[untyped-decorator]
def address(typing_context: Any, array: Any) -> Any:
    """Where an array begins: ``array.ctypes.data``, in a tenth of the time to compile."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        view = context.make_array(signature.args[0])(context, builder, arguments[0])
        return builder.ptrtoint(view.data, INT64)

    return int64(array), generate


@intrinsic  # type: ignore[untyped-decorator]
def fetch_add(typing_context: Any, address: Any) -> Any:
    """Add 1 to the int64 at an address, atomically; what it was before."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = builder.inttoptr(arguments[0], INT64.as_pointer())
        return builder.atomic_rmw("add", pointer, INT64(1), "seq_cst")

    return int64(int64), generate


@intrinsic  # type: ignore[untyped-decorator]
def raise_to(typing_context: Any, address: Any, value: Any) -> Any:
    """Make the int64 at an address at least ``value``, atomically."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = builder.inttoptr(arguments[0], INT64.as_pointer())
        builder.atomic_rmw("max", pointer, arguments[1], "seq_cst")
        return context.get_dummy_value()

    return void(int64, int64), generate


@intrinsic  # type: ignore[untyped-decorator]
def call(
    typing_context: Any,
    function: Any,
    scores: Any,
    n_classes: Any,
    n_rows: Any,
    labels: Any,
    parameters: Any,
    losses: Any,
) -> Any:
    """Call the compiled form of a loss at an address.

    So that the kernels need not be compiled again for each loss.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = ir.FunctionType(ir.VoidType(), [INT64] * 6)
        function, *others = arguments
        builder.call(builder.inttoptr(function, kind.as_pointer()), others)
        return context.get_dummy_value()

    return void(*[int64] * 7), generate


@intrinsic  # type: ignore[untyped-decorator]
def read_shared(typing_context: Any, address: Any) -> Any:
    """The int64 at an address that other threads write to, after a moment's pause."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if binding.get_process_triple().startswith(("x86", "i686")):
            pause = ir.FunctionType(ir.VoidType(), [])
            name = "llvm.x86.sse2.pause"
            module = builder.module
            builder.call(module.globals.get(name) or ir.Function(module, pause, name), [])
        pointer = builder.inttoptr(arguments[0], INT64.as_pointer())
        return builder.load_atomic(pointer, "acquire", 8)

    return int64(int64), generate

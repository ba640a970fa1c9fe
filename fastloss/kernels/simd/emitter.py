"""Emit LLVM instructions on vectors, and make functions for compiled code from them."""

from __future__ import annotations

import math
from collections.abc import Callable
from inspect import Parameter, Signature
from typing import Any

from llvmlite import ir
from numba import void
from numba.extending import intrinsic

from fastloss.kernels.simd.target import target

INT32, INT64 = ir.IntType(32), ir.IntType(64)
BYTES = ir.IntType(8).as_pointer()
CACHE_LINE = 64


def instructions(*kinds: Any, result: Any = void) -> Callable[[Callable[..., Any]], Any]:
    """Make a function for compiled code from ``emit(context, builder, *values)``.

    ``kinds`` are the types of its arguments. The function returns the value of ``emit``, unless
    ``result`` is void.
    """

    def decorate(emit: Callable[..., Any]) -> Any:
        def typing(typing_context: Any, *arguments: Any) -> Any:
            def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
                value = emit(context, builder, *values)
                return context.get_dummy_value() if result == void else value

            # Without a signature, Numba's error lists the arguments of the call.
            return (result(*kinds), generate) if len(arguments) == len(kinds) else None

        typing.__name__, typing.__doc__ = emit.__name__, emit.__doc__
        # Numba treats ``*arguments`` as one argument, a tuple.
        names = ["typing_context", *(f"argument_{i}" for i in range(len(kinds)))]
        typing.__signature__ = Signature(  # type: ignore[attr-defined]
            [Parameter(name, Parameter.POSITIONAL_OR_KEYWORD) for name in names]
        )
        return intrinsic(typing)

    return decorate


class Emitter:
    """Emitter of instructions on vectors of one element type."""

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
        """Return a pointer to ``kind`` at ``address + offset`` bytes."""
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
        """Return a mask of the first ``n`` lanes."""
        lanes = ir.VectorType(INT32, self.lanes)(list(range(self.lanes)))
        return self.builder.icmp_signed(
            "<", lanes, self.splat(self.builder.trunc(n, INT32), self.lanes)
        )

    def load_masked(self, address: ir.Value, mask: ir.Value) -> ir.Value:
        """Load the lanes of the mask; the others are 0, and their memory is not touched."""
        arguments = [self.at(address, 0, self.vector), INT32(self.itemsize), mask, self.zero]
        return self.intrinsic(f"llvm.masked.load.{self.suffix}.p0", self.vector, arguments)

    def store_masked(self, value: ir.Value, address: ir.Value, mask: ir.Value) -> None:
        arguments = [value, self.at(address, 0, self.vector), INT32(self.itemsize), mask]
        self.intrinsic(f"llvm.masked.store.{self.suffix}.p0", ir.VoidType(), arguments)

    def element_at(
        self, matrix: ir.Value, stride: ir.Value, row: ir.Value, column: ir.Value
    ) -> ir.Value:
        """Return the address of an element of a matrix; ``stride`` is in bytes."""
        offset = self.builder.mul(column, INT64(self.itemsize))
        return self.builder.add(self.builder.add(matrix, self.builder.mul(stride, row)), offset)

    def n_steps(self, n: ir.Value) -> ir.Value:
        """Return the number of vectors that hold ``n`` numbers, rounded up."""
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
        """Return ``a * b + c``, fused if the machine can."""
        is_vector = isinstance(a.type, ir.VectorType)
        suffix = self.suffix if is_vector else f"f{8 * self.itemsize}"
        return self.intrinsic(f"llvm.fmuladd.{suffix}", a.type, [a, b, c])

    def prefetch(self, address: ir.Value, line: ir.Value) -> None:
        """Prefetch a cache line to L2: for reading, locality 2, data."""
        offset = self.builder.mul(line, INT64(CACHE_LINE))
        pointer = self.builder.inttoptr(self.builder.add(address, offset), BYTES)
        hints = [INT32(0), INT32(2), INT32(1)]
        self.intrinsic("llvm.prefetch.p0", ir.VoidType(), [pointer, *hints])

    def sums(self, vectors: list[ir.Value]) -> list[ir.Value]:
        """Sum the lanes of each vector; lane k of the first result is the sum of vector k.

        Neighbours are added and packed together, so the work halves at each step. This takes a
        fifth of the instructions of one reduction per vector, which matters for short rows.
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
        """Return ``n`` lanes of a vector, starting at lane ``first``."""
        lanes = ir.VectorType(INT32, n)(list(range(first, first + n)))
        return self.builder.shuffle_vector(vector, vector.type(ir.Undefined), lanes)

    def loop(
        self,
        count: ir.Value,
        carried: list[ir.Value],
        body: Callable[[ir.Value, list[ir.Value]], list[ir.Value]],
    ) -> list[ir.Value]:
        """Emit ``for i in range(count): carried = body(i, carried)``; return ``carried``."""
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


def emitter(context: Any, builder: ir.IRBuilder, number: Any) -> Emitter:
    """Return an `Emitter` for a Numba type, with the widest vectors of the CPU."""
    return Emitter(builder, context.get_value_type(number), target().vector_bytes)

"""Addresses, memory that threads share, and calls through an address."""

from __future__ import annotations

from typing import Any

from llvmlite import binding, ir
from numba import float32, int64
from numba.extending import intrinsic

from fastloss.kernels.simd.emitter import INT64, emitter, instructions
from fastloss.kernels.simd.target import target


@intrinsic  # type: ignore[untyped-decorator]
def address(typing_context: Any, array: Any) -> Any:
    """Where an array begins: ``array.ctypes.data``, in a tenth of the time to compile."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        view = context.make_array(signature.args[0])(context, builder, arguments[0])
        return builder.ptrtoint(view.data, INT64)

    return int64(array), generate


@instructions(int64, result=int64)
def fetch_add(context: Any, builder: Any, address: ir.Value) -> ir.Value:
    """Add 1 to the int64 at an address, atomically; what it was before."""
    pointer = builder.inttoptr(address, INT64.as_pointer())
    return builder.atomic_rmw("add", pointer, INT64(1), "seq_cst")


@instructions(int64, int64)
def raise_to(context: Any, builder: Any, address: ir.Value, value: ir.Value) -> None:
    """Make the int64 at an address at least ``value``, atomically."""
    pointer = builder.inttoptr(address, INT64.as_pointer())
    builder.atomic_rmw("max", pointer, value, "seq_cst")


@instructions(int64, result=int64)
def read_shared(context: Any, builder: Any, address: ir.Value) -> ir.Value:
    """The int64 at an address that other threads write to, after a moment's pause."""
    if binding.get_process_triple().startswith(("x86", "i686")):
        pause = ir.FunctionType(ir.VoidType(), [])
        name = "llvm.x86.sse2.pause"
        module = builder.module
        builder.call(module.globals.get(name) or ir.Function(module, pause, name), [])
    pointer = builder.inttoptr(address, INT64.as_pointer())
    return builder.load_atomic(pointer, "acquire", 8)


@instructions(int64)
def prefetch(context: Any, builder: Any, address: ir.Value) -> None:
    """Bring the cache line at an address to L2."""
    emitter(context, builder, float32).prefetch(address, INT64(0))


@instructions(*[int64] * 7)
def call(context: Any, builder: Any, function: ir.Value, *arguments: ir.Value) -> None:
    """``call(function, scores, n_classes, n_rows, labels, parameters, losses)``: a loss.

    Through its address, so that the kernels need not be compiled again for each loss.
    """
    kind = ir.FunctionType(ir.VoidType(), [INT64] * 6)
    builder.call(builder.inttoptr(function, kind.as_pointer()), arguments)


@instructions()
def prefer_wide_vectors(context: Any, builder: Any) -> None:
    """Let LLVM vectorise the loops of this function with the widest vectors there are.

    On AVX-512 it prefers half of them, for the sake of a clock that other kernels here ask for
    anyway. Losses of many classes take 0.6 to 0.9 of the time.
    """
    preference = f'"prefer-vector-width"="{8 * target().vector_bytes}"'
    # llvmlite's own method takes only what it knows, which is no attribute of a target.
    set.add(builder.function.attributes, preference)

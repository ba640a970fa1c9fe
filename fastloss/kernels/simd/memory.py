"""Emit addresses of arrays, operations on shared memory, and calls through an address."""

from __future__ import annotations

from typing import Any

from llvmlite import binding, ir
from numba import float32, int64, types
from numba.core import cgutils
from numba.core.imputils import impl_ret_borrowed, impl_ret_new_ref
from numba.extending import intrinsic
from numba.np.arrayobj import populate_array

from fastloss.kernels.simd.emitter import CACHE_LINE, INT64, emitter, instructions
from fastloss.kernels.simd.target import target


@intrinsic  # type: ignore[untyped-decorator]
def address(typing_context: Any, array: Any) -> Any:
    """Return ``array.ctypes.data``; this compiles in a tenth of the time."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        view = context.make_array(signature.args[0])(context, builder, arguments[0])
        return builder.ptrtoint(view.data, INT64)

    return int64(array), generate


@intrinsic  # type: ignore[untyped-decorator]
def aligned(typing_context: Any, n: Any, like: Any) -> Any:
    """Return ``n`` zeros of the dtype of ``like`` that begin on a cache line."""
    kind = types.Array(like.dtype, 1, "C")

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        view = context.make_array(kind)(context, builder)
        itemsize = INT64(context.get_abi_sizeof(context.get_data_type(kind.dtype)))
        n_bytes = builder.mul(arguments[0], itemsize)
        record = context.nrt.meminfo_alloc_aligned(builder, n_bytes, CACHE_LINE)
        data = context.nrt.meminfo_data(builder, record)
        cgutils.memset(builder, data, n_bytes, 0)
        data = builder.bitcast(data, view.data.type)
        populate_array(view, data, arguments[:1], [itemsize], itemsize, record)
        return impl_ret_new_ref(context, builder, kind, view._getvalue())

    return kind(int64, like), generate


@intrinsic  # type: ignore[untyped-decorator]
def matrix(typing_context: Any, array: Any, n_rows: Any, n_columns: Any) -> Any:
    """Return the first numbers of an array as a matrix; ``reshape`` would need Numba's runtime."""
    kind = types.Array(array.dtype, 2, "C")

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        source = context.make_array(array)(context, builder, arguments[0])
        view = context.make_array(kind)(context, builder)
        shape = arguments[1:]
        strides = [builder.mul(shape[1], source.itemsize), source.itemsize]
        populate_array(view, source.data, shape, strides, source.itemsize, source.meminfo)
        return impl_ret_borrowed(context, builder, kind, view._getvalue())

    return kind(array, int64, int64), generate


@instructions(int64, result=int64)
def fetch_add(context: Any, builder: Any, address: ir.Value) -> ir.Value:
    """Add 1 to the int64 at an address, atomically; return its old value."""
    pointer = builder.inttoptr(address, INT64.as_pointer())
    return builder.atomic_rmw("add", pointer, INT64(1), "seq_cst")


@instructions(int64, int64)
def raise_to(context: Any, builder: Any, address: ir.Value, value: ir.Value) -> None:
    """Make the int64 at an address at least ``value``, atomically."""
    pointer = builder.inttoptr(address, INT64.as_pointer())
    builder.atomic_rmw("max", pointer, value, "seq_cst")


@instructions(int64, result=int64)
def read_shared(context: Any, builder: Any, address: ir.Value) -> ir.Value:
    """Pause for a moment, then return the int64 at an address that other threads write to."""
    if binding.get_process_triple().startswith(("x86", "i686")):
        pause = ir.FunctionType(ir.VoidType(), [])
        name = "llvm.x86.sse2.pause"
        module = builder.module
        builder.call(module.globals.get(name) or ir.Function(module, pause, name), [])
    pointer = builder.inttoptr(address, INT64.as_pointer())
    return builder.load_atomic(pointer, "acquire", 8)


@instructions(int64)
def prefetch(context: Any, builder: Any, address: ir.Value) -> None:
    """Prefetch the cache line at an address to L2."""
    emitter(context, builder, float32).prefetch(address, INT64(0))


@instructions(*[int64] * 7)
def call(context: Any, builder: Any, function: ir.Value, *arguments: ir.Value) -> None:
    """Call a loss: ``call(function, scores, n_classes, n_rows, labels, parameters, losses)``.

    The call goes through an address, so that kernels are not compiled again for each loss.
    """
    kind = ir.FunctionType(ir.VoidType(), [INT64] * 6)
    builder.call(builder.inttoptr(function, kind.as_pointer()), arguments)


@instructions()
def prefer_wide_vectors(context: Any, builder: Any) -> None:
    """Let LLVM vectorise the loops of this function with the CPU's widest vectors.

    On AVX-512, LLVM prefers vectors of half the width, to keep the clock high; fastloss's other
    kernels lower it anyway. Losses of many classes take 0.6 to 0.9 of the time with wide vectors.
    """
    preference = f'"prefer-vector-width"="{8 * target().vector_bytes}"'
    # llvmlite's own method rejects attributes of a target.
    set.add(builder.function.attributes, preference)

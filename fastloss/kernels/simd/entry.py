"""Turn a function that Numba has compiled into an object file with one C function."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from types import FunctionType
from typing import Any

from llvmlite import binding, ir
from numba import types
from numba.core.codegen import CPUCodeLibrary
from numba.core.compiler import Compiler, Flags, compile_extra
from numba.core.registry import cpu_target
from numba.core.typing.templates import AbstractTemplate
from numba.np.arrayobj import populate_array

from fastloss.kernels.simd.emitter import BYTES, INT32, INT64

# The head of every Python object, then NumPy's fields: data, number of dimensions, dimensions,
# strides. Programs compiled against any NumPy depend on this order.
_DATA, _DIMENSIONS, _STRIDES = (object.__basicsize__ + 8 * field for field in (0, 2, 3))
# Fields of Numba's record of allocated memory: references, destructor, its argument, data, size.
_RECORD_BYTES, _DATA_FIELD = 40, 24


#: Passes of Numba that plain loops do without.
_OMITTED = frozenset({"inline_inlinables", "inline_overloads", "nopython_rewrites"})


class _Pipeline(Compiler):  # type: ignore[misc]
    """Numba's passes from Python to LLVM, without those that kernels do not need."""

    def define_pipelines(self) -> list[Any]:
        (passes,) = super().define_pipelines()
        passes.passes = [one for one in passes.passes if one[0].name() not in _OMITTED]
        passes.finalize()
        return [passes]


def translate(function: Any, arguments: Any, result: Any, library: Any, **flags: bool) -> Any:
    """Add a function's code to a library; return Numba's description of it."""
    options = Flags()
    for name, value in flags.items():
        setattr(options, name, value)
    options.no_cpython_wrapper = options.no_cfunc_wrapper = options.no_compile = True
    options.error_model = "numpy"  # IEEE division: 1 / 0 is inf, not an exception
    contexts = cpu_target.typing_context, cpu_target.target_context
    return compile_extra(
        *contexts, function, arguments, result, options, {}, library, pipeline_class=_Pipeline
    )


def helper(function: FunctionType, allocates: bool) -> FunctionType:
    """Let kernels call a function, which becomes part of each of them; return it.

    A function decorated by Numba would be optimised and become machine code by itself. Numba counts
    the references to memory in functions that allocate some.
    """

    class Template(AbstractTemplate):  # type: ignore[misc]
        key = function

        def generic(self, arguments: Any, names: Any) -> Any:
            return signature(arguments)

    @cache
    def signature(arguments: Any) -> Any:
        context = cpu_target.target_context
        library = ObjectLibrary(context.codegen(), function.__qualname__)
        result = translate(function, arguments, None, library, nrt=allocates, forceinline=True)
        context.insert_user_function(function, result.fndesc, [library])
        return result.signature

    cpu_target.typing_context.insert_global(function, types.Function(Template))
    return function


class ObjectLibrary(CPUCodeLibrary):  # type: ignore[misc]
    """Numba's modules for one kernel or helper; `emit` turns a kernel into an object file."""

    def _optimize_final_module(self) -> None:
        """Do nothing: `emit` optimises the whole kernel."""

    def _finalize_final_module(self) -> None:
        """Do nothing: Numba's engine never runs this code."""
        self._finalize_dynamic_globals()
        self._finalized = True

    def emit(self) -> bytes:
        """Return the object file."""
        self.finalize()
        for function in self._final_module.functions:
            if not function.is_declaration and function.name != self.entry:
                function.linkage = "internal"
        # Inlining and early rotation: LLVM would not vectorise some loops that are rotated later.
        self._run_passes(0, ("loop_rotate", "instruction_combine", "jump_threading", "refprune"))
        self._run_passes(3, ("refprune",))
        return bytes(self._codegen._tm.emit_object(self._final_module))

    def _run_passes(self, level: int, others: tuple[str, ...]) -> None:
        """Run LLVM's passes of an optimisation level, then the others.

        Loops are not unrolled: a fifth of the time to compile, and no gain that was measured.
        """
        tuning = binding.create_pipeline_tuning_options(speed_level=level)
        tuning.loop_vectorization, tuning.loop_unrolling = level > 0, False
        builder = binding.create_pass_builder(self._codegen._tm, tuning)
        passes = builder.getModulePassManager()
        for name in others:
            getattr(passes, f"add_{name}_pass")()
        passes.run(self._final_module, builder)

    def undefined_functions(self) -> Iterator[str]:
        """Return the names of the functions that the object file calls but does not have."""
        for function in self._final_module.functions:
            if function.is_declaration and not function.name.startswith("llvm."):
                yield function.name


def add_entry(context: Any, library: ObjectLibrary, descriptor: Any, name: str) -> None:
    """Add the C function: it calls the compiled function and returns its truth, or -1 if it raised.

    Arrays are addresses of NumPy's objects. Pointers and integers are int64.
    """
    library.entry = name
    module = library.create_ir_module(name)
    kinds = [_c_type(kind) for kind in descriptor.argtypes]
    entry = ir.Function(module, ir.FunctionType(ir.IntType(8), kinds), name)
    builder = ir.IRBuilder(entry.append_basic_block())
    pairs = zip(descriptor.argtypes, entry.args, strict=True)
    status, result = context.call_conv.call_function(
        builder,
        context.declare_function(module, descriptor),
        descriptor.restype,
        descriptor.argtypes,
        [_value(context, builder, kind, value) for kind, value in pairs],
    )
    with builder.if_then(status.is_error, likely=False):
        builder.ret(ir.IntType(8)(-1))
    is_true = descriptor.restype == types.boolean
    builder.ret(builder.zext(result, ir.IntType(8)) if is_true else ir.IntType(8)(0))
    _add_allocator(module)
    library.add_ir_module(module)


def _c_type(kind: Any) -> ir.Type:
    if isinstance(kind, types.Boolean):
        return ir.IntType(8)
    return ir.DoubleType() if isinstance(kind, types.Float) else INT64


def _value(context: Any, builder: ir.IRBuilder, kind: Any, value: ir.Value) -> ir.Value:
    """Return an argument of the C function as Numba's value of a type."""
    if isinstance(kind, types.Boolean):
        return builder.icmp_signed("!=", value, value.type(0))
    if isinstance(kind, types.CPointer):
        return builder.inttoptr(value, context.get_value_type(kind))
    if not isinstance(kind, types.Array):
        return value

    def field(offset: int, kind: ir.Type = INT64) -> ir.Value:
        place = builder.add(value, INT64(offset))
        return builder.load(builder.inttoptr(place, kind.as_pointer()))

    array = context.make_array(kind)(context, builder)
    numbers = ir.ArrayType(INT64, kind.ndim).as_pointer()
    shape, strides = (builder.load(field(place, numbers)) for place in (_DIMENSIONS, _STRIDES))
    data = field(_DATA, array.data.type)
    itemsize = context.get_abi_sizeof(context.get_data_type(kind.dtype))
    populate_array(array, data, shape, strides, itemsize, None)
    return array._getvalue()


def _add_allocator(module: ir.Module) -> None:
    """Define the two functions of Numba's runtime that arrays of a kernel need."""
    n_bytes, alignment = INT64, INT32
    allocate = ir.Function(
        module, ir.FunctionType(BYTES, [n_bytes, alignment]), "NRT_MemInfo_alloc_aligned"
    )
    builder = ir.IRBuilder(allocate.append_basic_block())
    size, align = allocate.args[0], builder.zext(allocate.args[1], INT64)
    malloc = ir.Function(module, ir.FunctionType(BYTES, [INT64]), "malloc")
    room = builder.add(align, INT64(_RECORD_BYTES))
    record = builder.call(malloc, [builder.add(size, room)])
    with builder.if_then(builder.icmp_unsigned("!=", record, BYTES(None)), likely=True):
        place = builder.ptrtoint(record, INT64)
        builder.store(INT64(1), builder.inttoptr(place, INT64.as_pointer()))
        data = builder.add(place, room)
        data = builder.sub(data, builder.urem(data, align))
        goal = builder.add(place, INT64(_DATA_FIELD))
        builder.store(data, builder.inttoptr(goal, INT64.as_pointer()))
    builder.ret(record)
    release = ir.Function(module, ir.FunctionType(ir.VoidType(), [BYTES]), "NRT_MemInfo_call_dtor")
    builder = ir.IRBuilder(release.append_basic_block())
    free = ir.Function(module, ir.FunctionType(ir.VoidType(), [BYTES]), "free")
    builder.call(free, release.args)
    builder.ret_void()

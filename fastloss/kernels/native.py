"""Make C functions from templates: Numba compiles them once, and llvmlite loads them.

Numba's own functions need Numba's import and tables, which take longer than all other parts of a
first call. Here a compiled kernel is an object file with one C function. It takes NumPy's arrays by
the addresses of the Python objects, and it needs nothing of Numba when it runs.
"""

from __future__ import annotations

import ctypes
import json
import os
from collections.abc import Callable
from contextlib import suppress
from functools import cache, wraps
from threading import Lock
from types import FunctionType
from typing import Any

from fastloss import kernel_cache
from fastloss.restoring import no_garbage_collection

_ENTRY = "fastloss_entry"
_C_TYPES = {
    "array": ctypes.py_object,
    "pointer": ctypes.c_int64,
    "integer": ctypes.c_int64,
    "real": ctypes.c_double,
    "truth": ctypes.c_bool,
}
#: C functions that every process has. A kernel that calls another one is loaded after Numba.
_C_FUNCTIONS = frozenset({"malloc", "free", "memcpy", "memmove", "memset"})


#: A bound template and its Numba signature.
Template = tuple[FunctionType, Any]


class KernelError(RuntimeError):
    """A kernel raised, in practice because memory ran out."""


def native(
    name_of: Callable[..., str],
) -> Callable[[Callable[..., Template]], Callable[..., Any]]:
    """Decorate a function of dtypes that returns a bound template and its Numba signature.

    The decorated function returns the template as a C function, which is loaded if a kernel named
    ``name_of(*arguments)`` is in the cache. It has an ``address``; ``is_loaded`` says whether it
    was in the cache, and ``widths`` is the name WIDTHS of the template. It does not check its
    arguments.
    """

    def decorate(make: Callable[..., Template]) -> Callable[..., Any]:
        @cache
        @wraps(make)
        def kernel(*arguments: Any) -> Any:
            name = name_of(*arguments)
            if (function := _from_cache(name)) is not None:
                return function
            with _compiling:
                # Another thread may have compiled the kernel meanwhile.
                if (function := _from_cache(name)) is not None:
                    return function
                kernel_cache.require_numba("fused")
                content, may_keep = _compile(*make(*arguments), name)
                if may_keep:
                    kernel_cache.write(name, content)
                kernel_cache.note_compiled(name)
            return _load(content, is_loaded=False)

        return kernel

    return decorate


_compiling = Lock()


def _renew_lock() -> None:
    global _compiling
    _compiling = Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


# --- loading --------------------------------------------------------------------------------------


def _from_cache(name: str) -> Any:
    """Return a kernel in the cache; None if there is none that can be loaded."""
    content = kernel_cache.read(name)
    # An intact file can still fail to load, for example without its version of llvmlite.
    with suppress(Exception):
        if content is not None:
            function = _load(content, is_loaded=True)
            kernel_cache.mark_used(name)
            return function
    return None


def _load(content: bytes, is_loaded: bool) -> Any:
    """Return the C function in the content of a kernel's file: a line of facts, then an object."""
    line, _, code = content.partition(b"\n")
    facts = json.loads(line)
    if facts["needs_numba"]:
        _start_numba()
    engine = _engine(code)
    address = engine.get_function_address(_ENTRY)
    kinds: Any = (_C_TYPES[kind] for kind in facts["arguments"])
    function: Any = ctypes.CFUNCTYPE(ctypes.c_int8, *kinds)(address)
    function.errcheck = _checked
    function.address, function.is_loaded, function.widths = address, is_loaded, facts["widths"]
    function.engine = engine  # owns the code
    return function


def _checked(result: int, *_: Any) -> int:
    if result < 0:
        raise KernelError("a kernel failed: out of memory?")
    return result


def _engine(code: bytes) -> Any:
    """Return an engine of LLVM that has linked an object file."""
    from llvmlite import binding

    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    target = binding.Target.from_triple(binding.get_process_triple())
    machine = target.create_target_machine(jit=True)
    engine = binding.create_mcjit_compiler(binding.parse_assembly(""), machine)
    engine.add_object_file(binding.ObjectFileRef.from_data(code))
    engine.finalize_object()
    return engine


def _start_numba() -> None:
    """Give LLVM the addresses of the functions of Numba's runtime."""
    from numba.core.registry import cpu_target
    from numba.core.runtime import rtsys

    kernel_cache.require_numba("fused")
    rtsys.initialize(cpu_target.target_context)


# --- compiling ------------------------------------------------------------------------------------


def _compile(function: FunctionType, signature: Any, name: str) -> tuple[bytes, bool]:
    """Return the content of a kernel's file, and whether other processes can use it."""
    from numba.core.compiler_lock import global_compiler_lock
    from numba.core.registry import cpu_target
    from numba.core.sigutils import normalize_signature

    from fastloss.kernels.simd.entry import ObjectLibrary, add_entry, translate

    arguments, result = normalize_signature(signature)
    context = cpu_target.target_context
    # Garbage collection takes 6 % of the time of a compilation.
    with global_compiler_lock, no_garbage_collection(collect=False):
        library = ObjectLibrary(context.codegen(), name)
        lowered = translate(function, arguments, result, library, nrt=True)
        add_entry(context, library, lowered.fndesc, _ENTRY)
        code = library.emit()
    facts = {
        "arguments": [_kind(argument) for argument in arguments],
        "needs_numba": not _C_FUNCTIONS.issuperset(library.undefined_functions()),
        "widths": function.__globals__.get("WIDTHS"),
    }
    return json.dumps(facts).encode() + b"\n" + code, not library.has_dynamic_globals


def _kind(kind: Any) -> str:
    """Return the kind of a C argument for a type of Numba."""
    from numba import types

    kinds = {types.Array: "array", types.CPointer: "pointer", types.Boolean: "truth"}
    kinds |= {types.Integer: "integer", types.Float: "real"}
    return next(name for of, name in kinds.items() if isinstance(kind, of))

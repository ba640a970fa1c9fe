"""Compile kernels with Numba and keep them on disk, so that each is compiled once a machine.

A kernel's name ends with its `fingerprint`, a hash of everything that its machine code depends on.
A file of that name is therefore never out of date, and one folder holds kernels of all versions,
environments and kinds of CPU. Names are known without importing Numba, which takes 0.2 s;
`is_cached` takes a fraction of a millisecond.

Each kernel is one file: a SHA-256 of its content, then the content. A missing, truncated or damaged
file is compiled again. If the folder is not writable, kernels are not kept. Neither is an error;
if an environment variable names the folder, a warning names the variable.
Loading a kernel runs code from its file. Therefore only files of this user and of root are read,
and new folders are private to this user.

To compile a function in the part of Python that Numba supports::

    name = kernel_name(f"rows_{dtype}", function, dtype)
    kernel = compile_cached(function, name, signature, numba.njit, parallel=True)
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import pickle
import platform
import re
import stat
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

import numpy as np

from fastloss.files import named
from fastloss.folders import cache_folder, warn_unwritable
from fastloss.restoring import no_garbage_collection

_PREFIX, _SUFFIX = "fastloss.", ".nbc"
_HASH_BYTES = 32
_UNUSED_SECONDS = 30 * 24 * 3600

#: Settings of Numba that change the machine code.
_VARIABLES = (
    "NUMBA_BOUNDSCHECK",
    "NUMBA_CPU_FEATURES",
    "NUMBA_CPU_NAME",
    "NUMBA_DEBUGINFO",
    "NUMBA_DISABLE_INTEL_SVML",
    "NUMBA_ENABLE_AVX",
    "NUMBA_ENABLE_PROFILING",
    "NUMBA_LLVM_REFPRUNE_FLAGS",
    "NUMBA_LLVM_REFPRUNE_PASS",
    "NUMBA_LOOP_VECTORIZE",
    "NUMBA_OPT",
    "NUMBA_SLP_VECTORIZE",
)
#: Lines of ``/proc/cpuinfo`` that identify a CPU's instructions, on x86 and on ARM.
_CPU_LINES = (
    "vendor_id",
    "cpu family",
    "model",
    "flags",
    "CPU implementer",
    "CPU part",
    "Features",
)


def numba_unavailable() -> str | None:
    """Return why Numba cannot compile here, or None if it can; do not import Numba."""
    if not _is_installed():
        in_browser = sys.platform == "emscripten"
        return "browsers have no Numba; use numpy" if in_browser else "numba is not installed"
    config = getattr(sys.modules.get("numba"), "config", None)
    setting = getattr(config, "DISABLE_JIT", os.environ.get("NUMBA_DISABLE_JIT"))
    return "NUMBA_DISABLE_JIT is set" if str(setting or 0) != "0" else _import_failure


_import_failure: str | None = None


def can_import_numba() -> bool:
    """Import Numba; return False if that fails, for example with a NumPy that is too new.

    `numba_unavailable` then returns the reason.
    """
    global _import_failure
    if _import_failure is None and "numba" not in sys.modules:
        try:
            importlib.import_module("numba")
        except Exception as error:
            _import_failure = f"numba cannot be imported ({named(error)})"
    return _import_failure is None


def require_numba(backend: str) -> None:
    """Import Numba for ``backend``; raise RuntimeError if that fails."""
    if not can_import_numba():
        raise RuntimeError(f"backend {backend!r} cannot run: {_import_failure}")


@cache
def _is_installed() -> bool:
    return importlib.util.find_spec("numba") is not None


# --- names ----------------------------------------------------------------------------------------


def kernel_name(stem: str, *parts: object) -> str:
    """Return the name of a kernel: ``stem`` as an identifier, and the fingerprint of ``parts``."""
    return f"{re.sub(r'[^0-9A-Za-z_]', '_', stem)[:100]}_{fingerprint(stem, *parts)}"


def fingerprint(*parts: object) -> str:
    """Hash ``parts`` and everything else that compiled code depends on.

    For a function, the hash covers its code and the value of every global name in it, through other
    functions to any depth. For other values, it covers the ``repr``. It always covers the sources
    of ``fastloss.kernels``, the versions of Python, fastloss, NumPy, Numba and llvmlite, Numba's
    settings and the kind of CPU.

    Returns
    -------
    16 hexadecimal digits.
    """
    digest = hashlib.sha256(_surroundings())
    seen: set[int] = set()

    def add(value: Any) -> None:
        if hasattr(value, "py_func"):  # a Numba function, or a `losses.jit.Jit`
            add(value.targetoptions)
            value = value.py_func
        if _is_of_numba(value) or _is_of_numba(type(value)):
            digest.update(str(getattr(value, "__name__", value)).encode())
        elif isinstance(value, FunctionType):
            if id(value) not in seen:
                seen.add(id(value))
                add_code(value.__code__, value.__globals__)
                for cell in value.__closure__ or ():
                    add(cell.cell_contents)
                for default in value.__defaults__ or ():
                    add(default)
        elif isinstance(value, ModuleType):
            digest.update(value.__name__.encode())
        elif isinstance(value, (tuple, dict, set, frozenset)):
            items = value.items() if isinstance(value, dict) else value
            # The order of a set differs between processes.
            for item in items if isinstance(value, tuple) else sorted(items, key=repr):
                add(item)
        elif isinstance(value, np.ndarray):  # a long array's repr omits numbers
            digest.update(repr((value.dtype, value.shape)).encode() + value.tobytes())
        else:
            digest.update(repr(value).encode())

    def add_code(code: CodeType, names: dict[str, Any]) -> None:
        digest.update(code.co_code)
        for constant in code.co_consts:
            if isinstance(constant, CodeType):  # a function inside the function
                add_code(constant, names)
            else:
                add(constant)
        for name in code.co_names:
            digest.update(name.encode())
            if name in names:
                add(names[name])

    for part in parts:
        add(part)
    return digest.hexdigest()[:16]


def _is_of_numba(value: Any) -> bool:
    return str(getattr(value, "__module__", "")).partition(".")[0] == "numba"


@cache
def _surroundings() -> bytes:
    """Return a hash of everything that all kernels depend on."""
    from importlib.resources import files

    digest = hashlib.sha256()
    with suppress(OSError):  # an application packed without sources
        for source in _sources(files("fastloss") / "kernels"):
            digest.update(source)
    settings: list[object] = [os.environ.get(name, "") for name in _VARIABLES]
    with suppress(OSError):
        settings.append(Path(".numba_config.yaml").read_bytes())
    versions = sys.version, *map(_version, ("fastloss", "numba", "llvmlite", "numpy"))
    digest.update(repr((versions, settings, sys.platform, cpu_kind())).encode())
    return digest.digest()


def _sources(folder: Any) -> Iterator[bytes]:
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.is_dir():
            yield from _sources(entry)
        elif entry.name.endswith(".py"):
            yield entry.read_bytes()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # for example, imported from an archive
        return str(importlib.import_module(package).__version__)


def cpu_kind() -> str:
    """Return 16 hexadecimal digits that identify the kind of CPU."""
    facts = platform.machine(), *(_cpu_lines().values() or [platform.processor()])
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]


def cpu_features() -> frozenset[str]:
    """Return the features of the CPU that Numba compiles for, named as in ``/proc/cpuinfo``.

    Empty if unknown.
    """
    if (given := os.environ.get("NUMBA_CPU_FEATURES")) is not None:
        features = (feature.strip() for feature in given.split(","))
        return frozenset(f[1:].replace("-", "_") for f in features if f.startswith("+"))
    lines = _cpu_lines()
    return frozenset((lines.get("flags") or lines.get("Features") or "").split())


@cache
def _cpu_lines() -> dict[str, str]:
    text = ""
    with suppress(OSError):
        text = Path("/proc/cpuinfo").read_text(errors="replace")
    pairs = (line.partition(":") for line in text.partition("\n\n")[0].splitlines())
    lines = {key.strip(): value.strip() for key, _, value in pairs}
    return {key: lines[key] for key in _CPU_LINES if key in lines}


# --- files ----------------------------------------------------------------------------------------


def folder() -> Path | None:
    """Return the kernels' folder: ``NUMBA_CACHE_DIR``, else one in fastloss's cache folder."""
    if given := os.environ.get("NUMBA_CACHE_DIR"):
        return Path(given)
    base = cache_folder()
    return None if base is None else base / "kernels"


def is_cached(name: str) -> bool:
    """Return whether a kernel of this name can be loaded."""
    return read(name) is not None


def is_ready(name: str) -> bool:
    """Return whether this process has compiled a kernel of this name, or finds its file."""
    return name in _compiled or is_cached(name)


def is_available(name: str) -> bool:
    """Return whether `is_ready` holds, for a kernel that needs Numba to load its file.

    Import Numba if there is a file to load.
    """
    return name in _compiled or (is_cached(name) and can_import_numba())


def cached_kernels() -> list[Path]:
    """Return the files of all kernels on disk."""
    place = folder()
    return [] if place is None else sorted(place.glob(f"{_PREFIX}*{_SUFFIX}"))


def read(name: str) -> bytes | None:
    """Return the content of a kernel's file; None if there is no intact file to trust."""
    place = folder()
    if place is None:
        return None
    try:
        with open(place / f"{_PREFIX}{name}{_SUFFIX}", "rb") as file:
            stored = file.read() if _is_trusted(os.fstat(file.fileno())) else b""
    except OSError:
        return None
    content = stored[_HASH_BYTES:]
    return content if hashlib.sha256(content).digest() == stored[:_HASH_BYTES] else None


def mark_used(name: str) -> None:
    """Set the time of a kernel's file, for `_remove_unused`."""
    if (place := folder()) is not None:
        with suppress(OSError):
            os.utime(place / f"{_PREFIX}{name}{_SUFFIX}")


def _is_trusted(status: os.stat_result) -> bool:
    """Return whether only this user and root can have written a file."""
    if not hasattr(os, "geteuid"):
        return True
    return status.st_uid in (os.geteuid(), 0) and not status.st_mode & stat.S_IWOTH


def make_folder(place: Path) -> None:
    """Make the kernels' folder, private to this user, unless it exists."""
    place.mkdir(mode=0o700, parents=True, exist_ok=True)


def write(name: str, content: bytes) -> None:
    """Write a kernel, whole or not at all; errors of the disk cause a warning at most."""
    place = folder()
    if place is None:
        return
    path = place / f"{_PREFIX}{name}{_SUFFIX}"
    draft = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
    try:
        make_folder(place)
        draft.write_bytes(hashlib.sha256(content).digest() + content)
        draft.replace(path)
    except OSError as error:
        with suppress(OSError):
            draft.unlink()
        if not os.access(place, os.W_OK):
            warn_unwritable(place, error.strerror)
    _remove_unused(place)


@cache
def _remove_unused(place: Path) -> None:
    """Remove kernels that were not loaded for a month, once a process.

    Kernels with other fingerprints stay, because other machines or environments may use them.
    """
    for path in place.glob(f"{_PREFIX}*{_SUFFIX}*"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > _UNUSED_SECONDS:
                path.unlink()


_compiled: set[str] = set()


def note_compiled(name: str) -> None:
    """Remember that this process has compiled a kernel."""
    _compiled.add(name)


# --- compiling ------------------------------------------------------------------------------------


def compile_cached(
    function: Any, name: str, signature: Any, compiler: Callable[..., Any], **options: Any
) -> Any:
    """Compile a function for one signature, or load it from the cache.

    Parameters
    ----------
    function : plain Python function; not changed.
    name : its `kernel_name`, which must cover everything that the kernel depends on, also options.
    signature : Numba signature of the arguments (and the result).
    compiler : ``numba.njit``.
    options : options of the compiler.

    Returns
    -------
    The compiler's result, which accepts no other signature.
    """
    # Numba distinguishes functions of one name and signature by a counter in the process. Kernels
    # cached by different processes can share a count; one would then be linked to the other's code.
    renamed = FunctionType(
        function.__code__,
        function.__globals__,
        name,
        function.__defaults__,
        function.__closure__,
    )
    renamed.__qualname__ = name
    # error_model "numpy" is IEEE division: 1 / 0 is inf, not an exception.
    options |= {"error_model": "numpy", "nogil": True}
    # Garbage collection takes 6 % of the time of a compilation.
    with no_garbage_collection(collect=False):
        kernel = compiler(**options)(renamed)
        kernel._cache = _NumbaCache(name)
        kernel.compile(signature)
        kernel.disable_compile()
        note_compiled(name)
        return kernel


class _NumbaCache:
    """Cache of one compiled function, with the methods that Numba calls.

    Numba's own cache ignores changes in the files of helpers and raises if an index is damaged. It
    keeps index and code in two files, one of which may be missing.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self.cache_path = str(folder())

    def load_overload(self, signature: Any, target_context: Any) -> Any:
        """Return the kernel, or None if Numba must compile it."""
        from numba.core.compiler import CompileResult

        content = read(self._name)
        if content is None:
            return None
        target_context.refresh()
        # An intact file can still fail to load, for example after Numba was edited by hand.
        with suppress(Exception):
            result = CompileResult._rebuild(target_context, *pickle.loads(content))
            mark_used(self._name)
            return result
        return None

    def save_overload(self, signature: Any, result: Any) -> None:
        """Write the kernel, unless it holds addresses of this process."""
        from numba.core.serialize import dumps

        if not result.library.has_dynamic_globals:
            write(self._name, dumps(result._reduce()))

    def flush(self) -> None:
        """Do nothing: Numba calls this before it compiles again, and `save_overload` overwrites."""

"""Compiles the kernel of `kernel` for a loss and a type with Numba, caches it, and runs it.

Numba is imported when the first kernel is needed, never with the package.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import pkgutil
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any, ClassVar

import numpy as np

from fastloss.arrays import Floats
from fastloss.backends import kernel
from fastloss.backends.base import Backend, Problem
from fastloss.losses.base import Labels, Loss, RowKernel
from fastloss.threads import numba_threads

# A block of this size stays in L2 beside W.T and its partial gradient.
_BLOCK_BYTES = 256 * 1024
_MAX_BLOCK_ROWS = 256
# Partial gradients cost memory and time to add up: no more than these, few for a wide W.
_MAX_CHUNKS = 32
_MAX_PARTIAL_BYTES = 64 * 2**20
# Features are padded to whole vectors of 64 bytes of the smallest type.
_PADDING = 16

_NO_WEIGHTS = np.empty(0)


class NumbaBackend(Backend):
    """``backend="numba"``."""

    name: ClassVar[str] = "numba"

    def unavailable(self, loss: Loss | None = None) -> str | None:
        if importlib.util.find_spec("numba") is None:
            return "numba is not installed"
        if _process.forked_from_openmp:
            return "this process was forked after OpenMP threads had started, which would kill it"
        if loss is not None and loss.compiled is None:
            return f"the loss {loss.name!r} has no compiled form"
        return None

    def evaluate(
        self, problem: Problem, W: Floats, dW: Floats | None, n_threads: int | None
    ) -> float:
        n_features, n_classes = W.shape
        W_T = np.zeros(
            (_round_up(n_classes, kernel.TILE_CLASSES), _round_up(n_features, _PADDING)), W.dtype
        )
        W_T[:n_classes, :n_features] = W.T
        block_rows, chunk_rows = partition(len(problem.X), W_T.shape, W.itemsize)
        chunk_losses = np.empty(-(-len(problem.X) // chunk_rows))
        evaluate_rows = rows_kernel(problem.loss, problem.X.dtype, W.dtype)
        _launch(
            evaluate_rows,
            n_threads,
            problem.X,
            W_T,
            problem.labels,
            _NO_WEIGHTS if problem.weights is None else problem.weights,
            1.0 / problem.divisor,
            problem.loss.parameters,
            chunk_rows,
            block_rows,
            n_classes,
            problem.intercept,
            np.empty((len(chunk_losses), *W_T.shape), W.dtype),
            chunk_losses,
            np.empty((0, n_classes), W.dtype) if dW is None else dW,
        )
        return float(chunk_losses.sum()) / problem.divisor

    def score_gradient(
        self, loss: Loss, scores: Floats, labels: Labels, n_threads: int | None
    ) -> tuple[Floats, Floats]:
        gradient = np.array(scores, order="C")
        losses = np.empty(len(scores), scores.dtype)
        score_rows = scores_kernel(loss, scores.dtype)
        _launch(score_rows, n_threads, labels, loss.parameters, losses, gradient)
        return losses, gradient


def partition(n_rows: int, W_T_shape: tuple[int, int], itemsize: int) -> tuple[int, int]:
    """Rows a block and rows a chunk: whole tiles, whole blocks, from the shape alone."""
    n_classes, n_features = W_T_shape
    fitting = _BLOCK_BYTES // (n_features * itemsize) // kernel.TILE_ROWS * kernel.TILE_ROWS
    block_rows = min(max(fitting, kernel.TILE_ROWS), _MAX_BLOCK_ROWS)
    n_blocks = -(-n_rows // block_rows)
    affordable = max(2, _MAX_PARTIAL_BYTES // (n_classes * n_features * itemsize))
    # A chunk of few blocks would spend its time on its partial gradient.
    worthwhile = max(-(-n_blocks // 4), min(2, n_blocks))
    n_chunks = min(affordable, worthwhile, _MAX_CHUNKS)
    return block_rows, -(-n_blocks // n_chunks) * block_rows


def _round_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple


# --- compiling -----------------------------------------------------------------------------------


def rows_kernel(loss: Loss, X_type: np.dtype[Any], W_type: np.dtype[Any]) -> Callable[..., None]:
    """`kernel.evaluate_rows` for a loss and the types of X and W, from the cache if it is there."""
    return _rows_kernel(_row(loss), len(loss.parameters), X_type, W_type)


def scores_kernel(loss: Loss, dtype: np.dtype[Any]) -> Callable[..., None]:
    """`kernel.score_rows` for a loss and the type of the scores."""
    return _scores_kernel(_row(loss), len(loss.parameters), dtype)


def _row(loss: Loss) -> RowKernel:
    if loss.compiled is None:
        raise ValueError(f"the loss {loss.name!r} has no compiled form")
    return loss.compiled


@cache
def _rows_kernel(
    row: RowKernel, n_parameters: int, X_type: np.dtype[Any], W_type: np.dtype[Any]
) -> Callable[..., None]:
    from numba import boolean, float64, from_dtype, int64, types

    vector_math = set(kernel.VECTOR_MATH)
    number = from_dtype(W_type)
    chunk = _jit(
        kernel.evaluate_chunk,
        pack_block=_jit(kernel.pack_block),
        score_tile=_jit(kernel.score_tile, fastmath=vector_math),
        gradient_tile=_jit(kernel.gradient_tile, fastmath=vector_math),
        suffix=fingerprint(row),
        guarded_row=_guarded(row),
    )
    signature = (
        # Any layout: the rows are packed before use, and one signature serves them all.
        types.Array(from_dtype(X_type), 2, "A", readonly=True),
        types.Array(number, 2, "C", readonly=True),
        types.Array(int64, 1, "C", readonly=True),
        types.Array(float64, 1, "C", readonly=True),
        float64,
        types.UniTuple(float64, n_parameters),
        *(int64, int64, int64, boolean),
        number[:, :, ::1],
        float64[::1],
        number[:, ::1],
    )
    return _compile(kernel.evaluate_rows, row, signature, evaluate_chunk=chunk)


@cache
def _scores_kernel(row: RowKernel, n_parameters: int, dtype: np.dtype[Any]) -> Callable[..., None]:
    from numba import float64, from_dtype, int64, types

    number = from_dtype(dtype)
    signature = (
        types.Array(int64, 1, "C", readonly=True),
        types.UniTuple(float64, n_parameters),
        number[::1],
        number[:, ::1],
    )
    return _compile(kernel.score_rows, row, signature, guarded_row=_guarded(row))


def _guarded(row: RowKernel) -> Any:
    suffix = fingerprint(row)
    return _jit(kernel.guarded_row, suffix=suffix, loss_row=_jit(row, suffix=suffix))


def _jit(
    function: Callable[..., Any], *, suffix: str = "", fastmath: Any = False, **names: Any
) -> Any:
    """The function compiled; with a ``suffix`` to its name if that depends on the loss.

    Numba tells functions of one name apart by a count within the process. Two kernels cached by
    different processes can agree on it, and then the linker would hand one the other's loss.
    """
    from numba import njit

    name = f"{function.__name__}_{suffix}" if suffix else function.__name__
    return njit(
        _bind(function, name, names),
        fastmath=fastmath,
        # IEEE division: 1 / 0 is inf, not an exception that a parallel loop cannot raise.
        error_model="numpy",
        # Called from compiled code only: without the wrappers a kernel compiles a fifth faster.
        no_cpython_wrapper=True,
        no_cfunc_wrapper=True,
    )


def _bind(template: Any, name: str, names: dict[str, Any]) -> Any:
    """A copy of ``template`` called ``name`` that sees ``names`` among its globals.

    Not a closure, because Numba finds no closure in its cache again from another process.
    """
    if not isinstance(template, FunctionType):
        return template
    bound = FunctionType(
        template.__code__, {**template.__globals__, **names}, name, closure=template.__closure__
    )
    bound.__qualname__ = name
    return bound


def _compile(template: Any, row: RowKernel, signature: Any, **names: Any) -> Callable[..., None]:
    """The template as a parallel function with this one signature, from or into the disk cache."""
    from numba import njit, prange

    stem = f"{template.__name__}_{row.__module__.replace('.', '_')}_{row.__name__}"
    name = f"{stem}_{fingerprint(template, row)}"
    function = _bind(template, name, {"prange": prange, **names})
    try:
        compiled = njit(function, parallel=True, cache=True, error_model="numpy")
        _remove_stale(Path(compiled._cache.cache_path), stem, name)
    except RuntimeError:  # no folder that Numba could write its cache to
        compiled = njit(function, parallel=True, error_model="numpy")
    with suppress(OSError):  # a full disk: compiled all the same, but not kept
        compiled.compile(signature)
    if not compiled.signatures:
        compiled = njit(function, parallel=True, error_model="numpy")
        compiled.compile(signature)
    # Otherwise writable inputs would compile a second specialisation.
    compiled.disable_compile()
    return compiled


def cache_folder() -> Path | None:
    """Where compiled kernels are kept; None if no such folder can be written."""
    from numba import njit

    try:
        return Path(njit(kernel.score_rows, cache=True)._cache.cache_path)
    except RuntimeError:
        return None


def cached_kernels() -> list[Path]:
    """The index files of the kernels in the cache."""
    folder = cache_folder()
    return [] if folder is None else sorted(folder.glob("kernel.*.nbi"))


def _remove_stale(folder: Path, stem: str, name: str) -> None:
    """Remove the cached kernels of the same stem but another fingerprint."""
    for path in folder.glob(f"kernel.{stem}_{'[0-9a-f]' * 16}-*.nb[ic]"):
        if f".{name}-" not in path.name:
            with suppress(OSError):
                path.unlink()


def fingerprint(*functions: Any) -> str:
    """A hash of the functions' code and of all they refer to, and of how they are compiled.

    Numba's cache notices a change in the file of the function it compiles, not in its helpers'.
    """
    digest = hashlib.sha256(pkgutil.get_data(__package__, "compiled.py") or b"")
    seen: set[int] = set()

    def add(value: Any) -> None:
        value = getattr(value, "py_func", value)  # a function that is compiled already
        if isinstance(value, FunctionType):
            if id(value) not in seen:
                seen.add(id(value))
                add_code(value.__code__, value.__globals__)
                for cell in value.__closure__ or ():
                    add(cell.cell_contents)
                for default in value.__defaults__ or ():
                    add(default)
        elif isinstance(value, ModuleType):
            digest.update(value.__name__.encode())
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

    for function in functions:
        add(function)
    return digest.hexdigest()[:16]


# --- running -------------------------------------------------------------------------------------


class _Process:
    """What a parallel launch must know of its process."""

    def __init__(self) -> None:
        # Numba's workqueue threads abort the process when two Python threads use them at once.
        self.launch = threading.Lock()
        self.openmp_started = False
        self.forked_from_openmp = False

    def after_fork_in_child(self) -> None:
        self.launch = threading.Lock()
        self.forked_from_openmp = self.openmp_started


_process = _Process()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_process.after_fork_in_child)


def _launch(compiled: Callable[..., None], n_threads: int | None, *arguments: Any) -> None:
    import numba

    with _process.launch, numba_threads(n_threads):
        compiled(*arguments)
        _process.openmp_started = numba.threading_layer() == "omp"


BACKEND = NumbaBackend()

"""Compiles the templates of `kernels` for a loss and a type with Numba, caches and runs them.

Numba is imported when the first kernel is needed, never with the package.

A problem with few classes is bound by reading X, and goes through `kernels.narrow` once. With many
it is bound by arithmetic: `kernels.wide`, and for float32 where there is a matrix unit its products
are those of `kernels.wide_amx`. No N x C matrix is formed either way.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Iterable
from functools import cache, lru_cache, partial
from types import FunctionType, ModuleType
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastloss import threads
from fastloss.arrays import FLOAT_TYPES, Floats
from fastloss.backends.base import Backend, BatchEvaluator, Evaluator, Problem
from fastloss.kernel_cache import compile_cached, cpu_features, kernel_name, numba_unavailable
from fastloss.kernels import narrow, wide, wide_amx
from fastloss.losses.base import BlockKernel, Labels, Loss, exp, log1p

# A block of this size, the next one, W and the partial gradient stay in L2 together.
_BLOCK_BYTES = 256 * 1024
_MAX_BLOCK_ROWS = 128
# Each chunk has a partial gradient, which costs memory and time to add up.
_MAX_CHUNKS = 32
_MIN_CHUNK_ROWS = 128
_MAX_PARTIAL_BYTES = 64 * 2**20
# Below this, waking a second thread takes longer than what it would take over.
_SERIAL_MULTIPLY_ADDS = 3 * 2**20
# Beyond these arithmetic takes longer than reading X.
_MAX_NARROW_CLASSES = 96
# Each block of rows goes through all of W: beyond this it pays only for the fewest classes.
_MAX_NARROW_BYTES = 640 * 1024
_FEWEST_CLASSES = 12
# As in `simd`, which is imported with Numba; of two that fit equally well the wider one.
_TILE_CLASSES = (5, 3)
_CACHE_LINE = 64

_NOTHING = np.empty(0)
_ALL_ROWS = np.empty(0, np.int64)


class FusedBackend(Backend):
    """``backend="fused"``."""

    name: ClassVar[str] = "fused"
    order: ClassVar[int] = 3

    def unavailable(self, loss: Loss | None = None) -> str | None:
        if (why_not := numba_unavailable()) is not None:
            return why_not
        if loss is not None and loss.block is None:
            return f"the loss {loss.name!r} has no block form"
        return None

    def evaluate(
        self, problem: Problem, W: Floats, dW: Floats | None, n_threads: int | None
    ) -> float:
        return self.prepare(problem, W.shape[1], W.dtype)(W, dW, n_threads)

    def prepare(self, problem: Problem, n_classes: int, dtype: np.dtype[Any]) -> Evaluator:
        return _laid_out(problem, n_classes, dtype)

    def prepare_batches(
        self, problem: Problem, n_rows: int, n_classes: int, dtype: np.dtype[Any]
    ) -> BatchEvaluator:
        return _laid_out(problem, n_classes, dtype, n_rows).of_rows

    def score_gradient(
        self, loss: Loss, scores: Floats, labels: Labels, n_threads: int | None
    ) -> tuple[Floats, Floats]:
        gradient = np.array(scores, order="C")
        losses = _run_strips(loss, gradient, labels, n_threads)
        return losses.astype(scores.dtype, copy=False), gradient


def _laid_out(
    problem: Problem, n_classes: int, dtype: np.dtype[Any], n_rows: int | None = None
) -> Narrow | Wide:
    if way(problem.X.shape[1], n_classes, dtype.itemsize) == "narrow":
        return Narrow(problem, n_classes, dtype, n_rows)
    return Wide(problem, n_classes, dtype, n_rows)


# --- one pass over X ------------------------------------------------------------------------------


class Partition(NamedTuple):
    """How the rows of a problem are cut, from its shape alone."""

    tile_classes: int
    block_rows: int
    chunk_rows: int
    partials_shape: tuple[int, int, int]  # chunks, classes, features and the bias; padded


@lru_cache(maxsize=256)
def partition(n_rows: int, n_features: int, n_classes: int, itemsize: int) -> Partition:
    """Whole vectors of classes and features; chunks that are worth a thread's while."""
    tile_classes = min(_TILE_CLASSES, key=lambda width: _round_up(n_classes, width))
    lanes = _CACHE_LINE // itemsize
    n_padded, n_columns = _round_up(n_classes, tile_classes), _round_up(n_features, lanes) + lanes
    fitting = _BLOCK_BYTES // (n_features * itemsize) // lanes * lanes
    block_rows = min(max(fitting, lanes), _MAX_BLOCK_ROWS)
    affordable = max(2, _MAX_PARTIAL_BYTES // (n_padded * n_columns * itemsize))
    n_chunks = min(max(1, n_rows // _MIN_CHUNK_ROWS), affordable, _MAX_CHUNKS)
    if 2 * n_rows * n_features * n_classes < _SERIAL_MULTIPLY_ADDS:
        n_chunks = 1
    chunk_rows = -(-n_rows // n_chunks)
    n_chunks = -(-n_rows // chunk_rows)
    return Partition(tile_classes, block_rows, chunk_rows, (n_chunks, n_padded, n_columns))


def way(n_features: int, n_classes: int, itemsize: int) -> str:
    """The kernel that a problem goes through: "narrow" or "wide"."""
    fits = n_features * n_classes * itemsize <= _MAX_NARROW_BYTES or n_classes <= _FEWEST_CLASSES
    return "narrow" if fits and n_classes <= _MAX_NARROW_CLASSES else "wide"


class Narrow:
    """A problem, laid out for the narrow kernel; ``n_rows``: for so many of its rows at a time."""

    def __init__(
        self, problem: Problem, n_classes: int, dtype: np.dtype[Any], n_rows: int | None = None
    ) -> None:
        self._loss = loss_kernel(problem.loss, dtype)  # kept, so that its address stays valid
        self._kernel = narrow_kernel(problem.X.dtype, dtype)
        self._divisor = problem.divisor
        n_all, n_features = problem.X.shape
        self._cut = cut = partition(n_rows or n_all, n_features, n_classes, dtype.itemsize)
        self._labels = problem.labels
        self._weights = _NOTHING if problem.weights is None else problem.weights
        self._fixed = (
            1.0 / problem.divisor,
            self._loss.address,
            np.array(problem.loss.parameters),
            cut.chunk_rows,
            cut.block_rows,
            cut.tile_classes,
        )
        self._X = problem.X
        self._no_gradient = np.empty((0, n_classes), dtype)

    def __call__(self, W: Floats, dW: Floats | None, n_threads: int | None) -> float:
        return self.of_rows(_ALL_ROWS, W, dW, n_threads)

    def of_rows(
        self, rows: NDArray[np.int64], W: Floats, dW: Floats | None, n_threads: int | None
    ) -> float:
        n_chunks, n_classes, n_columns = self._cut.partials_shape
        shape = (n_chunks, n_classes, 0 if dW is None else n_columns)
        chunk_losses = np.empty(n_chunks)
        arguments = (
            self._X,
            W if W.flags.c_contiguous else np.ascontiguousarray(W),
            self._labels,
            self._weights,
            rows,
            *self._fixed,
            np.zeros(3, np.int64),
            _scratch.array(shape, W.dtype),
            chunk_losses,
            self._no_gradient if dW is None else dW,
        )
        _run(self._kernel, arguments, n_threads, n_chunks)
        return float(sum(chunk_losses.tolist())) / self._divisor


class _Scratch(threading.local):
    """Memory that a thread uses again at its next call: fresh pages would cost a tenth of it."""

    _MAX_BYTES = 16 * 2**20

    def __init__(self) -> None:
        self._buffer = _aligned(0)

    def array(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Floats:
        """An array on a cache line, with whatever in it."""
        n_bytes = math.prod(shape) * dtype.itemsize
        buffer = self._buffer
        if len(buffer) < n_bytes:
            buffer = _aligned(n_bytes)
            if n_bytes <= self._MAX_BYTES:
                self._buffer = buffer
        return np.ndarray(shape, dtype, buffer)


def _aligned(n_bytes: int) -> NDArray[np.uint8]:
    buffer = np.empty(n_bytes + _CACHE_LINE, np.uint8)
    start = -buffer.ctypes.data % _CACHE_LINE
    return buffer[start : start + n_bytes]


_scratch = _Scratch()


# --- many classes ---------------------------------------------------------------------------------

# Rows that are worked on at once have so many bytes in X and in the scores.
_WIDE_BYTES = 15 * 2**20
# With fewer, adding to dW would take as long as what is added.
_MIN_WIDE_ROWS = 512
# But of larger scores they are a fifth at most.
_SCORES_BYTES = 32 * 2**20
# With fewer rows or features splitting numbers for the matrix unit takes longer than it saves.
_MIN_MATRIX_ROWS = 64
_MIN_MATRIX_SUM = 48
# Rows are padded to whole strips of two vectors, which on AVX-512 have so many bytes.
STRIP_BYTES = 128


class Wide:
    """A problem, laid out for the kernel of many classes; ``n_rows``: for so many at a time."""

    def __init__(
        self, problem: Problem, n_classes: int, dtype: np.dtype[Any], n_rows: int | None = None
    ) -> None:
        self._loss = loss_kernel(problem.loss, dtype)  # kept, so that its address stays valid
        self._problem = problem
        self._fixed = (
            1.0 / problem.divisor,
            self._loss.address,
            np.array(problem.loss.parameters),
        )
        self._weights = _NOTHING if problem.weights is None else problem.weights
        self._widths = strip, _ = product_widths(dtype)
        n_rows, n_features = n_rows or len(problem.X), problem.X.shape[1]
        self._n_parameters = n_parameters = n_features + problem.intercept
        self._units = units(n_rows, n_parameters, dtype)
        wide_kernel(problem.X.dtype, dtype, self._units[0])
        row_numbers = self._columns(self._units[0]) + n_classes
        self._block_rows = wide_rows(n_rows, row_numbers, n_classes, strip, dtype.itemsize)
        self._is_serial = n_rows * n_parameters * n_classes < _SERIAL_MULTIPLY_ADDS / 2
        self._no_gradient = np.empty((0, n_classes), dtype)

    def __call__(self, W: Floats, dW: Floats | None, n_threads: int | None) -> float:
        return self.of_rows(_ALL_ROWS, W, dW, n_threads)

    def of_rows(
        self, rows: NDArray[np.int64], W: Floats, dW: Floats | None, n_threads: int | None
    ) -> float:
        W = np.ascontiguousarray(W)
        n_rows = len(rows) or len(self._problem.X)
        losses = np.zeros(n_rows)
        n_threads = 1 if self._is_serial else n_threads or threads.available_threads()
        for start in range(0, n_rows, self._block_rows):
            stop = min(n_rows, start + self._block_rows)
            for unit in self._units:
                if self._run_block(unit, rows, W, start, stop, losses, dW, n_threads):
                    break
        return float(losses.sum()) / self._problem.divisor

    def _run_block(
        self,
        unit: str,
        rows: NDArray[np.int64],
        W: Floats,
        start: int,
        stop: int,
        losses: NDArray[np.float64],
        dW: Floats | None,
        n_threads: int,
    ) -> bool:
        """Whether a unit could do it; if not, the losses are to be written again."""
        problem = self._problem
        kernel = wide_kernel(problem.X.dtype, W.dtype, unit)
        strips, scores = self._room(self._columns(unit), stop - start, W)
        are_bad = np.empty(scores.shape[::2], W.dtype)
        for stage in range(3 if dW is None else 4):
            counters = np.zeros(3, np.int64)
            arguments = (
                stage,
                problem.X,
                W,
                problem.labels,
                self._weights,
                rows,
                *self._fixed,
                start,
                stop,
                strips,
                scores,
                are_bad,
                counters,
                losses,
                self._no_gradient if dW is None else dW,
                n_threads,
            )
            _run(kernel, arguments, n_threads)
            if not wide_amx.is_in_range(int(counters[2]), stage):
                return False
        return True

    def _columns(self, unit: str) -> int:
        """What a strip of X takes, in columns."""
        strip, tile_rows = self._widths
        if unit == "amx":
            # Blocks of bfloat16: half the bytes for each part.
            n_parts = 1 if self._problem.X.dtype == np.uint8 else 3
            return n_parts * _round_up(self._n_parameters, strip) // 2
        # One more feature, 0, for sums of an even number; and so many that a tile's rows of one
        # strip lie beside those of the next in the cache, rather than in their place.
        period = 4096 // STRIP_BYTES
        return self._n_parameters + 1 + (tile_rows - self._n_parameters - 1) % period

    def _room(self, n_columns: int, n_rows: int, W: Floats) -> tuple[Floats, Floats]:
        """Room for the strips of X and of scores of a block, which vectors may read beyond."""
        strip, tile_rows = self._widths
        n_strips, n_classes = -(-n_rows // strip), W.shape[1]
        n_used = n_strips * n_columns * strip
        n_all = n_used + n_strips * n_classes * strip
        room = _scratch.array((n_all + tile_rows * strip,), W.dtype)
        return (
            room[:n_used].reshape(n_strips, n_columns, strip),
            room[n_used:n_all].reshape(n_strips, n_classes, strip),
        )


def units(n_rows: int, n_parameters: int, dtype: np.dtype[Any]) -> tuple[str, ...]:
    """What the products of many classes run on: the first, or if numbers do not fit in the next."""
    from fastloss.kernels import amx

    pays = dtype == np.float32 and n_rows >= _MIN_MATRIX_ROWS and n_parameters >= _MIN_MATRIX_SUM
    return ("amx", "vectors") if pays and amx.is_usable() else ("vectors",)


def wide_rows(n_rows: int, row_numbers: int, n_classes: int, strip: int, itemsize: int) -> int:
    """Rows a block, from the shape alone: whole strips, and blocks that have about as many."""
    most = max(_WIDE_BYTES // (row_numbers * itemsize), _MIN_WIDE_ROWS)
    if n_rows * n_classes * itemsize > _SCORES_BYTES:
        most = min(most, -(-n_rows // 5))
    return _round_up(-(-n_rows // -(-n_rows // most)), strip)


# --- losses of scores that are there already ------------------------------------------------------

# A strip of rows stays in L2 while the loss runs over it.
_L2_BYTES = 512 * 1024


def _run_strips(loss: Loss, scores: Floats, labels: Labels, n_threads: int | None) -> Floats:
    """The losses of all rows; ``scores`` become the gradient."""
    n_rows, n_classes = scores.shape
    # Whole vectors of rows, within L2 if that can be.
    fitting = _L2_BYTES // (n_classes * scores.itemsize)
    strip_rows = min(max(fitting, 16), 128) // 16 * 16
    losses = np.empty(n_rows)
    compiled, evaluate = loss_kernel(loss, scores.dtype), strips_kernel(scores.dtype)
    parameters, counters = np.array(loss.parameters), np.zeros(2, np.int64)
    arguments = scores, labels, compiled.address, parameters, strip_rows, counters, losses
    n_strips = -(-n_rows // strip_rows)
    _run(evaluate, arguments, n_threads, n_strips if scores.size > 50_000 else 1)
    return losses


def _run(
    function: Callable[..., bool],
    arguments: tuple[Any, ...],
    n_threads: int | None,
    most: int | None = None,
) -> None:
    """On as many threads as are asked for (None: all), and as there is work for."""
    n = threads.available_threads() if n_threads is None else n_threads
    n = n if most is None else min(n, most)
    if n > 1:
        threads.team.run(function, arguments, n)
    else:
        function(*arguments)


def _round_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple


# --- compiling -----------------------------------------------------------------------------------


KernelSet = tuple[str, tuple[str, ...], Callable[[], object]]


def all_kernels(losses: Iterable[Loss], X_types: Iterable[np.dtype[Any]]) -> list[KernelSet]:
    """`kernels_of` all problems with these losses and types of X."""
    sets: dict[str, KernelSet] = {}
    for X in X_types:
        if X not in (*FLOAT_TYPES, np.uint8):
            raise ValueError(f"dtype must be float32, float64 or uint8, got {X}")
        for W in FLOAT_TYPES if np.uint8 == X else (X,):
            for loss in losses:
                for shape in ((100, 10, 10), (100, 10, 1000), (100, 0, 10)):
                    if loss.block is not None:
                        one = kernels_of(loss, shape, X, W)
                        sets[one[0]] = one
    return list(sets.values())


def kernels_of(
    loss: Loss, shape: tuple[int, int, int], X_type: np.dtype[Any], W_type: np.dtype[Any]
) -> KernelSet:
    """What a problem needs to be compiled: a title, the kernels' names, and what does it.

    Without importing Numba. No features: the scores are there already.
    """
    block = loss.block
    assert block is not None
    kind = way(*shape[1:], W_type.itemsize) if shape[1] > 0 else "strips"
    kernel: Callable[[], object]
    if kind == "strips":
        names, kernel = [_strips_name(W_type)], partial(strips_kernel, W_type)
    elif kind == "narrow":
        names = [_narrow_name(X_type, W_type)]
        kernel = partial(narrow_kernel, X_type, W_type)
    else:
        names = [_wide_name(X_type, W_type, unit) for unit in _likely_units(W_type)]
        kernel = partial(_wide_kernels, X_type, W_type)

    def make() -> None:
        loss_kernel(loss, W_type)
        kernel()

    n_parameters = len(loss.parameters)
    names.append(_loss_name(block, n_parameters, W_type))
    kind = kind if kind == "strips" else f"{kind}-{X_type}"
    title = f"{kind}-{W_type}-{block.__module__}.{block.__name__}-{n_parameters}"
    return title, tuple(names), make


@cache
def _loss_name(block: BlockKernel, n_parameters: int, dtype: np.dtype[Any]) -> str:
    module = block.__module__.replace(".", "_")
    return kernel_name(f"{module}_{block.__name__}_{n_parameters}_{dtype}", block)


@cache
def _narrow_name(X_type: np.dtype[Any], W_type: np.dtype[Any]) -> str:
    return kernel_name(f"narrow_{X_type}_{W_type}", narrow.evaluate)


@cache
def _wide_name(X_type: np.dtype[Any], W_type: np.dtype[Any], unit: str) -> str:
    return kernel_name(f"wide_{unit}_{X_type}_{W_type}", wide.evaluate)


@cache
def _strips_name(dtype: np.dtype[Any]) -> str:
    return kernel_name(f"strips_{dtype}", narrow.evaluate_strips)


def _likely_units(W_type: np.dtype[Any]) -> tuple[str, ...]:
    """The units that `units` finds with Numba, as far as can be told without it."""
    wanted = {"avx512f", "amx_tile", "amx_bf16"}
    has_unit = wanted <= cpu_features() and os.environ.get("FASTLOSS_AMX") != "0"
    return ("amx", "vectors") if has_unit and W_type == np.float32 else ("vectors",)


@cache
def narrow_kernel(X_type: np.dtype[Any], W_type: np.dtype[Any]) -> Callable[..., bool]:
    """`narrow.evaluate` for the types of X and W, from the cache if it is there."""
    from numba import float64, from_dtype, int64

    from fastloss.kernels import simd

    number, source = from_dtype(W_type), from_dtype(X_type)
    names = _names(W_type)
    names |= {
        "score_tile": simd.score_tile(number),
        "gradient_strip": simd.gradient_tile(number, simd.target().tile_vectors),
        "gradient_vector": simd.gradient_tile(number, 1),
        "convert": simd.copy_vector(source, number),
    }
    for helper in (
        narrow.pack_rows,
        narrow.collect_rows,
        narrow.add_losses,
        narrow.score_block,
        narrow.add_gradient,
        narrow.add_partials,
    ):
        _add_helper(names, helper)
    signature = (
        *_problem_types(source, number),
        *(int64, int64, int64),
        int64[::1],
        number[:, :, ::1],
        float64[::1],
        number[:, ::1],
    )
    return _compile_kernel(narrow.evaluate, _narrow_name(X_type, W_type), names, signature)


@cache
def wide_kernel(X_type: np.dtype[Any], W_type: np.dtype[Any], unit: str) -> Callable[..., bool]:
    """`wide.evaluate` for the types of X and W, with the products of `wide` or of `matrix`."""
    from numba import float64, from_dtype, int64

    from fastloss.kernels import simd

    number, source = from_dtype(W_type), from_dtype(X_type)
    names = _names(W_type)
    names["convert"] = simd.copy_vector(source, number)
    if unit == "vectors":
        products: ModuleType = wide
        names["STRIP"], names["PRODUCT_ROWS"] = product_widths(W_type)
        names["product_tile"] = simd.product_tile(number)
    else:
        products = wide_amx
        names |= _names_of_amx(X_type)
    for helper in (
        narrow.pack_rows,
        wide.share,
        wide.piece,
        wide.rows_together,
        products.panel_size,
        products.lay_out,
        products.apply,
        products.score_piece,
        products.gradient_piece,
    ):
        _add_helper(names, helper)
    signature = (
        int64,
        *_problem_types(source, number),
        *(int64, int64),
        number[:, :, ::1],
        number[:, :, ::1],
        number[:, ::1],
        int64[::1],
        float64[::1],
        number[:, ::1],
        int64,
    )
    return _compile_kernel(wide.evaluate, _wide_name(X_type, W_type, unit), names, signature)


def _wide_kernels(X_type: np.dtype[Any], W_type: np.dtype[Any]) -> None:
    """Of all units: a problem may need more than one."""
    for unit in units(_MIN_MATRIX_ROWS, _MIN_MATRIX_SUM, W_type):
        wide_kernel(X_type, W_type, unit)


def _names_of_amx(X_type: np.dtype[Any]) -> dict[str, Any]:
    """What the names of `kernels.wide_amx` are bound to, and of `kernels.wide` for it."""
    from fastloss.kernels import amx

    n_parts, most = 1 if X_type == np.uint8 else amx.MOST_PARTS, amx.MOST_PARTS
    return {
        "STRIP": amx.BLOCK,
        "PRODUCT_ROWS": amx.BLOCK,
        "X_BYTES": n_parts * amx.PART_BYTES,
        "WHOLE_BYTES": most * amx.PART_BYTES,
        "split_X": amx.split_block(n_parts, True),
        "split_left": amx.split_block(most, True),
        "split_right": amx.split_block(most, False),
        "turn_blocks": amx.turn_blocks(n_parts),
        "PREFETCHED": amx.PREFETCHED_LINES * 64,
        "score_product": amx.matrix_tile(most, n_parts),
        "gradient_product": amx.matrix_tile(n_parts, most),
        "scale_strip": amx.scale_strip,
        "configure": amx.configure,
        "release": amx.release,
    }


def _problem_types(source: Any, number: Any) -> tuple[Any, ...]:
    """Of X, W, labels, weights, rows, the scale, the loss's address and its parameters."""
    from numba import float64, int64, types

    integers, floats = (types.Array(t, 1, "C", readonly=True) for t in (int64, float64))
    # Any layout: one signature serves them all, rows in place and rows to pack.
    X, W = types.Array(source, 2, "A", readonly=True), types.Array(number, 2, "C", readonly=True)
    return X, W, integers, floats, integers, float64, int64, floats


def product_widths(dtype: np.dtype[Any]) -> tuple[int, int]:
    """How many numbers a strip has, and how many rows a product tile."""
    from fastloss.kernels import simd

    target = simd.target()
    strip = simd.PRODUCT_VECTORS * target.vector_bytes // dtype.itemsize
    return strip, target.product_rows


@cache
def strips_kernel(dtype: np.dtype[Any]) -> Callable[..., bool]:
    """`narrow.evaluate_strips` for the type of the scores."""
    from numba import float64, from_dtype, int64, types

    names = _names(dtype)
    signature = (
        from_dtype(dtype)[:, ::1],
        types.Array(int64, 1, "C", readonly=True),
        int64,
        types.Array(float64, 1, "C", readonly=True),
        int64,
        int64[::1],
        float64[::1],
    )
    return _compile_kernel(narrow.evaluate_strips, _strips_name(dtype), names, signature)


def _names(dtype: np.dtype[Any]) -> dict[str, Any]:
    """What the names that both kernels share are bound to."""
    from numba import from_dtype, njit

    from fastloss.kernels import simd

    target = simd.target()
    lanes = target.vector_bytes // dtype.itemsize
    names = {
        "LANES": lanes,
        "ITEMSIZE": dtype.itemsize,
        "TILE_ROWS": target.tile_rows,
        "STRIP_VECTORS": target.tile_vectors,
        "ROWS_STEP": max(lanes, target.tile_rows),
        "address": simd.address,
        "call_loss": simd.call,
        "fetch_add": simd.fetch_add,
        "read_shared": simd.read_shared,
        "raise_to": simd.raise_to,
        "transpose": simd.transpose(from_dtype(dtype)),
    }
    # Called again and again: a function of its own, and of a name of its own, as `compile_cached`
    # says of kernels.
    name = kernel_name(f"aligned_{dtype}", narrow.aligned)
    names["aligned"] = njit(_bind(narrow.aligned, name, names), error_model="numpy")
    for helper in (narrow.are_finished, narrow.loss_of_rows):
        _add_helper(names, helper)
    return names


def _add_helper(names: dict[str, Any], helper: Any) -> None:
    """Bind a helper, with the names bound so far.

    Inlined before types are inferred: as a function of its own LLVM would optimise it twice.
    """
    from numba import njit

    bound = _bind(helper, helper.__name__, names)
    names[helper.__name__] = njit(bound, inline="always", error_model="numpy")


def loss_kernel(loss: Loss, dtype: np.dtype[Any]) -> Any:
    """The compiled form of a loss for the type of the scores: a C function with an ``address``."""
    if loss.block is None:
        raise ValueError(f"the loss {loss.name!r} has no block form")
    return _loss_kernel(loss.block, len(loss.parameters), dtype)


@cache
def _loss_kernel(block: BlockKernel, n_parameters: int, dtype: np.dtype[Any]) -> Any:
    from numba import carray, cfunc, float64, from_dtype, int64, njit, types
    from numba.np.unsafe.ndarray import to_fixed_tuple

    from fastloss.kernels import simd

    vectorized = {exp: simd.exp, log1p: simd.log1p}
    functions = {
        name: vectorized[value]
        for name, value in block.__globals__.items()
        if isinstance(value, FunctionType) and value in vectorized
    }
    # Inlined: as a function of its own it would need a name of its own, and be optimised twice.
    bound = _bind(block, block.__name__, functions)
    names = {
        "block": njit(bound, error_model="numpy", inline="always"),
        "carray": carray,
        "to_fixed_tuple": to_fixed_tuple,
        "prefer_wide_vectors": simd.prefer_wide_vectors,
        "N_PARAMETERS": n_parameters,
    }
    pointer = types.CPointer
    signature = types.void(
        pointer(from_dtype(dtype)), int64, int64, pointer(int64), pointer(float64), pointer(float64)
    )
    name = _loss_name(block, n_parameters, dtype)
    return compile_cached(_bind(narrow.loss_entry, name, names), name, signature, cfunc)


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


def _compile_kernel(template: Any, name: str, names: dict[str, Any], signature: Any) -> Any:
    """A template with its names bound, as a function that Python can call."""
    from numba import njit

    bound = _bind(template, name, names)
    return compile_cached(bound, name, signature, njit, no_cfunc_wrapper=True)


BACKEND = FusedBackend()

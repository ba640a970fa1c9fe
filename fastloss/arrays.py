"""Validate arguments: convert them to arrays and numbers that kernels can trust.

Every array argument of the package passes through this module once. It checks the kind (TypeError),
then the shape and the values (ValueError). A message names the argument, the value received, the
value expected and the first bad place. Arrays that a kernel can read are not copied, whatever their
strides, and whether read-only or memory-mapped. Numbers, including NumPy's, become Python's own;
True and False are not numbers.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal, SupportsInt, TypeGuard, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastloss import advice
from fastloss.passes import pass_over
from fastloss.rows_on_disk import LazyRows

#: Label of a skipped row in validated labels.
SKIP = -1

#: Most classes. W has a column per class; larger labels are row ids or hashes, and would fill
#: the memory.
MOST_CLASSES = 2**20

#: Dtypes of W and of scores, and those of X.
FLOAT_TYPES = (np.dtype(np.float32), np.dtype(np.float64))
ROW_TYPES = (np.dtype(np.float16), *FLOAT_TYPES, np.dtype(np.uint8))
ROW_TYPE_NAMES = "float16, float32, float64 or uint8"

Floats = NDArray[np.floating[Any]]
ClassWeight = Mapping[int, float] | Literal["balanced"]

#: Context of arithmetic that may overflow, underflow or give NaN, whatever `numpy.errstate` the
#: caller has set.
ieee_arithmetic = partial(np.errstate, over="ignore", under="ignore", invalid="ignore")


def as_integer(name: str, value: object, least: int | None = None, most: int | None = None) -> int:
    """Return ``value`` as an int; raise unless it is an integer from ``least`` to ``most``."""
    if not is_integer(value):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    number = int(value)
    if (least is not None and number < least) or (most is not None and number > most):
        expected = f">= {least}" if most is None else f"in [{least}, {most}]"
        raise ValueError(f"{name} must be {expected}, got {number}")
    return number


def is_integer(value: object) -> TypeGuard[SupportsInt]:
    """Return whether ``value`` is an integer, Python's or NumPy's, and not True or False."""
    # int first, because a check against an abstract class takes longer.
    return isinstance(value, (int, numbers.Integral)) and not isinstance(value, bool)


def as_real(
    name: str,
    value: object,
    *,
    least: float = 0.0,
    above: float | None = None,
    below: float = math.inf,
    finite: bool = True,
) -> float:
    """Return ``value`` as a float; raise unless it is real, >= ``least`` and < ``below``.

    ``above`` replaces ``least``: the number must be > ``above``. ``finite=False`` allows infinity.
    """
    if not isinstance(value, (float, numbers.Real)) or isinstance(value, bool):
        raise TypeError(f"{name} must be a real number, got {value!r}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    is_large_enough = number >= least if above is None else number > above
    if not is_large_enough or (finite and number >= below):
        expected = f">= {least:g}" if above is None else f"> {above:g}"
        if below < math.inf:
            expected = f"in [{least:g}, {below:g})"
        elif finite:
            expected = f"finite and {expected}"
        raise ValueError(f"{name} must be {expected}, got {number!r}")
    return number


def convert(record: object, name: str, as_kind: Callable[..., object], **limits: Any) -> None:
    """Convert a field of a frozen dataclass with `as_integer`, `as_real` or the like."""
    object.__setattr__(record, name, as_kind(name, getattr(record, name), **limits))


def as_bool(name: str, value: object) -> bool:
    """Return ``value`` as a bool; raise unless it is True or False (1 and "yes" are errors)."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be True or False, got {value!r}")
    return bool(value)


def as_choice(name: str, value: object, choices: tuple[str, ...]) -> str:
    """Return ``value``; raise unless it is one of the choices."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name} must be {' or '.join(map(repr, choices))}, got {value!r}")
    return str(value)


def as_array(name: str, value: ArrayLike) -> NDArray[Any]:
    """Return ``value`` as a plain, aligned ndarray in the byte order of this machine.

    ``value`` may be anything that NumPy can read, also through DLPack or ``to_numpy``. Conversions
    that would lose information raise a TypeError: masked arrays, tensors that require a gradient,
    sparse matrices.
    """
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name} is a masked array; fill it, or leave the masked rows out")
    try:
        array = np.asarray(_readable(value))
    except MemoryError:
        raise
    except Exception as error:  # other libraries raise errors of their own types
        kind = ValueError if isinstance(error, ValueError) else TypeError
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        hint = advice.on_conversion(name, value)
        raise kind(f"{name} cannot be made into an array: {reason}{hint}") from None
    if array.dtype == object:
        found = f"{type(value).__name__} (dtype object){advice.on_objects(name, value, array)}"
        raise TypeError(f"{name} must be a numeric array, got {found}")
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    return np.require(array, requirements="A")


def _readable(value: Any) -> Any:
    """Return ``value``, exported if NumPy would treat it as a single object."""
    if isinstance(value, (np.ndarray, list, tuple)) or hasattr(value, "__array__"):
        return value
    if hasattr(value, "__dlpack__"):
        return np.from_dlpack(value)
    return value.to_numpy() if hasattr(value, "to_numpy") else value


def _check_matrix(name: str, array: NDArray[Any], shape: str, hint: str) -> None:
    if array.ndim != 2:
        raise ValueError(f"{name} must be a matrix {shape}, got shape {array.shape}{hint}")
    if 0 in array.shape:
        raise ValueError(f"{name} must not be empty, got shape {array.shape}")


def as_weights(W: ArrayLike) -> Floats:
    """Return ``W`` (D, C) as float32 or float64; raise unless it has at least two classes."""
    array = as_array("W", W)
    if array.dtype not in FLOAT_TYPES:
        hint = advice.on_float_type("W", W, array)
        raise TypeError(f"W must be float32 or float64, got {array.dtype}{hint}")
    _check_matrix("W", array, "(D, C)", advice.on_weight_vector(array))
    check_n_classes("W", array, advice.on_weight_vector(array))
    return array


def weight_types(X_type: np.dtype[Any]) -> tuple[np.dtype[Any], ...]:
    """Return the dtypes that ``W`` may have for rows of ``X_type``, the default first."""
    return (X_type,) if X_type in FLOAT_TYPES else FLOAT_TYPES


def check_n_classes(name: str, array: NDArray[Any], hint: str = "") -> None:
    """Raise unless ``array`` has at least two columns (classes)."""
    if array.shape[1] < 2:
        raise ValueError(
            f"{name} must have at least 2 columns (classes), got shape {array.shape}{hint}"
        )


def as_rows(X: ArrayLike, *, cast_integers: bool = False) -> NDArray[Any]:
    """Return ``X`` (N, D); raise unless its dtype is one of `ROW_TYPES`.

    ``cast_integers`` also accepts bools and other integers that float32 holds exactly.
    """
    array = cast("NDArray[Any]", X) if isinstance(X, LazyRows) else as_array("X", X)
    is_other = array.dtype.kind in "biu" and array.dtype != np.uint8
    if cast_integers and is_other and advice.is_exact_in_float32(array):
        array = array.astype(np.float32)
    if array.dtype not in ROW_TYPES:
        hint = advice.on_float_type("X", X, array)
        raise TypeError(f"X must be {ROW_TYPE_NAMES}, got {array.dtype}{hint}")
    _check_matrix("X", array, "(N, D)", advice.on_row_shape("X", X, array))
    return array


def check_finite(
    name: str,
    array: NDArray[Any],
    counts: NDArray[np.bool_] | None = None,
    source: object = None,
) -> None:
    """Raise at the first entry that is not finite, in all rows or in those of the mask (N,).

    ``source`` is the caller's value of ``array``; the message names the column of a data frame.
    """
    if array.dtype.kind != "f":
        return
    for block in pass_over(array, max(1, array[:1].nbytes)):
        bad = ~np.isfinite(array[block])
        if counts is not None:
            bad[~counts[block]] = False
        if bad.any():
            row, *others = (int(i) for i in np.argwhere(bad)[0])
            place = (block.start + row, *others)
            where = advice.entry(name, place, source)
            hint = "; drop rows without a label" if name == "y" and np.isnan(array[place]) else ""
            raise ValueError(f"{where} is {array[place]}, expected a finite number{hint}")


def as_scores(scores: ArrayLike) -> Floats:
    """Return ``scores`` (N, C), float32 or float64; raise unless they have two classes or more."""
    array = as_array("scores", scores)
    if array.dtype not in FLOAT_TYPES:
        hint = advice.on_float_type("scores", scores, array)
        raise TypeError(f"scores must be float32 or float64, got {array.dtype}{hint}")
    _check_matrix("scores", array, "(N, C)", advice.on_row_shape("scores", scores, array))
    check_n_classes("scores", array)
    return array


def as_floats(name: str, value: ArrayLike) -> Floats:
    """Return ``value`` as float32 or float64 of any shape; other real numbers become float64."""
    array = as_array(name, value)
    if array.dtype.kind not in "iuf":
        raise TypeError(f"{name} must hold real numbers, got {array.dtype}")
    return array if array.dtype in FLOAT_TYPES else array.astype(np.float64)


def as_row_numbers(rows: ArrayLike, n_rows: int) -> NDArray[np.int64]:
    """Return ``rows`` (K,) as contiguous int64; raise unless all are in [0, ``n_rows``)."""
    if isinstance(rows, slice):
        raise TypeError(f"rows must hold integers, got {rows}; pass np.arange(start, stop)")
    # Validating a plain array would take longer than a small batch.
    array = rows if type(rows) is np.ndarray else as_array("rows", rows)
    if array.ndim != 1:
        raise ValueError(
            f"rows must select at least one row in one dimension, got shape {array.shape}"
        )
    if not array.size:
        return np.empty(0, np.int64)
    if array.dtype.kind not in "iu":
        hint = "; pass np.flatnonzero(rows)" if array.dtype == bool else ""
        raise TypeError(f"rows must hold integers, got {array.dtype}{hint}")
    # Kernels do not check bounds. A cast before this check could wrap a huge unsigned number round.
    if array.min() < 0 or array.max() >= n_rows:
        bad = array[(array < 0) | (array >= n_rows)]
        raise IndexError(f"rows must be in [0, {n_rows}), got {bad[0]}")
    return np.ascontiguousarray(array, np.int64)


def as_selection(rows: slice | ArrayLike, n_rows: int) -> slice | NDArray[np.int64]:
    """Return ``rows`` as a slice or as row numbers; a mask must have shape (``n_rows``,)."""
    if isinstance(rows, slice):
        return rows
    array = as_array("rows", rows)
    if array.dtype != bool:
        return as_row_numbers(array, n_rows)
    if array.shape != (n_rows,):
        raise IndexError(f"rows must be a mask of shape ({n_rows},), got {array.shape}")
    return np.flatnonzero(array)


def as_labels(
    y: ArrayLike,
    n_rows: int,
    ignore_index: int | None = None,
    rows_of: str = "X",
    skipped: NDArray[np.bool_] | None = None,
) -> NDArray[np.int64]:
    """Return ``y`` (N,) or (N, 1) as contiguous int64 (N,) >= 0.

    Labels are `SKIP` where ``skipped`` is True or ``y`` equals ``ignore_index``. The number of
    classes is not known here; `check_label_range` checks the upper bound.
    """
    array = flat_column(as_array("y", y))
    if array.ndim != 1:
        hint = advice.on_label_shape(y, array, n_rows)
        raise ValueError(f"y must have shape ({n_rows},), got {array.shape}{hint}")
    if array.dtype.kind not in "iu":
        hint = advice.on_label_type(y, array)
        raise TypeError(f"y must hold integers, got {array.dtype}{hint}")
    if len(array) != n_rows:
        raise ValueError(f"y has {len(array)} labels, but {rows_of} has {n_rows} rows")
    if skipped is None:
        skipped = np.zeros(n_rows, dtype=bool)
    if is_integer(ignore_index):
        skipped = skipped | (array == ignore_index)
    elif ignore_index is not None:
        raise TypeError(f"ignore_index must be an integer or None, got {ignore_index!r}")
    # Check before the cast: a huge unsigned label must not wrap round to a valid one.
    out_of_range = (array < 0) | (array > np.iinfo(np.int64).max)
    bad = np.flatnonzero(out_of_range & ~skipped)
    if bad.size:
        hint = advice.on_negative_labels(array[~skipped])
        raise ValueError(f"y[{bad[0]}] = {array[bad[0]]} is not in [0, C){hint}")
    labels = array.astype(np.int64)
    labels[skipped] = SKIP
    return labels


def flat_column(array: NDArray[Any]) -> NDArray[Any]:
    """Return a column (N, 1) as (N,), and any other array unchanged."""
    return array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array


def check_label_range(labels: NDArray[np.int64], highest: int, n_classes: int) -> None:
    """Raise at the first of ``labels`` >= ``n_classes``; ``highest`` is their maximum."""
    if highest >= n_classes:
        i = int(np.argmax(labels >= n_classes))
        hint = advice.on_large_labels(labels[labels != SKIP], n_classes)
        raise ValueError(f"y[{i}] = {labels[i]} is not in [0, {n_classes}){hint}")


def count_classes(labels: NDArray[np.int64]) -> int:
    """Return the largest label plus one; raise if it is too large, as row ids or hashes are."""
    n_classes = 1 + int(labels.max())
    check_label_range(labels, n_classes - 1, MOST_CLASSES)
    return n_classes


def check_out(out: object, W: Floats, inputs: Mapping[str, object]) -> None:
    """Raise unless ``dW`` can be written to ``out`` without overwriting an input."""
    if not isinstance(out, np.ndarray):
        raise TypeError(f"out must be an ndarray, got {type(out).__name__}")
    if out.dtype != W.dtype:
        raise TypeError(f"out must have the dtype of W, {W.dtype}, got {out.dtype}")
    if out.shape != W.shape:
        raise ValueError(f"out must have the shape of W, {W.shape}, got {out.shape}")
    if not out.flags.writeable:
        raise ValueError("out is read-only")
    check_overlap(out, {"W": W, **inputs})


def check_overlap(out: object, inputs: Mapping[str, object]) -> None:
    """Raise if ``out`` shares memory with an input."""
    for name, array in inputs.items():
        if not (isinstance(out, np.ndarray) and isinstance(array, np.ndarray)):
            continue
        if _overlap(out, array):
            raise ValueError(f"out overlaps {name} in memory; pass an array of its own")


def _overlap(a: NDArray[Any], b: NDArray[Any]) -> bool:
    try:
        # NumPy's stubs allow two values only, but any bound is valid.
        return np.shares_memory(a, b, max_work=10_000)  # type: ignore[arg-type]
    except np.exceptions.TooHardError:
        return True

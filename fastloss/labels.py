"""Convert labels of any kind (strings, integers, bools, floats) to class numbers in [0, C)."""

from __future__ import annotations

import numbers
import reprlib
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastloss import advice, arrays

# More fractions than this are numbers to predict, as in a regression, and no labels.
_MOST_FRACTIONS = 100
# Classes that an error message lists.
_LISTED = 10


def as_classes(classes: ArrayLike | None, n_classes: int) -> NDArray[Any]:
    """Return the labels (C,) of the classes; None gives the numbers from 0 to C - 1.

    Raises
    ------
    TypeError, ValueError : labels of mixed kinds, another number of them, or one label twice.
    """
    if classes is None:
        return np.arange(n_classes)
    values = _as_values("classes", classes)
    if values.shape != (n_classes,):
        raise ValueError(f"classes has shape {values.shape}, expected ({n_classes},)")
    distinct, counts = np.unique(values, return_counts=True)
    if len(distinct) < n_classes:
        raise ValueError(f"classes has {distinct[counts > 1].tolist()[0]!r} more than once")
    return values


def distinct_classes(values: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Return the sorted distinct labels (C,), and the class number (N,) of each label.

    Raises
    ------
    ValueError : numbers that are no labels.
    """
    classes, labels = np.unique(values, return_inverse=True)
    is_fraction = classes.dtype.kind == "f" and bool((classes != np.floor(classes)).any())
    if len(classes) > (_MOST_FRACTIONS if is_fraction else arrays.MOST_CLASSES):
        raise ValueError(f"y has {len(classes):,} different numbers, too many for classes")
    return classes, labels.reshape(-1).astype(np.int64)


def class_numbers(y: ArrayLike, classes: NDArray[Any], n_rows: int) -> NDArray[np.int64]:
    """Return the class number (N,) of each label in ``y``.

    Raises
    ------
    TypeError, ValueError : labels of another kind than ``classes``, another number of them than of
        rows, or a label that is no class.
    """
    values = as_values(y, n_rows)
    are_integers = values.dtype.kind in "iu" and classes.dtype.kind in "iu"
    if are_integers and np.array_equal(classes, np.arange(len(classes))):
        labels = arrays.as_labels(values, n_rows)
        arrays.check_label_range(labels, int(labels.max()), len(classes))
        return labels
    if _family(values) != _family(classes):
        raise TypeError(f"y must hold {_family(classes)} as the classes do, got {values.dtype}")
    if values.dtype.kind == classes.dtype.kind == "f":
        values = values.astype(classes.dtype)
    order = np.argsort(classes)
    places = np.searchsorted(classes, values, sorter=order)
    found = order[np.minimum(places, len(classes) - 1)]
    bad = np.flatnonzero(classes[found] != values)
    if bad.size:
        label = values[bad[:1]].tolist()[0]
        raise ValueError(f"y[{bad[0]}] = {label!r} is not one of the classes {listed(classes)}")
    return found.astype(np.int64)


def listed(classes: NDArray[Any]) -> str:
    """Return the first classes as text for a message."""
    shown = ", ".join(map(repr, classes[:_LISTED].tolist()))
    return f"{shown}, ..." if len(classes) > _LISTED else shown


def counted_labels(values: NDArray[Any], ignore_index: int | None) -> NDArray[np.bool_] | None:
    """Return a mask of the labels (N,) other than ``ignore_index``; None if that is None."""
    if ignore_index is None:
        return None
    if not arrays.is_integer(ignore_index):
        raise TypeError(f"ignore_index must be an integer or None, got {ignore_index!r}")
    if _family(values) != "numbers":
        raise TypeError(f"ignore_index needs labels that are numbers, got {_family(values)}")
    counted: NDArray[np.bool_] = values != ignore_index
    if not counted.any():
        raise ValueError(f"each of the {len(values)} labels is ignore_index={ignore_index}")
    return counted


def as_values(y: ArrayLike, n_rows: int) -> NDArray[Any]:
    """Return labels (N,) or (N, 1) of one kind as an array (N,).

    Raises
    ------
    TypeError, ValueError : labels of mixed kinds, missing labels, or another number of them than of
        rows.
    """
    values = arrays.flat_column(_as_values("y", y))
    if values.ndim != 1:
        hint = advice.on_label_shape(y, values, n_rows)
        raise ValueError(f"y must have shape ({n_rows},), got {values.shape}{hint}")
    if len(values) != n_rows:
        raise ValueError(f"y has {len(values)} labels, but X has {n_rows} rows")
    return values


def _as_values(name: str, value: Any) -> NDArray[Any]:
    # NumPy would make the list [1, "a"] an array of strings.
    is_list = isinstance(value, (list, tuple))
    array = np.array(value, dtype=object) if is_list else value
    if hasattr(array, "to_numpy"):  # a data frame's column, whose strings are objects
        array = array.to_numpy()
    if isinstance(array, np.ndarray) and array.dtype == object:
        array = _of_one_kind(name, array)
    array = arrays.as_array(name, array)
    if array.dtype.kind == "T":  # NumPy's strings of variable width, which no archive holds
        array = array.astype(np.str_)
    if array.dtype.kind not in "biufUS":
        raise TypeError(f"{name} must hold strings, integers, bools or floats, got {array.dtype}")
    if array.dtype.kind == "f":
        arrays.check_finite(name, array)
    return array


def _of_one_kind(name: str, array: NDArray[Any]) -> NDArray[Any]:
    """Return Python objects as an array of strings or of numbers."""
    kinds: tuple[Any, ...] = (numbers.Real, np.bool_)
    first = next(array.flat, None)
    if isinstance(first, (str, bytes)):
        kinds = (str,) if isinstance(first, str) else (bytes,)
    for place, entry in np.ndenumerate(array):
        if advice.is_missing(entry):
            where = advice.entry(name, place)
            raise ValueError(f"{where} is {entry!r}, a missing label; drop rows without a label")
        if not isinstance(entry, kinds):
            raise TypeError(
                f"{name} must hold only strings or only numbers, got {advice.entry(name, place)} = "
                f"{reprlib.repr(entry)}"
            )
    return np.array(array.tolist())


def _family(values: NDArray[Any]) -> str:
    return {"U": "strings", "S": "bytes"}.get(values.dtype.kind, "numbers")

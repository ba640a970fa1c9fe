"""Explain rejected arguments: a wrong order of them, or a fix as the end of an error message.

Each fix is Python code that works on the caller's own value: a list has no ``astype``, and
the ``argmax`` of a column is always 0.
"""

from __future__ import annotations

import numbers
import re
import reprlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import permutations
from typing import Any

import numpy as np
from numpy.typing import NDArray

# The largest integer up to which float32 holds every one.
_MOST_EXACT = 2**24
_ROW = re.compile(r"^(X|y|sample_weight)\[(\d+)")
_ON_NUMBERS = "; if classes have other numbers, pass np.unique(y, return_inverse=True)[1]"
_ON_NAMES = "; for names of classes pass np.unique(y, return_inverse=True)[1]"


@contextmanager
def in_order(intercept: bool = False, **arguments: object) -> Iterator[None]:
    """Say in a TypeError or ValueError of the block if arguments are in another order.

    ``arguments``: perhaps weights, then rows or scores, then labels, in the expected order. Only
    their shapes are compared.
    """
    try:
        yield
    except (TypeError, ValueError) as error:
        shapes = {name: _shape(value) for name, value in arguments.items()}
        orders = permutations(shapes)  # the first one is the expected order
        right = next((order for order in orders if _fits(order, shapes, intercept)), None)
        if right is None or right == tuple(shapes):
            raise
        # The argument ``right[i]`` holds what the i-th one should hold.
        held = dict(zip(right, shapes, strict=True))
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(wrong_order([held[name] for name in shapes], shapes)) from None


def wrong_order(given: Iterable[str], expected: Iterable[str]) -> str:
    """Return the message about arguments in another order than expected."""
    return f"the arguments look like ({', '.join(given)}); the order is ({', '.join(expected)})"


def _fits(order: tuple[str, ...], shapes: dict[str, tuple[int, ...]], intercept: bool) -> bool:
    """Return whether shapes in this order are those of (weights,) rows and labels."""
    *weights, rows, labels = (shapes[name] for name in order)
    if len(rows) != 2 or labels != rows[:1]:
        return False
    return not weights or (len(weights[0]) == 2 and weights[0][0] == rows[1] + intercept)


def _shape(value: Any) -> tuple[int, ...]:
    try:
        return tuple(np.shape(value))
    except Exception:  # a ragged list, or an error of another library
        return ()


def on_conversion(name: str, value: object) -> str:
    """Suggest a fix for a value that `numpy.asarray` cannot convert."""
    if getattr(value, "requires_grad", False):
        return f"; pass {name}.detach()"
    if str(getattr(value, "dtype", "")).endswith("bfloat16"):
        return f"; pass {name}.{'long' if name == 'y' else 'float'}()"
    return ""


def on_objects(name: str, value: object, array: NDArray[Any]) -> str:
    """Suggest a fix for an array of Python objects."""
    if hasattr(value, "toarray"):
        return f"; pass {name}.toarray()"
    if array.ndim == 0:
        return f"; pass list({name})" if hasattr(value, "__next__") else ""
    if name == "y" and all(isinstance(entry, str) for entry in array.flat):
        return _ON_NAMES
    for place, found in np.ndenumerate(array):
        if not isinstance(found, numbers.Real):
            return f": {entry(name, place, value)} = {reprlib.repr(found)}{_on_entry(name, found)}"
    are_labels = name == "y" and all(isinstance(entry, numbers.Integral) for entry in array.flat)
    return on_cast(name, value, "int" if are_labels else "np.float64")


def on_float_type(name: str, value: object, array: NDArray[Any]) -> str:
    """Suggest a fix for a matrix that is neither float32 nor float64."""
    if array.dtype.names is not None:
        return f"; pass numpy.lib.recfunctions.structured_to_unstructured({name})"
    if array.dtype.kind == "c":
        return f"; pass np.real({name})"
    if array.dtype.kind in "SU":
        return _on_text(name, value, array)
    if array.dtype.kind not in "biufV":
        return ""
    return on_cast(name, value, "np.float32" if is_exact_in_float32(array) else "np.float64")


def is_exact_in_float32(array: NDArray[Any]) -> bool:
    """Return whether float32 holds all numbers exactly."""
    if array.dtype.kind in "iu" and array.size:
        return max(-int(array.min()), int(array.max())) <= _MOST_EXACT
    return np.can_cast(array.dtype, np.float32)


def _on_text(name: str, value: object, array: NDArray[Any]) -> str:
    for place, found in np.ndenumerate(array):
        try:
            float(found)
        except ValueError:
            text = str(found)
            return f": {entry(name, place, value)} = {reprlib.repr(text)}{_on_entry(name, text)}"
    return on_cast(name, value, "np.float64")


def is_missing(found: object) -> bool:
    """Return whether an entry stands for a missing value: None, NaN, or pandas's NA or NaT."""
    if found is None or type(found).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(found, numbers.Real) and found != found


def _on_entry(name: str, found: object) -> str:
    """Suggest a fix for an entry that is no number."""
    if is_missing(found):
        return "; drop rows without a label" if name == "y" else "; fill missing values first"
    return "; encode text as numbers first" if name == "X" and isinstance(found, str) else ""


def on_row_shape(name: str, value: object, array: NDArray[Any]) -> str:
    """Suggest a fix for rows of features or of scores that are no matrix."""
    if array.ndim == 1:
        return f"; for one row pass np.atleast_2d({name})"
    if array.ndim > 2 and len(array):
        return f"; pass {_array(name, value, 'reshape')}.reshape(len({name}), -1)"
    return ""


def on_weight_vector(array: NDArray[Any]) -> str:
    """Suggest a fix for the weights of one score a row, as of a binary classifier."""
    if array.ndim == 1 or array.shape[1:] == (1,):
        return "; for two classes pass np.column_stack([np.zeros_like(W), W])"
    return ""


def on_weight_rows(W: NDArray[Any], n_features: int, intercept: bool) -> str:
    """Suggest a fix for a ``W`` with another number of rows than parameters."""
    n_rows, n_columns = W.shape
    if n_columns == n_features + intercept:
        return "; pass np.transpose(W)"
    if intercept and n_rows == n_features:
        return "; add a row for the bias: pass np.vstack([W, np.zeros_like(W[:1])])"
    if not intercept and n_rows == n_features + 1:
        return "; if its last row is the bias, pass intercept=True"
    return ""


def on_class_weights(value: object) -> str:
    """Suggest a fix for class weights without labels."""
    is_list = isinstance(value, (list, tuple)) or getattr(value, "ndim", None) == 1
    return "; pass dict(enumerate(class_weight))" if is_list else ""


def on_label_type(value: object, labels: NDArray[Any]) -> str:
    """Suggest a fix for labels (N,) that are not integers."""
    if labels.dtype.kind in "USTM":
        return _ON_NAMES
    if labels.dtype.kind == "b":
        return on_cast("y", value, "int")
    if labels.dtype.kind != "f":
        return ""
    values = labels.astype(np.float64)  # float16 cannot hold 2.0**63
    is_label = (values == np.floor(values)) & (np.abs(values) < 2.0**63)
    if is_label.all():
        return f" (whole numbers: pass {_array('y', value, 'astype')}.astype(int))"
    i = int(np.argmin(is_label))
    return f": y[{i}] = {labels[i]}{_on_entry('y', values[i])}"


def on_negative_labels(labels: NDArray[Any]) -> str:
    """Suggest a fix for labels (N,), some of which are negative or huge."""
    negative = np.unique(labels[labels < 0])
    if len(negative) == 1 and len(np.unique(labels)) > 2:
        return f"; to skip these rows pass ignore_index={negative[0]}"
    return _ON_NUMBERS


def on_large_labels(labels: NDArray[np.int64], n_classes: int) -> str:
    """Suggest a fix for labels >= 0, some of which are >= ``n_classes``."""
    # The labels of a batch may lack a class, so this is a guess.
    if labels.min() == 1 and labels.max() == n_classes:
        return "; if labels count from 1, pass np.asarray(y) - 1"
    if len(np.unique(labels)) <= n_classes:
        return _ON_NUMBERS
    return f"; {labels.max() + 1} classes need as many columns"


def on_label_shape(value: object, labels: NDArray[Any], n_rows: int) -> str:
    """Suggest a fix for labels that do not have one dimension."""
    if labels.ndim != 2:
        return ""
    if labels.shape == (1, n_rows):
        return "; pass np.ravel(np.asarray(y))"
    if labels.shape[1] > 1 and labels.dtype.kind in "biuf":
        is_one_hot = (labels == 0) | (labels == 1)
        if is_one_hot.all() and (labels.sum(axis=1) == 1).all():
            return f"; for one-hot rows pass {_array('y', value, 'argmax')}.argmax(axis=1)"
    return "; expected one label a row"


def on_cast(name: str, value: object, dtype: str) -> str:
    """Suggest another dtype."""
    return f"; pass {_array(name, value, 'astype')}.astype({dtype})"


def _array(name: str, value: object, method: str) -> str:
    """Return ``name`` if ``value`` has the method, else code that makes it an array."""
    return name if hasattr(value, method) else f"np.asarray({name})"


def entry(name: str, place: tuple[int, ...], source: object = None) -> str:
    """Return the name of an entry, and of its column if ``source`` is a data frame."""
    columns = getattr(source, "columns", None)
    column = "" if columns is None or len(place) != 2 else f" (column {columns[place[1]]!r})"
    return f"{name}[{', '.join(map(str, place))}]{column}"


def names_a_row(message: str) -> bool:
    """Return whether a message begins with a row, such as "y[17] = 10 is not in [0, 10)"."""
    return _ROW.match(message) is not None


def renumbered(message: str, first_row: int) -> str:
    """Return a message about a row of some rows, with its number among all rows.

    >>> renumbered("X[17, 3] is nan", first_row=100)
    'X[117, 3] is nan'
    """
    return _ROW.sub(lambda match: f"{match[1]}[{int(match[2]) + first_row}", message)

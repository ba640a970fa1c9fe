"""Suggest a fix for a rejected array, as the end of an error message.

Each suggestion is Python code that works on the caller's own value: a list has no ``astype``, and
the ``argmax`` of a column is always 0.
"""

from __future__ import annotations

import numbers
import reprlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

# The largest integer up to which float32 holds every one.
_MOST_EXACT = 2**24
_ON_NUMBERS = "; if classes have other numbers, pass np.unique(y, return_inverse=True)[1]"
_ON_NAMES = "; for names of classes pass np.unique(y, return_inverse=True)[1]"


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
    for place, entry in np.ndenumerate(array):
        if not isinstance(entry, numbers.Real):
            return f": {_entry(name, place)} = {reprlib.repr(entry)}"
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
    is_exact = np.can_cast(array.dtype, np.float32)
    if array.dtype.kind in "iu" and array.size:
        is_exact = max(-int(array.min()), int(array.max())) <= _MOST_EXACT
    return on_cast(name, value, "np.float32" if is_exact else "np.float64")


def _on_text(name: str, value: object, array: NDArray[Any]) -> str:
    for place, entry in np.ndenumerate(array):
        try:
            float(entry)
        except ValueError:
            return f": {_entry(name, place)} = {reprlib.repr(str(entry))}"
    return on_cast(name, value, "np.float64")


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
    return f": y[{i}] = {labels[i]}"


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


def _entry(name: str, place: tuple[int, ...]) -> str:
    return f"{name}[{', '.join(map(str, place))}]"

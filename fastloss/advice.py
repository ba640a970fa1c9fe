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
    return _on_cast(name, value, "int" if are_labels else "np.float64")


def on_float_type(name: str, value: object, array: NDArray[Any]) -> str:
    """Suggest a fix for a matrix that is neither float32 nor float64."""
    if array.dtype.names is not None:
        return f"; pass numpy.lib.recfunctions.structured_to_unstructured({name})"
    if array.dtype.kind not in "biufV":
        return ""
    is_exact = np.can_cast(array.dtype, np.float32)
    return _on_cast(name, value, "np.float32" if is_exact else "np.float64")


def on_label_type(value: object, labels: NDArray[Any]) -> str:
    """Suggest a fix for labels (N,) that are not integers."""
    if labels.dtype.kind in "USTM":
        return _ON_NAMES
    if labels.dtype.kind == "b":
        return _on_cast("y", value, "int")
    if labels.dtype.kind != "f":
        return ""
    values = labels.astype(np.float64)  # float16 cannot hold 2.0**63
    is_label = (values == np.floor(values)) & (np.abs(values) < 2.0**63)
    if is_label.all():
        return f" (whole numbers: pass {_array('y', value, 'astype')}.astype(int))"
    i = int(np.argmin(is_label))
    return f": y[{i}] = {labels[i]}"


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


def _on_cast(name: str, value: object, dtype: str) -> str:
    return f"; pass {_array(name, value, 'astype')}.astype({dtype})"


def _array(name: str, value: object, method: str) -> str:
    """Return ``name`` if ``value`` has the method, else code that makes it an array."""
    return name if hasattr(value, method) else f"np.asarray({name})"


def _entry(name: str, place: tuple[int, ...]) -> str:
    return f"{name}[{', '.join(map(str, place))}]"

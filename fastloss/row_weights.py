"""Compute row weights: the product of sample weights and class weights, scaled to be safe."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastloss import advice
from fastloss.arrays import SKIP, ClassWeight, as_array, as_labels, as_real, is_integer


def as_labels_and_weights(
    y: ArrayLike,
    n_rows: int,
    ignore_index: int | None,
    sample_weight: ArrayLike | None,
    class_weight: ClassWeight | None,
    is_mean: bool,
) -> tuple[NDArray[np.int64], NDArray[np.float64] | None]:
    """Return labels (N,) and row weights (N,), ``sample_weight[i] * class_weight[y[i]]``.

    The label of a skipped row is `SKIP`. A row of weight 0 is skipped, whatever its label is.
    Weights are None if neither kind is given, and 0 for skipped rows. For a mean, a power of two
    scales the largest weight to between 1/4 and 1, so that no product or sum overflows or vanishes.
    """
    if sample_weight is None and class_weight is None:
        return as_labels(y, n_rows, ignore_index), None
    mantissas, exponents = np.ones(n_rows), np.zeros(n_rows, np.int64)
    skipped = np.zeros(n_rows, dtype=bool)
    if sample_weight is not None:
        mantissas, exponents = np.frexp(as_sample_weight(sample_weight, n_rows))
        skipped = mantissas == 0
    labels = as_labels(y, n_rows, ignore_index, skipped=skipped)
    if class_weight is not None:
        of_class, exponents_of_class = np.frexp(_weights_by_class(class_weight, labels))
        mantissas, exponents = mantissas * of_class, exponents + exponents_of_class
    mantissas[labels == SKIP] = 0.0
    if is_mean:
        exponents = exponents - exponents[mantissas > 0].max(initial=-5000)
    with np.errstate(over="ignore"):
        weights = np.ldexp(mantissas, exponents)
    labels[weights == 0.0] = SKIP
    if not np.isfinite(weights).all():
        i = int(np.argmax(np.isinf(weights)))
        raise ValueError(f"sample_weight[{i}] * class_weight[y[{i}]] is too large for float64")
    return labels, weights


def as_sample_weight(sample_weight: ArrayLike, n_rows: int) -> NDArray[np.float64]:
    """Return ``sample_weight`` (N,) as float64; raise unless all are finite and >= 0."""
    array = as_array("sample_weight", sample_weight)
    if array.dtype.kind not in "iuf":
        hint = advice.on_float_type("sample_weight", sample_weight, array)
        raise TypeError(f"sample_weight must hold real numbers, got {array.dtype}{hint}")
    if array.shape != (n_rows,):
        hint = "; pass np.ravel(sample_weight)" if array.shape == (n_rows, 1) else ""
        raise ValueError(f"sample_weight must have shape ({n_rows},), got {array.shape}{hint}")
    bad = np.flatnonzero(~(np.isfinite(array) & (array >= 0)))
    if bad.size:
        raise ValueError(f"sample_weight[{bad[0]}] = {array[bad[0]]} must be finite and >= 0")
    return array.astype(np.float64)


def _weights_by_class(class_weight: ClassWeight, labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the class weight (N,) of each row; it is arbitrary for `SKIP`."""
    classes, places = _distinct(labels)
    counts = np.bincount(places, minlength=len(classes))
    counts[classes == SKIP] = 0
    return weights_of_classes(class_weight, classes, counts)[places]


def weights_of_classes(
    class_weight: ClassWeight, classes: NDArray[np.int64], counts: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return the weight of each of ``classes``, which have so many rows that count."""
    of_class = np.ones(len(classes))
    if isinstance(class_weight, str):
        if class_weight != "balanced":
            raise ValueError(f"class_weight must be a mapping or 'balanced', got {class_weight!r}")
        present = counts > 0
        of_class[present] = counts.sum() / (present.sum() * counts[present])
        return of_class
    if not isinstance(class_weight, Mapping):
        hint = advice.on_class_weights(class_weight)
        raise TypeError(f"class_weight must be a mapping or 'balanced', got {class_weight!r}{hint}")
    weights = {}
    for label, weight in class_weight.items():
        if not is_integer(label) or label < 0:
            raise ValueError(f"class_weight has the key {label!r}, expected an integer >= 0")
        weights[int(label)] = as_real(f"class_weight[{label}]", weight)
    of_class[:] = [weights.get(label, 1.0) for label in classes.tolist()]
    return of_class


def _distinct(labels: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.intp]]:
    """Return the sorted distinct labels, and the place of each row's label among them.

    Counting is ten times faster than sorting, but takes memory in proportion to the largest label.
    """
    if labels.max() > len(labels):
        return np.unique(labels, return_inverse=True)
    is_present = np.bincount(labels - SKIP) > 0
    return np.flatnonzero(is_present) + SKIP, (np.cumsum(is_present) - 1)[labels - SKIP]

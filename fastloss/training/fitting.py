"""`LinearModel.fit`: train on arrays instead of files, with labels of any kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastloss import arrays
from fastloss.advice import in_order
from fastloss.data import Dataset
from fastloss.labels import as_values, class_numbers, counted_labels, distinct_classes
from fastloss.model import LinearModel
from fastloss.optim import Record
from fastloss.preprocessing import PreprocessingKind
from fastloss.row_weights import as_sample_weight
from fastloss.rows_on_disk import select
from fastloss.training.problem import Prepared, Splits, fit, set_aside
from fastloss.training.settings import Settings, fill_in


def fit_model(
    X: ArrayLike,
    y: ArrayLike,
    settings: Settings,
    *,
    preprocessing: PreprocessingKind = "standardize",
    validation: int | tuple[ArrayLike, ArrayLike] | None = None,
    class_weight: Mapping[Any, float] | str | None = None,
    sample_weight: ArrayLike | None = None,
    ignore_index: int | None = None,
    stream: bool | None = None,
    n_threads: int | None = None,
    callback: Callable[[Record], Any] | None = None,
) -> LinearModel:
    """Train a model: see `LinearModel.fit`, which has the same arguments."""
    if isinstance(class_weight, str) and class_weight != "balanced":
        raise ValueError(f"class_weight must be a mapping or 'balanced', got {class_weight!r}")
    rows, values, weights = _counted_rows(X, y, ignore_index, sample_weight)
    classes, labels = distinct_classes(values)
    names = tuple(map(str, classes.tolist()))
    whole = Dataset(rows, labels, "the data", names, None, "")
    if isinstance(validation, tuple):
        splits = Splits(whole, _held_out(*validation, ignore_index, whole, classes))
    else:
        train, held_out = set_aside(labels, validation, settings.seed)
        splits = Splits(whole.rows(train), None if held_out is None else whole.rows(held_out))
        weights = None if weights is None else weights[train]
    prepared = Prepared.of(splits, preprocessing, weights, stream)
    named = _by_name(class_weight, dict(zip(classes.tolist(), names, strict=True)))
    settings = fill_in(replace(settings, class_weight=named), prepared.scale)
    result = fit(prepared, settings, n_threads=n_threads, callback=callback)
    return replace(prepared.trained(result, settings)[0], classes=classes)


def _counted_rows(
    X: ArrayLike, y: ArrayLike, ignore_index: int | None, sample_weight: ArrayLike | None = None
) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.float64] | None]:
    """Return the rows, labels and sample weights without those of the label ``ignore_index``."""
    with in_order(X=X, y=y):
        rows = arrays.as_rows(X, cast_integers=True)
        values = as_values(y, len(rows))
    weights = None if sample_weight is None else as_sample_weight(sample_weight, len(rows))
    counted = counted_labels(values, ignore_index)
    # Checked before the split, so that a message numbers the rows as the caller does.
    arrays.check_finite("X", rows, counted, X)
    if counted is None or counted.all():
        return rows, values, weights
    chosen = select(rows, np.flatnonzero(counted))
    return chosen, values[counted], None if weights is None else weights[counted]


def _held_out(
    X: ArrayLike,
    y: ArrayLike,
    ignore_index: int | None,
    whole: Dataset,
    classes: NDArray[Any],
) -> Dataset:
    """Return the caller's validation rows, with the classes of the training rows."""
    try:
        rows, values, _ = _counted_rows(X, y, ignore_index)
        return replace(whole, X=rows, y=class_numbers(values, classes, len(rows)))
    except (TypeError, ValueError) as error:
        raise type(error)(f"validation: {error}") from None


def _by_name(weights: Mapping[Any, float] | str | None, names: Mapping[Any, str]) -> Any:
    """Return weights by label as weights by class name; leave everything else to `Settings`."""
    if not isinstance(weights, Mapping):
        return weights
    return {names.get(label, repr(label)): weight for label, weight in weights.items()}

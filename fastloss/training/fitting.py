"""`LinearModel.fit`: train on arrays instead of files, with labels of any kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from numpy.typing import ArrayLike, NDArray

from fastloss import arrays
from fastloss.data import Dataset
from fastloss.labels import class_numbers, distinct_classes
from fastloss.model import LinearModel
from fastloss.optim import Record
from fastloss.preprocessing import PreprocessingKind
from fastloss.row_weights import as_labels_and_weights
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
    n_threads: int | None = None,
    callback: Callable[[Record], Any] | None = None,
) -> LinearModel:
    """Train a model: see `LinearModel.fit`, which has the same arguments."""
    rows = _finite_rows(X)
    classes, labels = distinct_classes(y, len(rows))
    names = tuple(map(str, classes.tolist()))
    weights = as_labels_and_weights(labels, len(rows), None, sample_weight, None, False)[1]
    whole = Dataset(rows, labels, "the data", names, None, "")
    if isinstance(validation, tuple):
        splits = Splits(whole, _held_out(*validation, whole, classes))
    else:
        train, held_out = set_aside(labels, validation, settings.seed)
        splits = Splits(whole.rows(train), None if held_out is None else whole.rows(held_out))
        weights = None if weights is None else weights[train]
    prepared = Prepared.of(splits, preprocessing, weights)
    named = _by_name(class_weight, dict(zip(classes.tolist(), names, strict=True)))
    settings = fill_in(replace(settings, class_weight=named), prepared.scale)
    result = fit(prepared, settings, n_threads=n_threads, callback=callback)
    return replace(prepared.trained(result, settings)[0], classes=classes)


def _finite_rows(X: ArrayLike) -> NDArray[Any]:
    # Checked before the split, so that a message numbers the rows as the caller does.
    rows = arrays.as_rows(X)
    arrays.check_finite("X", rows)
    return rows


def _held_out(X: ArrayLike, y: ArrayLike, whole: Dataset, classes: NDArray[Any]) -> Dataset:
    """Return the caller's validation rows, with the classes of the training rows."""
    try:
        rows = _finite_rows(X)
        return replace(whole, X=rows, y=class_numbers(y, classes, len(rows)))
    except (TypeError, ValueError) as error:
        raise type(error)(f"validation: {error}") from None


def _by_name(weights: Mapping[Any, float] | str | None, names: Mapping[Any, str]) -> Any:
    """Return weights by label as weights by class name; leave everything else to `Settings`."""
    if not isinstance(weights, Mapping):
        return weights
    return {names.get(label, repr(label)): weight for label, weight in weights.items()}

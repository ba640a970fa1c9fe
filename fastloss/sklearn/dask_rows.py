"""Dask arrays as arguments of the estimators: fits on a cluster, predictions block by block.

dask is imported when a dask array comes, so that estimators need no dask.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from fastloss.arrays import ROW_TYPES
from fastloss.base_objective import BaseObjective
from fastloss.dask import DaskObjective
from fastloss.losses.base import Loss
from fastloss.sklearn.training_set import (
    ClassWeight,
    TrainingSet,
    check_kind,
    check_two_classes,
    sample_weights,
    settled_weights,
)

# Labels in memory are cut into blocks of so many; dask cannot choose a size for objects.
_LABELS_PER_BLOCK = 2**20

Method = TypeVar("Method", bound=Callable[..., Any])


def is_dask(X: object) -> bool:
    """Return whether ``X`` is a dask array; dask is not imported."""
    return type(X).__module__.startswith("dask.array")


@dataclass(frozen=True)
class DaskTrainingSet(TrainingSet):
    """Rows, class numbers and weights in dask arrays."""

    def objective(self, *, loss: Loss, l1: float, l2: float, intercept: bool) -> BaseObjective:
        """Return the objective on the cluster of the current dask client."""
        return DaskObjective(
            self.X,
            self.labels,
            n_classes=len(self.classes),
            loss=loss,
            l1=l1,
            l2=l2,
            intercept=intercept,
            sample_weight=self.sample_weight,
            class_weight=self.class_weight,
        )

    def check_finite(self) -> None:
        """Raise at the first row with an entry that is not finite."""
        import dask.array

        is_finite = dask.array.isfinite(self.X).all(axis=1)
        row, found = dask.compute(is_finite.argmin(), is_finite.all())
        if not found:
            raise ValueError(f"X has NaN or infinity in row {int(row)}")


def dask_training_set(
    estimator: Any, X: Any, y: Any, sample_weight: Any, class_weight: ClassWeight | None
) -> DaskTrainingSet:
    """Validate the arguments of ``fit``; classes and weights are settled in one pass over ``y``.

    Raises
    ------
    TypeError, ValueError : arguments that do not fit together, or fewer than two classes.
    """
    import dask.array

    if X.ndim != 2:
        raise ValueError(f"X must be a matrix (N, D), got shape {X.shape}")
    validate_data(estimator, X, skip_check_array=True)
    if X.dtype not in ROW_TYPES:
        X = X.astype(np.float64)
    labels: Any = y if is_dask(y) else np.asarray(y)
    if labels.ndim != 1:
        raise ValueError(f"y must have shape (N,), got {labels.shape}")
    if not is_dask(y):
        check_kind(labels)
        labels = dask.array.from_array(labels, chunks=_LABELS_PER_BLOCK)
    if sample_weight is not None:
        if not is_dask(sample_weight):
            weights = sample_weights(sample_weight, len(labels))
            sample_weight = dask.array.from_array(weights, chunks=labels.chunks)
        if sample_weight.ndim != 1 or sample_weight.shape != labels.shape:
            raise ValueError(
                f"sample_weight must have shape {labels.shape}, got {sample_weight.shape}"
            )
        sample_weight = sample_weight.astype(np.float64).rechunk(labels.chunks)
    classes, sums = _settled(labels, sample_weight)
    return DaskTrainingSet(
        X,
        labels.map_blocks(_numbers, classes, dtype=np.int64),
        classes,
        sample_weight,
        *settled_weights(class_weight, classes, sums),
    )


def _settled(labels: Any, sample_weight: Any) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Return the sorted classes (C,), and the sum of the sample weights of each."""
    import dask

    count = dask.delayed(_counted)
    blocks = labels.to_delayed().ravel()
    weights = [None] * len(blocks) if sample_weight is None else sample_weight.to_delayed().ravel()
    counted = dask.compute(*(count(*pair) for pair in zip(blocks, weights, strict=True)))
    every = np.concatenate([classes for classes, _ in counted])
    check_classification_targets(every)
    classes, places = np.unique(every, return_inverse=True)
    check_two_classes(classes)
    sums = np.bincount(places, np.concatenate([sums for _, sums in counted]))
    return classes, sums.astype(np.float64)


def _counted(y: NDArray[Any], weights: Any) -> tuple[NDArray[Any], NDArray[np.float64]]:
    if weights is not None and not ((weights >= 0) & np.isfinite(weights)).all():
        raise ValueError("sample_weight has an entry that is not finite and >= 0")
    classes, places = np.unique(y, return_inverse=True)
    return classes, np.bincount(places, weights, minlength=len(classes)).astype(np.float64)


def _numbers(y: NDArray[Any], classes: NDArray[Any]) -> NDArray[np.int64]:
    return np.searchsorted(classes, y).astype(np.int64)


def on_dask_too(method: Method) -> Method:
    """Let a method of rows take a dask array, of which it returns a dask array, not computed."""

    @wraps(method)
    def called(self: Any, X: Any) -> Any:
        return _by_blocks(self, method, X) if is_dask(X) else method(self, X)

    return cast("Method", called)


def _by_blocks(estimator: Any, method: Callable[..., Any], X: Any) -> Any:
    check_is_fitted(estimator)
    if X.ndim != 2:
        raise ValueError(f"X must be a matrix (N, D), got shape {X.shape}")
    validate_data(estimator, X, reset=False, skip_check_array=True)
    result = method(estimator, np.zeros((1, X.shape[1]), X.dtype))[:0]
    X = X.rechunk({1: -1})
    shape: dict[str, Any] = {"drop_axis": 1}
    if result.ndim == 2:
        shape = {"chunks": (X.chunks[0], (result.shape[1],))}
    return X.map_blocks(
        _of_block, estimator, method.__name__, result, dtype=result.dtype, meta=result, **shape
    )


def _of_block(X: NDArray[Any], estimator: Any, name: str, empty: NDArray[Any]) -> NDArray[Any]:
    return getattr(estimator, name)(X) if len(X) else empty

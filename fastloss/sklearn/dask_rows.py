"""Dask arrays as arguments of the estimators: fits on a cluster, predictions block by block.

Only dask arrays lead to this module, so that estimators need no dask.
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
from fastloss.sklearn.training_set import ClassWeight, TrainingSet, class_weights

Method = TypeVar("Method", bound=Callable[..., Any])


def is_dask(X: object) -> bool:
    """Return whether ``X`` is a dask array; dask is not imported."""
    return type(X).__module__.startswith("dask.array")


@dataclass(frozen=True)
class DaskTrainingSet(TrainingSet):
    """Rows, class numbers and weights in dask arrays."""

    def objective(
        self, *, loss: str | Loss, l1: float, l2: float, intercept: bool
    ) -> BaseObjective:
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
    labels = y if is_dask(y) else dask.array.from_array(np.asarray(y))
    if labels.ndim != 1:
        raise ValueError(f"y must have shape (N,), got {labels.shape}")
    if sample_weight is not None:
        if not is_dask(sample_weight):
            weights = np.broadcast_to(np.asarray(sample_weight, np.float64), labels.shape)
            sample_weight = dask.array.from_array(weights, chunks=labels.chunks)
        sample_weight = sample_weight.rechunk(labels.chunks)
    classes, sums = _settled(labels, sample_weight)
    of_class = class_weights(class_weight, classes, sums)
    total = float(sums.sum() if of_class is None else sums @ of_class)
    if total == 0.0:
        raise ValueError("the weight of every row is zero: sample_weight times class_weight")
    return DaskTrainingSet(
        X,
        labels.map_blocks(_numbers, classes, dtype=np.int64),
        classes,
        sample_weight,
        None if of_class is None else dict(enumerate(of_class.tolist())),
        total,
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
    if len(classes) < 2:
        raise ValueError(f"y has one class, {classes.tolist()[0]!r}; two or more are needed")
    sums = np.bincount(places, np.concatenate([sums for _, sums in counted]))
    return classes, sums.astype(np.float64)


def _counted(y: NDArray[Any], weights: Any) -> tuple[NDArray[Any], NDArray[np.float64]]:
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

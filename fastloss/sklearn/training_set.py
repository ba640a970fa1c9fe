"""Validate the arguments of ``fit``; make the rows, labels and weights into an objective."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import validate_data

from fastloss import arrays
from fastloss.arrays import check_finite
from fastloss.base_objective import BaseObjective
from fastloss.losses.base import Loss
from fastloss.objective import Objective
from fastloss.row_weights import as_sample_weight
from fastloss.settings import AUTO, environment, requested_backend

ClassWeight = Mapping[Any, float] | Literal["balanced"]

# Rows of another type are cast to the first one.
_ROW_TYPES = [np.dtype(np.float64), *arrays.ROW_TYPES]
# NumPy evaluates a problem of so few multiply-adds in about a millisecond. Importing Numba takes as
# long as a thousand of these, and compiling a kernel as long as ten thousand.
_SMALL = 2**20


@dataclass(frozen=True)
class TrainingSet:
    """Validated rows with class numbers and weights. `objective` is all that a fit does with them.

    ``total_weight`` is the sum over rows of sample weight times class weight.
    """

    X: NDArray[Any]
    labels: NDArray[np.int64]  # class numbers
    classes: NDArray[Any]  # the user's labels, sorted
    sample_weight: NDArray[np.float64] | None
    class_weight: dict[int, float] | None  # by class number
    total_weight: float

    @property
    def n_features(self) -> int:
        """Return the number of columns of ``X``."""
        return self.X.shape[1]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Return the type of the coefficients: float64 for rows of float64, else float32."""
        return np.dtype(np.float64 if self.X.dtype == np.float64 else np.float32)

    def check_finite(self) -> None:
        """Raise at the first entry that is not finite."""
        check_rows(self.X)

    def objective(
        self, *, loss: str | Loss, l1: float, l2: float, intercept: bool
    ) -> BaseObjective:
        """Return the weighted mean of the losses plus the penalty, as a function of ``W``."""
        return Objective(
            self.X,
            self.labels,
            loss=loss,
            l1=l1,
            l2=l2,
            intercept=intercept,
            sample_weight=self.sample_weight,
            class_weight=self.class_weight,
            backend="numpy" if self._is_small() else AUTO,
            n_threads=1 if self._is_small() else None,
        )

    def _is_small(self) -> bool:
        """Return whether to compile no kernel, and start no threads: see `_SMALL`."""
        chosen, _ = requested_backend(AUTO, environment())
        return chosen == AUTO and self.X.size * len(self.classes) < _SMALL


def training_set(
    estimator: Any,
    X: ArrayLike,
    y: ArrayLike,
    sample_weight: ArrayLike | None,
    class_weight: ClassWeight | None,
    *,
    reset: bool = True,
    classes: NDArray[Any] | None = None,
) -> TrainingSet:
    """Validate the arguments of ``fit``, and set ``n_features_in_`` of the estimator.

    Entries that are not finite are not looked for: they make the loss at the start NaN.

    Parameters
    ----------
    reset : False compares the number and names of features with those of an earlier fit.
    classes : labels to expect in ``y``; default: those in ``y``.
    """
    rows, values = _validated(estimator, X, y, reset=reset)
    check_classification_targets(values)
    classes, labels = _class_numbers(values, classes)
    weights = None if sample_weight is None else _sample_weight(sample_weight, len(labels))
    counts = np.bincount(labels, weights, minlength=len(classes))
    of_class = class_weights(class_weight, classes, counts)
    total = float(counts.sum() if of_class is None else counts @ of_class)
    if total == 0.0:
        raise ValueError("the weight of every row is zero: sample_weight times class_weight")
    by_number = None if of_class is None else dict(enumerate(of_class.tolist()))
    return TrainingSet(rows, labels, classes, weights, by_number, total)


def rows_to_predict(estimator: Any, X: ArrayLike) -> NDArray[Any]:
    """Validate the rows of ``predict`` and its relatives, except that entries are finite."""
    return _validated(estimator, X, reset=False)


def _validated(estimator: Any, X: ArrayLike, *y: ArrayLike, reset: bool) -> Any:
    try:
        return validate_data(
            estimator, X, *y, reset=reset, dtype=_ROW_TYPES, ensure_all_finite=False
        )
    except ValueError as error:
        if "could not convert string" not in str(error):
            raise
        try:  # to say where the string is
            arrays.as_rows(X)
        except TypeError as place:
            raise ValueError(str(place)) from None
        raise


def _class_numbers(
    y: NDArray[Any], classes: NDArray[Any] | None
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Return the sorted classes, and the class number of each label."""
    present, labels = np.unique(y, return_inverse=True)
    if classes is None:
        classes = present
    elif not np.isin(present, classes).all():
        unknown = present[~np.isin(present, classes)].tolist()[0]
        raise ValueError(f"y has the label {unknown!r}, which is not one of the classes")
    else:
        labels = np.searchsorted(classes, present)[labels]
    if len(classes) < 2:
        raise ValueError(f"y has one class, {classes.tolist()[0]!r}; two or more are needed")
    return classes, labels.astype(np.int64, copy=False)


def _sample_weight(sample_weight: ArrayLike, n_rows: int) -> NDArray[np.float64]:
    """Return the weights (N,); a number is the weight of all rows, as in scikit-learn."""
    if isinstance(sample_weight, Real):
        sample_weight = np.full(n_rows, sample_weight)
    return as_sample_weight(sample_weight, n_rows)


def class_weights(
    class_weight: ClassWeight | None, classes: NDArray[Any], counts: NDArray[Any]
) -> NDArray[np.float64] | None:
    """Return the weight of each class (C,); ``counts`` are the classes' sums of sample weights."""
    if class_weight is None:
        return None
    if isinstance(class_weight, str) and class_weight == "balanced":
        balanced = np.zeros(len(counts))
        np.divide(counts.sum(), np.count_nonzero(counts) * counts, out=balanced, where=counts > 0)
        return balanced
    # The helper wants labels only to compare them with the classes.
    return compute_class_weight(class_weight, classes=classes, y=classes)


def check_rows(X: NDArray[np.generic]) -> None:
    """Raise at the first entry that is not finite."""
    try:
        check_finite("X", X)
    except ValueError as error:
        raise ValueError(f"X has NaN or infinity: {error}") from None

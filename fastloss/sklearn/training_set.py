"""Validate the arguments of ``fit``; make the rows, labels and weights into an objective."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import validate_data

from fastloss import arrays
from fastloss.arrays import as_real, check_finite, ieee_arithmetic
from fastloss.base_objective import BaseObjective
from fastloss.labels import as_values, listed
from fastloss.losses.base import Loss
from fastloss.objective import Objective
from fastloss.row_weights import as_sample_weight, weights_of_classes
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

    def objective(self, *, loss: Loss, l1: float, l2: float, intercept: bool) -> BaseObjective:
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

    def l2_of(self, C: float, halves: float) -> float:
        """Return ``l2`` for a penalty of ``halves`` times sum(W**2) beside C times all losses."""
        C = as_real("C", C, above=0.0, finite=False)
        l2 = halves / C / self.total_weight
        if 2.0 * l2 > float(np.finfo(self.dtype).max):
            raise ValueError(
                f"C times the sum of the weights, {C:g} * {self.total_weight:g}, is too small for "
                f"{self.dtype}"
            )
        return l2

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
    check_kind(values)
    check_classification_targets(values)
    classes, labels = _class_numbers(values, classes)
    weights = None if sample_weight is None else sample_weights(sample_weight, len(labels))
    counts = np.bincount(labels, weights, minlength=len(classes))
    return TrainingSet(
        rows, labels, classes, weights, *settled_weights(class_weight, classes, counts)
    )


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


def check_kind(y: NDArray[Any]) -> None:
    """Raise if labels (N,) are objects of mixed kinds, missing labels, or numbers as objects.

    scikit-learn's metrics, and so `score`, refuse numbers as objects.
    """
    # Looking at each label alone takes longer than finding the classes.
    if y.dtype != object or all(issubclass(kind, str) for kind in set(map(type, y.tolist()))):
        return
    values = as_values(y, len(y))
    if values.dtype.kind not in "US":
        raise ValueError(
            "Unknown label type: y holds numbers as Python objects; "
            f"pass y.astype({values.dtype.name!r})"
        )


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
    check_two_classes(classes)
    return classes, labels.astype(np.int64, copy=False)


def check_two_classes(classes: NDArray[Any]) -> None:
    """Raise if there is one class only."""
    if len(classes) < 2:
        raise ValueError(f"y has one class, {classes.tolist()[0]!r}; two or more are needed")


def sample_weights(sample_weight: ArrayLike, n_rows: int) -> NDArray[np.float64]:
    """Return the weights (N,); as in scikit-learn, one number is for all rows, and True is 1."""
    if isinstance(sample_weight, Real):
        sample_weight = np.full(n_rows, sample_weight)
    if np.asarray(sample_weight).dtype == bool:
        sample_weight = np.asarray(sample_weight, np.float64)
    return as_sample_weight(sample_weight, n_rows)


def settled_weights(
    class_weight: ClassWeight | None, classes: NDArray[Any], counts: NDArray[Any]
) -> tuple[dict[int, float] | None, float]:
    """Return the weight of each class number, and the sum of all row weights.

    ``counts`` (C,) are the classes' sums of sample weights.

    Raises
    ------
    TypeError, ValueError : bad class weights; row weights whose sum is 0 or overflows.
    """
    of_class = None
    if class_weight is not None:
        by_number: Any = class_weight
        if isinstance(class_weight, Mapping):
            by_number = _by_number(class_weight, classes)
        of_class = weights_of_classes(by_number, np.arange(len(classes)), counts)
    with ieee_arithmetic():
        total = float(counts.sum() if of_class is None else counts @ of_class)
    if total == 0.0:
        raise ValueError("the weight of every row is zero: sample_weight times class_weight")
    if not np.isfinite(total):
        raise ValueError("the sum of sample_weight times class_weight is too large for float64")
    return None if of_class is None else dict(enumerate(of_class.tolist())), total


def _by_number(class_weight: Mapping[Any, float], classes: NDArray[Any]) -> dict[int, float]:
    """Return class weights by class number instead of label.

    As in scikit-learn, labels that are no classes are allowed if all classes have weights: the rows
    may be a fold that lacks some.
    """
    numbers = {label: number for number, label in enumerate(classes.tolist())}
    weights = {
        label: as_real(f"class_weight[{label!r}]", weight) for label, weight in class_weight.items()
    }
    unknown = [label for label in weights if label not in numbers]
    if unknown and len(weights) - len(unknown) < len(numbers):
        raise ValueError(
            f"class_weight names {unknown[0]!r}, which is not one of the classes {listed(classes)}"
        )
    return {numbers[label]: weight for label, weight in weights.items() if label in numbers}


def check_rows(X: NDArray[np.generic]) -> None:
    """Raise at the first entry that is not finite."""
    try:
        check_finite("X", X)
    except ValueError as error:
        raise ValueError(f"X has NaN or infinity: {error}") from None

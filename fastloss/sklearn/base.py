"""Base class of the estimators: weights, and predictions in blocks of rows."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from fastloss.arrays import Floats, as_bool, ieee_arithmetic
from fastloss.blocks import float_blocks
from fastloss.settings import threads_to_use
from fastloss.sklearn.dask_rows import dask_training_set, is_dask, on_dask_too
from fastloss.sklearn.fitting import Plan, fitted
from fastloss.sklearn.training_set import (
    ClassWeight,
    TrainingSet,
    check_rows,
    rows_to_predict,
    training_set,
)
from fastloss.threads import blas_threads


@contextmanager
def unchanged_by_errors(estimator: BaseEstimator) -> Iterator[None]:
    """Let an estimator keep its attributes if its fit fails; validation alone sets some."""
    before = vars(estimator).copy()
    try:
        yield
    except BaseException:
        vars(estimator).clear()
        vars(estimator).update(before)
        raise


class LinearEstimator(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Classifier whose scores are ``X @ coef_.T + intercept_``.

    A subclass stores the parameters below in its constructor, and makes a `Plan` of them.
    """

    class_weight: ClassWeight | None
    fit_intercept: bool
    warm_start: bool

    @abstractmethod
    def _plan(self, rows: TrainingSet) -> Plan:
        """Return the objective and the method; raise at a parameter out of range."""

    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Any:
        """Fit the model to rows ``X`` (N, D) with labels ``y`` (N,).

        Parameters
        ----------
        X : finite numbers. float64, float32, float16 and uint8 are read as they are, without a
            copy, also from a memory-mapped file; other types become float64. A dask array is fitted
            on the cluster of the current client (see `fastloss.dask`); ``y`` and the weights may
            then be dask arrays, too, and predictions of a dask array are dask arrays.
        y : labels: strings, integers, bools or whole floats, of two classes or more.
        sample_weight : (N,) weights >= 0 of the rows, or one number for all.

        Returns
        -------
        The estimator itself.

        Raises
        ------
        TypeError, ValueError : invalid rows, labels, weights or parameters.
        """
        with unchanged_by_errors(self):
            last = self._last_fit() if as_bool("warm_start", self.warm_start) else None
            of_arguments = dask_training_set if is_dask(X) else training_set
            rows = of_arguments(self, X, y, sample_weight, self.class_weight)
            plan = self._plan(rows)
            W = None if last is None else self._checked_start(last, rows)
            self._set(rows, *fitted(rows, plan, W))
        return self

    def _last_fit(self) -> tuple[Floats, NDArray[Any]] | None:
        """Return weights and classes of the last fit, if there was one."""
        return (self._weights(), self.classes_) if hasattr(self, "coef_") else None

    def _checked_start(self, last: tuple[Floats, NDArray[Any]], rows: TrainingSet) -> Floats:
        W, classes = last
        if not np.array_equal(classes, rows.classes):
            raise ValueError("warm_start=True needs the classes of the last fit")
        if len(W) != rows.n_features + self.fit_intercept:
            raise ValueError("warm_start=True needs the features of the last fit")
        return W.astype(rows.dtype)

    def _set(self, rows: TrainingSet, W: Floats, n_iter: int) -> None:
        """Set the attributes of a fitted model from ``W`` (D + 1, C), or (D, C) without bias."""
        if W.shape[1] == 2:
            W = W[:, 1:] - W[:, :1]
        bias = W[-1].copy() if self.fit_intercept else np.zeros(W.shape[1], W.dtype)
        self.classes_ = rows.classes
        self.coef_ = np.ascontiguousarray(W[: rows.n_features].T)
        self.intercept_ = bias
        self.n_iter_: Any = n_iter

    def _weights(self) -> Floats:
        """Return ``W`` of the fitted model; see `_set`."""
        W = self.coef_.T
        if self.fit_intercept:
            W = np.vstack([W, self.intercept_])
        return np.hstack([-0.5 * W, 0.5 * W]) if W.shape[1] == 1 else W

    @on_dask_too
    def decision_function(self, X: ArrayLike) -> Floats:
        """Return the scores of rows ``X`` (N, D).

        Returns
        -------
        scores : (N, C); for two classes (N,), positive for ``classes_[1]``.
        """
        return self._of_scores(X, lambda scores: scores)

    @on_dask_too
    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Return the class (N,) with the largest score of each row; ties go to the first class."""
        numbers = self._of_scores(X, _class_numbers)  # raises first, if the model is not fitted
        return self.classes_[numbers]

    def _of_scores(self, X: ArrayLike, function: Callable[[Floats], NDArray[Any]]) -> NDArray[Any]:
        """Return ``function`` of the scores, (N, C) or (N,), a block of rows at a time."""
        check_is_fitted(self)
        rows = rows_to_predict(self, X)
        dtype = np.result_type(rows, self.coef_)
        coef, intercept = self.coef_.T.astype(dtype), self.intercept_.astype(dtype)
        results: NDArray[Any] | None = None
        with ieee_arithmetic(), blas_threads(threads_to_use()):
            for places, block in float_blocks(rows, dtype, coef.shape[1]):
                scores = block @ coef + intercept
                if not np.isfinite(scores).all():
                    check_rows(rows)
                part = function(scores[:, 0] if scores.shape[1] == 1 else scores)
                if results is None:
                    results = np.empty((len(rows), *part.shape[1:]), part.dtype)
                results[places] = part
        assert results is not None  # validated rows are not empty
        return results


class Probabilities(LinearEstimator):
    """Classifier with softmax's probabilities."""

    @on_dask_too
    def predict_proba(self, X: ArrayLike) -> Floats:
        """Return the probability (N, C) of each class, the softmax of the scores; rows sum to 1."""
        return self._of_scores(X, lambda scores: special.softmax(_by_class(scores), axis=1))

    @on_dask_too
    def predict_log_proba(self, X: ArrayLike) -> Floats:
        """Return the logarithm (N, C) of each probability, also where that rounds to 0."""
        return self._of_scores(X, lambda scores: special.log_softmax(_by_class(scores), axis=1))


def _class_numbers(scores: Floats) -> NDArray[np.int64]:
    return (scores > 0).astype(np.int64) if scores.ndim == 1 else scores.argmax(axis=1)


def _by_class(scores: Floats) -> Floats:
    """Return scores (N, C), also of two classes, for which only their difference (N,) is known."""
    return scores if scores.ndim == 2 else np.stack([np.zeros_like(scores), scores], axis=1)

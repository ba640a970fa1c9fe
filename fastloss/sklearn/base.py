"""Base class of the estimators: fitting, weights, and predictions in blocks of rows."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted

from fastloss import optim
from fastloss.arrays import Floats, as_bool, as_integer, as_real, check_finite, ieee_arithmetic
from fastloss.blocks import float_blocks
from fastloss.losses.base import Loss
from fastloss.sklearn.training_set import (
    ClassWeight,
    TrainingSet,
    rows_to_predict,
    training_set,
)


@dataclass(frozen=True)
class Plan:
    """What to minimise, and how: the weighted mean of the losses + l1 sum|W| + l2 sum(W^2)."""

    loss: str | Loss
    l2: float
    l1: float = 0.0
    method: str | optim.Method = "lbfgs"
    seed: int = 0


class BaseLinearClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Estimator whose scores are ``X @ coef_.T + intercept_``.

    A subclass stores the parameters below in its constructor, and makes a `Plan` of them.
    """

    class_weight: ClassWeight | None
    fit_intercept: bool
    max_iter: int
    tol: float
    warm_start: bool

    @abstractmethod
    def _plan(self, rows: TrainingSet) -> Plan:
        """Return what to minimise over these rows; raise at a parameter out of range."""

    def _n_iter(self, n_iter: int) -> Any:
        """Return ``n_iter_``."""
        return n_iter

    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Any:
        """Fit the model to rows ``X`` (N, D) with labels ``y`` (N,).

        Parameters
        ----------
        X : float64, float32 or uint8 rows are read as they are; others become float64.
        y : labels: strings, integers, bools or floats.
        sample_weight : (N,) weights >= 0 of the rows, or a number for all.

        Returns
        -------
        The estimator itself.
        """
        warm_start = as_bool("warm_start", self.warm_start)
        last = self._weights() if warm_start and hasattr(self, "coef_") else None
        known: Any = getattr(self, "classes_", None)
        rows = training_set(self, X, y, sample_weight, self.class_weight)
        shape = rows.n_features + self.fit_intercept, len(rows.classes)
        if last is None:
            W = np.zeros(shape, rows.dtype)
        elif last.shape == shape and np.array_equal(known, rows.classes):
            W = last.astype(rows.dtype)
        else:
            raise ValueError("warm_start=True needs the features and classes of the last fit")
        self._minimize(rows, W, as_integer("max_iter", self.max_iter, 1))
        return self

    def _minimize(self, rows: TrainingSet, W: Floats, max_iter: int) -> None:
        """Minimise from ``W``, and set the attributes of a fitted model."""
        plan, tol = self._plan(rows), as_real("tol", self.tol)
        method = optim.get_method(plan.method)
        objective = rows.objective(
            loss=plan.loss, l1=plan.l1, l2=plan.l2, intercept=self.fit_intercept
        )
        try:
            result = optim.minimize(
                objective,
                W,
                method,
                max_epochs=max_iter,
                tolerance=tol,
                seed=plan.seed,
                record_every=2**62,
                reproducible=False,
            )
        except (ValueError, optim.DivergedError):
            check_rows(rows.X)
            raise
        if result.why == "interrupted":
            raise KeyboardInterrupt
        if result.why == "max_epochs":
            self._warn(method, max_iter)
        self.classes_ = rows.classes
        self._set_weights(result.W)
        self.n_iter_ = self._n_iter(round(result.record.epoch))

    def _warn(self, method: optim.Method, max_iter: int) -> None:
        if getattr(method, "batch_size", None) is not None:
            return  # methods on batches have no test of convergence
        warnings.warn(
            f"{method.name} has not converged in max_iter={max_iter} iterations: "
            "scale the features, or raise max_iter or tol",
            ConvergenceWarning,
            stacklevel=4,
        )

    def _set_weights(self, W: Floats) -> None:
        """Set ``coef_`` and ``intercept_`` from ``W`` (D + 1, C), or (D, C) without intercept."""
        if W.shape[1] == 2:
            W = W[:, 1:] - W[:, :1]
        n_features = self.n_features_in_
        self.coef_ = np.ascontiguousarray(W[:n_features].T)
        self.intercept_ = W[-1].copy() if len(W) > n_features else np.zeros(W.shape[1], W.dtype)

    def _weights(self) -> Floats:
        """Return ``W`` from ``coef_`` and ``intercept_``; see `_set_weights`."""
        W = self.coef_.T
        if self.fit_intercept:
            W = np.vstack([W, self.intercept_])
        return np.hstack([-0.5 * W, 0.5 * W]) if W.shape[1] == 1 else W

    def decision_function(self, X: ArrayLike) -> Floats:
        """Return the scores of rows ``X`` (N, D).

        Returns
        -------
        scores : (N, C), or for two classes (N,): above 0, the class is ``classes_[1]``.
        """
        return self._of_scores(X, lambda scores: scores)

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Return the class (N,) of rows ``X`` (N, D) with the largest score; ties: the first."""
        numbers = self._of_scores(X, _class_numbers)
        return self.classes_[numbers]

    def _of_scores(self, X: ArrayLike, function: Callable[[Floats], NDArray[Any]]) -> NDArray[Any]:
        """Return ``function`` of the scores, (N, C) or (N,), a block of rows at a time."""
        check_is_fitted(self)
        rows = rows_to_predict(self, X)
        dtype = np.result_type(rows, self.coef_)
        coef, intercept = self.coef_.T.astype(dtype), self.intercept_.astype(dtype)
        results: NDArray[Any] | None = None
        with ieee_arithmetic():
            for places, block in float_blocks(rows, dtype, coef.shape[1]):
                scores = block @ coef + intercept
                if not np.isfinite(scores).all():
                    check_rows(rows)
                part = function(scores[:, 0] if scores.shape[1] == 1 else scores)
                if results is None:
                    results = np.empty((len(rows), *part.shape[1:]), part.dtype)
                results[places] = part
        assert results is not None  # there is a row
        return results


def check_rows(X: NDArray[Any]) -> None:
    """Raise at the first entry that is not finite."""
    try:
        check_finite("X", X)
    except ValueError as error:
        raise ValueError(f"X contains NaN or infinity: {error}") from None


def _class_numbers(scores: Floats) -> NDArray[np.int64]:
    if scores.ndim == 1:
        return (scores > 0).astype(np.int64)
    return scores.argmax(axis=1)

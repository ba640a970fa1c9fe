"""Define `Objective`: a function of ``W``, whose data and loss are validated and laid out once."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from fastloss import advice, arrays
from fastloss.advice import in_order
from fastloss.arrays import ClassWeight, Floats
from fastloss.backends import auto, get_backend, lazily
from fastloss.backends.base import Backend, Workload
from fastloss.base_objective import BaseObjective
from fastloss.blocks import float_blocks
from fastloss.losses import get_loss
from fastloss.losses.base import Loss
from fastloss.penalties import Penalty
from fastloss.problem import BatchEvaluator, Evaluator, Problem
from fastloss.row_weights import as_labels_and_weights
from fastloss.settings import (
    AUTO,
    check_backend,
    checked_environment,
    requested_backend,
    requested_threads,
)
from fastloss.threads import available_threads, blas_threads

Reduction = Literal["mean", "sum"]
Rows = slice | NDArray[Any] | list[int]
# About this many evenly spread rows represent X in `Objective.facts`.
_HASHED_ROWS = 256


class Objective(BaseObjective):
    """The arguments of `loss_and_grad` except ``W``, validated and laid out once.

    Call it as ``objective(W) -> (loss, dW)``. Parameters and errors are those of `loss_and_grad`.
    Each call chooses the backend and the threads, so `use` applies. The constructor reads the
    environment variables.

    Examples
    --------
    >>> import numpy as np, fastloss
    >>> objective = fastloss.Objective([[1.0, 2.0], [3.0, 4.0]], [0, 2], loss="hinge", l2=0.1)
    >>> loss, dW = objective(np.zeros((2, 3)))
    >>> objective.terms(np.ones((2, 3)))  # data loss, penalty
    (2.0, 0.6000000000000001)
    """

    @np.errstate(under="ignore")
    def __init__(
        self,
        X: ArrayLike,
        y: ArrayLike,
        *,
        loss: str | Loss = "softmax",
        l1: float = 0.0,
        l2: float = 0.0,
        intercept: bool = False,
        sample_weight: ArrayLike | None = None,
        class_weight: ClassWeight | None = None,
        ignore_index: int | None = None,
        reduction: Reduction = "mean",
        backend: str = AUTO,
        n_threads: int | None = None,
    ) -> None:
        with in_order(X=X, y=y):
            array = arrays.as_rows(X)
            labels, weights = as_labels_and_weights(
                y, len(array), ignore_index, sample_weight, class_weight, reduction == "mean"
            )
        # Labels of weight 0 may be any number. The number of classes is not known before W.
        self._weighted_labels = tuple(
            label
            for label, weight in (class_weight if isinstance(class_weight, Mapping) else {}).items()
            if weight and label != ignore_index
        )
        self.penalty = Penalty(l1, l2)
        self.reduction = arrays.as_choice("reduction", reduction, ("mean", "sum"))
        self._backend = backend if backend == AUTO else check_backend(backend)
        self._n_threads = n_threads
        self._environment = checked_environment()
        requested_threads(n_threads, self._environment)
        self._set_rows(
            Problem(
                X=array,
                labels=labels,
                loss=get_loss(loss),
                intercept=arrays.as_bool("intercept", intercept),
                weights=weights,
                divisor=1.0,
                any_skipped=True,
            )
        )

    def _set_rows(self, problem: Problem) -> None:
        """Set the rows, and compute ``divisor`` and ``any_skipped``.

        An ``any_skipped`` of True is checked against the labels; False is trusted.
        """
        n_rows = n_counted = len(problem.labels)
        if problem.any_skipped:
            n_counted = int(np.count_nonzero(problem.labels != arrays.SKIP))
        divisor = 1.0
        if self.reduction == "mean":
            divisor = float(n_counted) if problem.weights is None else float(problem.weights.sum())
            if divisor == 0.0:
                raise ValueError(
                    f"the weights of the {n_rows} rows sum to 0 (each is ignored or has the "
                    "weight 0), so they have no mean; pass reduction='sum' for a loss of 0"
                )
        self._set_problem(replace(problem, divisor=divisor, any_skipped=n_counted < n_rows))

    def _set_problem(self, problem: Problem) -> None:
        self._problem = problem
        self._evaluators: dict[
            tuple[str, int | None, int, np.dtype[Any]], tuple[Evaluator, int | None]
        ] = {}
        self._accepted: set[tuple[tuple[int, ...], np.dtype[Any]]] = set()

    @property
    def X(self) -> NDArray[Any]:
        """Return the rows (N, D), as they were passed."""
        return self._problem.X

    @property
    def labels(self) -> NDArray[np.int64]:
        """Return the labels (N,), -1 for rows that are ignored or have weight 0."""
        return self._problem.labels

    @property
    def loss_function(self) -> Loss:
        """Return the loss, a function of a row's scores."""
        return self._problem.loss

    @property
    def intercept(self) -> bool:
        """Return whether the last row of ``W`` is the bias."""
        return self._problem.intercept

    @property
    @np.errstate(under="ignore")
    def row_weights(self) -> NDArray[np.float64]:
        """Return the factors (N,) of the rows' losses; for the mean, they sum to 1."""
        weights = self._problem.weights
        if weights is None:
            weights = (self.labels != arrays.SKIP).astype(np.float64)
        return weights / self._problem.divisor

    @property
    def shape(self) -> tuple[int, int]:
        """Return the number of rows and of features (N, D)."""
        n_rows, n_features = self.X.shape
        return n_rows, n_features

    @property
    def weight_sum(self) -> float:
        """Return the sum of the factors of the rows' losses: 1 for the mean."""
        return float(self.row_weights.sum())

    @property
    def n_threads(self) -> int:
        """Return the number of threads that a call may use."""
        return self._requested()[1] or available_threads()

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without evaluators, which hold addresses of this process."""
        return {**self.__dict__, "_evaluators": {}, "_accepted": set()}

    def __repr__(self) -> str:
        n_rows, n_features = self.X.shape
        return (
            f"Objective({n_rows} rows x {n_features} {self.X.dtype} features, "
            f"{self.loss_function!r}, l1={self.penalty.l1:g}, l2={self.penalty.l2:g}, "
            f"intercept={self.intercept}, reduction={self.reduction!r})"
        )

    def __call__(self, W: ArrayLike, *, out: Floats | None = None) -> tuple[float, Floats]:
        """Return the loss, penalty included, and its gradient (in ``out`` if given)."""
        W = self._check(W)
        if out is not None:
            arrays.check_out(out, W, {"X": self.X})
        dW = out if out is not None and out.flags.carray else np.empty(W.shape, W.dtype)
        total = self.add_penalty(self._data_loss(W, dW), W, dW)
        if out is None or out is dW:
            return total, dW
        out[...] = dW
        return total, out

    def terms(self, W: ArrayLike) -> tuple[float, float]:
        """Return the data loss and the penalty."""
        W = self._check(W)
        return self._data_loss(W, None), self.penalty.value(self.penalised(W))

    @arrays.ieee_arithmetic()
    def flat(self, w: ArrayLike) -> tuple[float, NDArray[Any]]:
        """Return loss and gradient for a flattened ``W``.

        It is meant for ``scipy.optimize.minimize(objective.flat, w, jac=True)``.

        Optimisers hold float64, so ``w`` is cast to the dtype of ``X`` if that is float32 or
        float64. The gradient has the dtype of ``w``, or float64 if ``w`` is not a float array.
        """
        w = arrays.as_floats("w", w)
        if w.ndim != 1 or w.size % self.n_parameter_rows:
            raise ValueError(
                f"w must be 1-D with a multiple of {self.n_parameter_rows} entries "
                f"(rows of W), got shape {w.shape}"
            )
        dtype = self.X.dtype if self.X.dtype in arrays.FLOAT_TYPES else w.dtype
        W = w.reshape(self.n_parameter_rows, -1).astype(dtype, copy=False)
        loss, dW = self(W)
        return loss, dW.ravel().astype(w.dtype, copy=False)

    def batch(self, rows: Rows) -> Objective:
        """Return the objective over some rows: a slice (a view of ``X``), indices or a mask.

        Rows are not validated again. "balanced" class weights stay those of all rows.
        """
        problem = self._problem
        rows = arrays.as_selection(rows, len(problem.labels))
        labels = problem.labels[rows]
        if not labels.size:
            raise ValueError(f"rows must select at least one row, got {rows!r}")
        batch = self._with(
            replace(
                problem,
                X=problem.X[rows],
                labels=np.ascontiguousarray(labels),
                weights=None
                if problem.weights is None
                else np.ascontiguousarray(problem.weights[rows]),
            )
        )
        # A W that fits all labels fits those of a batch.
        batch._accepted.update(self._accepted)
        return batch

    def minibatch(self, n_rows: int, n_candidates: int | None = None) -> Minibatch:
        """Return an estimate of this objective from ``n_rows`` rows a call: see `Minibatch`."""
        return Minibatch(self, n_rows, len(self.X) if n_candidates is None else n_candidates)

    @np.errstate(under="ignore")
    def astype(self, dtype: DTypeLike) -> Objective:
        """Return the same objective with ``X`` cast to float32 or float64."""
        dtype = np.dtype(dtype)
        if dtype not in (*arrays.FLOAT_TYPES, self.X.dtype):
            raise TypeError(f"dtype must be float32 or float64, got {dtype}")
        return self._with(replace(self._problem, X=self.X.astype(dtype)))

    def reproducible(self, W: ArrayLike, n_rows: int | None = None) -> Objective:
        """Return the same objective, with results of the same bits on any number of threads.

        Use it with a ``W`` of this shape and dtype, and with minibatches of ``n_rows`` (default:
        all rows). "auto" becomes the fastest backend with this property; the call waits until its
        kernels are compiled. NumPy runs on one thread, because BLAS results may depend on threads.
        """
        W = self._check(W)
        other = copy.copy(self)
        backend, n_threads = self._requested()
        workload = self._workload(n_rows, n_threads, W.shape[1], W.dtype)
        other._backend, other._n_threads = auto.reproducible(workload, backend)
        return other

    def count_right(self, W: Floats) -> tuple[int, int]:
        """Return how many rows have their highest score at their label, and how many count."""
        rows, n_features, n_right = self.counted_rows(), self.X.shape[1], 0
        # One thread, so that the result does not depend on the number of threads.
        with blas_threads(1), arrays.ieee_arithmetic():
            for block, X in float_blocks(self.X, W.dtype, W.shape[1], rows=rows):
                scores = X @ W[:n_features]
                if self.intercept:
                    scores += W[-1]
                if not np.isfinite(scores).all() and np.isfinite(W).all():
                    arrays.check_finite("X", self.X, self.labels != arrays.SKIP)
                n_right += int(np.count_nonzero(scores.argmax(axis=1) == self.labels[rows[block]]))
        return n_right, len(rows)

    def counted_rows(self) -> NDArray[np.intp]:
        """Return the numbers of the rows that are neither ignored nor of weight 0."""
        return np.flatnonzero(self.labels != arrays.SKIP)

    def weighted_rows(self, rows: NDArray[np.intp]) -> tuple[NDArray[Any], NDArray[np.float64]]:
        """Return some rows (K, D), and the factors (K,) of their losses."""
        return self.X[rows], self.row_weights[rows]

    def check_finite(self) -> None:
        """Raise ValueError at the first entry of a counted row that is not finite."""
        arrays.check_finite("X", self.X, self.labels != arrays.SKIP)

    def facts(self) -> dict[str, str]:
        """Return what a checkpoint compares, by name: the data, the loss and the penalty."""
        X = self.X
        return {
            "f": "an Objective",
            "X": f"{X.shape} {X.dtype}",
            "loss": repr(self.loss_function),
            "penalty": repr(self.penalty),
            "intercept": repr(self.intercept),
            "reduction": repr(self.reduction),
            # Hashing all of X would take too long.
            "sample of X": _hash(X[:: max(1, len(X) // _HASHED_ROWS)]),
            "labels": _hash(self.labels),
            "row weights": _hash(self.row_weights),
        }

    def _workload(
        self, n_rows: int | None, n_threads: int | None, n_classes: int, dtype: np.dtype[Any]
    ) -> Workload:
        """Describe a call with all rows, or with ``n_rows`` of them."""
        X = self.X
        return Workload(
            self.loss_function,
            (n_rows or len(X), X.shape[1], n_classes),
            X.dtype,
            dtype,
            rows_contiguous=abs(X.strides[1]) <= abs(X.strides[0]),
            n_threads=n_threads or available_threads(),
        )

    def without_penalty(self) -> Objective:
        """Return the same objective without its penalty."""
        other = copy.copy(self)
        other.penalty = Penalty()
        return other

    def _with(self, problem: Problem) -> Objective:
        other = copy.copy(self)
        other._set_rows(problem)
        return other

    def _requested(self) -> tuple[str, int | None]:
        backend, _ = requested_backend(self._backend, self._environment)
        return backend, requested_threads(self._n_threads, self._environment)

    def _data_loss(self, W: Floats, dW: Floats | None) -> float:
        key = (*self._requested(), W.shape[1], W.dtype)
        evaluate, n_threads = self._evaluators.get(key) or self._evaluator(*key)
        return float(evaluate(W, dW, n_threads))

    def _evaluator(
        self, backend: str, n_threads: int | None, n_classes: int, dtype: np.dtype[Any]
    ) -> tuple[Evaluator, int | None]:
        """Return the function that evaluates the rows, and its threads; keep both if final."""
        key = (backend, n_threads, n_classes, dtype)
        chosen, n_threads, is_final = self._resolve(*key)
        evaluator = lazily.prepare(chosen, self._problem, n_classes, dtype), n_threads
        if is_final:
            self._evaluators[key] = evaluator
        return evaluator

    def _resolve(
        self,
        backend: str,
        n_threads: int | None,
        n_classes: int,
        dtype: np.dtype[Any],
        n_rows: int | None = None,
    ) -> tuple[Backend, int | None, bool]:
        """Return the backend, the threads, and whether this choice is final.

        ``n_rows`` is the size of a batch; None means all rows.
        """
        is_final = True
        if backend == AUTO:
            choice = auto.choose(self._workload(n_rows, n_threads, n_classes, dtype))
            backend, n_threads, is_final = choice.backend, choice.n_threads, choice.is_final
        return get_backend(backend, self.loss_function), n_threads, is_final

    def _check(self, W: ArrayLike) -> Floats:
        """Return ``W`` as an array; raise unless it fits the rows and labels."""
        # Validating again would cost more than a small call.
        if type(W) is np.ndarray and (W.shape, W.dtype) in self._accepted and W.flags.aligned:
            return W
        weights = arrays.as_weights(W)
        n_features = self.X.shape[1]
        if weights.dtype not in arrays.weight_types(self.X.dtype):
            hint = advice.on_cast("W", W, f"np.{self.X.dtype}")
            raise TypeError(
                "W and X must have the same float type, "
                f"got {weights.dtype} and {self.X.dtype}{hint}"
            )
        if len(weights) != self.n_parameter_rows:
            raise ValueError(
                f"W must have {self.n_parameter_rows} rows for X with {n_features} columns and "
                f"intercept={self.intercept}, got shape {weights.shape}"
                f"{advice.on_weight_rows(weights, n_features, self.intercept)}"
            )
        arrays.check_label_range(self.labels, int(self.labels.max()), weights.shape[1])
        for label in self._weighted_labels:
            if label >= weights.shape[1]:
                raise ValueError(
                    f"class_weight names {label}, which is not in [0, {weights.shape[1]})"
                )
        self._check_weights(weights.dtype)
        self._accepted.add((weights.shape, weights.dtype))
        return weights

    def _check_weights(self, dtype: np.dtype[Any]) -> None:
        """Raise at the first row weight that overflows in this dtype."""
        weights = self._problem.weights
        if weights is None or weights.max() <= np.finfo(dtype).max:
            return
        i = int(np.argmax(weights > np.finfo(dtype).max))
        raise ValueError(f"the weight of row {i}, {weights[i]:g}, is too large for {dtype}")


def _hash(array: NDArray[Any]) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:12]


class Minibatch:
    """An estimate of an objective from ``n_rows`` of its rows, chosen by the caller.

    Loss and gradient estimate those of all rows. The estimates are unbiased, also with weights and
    ``reduction="sum"``, if ``n_candidates`` rows are equally likely and all others have weight 0.
    The data loss of n rows is therefore multiplied by ``n_candidates / n``. Without weights, the
    estimate of a mean is the mean over the batch.
    """

    def __init__(self, objective: Objective, n_rows: int, n_candidates: int) -> None:
        n_candidates = arrays.as_integer("n_candidates", n_candidates, 1)
        n_rows = arrays.as_integer("n_rows", n_rows, 1, n_candidates)
        self._objective = objective
        self._n_rows = n_rows
        problem = objective._problem
        self._problem = replace(problem, divisor=problem.divisor * n_rows / n_candidates)
        self._evaluators: dict[tuple[object, ...], tuple[BatchEvaluator, int | None]] = {}

    def __call__(
        self, rows: ArrayLike, W: ArrayLike, next_rows: ArrayLike = ()
    ) -> tuple[float, Floats]:
        """Return the estimate from ``rows`` (indices), penalty included, and its gradient.

        ``next_rows``, the rows of the next call, are a hint: some backends prefetch them.
        """
        objective = self._objective
        try:
            W = objective._check(W)
            rows = self._check(rows)
        except (TypeError, ValueError):
            # Not by `advice.in_order`, which would take time in calls without an error, too.
            if np.ndim(W) == 1 and np.ndim(rows) == 2:
                order = "rows", "W"
                raise TypeError(advice.wrong_order(order[::-1], order)) from None
            raise
        dW = np.empty(W.shape, W.dtype)
        key = (*objective._requested(), W.shape[1], W.dtype)
        evaluate, n_threads = self._evaluators.get(key) or self._evaluator(*key)
        # Not validated: any address can be prefetched.
        next_rows = np.ascontiguousarray(next_rows, np.int64)
        loss = float(evaluate(rows, W, dW, n_threads, next_rows))
        return objective.add_penalty(loss, W, dW), dW

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_evaluators": {}}

    def _check(self, rows: ArrayLike) -> NDArray[np.int64]:
        numbers = arrays.as_row_numbers(rows, len(self._problem.labels))
        if len(numbers) != self._n_rows:
            raise ValueError(f"rows must have shape ({self._n_rows},), got {numbers.shape}")
        return numbers

    def _evaluator(
        self, backend: str, n_threads: int | None, n_classes: int, dtype: np.dtype[Any]
    ) -> tuple[BatchEvaluator, int | None]:
        key = (backend, n_threads, n_classes, dtype)
        chosen, n_threads, is_final = self._objective._resolve(*key, n_rows=self._n_rows)
        evaluate = lazily.prepare_batches(chosen, self._problem, self._n_rows, n_classes, dtype)
        if is_final:
            self._evaluators[key] = evaluate, n_threads
        return evaluate, n_threads

"""The front door: validate once, hand the rows to a backend, add the penalty."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from fastloss import arrays
from fastloss.arrays import ClassWeight, Floats
from fastloss.backends import auto, get_backend, unavailable_backends
from fastloss.backends.base import Backend, BatchEvaluator, Evaluator, Problem
from fastloss.losses import get_loss
from fastloss.losses.base import Loss
from fastloss.penalties import Penalty
from fastloss.settings import (
    AUTO,
    check_backend,
    environment,
    requested_backend,
    requested_threads,
)
from fastloss.threads import available_threads

Reduction = Literal["mean", "sum"]
Rows = slice | NDArray[Any] | list[int]


def loss_and_grad(
    W: ArrayLike,
    X: ArrayLike,
    y: ArrayLike,
    loss: str | Loss = "softmax",
    *,
    l1: float = 0.0,
    l2: float = 0.0,
    intercept: bool = False,
    sample_weight: ArrayLike | None = None,
    class_weight: ClassWeight | None = None,
    ignore_index: int | None = None,
    reduction: Reduction = "mean",
    backend: str = AUTO,
    n_threads: int | None = None,
    out: Floats | None = None,
) -> tuple[float, Floats]:
    """Loss of a linear classifier and its gradient with respect to ``W``.

    With scores ``S = X @ W`` and row weights ``w_i = sample_weight[i] * class_weight[y[i]]``::

        total = sum_i w_i loss(S_i, y_i) / sum_i w_i + l1 * sum|W| + l2 * sum(W**2)

    Parameters
    ----------
    W : (D, C) float32 or float64; (D + 1, C) with ``intercept``, the last row being the bias.
    X : (N, D) of the type of ``W``, or uint8; any strides, read-only and memory-mapped too.
    y : (N,) integers in [0, C).
    loss : a name (see `available_losses`) or an instance, e.g. ``Hinge(margin=0.5)``.
    l1, l2 : strengths of the penalties, >= 0. The bias is not penalised.
    intercept : whether ``W`` has a bias row. ``X`` is not copied for it.
    sample_weight : (N,) finite and >= 0.
    class_weight : mapping of label to weight (1 where it has none), or "balanced": the number of
        rows / (number of classes in ``y`` * rows of that class).
    ignore_index : rows with this label are skipped before any arithmetic.
    reduction : "mean" (divides by the sum of the row weights) or "sum".
    backend : "naive", "numpy", "fused", or "auto": what `use`, then the environment variable
        ``FASTLOSS_BACKEND``, then `explain` says.
    n_threads : for Numba and BLAS together; else `use`, ``FASTLOSS_NUM_THREADS``, all.
    out : (like ``W``) array to write the gradient to; must not overlap an input.

    Returns
    -------
    loss : float, penalty included.
    dW : array of the shape and type of ``W``; where the loss has a kink, a subgradient.

    Raises
    ------
    TypeError : an argument of the wrong kind, such as float labels or mixed float types.
    ValueError : a wrong value or shape; names the argument and the first bad place.
    RuntimeError : a named backend that cannot run here.

    Examples
    --------
    >>> import numpy as np, fastloss
    >>> X = np.array([[1.0, 2.0], [3.0, 4.0]])
    >>> loss, dW = fastloss.loss_and_grad(np.zeros((2, 3)), X, [0, 2])
    >>> print(round(loss, 4))  # all scores 0: log C
    1.0986
    >>> dW.round(2)
    array([[ 0.17,  0.67, -0.83],
           [ 0.  ,  1.  , -1.  ]])
    """
    objective = Objective(
        X,
        y,
        loss=loss,
        l1=l1,
        l2=l2,
        intercept=intercept,
        sample_weight=sample_weight,
        class_weight=class_weight,
        ignore_index=ignore_index,
        reduction=reduction,
        backend=backend,
        n_threads=n_threads,
    )
    # The objective keeps copies of these, and cannot see it.
    arrays.check_overlap(out, {"y": y, "sample_weight": sample_weight})
    return objective(W, out=out)


def score_gradient(
    scores: ArrayLike,
    y: ArrayLike,
    *,
    loss: str | Loss = "softmax",
    backend: str = AUTO,
    n_threads: int | None = None,
) -> tuple[Floats, Floats]:
    """Loss of every row and its gradient with respect to the row's scores.

    The door for code that has scores of its own, such as the last layer of a network.

    Parameters
    ----------
    scores : (N, C) float32 or float64, any strides.
    y : (N,) integers in [0, C).
    loss, backend, n_threads : as in `loss_and_grad`.

    Returns
    -------
    losses : (N,), neither averaged nor weighted.
    dscores : (N, C); both of the type of ``scores``. A row with a NaN or +inf score is NaN.

    Examples
    --------
    >>> import fastloss
    >>> fastloss.score_gradient([[3.0, 1.0, 2.5]], [0], loss="hinge")
    (array([0.5]), array([[-1.,  0.,  1.]]))
    """
    loss = get_loss(loss)
    array = arrays.as_scores(scores)
    n_rows, n_classes = array.shape
    labels = arrays.as_labels(y, n_rows, rows_of="scores")
    arrays.check_label_range(labels, int(labels.max()), n_classes)
    variables = environment()
    chosen, threads = (
        requested_backend(backend, variables)[0],
        requested_threads(n_threads, variables),
    )
    if chosen == AUTO:
        shape = (n_rows, 0, n_classes)
        choice = auto.choose(loss, shape, array.dtype, array.dtype, n_threads=threads)
        chosen, threads = choice.backend, choice.n_threads
    return get_backend(chosen, loss).score_gradient(loss, array, labels, threads)


class Objective:
    """Everything of `loss_and_grad` but ``W``, validated and laid out once.

    ``objective(W) -> (loss, dW)``. Parameters and errors as in `loss_and_grad`; the backend and
    the threads are settled at each call, so `use` applies; environment variables count as they were
    when the objective was made.

    Examples
    --------
    >>> import numpy as np, fastloss
    >>> objective = fastloss.Objective([[1.0, 2.0], [3.0, 4.0]], [0, 2], loss="hinge", l2=0.1)
    >>> loss, dW = objective(np.zeros((2, 3)))
    >>> objective.terms(np.ones((2, 3)))  # data loss, penalty
    (2.0, 0.6000000000000001)
    """

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
        array = arrays.as_rows(X)
        labels = arrays.as_labels(y, len(array), ignore_index)
        arrays.check_reduction(reduction)
        self.penalty = Penalty(l1, l2)
        self.reduction = reduction
        self._backend = backend if backend == AUTO else check_backend(backend)
        self._n_threads = n_threads
        self._environment = environment()
        requested_threads(n_threads, self._environment)
        self._set_rows(
            Problem(
                X=array,
                labels=labels,
                loss=get_loss(loss),
                intercept=bool(intercept),
                weights=arrays.as_row_weights(sample_weight, class_weight, labels),
                divisor=1.0,
                any_skipped=True,
            )
        )

    def _set_rows(self, problem: Problem) -> None:
        """Take the rows, and work out what follows from them.

        ``any_skipped`` may be True where none is: rows are counted only if it is.
        """
        n_rows = n_counted = len(problem.labels)
        if problem.any_skipped:
            n_counted = int(np.count_nonzero(problem.labels != arrays.SKIP))
        divisor = 1.0
        if self.reduction == "mean":
            divisor = float(n_counted) if problem.weights is None else float(problem.weights.sum())
            if divisor == 0.0:
                raise ValueError(
                    f"the weights of the {n_rows} rows sum to 0 ({n_counted} of them are not "
                    "ignored), so they have no mean; pass reduction='sum' for a loss of 0"
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
        """The rows (N, D), as they were handed in."""
        return self._problem.X

    @property
    def labels(self) -> NDArray[np.int64]:
        """The labels (N,), -1 where the row is ignored."""
        return self._problem.labels

    @property
    def loss_function(self) -> Loss:
        """The loss over a row of scores."""
        return self._problem.loss

    @property
    def intercept(self) -> bool:
        """Whether the last row of ``W`` is the bias."""
        return self._problem.intercept

    @property
    def row_weights(self) -> NDArray[np.float64]:
        """What the loss of each row is multiplied with (N,): they sum to 1 for the mean."""
        weights = self._problem.weights
        if weights is None:
            weights = (self.labels != arrays.SKIP).astype(np.float64)
        return weights / self._problem.divisor

    @property
    def n_parameter_rows(self) -> int:
        """How many rows ``W`` has: the features, and the bias if there is one."""
        return self.X.shape[1] + self.intercept

    def __repr__(self) -> str:
        n_rows, n_features = self.X.shape
        return (
            f"Objective({n_rows} rows x {n_features} {self.X.dtype} features, "
            f"{self.loss_function!r}, l1={self.penalty.l1:g}, l2={self.penalty.l2:g}, "
            f"intercept={self.intercept}, reduction={self.reduction!r})"
        )

    def __call__(self, W: ArrayLike, *, out: Floats | None = None) -> tuple[float, Floats]:
        """Loss, penalty included, and its gradient (in ``out`` if given)."""
        W = self._check(W)
        if out is not None:
            arrays.check_out(out, W, {"X": self.X})
        dW = out if out is not None and out.flags.c_contiguous else np.empty(W.shape, W.dtype)
        total = self._add_penalty(self._data_loss(W, dW), W, dW)
        if out is None or out is dW:
            return total, dW
        out[...] = dW
        return total, out

    def loss(self, W: ArrayLike) -> float:
        """The loss, penalty included, without its gradient."""
        return sum(self.terms(W))

    def terms(self, W: ArrayLike) -> tuple[float, float]:
        """The data loss and the penalty."""
        W = self._check(W)
        return self._data_loss(W, None), self.penalty.value(self._penalised(W))

    def flat(self, w: ArrayLike) -> tuple[float, NDArray[Any]]:
        """Loss and gradient for a flattened ``W``: ``scipy.optimize.minimize(objective.flat, w,
        jac=True)``.

        ``w`` is cast to the type of ``X`` if that is a float, because optimisers hold float64; the
        gradient has the type of ``w``.
        """
        w = np.asarray(w)
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
        """The same objective over some rows: a slice (a view of ``X``), indices or a mask.

        Nothing is validated again; "balanced" class weights stay those of all rows.
        """
        problem = self._problem
        labels = problem.labels[rows]
        if labels.ndim != 1 or not labels.size:
            raise ValueError(f"rows must select at least one row in one dimension, got {rows!r}")
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
        # Whatever W fits all labels fits some of them.
        batch._accepted.update(self._accepted)
        return batch

    def minibatch(self, n_rows: int, n_candidates: int | None = None) -> Minibatch:
        """This objective estimated from ``n_rows`` of its rows at a time: see `Minibatch`."""
        return Minibatch(self, n_rows, len(self.X) if n_candidates is None else n_candidates)

    def astype(self, dtype: DTypeLike) -> Objective:
        """The same objective with ``X`` cast to another type."""
        return self._with(replace(self._problem, X=arrays.as_rows(self.X.astype(dtype))))

    def reproducible(self, W: ArrayLike, n_rows: int | None = None) -> Objective:
        """The same objective, whose results have the same bits on any number of threads.

        For a ``W`` of this shape and type; ``n_rows``: of the minibatches that it is meant for, all
        unless given. "auto" becomes the compiled backend as soon as its kernels are ready (this
        waits for them), or NumPy where that cannot run. NumPy runs on one thread: its products are
        those of BLAS, which promises nothing for more.
        """
        W = self._check(W)
        other = copy.copy(self)
        other._evaluators = {}
        backend, n_threads = self._requested()
        other._backend, other._n_threads = auto.reproducible(
            self.loss_function,
            (n_rows or len(self.X), self.X.shape[1], W.shape[1]),
            self.X.dtype,
            W.dtype,
            backend=backend,
            rows_contiguous=_rows_are_together(self.X),
            n_threads=n_threads,
        )
        return other

    def without_penalty(self) -> Objective:
        """The data loss alone."""
        other = copy.copy(self)
        other.penalty = Penalty()
        return other

    def _with(self, problem: Problem) -> Objective:
        other = copy.copy(self)
        other._set_rows(problem)
        return other

    def _penalised(self, W: Floats) -> Floats:
        return W[:-1] if self.intercept else W

    def _add_penalty(self, data_loss: float, W: Floats, dW: Floats) -> float:
        """The total loss; the penalty's gradient is added to ``dW``."""
        if not self.penalty.is_active:
            return data_loss
        weights = self._penalised(W)
        self.penalty.add_gradient(weights, self._penalised(dW))
        return data_loss + self.penalty.value(weights)

    def _requested(self) -> tuple[str, int | None]:
        backend, _ = requested_backend(self._backend, self._environment)
        return backend, requested_threads(self._n_threads, self._environment)

    def _data_loss(self, W: Floats, dW: Floats | None) -> float:
        key = (*self._requested(), W.shape[1], W.dtype)
        evaluate, n_threads = self._evaluators.get(key) or self._evaluator(*key)
        return evaluate(W, dW, n_threads)

    def _evaluator(
        self, backend: str, n_threads: int | None, n_classes: int, dtype: np.dtype[Any]
    ) -> tuple[Evaluator, int | None]:
        """What evaluates the rows and on how many threads, kept for the calls to come."""
        key = (backend, n_threads, n_classes, dtype)
        chosen, n_threads, is_final = self._resolve(*key)
        evaluator = chosen.prepare(self._problem, n_classes, dtype), n_threads
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
        """The backend for all rows, or batches of ``n_rows``; threads; whether it stays so."""
        is_final = True
        if backend == AUTO:
            choice = auto.choose(
                self.loss_function,
                (n_rows or len(self.X), self.X.shape[1], n_classes),
                self.X.dtype,
                dtype,
                rows_contiguous=_rows_are_together(self.X),
                n_threads=n_threads,
            )
            backend, n_threads, is_final = choice.backend, choice.n_threads, choice.is_final
        return get_backend(backend, self.loss_function), n_threads, is_final

    def _check(self, W: ArrayLike) -> Floats:
        """``W`` as an array that fits the rows."""
        # What has passed once needs no second look: a small problem takes less time than that.
        if type(W) is np.ndarray and (W.shape, W.dtype) in self._accepted:
            return W
        weights = arrays.as_weights(W)
        n_features = self.X.shape[1]
        if self.X.dtype != np.uint8 and weights.dtype != self.X.dtype:
            raise TypeError(
                f"W and X must have the same float type, got {weights.dtype} and {self.X.dtype}"
            )
        if len(weights) != self.n_parameter_rows:
            raise ValueError(
                f"W must have {self.n_parameter_rows} rows for X with {n_features} columns and "
                f"intercept={self.intercept}, got shape {weights.shape}"
            )
        arrays.check_label_range(self.labels, int(self.labels.max()), weights.shape[1])
        self._accepted.add((weights.shape, weights.dtype))
        return weights


class Minibatch:
    """``n_rows`` rows of an objective at a time, which ones is said in each call.

    The loss and gradient estimate those of all rows. They are unbiased, weights and
    ``reduction="sum"`` included, if all of ``n_candidates`` rows are equally likely and the others
    have no weight: a data loss of n rows counts ``n_candidates / n`` times. Without weights, the
    estimate of a mean is the mean over the batch.
    """

    def __init__(self, objective: Objective, n_rows: int, n_candidates: int) -> None:
        n_rows = arrays.as_integer("n_rows", n_rows, 1, n_candidates)
        self._objective = objective
        self._n_rows = n_rows
        problem = objective._problem
        self._problem = replace(problem, divisor=problem.divisor * n_rows / n_candidates)
        self._evaluators: dict[tuple[object, ...], tuple[BatchEvaluator, int | None]] = {}

    def __call__(self, rows: NDArray[Any], W: ArrayLike) -> tuple[float, Floats]:
        """The estimate from these rows (their indices), penalty included, and its gradient."""
        objective = self._objective
        W = objective._check(W)
        rows = self._check(rows)
        dW = np.empty(W.shape, W.dtype)
        key = (*objective._requested(), W.shape[1], W.dtype)
        evaluate, n_threads = self._evaluators.get(key) or self._evaluator(*key)
        return objective._add_penalty(evaluate(rows, W, dW, n_threads), W, dW), dW

    def _check(self, rows: NDArray[Any]) -> NDArray[np.int64]:
        rows = np.ascontiguousarray(rows, np.int64)
        if rows.shape != (self._n_rows,):
            raise ValueError(f"rows must have shape ({self._n_rows},), got {rows.shape}")
        n_all = len(self._problem.labels)
        # Kernels trust them.
        if rows.min() < 0 or rows.max() >= n_all:
            bad = rows[(rows < 0) | (rows >= n_all)]
            raise IndexError(f"rows must be in [0, {n_all}), got {bad[0]}")
        return rows

    def _evaluator(
        self, backend: str, n_threads: int | None, n_classes: int, dtype: np.dtype[Any]
    ) -> tuple[BatchEvaluator, int | None]:
        key = (backend, n_threads, n_classes, dtype)
        chosen, n_threads, is_final = self._objective._resolve(*key, n_rows=self._n_rows)
        evaluate = chosen.prepare_batches(self._problem, self._n_rows, n_classes, dtype)
        if is_final:
            self._evaluators[key] = evaluate, n_threads
        return evaluate, n_threads


@dataclass(frozen=True)
class Explanation:
    """What runs, and why.

    ``predicted``: the seconds a call should take, by backend and number of threads, fastest first
    (for "auto" only). ``unavailable`` says of other backends why they cannot run.
    """

    backend: str
    reason: str
    n_threads: int
    unavailable: dict[str, str]
    predicted: dict[tuple[str, int], float] = field(default_factory=dict)

    def __str__(self) -> str:
        lines = [f"{self.backend}, up to {_threads(self.n_threads)}: {self.reason}"]
        lines += [
            f"  {backend}, {_threads(n)}: {1e3 * seconds:.3g} ms predicted"
            for (backend, n), seconds in self.predicted.items()
        ]
        lines += [f"  {name} cannot run: {why}" for name, why in self.unavailable.items()]
        return "\n".join(lines)


def _threads(n: int) -> str:
    return "1 thread" if n == 1 else f"{n} threads"


def explain(
    N: int,
    D: int,
    C: int,
    *,
    dtype: DTypeLike = np.float32,
    loss: str | Loss = "softmax",
    backend: str = AUTO,
    n_threads: int | None = None,
    rows_contiguous: bool = True,
) -> Explanation:
    """What `loss_and_grad` would run for ``N`` rows, ``D`` features and ``C`` classes, and why.

    ``dtype`` is that of ``X`` (for uint8, ``W`` is taken to be float32); ``rows_contiguous`` is
    False for an ``X`` in Fortran order. Settings of `use` and of the environment count. Whether the
    kernels are compiled already does not: until they are, "auto" answers with NumPy.

    Examples
    --------
    >>> import fastloss
    >>> told = fastloss.explain(60_000, 785, 10, backend="numpy", n_threads=1)
    >>> print(told)
    numpy, up to 1 thread: asked for by the argument backend=
    """
    N, D, C = (arrays.as_integer(name, n, 1) for name, n in zip("NDC", (N, D, C), strict=True))
    X_type = np.dtype(dtype)
    if X_type not in (*arrays.FLOAT_TYPES, np.dtype(np.uint8)):
        raise TypeError(f"dtype must be float32, float64 or uint8, got {X_type}")
    loss = get_loss(loss)
    unavailable = unavailable_backends(loss)
    variables = environment()
    requested, by = requested_backend(backend, variables)
    threads = requested_threads(n_threads, variables)
    if requested != AUTO:
        get_backend(requested, loss)
        reason = f"asked for by {by}"
        return Explanation(requested, reason, threads or available_threads(), unavailable)
    choice = auto.choose(
        loss,
        (N, D, C),
        X_type,
        np.dtype(np.float32) if X_type == np.uint8 else X_type,
        rows_contiguous=rows_contiguous,
        n_threads=threads,
        prepare=False,
    )
    predicted = dict(sorted(choice.predicted.items(), key=lambda item: item[1]))
    return Explanation(choice.backend, choice.reason, choice.n_threads, unavailable, predicted)


def _rows_are_together(X: NDArray[Any]) -> bool:
    return abs(X.strides[1]) <= abs(X.strides[0])

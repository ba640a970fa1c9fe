"""Define the main functions: `loss_and_grad` of rows and weights, `score_gradient` of scores."""

from __future__ import annotations

from numpy.typing import ArrayLike

from fastloss import arrays
from fastloss.advice import in_order
from fastloss.arrays import ClassWeight, Floats
from fastloss.backends import auto, get_backend
from fastloss.backends.base import Workload
from fastloss.losses import get_loss
from fastloss.losses.base import Loss
from fastloss.objective import Objective, Reduction
from fastloss.settings import AUTO, checked_environment, requested_backend, requested_threads
from fastloss.threads import available_threads


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
    """Compute the loss of a linear classifier and its gradient with respect to ``W``.

    With scores ``S = X @ W`` and row weights ``w_i = sample_weight[i] * class_weight[y[i]]``::

        total = sum_i w_i loss(S_i, y_i) / sum_i w_i + l1 * sum|W| + l2 * sum(W**2)

    Parameters
    ----------
    W : (D, C) float32 or float64; (D + 1, C) with ``intercept``, where the last row is the bias.
    X : (N, D) of the dtype of ``W``, or float16 or uint8, which are converted a block of rows at a
        time; any strides, also read-only or memory-mapped.
    y : (N,) integers in [0, C).
    loss : a name (see `available_losses`) or an instance, e.g. ``Hinge(margin=0.5)``.
    l1, l2 : strengths of the penalties, >= 0. The bias is not penalised.
    intercept : whether ``W`` has a bias row. ``X`` is not copied for it.
    sample_weight : (N,) finite and >= 0. A row of weight 0 is skipped, so it may hold NaN.
    class_weight : mapping of label to weight (default 1), or "balanced": the number of rows /
        (number of classes in ``y`` * rows of that class).
    ignore_index : rows with this label are skipped before any arithmetic.
    reduction : "mean" (divides by the sum of the row weights) or "sum".
    backend : "naive", "numpy", "numba", "fused" or another registered name. "auto" means the
        backend of `use`, else ``FASTLOSS_BACKEND``, else the fastest (see `explain`).
    n_threads : for kernels and BLAS together. None means `use`, else ``FASTLOSS_NUM_THREADS``, else
        the least of CPU affinity, CPU quota, ``OMP_NUM_THREADS``, ``NUMBA_NUM_THREADS`` and the
        variables of BLAS libraries.
    out : array like ``W`` that receives the gradient; it must not overlap an input.

    Returns
    -------
    loss : float, penalty included.
    dW : array of the shape and dtype of ``W``; a subgradient if the loss has a kink at ``W``.

    Raises
    ------
    TypeError : an argument of the wrong kind, such as float labels or mixed float types.
    ValueError : a wrong value or shape; the message names the argument and the first bad place.
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
    intercept = arrays.as_bool("intercept", intercept)
    with in_order(intercept, W=W, X=X, y=y):
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
        # The objective keeps copies of these, so it cannot see an overlap.
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
    """Compute the loss of every row and its gradient with respect to the row's scores.

    Use this function if scores come from elsewhere, such as the last layer of a network.

    Parameters
    ----------
    scores : (N, C) float32 or float64, any strides.
    y : (N,) integers in [0, C).
    loss, backend, n_threads : as in `loss_and_grad`.

    Returns
    -------
    losses : (N,), neither averaged nor weighted.
    dscores : (N, C). Both have the dtype of ``scores``. A row with a NaN or +inf score is NaN.

    Examples
    --------
    >>> import fastloss
    >>> fastloss.score_gradient([[3.0, 1.0, 2.5]], [0], loss="hinge")
    (array([0.5]), array([[-1.,  0.,  1.]]))
    """
    loss = get_loss(loss)
    with in_order(scores=scores, y=y):
        array = arrays.as_scores(scores)
        n_rows, n_classes = array.shape
        labels = arrays.as_labels(y, n_rows, rows_of="scores")
    arrays.check_label_range(labels, int(labels.max()), n_classes)
    variables = checked_environment()
    chosen, threads = (
        requested_backend(backend, variables)[0],
        requested_threads(n_threads, variables),
    )
    if chosen == AUTO:
        shape = (n_rows, 0, n_classes)
        most = threads or available_threads()
        choice = auto.choose(Workload(loss, shape, array.dtype, array.dtype, n_threads=most))
        chosen, threads = choice.backend, choice.n_threads
    return get_backend(chosen, loss).score_gradient(loss, array, labels, threads)

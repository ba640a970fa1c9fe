"""The front door: `loss_and_grad` for rows and weights, `score_gradient` for scores."""

from __future__ import annotations

from numpy.typing import ArrayLike

from fastloss import arrays
from fastloss.arrays import ClassWeight, Floats
from fastloss.backends import auto, get_backend
from fastloss.backends.base import Workload
from fastloss.losses import get_loss
from fastloss.losses.base import Loss
from fastloss.objective import Objective, Reduction
from fastloss.settings import AUTO, environment, requested_backend, requested_threads
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
    W : (D, C) float32 or float64; (D + 1, C) with ``intercept``, the last row being the bias.
    X : (N, D) of the type of ``W``, or uint8; any strides, read-only and memory-mapped too.
    y : (N,) integers in [0, C).
    loss : a name (see `available_losses`) or an instance, e.g. ``Hinge(margin=0.5)``.
    l1, l2 : strengths of the penalties, >= 0. The bias is not penalised.
    intercept : whether ``W`` has a bias row. ``X`` is not copied for it.
    sample_weight : (N,) finite and >= 0. A row of weight 0 is left out: it may hold NaN.
    class_weight : mapping of label to weight (1 where it has none), or "balanced": the number of
        rows / (number of classes in ``y`` * rows of that class).
    ignore_index : rows with this label are skipped before any arithmetic.
    reduction : "mean" (divides by the sum of the row weights) or "sum".
    backend : "naive", "numpy", "numba", "fused", a registered name, or "auto": the backend of
        `use`, else of the environment variable ``FASTLOSS_BACKEND``, else the fastest (`explain`).
    n_threads : for kernels and BLAS together; else `use`, else ``FASTLOSS_NUM_THREADS``, else the
        least of CPU affinity, CPU quota, ``OMP_NUM_THREADS``, ``NUMBA_NUM_THREADS`` and BLAS's own.
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

    Use it in code that has scores of its own, such as the last layer of a network.

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
        most = threads or available_threads()
        choice = auto.choose(Workload(loss, shape, array.dtype, array.dtype, n_threads=most))
        chosen, threads = choice.backend, choice.n_threads
    return get_backend(chosen, loss).score_gradient(loss, array, labels, threads)

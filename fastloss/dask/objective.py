"""Define `DaskObjective`: an objective whose rows are on the workers of a cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastloss import arrays
from fastloss.arrays import ClassWeight, Floats
from fastloss.backends import auto, get_backend
from fastloss.backends.base import Workload
from fastloss.base_objective import BaseObjective
from fastloss.dask.block import Plan, read
from fastloss.dask.processes import Reduce, ReducedRows
from fastloss.dask.store import Store
from fastloss.dask.totals import Weighing
from fastloss.losses import get_loss
from fastloss.losses.base import Loss
from fastloss.objective import Objective, Reduction
from fastloss.settings import AUTO, check_backend, checked_environment, requested_backend
from fastloss.version import install_extra

if TYPE_CHECKING:
    from fastloss.dask.cluster import ClusterRows, Progress


class DaskObjective(BaseObjective):
    """The loss over rows on the workers of a dask cluster, as a function of ``W``.

    Call it as ``objective(W) -> (loss, dW)``, or pass it to `fastloss.optim.minimize`. The rows are
    loaded and validated once. Then no row moves: an evaluation sends ``W`` to each worker, and gets
    sums back. Use it in a ``with`` block, which frees the memory of the cluster.

    Results have the same bits for any number of workers and threads. They equal those of an
    `Objective` over all rows up to rounding. If a worker dies, the cluster computes its rows again,
    and the evaluation continues.

    Parameters
    ----------
    X : the rows, in one of these forms:

        - a dask array (N, D) of float16, float32, float64 or uint8. It is cut into blocks by its
          shape, so its chunks do not matter. Unknown chunk sizes are computed once.
        - a list of blocks: delayed objects, futures or arrays (n, D); or pairs ``(X, y)`` of
          these, without ``y``. The blocks stay as they are.
        - a mapping from workers to blocks or pairs.
        - with ``reduce``: the array of this process.
    y : labels (N,): a dask or NumPy array; for blocks of ``X``, their labels in the same form.
    n_classes : columns of ``W``; default: the largest label plus one. ``reduce`` needs it.
    loss, l1, l2, intercept, class_weight, ignore_index, reduction : as in `loss_and_grad`.
        "balanced" weights balance all rows, not those of a block.
    sample_weight : (N,) in the same form as ``y``.
    backend : as in `loss_and_grad`. "auto" chooses the fastest one whose bits do not depend on
        threads. Another one runs on one thread of each worker.
    client : the dask client; default: the current one.
    reduce : function from a float64 array (K,) to its sum over several processes, such as MPI's
        allreduce. Then no cluster is used: each process passes its own rows, and all make the same
        calls in the same order. Results have the bits of ``reduce``.
    first_row : with ``reduce``: number of this process's first row among the rows of all
        processes. Methods on batches need it, and so does a learning rate from the rows.
    progress : called as ``progress(message, share)`` while the rows are loaded.
    timeout : seconds to wait for a worker if there is none.

    Raises
    ------
    TypeError, ValueError : as for `Objective`; a bad row is named by its number among all rows.
    RuntimeError : the cluster has no workers, or lost them repeatedly.
    ImportError : dask or distributed is missing.

    Examples
    --------
    >>> import dask.array, distributed  # doctest: +SKIP
    >>> client = distributed.Client("tcp://scheduler:8786")  # doctest: +SKIP
    >>> X = dask.array.from_zarr("features.zarr")  # doctest: +SKIP
    >>> with DaskObjective(X, y, n_classes=1000, l2=1e-4) as objective:  # doctest: +SKIP
    ...     result = fastloss.optim.minimize(objective, W, "lbfgs", checkpoint="run.npz")
    """

    @np.errstate(under="ignore")
    def __init__(
        self,
        X: Any,
        y: Any = None,
        *,
        n_classes: int | None = None,
        loss: str | Loss = "softmax",
        l1: float = 0.0,
        l2: float = 0.0,
        intercept: bool = False,
        sample_weight: Any = None,
        class_weight: ClassWeight | None = None,
        ignore_index: int | None = None,
        reduction: Reduction = "mean",
        backend: str = AUTO,
        client: Any = None,
        reduce: Reduce | None = None,
        first_row: int | None = None,
        progress: Progress | None = None,
        timeout: float = 60.0,
    ) -> None:
        if n_classes is not None:
            n_classes = arrays.as_integer("n_classes", n_classes, 2, arrays.MOST_CLASSES)
        elif reduce is not None:
            raise ValueError("reduce needs n_classes, which a process cannot know from its rows")
        if first_row is not None:
            first_row = arrays.as_integer("first_row", first_row, 0)
        is_mean = arrays.as_choice("reduction", reduction, ("mean", "sum")) == "mean"
        backend, _ = requested_backend(check_backend(backend), checked_environment())
        self.reduction = reduction
        self._loss = get_loss(loss)

        def template(D: int, dtype: np.dtype[Any]) -> Objective:
            """Return an objective of one row, which validates settings, and later each ``W``."""
            return Objective(
                np.zeros((1, D), dtype),
                [0],
                loss=loss,
                l1=l1,
                l2=l2,
                intercept=intercept,
                reduction="sum",
            )

        template(1, np.dtype(np.float32))  # raises before rows are loaded
        if reduce is None:
            timeout = arrays.as_real("timeout", timeout)
            loaded: Store = _on_cluster(
                client, X, y, sample_weight, n_classes, ignore_index, progress, timeout
            )
        else:
            rows = read(X, y, sample_weight)
            assert n_classes is not None
            loaded = ReducedRows(rows, reduce, first_row, n_classes, ignore_index)
        self._store = loaded
        totals = loaded.totals
        try:
            self._template = template(totals.n_features, totals.dtype)
            self.penalty = self._template.penalty
            self._weighing = Weighing.of(
                totals, class_weight, sample_weight is not None, is_mean, ignore_index
            )
            loaded.settle(self._plan(backend, ignore_index))
        except BaseException:
            loaded.close()
            raise

    def _plan(self, backend: str, ignore_index: int | None) -> Plan:
        """Choose the backend here, once, because another choice on a worker has other bits."""
        shape = self._store.block_rows, self._store.totals.n_features, self.n_classes
        kind = self._store.totals.dtype
        W_type = arrays.weight_types(kind)[0]
        chosen, _ = auto.reproducible(Workload(self._loss, shape, kind, W_type), backend)
        return Plan(
            self._loss,
            self.intercept,
            ignore_index,
            self._weighing.class_weight,
            chosen,
            one_thread=not get_backend(chosen).same_bits,
        )

    def __enter__(self) -> DaskObjective:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the memory of the cluster; the objective cannot be called again."""
        self._store.close()

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a DaskObjective cannot be pickled or copied: its rows are on a cluster; make it again "
            "from its arguments"
        )

    def __repr__(self) -> str:
        n_rows, n_features = self.shape
        return (
            f"DaskObjective({n_rows} rows x {n_features} {self._store.totals.dtype} features, "
            f"{self.n_classes} classes, {self._loss!r}, l1={self.penalty.l1:g}, "
            f"l2={self.penalty.l2:g}, intercept={self.intercept}, reduction={self.reduction!r})"
        )

    @property
    def shape(self) -> tuple[int, int]:
        """Return the number of rows and of features (N, D)."""
        return self._store.totals.n_rows, self._store.totals.n_features

    @property
    def n_classes(self) -> int:
        """Return C, the number of columns of ``W``."""
        return self._store.totals.n_classes

    @property
    def class_counts(self) -> NDArray[np.int64]:
        """Return the number of rows of each class (C,), without ignored ones."""
        return self._store.totals.counts.copy()

    @property
    def loss_function(self) -> Loss:
        """Return the loss, a function of a row's scores."""
        return self._loss

    @property
    def intercept(self) -> bool:
        """Return whether the last row of ``W`` is the bias."""
        return self._template.intercept

    @property
    def weight_sum(self) -> float:
        """Return the sum of the factors of the rows' losses: 1 for the mean."""
        return 1.0 if self.reduction == "mean" else self._weighing.weight_sum

    def __call__(self, W: ArrayLike, *, out: Floats | None = None) -> tuple[float, Floats]:
        """Return the loss, penalty included, and its gradient (in ``out`` if given)."""
        weights = self._checked(W)
        if out is not None:
            arrays.check_out(out, weights, {})
        return self._evaluate(weights, self._weighing.divisor, None, out)

    def _evaluate(
        self,
        W: Floats,
        divisor: float,
        rows: NDArray[np.int64] | None,
        out: Floats | None = None,
    ) -> tuple[float, Floats]:
        """Return the loss and gradient over all rows or some; the sum is divided by ``divisor``."""
        dW = np.empty(W.shape, W.dtype) if out is None else out
        loss, gradient = self._store.sums(W, True, rows) or (0.0, np.zeros(W.shape))
        with arrays.ieee_arithmetic():
            dW[...] = gradient / divisor  # type: ignore[operator]  # it was asked for
        return self.add_penalty(loss / divisor, W, dW), dW

    def terms(self, W: ArrayLike) -> tuple[float, float]:
        """Return the data loss and the penalty."""
        weights = self._checked(W)
        loss, _ = self._store.sums(weights, False) or (0.0, None)
        return loss / self._weighing.divisor, self.penalty.value(self.penalised(weights))

    def minibatch(self, n_rows: int, n_candidates: int | None = None) -> DaskMinibatch:
        """Return an estimate of this objective from ``n_rows`` rows a call: see `Minibatch`."""
        n_candidates = self.shape[0] if n_candidates is None else n_candidates
        n_candidates = arrays.as_integer("n_candidates", n_candidates, 1)
        return DaskMinibatch(
            self, arrays.as_integer("n_rows", n_rows, 1, n_candidates), n_candidates
        )

    def reproducible(self, W: ArrayLike, n_rows: int | None = None) -> DaskObjective:
        """Return this objective: its results have the same bits on any number of threads."""
        return self

    def count_right(self, W: Floats) -> tuple[int, int]:
        """Return how many rows have their highest score at their label, and how many count."""
        return self._store.count_right(W)

    def counted_rows(self) -> NDArray[np.intp]:
        """Return the numbers of the rows that are neither ignored nor of weight 0."""
        return self._store.counted_rows()

    def weighted_rows(self, rows: NDArray[np.intp]) -> tuple[NDArray[Any], NDArray[np.float64]]:
        """Return some rows (K, D), and the factors (K,) of their losses."""
        X, weights = self._store.weighted_rows(rows)
        return X, weights / self._weighing.divisor

    def check_finite(self) -> None:
        """Raise ValueError at the first entry of a counted row that is not finite."""
        self._store.check_finite()

    def facts(self) -> dict[str, str]:
        """Return what a checkpoint compares, by name: the data, the loss and the penalty."""
        return {
            "f": "a DaskObjective",
            "X": f"{self.shape} {self._store.totals.dtype}",
            "loss": repr(self._loss),
            "penalty": repr(self.penalty),
            "intercept": repr(self.intercept),
            "reduction": repr(self.reduction),
            "labels": f"{self._store.totals.digest:x}",
            "row weights": repr(self._weighing),
        }

    def _checked(self, W: ArrayLike) -> Floats:
        """Return ``W`` as an array; raise unless it fits the rows and labels."""
        weights = self._template._check(W)
        if weights.shape[1] != self.n_classes:
            raise ValueError(
                f"W must have {self.n_classes} columns (classes), got shape {weights.shape}"
            )
        return np.ascontiguousarray(weights)


class DaskMinibatch:
    """An estimate of a `DaskObjective` from ``n_rows`` of its rows: see `fastloss.Minibatch`.

    Rows are numbered over all blocks. Each worker evaluates those that it holds.
    """

    def __init__(self, objective: DaskObjective, n_rows: int, n_candidates: int) -> None:
        self._objective, self._n_rows = objective, n_rows
        self._share = n_rows / n_candidates

    def __call__(
        self, rows: ArrayLike, W: ArrayLike, next_rows: object = None
    ) -> tuple[float, Floats]:
        """Return the estimate from ``rows`` (indices), penalty included, and its gradient."""
        objective = self._objective
        numbers = arrays.as_row_numbers(rows, objective.shape[0])
        if len(numbers) != self._n_rows:
            raise ValueError(f"rows must have shape ({self._n_rows},), got {numbers.shape}")
        divisor = objective._weighing.divisor * self._share
        return objective._evaluate(objective._checked(W), divisor, numbers)


def _on_cluster(
    client: Any,
    X: Any,
    y: Any,
    sample_weight: Any,
    n_classes: int | None,
    ignore_index: int | None,
    progress: Progress | None,
    timeout: float,
) -> ClusterRows:
    try:
        import distributed

        from fastloss.dask.cluster import ClusterRows
        from fastloss.dask.inputs import as_blocks
    except ImportError as error:
        raise ImportError(
            f"DaskObjective needs dask and distributed, or reduce= ({error}): "
            f"{install_extra('dask')}"
        ) from None
    if client is None:
        try:
            client = distributed.get_client()
        except ValueError:
            raise ValueError(
                "there is no dask client: make one with dask.distributed.Client(address)"
            ) from None
    if client.asynchronous:
        raise TypeError("client must be synchronous, got an asynchronous one")
    blocks = as_blocks(client, X, y, sample_weight)
    return ClusterRows(client, blocks, n_classes, ignore_index, progress, timeout)

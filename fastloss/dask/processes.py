"""Rows in several processes without a cluster, whose sums a function such as MPI's allreduce adds.

Every process makes the same calls in the same order, because each call of ``reduce`` waits for the
others.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastloss.arrays import Floats
from fastloss.dask.block import Block, Plan, Rows, survey
from fastloss.dask.store import Store
from fastloss.dask.totals import Totals, renumbered
from fastloss.dask.tree import Sums

#: Function from a float64 array (K,) to its sum over all processes, an array of the same shape.
Reduce = Callable[[NDArray[np.float64]], Any]


class ReducedRows(Store):
    """The rows of this process, with sums over all processes.

    ``first_row`` is the number of this process's first row among all rows. It is only needed by
    methods on batches and for a learning rate from the rows.
    """

    def __init__(
        self,
        rows: Rows,
        reduce: Reduce,
        first_row: int | None,
        n_classes: int,
        ignore_index: int | None,
    ) -> None:
        self._rows, self._reduce, self._first_row = rows, reduce, first_row
        facts = survey(rows, n_classes, ignore_index)
        fault = facts.fault
        if not facts.n_rows and fault is None:
            fault = ValueError(f"X must not be empty, got shape {np.shape(rows.X)}")
        # Every process takes part in the sum, also one whose rows are bad: others wait for it.
        n_bad = self._sum(float(fault is not None))[0]
        if fault is not None:
            raise renumbered(fault, first_row or 0)
        if n_bad:
            raise ValueError(f"the rows of {n_bad:.0f} other process(es) are invalid")
        is_weighted = rows.sample_weight is not None
        kind = np.array([facts.n_features, np.dtype(facts.dtype).num, is_weighted], np.float64)
        n_processes, *sums = self._sum(1.0, kind)
        # Every process must see the same: a sum of kinds could be that of equal ones.
        if self._sum(np.abs(kind - np.array(sums) / n_processes)).any():
            weighted = "with" if is_weighted else "without"
            raise ValueError(
                "all processes must have rows of the same features, and all or none must pass "
                f"sample_weight; here they are {facts.n_features} of {facts.dtype}, {weighted} it"
            )
        own = Totals.of([facts], n_classes)
        summed = self._sum(own.n_rows, own.digest, own.counts, own.weight_sums)
        self.totals = Totals(
            int(summed[0]),
            own.n_features,
            own.dtype,
            summed[2 : 2 + n_classes].astype(np.int64),
            summed[2 + n_classes :],
            int(summed[1]),
        )
        self.block_rows = own.n_rows
        self._block = Block(0, None)

    def _sum(self, *values: ArrayLike) -> NDArray[np.float64]:
        """Return the sum over all processes of the values, one after the other in an array."""
        flat = np.concatenate([np.ravel(value).astype(np.float64) for value in values])
        summed = np.asarray(self._reduce(flat))
        if summed.shape != flat.shape:
            raise ValueError(
                f"reduce must return an array of shape {flat.shape}, got {summed.shape}"
            )
        return summed.astype(np.float64)

    def settle(self, plan: Plan) -> None:
        self._block = Block.of(self._rows, self._first_row or 0, plan)

    def sums(self, W: Floats, needs_gradient: bool, rows: NDArray[np.int64] | None = None) -> Sums:
        if rows is not None:
            self._check_numbered()
        gradient = np.zeros(W.shape) if needs_gradient else None
        own = self._block.sums(W, needs_gradient, rows) or (0.0, gradient)
        if not needs_gradient:
            return float(self._sum(own[0])[0]), None
        summed = self._sum(*own)
        return float(summed[0]), summed[1:].reshape(W.shape)

    def _check_numbered(self) -> None:
        if self._first_row is None:
            raise ValueError(
                "methods that choose rows need their numbers: pass first_row=, the number of this "
                "process's first row among all rows"
            )

    def count_right(self, W: Floats) -> tuple[int, int]:
        assert self._block.objective is not None
        right, counted = self._sum(*self._block.objective.count_right(W))
        return int(right), int(counted)

    def counted_rows(self) -> NDArray[np.intp]:
        self._check_numbered()
        is_counted = np.zeros(self.totals.n_rows)
        is_counted[self._block.counted_rows()] = 1.0
        return np.flatnonzero(self._sum(is_counted))

    def weighted_rows(self, rows: NDArray[np.intp]) -> tuple[NDArray[Any], NDArray[np.float64]]:
        self._check_numbered()
        X = np.zeros((len(rows), self.totals.n_features))
        weights = np.zeros(len(rows))
        if (own := self._block.weighted_rows(rows)) is not None:
            places, X[places], weights[places] = own[0], own[1], own[2]
        summed = self._sum(X, weights)
        return summed[: X.size].reshape(X.shape), summed[X.size :]

    def check_finite(self) -> None:
        fault = self._block.fault()
        n_bad = self._sum(float(fault is not None))[0]
        if fault is not None:
            raise renumbered(fault[1], fault[0])
        if n_bad:
            raise ValueError("X of another process has an entry that is not finite")

    def close(self) -> None:
        self._block = Block(0, None)

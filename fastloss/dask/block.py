"""Blocks of rows: what workers check, hold and evaluate. This module does not import dask."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastloss import arrays
from fastloss.arrays import SKIP, Floats
from fastloss.dask.tree import Parts, Sums, partial_sums
from fastloss.losses.base import Loss
from fastloss.objective import Objective
from fastloss.row_weights import as_labels_and_weights
from fastloss.rows_on_disk import mapped_file

# At least so many blocks share the work, unless they would be smaller than one of these. A block
# adds the gradients of its chunks, 16 or more: on 30000 x 3072 x 10, blocks of 940 rows take 13 %
# more time than one block.
_LEAST_BLOCKS, _LEAST_BYTES, _LEAST_ROWS = 64, 2**18, 2560
# Larger blocks would be slow to load again; more blocks cost time in each evaluation.
_MOST_BYTES, _MOST_BLOCKS = 2**27, 1024
# About this many evenly spread rows of each block represent it in a checkpoint.
_HASHED_ROWS = 8
# Sums of this many digests of 40 bits are exact in float64.
_DIGEST_BITS = 40


def rows_in_block(n_rows: int, n_features: int, itemsize: int) -> int:
    """Return the number of rows in each block but the last; it depends on the shape alone.

    >>> rows_in_block(1_000_000, 768, 4)  # 64 blocks of 48 MB
    15625
    """
    row_bytes = max(1, n_features) * itemsize
    rows = max(-(-n_rows // _LEAST_BLOCKS), _LEAST_BYTES // row_bytes, _LEAST_ROWS)
    rows = max(min(rows, _MOST_BYTES // row_bytes), -(-n_rows // _MOST_BLOCKS), 1)
    return min(rows, max(n_rows, 1))


@dataclass(frozen=True)
class Plan:
    """What blocks must know of their objective.

    ``class_weight`` has the weights of all classes, times a common power of two; None: all weights
    are 1. ``one_thread`` is true for a backend whose bits depend on threads. ``first_rows`` are the
    global numbers of the blocks' first rows.
    """

    loss: Loss
    intercept: bool
    ignore_index: int | None
    class_weight: Mapping[int, float] | None
    backend: str
    one_thread: bool
    first_rows: Sequence[int] = (0,)


class Rows:
    """The rows of a block as they were loaded; `block` validates and lays them out once."""

    def __init__(self, X: Any, y: Any, sample_weight: Any = None) -> None:
        self.X, self.y, self.sample_weight = X, y, sample_weight
        self._block: Block | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_block": None}

    def __sizeof__(self) -> int:
        """Return the bytes in memory, by which dask plans; labels and weights are kept twice."""
        in_memory = 0 if mapped_file(self.X) is not None else np.asarray(self.X).nbytes
        return int(in_memory + 32 * len(self.X))

    def block(self, number: int, plan: Plan) -> Block:
        """Return the block of this number; `survey` has checked its rows."""
        if self._block is None:
            self._block = Block.of(self, plan.first_rows[number], plan)
        return self._block


def read(X: Any, y: Any = None, sample_weight: Any = None) -> Rows:
    """Return the rows of a block; ``X`` without ``y`` is a pair ``(X, y)``."""
    if y is None:
        if not (isinstance(X, (tuple, list)) and len(X) == 2):
            raise TypeError(f"a block must be a pair (X, y), got {type(X).__name__}")
        X, y = X
    return Rows(X, y, sample_weight)


@dataclass(frozen=True)
class Facts:
    """What the client must know of a block before the first evaluation.

    ``counts`` and ``weight_sums`` have an entry for each class up to the largest label or beyond:
    the number of rows that count, and the sum of their sample weights. ``fault`` is the error of
    the first bad row; its message numbers the rows within the block.
    """

    n_rows: int
    n_features: int = 0
    dtype: str = ""
    counts: NDArray[np.int64] | None = None
    weight_sums: NDArray[np.float64] | None = None
    digest: int = 0
    fault: Exception | None = None


def survey(rows: Rows, n_classes: int | None, ignore_index: int | None) -> Facts:
    """Check a block, in one pass over its labels and weights."""
    n_rows = 0
    try:
        shape = np.shape(rows.X)
        n_rows = shape[0] if shape else 0
        if len(shape) == 2 and not n_rows:
            return Facts(0, shape[1], rows.X.dtype.name)
        X = arrays.as_rows(rows.X)
        labels, weights = as_labels_and_weights(
            rows.y, n_rows, ignore_index, rows.sample_weight, None, is_mean=False
        )
        most = arrays.MOST_CLASSES if n_classes is None else n_classes
        arrays.check_label_range(labels, int(labels.max()), most)
    except (TypeError, ValueError) as error:
        return Facts(n_rows, fault=error)
    counted = labels[labels != SKIP]
    of_counted = None if weights is None else weights[labels != SKIP]
    return Facts(
        n_rows,
        X.shape[1],
        X.dtype.name,
        np.bincount(counted, minlength=n_classes or 0),
        np.bincount(counted, of_counted, minlength=n_classes or 0).astype(np.float64),
        _digest(X[:: max(1, n_rows // _HASHED_ROWS)], labels, weights),
    )


def _digest(*parts: NDArray[Any] | None) -> int:
    hashed = hashlib.sha256()
    for part in parts:
        if part is not None:
            hashed.update(np.ascontiguousarray(part).tobytes())
    return int.from_bytes(hashed.digest()[: _DIGEST_BITS // 8], "big")


@dataclass(frozen=True)
class Block:
    """The sum of the losses of a block's rows; ``objective`` is None if it has no rows."""

    first_row: int
    objective: Objective | None

    @classmethod
    def of(cls, rows: Rows, first_row: int, plan: Plan) -> Block:
        """Lay out the rows of a block, which `survey` has checked."""
        if not len(rows.X):
            return cls(first_row, None)
        objective = Objective(
            rows.X,
            rows.y,
            loss=plan.loss,
            intercept=plan.intercept,
            sample_weight=rows.sample_weight,
            class_weight=plan.class_weight,
            ignore_index=plan.ignore_index,
            reduction="sum",
            backend=plan.backend,
            n_threads=1 if plan.one_thread else None,
        )
        return cls(first_row, objective)

    def sums(self, W: Floats, needs_gradient: bool, rows: NDArray[np.int64] | None) -> Sums:
        """Return the sum of the rows' losses, or of those among ``rows``, numbered globally."""
        objective = self.objective
        if objective is not None and rows is not None:
            own = rows[self._places_of(rows)] - self.first_row
            objective = objective.batch(own) if len(own) else None
        if objective is None:
            return None
        if not needs_gradient:
            return objective.loss(W), None
        return objective(W)

    def _places_of(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        n_rows = 0 if self.objective is None else self.objective.shape[0]
        return (rows >= self.first_row) & (rows < self.first_row + n_rows)

    def counted_rows(self) -> NDArray[np.intp]:
        """Return the global numbers of the rows that count."""
        if self.objective is None:
            return np.empty(0, np.intp)
        return self.objective.counted_rows() + self.first_row

    def weighted_rows(
        self, rows: NDArray[np.intp]
    ) -> tuple[NDArray[np.bool_], NDArray[Any], NDArray[np.float64]] | None:
        """Return which of ``rows`` are in the block, their features (K, D) and weights (K,)."""
        places = self._places_of(rows)
        if self.objective is None or not places.any():
            return None
        return places, *self.objective.weighted_rows(rows[places] - self.first_row)

    def fault(self) -> tuple[int, Exception] | None:
        """Return the first row of the block and its error if an entry is not finite."""
        try:
            if self.objective is not None:
                self.objective.check_finite()
        except ValueError as error:
            return self.first_row, error
        return None


def survey_all(
    rows: Mapping[int, Rows], n_classes: int | None, ignore_index: int | None
) -> dict[int, Facts]:
    """Return the facts of some blocks, by number."""
    return {number: survey(own, n_classes, ignore_index) for number, own in rows.items()}


def on_blocks(
    rows: Mapping[int, Rows], plan: Plan, function: Callable[..., Any], *arguments: Any
) -> Any:
    """Call ``function(blocks, *arguments)`` with the blocks of the rows, by number."""
    blocks = {number: own.block(number, plan) for number, own in rows.items()}
    return function(blocks, *arguments)


def sum_blocks(
    blocks: Mapping[int, Block],
    n_blocks: int,
    W: Floats,
    needs_gradient: bool,
    rows: NDArray[np.int64] | None = None,
) -> Parts:
    """Return the sums of some blocks for `tree.total`."""
    return partial_sums(
        list(blocks), n_blocks, lambda number: blocks[number].sums(W, needs_gradient, rows)
    )


def count_right(blocks: Mapping[int, Block], W: Floats) -> tuple[int, int]:
    """Return how many rows have their highest score at their label, and how many count."""
    objectives = [block.objective for block in blocks.values() if block.objective is not None]
    counts = [objective.count_right(W) for objective in objectives]
    return sum(right for right, _ in counts), sum(counted for _, counted in counts)


def counted_rows(blocks: Mapping[int, Block]) -> dict[int, NDArray[np.intp]]:
    """Return the global numbers of the rows that count, by block."""
    return {number: block.counted_rows() for number, block in blocks.items()}


def weighted_rows(blocks: Mapping[int, Block], rows: NDArray[np.intp]) -> list[Any]:
    """Return `Block.weighted_rows` of the blocks that have some of the rows."""
    found = [block.weighted_rows(rows) for block in blocks.values()]
    return [part for part in found if part is not None]


def first_fault(blocks: Mapping[int, Block]) -> tuple[int, Exception] | None:
    """Return the first `Block.fault` of the blocks."""
    faults = [block.fault() for block in blocks.values()]
    return min((fault for fault in faults if fault is not None), key=lambda f: f[0], default=None)

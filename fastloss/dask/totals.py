"""Put the facts of all blocks together: the number of rows, class weights, the divisor, errors."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastloss import advice
from fastloss.arrays import ClassWeight
from fastloss.dask.block import Facts
from fastloss.row_weights import weights_of_classes


def renumbered(error: Exception, first_row: int) -> Exception:
    """Return the error of a row of a block, with the row's number among all rows."""
    return type(error)(advice.renumbered(str(error), first_row))


@dataclass(frozen=True)
class Totals:
    """The facts of all rows. ``counts`` and ``weight_sums`` (C,) are those of `Facts`."""

    n_rows: int
    n_features: int
    dtype: np.dtype[np.generic]
    counts: NDArray[np.int64]
    weight_sums: NDArray[np.float64]
    digest: int

    @classmethod
    def of(cls, facts: Sequence[Facts], n_classes: int | None) -> Totals:
        """Add the facts of the blocks.

        Raises
        ------
        TypeError, ValueError : the fault of the first bad row, or blocks that do not fit together.
        """
        first_rows = first_rows_of(facts)
        for number, fact in enumerate(facts):
            if fact.fault is not None:
                error = renumbered(fact.fault, first_rows[number])
                is_placed = len(facts) == 1 or advice.names_a_row(str(error))
                where = "" if is_placed else f"block {number}: "
                raise type(error)(f"{where}{error}") from None
        filled = [fact for fact in facts if fact.counts is not None]
        if not filled:
            raise ValueError("X must not be empty, got blocks without rows")
        first = filled[0]
        for number, fact in enumerate(facts):
            kind, expected = (fact.n_features, fact.dtype), (first.n_features, first.dtype)
            if kind != expected:
                raise ValueError(
                    f"all blocks must have the same features: block {number} has {kind[0]} of "
                    f"{kind[1]}, expected {expected[0]} of {expected[1]}"
                )
        counts = [fact.counts for fact in filled if fact.counts is not None]
        weight_sums = [fact.weight_sums for fact in filled if fact.weight_sums is not None]
        n_classes = n_classes or max(2, *map(len, counts))
        return cls(
            sum(fact.n_rows for fact in facts),
            first.n_features,
            np.dtype(first.dtype),
            np.sum([_padded(part, n_classes) for part in counts], axis=0),
            np.sum([_padded(part, n_classes) for part in weight_sums], axis=0),
            sum((1 + number) * fact.digest for number, fact in enumerate(facts)),
        )

    @property
    def n_classes(self) -> int:
        """Return C."""
        return len(self.counts)


def first_rows_of(facts: Sequence[Facts]) -> list[int]:
    """Return the global number of each block's first row."""
    ends = np.cumsum([0, *(fact.n_rows for fact in facts)])
    return [int(end) for end in ends[:-1]]


def _padded(values: NDArray[Any], n: int) -> NDArray[Any]:
    return np.pad(values, (0, n - len(values)))


@dataclass(frozen=True)
class Weighing:
    """The class weights (C,) of all rows, or None if all row weights are 1; and the divisor."""

    class_weight: dict[int, float] | None
    divisor: float
    weight_sum: float

    @classmethod
    def of(
        cls,
        totals: Totals,
        class_weight: ClassWeight | None,
        is_weighted: bool,
        is_mean: bool,
        ignore_index: int | None,
    ) -> Weighing:
        """Compute the class weights and the divisor from all rows.

        For a mean, a power of two scales the weights so that the mean weight is about 1: then no
        sum of weights overflows or vanishes in float32.

        Raises
        ------
        TypeError, ValueError : invalid class weights, or weights that have no mean.
        """
        of_class = np.ones(totals.n_classes)
        if class_weight is not None:
            labels = np.arange(totals.n_classes)
            of_class = weights_of_classes(class_weight, labels, totals.counts)
            named = class_weight if isinstance(class_weight, Mapping) else {}
            for label, weight in named.items():
                if label >= totals.n_classes and weight and label != ignore_index:
                    raise ValueError(
                        f"class_weight names {label}, which is not in [0, {totals.n_classes})"
                    )
        weight_sum = float(of_class @ totals.weight_sums)
        if not math.isfinite(weight_sum):
            raise ValueError("the weights of all rows sum to infinity: divide them by their mean")
        if is_mean and not weight_sum:
            raise ValueError(
                f"the weights of the {totals.n_rows} rows sum to 0 (each is ignored or has the "
                "weight 0), so they have no mean; pass reduction='sum' for a loss of 0"
            )
        if class_weight is None and not is_weighted:
            return cls(None, weight_sum if is_mean else 1.0, weight_sum)
        exponent = math.frexp(weight_sum / totals.counts.sum())[1] if is_mean else 0
        scaled = np.ldexp(of_class, -exponent)
        divisor = math.ldexp(weight_sum, -exponent) if is_mean else 1.0
        return cls(dict(enumerate(scaled.tolist())), divisor, weight_sum)

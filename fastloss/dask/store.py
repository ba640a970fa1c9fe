"""Define `Store`: rows that are somewhere else, and the sums over them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastloss.arrays import Floats
from fastloss.dask.block import Plan
from fastloss.dask.totals import Totals
from fastloss.dask.tree import Sums


class Store(ABC):
    """Rows on a cluster or in several processes; `settle` must be called before evaluations."""

    totals: Totals
    #: Rows of a typical block, by which the backend is chosen.
    block_rows: int

    @abstractmethod
    def settle(self, plan: Plan) -> None:
        """Lay out the rows."""

    @abstractmethod
    def sums(self, W: Floats, needs_gradient: bool, rows: NDArray[np.int64] | None = None) -> Sums:
        """Return the sum of the losses of all rows, or of some; None if there is nothing to add."""

    @abstractmethod
    def count_right(self, W: Floats) -> tuple[int, int]:
        """Return how many rows have their highest score at their label, and how many count."""

    @abstractmethod
    def counted_rows(self) -> NDArray[np.intp]:
        """Return the global numbers of the rows that count, sorted."""

    @abstractmethod
    def weighted_rows(self, rows: NDArray[np.intp]) -> tuple[NDArray[Any], NDArray[np.float64]]:
        """Return some rows (K, D), and their weights (K,)."""

    @abstractmethod
    def check_finite(self) -> None:
        """Raise ValueError at the first entry of a counted row that is not finite."""

    @abstractmethod
    def close(self) -> None:
        """Free the rows."""

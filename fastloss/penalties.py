"""Compute the penalty ``l1 * sum|W| + l2 * sum(W**2)``: L1, L2, or both (elastic net).

There is no factor 1/2 (CS231n's convention), so the gradient is ``l1 * sign(W) + 2 * l2 * W``. At 0
the subgradient of ``|W|`` is 0. The caller leaves out the bias row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastloss.arrays import as_real, convert, ieee_arithmetic


@dataclass(frozen=True)
class Penalty:
    """Strengths of the L1 and the L2 penalty, each >= 0."""

    l1: float = 0.0
    l2: float = 0.0

    def __post_init__(self) -> None:
        convert(self, "l1", as_real)
        convert(self, "l2", as_real)

    @property
    def is_active(self) -> bool:
        """Return whether a strength is > 0."""
        return bool(self.l1 or self.l2)

    def value(self, W: NDArray[np.floating[Any]]) -> float:
        """Return the penalty of ``W``, summed in float64."""
        total = 0.0
        with ieee_arithmetic():
            if self.l1:
                total += self.l1 * float(np.abs(W).sum(dtype=np.float64))
            if self.l2:
                total += self.l2 * float(np.square(W, dtype=np.float64).sum())
        return total

    def values(self, stacked: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the penalty (P,) of each of P matrices (P, D, C)."""
        with ieee_arithmetic():
            l1 = self.l1 * np.abs(stacked).sum(axis=(1, 2)) if self.l1 else 0.0
            return np.asarray(l1 + self.l2 * np.square(stacked).sum(axis=(1, 2)))

    def add_gradient(self, W: NDArray[np.floating[Any]], dW: NDArray[np.floating[Any]]) -> None:
        """Add the (sub)gradient to ``dW`` in place."""
        with ieee_arithmetic():
            if self.l1:
                dW += self.l1 * np.sign(W)
            if self.l2:
                dW += 2.0 * self.l2 * W

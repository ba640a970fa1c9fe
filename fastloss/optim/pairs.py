"""The inverse Hessian of L-BFGS: pairs of steps and gradient changes, and their products.

With the steps ``s_i`` as columns of S, the gradient changes ``y_i`` as columns of Y, the oldest
first, and the gradient g, the direction is (Byrd, Nocedal and Schnabel, *Representations of
quasi-Newton matrices and their use in limited memory methods*, 1994, section 3.2)::

    R = upper triangle of S'Y,   D = diagonal of S'Y,   gamma = s'y / y'y of the newest pair
    R a  = S'g
    R'c  = D a - gamma (Y'g - Y'Y a)
    d    = -gamma g + gamma Y a - S c

It equals the result of the two-loop recursion (Nocedal and Wright, *Numerical Optimization*,
algorithm 7.4), which passes over each pair twice, one pair after the other. Here a step computes
all products with the new gradient and the new y in one pass, and the direction in another. The
passes read as much memory, but both run on several threads and keep their blocks in the cache.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastloss.arrays import Floats
from fastloss.optim.vectors import blocks_of, on_blocks
from fastloss.threads import blas_threads

Table = NDArray[np.float64]


@dataclass(frozen=True)
class Pairs:
    """The last k pairs and their products. The arrays are never modified.

    Rows of ``older`` and then ``newer`` are s and y of each pair in turn, the oldest first. They
    are parts of two larger arrays: see `Room`.
    """

    older: Floats  # (2 a, P)
    newer: Floats  # (2 b, P), k = a + b
    with_y: Table  # (2 k, k), products of the rows with each y; 0 for an s newer than the y
    with_gradient: Table  # (2 k,), products of the rows with the gradient

    @classmethod
    def none(cls, gradient: Floats) -> Pairs:
        """Return no pairs, for gradients (P,) like this one."""
        rows = np.empty((0, len(gradient)), gradient.dtype)
        return cls(rows, rows, np.empty((0, 0)), np.empty(0))

    def __len__(self) -> int:
        return self.with_y.shape[1]

    def arrays(self) -> tuple[NDArray[Any], ...]:
        """Return the arrays that the constructor takes."""
        return self.older, self.newer, self.with_y, self.with_gradient

    @property
    def _parts(self) -> list[tuple[slice, Floats]]:
        """The two arrays of rows, with the places of their rows in the products."""
        n = len(self.older)
        parts = (slice(0, n), self.older), (slice(n, 2 * len(self)), self.newer)
        return [part for part in parts if len(part[1])]

    def direction(self, gradient: Floats, n_threads: int) -> Floats:
        """Return the direction for the gradient (P,), of which the products are known."""
        weights, gamma = self._weights()
        weights = weights.astype(gradient.dtype)
        direction = np.empty_like(gradient)
        parts = self._parts

        def work(_: int, block: slice) -> None:
            out = direction[block]
            np.multiply(gradient[block], -gamma, out=out)
            for places, rows in parts:
                out += np.dot(weights[places], rows[:, block])

        n_bytes = self.older.nbytes + self.newer.nbytes
        on_blocks(blocks_of(gradient), work, n_bytes, n_threads)
        return direction

    def _weights(self) -> tuple[Table, float]:
        """Return the factors (2 k,) of the rows in the direction, and ``gamma``."""
        R, yy = self.with_y[::2], self.with_y[1::2]
        s_gradient, y_gradient = self.with_gradient[::2], self.with_gradient[1::2]
        gamma = R[-1, -1] / yy[-1, -1]
        with blas_threads(1):
            a = np.linalg.solve(R, s_gradient)
            c = np.linalg.solve(R.T, R.diagonal() * a - gamma * (y_gradient - yy @ a))
        return np.stack([-c, gamma * a], axis=1).ravel(), float(gamma)

    def at(self, gradient: Floats, n_threads: int) -> Pairs:
        """Return the same pairs with the products with another gradient."""
        (with_gradient,) = _products(self._parts, [gradient], n_threads)
        return replace(self, with_gradient=with_gradient)

    def _with_room(self, n_most: int) -> Pairs:
        """Return the pairs without the oldest, if it must make room for a new one."""
        if len(self) < n_most:
            return self
        # An empty slice of ``older`` would keep its whole array in memory.
        older = self.older[2:] if len(self.older) > 2 else self.newer[:0]
        return Pairs(older, self.newer, self.with_y[2:, 1:], self.with_gradient[2:])


class Room:
    """Memory of one run for its pairs.

    New rows are written behind the rows in use. When the array is full, all its rows become the
    ``older`` ones, and another array takes the next pairs. So no row in use is ever modified or
    copied, and memory holds at most twice ``n_most`` pairs.
    """

    def __init__(self, n_most: int, pairs: Pairs) -> None:
        self._n_most = n_most
        self._array = self._like(pairs.newer)
        self._array[: len(pairs.newer)] = pairs.newer

    def _like(self, rows: Floats) -> Floats:
        return np.empty((2 * self._n_most, rows.shape[1]), rows.dtype)

    def add(
        self,
        pairs: Pairs,
        before: tuple[Floats, Floats],
        after: tuple[Floats, Floats],
        n_threads: int,
    ) -> Pairs:
        """Return the pairs with the one of a step; ``before`` and ``after`` are ``W`` and gradient.

        Return no pairs if a product is not finite, or the curvature s'y is not positive.
        """
        # Without newer rows, earlier states may still use those of the array.
        if len(pairs.newer) in (0, len(self._array)):
            self._array = self._like(pairs.newer)
            pairs = replace(pairs, older=pairs.newer, newer=self._array[:0])
        kept = pairs._with_room(self._n_most)
        rows = self._array[: len(kept.newer) + 2]
        s, y = rows[-2:]

        def subtract(block: slice) -> None:
            for a, b, difference in zip(after, before, (s, y), strict=True):
                np.subtract(a[block], b[block], out=difference[block])

        gradient = after[1]
        added = replace(kept, newer=rows, with_y=_extended(kept.with_y))
        with_y, with_gradient = _products(added._parts, [y, gradient], n_threads, subtract)
        added.with_y[:, -1] = with_y
        added.with_y[-1, :] = with_y[1::2]
        if not (np.isfinite(with_y).all() and min(with_y[-2:]) > 0):
            return Pairs.none(gradient)
        return replace(added, with_gradient=with_gradient)


def _extended(with_y: Table) -> Table:
    """Return a copy with two more rows and one more column, of zeros."""
    return np.pad(with_y, ((0, 2), (0, 1)))


def _products(
    parts: list[tuple[slice, Floats]],
    vectors: list[Floats],
    n_threads: int,
    prepare: Callable[[slice], None] = lambda block: None,
) -> Table:
    """Return the products of vectors with all rows of ``parts``; ``prepare`` writes a block."""
    blocks = blocks_of(vectors[0])
    sums = np.empty((len(blocks), len(vectors), sum(len(rows) for _, rows in parts)))

    def work(i: int, block: slice) -> None:
        prepare(block)
        for v, vector in enumerate(vectors):
            for places, rows in parts:
                sums[i, v, places] = np.dot(rows[:, block], vector[block])

    on_blocks(blocks, work, sum(rows.nbytes for _, rows in parts), n_threads)
    return sums.sum(axis=0)

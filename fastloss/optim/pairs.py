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
all products with the new gradient in one pass, and the direction in another. The passes read as
much memory, but both run on several threads and keep their blocks in the cache.
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

    The rows of ``older`` and then ``newer`` are s and y of each pair in turn, the oldest first. A
    row is cut into blocks (see `optim.vectors`), the last one padded with zeros, and the rows of a
    block are adjacent in memory: BLAS would copy a block of longer rows.
    """

    older: Floats  # (blocks, 2 a, length of a block)
    newer: Floats  # (blocks, 2 b, length of a block), k = a + b
    with_y: Table  # (2 k, k), products of the rows with each y; 0 for an s newer than the y
    with_gradient: Table  # (2 k,), products of the rows with the gradient

    @classmethod
    def none(cls, gradient: Floats) -> Pairs:
        """Return no pairs, for gradients (P,) like this one."""
        blocks = blocks_of(gradient)
        rows = np.empty((len(blocks), 0, blocks[0].stop), gradient.dtype)
        return cls(rows, rows, np.empty((0, 0)), np.empty(0))

    def __len__(self) -> int:
        return self.with_y.shape[1]

    def arrays(self) -> tuple[NDArray[Any], ...]:
        """Return the arrays that the constructor takes."""
        return self.older, self.newer, self.with_y, self.with_gradient

    @property
    def _parts(self) -> list[tuple[slice, Floats]]:
        """The two arrays of rows, with the places of their rows in the products."""
        n = self.older.shape[1]
        parts = (slice(0, n), self.older), (slice(n, 2 * len(self)), self.newer)
        return [part for part in parts if part[1].shape[1]]

    def direction(self, gradient: Floats, n_threads: int) -> Floats:
        """Return the direction for the gradient (P,), of which the products are known."""
        weights, gamma = self._weights()
        weights = weights.astype(gradient.dtype)
        direction = np.empty_like(gradient)
        parts = self._parts

        def work(i: int, block: slice) -> None:
            out = direction[block]
            np.multiply(gradient[block], -gamma, out=out)
            for places, rows in parts:
                out += np.dot(weights[places], rows[i, :, : len(out)])

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
        with_gradient, _ = _products(self._parts, gradient, n_threads)
        return replace(self, with_gradient=with_gradient)

    def _with_room(self, n_most: int) -> Pairs:
        """Return the pairs without the oldest, if it must make room for a new one."""
        if len(self) < n_most:
            return self
        # An empty slice of ``older`` would keep its whole array in memory.
        older = self.older[:, 2:] if self.older.shape[1] > 2 else self.newer[:, :0]
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
        self._array[:, : pairs.newer.shape[1]] = pairs.newer

    def _like(self, rows: Floats) -> Floats:
        n_blocks, _, length = rows.shape
        return np.empty((n_blocks, 2 * self._n_most, length), rows.dtype)

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
        n_newer = pairs.newer.shape[1]
        # Without newer rows, earlier states may still use those of the array.
        if n_newer in (0, self._array.shape[1]):
            self._array = self._like(pairs.newer)
            pairs = replace(pairs, older=pairs.newer, newer=self._array[:, :0])
            n_newer = 0
        kept = pairs._with_room(self._n_most)
        rows = self._array[:, : n_newer + 2]
        k = len(kept)
        with_y = np.zeros((2 * k + 2, k + 1))
        with_y[:-2, :-1] = kept.with_y
        added = replace(kept, newer=rows, with_y=with_y)

        def write_pair(i: int, block: slice) -> Table:
            pair = rows[i, -2:]
            for row, a, b in zip(pair, after, before, strict=True):
                n = len(a[block])
                np.subtract(a[block], b[block], out=row[:n])
                row[n:] = 0.0
            return np.dot(pair, pair[1])

        with_gradient, with_new = _products(added._parts, after[1], n_threads, write_pair)
        # y = g - g of before, so products of earlier rows with it follow from known ones.
        with_y[:-2, -1] = with_gradient[:-2] - kept.with_gradient
        with_y[-2:, -1] = with_new
        with_y[-1, :] = with_y[1::2, -1]
        if not (np.isfinite(with_y).all() and with_new.min() > 0):
            return Pairs.none(after[1])
        return replace(added, with_gradient=with_gradient)


def _products(
    parts: list[tuple[slice, Floats]],
    gradient: Floats,
    n_threads: int,
    write_pair: Callable[[int, slice], Floats] = lambda i, block: np.zeros(2),
) -> tuple[Table, Table]:
    """Return the products of all rows of ``parts`` with the gradient, and of a new pair with its y.

    ``write_pair`` writes a block of the new pair to its rows, and returns its products.
    """
    blocks = blocks_of(gradient)
    n_rows = sum(rows.shape[1] for _, rows in parts)
    sums, new_sums = np.empty((len(blocks), n_rows)), np.empty((len(blocks), 2))

    def work(i: int, block: slice) -> None:
        new_sums[i] = write_pair(i, block)
        vector = gradient[block]
        for places, rows in parts:
            sums[i, places] = np.dot(rows[i, :, : len(vector)], vector)

    on_blocks(blocks, work, sum(rows.nbytes for _, rows in parts), n_threads)
    return sums.sum(axis=0), new_sums.sum(axis=0)

"""Add the sums of blocks in a fixed order: a binary tree over the numbers of the blocks.

The tree depends on the number of blocks alone. A worker adds the subtrees that it holds whole, and
the client adds the rest of the tree. So the result has the same bits, whichever worker holds which
block.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TypeAlias

import numpy as np

from fastloss.arrays import Floats

#: A loss, and its gradient in the type of ``W`` or None; None: there is nothing to add. Adding in
#: pairs loses few digits of float32, and half of the bytes of float64 are sent.
Sums: TypeAlias = "tuple[float, Floats | None] | None"
#: The sums of subtrees by the blocks that they cover, ``(start, stop)``.
Parts: TypeAlias = dict[tuple[int, int], Sums]


def partial_sums(numbers: Collection[int], n_blocks: int, evaluate: Callable[[int], Sums]) -> Parts:
    """Return the sums of the largest subtrees whose blocks are all in ``numbers``.

    A run of consecutive blocks has at most ``2 log2(n_blocks)`` of them. It has one if the run is a
    subtree, as on 2, 4, 8, ... workers of equal size. ``evaluate`` is called once for each number,
    in order, and the sums of at most ``log2(n_blocks) + 1`` blocks of a subtree exist at a time.
    """
    held = sorted(numbers)
    parts: Parts = {}

    def visit(start: int, stop: int, first: int, last: int) -> None:
        # held[first:last] are the numbers in [start, stop).
        if first == last:
            return
        if last - first == stop - start:
            parts[start, stop] = _subtree(start, stop, evaluate)
            return
        middle = _middle(start, stop)
        split = first + int(np.searchsorted(held[first:last], middle))
        visit(start, middle, first, split)
        visit(middle, stop, split, last)

    visit(0, n_blocks, 0, len(held))
    return parts


def total(parts: Mapping[tuple[int, int], Sums], n_blocks: int) -> Sums:
    """Return the sum of the whole tree; subtrees without a part add nothing."""

    def visit(start: int, stop: int) -> Sums:
        if (start, stop) in parts or stop - start == 1:
            return parts.get((start, stop))
        middle = _middle(start, stop)
        return _added(visit(start, middle), visit(middle, stop))

    return visit(0, n_blocks)


def _subtree(start: int, stop: int, evaluate: Callable[[int], Sums]) -> Sums:
    if stop - start == 1:
        return evaluate(start)
    middle = _middle(start, stop)
    return _added(_subtree(start, middle, evaluate), _subtree(middle, stop, evaluate))


def _middle(start: int, stop: int) -> int:
    return (start + stop) // 2


def _added(left: Sums, right: Sums) -> Sums:
    """Return the sum; the gradient of ``left`` is overwritten."""
    if left is None or right is None:
        return right if left is None else left
    (loss, gradient), (other_loss, other_gradient) = left, right
    if gradient is not None and other_gradient is not None:
        gradient += other_gradient
    return loss + other_loss, gradient

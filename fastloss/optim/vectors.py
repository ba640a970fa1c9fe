"""Arithmetic on long vectors in blocks, on several threads.

The blocks depend on the length and type alone. Products are computed in the type of the vectors
within a block, and added in float64, in the order of the blocks. So results have the same bits on
any number of threads, and the error of a product does not grow with the number of blocks.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

import numpy as np

from fastloss import threads
from fastloss.arrays import Floats, ieee_arithmetic
from fastloss.threads import blas_threads

# A block of a vector takes 64 KiB: blocks of ten pairs fit into a cache of 1 MiB or so.
_BLOCK_BYTES = 64 * 2**10
# Each further thread needs this many bytes of work. A product of two vectors of 4 MiB takes 0.2 ms,
# as long as it may take to wake a thread.
_BYTES_PER_THREAD = 8 * 2**20


def blocks_of(vector: Floats) -> list[slice]:
    """Return the blocks of a vector."""
    n = min(len(vector), _BLOCK_BYTES // vector.itemsize)
    return [slice(first, first + n) for first in range(0, len(vector), n)]


def on_blocks(
    blocks: list[slice], work: Callable[[int, slice], None], n_bytes: int, n_threads: int
) -> None:
    """Call ``work(i, block)`` for each block, on up to ``n_threads`` threads at once.

    ``n_bytes`` is the amount of memory that all calls read: few bytes take one thread.
    """
    numbers = count()

    def work_until_done() -> bool:
        # A helper does not inherit these settings of the calling thread.
        with blas_threads(1), ieee_arithmetic():
            while (i := next(numbers)) < len(blocks):
                work(i, blocks[i])
        return False  # a helper may still be in its last block: wait for it

    n_threads = min(n_threads, 1 + n_bytes // _BYTES_PER_THREAD)
    if n_threads > 1:
        threads.team.run(work_until_done, (), n_threads)
    else:
        work_until_done()


def dot(a: Floats, b: Floats, n_threads: int) -> float:
    """Return the product of two vectors."""
    blocks = blocks_of(a)
    parts = np.empty(len(blocks))

    def work(i: int, block: slice) -> None:
        parts[i] = np.dot(a[block], b[block])

    on_blocks(blocks, work, a.nbytes + b.nbytes, n_threads)
    return float(parts.sum())


def moved(a: Floats, step: float, direction: Floats, n_threads: int) -> Floats:
    """Return ``a + step * direction``."""
    result = np.empty_like(a)

    def work(_: int, block: slice) -> None:
        np.multiply(direction[block], step, out=result[block])
        result[block] += a[block]

    on_blocks(blocks_of(a), work, 3 * a.nbytes, n_threads)
    return result

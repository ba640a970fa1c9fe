"""Split rows into blocks of a few megabytes, so that temporary arrays stay small."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: A block and its results fit in the last-level cache.
BLOCK_BYTES = 4 * 2**20


def row_blocks(
    n_rows: int, row_bytes: int, n_bytes: int | None = None, most_rows: int | None = None
) -> Iterator[slice]:
    """Yield slices that cover ``n_rows``, each of ``n_bytes`` (`BLOCK_BYTES`) or a single row.

    No slice has more than ``most_rows`` rows, if that is given.

    >>> list(row_blocks(5, row_bytes=40, n_bytes=80))
    [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    step = max(1, (n_bytes or BLOCK_BYTES) // max(1, row_bytes))
    step = step if most_rows is None else min(step, most_rows)
    for start in range(0, n_rows, step):
        yield slice(start, min(n_rows, start + step))


class Room:
    """Memory for the results of blocks (n, ``n_columns``), the first of which is the largest.

    New memory for each block would cost more than the arithmetic: the system clears its pages.
    """

    def __init__(self, n_columns: int, dtype: np.dtype[Any]) -> None:
        self._array = np.empty((0, n_columns), dtype)

    def of(self, rows: slice) -> NDArray[Any]:
        """Return an array for the results of these rows; it overwrites the last one."""
        n_rows = rows.stop - rows.start
        if n_rows > len(self._array):
            self._array = np.empty((n_rows, self._array.shape[1]), self._array.dtype)
        return self._array[:n_rows]


def float_blocks(
    X: NDArray[Any],
    dtype: np.dtype[Any],
    n_columns: int,
    *,
    rows: NDArray[np.intp] | None = None,
    n_bytes: int | None = None,
    most_rows: int | None = None,
) -> Iterator[tuple[slice, NDArray[Any]]]:
    """Yield rows of ``X`` (N, D) in blocks of ``dtype``: a slice into ``rows``, and the block.

    A block has at most ``most_rows`` rows and ``n_bytes`` bytes. An array of ``n_columns`` numbers
    a row, such as the block's scores, has at most ``n_bytes`` too.

    Parameters
    ----------
    rows : indices of the rows to take. None takes all, without a copy if ``X`` has ``dtype``.
    """
    row_bytes = max(X.shape[1], n_columns) * dtype.itemsize
    n_rows = len(X) if rows is None else len(rows)
    for block in row_blocks(n_rows, row_bytes, n_bytes, most_rows):
        yield block, X[block if rows is None else rows[block]].astype(dtype, copy=False)

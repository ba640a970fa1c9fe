"""Turn the rows that a caller passes into blocks for the workers of a cluster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import dask.array
import numpy as np
from dask.delayed import Delayed
from distributed import Client, Future

from fastloss.arrays import as_array, flat_column
from fastloss.dask.block import rows_in_block

#: ``(X, y, sample_weight)`` of a block: delayed objects, futures, arrays or None.
Triple = tuple[Any, Any, Any]


def as_blocks(client: Client, X: Any, y: Any, sample_weight: Any) -> list[Triple]:
    """Return the blocks of the rows.

    Raises
    ------
    TypeError, ValueError : rows of another kind or shape, or labels that do not match them.
    """
    if isinstance(X, dask.array.Array):
        return _cut(client, X, y, sample_weight)
    if hasattr(X, "to_dask_array"):
        raise TypeError("X is a dask DataFrame; pass X.to_dask_array(lengths=True)")
    blocks = _listed("X", X)
    if not blocks:
        raise ValueError("X must not be empty, got no blocks")
    labels = _matching("y", y, X, len(blocks))
    weights = _matching("sample_weight", sample_weight, X, len(blocks))
    if y is None:
        blocks = [_pair(block) for block in blocks]
        return [(*pair, weight) for pair, weight in zip(blocks, weights, strict=True)]
    return list(zip(blocks, labels, weights, strict=True))


def _listed(name: str, value: Any) -> list[Any]:
    if isinstance(value, Mapping):
        return list(value.values())
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        return list(value)
    raise TypeError(
        f"{name} must be a dask array, a list of blocks or a mapping from workers to blocks, got "
        f"{type(value).__name__}; for rows in this process use fastloss.Objective"
    )


def _matching(name: str, value: Any, X: Any, n_blocks: int) -> list[Any]:
    """Return the blocks of ``value`` in the order of those of ``X``; None for each without it."""
    if value is None:
        return [None] * n_blocks
    if isinstance(value, Mapping) and isinstance(X, Mapping):
        if set(value) != set(X):
            raise ValueError(f"{name} and X must have the same workers")
        return [value[worker] for worker in X]
    blocks = _listed(name, value)
    if len(blocks) != n_blocks:
        raise ValueError(f"{name} has {len(blocks)} blocks, but X has {n_blocks}")
    return blocks


def _pair(block: Any) -> tuple[Any, Any]:
    """Return ``(X, y)``, or a delayed pair and None."""
    if isinstance(block, (Delayed, Future)):
        return block, None
    if isinstance(block, (tuple, list)) and len(block) == 2:
        return block[0], block[1]
    raise TypeError(f"without y, a block must be a pair (X, y), got {type(block).__name__}")


def _cut(client: Client, X: Any, y: Any, sample_weight: Any) -> list[Triple]:
    """Cut arrays into blocks by the shape and type of ``X`` alone."""
    if X.ndim != 2:
        raise ValueError(f"X must be a matrix (N, D), got shape {X.shape}")
    if y is None:
        raise TypeError("y is missing: a dask array X needs labels")
    columns = {"y": y} if sample_weight is None else {"y": y, "sample_weight": sample_weight}
    columns = {name: _as_column(name, value) for name, value in columns.items()}
    X, *sized = _sized(client, [X, *columns.values()])
    n_rows, n_features = X.shape
    if not n_rows or not n_features:
        raise ValueError(f"X must not be empty, got shape {X.shape}")
    rows = rows_in_block(n_rows, n_features, X.dtype.itemsize)
    for name, column in zip(columns, sized, strict=True):
        if len(column) != n_rows:
            noun = "labels" if name == "y" else "weights"
            raise ValueError(f"{name} has {len(column)} {noun}, but X has {n_rows} rows")
    cut = [X.rechunk({0: rows, 1: -1})]
    cut += [array.rechunk(rows) for array in sized if isinstance(array, dask.array.Array)]
    # Unoptimised, because arrays may share tasks, and each would rewrite them in its own way.
    delayed = [array.to_delayed(optimize_graph=False).ravel().tolist() for array in cut]
    blocks, of_columns = delayed[0], iter(delayed[1:])
    parts = [
        next(of_columns)
        if isinstance(column, dask.array.Array)
        else [column[start : start + rows] for start in range(0, n_rows, rows)]
        for column in sized
    ]
    weights = parts[1] if len(parts) == 2 else [None] * len(blocks)
    return list(zip(blocks, parts[0], weights, strict=True))


def _sized(client: Client, arrays: list[Any]) -> list[Any]:
    """Return the arrays with known chunks; unknown ones are computed once, and kept."""
    unknown = [
        place
        for place, array in enumerate(arrays)
        if isinstance(array, dask.array.Array) and np.isnan(array.shape).any()
    ]
    if unknown:
        kept = client.persist([arrays[place] for place in unknown])
        for place, array in zip(unknown, kept, strict=True):
            arrays[place] = array.compute_chunk_sizes()
    return arrays


def _as_column(name: str, value: Any) -> Any:
    """Return labels or weights as a dask or NumPy array (N,)."""
    if hasattr(value, "to_dask_array"):  # a column of a dask DataFrame
        value = value.to_dask_array()
    column = value if isinstance(value, dask.array.Array) else as_array(name, value)
    column = flat_column(column)
    if column.ndim != 1:
        raise ValueError(f"{name} must have shape (N,), got {column.shape}")
    return column

"""Bind templates to a type; `native` compiles them and `fastloss.kernels` explains them.

The functions of this module import Numba; importing the module does not.
"""

from __future__ import annotations

from types import FunctionType
from typing import Any

import numpy as np

from fastloss.kernels import rows


def bind(template: Any, names: dict[str, Any], name: str = "") -> Any:
    """Return a copy of ``template`` with ``names`` among its globals, renamed to ``name`` if given.

    The copy is no closure, because Numba cannot find a closure in its cache from another process.
    """
    if not isinstance(template, FunctionType):
        return template
    name = name or template.__name__
    bound = FunctionType(
        template.__code__, {**template.__globals__, **names}, name, closure=template.__closure__
    )
    bound.__qualname__ = name
    return bound


def add_helper(names: dict[str, Any], helper: Any) -> None:
    """Bind a helper to ``names`` and add it to them."""
    from fastloss.kernels.simd import entry

    allocates = "aligned" in helper.__code__.co_names
    names[helper.__name__] = entry.helper(bind(helper, names), allocates)


def shared_names(dtype: np.dtype[Any]) -> dict[str, Any]:
    """Return values for the names that every kernel leaves open, for a dtype of W."""
    from numba import from_dtype

    from fastloss.kernels import simd

    target = simd.target()
    lanes = target.vector_bytes // dtype.itemsize
    names = {
        "LANES": lanes,
        "ITEMSIZE": dtype.itemsize,
        "TILE_ROWS": target.tile_rows,
        "STRIP_VECTORS": target.tile_vectors,
        "ROWS_STEP": max(lanes, target.tile_rows),
        "address": simd.address,
        "aligned": simd.aligned,
        "call_loss": simd.call,
        "fetch_add": simd.fetch_add,
        "matrix": simd.matrix,
        "read_shared": simd.read_shared,
        "raise_to": simd.raise_to,
        "transpose": simd.transpose(from_dtype(dtype)),
    }
    for helper in (rows.are_finished, rows.enter, rows.leave, rows.loss_of_rows):
        add_helper(names, helper)
    return names


def problem_types(source: Any, number: Any) -> tuple[Any, ...]:
    """Return the types of X, W, labels, weights, rows, scale, the loss's address, parameters."""
    from numba import float64, int64, types

    integers, floats = (types.Array(t, 1, "C", readonly=True) for t in (int64, float64))
    # Layout "A" accepts rows in place and rows to pack with one signature.
    X, W = types.Array(source, 2, "A", readonly=True), types.Array(number, 2, "C", readonly=True)
    return X, W, integers, floats, integers, float64, int64, floats

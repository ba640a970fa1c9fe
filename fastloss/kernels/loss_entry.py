"""Compile a loss to a C function that kernels call through its address."""

from __future__ import annotations

from functools import cache
from types import FunctionType
from typing import Any

import numpy as np

from fastloss.kernel_cache import kernel_name
from fastloss.kernels.compile import bind
from fastloss.kernels.native import Template, native
from fastloss.losses.base import BlockKernel, Loss, exp, log1p, put_labelled, take_labelled

# Bound when a loss is compiled.
block: Any = None
carray: Any = None
to_fixed_tuple: Any = None
prefer_wide_vectors: Any = None
N_PARAMETERS = 0


def loss_entry(
    scores: Any, n_classes: int, n_rows: int, labels: Any, parameters: Any, losses: Any
) -> None:
    """Call ``block`` with arrays made from the arguments of a C function."""
    prefer_wide_vectors()
    block(
        carray(scores, (n_classes, n_rows)),
        carray(labels, (n_rows,)),
        to_fixed_tuple(carray(parameters, (N_PARAMETERS,)), N_PARAMETERS),
        carray(losses, (n_rows,)),
    )


def loss_kernel(loss: Loss, dtype: np.dtype[Any]) -> Any:
    """Return the loss compiled for a dtype of scores: a C function with an ``address``."""
    if loss.block is None:
        raise ValueError(f"the loss {loss.name!r} has no block form")
    return _loss_kernel(loss.block, len(loss.parameters), dtype)


@cache
def loss_name(block: BlockKernel, n_parameters: int, dtype: np.dtype[Any]) -> str:
    """Return the name of `loss_kernel`, without importing Numba."""
    module = block.__module__.replace(".", "_")
    return kernel_name(f"{module}_{block.__name__}_{n_parameters}_{dtype}", block)


@native(loss_name)
def _loss_kernel(block: BlockKernel, n_parameters: int, dtype: np.dtype[Any]) -> Template:
    from numba import carray, float64, from_dtype, int64, types
    from numba.np.unsafe.ndarray import to_fixed_tuple

    from fastloss.kernels import simd
    from fastloss.kernels.simd.entry import helper as compiled

    replaced: dict[Any, Any] = {exp: simd.exp, log1p: simd.log1p}
    for helper in (take_labelled, put_labelled):
        replaced[helper] = compiled(bind(helper, {}), False)
    functions = {
        name: replaced[value]
        for name, value in block.__globals__.items()
        if isinstance(value, FunctionType) and value in replaced
    }
    names = {
        "block": compiled(bind(block, functions), True),
        "carray": carray,
        "to_fixed_tuple": to_fixed_tuple,
        "prefer_wide_vectors": simd.prefer_wide_vectors,
        "N_PARAMETERS": n_parameters,
    }
    pointer = types.CPointer
    signature = types.void(
        pointer(from_dtype(dtype)), int64, int64, pointer(int64), pointer(float64), pointer(float64)
    )
    return bind(loss_entry, names), signature

"""Explicit vectors for compiled kernels: two matrix tiles, a vector copy, ``exp``, an atomic add.

Left to itself LLVM vectorises a matrix product along one loop and keeps few sums in registers.
Here the tiles are written as LLVM instructions on whole vectors, once for every element type and
vector width; `Target` says how wide the vectors of the compiling machine are and how many
registers hold them. These functions are called from compiled code only, and take addresses (int64)
because LLVM does not know of arrays::

    score_tile     scores[c, r] += sum_d X[r, d] W.T[c, d]      sums run along d
    gradient_tile  partial[c, d] += sum_r G[c, r] X[r, d]       sums run along r

``X`` is read where it is, each row through its own address, unaligned. What is left of a row that
is no whole vector is read with a mask, so that nothing beyond the row is touched. Both tiles ask
for memory that is needed later (prefetch): reading the next rows while these are multiplied is what
brings a call near one read of ``X``.
"""

from __future__ import annotations

from fastloss.kernels.simd.copies import copy_vector, transpose
from fastloss.kernels.simd.elementary import exp, log1p
from fastloss.kernels.simd.memory import (
    address,
    call,
    fetch_add,
    prefer_wide_vectors,
    prefetch,
    raise_to,
    read_shared,
)
from fastloss.kernels.simd.product import PRODUCT_VECTORS, product_tile
from fastloss.kernels.simd.target import Target, features, target
from fastloss.kernels.simd.tiles import TILE_CLASSES, gradient_tile, score_tile

__all__ = [
    "PRODUCT_VECTORS",
    "TILE_CLASSES",
    "Target",
    "address",
    "call",
    "copy_vector",
    "exp",
    "features",
    "fetch_add",
    "gradient_tile",
    "log1p",
    "prefer_wide_vectors",
    "prefetch",
    "product_tile",
    "raise_to",
    "read_shared",
    "score_tile",
    "target",
    "transpose",
]

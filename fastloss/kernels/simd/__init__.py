"""Emit explicit vectors for compiled kernels: matrix tiles, copies, ``exp``, atomic operations.

LLVM by itself vectorises a matrix product along one loop and keeps few sums in registers. This
package writes tiles as LLVM instructions on whole vectors, for every element type and vector width.
`Target` holds the vector width and the number of registers of the CPU. Only compiled code calls
these functions. They take addresses (int64), because LLVM has no arrays::

    score_tile     scores[c, r] += sum_d X[r, d] W.T[c, d]      sums run along d
    gradient_tile  partial[c, d] += sum_r G[c, r] X[r, d]       sums run along r

``X`` is read in place: each row through its own address, unaligned. A mask reads the end of a row
that fills no whole vector, so nothing beyond the row is touched. Both tiles prefetch the next rows
while they multiply, which brings the time of a call near one read of ``X``.
"""

from __future__ import annotations

from fastloss.kernels.simd.copies import convert_number, copy_vector, transpose
from fastloss.kernels.simd.elementary import exp, log1p
from fastloss.kernels.simd.memory import (
    address,
    aligned,
    call,
    fetch_add,
    matrix,
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
    "aligned",
    "call",
    "convert_number",
    "copy_vector",
    "exp",
    "features",
    "fetch_add",
    "gradient_tile",
    "log1p",
    "matrix",
    "prefer_wide_vectors",
    "prefetch",
    "product_tile",
    "raise_to",
    "read_shared",
    "score_tile",
    "target",
    "transpose",
]

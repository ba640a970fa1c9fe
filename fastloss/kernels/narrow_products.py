"""Multiply in the narrow kernel: tiles over the classes and features of a block of rows."""

from __future__ import annotations

from typing import Any

from fastloss.kernels.compile import add_helper
from fastloss.kernels.rows import address, pack_rows

# Bound when a kernel is compiled.
transpose: Any = None
score_tile: Any = None
gradient_strip: Any = None
gradient_vector: Any = None
prefetch: Any = None
TILE_ROWS = 4
STRIP_VECTORS = 4
LANES = 16
ITEMSIZE = 4

# Part of L1 for a slab of features: its weights of all classes, and a tile of rows.
_SLAB_BYTES = 36 * 1024


def tile_width(n_classes: int) -> int:
    """Return the classes of the next tile; tiles of 5, 3 and 2 fit any number without padding."""
    return 5 if n_classes == 5 or n_classes > 6 else 3 if n_classes % 3 == 0 else 2


def slab_of(n_classes: int, n_columns: int) -> int:
    """Return the features of a slab, at most ``n_columns``."""
    return min(n_columns, max(32, _SLAB_BYTES // (64 * (n_classes + TILE_ROWS))) * LANES)


def lay_out_weights(W: Any, first: int, last: int, slab: int, W_T: Any) -> None:
    """Write the weights of the features from ``first`` to ``last`` to ``W_T``, in slabs.

    Each slab (C, features) is contiguous, because parts of long rows would compete for the same
    cache sets.
    """
    for d in range(first, last, slab):
        transpose(
            address(W) + d * W.strides[0],
            W.strides[0],
            min(slab, last - d),
            W.shape[1],
            address(W_T) + (d - first) * W.shape[1] * ITEMSIZE,
            slab * ITEMSIZE,
        )


def score_block(
    W_T: int,
    slab: int,
    rows: int,
    n: int,
    n_features: int,
    n_classes: int,
    scores: int,
    S_stride: int,
    following: int,
    end: int,
    upcoming: Any,
) -> int:
    """Add ``X @ W`` of a block to its scores, a slab of features at a time.

    Return the address up to which the next block is prefetched. If ``upcoming`` holds addresses of
    rows, each tile prefetches one of them instead.
    """
    for first in range(0, n_features, slab):
        offset = first * ITEMSIZE
        n_here = min(slab, n_features - first)
        n_vectors = n_here // LANES
        n_tiles = 0
        for r in range(0, n, TILE_ROWS):
            c = 0
            while c < n_classes:
                if n_tiles < upcoming.shape[0]:
                    following = upcoming[n_tiles] + offset
                n_tiles += 1
                width = tile_width(n_classes - c)
                score_tile(
                    width,
                    rows + 8 * r,
                    offset,
                    n_vectors,
                    n_here - n_vectors * LANES,
                    W_T + offset * n_classes + c * slab * ITEMSIZE,
                    slab * ITEMSIZE,
                    scores + c * S_stride + r * ITEMSIZE,
                    S_stride,
                    following,
                )
                following = min(end, following + 64 * n_vectors) if upcoming.shape[0] == 0 else end
                c += width
    return following


def add_gradient(
    rows: int,
    n: int,
    n_features: int,
    ones: int,
    n_classes: int,
    G: int,
    G_stride: int,
    total: int,
    T_stride: int,
    following: int,
    end: int,
    upcoming: Any,
) -> None:
    """Add ``G @ X`` of a block of rows to ``total``; prefetch the other ``upcoming`` rows.

    ``ones`` points at the addresses of the bias's features; 0 means no bias. The gradient of the
    bias comes after that of the features.
    """
    strip = STRIP_VECTORS * LANES
    n_strips = n_features // strip * strip
    # The tiles of scores have prefetched a row each.
    n_done, c = 0, 0
    while c < n_classes:
        c += tile_width(n_classes - c)
        n_done += -(-n // TILE_ROWS)
    n_left = max(0, upcoming.shape[0] - n_done)
    # All classes of a strip in turn, while its features are in L1.
    for d in range(0, n_strips, strip):
        offset = d * ITEMSIZE
        for r in range(n_left * d // n_strips, n_left * (d + strip) // n_strips):
            row = upcoming[n_done + r]
            for line in range(row, row + n_features * ITEMSIZE, 64):
                prefetch(line)
        c = 0
        while c < n_classes:
            width = tile_width(n_classes - c)
            gradient_strip(
                width,
                rows,
                n,
                offset,
                LANES,
                G + c * G_stride,
                G_stride,
                total + c * T_stride + offset,
                T_stride,
                following,
            )
            following = min(end, following + 64 * n)
            c += width
    n_columns = -(-n_features // LANES) * LANES
    for d in range(n_strips, n_columns + (LANES if ones != 0 else 0), LANES):
        is_bias = d == n_columns
        c = 0
        while c < n_classes:
            width = tile_width(n_classes - c)
            gradient_vector(
                width,
                ones if is_bias else rows,
                n,
                0 if is_bias else d * ITEMSIZE,
                1 if is_bias else min(LANES, n_features - d),
                G + c * G_stride,
                G_stride,
                total + c * T_stride + d * ITEMSIZE,
                T_stride,
                following,
            )
            c += width


def add_products(
    names: dict[str, Any], source: Any, number: Any, prefetches_rows: bool = False
) -> None:
    """Add the products, and the conversion of rows, to the names of a kernel.

    If the tiles prefetch rows, ``following`` and ``end`` are the distance in bytes.
    """
    from fastloss.kernels import simd

    names |= {
        "score_tile": simd.score_tile(number, prefetches_rows),
        "gradient_strip": simd.gradient_tile(number, simd.target().tile_vectors, prefetches_rows),
        "gradient_vector": simd.gradient_tile(number, 1, prefetches_rows),
        "prefetch": simd.prefetch,
        "convert": simd.copy_vector(source, number),
        "convert_number": simd.convert_number(source, number),
    }
    for helper in (pack_rows, tile_width, slab_of, lay_out_weights, score_block, add_gradient):
        add_helper(names, helper)

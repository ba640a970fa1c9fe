"""Evaluate many classes on a matrix unit: the products of `kernels.wide` from bfloat16 parts.

For float32, the templates of this module replace those of the same names in `kernels.wide`.
`kernels.amx` describes the layout of blocks of parts. A strip of X is laid out as the left factor
of the gradient, whose sums run over rows. The sums of the scores run over features, so each piece
turns the strip into a right factor first. Turning takes an eighth of the time of multiplying, and
saves half of the memory.

The functions return the largest number that they laid out, where those of `kernels.wide` return 0.
Numbers are compared by their bits without the sign, which puts NaN above infinity. `is_in_range`
says whether the parts can represent that number. If not, the vectors of `kernels.wide` evaluate the
block of rows; dW is then still untouched.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastloss.kernels.native import Template, native
from fastloss.kernels.rows import address, aligned, matrix
from fastloss.kernels.wide import LOSS, STRIP, bind_wide, rows_together, transpose, wide_name

# Bound when a kernel is compiled.
split_X: Any = None
split_left: Any = None
split_right: Any = None
turn_blocks: Any = None
score_product: Any = None
gradient_product: Any = None
scale_strip: Any = None
configure: Any = None
release: Any = None
#: Bytes of a block of X, and of a block of W or G.
X_BYTES = WHOLE_BYTES = 6144

PREFETCHED = 768
ROW_BYTES = 128
DEPTH = 512
DEPTH_STRIPS = 16


def _bits(power: int) -> int:
    """Return the bits of 2**power as float32."""
    return (127 + power) << 23


#: No sum of products of two numbers up to this size overflows.
LARGEST = _bits(48)
#: The unit treats numbers below 2**-126 as 0, such as the third part of 2**-110 or the product of
#: two numbers of 2**-63. Errors are measured by the largest result. They are negligible if the
#: largest X or W of a block, and its largest gradient, reach these bounds. Among ordinary results,
#: those below 1e-30 have fewer digits than with vectors.
LEAST, LEAST_GRADIENT = _bits(-32), _bits(-64)


def parts_of(X_type: np.dtype[Any]) -> int:
    """Return how many bfloat16, of 8 significant bits each, hold any number of this dtype."""
    return {np.dtype(np.uint8): 1, np.dtype(np.float16): 2}.get(X_type, 3)


def is_in_range(largest: int, stage: int) -> bool:
    """Return whether the unit can multiply the numbers laid out in a stage."""
    least = LEAST_GRADIENT if stage == LOSS else LEAST
    return largest == 0 or least <= largest <= LARGEST


def panel_size(is_of_scores: bool, n_parameters: int, n_strips: int, broad: int) -> int:
    """Return the size of a panel: a piece's blocks of W and a turned strip of X, or blocks of G."""
    n_classes = -(-broad // STRIP)
    if is_of_scores:
        return (n_classes + 1) * -(-min(DEPTH, n_parameters) // STRIP) * WHOLE_BYTES // 4
    return n_classes * min(DEPTH_STRIPS, n_strips) * WHOLE_BYTES // 4


def lay_out(X: Any, kept: Any, in_place: bool, n_parameters: int, packed: Any, strip: Any) -> int:
    """Write the ``kept`` rows, and ones for the bias, as left factors; return the largest."""
    n, n_features = kept.shape[0], X.shape[1]
    source, stride = rows_together(X, kept, in_place, packed)
    largest = 0
    block = matrix(aligned(STRIP * STRIP, strip), STRIP, STRIP)
    for d in range(0, n_parameters, STRIP):
        n_here = max(0, min(STRIP, n_features - d))
        if n < STRIP or n_here < STRIP:
            block[:] = 0
        transpose(source + d * 4, stride, n, n_here, address(block), ROW_BYTES)
        goal = address(strip) + d // STRIP * X_BYTES
        largest = max(largest, split_X(address(block), goal))
        if n_here < STRIP and n_parameters > n_features:
            # Split separately, because the bias's 1 must not count as the largest feature.
            for r in range(STRIP):
                block[n_here, r] = 1
            split_X(address(block), goal)
    return largest


def apply(factors: Any, n: int, strips: Any, scores: Any, k: int, n_parameters: int) -> int:
    """Multiply a strip's gradients by the factors of its ``n`` rows; set those of others to 0."""
    strip = address(scores) + k * scores.strides[0]
    return scale_strip(strip, scores.shape[1], address(factors), n)


def score_piece(
    W: Any,
    strips: Any,
    scores: Any,
    are_bad: Any,
    first: int,
    last: int,
    left: int,
    right: int,
    panel: Any,
) -> int:
    """Add ``X @ W`` to the scores: the strips from ``first`` and the classes from ``left`` on."""
    n_parameters = W.shape[0]
    block = matrix(aligned(STRIP * STRIP, W), STRIP, STRIP)
    turned = address(panel)
    turned += -(-(right - left) // STRIP) * -(-min(DEPTH, n_parameters) // STRIP) * WHOLE_BYTES
    largest = 0
    configure()
    for d in range(0, n_parameters, DEPTH):
        n_blocks = -(-min(DEPTH, n_parameters - d) // STRIP)
        of_classes = n_blocks * WHOLE_BYTES
        for part in range(n_blocks):
            # Along rows of W, which the CPU prefetches.
            feature = d + part * STRIP
            n = min(STRIP, n_parameters - feature)
            if n < STRIP:
                block[:] = 0
            for c in range(left, right, STRIP):
                n_here = min(STRIP, right - c)
                source = address(W) + feature * W.strides[0] + c * 4
                transpose(source, W.strides[0], n, n_here, address(block), ROW_BYTES)
                goal = address(panel) + (c - left) // STRIP * of_classes + part * WHOLE_BYTES
                largest = max(largest, split_left(address(block), goal))
        for s in range(first, last):
            strip = address(strips) + s * strips.strides[0] + d // STRIP * X_BYTES
            turn_blocks(strip, turned, n_blocks)
            following = strip + strips.strides[0]
            for c in range(left, right, STRIP):
                out = address(scores) + s * scores.strides[0] + c * ROW_BYTES
                score_product(
                    address(panel) + (c - left) // STRIP * of_classes,
                    WHOLE_BYTES,
                    turned,
                    X_BYTES,
                    n_blocks,
                    out,
                    ROW_BYTES,
                    right - c,
                    STRIP,
                    d == 0,
                    following,
                    X_BYTES,
                    out + STRIP * ROW_BYTES,
                )
                following += PREFETCHED
    release()
    return largest


def gradient_piece(
    strips: Any,
    scores: Any,
    dW: Any,
    n_rows: int,
    first: int,
    last: int,
    left: int,
    right: int,
    is_new: bool,
    panel: Any,
) -> None:
    """Add ``X.T @ G`` to ``dW``: the features from ``first`` and the classes from ``left`` on."""
    n_strips = scores.shape[0]
    block = matrix(aligned(STRIP * STRIP, dW), STRIP, STRIP)
    configure()
    for s in range(0, n_strips, DEPTH_STRIPS):
        n_here = min(DEPTH_STRIPS, n_strips - s)
        of_classes = n_here * WHOLE_BYTES
        for part in range(n_here):
            for c in range(left, right, STRIP):
                n = min(STRIP, right - c)
                source = address(scores) + (s + part) * scores.strides[0] + c * ROW_BYTES
                transpose(source, ROW_BYTES, n, STRIP, address(block), ROW_BYTES)
                goal = address(panel) + (c - left) // STRIP * of_classes + part * WHOLE_BYTES
                split_right(address(block), goal)
        for d in range(first, last, STRIP):
            features = address(strips) + s * strips.strides[0] + d // STRIP * X_BYTES
            following = features + X_BYTES
            for c in range(left, right, STRIP):
                out = address(dW) + d * dW.strides[0] + c * 4
                gradient_product(
                    features,
                    strips.strides[0],
                    address(panel) + (c - left) // STRIP * of_classes,
                    WHOLE_BYTES,
                    n_here,
                    out,
                    dW.strides[0],
                    last - d,
                    right - c,
                    is_new and s == 0,
                    following,
                    strips.strides[0],
                    out + ROW_BYTES,
                )
                following += PREFETCHED
    release()


# --- compiling ------------------------------------------------------------------------------------


def _amx_name(X_type: np.dtype[Any]) -> str:
    return wide_name(X_type, np.dtype(np.float32), "amx")


@native(_amx_name)
def amx_kernel(X_type: np.dtype[Any]) -> Template:
    """Return `wide.evaluate` compiled for float32 with the products of this module."""
    products = panel_size, lay_out, apply, score_piece, gradient_piece
    return bind_wide(X_type, np.dtype(np.float32), _names(X_type), products)


def _names(X_type: np.dtype[Any]) -> dict[str, Any]:
    """Return values for the names that this module and `wide` leave open."""
    from fastloss.kernels import amx

    n_parts, most = parts_of(X_type), amx.MOST_PARTS
    return {
        "STRIP": amx.BLOCK,
        "PRODUCT_ROWS": amx.BLOCK,
        "X_BYTES": n_parts * amx.PART_BYTES,
        "WHOLE_BYTES": most * amx.PART_BYTES,
        "split_X": amx.split_block(n_parts, True),
        "split_left": amx.split_block(most, True),
        "split_right": amx.split_block(most, False),
        "turn_blocks": amx.turn_blocks(n_parts),
        "PREFETCHED": amx.PREFETCHED_LINES * 64,
        "score_product": amx.matrix_tile(most, n_parts),
        "gradient_product": amx.matrix_tile(n_parts, most),
        "scale_strip": amx.scale_strip,
        "configure": amx.configure,
        "release": amx.release,
    }

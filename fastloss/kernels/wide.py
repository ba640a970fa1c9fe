"""Evaluate many classes: blocks of rows, with both products in tiles of registers.

With many classes the arithmetic takes longest, so numbers are laid out for it. A strip holds a few
vectors' worth of rows. A matrix in strips, (strips, columns, strip), has the rows of a strip side
by side for each column. A block of rows goes through four stages, each shared by all threads::

    lay out   X in strips
    scores    in strips, a piece of the classes at a time: S += X @ W
    loss      in place, a strip at a time: the scores become their gradient G, weighted
    gradient  a piece of the classes and features at a time: dW += X.T @ G

The bias is a feature of ones. Any number of threads gives the same bits: blocks depend on the shape
alone and run one after another, and the terms of a sum do not depend on the piece. No N x C matrix
is formed.

The use of caches follows K. Goto and R. van de Geijn, *Anatomy of High-Performance Matrix
Multiplication*, 2008.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np

from fastloss.arrays import SKIP
from fastloss.kernel_cache import kernel_name
from fastloss.kernels.compile import add_helper, bind, problem_types, shared_names
from fastloss.kernels.native import Template, native
from fastloss.kernels.rows import (
    address,
    aligned,
    are_finished,
    call_loss,
    matrix,
    pack_rows,
    stored_type,
)

# Bound when a kernel is compiled.
fetch_add: Any = None
raise_to: Any = None
transpose: Any = None
ITEMSIZE = 4
score_tile: Any = None
gradient_tile: Any = None
STRIP = 32
PRODUCT_ROWS = 12

LAY_OUT, SCORES, LOSS, GRADIENT = range(4)

#: Terms of a sum taken at a time: features for the scores, strips of rows for the gradient. A strip
#: or a few rows of one matrix then stay in L1, and a piece of the other matrix stays in L2.
DEPTH = 256
DEPTH_STRIPS = 16
#: Most and fewest classes, strips and features of a piece. Each piece lays out the numbers that it
#: multiplies, so pieces are not cut below the minimum, even if some threads then have none.
PIECE_CLASSES, MIN_CLASSES = 256, 128
PIECE_STRIPS, MIN_STRIPS = 32, 4
PIECE_FEATURES, MIN_FEATURES = 1024, 96


def evaluate(
    stage: int,
    X: Any,
    W: Any,
    labels: Any,
    weights: Any,
    rows: Any,
    scale: float,
    loss: int,
    parameters: Any,
    start: int,
    stop: int,
    is_new: bool,
    strips: Any,
    scores: Any,
    are_bad: Any,
    counters: Any,
    losses: Any,
    dW: Any,
    n_threads: int,
) -> bool:
    """Run pieces of a stage for the rows from ``start`` to ``stop``, until none is left.

    Every thread runs this function and returns whether all pieces are finished. ``rows`` holds the
    row numbers; empty means all rows. ``strips`` (K, features and bias, strip) and ``scores``
    (K, C, strip) carry data between stages; `kernels.wide_amx` uses ``strips`` as plain memory.
    If ``is_new``, the gradient overwrites ``dW``; otherwise it is added.
    ``counters``: pieces taken, pieces finished, and the largest number that `kernels.wide_amx` laid
    out. ``losses``: weighted losses of a strip's rows; skipped rows leave its last ones unchanged.
    """
    n_parameters, n_classes = W.shape
    n_strips = scores.shape[0]
    is_of_rows = stage in (LAY_OUT, LOSS)
    n_tall = n_parameters if stage == GRADIENT else n_strips
    tall, broad = piece(stage, n_tall, n_classes, n_threads)
    n_across = -(-n_classes // broad)
    n_pieces = -(-n_tall // tall) * n_across
    room = 0 if is_of_rows else panel_size(stage == SCORES, n_parameters, n_strips, broad)
    panel = aligned(room, W)
    width = -(-n_parameters // STRIP) * STRIP if stage == LAY_OUT else 0
    packed = matrix(aligned(STRIP * width, W), STRIP, width)
    indices, strip_labels = aligned(STRIP, labels), aligned(STRIP, labels)
    strip_losses, factors = aligned(STRIP, losses), aligned(STRIP, W)
    while True:
        k = fetch_add(address(counters))
        if k >= n_pieces:
            break
        largest = 0
        first, left = k // n_across * tall, k % n_across * broad
        last, right = min(n_tall, first + tall), min(n_classes, left + broad)
        if is_of_rows:
            begin = start + k * STRIP
            n = 0
            for i in range(begin, min(begin + STRIP, stop)):
                # No branch: the next row overwrites a skipped one.
                row = rows[i] if rows.shape[0] > 0 else i
                indices[n] = row
                strip_labels[n] = labels[row]
                n += labels[row] != SKIP
        if stage == LAY_OUT:
            are_bad[k] = 0
            in_place = n == STRIP and rows.shape[0] == 0
            largest = lay_out(X, indices[:n], in_place, n_parameters, packed, strips[k])
        elif stage == SCORES:
            largest = score_piece(W, strips, scores, are_bad, first, last, left, right, panel)
        elif stage == LOSS:
            for r in range(n, STRIP):
                strip_labels[r] = 0
            # A loss that raises leaves NaN.
            strip_losses[:] = math.nan
            call_loss(
                loss,
                address(scores) + k * scores.strides[0],
                n_classes,
                STRIP,
                address(strip_labels),
                address(parameters),
                address(strip_losses),
            )
            for r in range(STRIP):
                factors[r] = 0
                if r < n:
                    weight = weights[indices[r]] if weights.shape[0] > 0 else 1.0
                    if are_bad[k, r] == 1 or math.isnan(strip_losses[r]):
                        weight = math.nan
                    losses[begin + r] = weight * strip_losses[r]
                    factors[r] = scale * weight
            largest = apply(factors, n, strips, scores, k, n_parameters)
        else:
            gradient_piece(
                strips, scores, dW, stop - start, first, last, left, right, is_new, panel
            )
        raise_to(address(counters) + 16, largest)
        fetch_add(address(counters) + 8)
    return are_finished(address(counters) + 8, n_pieces)


def piece(stage: int, n_tall: int, n_classes: int, n_threads: int) -> tuple[int, int]:
    """Return the strips or features of a piece of a stage, and its classes."""
    if stage == SCORES:
        broad = share(n_classes, 4, MIN_CLASSES, PIECE_CLASSES, PRODUCT_ROWS)
        wanted = wanted_pieces(n_classes, broad, n_threads)
        return share(n_tall, wanted, MIN_STRIPS, PIECE_STRIPS, 1), broad
    if stage == GRADIENT:
        broad = share(n_classes, 4, MIN_CLASSES, PIECE_CLASSES, STRIP)
        wanted = wanted_pieces(n_classes, broad, n_threads)
        return share(n_tall, wanted, MIN_FEATURES, PIECE_FEATURES, PRODUCT_ROWS), broad
    return 1, n_classes


def wanted_pieces(n_classes: int, broad: int, n_threads: int) -> int:
    """Return how many pieces a range of classes needs, so that all threads get equally many."""
    n_across = -(-n_classes // broad)
    return 1 if n_across >= 4 * n_threads else n_threads // math.gcd(n_threads, n_across)


def share(n: int, wanted: int, least: int, most: int, multiple: int) -> int:
    """Return the size of equal pieces of ``n``, within the bounds.

    Their number is a multiple of ``wanted``, unless the pieces would be smaller than ``least``.
    """
    number = -(-n // min(most, max(least, -(-n // wanted))))
    even = -(-number // wanted) * wanted
    number = even if even * least <= n else number
    return -(-n // (number * multiple)) * multiple


def panel_size(is_of_scores: bool, n_parameters: int, n_strips: int, broad: int) -> int:
    """Return how many numbers of W (scores) or G (gradient) a piece lays out at a time."""
    if is_of_scores:
        return min(DEPTH, -(-n_parameters // STRIP) * STRIP) * (broad + PRODUCT_ROWS)
    return min(DEPTH_STRIPS, n_strips) * STRIP * broad


def rows_together(X: Any, kept: Any, in_place: bool, packed: Any) -> tuple[int, int]:
    """Return the address and the stride of the ``kept`` rows, packed if need be.

    ``in_place`` says that the rows follow each other in ``X``.
    """
    if in_place and X.itemsize == ITEMSIZE and X.strides[1] == ITEMSIZE:
        return address(X) + kept[0] * X.strides[0], X.strides[0]
    pack_rows(X, kept, packed)
    return address(packed), packed.strides[0]


def lay_out(X: Any, kept: Any, in_place: bool, n_parameters: int, packed: Any, strip: Any) -> int:
    """Write the ``kept`` rows, and a feature of ones for the bias, to the columns of a strip.

    Return 0; see `kernels.wide_amx`.
    """
    n, n_features = kept.shape[0], X.shape[1]
    source, stride = rows_together(X, kept, in_place, packed)
    if n < STRIP:
        strip[:] = 0
    transpose(source, stride, n, n_features, address(strip), STRIP * ITEMSIZE)
    for d in range(n_features, strip.shape[0]):
        for r in range(STRIP):
            strip[d, r] = d < n_parameters
    return 0


def apply(factors: Any, n: int, strips: Any, scores: Any, k: int, n_parameters: int) -> int:
    """Multiply a strip's gradients by the factors of its ``n`` rows, or X instead if it is smaller.

    Gradients of rows that only fill the strip become 0, because they could be NaN.
    """
    n_classes = scores.shape[1]
    if n_parameters < n_classes:
        for d in range(n_parameters):
            for r in range(STRIP):
                strips[k, d, r] *= factors[r]
    else:
        for c in range(n_classes):
            for r in range(STRIP):
                scores[k, c, r] *= factors[r]
    if n < STRIP:
        for c in range(n_classes):
            for r in range(n, STRIP):
                scores[k, c, r] = 0
    return 0


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
    width = STRIP * ITEMSIZE
    n_parameters = W.shape[0]
    block = (right - left + PRODUCT_ROWS) * width
    for d in range(0, n_parameters, DEPTH):
        depth = min(DEPTH, n_parameters - d)
        if depth % 2 == 1:
            panel[depth // STRIP * block // ITEMSIZE :] = 0
        for part in range(0, depth, STRIP):
            transpose(
                address(W) + (d + part) * W.strides[0] + left * ITEMSIZE,
                W.strides[0],
                min(STRIP, depth - part),
                right - left,
                address(panel) + part // STRIP * block,
                width,
            )
        # Each tile prefetches its share of the next strip.
        n_lines = -(-STRIP * width // 64 // -(-(right - left) // PRODUCT_ROWS))
        for s in range(first, last):
            bad = 0
            following = address(strips) + min(s + 1, last - 1) * strips.strides[0] + d * width
            for c in range(left, right, PRODUCT_ROWS):
                bad |= score_tile(
                    address(panel) + (c - left) * width,
                    block,
                    address(strips) + s * strips.strides[0] + d * width,
                    STRIP * width,
                    depth + depth % 2,
                    address(scores) + s * scores.strides[0] + c * width,
                    width,
                    right - c,
                    STRIP,
                    d == 0,
                    following,
                    n_lines * 64,
                    n_lines,
                )
                following += -(-depth // STRIP) * n_lines * 64
            # Other threads may mark the same rows.
            if d + depth == n_parameters and bad != 0:
                for r in range(STRIP):
                    if bad >> r & 1 == 1:
                        are_bad[s, r] = 1
    return 0


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
    width = STRIP * ITEMSIZE
    n_strips = scores.shape[0]
    for s in range(0, n_strips, DEPTH_STRIPS):
        n_here = min(DEPTH_STRIPS, n_strips - s)
        # An even number of rows; rows that fill a strip are 0.
        n_sums = min(n_here * STRIP, (n_rows - s * STRIP + 1) // 2 * 2)
        # For each strip of classes, all rows one after another.
        block = n_here * STRIP * width
        for c in range(left, right, STRIP):
            for part in range(n_here):
                transpose(
                    address(scores) + (s + part) * scores.strides[0] + c * width,
                    width,
                    min(STRIP, right - c),
                    STRIP,
                    address(panel) + (c - left) // STRIP * block + part * STRIP * width,
                    width,
                )
        # Each tile prefetches its share of the next features.
        n_lines = -(-PRODUCT_ROWS * width // 64 // -(-(right - left) // STRIP))
        for d in range(first, last, PRODUCT_ROWS):
            rows = address(strips) + s * strips.strides[0] + d * width
            following = rows + PRODUCT_ROWS * width
            for c in range(left, right, STRIP):
                gradient_tile(
                    rows,
                    strips.strides[0],
                    address(panel) + (c - left) // STRIP * block,
                    STRIP * width,
                    n_sums,
                    address(dW) + d * dW.strides[0] + c * ITEMSIZE,
                    dW.strides[0],
                    last - d,
                    right - c,
                    is_new and s == 0,
                    following,
                    strips.strides[0],
                    n_lines,
                )
                following += n_lines * 64


# --- compiling ------------------------------------------------------------------------------------


@cache
def wide_name(X_type: np.dtype[Any], W_type: np.dtype[Any], unit: str = "vectors") -> str:
    """Return the name of the kernel on a unit, without importing Numba."""
    return kernel_name(f"wide_{unit}_{X_type}_{W_type}", evaluate)


@native(wide_name)
def vectors_kernel(X_type: np.dtype[Any], W_type: np.dtype[Any]) -> Template:
    """Return `evaluate` compiled with the products of this module."""
    from numba import from_dtype

    from fastloss.kernels import simd

    strip, product_rows = product_widths(W_type)
    # The last classes take tiles of fewer rows in the scores, and of fewer vectors in the gradient.
    third = product_rows // 3
    names = {
        "STRIP": strip,
        "PRODUCT_ROWS": product_rows,
        "score_tile": simd.product_tile(
            from_dtype(W_type), [(rows, 2) for rows in (3 * third, 2 * third, third)]
        ),
        "gradient_tile": simd.product_tile(
            from_dtype(W_type), [(product_rows, 2), (product_rows, 1)]
        ),
    }
    products = panel_size, lay_out, apply, score_piece, gradient_piece
    return bind_wide(X_type, W_type, names, products)


def bind_wide(
    X_type: np.dtype[Any],
    W_type: np.dtype[Any],
    names_of_products: dict[str, Any],
    products: tuple[Any, ...],
) -> Template:
    """Return `evaluate` bound to a unit's ``products``: five functions, as in this module."""
    from numba import boolean, float64, from_dtype, int64

    from fastloss.kernels import simd

    number, source = from_dtype(W_type), from_dtype(stored_type(X_type))
    names = shared_names(W_type) | names_of_products | {"WIDTHS": product_widths(W_type)}
    names["convert"] = simd.copy_vector(source, number)
    names["convert_number"] = simd.convert_number(source, number)
    for helper in (pack_rows, wanted_pieces, share, piece, rows_together, *products):
        add_helper(names, helper)
    signature = (
        int64,
        *problem_types(source, number),
        *(int64, int64, boolean),
        number[:, :, ::1],
        number[:, :, ::1],
        number[:, ::1],
        int64[::1],
        float64[::1],
        number[:, ::1],
        int64,
    )
    return bind(evaluate, names), boolean(*signature)


def product_widths(dtype: np.dtype[Any]) -> tuple[int, int]:
    """Return the numbers in a strip, and the rows of a product tile."""
    from fastloss.kernels import simd

    target = simd.target()
    strip = simd.PRODUCT_VECTORS * target.vector_bytes // dtype.itemsize
    return strip, target.product_rows

"""Blocks of parts for the matrix unit, which the tests of `kernels.amx` share."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from fastloss.kernels import amx


def cache_lines(shape: tuple[int, ...]) -> np.ndarray:
    """Return float32 zeros that begin on a cache line."""
    buffer = np.zeros(4 * math.prod(shape) + 64, np.uint8)
    start = -buffer.ctypes.data % 64
    return buffer[start : start + 4 * math.prod(shape)].view(np.float32).reshape(shape)


def numbers(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Draw numbers of very different sizes."""
    array = cache_lines(shape)
    array[...] = rng.standard_normal(shape) * 2.0 ** rng.integers(-20, 20, shape)
    return array


def split(array: np.ndarray, n_parts: int, is_left: bool) -> np.ndarray:
    """Return blocks (K, part, half, 16, 16 items) of numbers (K, 32, 32)."""
    function = amx.split_block(n_parts, is_left)

    @njit
    def call(source, goal):
        return function(source, goal)

    blocks = cache_lines((len(array), n_parts, 2, 16, 16))
    largest = [call(a.ctypes.data, b.ctypes.data) for a, b in zip(array, blocks, strict=True)]
    expected = np.abs(array).max(axis=(1, 2)).view(np.int32)
    np.testing.assert_array_equal(largest, expected)
    return blocks


def parts_of(blocks: np.ndarray, is_left: bool) -> np.ndarray:
    """Return the parts (K, part, 32, 32) in blocks."""
    items = blocks.view(np.uint32).astype(np.uint64)
    # The lower and the upper half of an item are bfloat16: the upper half of a float32.
    both = np.stack([items << 16 & 0xFFFFFFFF, items & 0xFFFF0000]).astype(np.uint32)
    both = both.view(np.float32)
    if is_left:  # (term half, K, part, half, row, item)
        return both.transpose(1, 2, 3, 4, 0, 5).reshape(*blocks.shape[:2], 32, 32)
    return both.transpose(1, 2, 0, 4, 3, 5).reshape(*blocks.shape[:2], 32, 32)

"""Test how numbers are cut into parts for the matrix unit; vectors do this on any CPU."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("numba")

from amx_blocks import cache_lines, numbers, parts_of, split
from numba import njit

from fastloss.kernels import amx, wide, wide_amx


@pytest.mark.parametrize("is_left", [True, False])
def test_three_parts_sum_to_the_number(is_left):
    array = numbers(np.random.default_rng(0), 2, 32, 32)
    parts = parts_of(split(array, 3, is_left), is_left)
    np.testing.assert_array_equal(parts.astype(np.float64).sum(axis=1), array)
    # Parts are rounded to nearest, which keeps the omitted products small.
    rest = np.abs(array - parts[:, 0])
    assert (rest <= 2.0**-8 * np.abs(array)).all()
    assert (np.abs(rest - np.abs(parts[:, 1])) <= 2.0**-8 * rest).all()


@pytest.mark.parametrize("is_left", [True, False])
def test_subnormal_numbers_stay_small(is_left):
    """Their bits must not reach the other half of an item."""
    array = numbers(np.random.default_rng(0), 2, 32, 32)
    array *= 2.0**-110
    assert (np.abs(array) < np.finfo(np.float32).tiny).any()
    parts = parts_of(split(array, 3, is_left), is_left).astype(np.float64)
    np.testing.assert_allclose(parts.sum(axis=1), array, rtol=0, atol=2.0**-133)


@pytest.mark.parametrize(("X_type", "n_parts"), [("u1", 1), ("f2", 2)])
def test_few_parts_hold_every_number_of_a_short_type(X_type, n_parts):
    kind = np.dtype(X_type)
    assert wide_amx.parts_of(kind) == n_parts
    every = np.arange(2 ** (8 * kind.itemsize)).astype(f"u{kind.itemsize}").view(kind)
    array = cache_lines((64, 32, 32))
    array.flat[:] = np.resize(every[np.isfinite(every)], array.size)
    for n, is_exact in ((n_parts, True), (n_parts - 1, False)):
        if n:
            parts = parts_of(split(array, n, True), True)
            assert np.array_equal(parts.sum(axis=1), array) == is_exact


@pytest.mark.parametrize("n_parts", [1, 2, 3])
def test_turn_blocks(n_parts):
    function = amx.turn_blocks(n_parts)

    @njit
    def call(source, goal, n):
        function(source, goal, n)

    array = numbers(np.random.default_rng(0), 3, 32, 32)
    left = split(array, n_parts, True)
    turned = np.full_like(left, 9)
    call(left.ctypes.data, turned.ctypes.data, 2)
    np.testing.assert_array_equal(turned[:2], split(array, n_parts, False)[:2])
    np.testing.assert_array_equal(turned[2], 9)


@pytest.mark.parametrize("n_lanes", [32, 19, 0])
def test_scale_strip(n_lanes):
    @njit
    def call(strip, n_rows, factors, n_lanes):
        return amx.scale_strip(strip, n_rows, factors, n_lanes)

    rng = np.random.default_rng(0)
    strip, factors = numbers(rng, 5, 32), numbers(rng, 32)
    strip[:, n_lanes:] = np.nan
    expected = strip * factors
    expected[:, n_lanes:] = 0
    expected[4] = strip[4]
    largest = call(strip.ctypes.data, 4, factors.ctypes.data, n_lanes)
    np.testing.assert_array_equal(strip, expected)
    assert largest == np.abs(expected[:4]).max().view(np.int32)


def test_numbers_in_range():
    def fits(number: float, stage: int) -> bool:
        return wide_amx.is_in_range(int(np.float32(number).view(np.int32)), stage)

    assert [fits(x, wide.SCORES) for x in (0, 2.0**-32, 1, 2.0**48)] == [True] * 4
    assert [fits(x, wide.SCORES) for x in (1e-40, 2.0**-33, 2.0**49, np.inf, np.nan)] == [False] * 5
    assert fits(2.0**-64, wide.LOSS)
    assert not fits(2.0**-65, wide.LOSS)

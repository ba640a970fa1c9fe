"""Test that blocks cover each row once, are not too large, and hold floats."""

from __future__ import annotations

import numpy as np
import pytest

from fastloss.blocks import float_blocks, row_blocks

X = np.arange(60, dtype=np.uint8).reshape(20, 3)
SINGLE = np.dtype(np.float32)


def test_row_blocks_cover_every_row_once():
    blocks = list(row_blocks(10_000, 4 * 3073))
    assert len(blocks) > 1
    rows = np.concatenate([np.arange(10_000)[block] for block in blocks])
    np.testing.assert_array_equal(rows, np.arange(10_000))


def test_row_blocks_hold_at_least_one_row():
    assert list(row_blocks(2, row_bytes=100, n_bytes=10)) == [slice(0, 1), slice(1, 2)]


@pytest.mark.parametrize("rows", [None, np.array([1, 4, 5, 6, 19])])
def test_float_blocks_are_the_rows_in_order(rows):
    chosen = X if rows is None else X[rows]
    found = np.empty(chosen.shape, SINGLE)
    for places, block in float_blocks(X, SINGLE, 1, rows=rows, n_bytes=30):
        assert block.dtype == SINGLE
        assert len(block) <= 2
        found[places] = block
    np.testing.assert_array_equal(found, chosen)


def test_float_blocks_of_many_columns_have_fewer_rows():
    sizes = [len(block) for _, block in float_blocks(X, SINGLE, 100, n_bytes=4 * 100 * 8)]
    assert sizes == [8, 8, 4]


def test_float_blocks_of_same_dtype_are_not_copied():
    floats = X.astype(SINGLE)
    assert all(np.shares_memory(block, floats) for _, block in float_blocks(floats, SINGLE, 3))

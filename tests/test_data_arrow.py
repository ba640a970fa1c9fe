"""Test Parquet, Arrow and Feather files as data sets."""

from __future__ import annotations

import re
import sys

import numpy as np
import pytest
from data_files import failure, write

from fastloss import data
from fastloss.data import DataFormatError

pa = pytest.importorskip("pyarrow")
feather = pytest.importorskip("pyarrow.feather")
parquet = pytest.importorskip("pyarrow.parquet")

N, D = 70, 5
X = np.random.default_rng(0).standard_normal((N, D)).astype(np.float32)
NAMES = np.array(["cat", "dog", "ant"])[np.arange(N) % 3]
FLAT = pa.array(X.ravel())
LISTS = {
    "fixed": pa.FixedSizeListArray.from_arrays(FLAT, D),
    "lists": pa.ListArray.from_arrays(np.arange(0, N * D + 1, D, dtype=np.int32), FLAT),
    "large": pa.LargeListArray.from_arrays(np.arange(0, N * D + 1, D), FLAT),
}
COLUMNS = {f"x{j}": X[:, j] for j in range(D)}


def save(table, path):
    """Write a table in several pieces."""
    if path.suffix == ".parquet":
        parquet.write_table(table, path, row_group_size=30)
    elif path.suffix == ".feather":
        feather.write_feather(table, path, chunksize=30)
    else:
        make = pa.ipc.new_stream if path.stem == "stream" else pa.ipc.new_file
        with pa.OSFile(str(path), "wb") as sink, make(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=30)
    return path


@pytest.mark.parametrize("name", ["t.parquet", "t.arrow", "stream.arrow", "t.feather"])
@pytest.mark.parametrize("kind", [*LISTS, "columns"])
def test_rows_and_labels(tmp_path, monkeypatch, name, kind):
    monkeypatch.setattr("fastloss.data.arrow.BATCH_ROWS", 16)
    columns = COLUMNS if kind == "columns" else {"embedding": LISTS[kind]}
    got = data.load(save(pa.table({**columns, "label": NAMES}), tmp_path / name))
    np.testing.assert_array_equal(got.X, X)
    np.testing.assert_array_equal(got.values, NAMES)
    assert got.class_names == ("ant", "cat", "dog")
    assert got.X.dtype == np.float32
    assert got.X.flags.c_contiguous


@pytest.mark.parametrize(
    ("given", "read"),
    [
        (["u1", "u1"], "u1"),
        (["f2", "f2"], "f2"),
        (["i2", "?"], "f4"),
        (["i4", "f4"], "f8"),
        (["f4", "f8"], "f8"),
    ],
)
def test_common_dtype(tmp_path, given, read):
    columns = {f"x{j}": np.arange(4).astype(kind) for j, kind in enumerate(given)}
    file = save(pa.table({**columns, "y": [0, 1, 1, 2]}), tmp_path / "t.parquet")
    got = data.load(file)
    assert got.X.dtype == np.dtype(read)
    np.testing.assert_array_equal(got.X, np.column_stack(list(columns.values())))


@pytest.mark.parametrize(
    "labels",
    [NAMES, pa.array(NAMES).dictionary_encode(), pa.array(NAMES, pa.large_string())],
    ids=["strings", "dictionary", "large_strings"],
)
def test_named_label_column(tmp_path, labels):
    table = pa.table({**COLUMNS, "kind": labels})
    file = save(table, tmp_path / "train.parquet")
    np.testing.assert_array_equal(data.load(file, labels="kind").values, NAMES)
    np.testing.assert_array_equal(data.load(tmp_path, labels="kind").X, X)
    save(table.slice(0, 3), tmp_path / "test.parquet")
    assert len(data.load(tmp_path, "test", labels="kind")) == 3
    assert "called label, labels, y, target, or --labels COLUMN; found x0" in str(
        failure(data.load, file)
    )


def test_rows_without_labels(tmp_path):
    file = save(pa.table(COLUMNS), tmp_path / "t.parquet")
    np.testing.assert_array_equal(data.load_unlabelled(file), X)
    file = save(pa.table({**COLUMNS, "y": NAMES}), tmp_path / "t.parquet")
    assert data.load_unlabelled(file) is None


def with_entry(column, row, value):
    return [*column[:row], value, *column[row + 1 :]]


uneven = with_entry(X.tolist(), 41, [1.0, 2.0])
holed = with_entry(X.tolist(), 41, [1.0, None, 2.0, 3.0, 4.0])
missing = with_entry(X[:, 0].tolist(), 41, None)
tensors = pa.FixedShapeTensorArray.from_numpy_ndarray(np.ascontiguousarray(X[:, :, None]))
not_finite = with_entry(X[:, 0].tolist(), 41, np.inf)


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        ({"x": NAMES, "y": NAMES}, "column 'x' is of type string; expected numbers, or one column"),
        ({"x": X[:, 0], "e": LISTS["fixed"], "y": NAMES}, "column 'e' is of type fixed_size_list"),
        ({"x": uneven, "y": NAMES}, "column 'x' has 2 numbers in row 41, but 5 in the rows before"),
        ({"x": holed, "y": NAMES}, "column 'x' lacks a number in row 41"),
        ({"x": missing, "y": NAMES}, "column 'x' has no value in row 41"),
        ({"x": not_finite, "y": NAMES}, "X[41, 0] is inf, expected a finite number"),
        ({"x": X[:, 0], "y": with_entry(NAMES.tolist(), 41, None)}, "y[41] is None, a missing la"),
        ({"x": X[:, 0], "y": X[:, 1]}, "y has dtype float32; expected integers that fit int64"),
        (
            {"x": X[:, 0], "y": NAMES, "label": NAMES},
            "has the columns label, y: choose one with --labels",
        ),
        ({"y": NAMES}, "has no column of numbers beside the labels"),
        ({"x": tensors, "y": NAMES}, "column 'x' is of type extension<arrow.fixed_shape_tensor"),
        ({"x": X[:0, 0], "y": NAMES[:0]}, "has no rows"),
    ],
)
@pytest.mark.parametrize("batch", [16, 8192])
def test_invalid_tables_raise_in_one_line(tmp_path, monkeypatch, columns, told, batch):
    monkeypatch.setattr("fastloss.data.arrow.BATCH_ROWS", batch)
    file = save(pa.table(columns), tmp_path / "t.parquet")
    with pytest.raises(DataFormatError, match=re.escape(f"{file}: {told}")) as caught:
        data.load(file)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["t.parquet", "t.arrow", "stream.arrow", "t.feather"])
def test_damaged_files_raise(tmp_path, name):
    whole = save(pa.table({**COLUMNS, "y": NAMES}), tmp_path / name).read_bytes()
    for content in (
        b"",
        b"nonsense",
        whole[: len(whole) // 2],
        whole[:-3] if name[0] == "t" else b"",
    ):
        assert "not a complete" in str(failure(data.load, write(tmp_path / name, content)))
    with pytest.raises(DataFormatError, match="has no column 'kind' of labels; found x0"):
        data.load(write(tmp_path / name, whole), labels="kind")


@pytest.mark.parametrize("name", ["t.arrow", "stream.arrow", "t.feather"])
def test_wrong_offsets_of_lists_raise(tmp_path, name):
    """Reading beyond the file would crash the process."""
    file = save(pa.table({"x": LISTS["lists"], "y": np.arange(N) % 2}), tmp_path / name)
    offsets = np.arange(0, 20, 5, dtype=np.int32).tobytes()
    whole = file.read_bytes()
    if offsets not in whole:
        pytest.skip("the file is compressed")
    write(file, whole.replace(offsets, offsets[:12] + b"\0\0\0\x40", 1))
    assert f"not a complete {file.suffix[1:]} file (ArrowInvalid: " in str(failure(data.load, file))


def test_missing_pyarrow(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r"t\.parquet needs pyarrow: pip install '\.\[arrow\]'"):
        data.load(write(tmp_path / "t.parquet", b"PAR1"))

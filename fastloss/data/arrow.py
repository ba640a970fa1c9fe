"""Read Parquet and Arrow files through pyarrow, a batch of rows at a time, into one array."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fastloss.arrays import ROW_TYPES
from fastloss.data.dataset import Dataset, Split, listed
from fastloss.data.labelled import checked_rows, labelled
from fastloss.data.reading import existing, find
from fastloss.files import DataFormatError, StrPath, named
from fastloss.passes import Report
from fastloss.version import install_extra

#: Names of the label column that are looked for.
LABEL_COLUMNS = ("label", "labels", "y", "target")
#: Ends of file names.
SUFFIXES = (".parquet", ".arrow", ".feather")
#: Rows read at once.
BATCH_ROWS = 4096
# A cache line of float32.
_PARQUET_COLUMNS = 16


def load_arrow(
    path: StrPath,
    split: Split = "train",
    *,
    labels: str | None = None,
    require_finite: bool = True,
) -> Dataset:
    """Read a Parquet, Arrow IPC or Feather file into memory; the peak is about one copy of X.

    Parameters
    ----------
    path : str or path
        The file (``.parquet``, ``.arrow``, ``.feather``), or a folder with ``train.*`` and perhaps
        ``test.*``.
    split : {"train", "test"}
        The part of a folder to load; a single file ignores `split`.
    labels : str, optional
        The column of labels, integers or strings. Default: the one called "label", "labels", "y" or
        "target".
    require_finite : bool
        Whether NaN or infinity in X is an error.

    Returns
    -------
    Dataset
        X has the numbers of the other columns: one column of lists of equal length, or columns of
        numbers. Its dtype is the common one of the columns; integers other than uint8 become
        float32, or float64 if float32 does not hold them exactly.

    Raises
    ------
    ImportError
        pyarrow is not installed.
    FileNotFoundError
        There is no such file.
    DataFormatError
        A damaged file, no label column, a column of another type, lists of different lengths, a
        missing number, or a number of X that is not finite.
    """
    path = existing(path, split)
    file = _rows_file(path, split)
    with _readable(file) as table:
        label = _label_column(table, labels)
        if label is None:
            expected = f"a column of labels called {listed(LABEL_COLUMNS)}, or --labels COLUMN"
            raise DataFormatError(file, f"expected {expected}; found {listed(table.names)}")
        X, values = _read(table, label)
    return labelled(
        X,
        values,
        file=file,
        labels_place=file,
        name=path.name if path.is_dir() else file.stem,
        require_finite=require_finite,
    )


def load_arrow_rows(path: StrPath, split: Split) -> npt.NDArray[Any] | None:
    """Return X as `load_arrow` does, also if it is not finite; None if there are labels."""
    file = _rows_file(existing(path, split), split)
    with _readable(file) as table:
        if _label_column(table, None) is not None:
            return None
        return checked_rows(_read(table, None)[0], file, require_finite=False)


def _rows_file(path: Path, split: Split) -> Path:
    return path if path.is_file() else find(path, [f"{split}{end}" for end in SUFFIXES])[0]


@dataclass(frozen=True)
class _Table:
    """A file's columns, number of rows, and function that reads columns in batches of rows.

    ``n_together`` is the number of columns to read at once.
    """

    file: Path
    types: dict[str, Any]
    n_rows: int
    batches: Callable[[list[str]], Iterator[Any]]
    n_together: int

    @property
    def names(self) -> list[str]:
        return list(self.types)

    def fault(self, column: str, problem: str) -> DataFormatError:
        return DataFormatError(self.file, f"column {column!r} {problem}")


@contextmanager
def _readable(file: Path) -> Iterator[_Table]:
    """Open a file of any of the formats; describe the faults that pyarrow finds in the block."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError(f"{file} needs pyarrow: {install_extra('arrow')}") from error
    try:
        yield _open_parquet(file) if file.suffix == ".parquet" else _open_ipc(file)
    except DataFormatError:
        raise
    except (pyarrow.ArrowException, KeyError, OSError, ValueError) as error:
        problem = f"not a complete {file.suffix[1:]} file ({named(error)})"
        raise DataFormatError(file, problem) from error


def _open_parquet(file: Path) -> _Table:
    from pyarrow.parquet import ParquetFile

    # Mapped, because pyarrow would read a group of rows into memory besides its numbers.
    parquet = ParquetFile(file, memory_map=True)
    schema = parquet.schema_arrow
    types = dict(zip(schema.names, schema.types, strict=True))
    n_rows = parquet.metadata.num_rows

    def batches(names: list[str]) -> Iterator[Any]:
        return parquet.iter_batches(BATCH_ROWS, columns=names)

    # All columns at once would need a buffer for each of them.
    return _Table(file, types, n_rows, batches, _PARQUET_COLUMNS)


def _open_ipc(file: Path) -> _Table:
    schema, batches = _ipc_batches(file)
    types = dict(zip(schema.names, schema.types, strict=True))
    n_rows = sum(batch.num_rows for batch in batches)
    # Batches are mapped with all columns; choosing some would copy them.
    return _Table(file, types, n_rows, lambda names: _ipc_batches(file)[1], len(types))


def _ipc_batches(file: Path) -> tuple[Any, Iterator[Any]]:
    """Return the schema and the batches of an Arrow file, or of a stream in a file."""
    import pyarrow

    source, ipc = pyarrow.memory_map(str(file)), pyarrow.ipc
    is_file = source.read(6) == b"ARROW1"
    source.seek(0)
    if not is_file:
        stream = ipc.open_stream(source)
        return stream.schema, map(_valid, stream)
    reader = ipc.open_file(source)
    batches = map(reader.get_batch, range(reader.num_record_batches))
    return reader.schema, map(_valid, batches)


def _valid(batch: Any) -> Any:
    """Return a batch; raise if it is damaged, because wrong offsets would crash pyarrow."""
    batch.validate(full=True)
    return batch


def _label_column(table: _Table, name: str | None) -> str | None:
    """Return the column of labels; None if no name was given and none is usual."""
    if name is not None:
        if name not in table.names:
            problem = f"has no column {name!r} of labels; found {listed(table.names)}"
            raise DataFormatError(table.file, problem)
        return name
    found = [column for column in LABEL_COLUMNS if column in table.names]
    if len(found) > 1:
        problem = f"has the columns {listed(found)}: choose one with --labels COLUMN"
        raise DataFormatError(table.file, problem)
    return found[0] if found else None


def _read(table: _Table, label: str | None) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Return X, and the labels, which are empty without a column of them."""
    names = [name for name in table.names if name != label]
    is_list = _are_lists(table, names)
    if table.n_rows == 0:
        raise DataFormatError(table.file, "has no rows")
    values = [np.empty(0)]
    if label is not None:
        values = [_values(batch.column(label)) for batch in table.batches([label])]
    X: npt.NDArray[Any] | None = None
    report = Report()
    for first in range(0, len(names), table.n_together):
        group, start = names[first : first + table.n_together], 0
        for batch in filter(len, table.batches(group)):
            columns = [_numbers(table, name, batch.column(name), start, is_list) for name in group]
            if X is None:
                n_columns = columns[0].shape[1] if is_list else len(names)
                X = np.empty((table.n_rows, n_columns), _dtype(table, names))
            block = X[start : start + batch.num_rows]
            if is_list and columns[0].shape[1] != X.shape[1]:
                raise table.fault(group[0], _lengths(start, columns[0].shape[1], X.shape[1]))
            for j, numbers in enumerate(columns, first):
                block[:, slice(None) if is_list else j] = numbers
            start += batch.num_rows
            report((first + len(group) * start / table.n_rows) / len(names))
    assert X is not None
    return X, np.concatenate(values)


def _are_lists(table: _Table, names: list[str]) -> bool:
    """Return whether X is one column of lists; raise unless it is that or columns of numbers."""
    import pyarrow.types as kinds

    def is_number(kind: Any) -> bool:
        return kinds.is_integer(kind) or kinds.is_floating(kind) or kinds.is_boolean(kind)

    kind = table.types[names[0]] if len(names) == 1 else None
    # Dictionaries, tensors and run ends have a value type too, but only lists have a value field.
    if kind is not None and hasattr(kind, "value_field") and is_number(kind.value_type):
        return True
    for name in names:
        if not is_number(table.types[name]):
            found = f"is of type {table.types[name]}"
            expected = "expected numbers, or one column of lists of numbers beside the labels"
            raise table.fault(name, f"{found}; {expected}")
    if not names:
        raise DataFormatError(table.file, "has no column of numbers beside the labels")
    return False


def _dtype(table: _Table, names: list[str]) -> np.dtype[Any]:
    """Return the dtype of X: the common one, or a float type that holds its integers."""
    kinds = [getattr(table.types[name], "value_type", table.types[name]) for name in names]
    dtype = np.result_type(*(np.dtype(kind.to_pandas_dtype()) for kind in kinds))
    if dtype in ROW_TYPES:
        return dtype
    return np.dtype(np.float32 if np.can_cast(dtype, np.float32) else np.float64)


def _numbers(table: _Table, name: str, column: Any, start: int, is_list: bool) -> npt.NDArray[Any]:
    """Return a column of a batch that begins at row ``start``: (n,), or lists (n, D)."""
    if column.null_count:
        row = start + int(column.is_null().to_numpy(zero_copy_only=False).argmax())
        raise table.fault(name, f"has no value in row {row}")
    if not is_list:
        return column.to_numpy(zero_copy_only=False)
    n = len(column)
    numbers = column.flatten()
    if hasattr(column, "value_lengths"):
        lengths = column.value_lengths().to_numpy(zero_copy_only=False)
        bad = np.flatnonzero(lengths != lengths[0])
        if bad.size:
            raise table.fault(name, _lengths(start + bad[0], lengths[bad[0]], lengths[0]))
    if numbers.null_count:
        place = int(numbers.is_null().to_numpy(zero_copy_only=False).argmax())
        raise table.fault(name, f"lacks a number in row {start + place * n // len(numbers)}")
    return numbers.to_numpy(zero_copy_only=False).reshape(n, len(numbers) // n)


def _lengths(row: int, found: int, expected: int) -> str:
    return f"has {found} numbers in row {row}, but {expected} in the rows before it"


def _values(column: Any) -> npt.NDArray[Any]:
    """Return the labels of a batch; missing ones are None or NaN."""
    column = column.dictionary_decode() if hasattr(column, "dictionary_decode") else column
    return column.to_numpy(zero_copy_only=False)

"""A folder of numbered parts, ``X-*.npy`` with ``y-*.npy``, whose rows workers map into memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastloss.advice import renumbered
from fastloss.arrays import ROW_TYPE_NAMES, ROW_TYPES, flat_column
from fastloss.data.dataset import Dataset
from fastloss.data.labelled import check_one_label_a_row, labelled
from fastloss.data.npy import map_npy
from fastloss.data.reading import existing
from fastloss.files import DataFormatError, StrPath

#: Names of the files of rows.
PARTS = "X-*.npy"


@dataclass(frozen=True)
class Piece:
    """Rows ``start`` to ``stop`` of a part."""

    X_file: Path
    y_file: Path
    start: int
    stop: int

    def load(self, *, require_finite: bool = True) -> Dataset:
        """Map the rows into memory, and read their labels.

        Raises
        ------
        OSError, DataFormatError : as for `data.load_npy`; rows are numbered within the part.
        """
        rows = slice(self.start, self.stop)
        try:
            return labelled(
                map_npy(self.X_file)[rows],
                np.array(map_npy(self.y_file)[rows]),
                file=self.X_file,
                labels_place=self.y_file,
                name=self.X_file.name,
                require_finite=require_finite,
            )
        except DataFormatError as error:
            raise DataFormatError(error.place, renumbered(error.problem, self.start)) from None


@dataclass(frozen=True)
class Parts:
    """The parts of a folder in the order of their names; their rows are numbered one after another.

    Attributes
    ----------
    files : the files of X and y of each part.
    lengths : the rows of each part.
    shape : the shape of a row.
    """

    folder: Path
    files: tuple[tuple[Path, Path], ...]
    lengths: tuple[int, ...]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @classmethod
    def of(cls, folder: StrPath) -> Parts:
        """Find the parts and read the headers of their files.

        Raises
        ------
        FileNotFoundError : there is no such folder, or no part in it.
        DataFormatError : a part without labels, a damaged file, or parts that do not fit together.
        """
        folder = existing(folder).absolute()  # workers may have another current folder
        X_files = sorted(folder.glob(PARTS))
        if not X_files:
            raise FileNotFoundError(f"{folder}: expected parts named {PARTS} with y-*.npy")
        files = tuple((file, file.with_name(f"y{file.name[1:]}")) for file in X_files)
        headers = [_headers(*pair) for pair in files]
        shape, dtype = headers[0].shape[1:], headers[0].dtype
        for file, X in zip(X_files, headers, strict=True):
            if (X.shape[1:], X.dtype) != (shape, dtype):
                raise DataFormatError(
                    file,
                    f"X has rows of shape {X.shape[1:]} and {X.dtype}, but {shape} and {dtype} in "
                    f"{X_files[0].name}",
                )
        return cls(folder, files, tuple(len(X) for X in headers), shape, dtype)

    def __len__(self) -> int:
        return sum(self.lengths)

    @property
    def n_features(self) -> int:
        """Return D."""
        return int(np.prod(self.shape))

    def pieces(self, n_rows: int) -> list[Piece]:
        """Cut each part into pieces of at most ``n_rows`` rows, of almost equal size."""
        return [
            Piece(*pair, int(start), int(stop))
            for pair, length in zip(self.files, self.lengths, strict=True)
            for start, stop in _cut(length, n_rows)
        ]

    def sample(self, n_rows: int) -> NDArray[Any]:
        """Return about ``n_rows`` evenly spread rows (K, D)."""
        step = max(1, len(self) // n_rows)
        rows = [map_npy(file)[::step].reshape(-1, self.n_features) for file, _ in self.files]
        return np.concatenate(rows)


def _headers(X_file: Path, y_file: Path) -> NDArray[Any]:
    """Return the mapped X of a part; raise unless y has as many rows."""
    X = map_npy(X_file)
    if X.dtype not in ROW_TYPES:
        raise DataFormatError(X_file, f"X has dtype {X.dtype}; expected {ROW_TYPE_NAMES}")
    if X.ndim < 2 or X.size == 0:
        raise DataFormatError(X_file, f"X has shape {X.shape}; expected (N, D, ...), not empty")
    if not y_file.is_file():
        raise DataFormatError(X_file, f"has no labels: expected {y_file.name} beside it")
    check_one_label_a_row(flat_column(map_npy(y_file)), len(X), X_file, y_file)
    return X


def _cut(length: int, n_rows: int) -> Iterator[tuple[int, int]]:
    n_pieces = -(-length // n_rows)
    edges = np.arange(n_pieces + 1) * length // n_pieces
    return zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)

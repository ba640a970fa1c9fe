"""Find files, read their bytes and describe their faults, for all readers."""

from __future__ import annotations

import gzip
import io
import reprlib
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from fastloss.data.dataset import Bytes, first_bad_label, listed
from fastloss.files import DataFormatError, StrPath, named


def existing(path: StrPath, split: str = "train") -> Path:
    """Return `path`; raise unless it exists and `split` is known."""
    if split not in ("train", "test"):
        raise ValueError(f"split = {split!r} is not one of 'train', 'test'")
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder")
    return path


def find(folder: Path, patterns: Iterable[str]) -> list[Path]:
    """Return the sorted files of the first pattern that matches any."""
    for pattern in patterns:
        if files := sorted(file for file in folder.glob(pattern) if file.is_file()):
            return files
    names = sorted(entry.name for entry in folder.iterdir())
    found = listed(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
    raise FileNotFoundError(f"{folder}: looked for {listed(patterns)}; found {found}")


def read_bytes(path: Path) -> tuple[str, Bytes]:
    """Return a name for messages, and a file's bytes, decompressed if gzipped; raise if empty."""
    place, raw = str(path), np.fromfile(path, np.uint8)
    if raw[:2].tobytes() == b"\x1f\x8b":
        place, raw = f"{path} (decompressed)", _decompress(path, raw)
    if raw.size == 0:
        raise DataFormatError(place, "empty file", 0)
    return place, raw


def _decompress(path: Path, raw: Bytes) -> Bytes:
    content = bytearray()
    try:
        with gzip.open(io.BytesIO(raw.data)) as stream:
            # Small pieces, because the count of good bytes is exact to one piece.
            while piece := stream.read1(8192):
                content += piece
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        problem = f"truncated or corrupt gzip stream, {len(content)} bytes could be decompressed"
        raise DataFormatError(path, f"{problem} ({named(error)})") from error
    return np.frombuffer(content, np.uint8)


def check_label_bytes(place: str, labels: Bytes, *, first: int, step: int) -> None:
    bad = first_bad_label(labels, 10)
    if bad is not None:
        raise DataFormatError(place, f"label {labels[bad]} is not in [0, 10)", first + step * bad)


def brief(value: object) -> str:
    try:
        return reprlib.repr(value)
    except ValueError:  # an integer too long for Python to print
        return type(value).__name__

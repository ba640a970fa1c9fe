"""Read arrays from a pickle without running anything that it names.

A pickle is a program. An array needs few globals, but a hostile file can call even these with
arguments of its choice: object dtypes, `__setstate__` with invented sizes, attributes set on a
shared function. The reader therefore replaces each global with a `_Recorded`, which notes its
arguments. The array is built from the notes after they have been checked.
"""

from __future__ import annotations

import io
import pickle
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fastloss.data.dataset import Bytes, Labels, listed
from fastloss.data.reading import brief, read_bytes
from fastloss.files import DataFormatError, named

_ARRAY_GLOBALS = {
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),  # since NumPy 2
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),  # bytes that Python 3 wrote for Python 2
}


@dataclass(eq=False)
class _Recorded:
    """A stand-in for a global of a pickle, or for the result of calling it; it runs nothing."""

    name: str
    args: tuple[object, ...] = ()
    state: object = None

    def __call__(self, *args: object) -> object:
        match self.name, args:
            case "_codecs.encode", (str(text), "latin1"):
                return text.encode("latin1")
        return _Recorded(self.name, args)

    def __setstate__(self, state: object) -> None:
        self.state = state


class _ArrayUnpickler(pickle.Unpickler):
    """An unpickler of plain containers and recorded arrays, which refuses every other global."""

    def __init__(self, path: Path) -> None:
        self.place, raw = read_bytes(path)
        # Not the file itself: the unpickler reads files ahead, and `tell` would be wrong.
        self.stream = io.BytesIO(raw.data)
        super().__init__(self.stream, encoding="bytes")

    def find_class(self, module: str, name: str, /) -> _Recorded:
        if (module, name) not in _ARRAY_GLOBALS:
            raise DataFormatError(
                self.place,
                f"refused the global {module}.{name}, asked for just before this byte: "
                "expected a pickle of arrays and plain containers only",
                self.stream.tell(),
            )
        return _Recorded(f"{module}.{name}")


def read_pickled_dict(path: Path, *keys: bytes) -> dict[object, object]:
    """Return the dict pickled in a file; raise DataFormatError unless it has all `keys`."""
    unpickler = _ArrayUnpickler(path)
    try:
        content = unpickler.load()
    except DataFormatError:
        raise
    except Exception as error:  # Python's manual: a damaged pickle may raise anything
        problem = f"not a complete pickle, reading stopped here ({named(error)})"
        raise DataFormatError(unpickler.place, problem, unpickler.stream.tell()) from error
    if isinstance(content, dict) and content.keys() >= set(keys):
        return content
    found = list(content) if isinstance(content, dict) else content
    raise DataFormatError(
        path, f"expected a pickled dict with {listed(keys)}, found {brief(found)}"
    )


def pickled_pixels(path: Path, array: object, width: int) -> Bytes:
    """Return the uint8 array (n, width) in a `_Recorded`; raise unless its bytes fit the shape."""
    match array:
        case _Recorded(
            state=(_, (int(n), int(d)), _Recorded(args=("u1" | b"u1", *_)), fortran, bytes(raw))
        ) if d == width and len(raw) == n * d > 0:
            pixels = np.frombuffer(raw, np.uint8)
            return np.ascontiguousarray(pixels.reshape((n, d), order="F" if fortran else "C"))
        case _Recorded(state=(_, shape, _Recorded(args=(code, *_)), _, bytes() | list() as raw)):
            found = f"dtype {brief(code)}, shape {brief(shape)} and {len(raw)} bytes or items"
        case _:
            found = type(array).__name__
    raise DataFormatError(
        path, f"b'data': expected a uint8 array of shape (n, {width}), found {found}"
    )


def pickled_labels(path: Path, labels: object, n: int) -> Labels:
    if not isinstance(labels, list) or len(labels) != n:
        found = f"{len(labels)} items" if isinstance(labels, list) else type(labels).__name__
        raise DataFormatError(path, f"b'labels': expected a list of {n}, one a row, found {found}")
    for i, label in enumerate(labels):
        if type(label) is not int or not 0 <= label < 10:
            raise DataFormatError(
                path, f"b'labels'[{i}] = {brief(label)} is not an integer in [0, 10)"
            )
    return np.array(labels, np.int64)

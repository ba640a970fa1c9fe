"""Read arrays from a pickle without running anything that it names.

A pickle is a program. Few globals are needed to rebuild an array, but even those are code that
a hostile file can feed as it likes: object dtypes, `__setstate__` with invented sizes, attributes
set on a shared function. So not one is handed out. Each is replaced with a `_Recorded`, which
notes what it is called with; the array is made from the notes once they have been checked.
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
    ("_codecs", "encode"),  # how Python 3 writes bytes for Python 2
}


@dataclass(eq=False)
class _Recorded:
    """Stands for a global of a pickle, or for what calling it would have made; runs nothing."""

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
    """Reads plain containers and recorded arrays; refuses every other global."""

    def __init__(self, path: Path) -> None:
        self.place, raw = read_bytes(path)
        # Not the file itself, which the unpickler would read ahead, past what `tell` should say.
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
    """The dict pickled in a file, which must have `keys`."""
    unpickler = _ArrayUnpickler(path)
    try:
        content = unpickler.load()
    except DataFormatError:
        raise
    except Exception as error:  # a damaged pickle may raise anything, says the manual
        problem = f"not a complete pickle, reading stopped here ({named(error)})"
        raise DataFormatError(unpickler.place, problem, unpickler.stream.tell()) from error
    if isinstance(content, dict) and content.keys() >= set(keys):
        return content
    found = list(content) if isinstance(content, dict) else content
    raise DataFormatError(
        path, f"expected a pickled dict with {listed(keys)}, found {brief(found)}"
    )


def pickled_pixels(path: Path, array: object, width: int) -> Bytes:
    """The (n, width) array in a `_Recorded`: uint8 only, with as many bytes as its shape says."""
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

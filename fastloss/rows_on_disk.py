"""Rows of memory-mapped files: what counts as large, reading ahead, and rows made when indexed.

The system reads the pages of a mapped file when they are used, and drops them when memory is short.
So rows larger than memory need no code of their own, as long as nothing copies all of them.
"""

from __future__ import annotations

import math
import mmap
import os
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

#: Mapped rows are large if their float copy takes more than this share of the memory.
LARGE_SHARE = 0.25
_UNKNOWN_MEMORY = 8 * 2**30
CONTAINER_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


class Transform(Protocol):
    """A function of each row, such as a `Preprocessing`."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Return the dtype of the results."""

    def apply(self, X: NDArray[Any], out: NDArray[Any] | None = None) -> NDArray[Any]:
        """Return the function of the rows ``X``, in ``out`` if given."""


@dataclass(frozen=True, eq=False)
class LazyRows:
    """Rows (N, D) that stand for an array, and are read when they are indexed.

    Attributes
    ----------
    source : the array, usually memory-mapped.
    numbers : rows of ``source``, ascending; None: all.
    transform : function of the rows, or None.
    """

    source: NDArray[Any]
    numbers: NDArray[np.int64] | None = None
    transform: Transform | None = None

    ndim = 2

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.source.dtype if self.transform is None else self.transform.dtype

    @property
    def shape(self) -> tuple[int, int]:
        return len(self), self.source.shape[1]

    @property
    def strides(self) -> tuple[int, int]:
        """Return the strides of the rows after they are read."""
        return self.shape[1] * self.dtype.itemsize, self.dtype.itemsize

    def __len__(self) -> int:
        return len(self.source if self.numbers is None else self.numbers)

    def __getitem__(self, rows: Any) -> NDArray[Any]:
        found: NDArray[Any] = self.source[rows if self.numbers is None else self.numbers[rows]]
        return found if self.transform is None else self.transform.apply(found)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return self[:].astype(dtype or self.dtype, copy=False)


def lazy_rows(X: NDArray[Any], transform: Transform) -> NDArray[Any]:
    """Return the ``transform`` of rows as a `LazyRows`, typed as the array that it stands for."""
    rows = X if isinstance(X, LazyRows) else LazyRows(X)
    return cast("NDArray[Any]", replace(rows, transform=transform))


def select(X: NDArray[Any], rows: slice | NDArray[np.int64]) -> NDArray[Any]:
    """Return some rows: a view for a slice, a copy for ascending numbers, or lazy rows if large."""
    if mapped_file(X) is None or (isinstance(rows, slice) and not isinstance(X, LazyRows)):
        return X[rows]
    lazy = X if isinstance(X, LazyRows) else LazyRows(X)
    numbers = np.arange(len(lazy.source)) if lazy.numbers is None else lazy.numbers
    chosen = cast("NDArray[Any]", replace(lazy, numbers=numbers[rows]))
    return chosen if is_large(chosen) else X[rows]


def copy_rows(
    X: NDArray[Any], rows: slice | NDArray[np.int64] | NDArray[np.intp], out: NDArray[Any]
) -> None:
    """Copy rows, numbers in range or a slice, to ``out``."""
    if isinstance(X, LazyRows) and X.transform is not None:
        X.transform.apply(replace(X, transform=None)[rows], out)
    elif isinstance(X, LazyRows) or isinstance(rows, slice):
        out[...] = X[rows]
    else:
        # The rows are in range; a mode that checks them would make NumPy buffer its output.
        np.take(X, rows, axis=0, out=out, mode="clip")


def mapped_file(X: Any) -> np.memmap[Any, Any] | None:
    """Return the memory-mapped array that ``X`` views, or None."""
    X = X.source if isinstance(X, LazyRows) else X
    while isinstance(X, np.ndarray) and not isinstance(X, np.memmap):
        X = X.base
    # Copies of a memmap have its type, but no file.
    return X if getattr(X, "_mmap", None) is not None else None


def is_large(X: NDArray[Any]) -> bool:
    """Return whether rows are memory-mapped, and their float copy takes a quarter of the memory."""
    if mapped_file(X) is None:
        return False
    return math.prod(X.shape) * max(4, X.dtype.itemsize) > LARGE_SHARE * memory_bytes()


def memory_bytes() -> int:
    """Return the bytes of memory that this process may use.

    They are the least of the machine's memory, the limit of the container, and ``ulimit -d`` and
    ``-v``. The number does not depend on other programs, so that a run can be repeated.
    """
    limits = []
    with suppress(OSError, ValueError, AttributeError):  # Windows has no sysconf
        limits.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for file in CONTAINER_LIMITS:
        with suppress(OSError, ValueError):  # "max" is no number: no limit
            limits.append(int(file.read_text()))
    if resource is not None:
        soft = [resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_DATA, resource.RLIMIT_AS)]
        limits += [limit for limit in soft if limit != resource.RLIM_INFINITY]
    return min(limits, default=_UNKNOWN_MEMORY)


def read_ahead(X: NDArray[Any], start: int, stop: int) -> None:
    """Ask the system to read rows from ``start`` to ``stop`` in the background, if it can."""
    stop = min(stop, len(X))
    file = mapped_file(X)
    if file is None or start >= stop or not hasattr(mmap, "MADV_WILLNEED"):
        return
    source = X
    if isinstance(X, LazyRows):
        source = X.source
        if X.numbers is not None:
            start, stop = int(X.numbers[start]), int(X.numbers[stop - 1]) + 1
    part, memory = source[start:stop], file._mmap  # type: ignore[attr-defined]
    if not part.flags.c_contiguous:
        return
    begin = part.ctypes.data - np.frombuffer(memory, np.uint8).ctypes.data
    page = begin - begin % mmap.PAGESIZE
    with suppress(OSError, ValueError):  # only advice
        memory.madvise(mmap.MADV_WILLNEED, page, begin - page + part.nbytes)

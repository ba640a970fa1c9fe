"""Write files whole or not at all, and read ``.npz`` archives that may be damaged."""

from __future__ import annotations

import errno
import math
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from os import PathLike
from pathlib import Path
from typing import IO, Any, TypeAlias
from zipfile import ZipFile

import numpy as np
from numpy.typing import NDArray

StrPath: TypeAlias = str | PathLike[str]

_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


class DataFormatError(ValueError):
    """A file that is truncated, damaged or of another format.

    The message reads ``file, byte offset: problem``. The offset counts decompressed bytes where
    the message says so; it is None where no single byte is to blame.
    """

    def __init__(self, place: StrPath, problem: str, offset: int | None = None) -> None:
        super().__init__(place, problem, offset)  # all three, so that the error can be pickled
        self.place, self.problem, self.offset = place, problem, offset

    def __str__(self) -> str:
        where = "" if self.offset is None else f", byte {self.offset}"
        return f"{self.place}{where}: {self.problem}"


@contextmanager
def written_whole(path: StrPath) -> Iterator[IO[bytes]]:
    """Open a binary stream to ``path``, which changes only when the block ends without an error.

    The stream writes to a draft in the same folder, which then replaces the file and takes over
    its permissions. Of a symbolic link, the target is replaced. A device or a pipe is written to
    directly, once the block has ended. Missing folders are made.

    Raises
    ------
    OSError : the file cannot be written; the message names ``path``.
    """
    old = _status(path)
    if old is not None and not stat.S_ISREG(old.st_mode):
        with open(path, "wb") as special:
            # In memory first: archives need a stream that can seek.
            content = BytesIO()
            yield content
            special.write(content.getvalue())
        return
    with _clear_errors(path):
        target, draft, stream = _open_draft(path)
    try:
        with stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        if old is not None:
            draft.chmod(stat.S_IMODE(old.st_mode))
        os.replace(draft, target)
    except BaseException:
        with suppress(OSError):
            draft.unlink()
        raise


def write(path: StrPath, content: str | bytes) -> None:
    """Write ``content`` (text as UTF-8) to ``path``, as `written_whole` does."""
    with written_whole(path) as stream:
        stream.write(content.encode() if isinstance(content, str) else content)


def check_writable(path: StrPath) -> None:
    """Raise OSError unless `written_whole` could write ``path`` now. Makes missing folders."""
    with _clear_errors(path):
        old = _status(path)
        if old is None or stat.S_ISREG(old.st_mode):
            _, draft, stream = _open_draft(path)
            stream.close()
            draft.unlink()
        elif stat.S_ISDIR(old.st_mode):
            raise IsADirectoryError(errno.EISDIR, "it is a folder")
        elif not os.access(path, os.W_OK):  # to open a pipe would wait for its reader
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def _status(path: StrPath) -> os.stat_result | None:
    """Return the status of the file that ``path`` leads to; None if there is none."""
    with suppress(FileNotFoundError, NotADirectoryError):
        return os.stat(path)
    return None


def _open_draft(path: StrPath) -> tuple[Path, Path, IO[bytes]]:
    """Return the file that ``path`` leads to, the draft beside it, and a stream to the draft."""
    target = Path(os.path.realpath(path))
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f".fastloss-{os.urandom(8).hex()}.part")
    return target, draft, draft.open("xb")


@contextmanager
def _clear_errors(path: StrPath) -> Iterator[None]:
    """Name ``path`` in an OSError, instead of its draft."""
    try:
        yield
    except OSError as error:
        # OSError makes itself the subclass that belongs to the number.
        raise OSError(error.errno, f"cannot write: {error.strerror}", os.fspath(path)) from error


def read_archive(
    path: StrPath, choose: Callable[[list[str]], Iterable[str]] = list
) -> dict[str, NDArray[Any]]:
    """Read arrays of an ``.npz`` archive, by name; nothing in it is ever run.

    ``choose`` returns the names to read, out of all the names in the archive.

    Raises
    ------
    OSError : the file cannot be opened.
    DataFormatError : it is no archive, it is truncated or damaged, or holds Python objects.
    """
    # Opened here: NumPy leaves a damaged file open.
    with open(path, "rb") as stream:
        start = stream.read(4)
        if not start.startswith(b"PK"):
            found = f"it starts with {start!r}" if start else "an empty file"
            raise DataFormatError(path, f"expected an .npz (zip) archive, found {found}", 0)
        stream.seek(0)
        try:
            with np.load(stream, allow_pickle=False) as archive:
                names = list(choose(archive.files))
                for name in names:
                    _check_size(archive.zip, f"{name}.npy")
                return {name: np.asarray(archive[name]) for name in names}
        except DataFormatError:
            raise
        except Exception as error:  # from zipfile, zlib, ast or NumPy, of a dozen types
            problem = f"not a complete .npz archive of plain arrays ({named(error)})"
            raise DataFormatError(path, problem) from error


def _check_size(archive: ZipFile, name: str) -> None:
    """Raise if the header of an array promises more bytes than there are, before they are wanted.

    NumPy makes room for what the header says. What is no array is left for it to refuse.
    """
    if name not in archive.namelist():
        return
    size = archive.getinfo(name).file_size
    with archive.open(name) as stream:
        version = np.lib.format.read_magic(stream)
        if version not in _HEADERS:
            return
        shape, _, dtype = _HEADERS[version](stream)
    if not dtype.hasobject and math.prod(shape) * dtype.itemsize > size:
        raise ValueError(f"{name} has {size} bytes, but its header gives the shape {shape}")


def named(error: Exception) -> str:
    """Return the type of an error and the first line of its message."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"

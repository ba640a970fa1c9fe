"""Write files whole or not at all, and read ``.npz`` archives that may be damaged."""

from __future__ import annotations

import errno
import math
import os
import signal
import stat
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
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
    """Error of a file that is truncated, damaged or of another format.

    The message reads ``file, byte offset: problem``. The offset counts decompressed bytes if the
    message says so. It is None if no single byte is at fault.
    """

    def __init__(self, place: StrPath, problem: str, offset: int | None = None) -> None:
        super().__init__(place, problem, offset)  # all three, for pickle
        self.place, self.problem, self.offset = place, problem, offset

    def __str__(self) -> str:
        where = "" if self.offset is None else f", byte {self.offset}"
        return f"{self.place}{where}: {self.problem}"


@contextmanager
def written_whole(path: StrPath) -> Iterator[IO[bytes]]:
    """Open a binary stream to ``path``, which changes only if the block ends without an error.

    The stream writes to a draft in the same folder. The draft then replaces the file and takes over
    its permissions. For a symbolic link, the draft replaces the target. A device, a pipe or an open
    stream (``/dev/stdout``) is written to directly, when the block ends. Missing folders are made.
    A first Ctrl-C waits until the file is written; a second one does not.

    Raises
    ------
    OSError : the file cannot be written; the message names ``path``.
    """
    old = _status(path)
    if _is_special(path, old):
        with _open_special(path) as special:
            # Write to memory first, because archives need a stream that can seek.
            content = BytesIO()
            yield content
            special.write(content.getvalue())
        return
    with late_interrupts():
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
        except BaseException as error:
            with suppress(OSError):
                draft.unlink()
            # zipfile raises another error when it closes the incomplete archive.
            if isinstance(error.__context__, KeyboardInterrupt):
                raise error.__context__ from None
            raise


def write(path: StrPath, content: str | bytes) -> None:
    """Write ``content`` (text as UTF-8) to ``path`` through `written_whole`."""
    with written_whole(path) as stream:
        stream.write(content.encode() if isinstance(content, str) else content)


def write_all(contents: Mapping[Path, str], *, overwrite: bool = False) -> None:
    """Write texts to their paths; write none if one would replace another file.

    Raises
    ------
    FileExistsError : a path is a file of another content, and ``overwrite`` is False.
    OSError : a file cannot be read or written.
    """
    for path, content in contents.items():
        status = _status(path)
        if overwrite or status is None or not stat.S_ISREG(status.st_mode):
            continue
        if path.read_bytes() != content.encode():
            raise FileExistsError(
                errno.EEXIST,
                "the file was edited, or written by another version, and is kept; name another "
                "one, or replace it with --overwrite",
                os.fspath(path),
            )
    for path, content in contents.items():
        write(path, content)


def check_writable(path: StrPath) -> None:
    """Raise OSError unless `written_whole` could write ``path`` now; make missing folders."""
    with _clear_errors(path):
        old = _status(path)
        if not _is_special(path, old):
            _, draft, stream = _open_draft(path)
            stream.close()
            draft.unlink()
        elif old is not None and stat.S_ISDIR(old.st_mode):
            raise IsADirectoryError(errno.EISDIR, "it is a folder")
        elif not os.access(path, os.W_OK):  # opening a pipe would wait for its reader
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


Named: TypeAlias = Iterable[tuple[str, StrPath]]


def check_outputs(outputs: Named, inputs: Named) -> None:
    """Raise unless each output can be written, and is the file of no other output or input.

    Each path comes with a name for messages, such as an option. Files are compared, not paths:
    links, hard links, relative paths and different cases can name the same file, even one that does
    not exist yet. Several outputs may share a device or a pipe. Missing folders are made.

    Raises
    ------
    OSError : an output cannot be written.
    ValueError : an output would overwrite another output, an input, or the file of standard output
        or standard error.
    """
    taken = {_identity(path): f"{name} {path}" for name, path in inputs}
    for name, stream in (("output", sys.stdout), ("error", sys.stderr)):
        with suppress(OSError, ValueError):  # closed, or not a file
            taken[_file_number(os.fstat(stream.fileno()))] = f"standard {name}"
    for name, path in outputs:
        check_writable(path)
        if _is_special(path, _status(path)):
            continue
        identity = _identity(path)
        if identity in taken:
            raise ValueError(
                f"{name} {path} and {taken[identity]} are the same file; name another one"
            )
        taken[identity] = f"{name} {path}"


def check_archive(path: StrPath, key: str) -> bool:
    """Return whether ``path`` is an ``.npz`` archive with ``key``.

    Raises
    ------
    FileExistsError : it is an archive of another kind, without ``key``.
    """
    found: list[str] = []

    def note(names: list[str]) -> tuple[()]:
        found.extend(names)
        return ()

    if not _is_special(path, _status(path)):
        with suppress(FileNotFoundError, DataFormatError):
            read_archive(path, note)
    if found and key not in found:
        raise FileExistsError(
            errno.EEXIST,
            f"another archive is there, of {', '.join(found)}; delete it first",
            os.fspath(path),
        )
    return bool(found)


def _identity(path: StrPath) -> tuple[int, int] | tuple[int, int, str] | str:
    """Return a key that all names of a file share, whether or not the file exists."""
    status = _status(path)
    if status is not None:
        return _file_number(status)
    target = os.path.realpath(path)
    folder, name = os.path.split(target)
    status = _status(folder)
    if status is None:
        return os.path.normcase(target)
    # If the folder can be named in another case, so can the files in it.
    other = folder.swapcase()
    has_no_cases = other != folder and os.path.exists(other) and os.path.samefile(folder, other)
    return *_file_number(status), name.casefold() if has_no_cases else name


def _file_number(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _is_special(path: StrPath, status: os.stat_result | None) -> bool:
    """Return whether to write to ``path`` directly: a device, a pipe or an open stream."""
    if status is None:
        return False
    return not stat.S_ISREG(status.st_mode) or _descriptor(path) is not None


def _descriptor(path: StrPath) -> int | None:
    """Return the number of the open file that ``path`` names, as ``/dev/stdout`` does."""
    place = os.path.abspath(path)
    for _ in range(40):  # links, as many as Linux follows
        folder, name = os.path.split(place)
        if os.path.realpath(folder) in ("/dev/fd", f"/proc/{os.getpid()}/fd"):
            return int(name)
        if not os.path.islink(place):
            break
        place = os.path.join(folder, os.readlink(place))
    return None


def _open_special(path: StrPath) -> IO[bytes]:
    descriptor = _descriptor(path)
    if descriptor is None:
        return open(path, "wb")
    # Opening the file by its name would start again from its first byte.
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    return open(os.dup(descriptor), "wb")


@contextmanager
def late_interrupts() -> Iterator[None]:
    """Delay a first Ctrl-C to the end of the block, but not a second; only in the main thread."""
    handler = signal.getsignal(signal.SIGINT)
    if not callable(handler) or threading.current_thread() is not threading.main_thread():
        yield
        return
    waiting: list[Any] = []

    def wait(*arguments: Any) -> None:
        if waiting:
            handler(*arguments)
        waiting.append(arguments)

    signal.signal(signal.SIGINT, wait)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
    if waiting:
        handler(*waiting[0])


def _status(path: StrPath) -> os.stat_result | None:
    """Return the status of the file at ``path``, after links; None if there is none."""
    with suppress(FileNotFoundError, NotADirectoryError):
        return os.stat(path)
    return None


def _open_draft(path: StrPath) -> tuple[Path, Path, IO[bytes]]:
    """Return the file at ``path``, after links, a draft beside it, and a stream to the draft."""
    target = Path(os.path.realpath(path))
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f".fastloss-{os.urandom(8).hex()}.part")
    return target, draft, draft.open("xb")


@contextmanager
def _clear_errors(path: StrPath) -> Iterator[None]:
    """Name ``path`` in an OSError, not its draft."""
    try:
        yield
    except OSError as error:
        # OSError creates the subclass for this error number.
        raise OSError(error.errno, f"cannot write: {error.strerror}", os.fspath(path)) from error


def read_archive(
    path: StrPath, choose: Callable[[list[str]], Iterable[str]] = list
) -> dict[str, NDArray[Any]]:
    """Read arrays of an ``.npz`` archive by name, without running code from it.

    ``choose`` gets all names in the archive and returns the names to read.

    Raises
    ------
    OSError : the file cannot be opened.
    DataFormatError : the file is no archive, is truncated or damaged, or holds Python objects.
    """
    # Opened here, because NumPy leaves a damaged file open.
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
        except Exception as error:  # zipfile, zlib, ast and NumPy raise a dozen types
            problem = f"not a complete .npz archive of plain arrays ({named(error)})"
            raise DataFormatError(path, problem) from error


def _check_size(archive: ZipFile, name: str) -> None:
    """Raise if an array's header claims more bytes than the archive has.

    NumPy would allocate the size in the header. NumPy itself rejects entries that are not arrays.
    """
    if name not in archive.namelist():
        return
    size = archive.getinfo(name).file_size
    with archive.open(name) as stream:
        shape, _, dtype = read_npy_header(stream)
    if not dtype.hasobject and math.prod(shape) * dtype.itemsize > size:
        raise ValueError(f"{name} has {size} bytes, but its header gives the shape {shape}")


def read_npy_header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Read the header of an array; return its shape, whether it is in Fortran order, its dtype."""
    version = np.lib.format.read_magic(stream)
    if version not in _HEADERS:
        raise ValueError(f"version {version} of the .npy format, expected (1, 0) or (2, 0)")
    return _HEADERS[version](stream)


def named(error: BaseException) -> str:
    """Return the type of an error and the first line of its message."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"

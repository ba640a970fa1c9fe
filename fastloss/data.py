"""Data sets: CIFAR-10, MNIST, ``.npz``, scikit-learn's digits, and synthetic problems of any shape.

Three rules hold for every reader here.

- A file is judged by its own bytes. Counts come from its header or its length, never from the
  official release, so a part of a data set is as good as the whole.
- What is wrong with a file is a `DataFormatError` that names the file, the byte and the finding.
- Pixels stay uint8, in one C-contiguous (N, D) array: a float copy is 4 or 8 times the size.
"""

from __future__ import annotations

import glob
import gzip
import importlib
import io
import math
import operator
import pickle
import re
import reprlib
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from statistics import NormalDist
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from fastloss.files import DataFormatError, StrPath, named, read_archive

__all__ = [
    "DataFormatError",
    "Dataset",
    "load",
    "load_cifar10",
    "load_digits",
    "load_mnist",
    "load_npz",
    "synthetic",
]

Split: TypeAlias = Literal["train", "test"]
Bytes: TypeAlias = npt.NDArray[np.uint8]
Labels: TypeAlias = npt.NDArray[np.int64]

_X_DTYPES = tuple(map(np.dtype, ("uint8", "float32", "float64")))
_DIGITS = tuple("0123456789")
_OBJECTS = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """A labelled data set, validated when built.

    Attributes
    ----------
    X : (N, D) array of uint8, float32 or float64
    y : (N,) array of int64
        Labels in ``[0, n_classes)``.
    name : str
    class_names : tuple of str
    image_shape : tuple of int or None
        What a row reshapes to: ``(3, 32, 32)`` (channel-major), ``(28, 28)``, ...
    source : str
        One-line citation.

    Raises
    ------
    TypeError, ValueError
        A dtype, or a shape or label, that is not as above.
    """

    X: npt.NDArray[Any]
    y: Labels
    name: str
    class_names: tuple[str, ...]
    image_shape: tuple[int, ...] | None
    source: str

    def __post_init__(self) -> None:
        X, y, shape = self.X, self.y, self.image_shape
        if X.dtype not in _X_DTYPES:
            raise TypeError(f"X has dtype {X.dtype}; expected {_listed(_X_DTYPES)}")
        if y.dtype != np.int64:
            raise TypeError(f"y has dtype {y.dtype}; expected int64")
        if X.ndim != 2:
            raise ValueError(f"X has shape {X.shape}; expected (N, D)")
        if y.shape != X.shape[:1]:
            raise ValueError(f"y has shape {y.shape}; expected {X.shape[:1]}, one label a row")
        if shape is not None and math.prod(shape) != X.shape[1]:
            raise ValueError(f"image_shape = {shape} does not hold the {X.shape[1]} columns of X")
        bad = _first_bad_label(y, self.n_classes)
        if bad is not None:
            raise ValueError(f"y[{bad}] = {y[bad]} is not in [0, {self.n_classes})")

    @property
    def n_classes(self) -> int:
        """The number of classes C, whether or not each of them has a row."""
        return len(self.class_names)

    def __len__(self) -> int:
        return len(self.y)

    def __repr__(self) -> str:
        image = "" if self.image_shape is None else f", image_shape={self.image_shape}"
        X = f"{self.X.shape} {self.X.dtype}"
        return f"Dataset({self.name!r}, X={X}, n_classes={self.n_classes}{image})"

    def rows(self, selection: slice | Sequence[int] | npt.NDArray[Any]) -> Dataset:
        """The data set of the selected rows: a view for a slice, a copy for indices or a mask."""
        return replace(self, X=self.X[selection], y=self.y[selection])


def load(path: StrPath, split: Split = "train") -> Dataset:
    """Load the data set at `path`, whichever it is, going by the file names there.

    Parameters
    ----------
    path : str or path
        A folder of CIFAR-10 (``data_batch_*``, ``test_batch*``) or MNIST (``*-ubyte``,
        ``*-ubyte.gz``) files, one such file, or an ``.npz`` archive.
    split : {"train", "test"}
        Which part of a folder; a single file is loaded whatever `split` says.

    Raises
    ------
    FileNotFoundError
        Nothing at `path`, or a folder with none of these files.
    DataFormatError
        A file that is none of these, or is damaged.
    """
    path = _existing(path, split)
    if path.is_file() and path.suffix == ".npz":
        return load_npz(path)
    readers = dict.fromkeys(("data_batch_*", "test_batch*"), load_cifar10)
    readers |= dict.fromkeys(("*-ubyte", "*-ubyte.gz"), load_mnist)
    name = path.name if path.is_file() else _find(path, readers)[0].name
    for pattern, reader in readers.items():
        if fnmatchcase(name, pattern):
            return reader(path, split)
    start = np.fromfile(path, np.uint8, count=8).tobytes()
    looked_for = _listed([*readers, "*.npz"])
    raise DataFormatError(path, f"looked for the name {looked_for}; the file starts {start!r}", 0)


# CIFAR-10

_CIFAR10_SHAPE = (3, 32, 32)
_CIFAR10_PIXELS = math.prod(_CIFAR10_SHAPE)
_CIFAR10_FILES = {
    "train": ("data_batch_*.bin", "data_batch_[1-9]"),
    "test": ("test_batch.bin", "test_batch"),
}


def load_cifar10(path: StrPath, split: Split = "train") -> Dataset:
    """Load CIFAR-10 from its binary version or its Python pickles.

    Parameters
    ----------
    path : str or path
        The folder (of two versions in it, the binary one is read), or one file, whatever `split`
        says: ``*.bin`` is read as binary, any other name as a pickle.
    split : {"train", "test"}
        ``data_batch_*`` or ``test_batch``.

    Returns
    -------
    Dataset
        X (N, 3072) uint8, channel-major as in the files. The class names are those of
        ``batches.meta.txt`` or ``batches.meta`` beside the files, else the official ones.

    Raises
    ------
    FileNotFoundError
        No such files.
    DataFormatError
        A truncated or foreign file, a label over 9, or a pickle that asks for more than arrays
        and plain containers. Nothing that a pickle names is ever run.
    """
    path = _existing(path, split)
    files = [path] if path.is_file() else _find(path, _CIFAR10_FILES[split])
    batches = [_read_cifar10_file(file) for file in files]
    return Dataset(
        X=np.concatenate([pixels for pixels, _ in batches]),
        y=np.concatenate([labels for _, labels in batches]).astype(np.int64),
        name=f"CIFAR-10 {path.name if path.is_file() else split}",
        class_names=_cifar10_class_names(files[0].parent),
        image_shape=_CIFAR10_SHAPE,
        source="A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009",
    )


def _read_cifar10_file(path: Path) -> tuple[Bytes, npt.NDArray[Any]]:
    """Pixels (n, 3072) and labels (n,)."""
    if path.suffix == ".bin":
        return _read_cifar10_binary(path)
    batch = _read_pickled_dict(path, b"data", b"labels")
    pixels = _pickled_pixels(path, batch[b"data"])
    return pixels, _pickled_labels(path, batch[b"labels"], len(pixels))


def _read_cifar10_binary(path: Path) -> tuple[Bytes, Bytes]:
    record = 1 + _CIFAR10_PIXELS
    place, raw = _read_bytes(path)
    # The label of an incomplete record too: it comes before the end of the file.
    labels = raw[::record]
    _check_label_bytes(place, labels, first=0, step=record)
    extra = raw.size % record
    if extra:
        raise DataFormatError(
            place, f"truncated record: {extra} bytes, expected {record}", raw.size - extra
        )
    return raw.reshape(-1, record)[:, 1:], labels


def _cifar10_class_names(folder: Path) -> tuple[str, ...]:
    text, meta = folder / "batches.meta.txt", folder / "batches.meta"
    names: object
    if text.is_file():
        path, names = text, text.read_bytes().split()
    elif meta.is_file():
        path, names = meta, _read_pickled_dict(meta, b"label_names")[b"label_names"]
    else:
        return _OBJECTS
    if isinstance(names, list) and [type(name) for name in names] == [bytes] * 10:
        return tuple(name.decode("utf-8", "backslashreplace") for name in names)
    raise DataFormatError(path, f"expected 10 class names, found {_brief(names)}")


# Pickles
#
# A pickle is a program. Few globals are needed to rebuild an array, but even those are code that
# a hostile file can feed as it likes: object dtypes, `__setstate__` with invented sizes, attributes
# set on a shared function. So not one is handed out. Each is replaced with a `_Recorded`, which
# notes what it is called with; the array is made from the notes once they have been checked.

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
        self.place, raw = _read_bytes(path)
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


def _read_pickled_dict(path: Path, *keys: bytes) -> dict[object, object]:
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
        path, f"expected a pickled dict with {_listed(keys)}, found {_brief(found)}"
    )


def _pickled_pixels(path: Path, array: object) -> Bytes:
    """The (n, 3072) array in a `_Recorded`: uint8 only, with as many bytes as its shape says."""
    match array:
        case _Recorded(
            state=(_, (int(n), int(d)), _Recorded(args=("u1" | b"u1", *_)), fortran, bytes(raw))
        ) if d == _CIFAR10_PIXELS and len(raw) == n * d > 0:
            pixels = np.frombuffer(raw, np.uint8)
            return np.ascontiguousarray(pixels.reshape((n, d), order="F" if fortran else "C"))
        case _Recorded(state=(_, shape, _Recorded(args=(code, *_)), _, bytes() | list() as raw)):
            found = f"dtype {_brief(code)}, shape {_brief(shape)} and {len(raw)} bytes or items"
        case _:
            found = type(array).__name__
    raise DataFormatError(
        path, f"b'data': expected a uint8 array of shape (n, {_CIFAR10_PIXELS}), found {found}"
    )


def _pickled_labels(path: Path, labels: object, n: int) -> Labels:
    if not isinstance(labels, list) or len(labels) != n:
        found = f"{len(labels)} items" if isinstance(labels, list) else type(labels).__name__
        raise DataFormatError(path, f"b'labels': expected a list of {n}, one a row, found {found}")
    for i, label in enumerate(labels):
        if type(label) is not int or not 0 <= label < 10:
            raise DataFormatError(
                path, f"b'labels'[{i}] = {_brief(label)} is not an integer in [0, 10)"
            )
    return np.array(labels, np.int64)


# MNIST

_MNIST_PREFIX = {"train": "train", "test": "t10k"}
_IDX_IMAGES, _IDX_LABELS = 0x0803, 0x0801  # unsigned bytes (08), of three dimensions and of one


def load_mnist(path: StrPath, split: Split = "train") -> Dataset:
    """Load MNIST from its IDX files, plain or gzipped (told by content, not by ``.gz``).

    Parameters
    ----------
    path : str or path
        The folder, or one of the two files with the other beside it, whatever `split` says.
        Fashion-MNIST has the same file names; it is read too, but as MNIST by name.
    split : {"train", "test"}
        ``train-*`` or ``t10k-*``.

    Returns
    -------
    Dataset
        X (N, rows * columns) uint8.

    Raises
    ------
    FileNotFoundError
        The image or the label file is missing.
    DataFormatError
        A wrong magic number, a length that is not what the header promises, counts that disagree,
        a label over 9, or a gzip stream that is truncated or corrupt.
    """
    path = _existing(path, split)
    images_path, labels_path = _mnist_files(path, split)
    _, images = _read_idx(images_path, _IDX_IMAGES)
    place, labels = _read_idx(labels_path, _IDX_LABELS)
    _check_label_bytes(place, labels, first=8, step=1)
    if len(images) != len(labels):
        raise DataFormatError(
            place, f"{len(labels)} labels, but {len(images)} images in {images_path.name}", 4
        )
    return Dataset(
        X=images.reshape(len(images), -1),
        y=labels.astype(np.int64),
        name=f"MNIST {images_path.name if path.is_file() else split}",
        class_names=_DIGITS,
        image_shape=images.shape[1:],
        source="Y. LeCun, C. Cortes, C. Burges, The MNIST Database of Handwritten Digits",
    )


def _mnist_files(path: Path, split: Split) -> tuple[Path, Path]:
    """The image file and the label file; `path` itself where it is one of them."""
    folder, prefix, given = path, _MNIST_PREFIX[split], {}
    if path.is_file():
        parts = re.fullmatch(r"(.+)-(images|labels).idx\d-ubyte(\.gz)?", path.name)
        if parts is None:
            raise DataFormatError(path, "expected a name like train-images-idx3-ubyte.gz")
        folder, prefix, given = path.parent, glob.escape(parts[1]), {parts[2]: path}
    images, labels = (
        given.get(kind)
        or _find(folder, [f"{prefix}-{kind}?idx?-ubyte{gz}" for gz in ("", ".gz")])[0]
        for kind in ("images", "labels")
    )
    return images, labels


def _read_idx(path: Path, magic: int) -> tuple[str, Bytes]:
    """The name for messages, and the array of unsigned bytes in the shape its header gives."""
    place, raw = _read_bytes(path)
    found = raw[:4].tobytes()
    if len(found) == 4 and int.from_bytes(found, "big") != magic:
        raise DataFormatError(place, f"IDX magic number 0x{found.hex()}, expected 0x{magic:08x}", 0)
    start = 4 + 4 * (magic & 0xFF)
    if raw.size < start:
        raise DataFormatError(
            place, f"truncated header: {raw.size} bytes, expected {start}", raw.size // 4 * 4
        )
    shape = tuple(raw[4:start].view(">u4").tolist())
    if 0 in shape:
        raise DataFormatError(
            place, f"empty: the header gives the shape {shape}", 4 + 4 * shape.index(0)
        )
    size, expected, item = raw.size - start, math.prod(shape), math.prod(shape[1:])
    if size != expected:
        raise DataFormatError(
            place,
            f"{size} bytes of data, but the header gives the shape {shape}: {expected} bytes",
            start + min(size // item * item, expected),
        )
    return place, raw[start:].reshape(shape)


# Other sources

# W has a column a class: larger labels are row ids or hashes, and naming them fills the memory.
_MAX_CLASSES = 1 << 20


def load_npz(path: StrPath) -> Dataset:
    """Load an ``.npz`` archive with the arrays X and y, or else x_train and y_train.

    An X of more than two dimensions is flattened to (N, D); `image_shape` keeps its shape. The
    classes are 0 to the largest label.

    Raises
    ------
    FileNotFoundError
        No such file.
    DataFormatError
        Not such an archive (the keys found are listed), pickled objects in it, an X that is not
        uint8, float32 or float64, labels that are not integers from 0, or shapes that disagree.
    """
    path = _existing(path)
    X, y = _read_npz(path)
    if X.ndim < 2 or X.size == 0:
        raise DataFormatError(path, f"X has shape {X.shape}; expected (N, D, ...), not empty")
    if not np.can_cast(y.dtype, np.int64):
        raise DataFormatError(path, f"y has dtype {y.dtype}; expected integers that fit int64")
    n_classes = min(1 + int(y.max(initial=0)), _MAX_CLASSES)
    try:
        return Dataset(
            X=np.ascontiguousarray(X.reshape(len(X), -1), X.dtype.newbyteorder("=")),
            y=y.astype(np.int64),
            name=path.stem,
            class_names=tuple(map(str, range(n_classes))),
            image_shape=X.shape[1:] if X.ndim > 2 else None,
            source=path.name,
        )
    except (TypeError, ValueError) as error:
        raise DataFormatError(path, str(error)) from error


def _read_npz(path: Path) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    def choose(found: list[str]) -> tuple[str, str]:
        for keys in (("X", "y"), ("x_train", "y_train")):
            if set(keys) <= set(found):
                return keys
        raise DataFormatError(
            path, f"expected the keys X and y, or x_train and y_train; found {_listed(found)}"
        )

    X, y = read_archive(path, choose).values()
    return X, y


def load_digits() -> Dataset:
    """Load scikit-learn's handwritten digits: X (1797, 64) float64 of 0 to 16, ten classes.

    Raises
    ------
    ImportError
        scikit-learn is not installed.
    """
    try:
        datasets = importlib.import_module("sklearn.datasets")
    except ImportError as error:
        raise ImportError("load_digits needs scikit-learn: pip install scikit-learn") from error
    digits = datasets.load_digits()
    return Dataset(
        X=digits.data,
        y=digits.target.astype(np.int64),
        name="digits",
        class_names=_DIGITS,
        image_shape=(8, 8),
        source="E. Alpaydin, C. Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998",
    )


def synthetic(
    n_rows: int,
    n_features: int,
    n_classes: int,
    *,
    seed: int = 0,
    dtype: npt.DTypeLike = np.float32,
) -> Dataset:
    """Draw a problem of any shape that a linear classifier solves well, but not perfectly.

    ``X[i] = means[y[i]] + noise``, with standard normal noise. The root-mean-square distance of
    two means is ``2 z`` where ``Phi(-z) = 0.1 / (C - 1)``, so that a row lies nearer to a given
    wrong mean than to its own with that probability: about one row in ten is lost to the C - 1 of
    them, whatever C (more where D is much smaller than C, and some means must be close). Labels
    are balanced and in random order. The same arguments give the same arrays.

    Parameters
    ----------
    n_rows, n_features, n_classes : int
        N, D and C, from 1.
    seed : int
        From 0.
    dtype : float32, float64 or uint8
        Of X. uint8 is ``32 X + 128`` rounded and clipped to ``[0, 255]``, like pixels.

    Raises
    ------
    TypeError, ValueError
        An argument that is not as above.

    Examples
    --------
    >>> data = synthetic(6, 4, 3)
    >>> data
    Dataset('synthetic', X=(6, 4) float32, n_classes=3)
    >>> np.bincount(data.y)
    array([2, 2, 2])
    """
    N = _at_least(1, n_rows, "n_rows")
    D = _at_least(1, n_features, "n_features")
    C = _at_least(1, n_classes, "n_classes")
    rng = np.random.default_rng(_at_least(0, seed, "seed"))
    dtype = np.dtype(dtype)
    if dtype not in _X_DTYPES:
        raise TypeError(f"dtype = {dtype}; expected {_listed(_X_DTYPES)}")
    y = rng.permutation(np.arange(N, dtype=np.int64) % C)
    means = _draw_means(rng, C, D, np.float64 if dtype == np.float64 else np.float32)
    X = np.empty((N, D), dtype)
    step = max(1, (1 << 18) // D)  # rows drawn at once: about 1 MB, so that X is all that is large
    for start in range(0, N, step):
        rows = slice(start, start + step)
        block = means[y[rows]]
        block += rng.standard_normal(block.shape, block.dtype)
        if dtype == np.uint8:
            block *= 32
            block += 128
            np.clip(block.round(out=block), 0, 255, out=block)
        X[rows] = block
    return Dataset(
        X=X,
        y=y,
        name="synthetic",
        class_names=tuple(map(str, range(C))),
        image_shape=None,
        source=f"fastloss.data.synthetic({N}, {D}, {C}, seed={seed}, dtype={dtype.name!r})",
    )


def _draw_means(
    rng: np.random.Generator, C: int, D: int, dtype: type[np.float32 | np.float64]
) -> npt.NDArray[Any]:
    """Means (C, D), centred, their distances as `synthetic` says."""
    means: npt.NDArray[Any] = rng.standard_normal((C, D), dtype)
    means -= means.mean(axis=0)
    rivals = max(1, C - 1)
    distance = 2 * NormalDist().inv_cdf(1 - 0.1 / rivals)
    # Centred, the C (C - 1) squared distances sum to 2 C |means|^2.
    rms = math.sqrt(2 / rivals) * float(np.linalg.norm(means))
    means *= distance / (rms or 1.0)  # one class: a single mean, at 0
    return means


# Shared by the readers


def _existing(path: StrPath, split: str = "train") -> Path:
    """`path`, once it and `split` are known to be good."""
    if split not in ("train", "test"):
        raise ValueError(f"split = {split!r} is not one of 'train', 'test'")
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder")
    return path


def _find(folder: Path, patterns: Iterable[str]) -> list[Path]:
    """The files, sorted, of the first pattern that has any."""
    for pattern in patterns:
        if files := sorted(file for file in folder.glob(pattern) if file.is_file()):
            return files
    names = sorted(entry.name for entry in folder.iterdir())
    found = _listed(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
    raise FileNotFoundError(f"{folder}: looked for {_listed(patterns)}; found {found}")


def _read_bytes(path: Path) -> tuple[str, Bytes]:
    """The name for messages, and the bytes of a file, decompressed if they are gzip's; not none."""
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
            # In small pieces: what precedes the damage is counted to within one.
            while piece := stream.read1(8192):
                content += piece
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        problem = f"truncated or corrupt gzip stream, {len(content)} bytes could be decompressed"
        raise DataFormatError(path, f"{problem} ({named(error)})") from error
    return np.frombuffer(content, np.uint8)


def _check_label_bytes(place: str, labels: Bytes, *, first: int, step: int) -> None:
    bad = _first_bad_label(labels, 10)
    if bad is not None:
        raise DataFormatError(place, f"label {labels[bad]} is not in [0, 10)", first + step * bad)


def _first_bad_label(labels: npt.NDArray[Any], n_classes: int) -> int | None:
    bad = (labels < 0) | (labels >= n_classes)
    return int(bad.argmax()) if bad.any() else None


def _at_least(least: int, value: int, name: str) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} = {value!r} is not an integer") from None
    if number < least:
        raise ValueError(f"{name} = {number} is not at least {least}")
    return number


def _listed(items: Iterable[object]) -> str:
    return ", ".join(map(str, items)) or "nothing"


def _brief(value: object) -> str:
    try:
        return reprlib.repr(value)
    except ValueError:  # an integer too long for Python to print
        return type(value).__name__

"""Load data sets (CIFAR-10, MNIST, arrays, tables, scikit-learn's digits), draw synthetic problems.

Three rules hold for every reader.

- A file is judged by its own bytes. Counts come from its header or its length, never from the
  official release, so a part of a data set is valid too.
- A fault of a file raises a `DataFormatError` that names the file, the byte and the problem.
- Pixels stay uint8, in one C-contiguous (N, D) array, because a float copy has 4 or 8 times the
  size. ``.npy`` files stay on the disk, and are mapped into memory.
"""

from fastloss.data.arrow import load_arrow
from fastloss.data.builtin import load_digits, synthetic
from fastloss.data.cifar10 import load_cifar10
from fastloss.data.dataset import Dataset, Split
from fastloss.data.detect import files_of, load, load_unlabelled
from fastloss.data.mnist import load_mnist
from fastloss.data.npy import load_npy
from fastloss.data.npz import load_npz
from fastloss.files import DataFormatError

__all__ = [
    "DataFormatError",
    "Dataset",
    "Split",
    "files_of",
    "load",
    "load_arrow",
    "load_cifar10",
    "load_digits",
    "load_mnist",
    "load_npy",
    "load_npz",
    "load_unlabelled",
    "synthetic",
]

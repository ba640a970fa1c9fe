"""Load data sets (CIFAR-10, MNIST, ``.npz``, scikit-learn's digits) and draw synthetic problems.

Three rules hold for every reader.

- A file is judged by its own bytes. Counts come from its header or its length, never from the
  official release, so a part of a data set is valid too.
- A fault of a file raises a `DataFormatError` that names the file, the byte and the problem.
- Pixels stay uint8, in one C-contiguous (N, D) array, because a float copy has 4 or 8 times the
  size.
"""

from fastloss.data.builtin import load_digits, synthetic
from fastloss.data.cifar10 import load_cifar10
from fastloss.data.dataset import Dataset, Split
from fastloss.data.detect import files_of, load
from fastloss.data.mnist import load_mnist
from fastloss.data.npz import load_npz
from fastloss.files import DataFormatError

__all__ = [
    "DataFormatError",
    "Dataset",
    "Split",
    "files_of",
    "load",
    "load_cifar10",
    "load_digits",
    "load_mnist",
    "load_npz",
    "synthetic",
]

"""Data sets: CIFAR-10, MNIST, ``.npz``, scikit-learn's digits, and synthetic problems of any shape.

Three rules hold for every reader here.

- A file is judged by its own bytes. Counts come from its header or its length, never from the
  official release, so a part of a data set is as good as the whole.
- What is wrong with a file is a `DataFormatError` that names the file, the byte and the finding.
- Pixels stay uint8, in one C-contiguous (N, D) array: a float copy is 4 or 8 times the size.
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

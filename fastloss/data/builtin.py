"""Provide data sets without files: scikit-learn's digits, and synthetic problems of any shape."""

from __future__ import annotations

import importlib
import math
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from fastloss.arrays import ROW_TYPE_NAMES, ROW_TYPES, Floats, as_integer, weight_types
from fastloss.data.dataset import DIGITS, Dataset


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
        class_names=DIGITS,
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
    two means is ``2 z`` with ``Phi(-z) = 0.1 / (C - 1)``. With that probability a row is nearer to
    a given wrong mean than to its own. For any C, about one row in ten is thus nearest to a wrong
    mean; if D is much smaller than C, some means must be close, and more rows are. Labels are
    balanced and in random order. The same arguments give the same arrays.

    Parameters
    ----------
    n_rows, n_features, n_classes : int
        N, D and C, each >= 1.
    seed : int
        Seed of the random numbers, >= 0.
    dtype : float16, float32, float64 or uint8
        Dtype of X. uint8 is ``32 X + 128`` rounded and clipped to ``[0, 255]``, like pixels.

    Raises
    ------
    TypeError, ValueError
        An argument of another kind or value.

    Examples
    --------
    >>> data = synthetic(6, 4, 3)
    >>> data
    Dataset('synthetic', X=(6, 4) float32, n_classes=3)
    >>> np.bincount(data.y)
    array([2, 2, 2])
    """
    N = as_integer("n_rows", n_rows, 1)
    D = as_integer("n_features", n_features, 1)
    C = as_integer("n_classes", n_classes, 1)
    rng = np.random.default_rng(as_integer("seed", seed, 0))
    dtype = np.dtype(dtype)
    if dtype not in ROW_TYPES:
        raise TypeError(f"dtype = {dtype}; expected {ROW_TYPE_NAMES}")
    y = rng.permutation(np.arange(N, dtype=np.int64) % C)
    means = _draw_means(rng, C, D, weight_types(dtype)[0])
    X = np.empty((N, D), dtype)
    step = max(1, (1 << 18) // D)  # rows drawn at once, about 1 MB, to keep temporaries small
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


def _draw_means(rng: np.random.Generator, C: int, D: int, dtype: np.dtype[Any]) -> Floats:
    """Draw centred means (C, D), at the root-mean-square distance that `synthetic` describes."""
    means: Floats = rng.standard_normal((C, D), dtype)
    means -= means.mean(axis=0)
    rivals = max(1, C - 1)
    distance = 2 * NormalDist().inv_cdf(1 - 0.1 / rivals)
    # The C (C - 1) squared distances of centred means sum to 2 C |means|^2.
    rms = math.sqrt(2 / rivals) * float(np.linalg.norm(means))
    means *= distance / (rms or 1.0)  # one class: a single mean, at 0
    return means

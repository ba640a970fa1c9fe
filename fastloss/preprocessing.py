"""Define `Preprocessing`: a transformation of rows, learnt from the training rows."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from fastloss import arrays
from fastloss.arrays import Floats
from fastloss.blocks import Room, row_blocks
from fastloss.passes import pass_over

PreprocessingKind = Literal["none", "mean_image", "standardize"]

_PIXEL_DEVIATION = 8 / 255


@dataclass(frozen=True, eq=False)
class Preprocessing:
    """The transformation of a row before the product with ``W``: ``(x / 255 - mean) / deviation``.

    Only uint8 pixels are divided by 255, which maps them to [0, 1].

    Attributes
    ----------
    of_pixels : whether rows are uint8.
    dtype : dtype of the result: float64 for rows of float64, else float32.
    mean : (D,), or None to subtract nothing.
    deviation : (D,), all > 0, or None to skip the division.
    """

    of_pixels: bool
    dtype: np.dtype[Any] = field(default_factory=lambda: np.dtype(np.float32))
    mean: Floats | None = None
    deviation: Floats | None = None

    @classmethod
    @np.errstate(under="ignore")
    def fit(cls, X: NDArray[Any], kind: PreprocessingKind = "standardize") -> Preprocessing:
        """Learn the preprocessing from the training rows ``X`` (N, D).

        Parameters
        ----------
        X : float16, float32, float64 or uint8; never copied as a whole.
        kind : "none"; "mean_image", which subtracts the mean of each column; or "standardize",
            which also divides by its standard deviation. For pixels, a standard deviation of 8 grey
            levels is added in quadrature, so that a nearly constant pixel is not amplified. A
            constant column of floats is not divided.

        Raises
        ------
        TypeError, ValueError : an ``X`` of another dtype or shape, or an unknown kind.
        """
        X = arrays.as_rows(X)
        if kind not in get_args(PreprocessingKind):
            known = ", ".join(map(repr, get_args(PreprocessingKind)))
            raise ValueError(f"unknown preprocessing {kind!r}; known: {known}")
        plain = cls(
            of_pixels=X.dtype == np.uint8,
            dtype=arrays.weight_types(X.dtype)[0],
        )
        if kind == "none":
            return plain
        # Scaling by powers of two is exact, and keeps sums and squares from over- or underflowing.
        # In float64, those of float32 never do.
        scale = plain._scale(X)
        mean = plain._mean(X, scale) * scale
        centred = replace(plain, mean=mean.astype(plain.dtype))
        if kind == "mean_image":
            return centred
        # Centred on the stored mean: a constant column then deviates by rounding only.
        scale = centred._scale(X)
        deviation = np.sqrt(centred._mean(X, scale, is_squared=True)) * scale
        return centred._divided_by(deviation, mean)

    @classmethod
    def of_moments(
        cls,
        dtype: np.dtype[Any],
        kind: PreprocessingKind,
        mean: NDArray[np.float64],
        deviation: NDArray[np.float64],
    ) -> Preprocessing:
        """Return what `fit` learns from rows of ``dtype`` with these moments (D,).

        Moments of pixels are those of ``x / 255``.
        """
        plain = cls(of_pixels=dtype == np.uint8, dtype=arrays.weight_types(dtype)[0])
        if kind == "none":
            return plain
        centred = replace(plain, mean=mean.astype(plain.dtype))
        return centred if kind == "mean_image" else centred._divided_by(deviation, mean)

    def _divided_by(
        self, deviation: NDArray[np.float64], mean: NDArray[np.float64]
    ) -> Preprocessing:
        """Return the same preprocessing with a division by the standard deviation (D,)."""
        if self.of_pixels:
            deviation = np.hypot(deviation, _PIXEL_DEVIATION)
        typed = deviation.astype(self.dtype)
        typed[(deviation <= np.finfo(self.dtype).eps * np.abs(mean)) | (typed == 0)] = 1.0
        return replace(self, deviation=typed)

    def _mean(
        self, X: NDArray[Any], scale: NDArray[np.float64], *, is_squared: bool = False
    ) -> NDArray[np.float64]:
        """Return the mean (D,) of preprocessed rows / ``scale``, or of squares, in float64."""
        total, room = np.zeros(X.shape[1]), Room(X.shape[1], self.dtype)
        doubles = Room(X.shape[1], total.dtype)
        for rows in pass_over(X, X.shape[1] * total.itemsize):
            block = doubles.of(rows)
            np.divide(self.apply(X[rows], room.of(rows)), scale, out=block)
            if is_squared:
                np.square(block, out=block)
            total += block.sum(axis=0)
        return total / len(X)

    def _scale(self, X: NDArray[Any]) -> NDArray[np.float64]:
        """Return a power of two (D,) near the largest preprocessed number of each column."""
        largest = np.zeros(X.shape[1], self.dtype)
        if self.dtype != np.float64:
            return np.ones(X.shape[1])
        for rows in pass_over(X, X.shape[1] * self.dtype.itemsize):
            np.maximum(largest, np.abs(self.apply(X[rows])).max(axis=0), out=largest)
        return np.ldexp(1.0, np.frexp(largest)[1] - 1)

    @np.errstate(under="ignore")
    def apply(self, X: NDArray[Any], out: Floats | None = None) -> Floats:
        """Return a preprocessed copy of ``X`` (N, D), in ``self.dtype``, in ``out`` if given."""
        self.check(X)
        rows = np.empty(X.shape, self.dtype) if out is None else out
        for block in row_blocks(len(X), X.shape[1] * self.dtype.itemsize):
            part = rows[block]
            part[...] = X[block]
            if self.of_pixels:
                part *= self.dtype.type(1 / 255)
            if self.mean is not None:
                part -= self.mean
            if self.deviation is not None:
                part /= self.deviation
        return rows

    def check(self, X: NDArray[Any]) -> None:
        """Raise TypeError unless ``X`` is uint8 exactly if the training rows were."""
        if (X.dtype == np.uint8) != self.of_pixels:
            fitted = "uint8 pixels" if self.of_pixels else "float rows"
            raise TypeError(f"X must be {fitted} as in training, got {X.dtype}")

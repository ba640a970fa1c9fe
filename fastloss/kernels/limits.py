"""Hold the sizes at which one kernel becomes faster than another."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Sizes at which kernels change over; the defaults were fastest on the machines measured.

    Parameters
    ----------
    narrow_classes : most classes of the narrow kernel and of that for few rows; with more,
        arithmetic takes longer than reading X.
    narrow_bytes : most bytes of W for the narrow kernel, because each block of rows reads all of W.
        A larger W must have at most ``fewest_classes`` classes.
    fewest_classes : see ``narrow_bytes``.
    vectors_bytes, vectors_classes : the same if the wide kernel runs on vectors.
    few_rows : most rows of the kernel for few rows; with more, threads share the rows instead.
    many_features : fewest features of that kernel.
    matrix_rows, matrix_sum : fewest rows and features for the matrix unit. With fewer, splitting
        numbers takes longer than the unit saves.
    block_bytes : bytes of X and scores in a block of the wide kernel on a matrix unit; a block of
        the vectors has half.
    block_rows : a block may have this many rows even if it exceeds ``block_bytes``. With fewer,
        adding to dW would take as long as the products.
    scores_bytes : use at least five blocks when the scores exceed this size.
    """

    narrow_classes: float = 96
    narrow_bytes: int = 640 * 1024
    fewest_classes: int = 12
    vectors_bytes: int = 1024 * 1024
    vectors_classes: int = 24
    few_rows: float = 512
    many_features: int = 2048
    matrix_rows: float = 64
    matrix_sum: float = 48
    block_bytes: int = 15 * 2**20
    block_rows: int = 512
    scores_bytes: int = 32 * 2**20


LIMITS = Limits()

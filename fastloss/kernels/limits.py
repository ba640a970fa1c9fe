"""The sizes at which one way of computing becomes faster than another."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Where the kernels change over; the defaults are the fastest on the machines measured.

    Parameters
    ----------
    narrow_classes : with more, arithmetic takes longer than reading X.
    narrow_bytes : of W. Each block of rows goes through all of W: beyond this the narrow kernel
        pays only for ``fewest_classes``.
    fewest_classes : see ``narrow_bytes``.
    matrix_rows, matrix_sum : with fewer rows or features splitting numbers for the matrix unit
        takes longer than it saves.
    block_bytes : of X and the scores of the rows that the wide kernel works on at once.
    block_rows : with fewer rows at once, adding to dW would take as long as what is added.
    scores_bytes : use at least five blocks when the scores exceed this size.
    """

    narrow_classes: float = 96
    narrow_bytes: int = 640 * 1024
    fewest_classes: int = 12
    matrix_rows: float = 64
    matrix_sum: float = 48
    block_bytes: int = 15 * 2**20
    block_rows: int = 512
    scores_bytes: int = 32 * 2**20


LIMITS = Limits()

"""Which backend ``backend="auto"`` takes for a problem, and why.

A simple rule, measured on few machines::

    the loss has a compiled form and Numba can run, at most 64 classes,
    the rows of X lie together in memory, enough arithmetic              -> numba
    otherwise                                                            -> numpy

One pass over X wins as long as the problem is bound by reading X. With many classes it is bound by
arithmetic, which BLAS does best; a small X stays in cache, where reading it twice costs little.
"""

from __future__ import annotations

from fastloss.backends import unavailable_backends
from fastloss.losses.base import Loss

MAX_CLASSES = 64
MIN_MULTIPLY_ADDS = 50_000_000


def choose(
    loss: Loss, n_rows: int, n_features: int, n_classes: int, rows_contiguous: bool
) -> tuple[str, str]:
    """The name of the backend, and the reason."""
    multiply_adds = 2 * n_rows * n_features * n_classes
    if "numba" in (why_not := unavailable_backends(loss)):
        return "numpy", f"numba cannot run: {why_not['numba']}"
    if n_classes > MAX_CLASSES:
        reason = f"more than {MAX_CLASSES} classes: bound by arithmetic, which BLAS does best"
    elif not rows_contiguous:
        reason = "the columns of X lie together in memory, not its rows"
    elif multiply_adds < MIN_MULTIPLY_ADDS:
        reason = (
            f"{multiply_adds:,} multiply-adds, fewer than {MIN_MULTIPLY_ADDS:,}: "
            "X stays in cache, where BLAS loses nothing by reading it twice"
        )
    else:
        return "numba", "bound by reading X, which the compiled kernel does once"
    return "numpy", reason

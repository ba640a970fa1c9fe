"""Share templates among the kernels: aligned memory, packed rows and the losses of a block."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

# Bound when a kernel is compiled.
address: Any = None
aligned: Any = None
call_loss: Any = None
convert: Any = None
convert_number: Any = None
fetch_add: Any = None
matrix: Any = None
read_shared: Any = None


def stored_type(X_type: np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype that kernels take rows in: Numba has no float16 on CPUs, only its bits."""
    return np.dtype(np.int16) if X_type == np.float16 else X_type


def pack_rows(X: Any, kept: Any, packed: Any) -> None:
    """Copy the ``kept`` rows of ``X`` to ``packed``, converted to its dtype."""
    if X.strides[1] == X.itemsize:
        for r in range(kept.shape[0]):
            goal = address(packed) + r * packed.strides[0]
            convert(address(X) + kept[r] * X.strides[0], goal, X.shape[1])
    else:
        # By columns, which may be contiguous: each cache line is then used as a whole.
        for d in range(X.shape[1]):
            for r in range(kept.shape[0]):
                packed[r, d] = convert_number(X[kept[r], d])


def are_finished(counter: int, n: int) -> bool:
    """Return whether a shared counter reaches ``n`` within 0.1 ms, the cost of going to sleep."""
    for _ in range(2000):  # noqa: SIM110  (Numba knows no any)
        if read_shared(counter) >= n:
            return True
    return False


def enter(calls: int, n_threads: int) -> int:
    """Return -1 in the first thread of a call, the calling one; in helpers, the number of calls.

    ``calls`` is the address of the number of calls in this process. ``n_threads`` is that of the
    number of threads that have entered this one.
    """
    if fetch_add(n_threads) > 0:
        return read_shared(calls)
    fetch_add(calls)
    return -1


def leave(calls: int, number: int, is_finished: bool) -> bool:
    """Return ``is_finished``; a helper first waits for the next call for about 0.2 ms.

    Waking a helper would take 10 to 50 us. It waits here because the calling thread needs the
    interpreter lock next. It returns when the next call has given the lock up, or when the calling
    thread has not waited for it.
    """
    if number < 0:
        if not is_finished:
            fetch_add(calls)
    elif not are_finished(calls, number + 1):
        are_finished(calls, number + 1)
    return is_finished


def loss_of_rows(
    scores: Any,
    n_classes: int,
    n_rows: int,
    labels: Any,
    factors: Any,
    loss: int,
    parameters: Any,
    losses: Any,
    bad: Any,
) -> None:
    """Write ``losses`` (R,) and overwrite ``scores`` (C, R) with gradients times ``factors`` (R,).

    A row with a NaN or +inf score, or with a NaN loss, gets the loss NaN and a gradient of NaN. So
    do rows whose loss was not written, because the user's function raised.
    """
    one = scores.dtype.type(1)
    for r in range(n_rows):
        bad[r] = 0
        losses[r] = math.nan
    for c in range(n_classes):
        row = scores[c]
        for r in range(n_rows):
            bad[r] = bad[r] if row[r] < math.inf else one
    call_loss(
        loss,
        address(scores),
        n_classes,
        n_rows,
        address(labels),
        address(parameters),
        address(losses),
    )
    for r in range(n_rows):
        losses[r] = math.nan if bad[r] == one else losses[r]
        factors[r] = math.nan if math.isnan(losses[r]) else factors[r]
    for c in range(n_classes):
        row = scores[c]
        for r in range(n_rows):
            row[r] *= factors[r]

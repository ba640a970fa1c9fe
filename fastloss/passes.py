"""Passes over rows in blocks, which read ahead and report their progress."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from numpy.typing import NDArray

from fastloss.blocks import row_blocks
from fastloss.rows_on_disk import read_ahead

#: A shorter pass needs no report.
LONG_SECONDS = 2.0
_watcher: ContextVar[Callable[[float], None] | None] = ContextVar("watcher", default=None)


@contextmanager
def watched(tell: Callable[[float], None]) -> Iterator[None]:
    """Call ``tell`` with the share that is done, in [0, 1], in each pass that takes seconds."""
    token = _watcher.set(tell)
    try:
        yield
    finally:
        _watcher.reset(token)


def pass_over(
    X: NDArray[Any], row_bytes: int, n_bytes: int | None = None, most_rows: int | None = None
) -> Iterator[slice]:
    """Yield `row_blocks` of ``X``; the next block of a mapped file is read in the background."""
    report = Report()
    for rows in row_blocks(len(X), row_bytes, n_bytes, most_rows):
        read_ahead(X, rows.stop, 2 * rows.stop - rows.start)
        report(rows.start / len(X))
        yield rows


class Report:
    """The report of a pass that starts now; call it with the share that is done."""

    def __init__(self) -> None:
        self._tell, self._began = _watcher.get(), time.monotonic()

    def __call__(self, share: float) -> None:
        if self._tell is not None and time.monotonic() - self._began > LONG_SECONDS:
            self._tell(share)

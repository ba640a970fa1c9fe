"""Restore the state of the process after a block, also after errors and interrupts."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def restoring(undo: Callable[[], object]) -> Iterator[None]:
    """Call ``undo`` twice at the end of the block; the second call must do no harm.

    Make the change inside the block: Ctrl-C can come right after the change. It can also interrupt
    the first call of ``undo``; the second call then restores the state.
    """
    try:
        try:
            yield
        finally:
            undo()
    finally:
        undo()


@contextmanager
def no_garbage_collection(collect: bool = True) -> Iterator[None]:
    """Disable garbage collection in the block; collect before it if ``collect``."""
    if collect:
        gc.collect()
    with restoring(gc.enable if gc.isenabled() else gc.disable):
        gc.disable()
        yield

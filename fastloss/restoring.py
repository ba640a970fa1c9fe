"""State of the process that is changed for a while, and given back whatever happens."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def restoring(undo: Callable[[], object]) -> Iterator[None]:
    """Call ``undo`` at the end of the block. It must do no harm if called twice.

    For changes made inside the block: an interrupt (Ctrl-C) can come anywhere, also between a
    change and the line after it, or in ``undo``. Then that is called again.
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
    """Garbage is collected before the block (or not at all), not in it."""
    if collect:
        gc.collect()
    with restoring(gc.enable if gc.isenabled() else gc.disable):
        gc.disable()
        yield

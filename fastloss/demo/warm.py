"""Make backends ready in the background: the first call of a compiled one takes seconds."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock, Thread

from fastloss.demo.state import Matrix, State
from fastloss.objective import Objective

Key = tuple[str, str]

_lock = Lock()
_ready: set[Key] = set()
_waiting: dict[Key, list[Callable[[str | None], None]]] = {}


def is_ready(state: State) -> bool:
    """Return whether a call on the backend of these settings needs no compilation."""
    return _key(state) in _ready or state.settings.backend in ("naive", "numpy")


def make_ready(state: State, tell: Callable[[str | None], None]) -> None:
    """Make the backend ready in a thread; it calls ``tell`` with None, or with an error.

    A second request for the same backend and loss waits for the first one.
    """
    key = _key(state)
    with _lock:
        if key in _waiting:
            _waiting[key].append(tell)
            return
        _waiting[key] = [tell]
    # A daemon: Ctrl-C must not wait for a compiler.
    Thread(
        target=_prepare,
        args=(key, state.objective(), state.W),
        daemon=True,
        name="fastloss-demo-compile",
    ).start()


def _key(state: State) -> Key:
    return state.settings.backend, state.settings.loss


def _prepare(key: Key, objective: Objective, W: Matrix) -> None:
    error = None
    try:
        objective(W)
        objective.loss(W)
    except Exception as failure:
        error = f"the backend {key[0]!r} cannot run: {failure}"
    with _lock:
        if error is None:
            _ready.add(key)
        listeners = _waiting.pop(key)
    for tell in listeners:
        tell(error)

"""Make backends ready in the background: the first call of a compiled one takes seconds.

A process compiles the kernels and puts them into the cache; a thread of this process then loads
them. A compiler in this process would slow the page down, and would not end with Ctrl-C.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock, Thread

from fastloss.backends import get_backend
from fastloss.backends.base import Workload
from fastloss.demo import processes
from fastloss.demo.state import Matrix, Settings, State
from fastloss.objective import Objective

#: Backend and loss: each pair has its own kernels.
Key = tuple[str, str]
#: Gets the backend, and None or an error.
Tell = Callable[[str, str | None], None]

_lock = Lock()
_ready: set[Key] = set()
_waiting: dict[Key, set[Tell]] = {}


def is_ready(settings: Settings) -> bool:
    """Return whether a call on the backend of these settings needs no compilation."""
    return settings.backend in ("naive", "numpy") or _key(settings) in _ready


def make_ready(state: State, tell: Tell, thread: type[Thread] = Thread) -> None:
    """Make the backend of a state ready in a thread, which then calls ``tell`` once.

    Requests for the same backend and loss wait for the first one.
    """
    key = _key(state.settings)
    with _lock:
        if key in _waiting:
            _waiting[key].add(tell)
            return
        _waiting[key] = {tell}
    # A daemon: Ctrl-C must not wait for a compiler.
    thread(
        target=_prepare,
        args=(key, state.objective(), state.W),
        daemon=True,
        name="fastloss-demo-compile",
    ).start()


def _key(settings: Settings) -> Key:
    return settings.backend, settings.loss


def _prepare(key: Key, objective: Objective, W: Matrix) -> None:
    error = None
    try:
        if not _is_cached(key[0], objective, W):
            with processes.start(main, key) as process:
                process.wait()
        objective(W)
        objective.loss(W)
    except Exception as failure:
        error = f"the backend {key[0]!r} cannot run: {failure}"
    with _lock:
        if error is None:
            _ready.add(key)
        listeners = _waiting.pop(key)
    for tell in listeners:
        tell(key[0], error)


def _is_cached(backend: str, objective: Objective, W: Matrix) -> bool:
    loss = objective.loss_function
    shape = len(objective.X), objective.X.shape[1], W.shape[1]
    workload = Workload(loss, shape, objective.X.dtype, W.dtype, n_threads=1)
    return get_backend(backend, loss).ready(workload)


def main() -> None:
    """Compile the kernels of the backend and the loss that are the task of this process."""
    backend, loss = processes.read_task()
    state = State(settings=Settings(backend=backend, loss=loss))
    objective = state.objective()
    objective(state.W)
    objective.loss(state.W)

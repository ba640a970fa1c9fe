"""Answer the messages of one tab. A session knows nothing of the transport."""

from __future__ import annotations

from collections.abc import Callable
from threading import RLock, Thread
from typing import Any

from fastloss.demo import costs, studies, updates, warm
from fastloss.demo.address import address_of, state_of
from fastloss.demo.cost_process import CostProcess
from fastloss.demo.jobs import Job, Jobs
from fastloss.demo.messages import Message, MessageError
from fastloss.demo.readings import view
from fastloss.demo.state import setup
from fastloss.objective import Objective

Send = Callable[[dict[str, Any]], None]

_STUDIES = {
    "check": studies.gradient_check,
    "surface": studies.surface,
    "compare": studies.compare,
}
_MOST_COST_SECONDS = 60.0
_CHANGES = ("move", "add", "delete", "label", "weight", "set")


class Session:
    """One tab: its state, and its answers.

    Parameters
    ----------
    send : called with each answer, also from other threads.
    address : the state at first and after a reset; `MessageError` if it is damaged.
    thread : class of the threads for longer computations.
    """

    def __init__(self, send: Send, address: str = "", thread: type[Thread] = Thread) -> None:
        self._send = send
        self._start = address
        self._state = state_of(address)
        self._thread = thread
        self._running = False
        self._lock = RLock()
        self._jobs = Jobs(send, thread)
        self._cost = CostProcess(thread)
        self._handlers: dict[str, Callable[[Message], None]] = {
            **dict.fromkeys(_CHANGES, self._change),
            "open": self._open,
            "update": self._update,
            "run": self._run,
            "seen": self._seen,
            "stop": self._stop,
            "randomise": self._randomise,
            "reset": self._reset,
            **dict.fromkeys(_STUDIES, self._study),
            "cost": self._measure,
            "cancel": self._cancel,
        }

    @property
    def address(self) -> str:
        """Return the text of the present state."""
        return address_of(self._state)

    def receive(self, message: object) -> None:
        """Answer a message, given as JSON or as a dictionary.

        An error in the message becomes the answer.
        """
        id = None
        with self._lock:
            try:
                fields = Message.parse(message) if isinstance(message, str) else Message(message)
                id = fields.id
                self._handlers[fields.choice("do", self._handlers)](fields)
            except MessageError as error:
                self._send({"id": id, "error": str(error)})

    def close(self) -> None:
        """End everything that runs for this tab."""
        self._running = False
        self._jobs.close()
        self._cost.cancel()

    def _open(self, message: Message) -> None:
        answer: dict[str, Any] = {"setup": setup()}
        if message.has("address"):
            self._running = False
            try:
                self._state = state_of(message.text("address"))
            except MessageError as error:
                self._state = state_of(self._start)
                answer["error"] = str(error)
        self._show(message.id, answer)

    def _change(self, message: Message) -> None:
        getattr(self._state, message.text("do"))(message)
        self._show(message.id)

    def _update(self, message: Message) -> None:
        updates.update(self._state, self._objective())
        self._show(message.id)

    def _run(self, message: Message) -> None:
        self._running = True
        self._show(message.id)

    def _seen(self, message: Message) -> None:
        """Update while running. The page asks for each update, so it never falls behind."""
        if not self._running:
            return
        try:
            self._update(message)
        except MessageError as error:
            self._running = False
            self._show(message.id, {"error": str(error)})

    def _stop(self, message: Message) -> None:
        self._running = False
        self._show(message.id)

    def _randomise(self, message: Message) -> None:
        self._state.randomise()
        self._show(message.id)

    def _reset(self, message: Message) -> None:
        self._state, self._running = state_of(self._start), False
        self._show(message.id)

    def _study(self, message: Message) -> None:
        """Start a check, a surface or a comparison, of the state as it is now."""
        kind = message.text("do")
        work = _STUDIES[kind](self._state.snapshot(), self._objective(), message)
        self._jobs.start(Job(kind, message.id, work))

    def _measure(self, message: Message) -> None:
        seconds = 1.0
        if message.has("seconds"):
            seconds = message.number("seconds", 0.01, _MOST_COST_SECONDS)
        task = costs.Task.of(self._state, seconds)
        self._cost.start(task, lambda answer: self._send({"id": message.id, **answer}))

    def _cancel(self, message: Message) -> None:
        kind = message.choice("what", (*_STUDIES, "cost"))
        if kind == "cost":
            self._cost.cancel()
        else:
            self._jobs.cancel(kind)
        self._send({"id": message.id, "cancelled": kind})

    def _objective(self) -> Objective:
        """Return the objective; on NumPy until the chosen backend is ready."""
        return self._state.objective(None if self._is_ready() else "numpy")

    def _is_ready(self) -> bool:
        return warm.is_ready(self._state.settings)

    def _show(self, id: int | None, answer: dict[str, Any] | None = None) -> None:
        """Send the view, with further parts of the answer."""
        preparing = not self._is_ready()
        if preparing:
            warm.make_ready(self._state, self._backend_ready, self._thread)
        readings = view(self._state, self._objective(), running=self._running, preparing=preparing)
        self._send({"id": id, "view": readings, **(answer or {})})

    def _backend_ready(self, backend: str, error: str | None) -> None:
        """Tell the page that a backend is ready, or why it will never be."""
        with self._lock:
            if error is None:
                self._show(None)
            elif self._state.settings.backend == backend:
                self._state.set(Message({"backend": "numpy"}))
                self._show(None, {"error": error})

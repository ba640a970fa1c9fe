"""Answer the messages of one tab. A session knows nothing of the transport."""

from __future__ import annotations

from collections.abc import Callable
from threading import RLock
from typing import Any

from fastloss.demo import costs, studies, updates, warm
from fastloss.demo.address import state_of
from fastloss.demo.cost_process import CostProcess
from fastloss.demo.jobs import Job, Jobs
from fastloss.demo.messages import Message, MessageError
from fastloss.demo.readings import view
from fastloss.demo.state import State, setup
from fastloss.objective import Objective

Send = Callable[[dict[str, Any]], None]

_JOBS = ("check", "surface", "compare")
_MOST_COST_SECONDS = 60.0
_CHANGES = ("move", "add", "delete", "label", "weight", "set")


class Session:
    """One tab: its state, and its answers through ``send``, which any thread may call."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._state = State()
        self._running = False
        self._lock = RLock()
        self._jobs = Jobs(send)
        self._cost = CostProcess()
        self._handlers: dict[str, Callable[[Message], None]] = {
            **dict.fromkeys(_CHANGES, self._change),
            "open": self._open,
            "update": self._update,
            "run": self._run,
            "seen": self._seen,
            "stop": self._stop,
            "randomise": self._randomise,
            "reset": self._reset,
            **dict.fromkeys(_JOBS, self._study),
            "cost": self._measure,
            "cancel": self._cancel,
        }

    def receive_text(self, text: str) -> None:
        """Answer a message in JSON."""
        try:
            message = Message.parse(text)
        except MessageError as error:
            self._send({"id": None, "error": str(error)})
            return
        self._answer(message)

    def receive(self, fields: object) -> None:
        """Answer a message; what is wrong with it becomes an error in the answer."""
        try:
            message = Message(fields)
        except MessageError as error:
            self._send({"id": None, "error": str(error)})
            return
        self._answer(message)

    def close(self) -> None:
        """End everything that runs for this tab."""
        self._running = False
        self._jobs.close()
        self._cost.cancel()

    def _answer(self, message: Message) -> None:
        with self._lock:
            try:
                self._handlers[message.choice("do", self._handlers)](message)
            except MessageError as error:
                self._send({"id": message.id, "error": str(error)})

    def _open(self, message: Message) -> None:
        answer: dict[str, Any] = {"setup": setup()}
        self._state, self._running = State(), False
        try:
            if message.has("address"):
                self._state = state_of(message.text("address"))
        except MessageError as error:
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
        self._state, self._running = State(), False
        self._show(message.id)

    def _study(self, message: Message) -> None:
        """Start a check, a surface or a comparison, of the state as it is now."""
        state, objective, kind = self._state.snapshot(), self._objective(), message.text("do")
        work: dict[str, Callable[[Job], Any]] = {
            "check": lambda job: studies.gradient_check(state, objective),
            "surface": lambda job: studies.surface(state, objective, message, job.check),
            "compare": lambda job: studies.compare(state, message, job.check),
        }
        self._jobs.start(Job(kind, message.id, work[kind]))

    def _measure(self, message: Message) -> None:
        seconds = 1.0
        if message.has("seconds"):
            seconds = message.number("seconds", 0.01, _MOST_COST_SECONDS)
        problem = costs.Problem.of(self._state, seconds)
        self._cost.start(problem, lambda answer: self._send({"id": message.id, **answer}))

    def _cancel(self, message: Message) -> None:
        kind = message.choice("what", (*_JOBS, "cost"))
        if kind == "cost":
            self._cost.cancel()
        else:
            self._jobs.cancel(kind)
        self._send({"id": message.id, "cancelled": kind})

    def _objective(self) -> Objective:
        """Return the objective; on NumPy until the chosen backend is ready."""
        return self._state.objective(None if warm.is_ready(self._state) else "numpy")

    def _show(self, id: int | None, answer: dict[str, Any] | None = None) -> None:
        preparing = not warm.is_ready(self._state)
        if preparing:
            warm.make_ready(self._state, self._backend_ready)
        readings = view(self._state, self._objective(), running=self._running, preparing=preparing)
        self._send({"id": id, "view": readings, **(answer or {})})

    def _backend_ready(self, error: str | None) -> None:
        """Tell the page that a backend is ready, or why it will never be."""
        with self._lock:
            if error is not None:
                backend = Message({"backend": "numpy"})
                self._state.set(backend)
            self._show(None, {} if error is None else {"error": error})

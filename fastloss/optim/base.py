"""The contract of a method: how to start, and how to go from one state to the next.

A method is a frozen dataclass of its parameters, and a state is immutable too: a step makes a new
one and changes nothing. So whatever interrupts a run, the last state is whole, and all that a
checkpoint has to keep. Random numbers follow from the seed and the number of the step (or of the
epoch), so there is no generator whose state could be lost.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fastloss.arrays import Floats, ieee_arithmetic
from fastloss.optim.function import Batches, Function
from fastloss.optim.result import Why


@dataclass(frozen=True)
class State:
    """Where a run is. Its arrays are never written to again."""

    step: int
    W: Floats
    loss: float  # at W; of methods on batches: of the last batch, before its step
    gradient: Floats | None = None  # which belongs to ``loss``
    memory: tuple[NDArray[Any], ...] = ()  # what else the method remembers: velocity, moments, ...
    learning_rate: float | None = None  # of the last step


class Stop(Exception):
    """Raised by a method, or by the run itself, to end the run."""

    def __init__(self, why: Why, message: str) -> None:
        super().__init__(why, message)  # both, so that the error can be pickled
        self.why = why
        self.message = message

    def __str__(self) -> str:
        return self.message


def _no_limit() -> None:
    """Let a run take any time; a function of the module, so that a `Setting` can be pickled."""


@dataclass(frozen=True)
class Setting:
    """What a method works on."""

    function: Function
    seed: int
    tolerance: float
    batches: Batches | None  # of methods that work on batches
    # For methods that evaluate more than once a step: raises `Stop` where the time is over.
    check_time: Callable[[], None] = _no_limit

    @property
    def steps_per_epoch(self) -> int:
        """Steps in a pass over the rows."""
        return 1 if self.batches is None else self.batches.per_epoch

    def random(self, number: int) -> np.random.Generator:
        """The random numbers of a step."""
        return np.random.default_rng([self.seed, number])


class Method(ABC):
    """Base class of the methods; subclasses are frozen dataclasses of their parameters."""

    name: ClassVar[str]

    def batches_of(self, function: Function, seed: int) -> Batches | None:
        """The batches that the steps see; None: they see all rows."""
        return None

    @abstractmethod
    def start(self, setting: Setting, W: Floats) -> State:
        """The state before the first step."""

    @abstractmethod
    def take_step(self, setting: Setting, state: State) -> State:
        """The state after the next step."""

    def advance(self, setting: Setting, state: State, commit: Callable[[State], None]) -> None:
        """Take steps and commit their states, until `Stop` is raised."""
        while True:
            # Overflow shows in the next loss, and ends the run.
            with ieee_arithmetic():
                state = self.take_step(setting, state)
            commit(state)


def stepped(state: State, **changes: Any) -> State:
    """The state one step on."""
    return replace(state, step=state.step + 1, **changes)


def squared_norm(array: Floats) -> float:
    """Sum of squares in float64. Not by BLAS, whose bits depend on the number of threads."""
    with ieee_arithmetic():
        return float(np.square(array, dtype=np.float64).sum())

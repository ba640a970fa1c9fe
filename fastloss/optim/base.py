"""Base class of the methods, with the state and the setting that they work on.

A method is a frozen dataclass of its parameters. A state is immutable too: a step makes a new one.
So the last state is whole whenever a run is interrupted, and a checkpoint needs nothing else.
Random numbers follow from the seed and the number of the step or epoch, so no generator's state
needs to be saved.
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
    """State of a run after a step. Its arrays are never modified."""

    step: int
    W: Floats
    loss: float  # at W; for methods on batches: of the last batch, before its step
    gradient: Floats | None = None  # computed together with ``loss``
    memory: tuple[NDArray[Any], ...] = ()  # other arrays of the method: velocity, moments, ...
    learning_rate: float | None = None  # of the last step


class Stop(Exception):
    """Exception by which a method, or the run itself, ends the run."""

    def __init__(self, why: Why, message: str) -> None:
        super().__init__(why, message)  # unpickling calls __init__ with both
        self.why = why
        self.message = message

    def __str__(self) -> str:
        return self.message


def _no_limit() -> None:
    """Let a run take any time. A lambda could not be pickled with its `Setting`."""


@dataclass(frozen=True)
class Setting:
    """Function, seed, tolerance and batches that a method works with."""

    function: Function
    seed: int
    tolerance: float
    batches: Batches | None  # None: every step sees all rows
    # Raises `Stop` when a limit is reached; for methods that evaluate more than once in a step.
    check_time: Callable[[], None] = _no_limit

    @property
    def steps_per_epoch(self) -> int:
        """Number of steps in a pass over the rows."""
        return 1 if self.batches is None else self.batches.per_epoch

    def random(self, number: int) -> np.random.Generator:
        """Return the random number generator of a step."""
        return np.random.default_rng([self.seed, number])


class Method(ABC):
    """Base class of the methods; subclasses are frozen dataclasses of their parameters."""

    name: ClassVar[str]

    def batches_of(self, function: Function, seed: int) -> Batches | None:
        """Return the batches for the steps, or None if every step sees all rows."""
        return None

    def completed(self, function: Function, W: Floats) -> Method:
        """Return the method with the parameters that depend on the function, if it has any."""
        return self

    @abstractmethod
    def start(self, setting: Setting, W: Floats) -> State:
        """Return the state before the first step."""

    @abstractmethod
    def take_step(self, setting: Setting, state: State) -> State:
        """Return the state after the next step."""

    def advance(self, setting: Setting, state: State, commit: Callable[[State], None]) -> None:
        """Take steps and commit their states, until `Stop` is raised."""
        while True:
            # No warning for overflow: the next loss shows it, and the run ends.
            with ieee_arithmetic():
                state = self.take_step(setting, state)
            commit(state)


def stepped(state: State, **changes: Any) -> State:
    """Return the state with the step count increased by 1 and other fields changed."""
    return replace(state, step=state.step + 1, **changes)


def squared_norm(array: Floats) -> float:
    """Return the sum of squares in float64. BLAS is avoided: its bits depend on its threads."""
    with ieee_arithmetic():
        return float(np.square(array, dtype=np.float64).sum())

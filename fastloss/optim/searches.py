"""Searches at random: the lecture's first two ideas. They look at the loss alone."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fastloss.arrays import Floats, as_real, convert
from fastloss.optim.base import Method, Setting, State, stepped


class _Search(Method):
    """A step is one try; it is kept if the loss falls."""

    @abstractmethod
    def candidate(self, W: Floats, noise: Floats) -> Floats:
        """What to try next; ``noise``: standard normal, like ``W``."""

    def start(self, setting: Setting, W: Floats) -> State:
        return State(0, W, setting.function.value(W))

    def take_step(self, setting: Setting, state: State) -> State:
        rng = setting.random(state.step)
        noise = rng.standard_normal(state.W.shape, dtype=state.W.dtype)
        W = self.candidate(state.W, noise)
        loss = setting.function.value(W)
        # Not kept either: NaN.
        if loss < state.loss:
            return stepped(state, W=W, loss=loss)
        return stepped(state)


@dataclass(frozen=True)
class RandomSearch(_Search):
    """Random search: ``scale * randn`` again and again, of which the best is kept.

    The start counts as the first try. Source: CS231n, "Optimization", strategy #1.
    """

    name: ClassVar[str] = "random_search"

    scale: float = 1e-4

    def __post_init__(self) -> None:
        convert(self, "scale", as_real, above=0.0)

    def candidate(self, W: Floats, noise: Floats) -> Floats:
        return np.multiply(noise, self.scale, out=noise)


@dataclass(frozen=True)
class RandomLocalSearch(_Search):
    """Random local search: ``W + step * randn``, kept if the loss falls.

    Source: CS231n, "Optimization", strategy #2.
    """

    name: ClassVar[str] = "random_local_search"

    step: float = 1e-4

    def __post_init__(self) -> None:
        convert(self, "step", as_real, above=0.0)

    def candidate(self, W: Floats, noise: Floats) -> Floats:
        noise *= self.step
        noise += W
        return noise

"""Random searches, which evaluate the loss but no gradient."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fastloss.arrays import Floats, as_real, convert
from fastloss.optim.base import Method, Setting, State, stepped


class _Search(Method):
    """Base class of searches: a step tries one candidate and keeps it if the loss falls."""

    @abstractmethod
    def candidate(self, W: Floats, noise: Floats) -> Floats:
        """Return the next weights to try; ``noise`` is standard normal, shaped like ``W``."""

    def start(self, setting: Setting, W: Floats) -> State:
        return State(0, W, setting.function.value(W))

    def take_step(self, setting: Setting, state: State) -> State:
        rng = setting.random(state.step)
        noise = rng.standard_normal(state.W.shape, dtype=state.W.dtype)
        W = self.candidate(state.W, noise)
        loss = setting.function.value(W)
        if loss < state.loss:  # false for NaN
            return stepped(state, W=W, loss=loss)
        return stepped(state)


@dataclass(frozen=True)
class RandomSearch(_Search):
    """Random search: draw ``scale * randn`` in each step and keep the best, or the start.

    Source: CS231n, "Optimization", strategy #1.
    """

    name: ClassVar[str] = "random_search"

    scale: float = 1e-4

    def __post_init__(self) -> None:
        convert(self, "scale", as_real, above=0.0)

    def candidate(self, W: Floats, noise: Floats) -> Floats:
        return np.multiply(noise, self.scale, out=noise)


@dataclass(frozen=True)
class RandomLocalSearch(_Search):
    """Random local search: try ``W + step * randn`` and keep it if the loss falls.

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

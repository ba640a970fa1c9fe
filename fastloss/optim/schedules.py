"""Learning-rate schedules: the factor that ``lr`` is multiplied with, as a function of the epoch.

Epochs are passes over the rows, in fractions: a step of a method that works on batches is
1 / (batches an epoch) of one, a step of one that works on all rows a whole one. A schedule depends
on nothing else, so a run that is resumed, or goes on for longer, has the same rates.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from fastloss.arrays import as_real, convert


@runtime_checkable
class Schedule(Protocol):
    """Any callable from the epoch to a factor. Those here are frozen dataclasses.

    A checkpoint tells schedules apart by their ``repr``.
    """

    def __call__(self, epoch: float) -> float: ...


@dataclass(frozen=True)
class Constant:
    """1."""

    def __call__(self, epoch: float) -> float:
        return 1.0


@dataclass(frozen=True)
class StepDecay:
    """``factor**floor(epoch / every)``: lower by ``factor`` every so many epochs."""

    every: float = 10.0
    factor: float = 0.5

    def __post_init__(self) -> None:
        convert(self, "every", as_real, above=0.0)
        convert(self, "factor", as_real, above=0.0)

    def __call__(self, epoch: float) -> float:
        return self.factor ** math.floor(epoch / self.every)


@dataclass(frozen=True)
class ExponentialDecay:
    """``exp(-rate * epoch)``."""

    rate: float = 0.1

    def __post_init__(self) -> None:
        convert(self, "rate", as_real)

    def __call__(self, epoch: float) -> float:
        return math.exp(-self.rate * epoch)


@dataclass(frozen=True)
class InverseTime:
    """``1 / (1 + rate * epoch)``."""

    rate: float = 1.0

    def __post_init__(self) -> None:
        convert(self, "rate", as_real)

    def __call__(self, epoch: float) -> float:
        return 1.0 / (1.0 + self.rate * epoch)


@dataclass(frozen=True)
class Cosine:
    """Half a cosine from 1 to ``floor`` at ``epochs``, and ``floor`` from then on.

    ``floor + (1 - floor) (1 + cos(pi epoch / epochs)) / 2``
    (Loshchilov and Hutter, *SGDR: stochastic gradient descent with warm restarts*, 2017).
    """

    epochs: float
    floor: float = 0.0

    def __post_init__(self) -> None:
        convert(self, "epochs", as_real, above=0.0)
        convert(self, "floor", as_real)

    def __call__(self, epoch: float) -> float:
        way = min(epoch / self.epochs, 1.0)
        return self.floor + (1.0 - self.floor) * 0.5 * (1.0 + math.cos(math.pi * way))


@dataclass(frozen=True)
class Warmup:
    """Another schedule, times a line from ``start`` to 1 over the first ``epochs``."""

    epochs: float = 1.0
    then: Schedule = field(default_factory=Constant)
    start: float = 0.1

    def __post_init__(self) -> None:
        convert(self, "epochs", as_real, above=0.0)
        convert(self, "start", as_real, above=0.0)

    def __call__(self, epoch: float) -> float:
        way = min(epoch / self.epochs, 1.0)
        return (self.start + (1.0 - self.start) * way) * self.then(epoch)

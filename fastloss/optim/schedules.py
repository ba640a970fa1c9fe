"""Learning-rate schedules: functions from the epoch to a factor of ``lr``.

Epochs are passes over the rows, and may be fractions: a step on a batch adds 1 / (batches in an
epoch), a step on all rows adds 1. A schedule depends on nothing else. So a resumed or longer run
has the same rates.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from fastloss.arrays import as_real, convert


@runtime_checkable
class Schedule(Protocol):
    """Any callable from the epoch to a factor.

    Checkpoints compare schedules by their ``repr``; the schedules here are frozen dataclasses.
    """

    def __call__(self, epoch: float) -> float: ...


@dataclass(frozen=True)
class Constant:
    """Constant learning rate: the factor is 1."""

    def __call__(self, epoch: float) -> float:
        return 1.0


@dataclass(frozen=True)
class StepDecay:
    """Step decay ``factor**floor(epoch / every)``: times ``factor`` every ``every`` epochs."""

    every: float = 10.0
    factor: float = 0.5

    def __post_init__(self) -> None:
        convert(self, "every", as_real, above=0.0)
        convert(self, "factor", as_real, above=0.0)

    def __call__(self, epoch: float) -> float:
        return self.factor ** math.floor(epoch / self.every)


@dataclass(frozen=True)
class ExponentialDecay:
    """Exponential decay ``exp(-rate * epoch)``."""

    rate: float = 0.1

    def __post_init__(self) -> None:
        convert(self, "rate", as_real)

    def __call__(self, epoch: float) -> float:
        return math.exp(-self.rate * epoch)


@dataclass(frozen=True)
class InverseTime:
    """Inverse decay ``1 / (1 + rate * epoch)``."""

    rate: float = 1.0

    def __post_init__(self) -> None:
        convert(self, "rate", as_real)

    def __call__(self, epoch: float) -> float:
        return 1.0 / (1.0 + self.rate * epoch)


@dataclass(frozen=True)
class Cosine:
    """Half a cosine from 1 down to ``floor`` at ``epochs``, then constant.

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
    """Another schedule, times a line that rises from ``start`` to 1 over the first ``epochs``."""

    epochs: float = 1.0
    then: Schedule = field(default_factory=Constant)
    start: float = 0.1

    def __post_init__(self) -> None:
        convert(self, "epochs", as_real, above=0.0)
        convert(self, "start", as_real, above=0.0)

    def __call__(self, epoch: float) -> float:
        way = min(epoch / self.epochs, 1.0)
        return (self.start + (1.0 - self.start) * way) * self.then(epoch)

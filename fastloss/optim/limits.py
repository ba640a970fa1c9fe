"""Limits of a run."""

from __future__ import annotations

from dataclasses import dataclass

from fastloss.arrays import as_integer, as_real, convert
from fastloss.optim.base import Stop
from fastloss.optim.result import Why

# Limits of a run without any other limit.
_DEFAULT_EPOCHS = 10
_DEFAULT_STEPS = 1000


@dataclass(frozen=True)
class Limits:
    """Limits of a run, in the units of `Record`."""

    max_steps: int | None = None
    max_epochs: float | None = None
    max_evaluations: float | None = None
    max_seconds: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "max_steps", as_count("max_steps", self.max_steps))
        for name in ("max_epochs", "max_evaluations", "max_seconds"):
            if getattr(self, name) is not None:
                convert(self, name, as_real, above=0.0, finite=False)

    def or_default(self, on_batches: bool) -> Limits:
        """Return the limits, or if there are none, the default of 10 epochs or 1000 steps."""
        if self != Limits():
            return self
        return Limits(max_epochs=_DEFAULT_EPOCHS) if on_batches else Limits(_DEFAULT_STEPS)

    def check(self, steps: int, epochs: float, evaluations: float, seconds: float) -> None:
        """Raise `Stop` if a limit is reached."""
        reached: tuple[tuple[Why, float, float | None], ...] = (
            ("max_steps", steps, self.max_steps),
            ("max_epochs", epochs, self.max_epochs),
            ("max_evaluations", evaluations, self.max_evaluations),
            ("max_seconds", seconds, self.max_seconds),
        )
        for name, value, limit in reached:
            if limit is not None and value >= limit:
                raise Stop(name, f"{name} = {limit:g} reached in step {steps}")


def as_count(name: str, value: int | None) -> int | None:
    """Return ``value`` as an int >= 1, or None."""
    return None if value is None else as_integer(name, value, 1)

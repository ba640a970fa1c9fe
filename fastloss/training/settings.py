"""What a run is told, and what is filled in where it is told nothing, by one rule for all data."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from fastloss.arrays import as_bool, as_integer, as_real, convert
from fastloss.losses import get_loss
from fastloss.optim import (
    Constant,
    Cosine,
    ExponentialDecay,
    InverseTime,
    Method,
    Schedule,
    StepDecay,
    get_method,
)

# No run of so many would end, and what is computed from more overflows.
_MOST_EPOCHS = 1e15


@dataclass(frozen=True)
class Settings:
    """What is trained, and how. None: whatever `fill_in` makes of the data.

    Attributes
    ----------
    loss, optimizer : names, see `available_losses` and `optim.available_methods`.
    lr : learning rate; of the methods that take one.
    l1, l2 : strengths of the penalties, see `loss_and_grad`.
    epochs, steps : how long; the first that is reached ends the run.
    schedule : one of `SCHEDULES`, over the epochs of the run.
    seed : of the order of the rows, the start, and the synthetic data.
    """

    loss: str = "softmax"
    optimizer: str = "sgd"
    lr: float | None = None
    l1: float = 0.0
    l2: float | None = None
    epochs: float | None = None
    steps: int | None = None
    batch_size: int | None = None
    momentum: float | None = None
    nesterov: bool | None = None
    line_search: bool | None = None
    schedule: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        get_loss(self.loss)
        get_method(self.optimizer)
        if self.schedule is not None and self.schedule not in SCHEDULES:
            known = ", ".join(map(repr, SCHEDULES))
            raise ValueError(f"unknown schedule {self.schedule!r}; known: {known}")
        for name, as_kind, limits in _KINDS:
            if getattr(self, name) is not None:
                convert(self, name, as_kind, **limits)
        if self.epochs is not None and self.epochs >= _MOST_EPOCHS:
            raise ValueError(f"epochs must be < {_MOST_EPOCHS:g}, got {self.epochs:g}")

    def __str__(self) -> str:
        named = {name: value for name, value in asdict(self).items() if value is not None}
        return ", ".join(f"{name}={short(value)}" for name, value in named.items())


_KINDS: tuple[tuple[str, Callable[..., object], dict[str, Any]], ...] = (
    ("lr", as_real, {"above": 0.0}),
    ("l1", as_real, {}),
    ("l2", as_real, {}),
    ("epochs", as_real, {"above": 0.0, "finite": False}),
    ("steps", as_integer, {"least": 1}),
    ("batch_size", as_integer, {"least": 1}),
    ("momentum", as_real, {"below": 1.0}),
    ("nesterov", as_bool, {}),
    ("line_search", as_bool, {}),
    ("seed", as_integer, {"least": 0}),
)


#: Schedules by name, for a run of so many epochs.
SCHEDULES: dict[str, Callable[[float], Schedule]] = {
    "constant": lambda epochs: Constant(),
    "cosine": lambda epochs: Cosine(epochs),
    "exponential": lambda epochs: ExponentialDecay(rate=4.0 / epochs),
    "inverse_time": lambda epochs: InverseTime(rate=20.0 / epochs),
    "step": lambda epochs: StepDecay(every=epochs / 4, factor=0.3),
}

#: By method: what is filled in where nothing is said. ``lr`` is left to the data.
_METHOD_DEFAULTS: dict[str, dict[str, Any]] = {
    "sgd": {"epochs": 20.0, "momentum": 0.9, "batch_size": 128, "schedule": "cosine"},
    "adam": {"epochs": 20.0, "batch_size": 128, "schedule": "cosine"},
    "gradient_descent": {"steps": 300, "momentum": 0.9},
    "lbfgs": {"steps": 100},
    "random_search": {"steps": 1000},
    "random_local_search": {"steps": 1000},
}
_OTHER_DEFAULTS: dict[str, Any] = {"epochs": 10.0}

# A normal prior on W under which the scores of a row have this standard deviation.
_PRIOR_DEVIATION = 4.0
# lr times the steepest curvature of half the mean squared score, which bounds a softmax's. The
# hinge losses are sums over classes, and have no curvature but kinks.
_LR_CURVATURES = {"softmax": 2.5}
_LR_CURVATURES_ELSE = 0.2
# A few rows are overfitted at rates, and in epochs, that many rows need: lr falls from the one
# number to the other, and no run is shorter than some steps.
_MANY_ROWS, _FEW_ROWS = 60_000, 3000
_LEAST_STEPS = 500
_ADAM_LR = 1e-3


@dataclass(frozen=True)
class Scale:
    """What the defaults have to know of the preprocessed training rows, bias included.

    Attributes
    ----------
    n_rows : N.
    squared_length : the mean of ``|x|**2 + 1``.
    curvature : the largest eigenvalue of the mean of ``[x, 1] [x, 1]^T``.
    """

    n_rows: int
    squared_length: float
    curvature: float


def fill_in(settings: Settings, scale: Scale) -> Settings:
    """The settings with nothing left open.

    Neither the learning rate of (stochastic) gradient descent nor ``l2`` depends on how pixels or
    features are scaled. The rate is a constant, by loss, over the curvature, and lower where
    there are few rows: a rule that was tuned on MNIST and on 4,000 images of CIFAR-10. ``l2`` is
    that of a normal prior on ``W`` under which scores have a standard deviation of 4: the squared
    length over 2 * 4**2 N. Adam, whose steps depend less on the scale, starts from 1e-3.
    """
    l2 = scale.squared_length / (2.0 * _PRIOR_DEVIATION**2 * scale.n_rows)
    filled = dict(_METHOD_DEFAULTS.get(settings.optimizer, _OTHER_DEFAULTS), l2=_two_digits(l2))
    batch_size = settings.batch_size or filled.get("batch_size")
    if "epochs" in filled and batch_size:
        enough = math.ceil(_LEAST_STEPS * batch_size / scale.n_rows)
        filled["epochs"] = max(filled["epochs"], float(enough))
    if settings.epochs is not None or settings.steps is not None:
        filled = {name: value for name, value in filled.items() if name not in ("epochs", "steps")}
    if settings.line_search:
        filled.pop("momentum", None)
    if settings.optimizer == "adam":
        filled["lr"] = _ADAM_LR
    elif "lr" in _parameters(settings.optimizer):
        constant = _LR_CURVATURES.get(settings.loss, _LR_CURVATURES_ELSE)
        share = min(max(scale.n_rows, _FEW_ROWS), _MANY_ROWS) / _MANY_ROWS
        filled["lr"] = _two_digits(constant * share / scale.curvature)
    missing = {name: value for name, value in filled.items() if getattr(settings, name) is None}
    return replace(settings, **missing)


def _two_digits(value: float) -> float:
    """A number to write down, and to start a search from."""
    return float(f"{value:.1e}")


def _parameters(optimizer: str) -> tuple[str, ...]:
    return tuple(f.name for f in fields(get_method(optimizer)))  # type: ignore[arg-type]


_METHOD_SETTINGS = ("lr", "batch_size", "momentum", "nesterov", "line_search", "schedule")


def make_method(settings: Settings, n_rows: int = 1) -> Method:
    """The method with its parameters, from settings that are filled in, for so many rows.

    Raises
    ------
    ValueError : a parameter that the method does not take, or cannot.
    """
    takes = _parameters(settings.optimizer)
    given = {
        name: value
        for name in _METHOD_SETTINGS
        if (value := getattr(settings, name)) is not None and value is not False
    }
    for name in given:
        if name not in takes:
            known = ", ".join(name for name in takes if name in _METHOD_SETTINGS) or "none of them"
            raise ValueError(
                f"the optimizer {settings.optimizer!r} takes no {name}; "
                f"of {', '.join(_METHOD_SETTINGS)} it takes {known}"
            )
    if "schedule" in given:
        # Of a run that counts steps, the epochs that these are.
        limits = [settings.epochs or math.inf]
        if settings.steps is not None:
            limits.append(settings.steps / _steps_per_epoch(settings, n_rows))
        given["schedule"] = SCHEDULES[given["schedule"]](min(limits))
    return type(get_method(settings.optimizer))(**given)


def total_steps(settings: Settings, n_rows: int) -> int:
    """How many steps a run of filled-in settings takes at most."""
    limits = [settings.steps] if settings.steps is not None else []
    if settings.epochs is not None:
        limits.append(math.ceil(settings.epochs * _steps_per_epoch(settings, n_rows)))
    return min(limits)


def _steps_per_epoch(settings: Settings, n_rows: int) -> int:
    if settings.batch_size is None:
        return 1
    return -(-n_rows // min(settings.batch_size, n_rows))


def short(value: object) -> str:
    """A setting as it would be typed, to four digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)

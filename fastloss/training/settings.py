"""Settings of a run, and the rule that computes missing settings from the data."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from fastloss.arrays import as_bool, as_integer, as_real, convert
from fastloss.losses import get_loss, name_of
from fastloss.losses.base import Loss
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
from fastloss.optim.learning_rate import ADAM_RATE, two_digits

# No run of this many epochs would end, and step counts computed from more overflow.
_MOST_EPOCHS = 1e15


@dataclass(frozen=True)
class Settings:
    """Settings of a training run. `fill_in` replaces None by a value computed from the data.

    Attributes
    ----------
    loss : a name, see `available_losses`, or an instance.
    optimizer : a name, see `optim.available_methods`.
    lr : learning rate, for methods that take one.
    l1, l2 : strengths of the penalties, see `loss_and_grad`.
    epochs, steps : limits; the first one reached ends the run.
    schedule : one of `SCHEDULES`, over the epochs of the run.
    class_weight : "balanced"; weights by class name, as a mapping or as text ("cat=2,dog=1"); or
        "none", which becomes None.
    patience, restore_best : see `optim.minimize`. Default of ``restore_best``: only with
        ``patience``.
    seed : seed of the order of the rows, of random searches, and of synthetic data.
    """

    loss: str | Loss = "softmax"
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
    class_weight: str | Mapping[str, float] | None = None
    patience: int | None = None
    restore_best: bool | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        get_loss(self.loss)
        get_method(self.optimizer)
        if self.schedule is not None and self.schedule not in SCHEDULES:
            known = ", ".join(map(repr, SCHEDULES))
            raise ValueError(f"unknown schedule {self.schedule!r}; known: {known}")
        object.__setattr__(self, "class_weight", _as_class_weight(self.class_weight))
        for name, as_kind, limits in _KINDS:
            if getattr(self, name) is not None:
                convert(self, name, as_kind, **limits)
        if self.epochs is not None and self.epochs >= _MOST_EPOCHS:
            raise ValueError(f"epochs must be < {_MOST_EPOCHS:g}, got {self.epochs:g}")

    def __str__(self) -> str:
        named = {f.name: getattr(self, f.name) for f in fields(self)}
        given = {name: value for name, value in named.items() if value is not None}
        return ", ".join(f"{name}={short(value)}" for name, value in given.items())


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
    ("patience", as_integer, {"least": 1}),
    ("restore_best", as_bool, {}),
    ("seed", as_integer, {"least": 0}),
)


def _as_class_weight(value: object) -> str | dict[str, float] | None:
    """Return weights by class name, "balanced" or None; text such as "cat=2,dog=1" is parsed."""
    if value is None or value == "none":
        return None
    if value == "balanced":
        return "balanced"
    pairs = value
    if isinstance(value, str):
        items = [_as_pair(item) for item in value.split(",")]
        pairs = dict(items)
        if len(pairs) < len(items):
            raise ValueError(f"class_weight names a class twice: {value!r}")
    if not isinstance(pairs, Mapping):
        raise TypeError(f"class_weight must be a mapping, 'balanced' or text, got {value!r}")
    return {name: as_real(f"class_weight[{name!r}]", weight) for name, weight in pairs.items()}


def _as_pair(item: str) -> tuple[str, float]:
    name, separator, weight = item.rpartition("=")
    try:
        if separator:
            return name.strip(), float(weight)
    except ValueError:
        pass
    raise ValueError(f"class_weight reads balanced, none or name=weight,...; got {item.strip()!r}")


#: Schedules by name: functions from the epochs of a run to a schedule.
SCHEDULES: dict[str, Callable[[float], Schedule]] = {
    "constant": lambda epochs: Constant(),
    "cosine": lambda epochs: Cosine(epochs),
    "exponential": lambda epochs: ExponentialDecay(rate=4.0 / epochs),
    "inverse_time": lambda epochs: InverseTime(rate=20.0 / epochs),
    "step": lambda epochs: StepDecay(every=epochs / 4, factor=0.3),
}

#: Default settings of each method. `fill_in` computes ``lr`` from the data.
_METHOD_DEFAULTS: dict[str, dict[str, Any]] = {
    "sgd": {"epochs": 20.0, "momentum": 0.9, "batch_size": 128, "schedule": "cosine"},
    "adam": {"epochs": 20.0, "batch_size": 128, "schedule": "cosine"},
    "gradient_descent": {"steps": 300, "momentum": 0.9},
    "lbfgs": {"steps": 100},
    "random_search": {"steps": 1000},
    "random_local_search": {"steps": 1000},
}
_OTHER_DEFAULTS: dict[str, Any] = {"epochs": 10.0}

# Standard deviation of the scores under the normal prior on W that gives the default l2.
_PRIOR_DEVIATION = 4.0
# Default lr times `Scale.curvature`, which bounds a softmax's curvature. The hinge losses are sums
# over classes and have kinks instead of curvature.
_LR_CURVATURES = {"softmax": 2.5}
_LR_CURVATURES_ELSE = 0.2
# The lr for many rows overfits few rows: it shrinks in proportion between these numbers. The epochs
# for many rows are too few steps for few rows: no run has fewer than _LEAST_STEPS.
_MANY_ROWS, _FEW_ROWS = 60_000, 3000
_LEAST_STEPS = 500


@dataclass(frozen=True)
class Scale:
    """Statistics of the preprocessed training rows, for the default settings.

    Attributes
    ----------
    n_rows : N.
    squared_length : mean of ``|x|**2 + 1``; the 1 is the bias.
    curvature : largest eigenvalue of the mean of ``[x, 1] [x, 1]^T``.
    """

    n_rows: int
    squared_length: float
    curvature: float


def fill_in(settings: Settings, scale: Scale) -> Settings:
    """Return the settings with missing values filled in.

    The learning rate and ``l2`` adapt to the scale of pixels or features. The learning rate of
    gradient descent and SGD is a constant of the loss over the curvature, and lower for few rows.
    The rule was tuned on MNIST and on 4,000 images of CIFAR-10, for accuracy on new rows after the
    default schedule. The rule of `optim.learning_rate` differs: it estimates the longest steps that
    do not raise the loss, and knows neither the schedule nor the number of epochs. ``l2`` is the
    squared length over ``2 * 4**2 * N``: a normal prior on ``W`` under which scores have a standard
    deviation of 4. Adam, whose steps depend less on the scale, starts from 1e-3.
    """
    l2 = scale.squared_length / (2.0 * _PRIOR_DEVIATION**2 * scale.n_rows)
    filled = dict(_METHOD_DEFAULTS.get(settings.optimizer, _OTHER_DEFAULTS), l2=two_digits(l2))
    batch_size = settings.batch_size or filled.get("batch_size")
    if "epochs" in filled and batch_size:
        enough = math.ceil(_LEAST_STEPS * batch_size / scale.n_rows)
        filled["epochs"] = max(filled["epochs"], float(enough))
    if settings.epochs is not None or settings.steps is not None:
        filled = {name: value for name, value in filled.items() if name not in ("epochs", "steps")}
    if settings.line_search:
        filled.pop("momentum", None)
    if settings.optimizer == "adam":
        filled["lr"] = ADAM_RATE
    elif "lr" in _parameters(settings.optimizer):
        constant = _LR_CURVATURES.get(name_of(get_loss(settings.loss)), _LR_CURVATURES_ELSE)
        share = min(max(scale.n_rows, _FEW_ROWS), _MANY_ROWS) / _MANY_ROWS
        filled["lr"] = two_digits(constant * share / scale.curvature)
    missing = {name: value for name, value in filled.items() if getattr(settings, name) is None}
    return replace(settings, **missing)


def _parameters(optimizer: str) -> tuple[str, ...]:
    return tuple(f.name for f in fields(get_method(optimizer)))  # type: ignore[arg-type]


_METHOD_SETTINGS = ("lr", "batch_size", "momentum", "nesterov", "line_search", "schedule")


def make_method(settings: Settings, n_rows: int = 1) -> Method:
    """Return the method with its parameters, from filled-in settings, for ``n_rows`` rows.

    Raises
    ------
    ValueError : a parameter that the method does not take, or an invalid value.
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
        # A schedule spans epochs, so convert a limit in steps.
        limits = [settings.epochs or math.inf]
        if settings.steps is not None:
            limits.append(settings.steps / _steps_per_epoch(settings, n_rows))
        given["schedule"] = SCHEDULES[given["schedule"]](min(limits))
    return type(get_method(settings.optimizer))(**given)


def total_steps(settings: Settings, n_rows: int) -> int:
    """Return the largest number of steps in a run with filled-in settings."""
    limits = [settings.steps] if settings.steps is not None else []
    if settings.epochs is not None:
        limits.append(math.ceil(settings.epochs * _steps_per_epoch(settings, n_rows)))
    return min(limits)


def _steps_per_epoch(settings: Settings, n_rows: int) -> int:
    if settings.batch_size is None:
        return 1
    return -(-n_rows // min(settings.batch_size, n_rows))


def short(value: object) -> str:
    """Return a setting as text, floats to four digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)

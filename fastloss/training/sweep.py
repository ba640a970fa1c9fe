"""Sweeps: train with many settings at once, each on one thread."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, suppress
from dataclasses import dataclass, fields, replace
from itertools import product
from threading import Event
from typing import Any, TypeAlias, get_args, get_type_hints

import numpy as np

from fastloss.optim import DivergedError, Result
from fastloss.settings import threads_to_use
from fastloss.threads import blas_threads
from fastloss.training.problem import Prepared, fit
from fastloss.training.settings import Settings, make_method


@dataclass(frozen=True)
class Choices:
    """A list of values to try."""

    values: tuple[Any, ...]

    def draw(self, rng: np.random.Generator) -> Any:
        """Draw one value, all with the same probability."""
        return self.values[rng.integers(len(self.values))]


@dataclass(frozen=True)
class Range:
    """A range of numbers to draw from, uniformly, or uniformly in the logarithm (``log``)."""

    low: float
    high: float
    log: bool
    whole: bool

    def draw(self, rng: np.random.Generator) -> float | int:
        """Draw a number and round it to three digits, or to an integer if ``whole``."""
        if self.log:
            value = math.exp(rng.uniform(math.log(self.low), math.log(self.high)))
        else:
            value = rng.uniform(self.low, self.high)
        if self.whole:
            return min(max(round(value), math.ceil(self.low)), math.floor(self.high))
        return min(max(float(f"{value:.3g}"), self.low), self.high)


Sweep: TypeAlias = dict[str, Choices | Range]

_DEFAULT_TRIALS = 20
_SWEPT = tuple(f.name for f in fields(Settings))
_GRAMMAR = "name=a|b|c, name=low:high or name=low:high:log, separated by commas"


def parse_sweep(text: str) -> Sweep:
    """Parse the values to try for each setting, as in ``"lr=0.01:1:log,l2=1e-5|1e-4|1e-3"``.

    ``a|b|c`` is a list. ``low:high`` is a range with uniform draws; ``:log`` makes its logarithm
    uniform. Names are fields of `Settings`.

    Raises
    ------
    ValueError : an unknown name, a value of the wrong type, or other text.

    Examples
    --------
    >>> parse_sweep("l2=1e-4|1e-3")
    {'l2': Choices(values=(0.0001, 0.001))}
    """
    sweep: Sweep = {}
    for item in text.split(","):
        name, separator, values = (part.strip() for part in item.partition("="))
        name = name.replace("-", "_")
        if not (separator and name and values):
            raise ValueError(f"a sweep reads {_GRAMMAR}; got {item.strip()!r}")
        if name not in _SWEPT:
            raise ValueError(f"unknown sweep parameter {name!r}; known: {', '.join(_SWEPT)}")
        if name in sweep:
            raise ValueError(f"the sweep names {name} twice")
        sweep[name] = _parse_range(name, values) if ":" in values else _parse_list(name, values)
    return sweep


def _kind(name: str) -> type:
    """Return the type of a setting that is not None."""
    hint = get_type_hints(Settings)[name]
    return next((kind for kind in get_args(hint) if kind is not type(None)), hint)


def _parse_value(name: str, text: str) -> Any:
    kind = _kind(name)
    try:
        if kind is bool:
            return {"true": True, "false": False}[text.lower()]
        return kind(text)
    except (KeyError, ValueError):
        raise ValueError(f"sweep: {name}={text} is not {_KIND_NAMES[kind]}") from None


_KIND_NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "a name"}


def _parse_list(name: str, text: str) -> Choices:
    values = tuple(_parse_value(name, value.strip()) for value in text.split("|"))
    for value in values:
        replace(Settings(), **{name: value})
    return Choices(tuple(dict.fromkeys(values)))


def _parse_range(name: str, text: str) -> Range:
    low_text, high_text, *scale = (part.strip() for part in text.split(":"))
    kind = _kind(name)
    if kind not in (int, float) or scale not in ([], ["log"]):
        raise ValueError(f"a sweep reads {_GRAMMAR}; got {name}={text}")
    low, high = _parse_value(name, low_text), _parse_value(name, high_text)
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"sweep: {name}={text} is not a range from a number to a higher one")
    if scale and low <= 0:
        raise ValueError(f"sweep: {name}={text} has no logarithm at {low_text}")
    return Range(low, high, bool(scale), kind is int)


def plan_trials(sweep: Sweep, base: Settings, n_trials: int | None = None) -> list[Settings]:
    """Return the settings of each trial: the whole grid of lists, or random draws.

    With a range, ``n_trials`` points are drawn (default: 20). Without one, they are drawn from the
    grid if it has more points. The draws depend on the seed alone.
    """
    lists = [choice.values for choice in sweep.values() if isinstance(choice, Choices)]
    if len(lists) == len(sweep):
        points = [dict(zip(sweep, values, strict=True)) for values in product(*lists)]
        if n_trials is not None and n_trials < len(points):
            order = np.random.default_rng(base.seed).permutation(len(points))[:n_trials]
            points = [points[i] for i in np.sort(order)]
    else:
        points = [
            {
                name: choice.draw(np.random.default_rng([base.seed, k, i]))
                for i, (name, choice) in enumerate(sweep.items())
            }
            for k in range(n_trials or _DEFAULT_TRIALS)
        ]
    return [replace(base, **point) for point in points]


_NOT_BEGUN = "interrupted before it began"


@dataclass(frozen=True)
class Trial:
    """One run of a sweep; ``result`` is None if it diverged or never began, as ``failure`` says."""

    number: int
    settings: Settings
    result: Result | None = None
    failure: str = ""

    @property
    def accuracy(self) -> float:
        """Accuracy on the validation rows of the weights that are kept; NaN without a result."""
        if self.result is None:
            return math.nan
        accuracy = self.result.record.validation_accuracy
        return math.nan if accuracy is None else accuracy

    @property
    def complete(self) -> bool:
        """Whether the trial ended without an interrupt."""
        if self.result is None:
            return self.failure != _NOT_BEGUN
        return self.result.why != "callback"

    @property
    def order(self) -> tuple[float, float, int]:
        """Sort key, best first: highest accuracy, then lowest loss, then lowest number."""
        if self.result is None:
            return math.inf, math.inf, self.number
        return -self.accuracy, self.result.loss, self.number


def run_sweep(
    prepared: Prepared,
    trials: Sequence[Settings],
    *,
    n_threads: int | None = None,
    progress: Callable[[str, int], None] = lambda message, done: None,
) -> list[Trial]:
    """Train with each of the filled-in settings; return the trials, best first.

    ``n_threads`` trials run at once, each on one thread; results do not depend on that number. An
    interrupt ends running trials at their next record and keeps their results.
    """
    if prepared.X_validation is None:
        raise ValueError("a sweep needs validation rows to choose by, got validation=0")
    for settings in trials:
        make_method(settings)
    if not trials:
        return []
    stop = Event()
    finished = [Trial(*trial, failure=_NOT_BEGUN) for trial in enumerate(trials)]

    def run(number: int) -> None:
        # Store the result here: in the main thread an interrupt could lose it.
        settings = trials[number]
        if stop.is_set():
            return
        try:
            result = fit(prepared, settings, n_threads=1, callback=lambda record: stop.is_set())
        except DivergedError as error:
            finished[number] = Trial(number, settings, failure=str(error))
        else:
            finished[number] = Trial(number, settings, result)

    n_at_once = min(threads_to_use(n_threads), len(trials))
    with ExitStack() as stack:
        # One limit around all trials: it holds for all threads, and changing it takes time.
        stack.enter_context(blas_threads(1))
        pool = stack.enter_context(ThreadPoolExecutor(n_at_once, thread_name_prefix="trial"))
        stack.callback(stop.set)  # an error in one trial ends the others
        try:
            _follow([pool.submit(run, number) for number in range(len(trials))], finished, progress)
        except KeyboardInterrupt:
            stop.set()
            with suppress(KeyboardInterrupt):  # ignore a second Ctrl-C
                pool.shutdown()
    return sorted(finished, key=lambda trial: trial.order)


def _follow(
    futures: list[Future[None]], trials: Sequence[Trial], progress: Callable[[str, int], None]
) -> None:
    """Report progress until all trials are finished; raise the error of a trial."""
    waiting = set(futures)
    while waiting:
        done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
        for future in done:
            future.result()
        best, n_finished = min(trials, key=lambda trial: trial.order), len(futures) - len(waiting)
        progress(f"best of {n_finished}: {best.accuracy:.1%}", n_finished)

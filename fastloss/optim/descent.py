"""Methods that step along the gradient, of all rows or of a batch.

A method on all rows evaluates after its step, so that loss and gradient at ``W`` are known. A
method on batches evaluates the next batch before its step.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np

from fastloss.arrays import Floats, as_bool, as_integer, as_real, convert
from fastloss.optim.base import (
    Method,
    Setting,
    State,
    Stop,
    squared_norm,
    stepped,
)
from fastloss.optim.function import Batches, Function, RowsFunction
from fastloss.optim.learning_rate import ADAM_RATE, OTHER_RATE, adam_rate, gradient_rate
from fastloss.optim.schedules import Constant, Schedule

Memory = tuple[Floats, ...]

# Armijo's condition: a step must gain this fraction of the decrease that the slope predicts.
_SUFFICIENT = 1e-4
_SHRINK = 0.5
_GROW = 2.0


class _FirstOrder(Method):
    """Base class of rules that turn a gradient into a step, on all rows or on batches."""

    lr: float | None
    schedule: Schedule

    def completed(self, function: Function, W: Floats) -> Method:
        if self.lr is not None:
            return self
        return replace(self, lr=self.default_rate(function, W))  # type: ignore[type-var]

    @property
    def n_averaged(self) -> float | None:
        """Number of rows whose gradients a step averages; None: all rows."""
        return None

    def default_rate(self, function: Function, W: Floats) -> float:
        """Return the learning rate for ``lr=None``."""
        if not isinstance(function, RowsFunction):
            return OTHER_RATE
        return gradient_rate(function.objective, W.shape[1], self.n_averaged)

    @abstractmethod
    def memory(self, W: Floats) -> Memory:
        """Return the arrays that the rule keeps between steps, at the start."""

    @abstractmethod
    def update(
        self, W: Floats, gradient: Floats, memory: Memory, lr: float, step: int
    ) -> tuple[Floats, Memory]:
        """Return ``W`` and the memory after a step (counted from 1) with this learning rate."""

    def start(self, setting: Setting, W: Floats) -> State:
        if setting.batches is not None:
            return State(0, W, np.nan, memory=self.memory(W))
        return State(0, W, *setting.function.value_and_gradient(W), memory=self.memory(W))

    def take_step(self, setting: Setting, state: State) -> State:
        # float(): a NumPy scalar from the schedule would change the types of lr and ``W``.
        assert self.lr is not None  # see `completed`
        lr = self.lr * float(self.schedule(state.step / setting.steps_per_epoch))
        loss, gradient = state.loss, state.gradient
        if setting.batches is not None:
            loss, gradient = setting.batches.value_and_gradient(state.W, state.step)
        assert gradient is not None
        W, memory = self.update(state.W, gradient, state.memory, lr, state.step + 1)
        if setting.batches is None:
            loss, gradient = setting.function.value_and_gradient(W)
        return State(state.step + 1, W, loss, gradient, memory, lr)


def momentum_update(
    W: Floats, gradient: Floats, memory: Memory, lr: float, momentum: float, nesterov: bool
) -> tuple[Floats, Memory]:
    """Return ``W`` and the memory after a step as in `SGD`.

    The memory holds the velocity, or nothing without momentum.
    """
    if not momentum:
        return W - lr * gradient, ()
    velocity = momentum * memory[0]
    velocity -= lr * gradient
    if nesterov:
        return W + (momentum * velocity - lr * gradient), (velocity,)
    return W + velocity, (velocity,)


def _convert_lr(method: GradientDescent | SGD | Adam) -> None:
    if method.lr is not None:
        convert(method, "lr", as_real, above=0.0)


def _convert_momentum(method: GradientDescent | SGD) -> None:
    convert(method, "momentum", as_real, below=1.0)
    convert(method, "nesterov", as_bool)
    if method.nesterov and not method.momentum:
        raise ValueError("nesterov=True needs momentum > 0")


@dataclass(frozen=True)
class GradientDescent(_FirstOrder):
    """Gradient descent on all rows: the rule of `SGD`, or with ``line_search``::

        W <- W - t g,   t halved until   f(W - t g) <= f(W) - 1e-4 t |g|^2

    The line search backtracks until Armijo's condition holds (Nocedal and Wright, *Numerical
    Optimization*, algorithm 3.1). The first t is ``lr`` (None: as in `SGD`). Each later search
    starts from the last t, or from twice that if the last t was accepted without halving. The line
    search takes neither momentum nor a schedule.
    """

    name: ClassVar[str] = "gradient_descent"

    lr: float | None = None
    momentum: float = 0.0
    nesterov: bool = False
    line_search: bool = False
    schedule: Schedule = field(default_factory=Constant)

    def __post_init__(self) -> None:
        _convert_lr(self)
        _convert_momentum(self)
        convert(self, "line_search", as_bool)
        if self.line_search and self.momentum:
            raise ValueError("line_search=True takes no momentum: it needs a direction of descent")
        if self.line_search and self.schedule != Constant():
            raise ValueError("line_search=True takes no schedule: it finds each step size itself")

    def memory(self, W: Floats) -> Memory:
        if self.line_search:
            return (np.array(self.lr),)
        return (np.zeros_like(W),) if self.momentum else ()

    def update(
        self, W: Floats, gradient: Floats, memory: Memory, lr: float, step: int
    ) -> tuple[Floats, Memory]:
        return momentum_update(W, gradient, memory, lr, self.momentum, self.nesterov)

    def take_step(self, setting: Setting, state: State) -> State:
        if self.line_search:
            return _backtrack(state, setting)
        return super().take_step(setting, state)


def _backtrack(state: State, setting: Setting) -> State:
    """Take one step with a line search; the memory holds the first step size to try."""
    assert state.gradient is not None
    first = lr = float(state.memory[0])
    descent = squared_norm(state.gradient)
    while True:
        W = state.W - lr * state.gradient
        if np.array_equal(W, state.W):
            raise Stop("stalled", "no step along the gradient lowers the loss")
        setting.check_time()
        loss, gradient = setting.function.value_and_gradient(W)
        # The first test matters if the required gain is lost in rounding.
        if loss < state.loss and loss <= state.loss - _SUFFICIENT * lr * descent:
            following = np.array(_GROW * lr if lr == first else lr)
            return stepped(
                state, W=W, loss=loss, gradient=gradient, memory=(following,), learning_rate=lr
            )
        lr *= _SHRINK


@dataclass(frozen=True)
class SGD(_FirstOrder):
    """Minibatch stochastic gradient descent, with optional momentum::

        v <- momentum v - lr g
        W <- W + v,   or with Nesterov's momentum   W <- W + momentum v - lr g

    ``g`` is the gradient of the next ``batch_size`` rows. Each epoch visits all rows, in a new
    random order unless ``shuffle=False``. A step copies the rows of its batch, never all of ``X``.
    Large rows of a memory-mapped file are shuffled by blocks, see `optim.orders`.
    Source: CS231n, "Neural Networks Part 3: parameter updates".

    Parameters
    ----------
    lr : learning rate > 0, multiplied by ``schedule(epoch)``. None: a rate from the mean size of
        the rows, see `optim.learning_rate` (0.1 if ``f`` is a callable). Rare rows that are much
        longer may need a lower rate. If features differ much in size, it is slow for the small
        ones: divide columns by their standard deviation first.
    batch_size : rows in a step; at most all rows are used.
    momentum : in [0, 1).
    """

    name: ClassVar[str] = "sgd"

    lr: float | None = None
    batch_size: int = 256
    momentum: float = 0.0
    nesterov: bool = False
    schedule: Schedule = field(default_factory=Constant)
    shuffle: bool = True

    def __post_init__(self) -> None:
        _convert_lr(self)
        convert(self, "batch_size", as_integer, least=1)
        convert(self, "shuffle", as_bool)
        _convert_momentum(self)

    def batches_of(self, function: Function, seed: int) -> Batches | None:
        return Batches(function, self.batch_size, self.shuffle, seed)

    @property
    def n_averaged(self) -> float:
        return self.batch_size * (1.0 - self.momentum)

    def memory(self, W: Floats) -> Memory:
        return (np.zeros_like(W),) if self.momentum else ()

    def update(
        self, W: Floats, gradient: Floats, memory: Memory, lr: float, step: int
    ) -> tuple[Floats, Memory]:
        return momentum_update(W, gradient, memory, lr, self.momentum, self.nesterov)


@dataclass(frozen=True)
class Adam(_FirstOrder):
    """Adam, on batches, or on all rows with ``batch_size=None``::

        m <- beta1 m + (1 - beta1) g
        v <- beta2 v + (1 - beta2) g^2
        W <- W - lr (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps)

    t counts the steps from 1. Batches and ``lr`` are as in `SGD`, but ``lr=None`` means 1e-3, up
    to 0.1 for features smaller than 1, or less where a step would change typical scores by more
    than one.
    Source: Kingma and Ba, *Adam: a method for stochastic optimization*, 2015.
    """

    name: ClassVar[str] = "adam"

    lr: float | None = None
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    batch_size: int | None = 256
    schedule: Schedule = field(default_factory=Constant)
    shuffle: bool = True

    def __post_init__(self) -> None:
        _convert_lr(self)
        convert(self, "eps", as_real, above=0.0)
        convert(self, "beta1", as_real, below=1.0)
        convert(self, "beta2", as_real, below=1.0)
        convert(self, "shuffle", as_bool)
        if self.batch_size is not None:
            convert(self, "batch_size", as_integer, least=1)

    def batches_of(self, function: Function, seed: int) -> Batches | None:
        if self.batch_size is None:
            return None
        return Batches(function, self.batch_size, self.shuffle, seed)

    def default_rate(self, function: Function, W: Floats) -> float:
        return adam_rate(function.objective) if isinstance(function, RowsFunction) else ADAM_RATE

    def memory(self, W: Floats) -> Memory:
        return np.zeros_like(W), np.zeros_like(W)

    def update(
        self, W: Floats, gradient: Floats, memory: Memory, lr: float, step: int
    ) -> tuple[Floats, Memory]:
        m = self.beta1 * memory[0]
        m += (1.0 - self.beta1) * gradient
        v = self.beta2 * memory[1]
        v += (1.0 - self.beta2) * np.square(gradient)
        # Correct the bias of v in scalars, outside the fraction: dividing v would take a pass.
        correction = math.sqrt(1.0 - self.beta2**step)
        change = np.sqrt(v)
        change += self.eps * correction
        np.divide(m, change, out=change)
        change *= -lr * correction / (1.0 - self.beta1**step)
        change += W
        return change, (m, v)

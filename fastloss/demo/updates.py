"""Update the weights once, by the chosen optimizer and the chosen kind of gradient."""

from __future__ import annotations

import time

import numpy as np

from fastloss.arrays import Floats
from fastloss.demo.messages import MessageError
from fastloss.demo.state import MOST_WEIGHT, State
from fastloss.numerical import numerical_gradient
from fastloss.objective import Objective
from fastloss.optim.descent import GradientDescent
from fastloss.optim.searches import RandomLocalSearch

_MOMENTUM = 0.9


def update(state: State, objective: Objective) -> None:
    """Change the weights by one update, and count its loss evaluations and seconds.

    Raises `MessageError`, and changes nothing, if a weight would leave the limits.
    """
    start = time.perf_counter()
    if state.settings.optimizer == "random_local_search":
        W, evaluations = _searched(state, objective)
        memory = state.memory
    else:
        lr = state.settings.lr
        momentum = _MOMENTUM if state.settings.optimizer == "momentum" else 0.0
        method = GradientDescent(lr=lr, momentum=momentum)
        rows = objective
        if state.settings.optimizer == "sgd":
            rows = objective.batch([_next_point(state)])
        gradient, evaluations = gradient_of(rows, state.W, state.settings.gradient)
        memory = state.memory or method.memory(state.W)
        W, memory = method.update(state.W, gradient, memory, lr, state.n_updates + 1)
    seconds = time.perf_counter() - start
    if not np.abs(W).max() <= MOST_WEIGHT:
        raise MessageError(
            f"the update would make a weight larger than {MOST_WEIGHT:g}: the loss diverges; lower "
            "the step size or the L2 strength"
        )
    state.record(objective.loss(state.W))
    state.W, state.memory = np.asarray(W, np.float64), memory
    state.n_updates += 1
    state.evaluations, state.seconds = evaluations, seconds


def gradient_of(objective: Objective, W: Floats, kind: str) -> tuple[Floats, int]:
    """Return the gradient of a kind of `state.GRADIENTS`, and the loss evaluations it took.

    An incremental evaluation recomputes one column of the scores, the others all of them.
    """
    if kind == "analytic":
        return objective(W)[1], 1
    if kind == "incremental":
        return numerical_gradient(objective, W, method="incremental"), 2 * W.size
    evaluations = 0

    def loss(at: Floats) -> float:
        nonlocal evaluations
        evaluations += 1
        return objective.loss(at)

    return numerical_gradient(loss, W), evaluations


def _searched(state: State, objective: Objective) -> tuple[Floats, int]:
    """Return the weights after one try of a random step, and the evaluations."""
    noise = state.rng.standard_normal(state.W.shape)
    candidate = RandomLocalSearch(step=state.settings.lr).candidate(state.W, noise)
    return (candidate if objective.loss(candidate) < objective.loss(state.W) else state.W), 2


def _next_point(state: State) -> int:
    """Return the next point of this epoch, which visits all points in a random order."""
    if not state.order:
        state.order = state.rng.permutation(len(state.points)).tolist()
    return state.order.pop()

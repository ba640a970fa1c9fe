"""L-BFGS: a quasi-Newton method that remembers the last pairs of steps and gradient changes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastloss.arrays import Floats, as_integer, convert, ieee_arithmetic
from fastloss.optim.base import Method, Setting, State, Stop, squared_norm, stepped
from fastloss.optim.line_search import LineSearch
from fastloss.optim.pairs import Pairs, Room
from fastloss.optim.vectors import dot, moved

# Relative decrease below which the loss counts as converged, as in scikit-learn.
_SMALLEST_DECREASE = 64 * float(np.finfo(np.float64).eps)


@dataclass(frozen=True)
class LBFGS(Method):
    """L-BFGS on all rows::

        W <- W + t d,   d = -H g

    H approximates the inverse Hessian from the last ``memory`` pairs of steps and gradient changes
    (see `optim.pairs`), and t satisfies the strong Wolfe conditions (see `optim.line_search`). The
    first t tried is 1, and in the first step 1 / |g|. Rules and constants are those of L-BFGS-B
    without bounds, the method of SciPy and scikit-learn. A pair without positive curvature is
    left out. A search that fails is repeated once along -g, with an empty memory, unless the step
    promises less than rounding.

    All arithmetic on arrays is in the type of ``W``. Apart from its evaluations, a step reads the
    pairs twice. They take the memory of ``4 * memory`` arrays like ``W`` at most.

    Sources: Liu and Nocedal, *On the limited memory BFGS method for large scale optimization*,
    1989; Zhu, Byrd, Lu and Nocedal, *Algorithm 778: L-BFGS-B*, 1997.

    Parameters
    ----------
    memory : number of pairs kept.
    max_line_search : most evaluations in a line search.
    """

    name: ClassVar[str] = "lbfgs"

    memory: int = 10
    max_line_search: int = 50

    def __post_init__(self) -> None:
        for name in ("memory", "max_line_search"):
            convert(self, name, as_integer, least=1)

    def start(self, setting: Setting, W: Floats) -> State:
        loss, gradient = setting.function.value_and_gradient(W)
        return State(0, W, loss, gradient, _memory(Pairs.none(gradient.ravel()), math.nan))

    def take_step(self, setting: Setting, state: State) -> State:
        return self._take_step(setting, state, Room(self.memory, _pairs_of(state)))

    def advance(self, setting: Setting, state: State, commit: Callable[[State], None]) -> None:
        # All steps share the room. With `take_step`, each would copy the newer pairs.
        room = Room(self.memory, _pairs_of(state))
        while True:
            with ieee_arithmetic():
                state = self._take_step(setting, state, room)
            commit(state)

    def _take_step(self, setting: Setting, state: State, room: Room) -> State:
        _check_decrease(state)
        pairs, n_threads = _pairs_of(state), setting.function.n_threads
        path = _Path.of(state, pairs, n_threads)
        found = self._search(setting, state, path, n_threads)
        if found is None and len(pairs):
            _check_rounding(state, path)
            pairs = Pairs.none(path.direction)
            path = _Path.of(state, pairs, n_threads)
            found = self._search(setting, state, path, n_threads)
        if found is None:
            raise Stop("stalled", "no step along the gradient lowers the loss")
        new, slope = found
        before, after = _vectors(state), _vectors(new)
        if path.is_curved(slope):
            pairs = room.add(pairs, before, after, n_threads)
        elif len(pairs):
            pairs = pairs.at(after[1], n_threads)
        return replace(new, memory=_memory(pairs, state.loss))

    def _search(
        self, setting: Setting, state: State, path: _Path, n_threads: int
    ) -> tuple[State, float] | None:
        """Return the state that a line search accepts, with the slope there; None if it fails.

        The memory of the state is still that of ``state``.
        """
        if not -math.inf < path.slope < 0.0:
            return None
        search = LineSearch(state.loss, path.slope, path.first_step)
        for _ in range(self.max_line_search):
            flat = moved(_vectors(state)[0], search.step, path.direction, n_threads)
            W = flat.reshape(state.W.shape)
            if search.step < path.first_step and np.array_equal(W, state.W):
                return None
            setting.check_time()
            loss, gradient = setting.function.value_and_gradient(W)
            slope = dot(gradient.ravel(), path.direction, n_threads)
            if not math.isfinite(slope) and loss <= state.loss:
                search.is_done = True  # the run reports a gradient that is not finite
            elif not (math.isfinite(slope) and math.isfinite(loss)):
                search.shorten()
            else:
                search.tell(loss, slope)
            if search.is_done:
                # Rounding can end a search at a step that raises the loss.
                if loss > state.loss:
                    return None
                return stepped(state, W=W, loss=loss, gradient=gradient), slope
        return None


class _Path(NamedTuple):
    """A line to search along."""

    direction: Floats  # (P,)
    slope: float  # of the loss at the start
    first_step: float

    @classmethod
    def of(cls, state: State, pairs: Pairs, n_threads: int) -> _Path:
        """Return the quasi-Newton direction, or without pairs the one of steepest descent."""
        _, gradient = _vectors(state)
        if len(pairs):
            direction, first = pairs.direction(gradient, n_threads), 1.0
        else:
            # Of length 1, so that products with large gradients do not overflow; scaled first, so
            # that squares of entries do not overflow or vanish.
            largest = float(np.abs(gradient).max())
            scaled = gradient / largest
            norm = math.sqrt(squared_norm(scaled))
            direction = scaled * (-1.0 / norm)
            first = 1.0 if state.step == 0 else min(1.0, largest * norm)
        return cls(direction, dot(gradient, direction, n_threads), first)

    def is_curved(self, slope: float) -> bool:
        """Return whether the slope rose to ``slope`` by more than rounding, as in L-BFGS-B."""
        eps = float(np.finfo(self.direction.dtype).eps)
        return slope - self.slope > eps * -self.slope


def _vectors(state: State) -> tuple[Floats, Floats]:
    """Return ``W`` and the gradient as vectors (P,)."""
    assert state.gradient is not None
    return state.W.ravel(), state.gradient.ravel()


def _memory(pairs: Pairs, loss_before: float) -> tuple[NDArray[Any], ...]:
    """Return the arrays that a state keeps; ``loss_before`` is the loss before its step."""
    return *pairs.arrays(), np.array(loss_before)


def _pairs_of(state: State) -> Pairs:
    return Pairs(*state.memory[:-1])


def _check_decrease(state: State) -> None:
    """Raise `Stop` if the last step hardly lowered the loss."""
    before = float(state.memory[-1])
    decrease = before - state.loss
    # The loss before the first step is NaN, and the test False.
    if decrease <= _SMALLEST_DECREASE * max(abs(before), abs(state.loss), 1.0):
        message = f"step {state.step} lowered the loss by only {decrease:.3g}"
        raise Stop("converged", message)


def _check_rounding(state: State, path: _Path) -> None:
    """Raise `Stop` if the model of the loss has its minimum within rounding of the loss."""
    gain = -0.5 * path.slope
    dtype = path.direction.dtype
    if 0.0 <= gain <= np.finfo(dtype).eps * max(abs(state.loss), 1.0):
        message = f"a step would lower the loss by about {gain:.1g}, less than rounding in {dtype}"
        raise Stop("converged", message)

"""L-BFGS, by SciPy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fastloss.arrays import Floats, as_integer, convert, ieee_arithmetic
from fastloss.optim.base import Method, Setting, State, Stop, stepped
from fastloss.threads import blas_threads
from fastloss.version import install_extra

# The run has its own limits. SciPy's must fit a C int.
_NO_LIMIT = 2**31 - 1
# Relative decrease below which the loss counts as converged, as in scikit-learn.
_SMALLEST_DECREASE = 64 * np.finfo(np.float64).eps


@dataclass(frozen=True)
class LBFGS(Method):
    """L-BFGS-B of SciPy, without bounds; a step is one of its iterations.

    SciPy works in float64; the loss is evaluated in the type of ``W``. SciPy's memory of earlier
    gradients cannot be stored. So a resumed run continues from the last ``W`` with an empty memory,
    and does not give the bits of an uninterrupted run.
    Source: Zhu, Byrd, Lu and Nocedal, *Algorithm 778: L-BFGS-B*, 1997.

    Parameters
    ----------
    memory : number of pairs of steps and gradient changes kept.
    max_line_search : most evaluations in a line search.
    """

    name: ClassVar[str] = "lbfgs"

    memory: int = 10
    max_line_search: int = 50

    def __post_init__(self) -> None:
        for name in ("memory", "max_line_search"):
            convert(self, name, as_integer, least=1)

    def start(self, setting: Setting, W: Floats) -> State:
        _scipy_minimize()  # raises before the first evaluation if SciPy is missing
        return State(0, W, *setting.function.value_and_gradient(W))

    def take_step(self, setting: Setting, state: State) -> State:
        raise NotImplementedError("SciPy takes the steps: see advance")

    def advance(self, setting: Setting, state: State, commit: Callable[[State], None]) -> None:
        shape, dtype = state.W.shape, state.W.dtype
        latest = state  # the last evaluation

        def evaluate(w: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
            nonlocal latest
            W = w.reshape(shape).astype(dtype)
            if not np.array_equal(W, latest.W):
                setting.check_time()
                loss, gradient = setting.function.value_and_gradient(W)
                latest = State(latest.step, W, loss, gradient)
            assert latest.gradient is not None
            return latest.loss, latest.gradient.ravel().astype(np.float64)

        def after_iteration(w: NDArray[np.float64]) -> None:
            nonlocal state
            evaluate(w)
            assert latest.gradient is not None
            state = stepped(state, W=latest.W, loss=latest.loss, gradient=latest.gradient)
            commit(state)

        options = {
            "maxcor": self.memory,
            "maxls": self.max_line_search,
            "maxiter": _NO_LIMIT,
            "maxfun": _NO_LIMIT,
            "ftol": _SMALLEST_DECREASE,
            "gtol": setting.tolerance,
        }
        minimize = _scipy_minimize()
        # SciPy brings its own BLAS, whose threads spin after each of its many small calls. That
        # slows down a compiled loss between the calls by half.
        blas = blas_threads(setting.function.blas_threads, look_again=True)
        with blas, ieee_arithmetic():
            end = minimize(
                evaluate,
                state.W.ravel().astype(np.float64),
                jac=True,
                method="L-BFGS-B",
                callback=after_iteration,
                options=options,
            )
        message = f"SciPy: {str(end.message).strip()}"
        raise Stop("converged" if end.success else "stalled", message)


def _scipy_minimize() -> Callable[..., Any]:
    try:
        from scipy.optimize import minimize
    except ImportError:
        raise ImportError(
            f"lbfgs needs SciPy, which is not installed: {install_extra('optim')}"
        ) from None
    return minimize

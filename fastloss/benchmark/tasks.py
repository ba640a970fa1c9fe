"""The timed calls: picklable descriptions, with their arrays in a folder."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from fastloss.arrays import Floats
from fastloss.backends import available_backends, register_backend
from fastloss.backends.background import compilations
from fastloss.backends.base import Backend
from fastloss.benchmark.results import Kind
from fastloss.files import named
from fastloss.losses.base import Loss
from fastloss.numerical import numerical_gradient
from fastloss.objective import Objective

LossAndGrad = Callable[[Floats, NDArray[Any], NDArray[np.int64]], tuple[float, Floats]]


@dataclass(frozen=True)
class Inputs:
    """``X``, ``y`` and ``W`` in a folder, loaded once per process."""

    folder: str

    @classmethod
    def save(cls, folder: Path, X: NDArray[Any], y: NDArray[np.int64], W: Floats) -> Inputs:
        """Write the arrays, so that all processes use the same ones."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, array in {"X": X, "y": y, "W": W}.items():
            np.save(folder / f"{name}.npy", array)
        return cls(str(folder))

    def load(self) -> tuple[NDArray[Any], NDArray[np.int64], Floats]:
        """Return ``X, y, W``."""
        return _load(self.folder)


# Keep the arrays of one problem only: they may be large.
@lru_cache(maxsize=1)
def _load(folder: str) -> tuple[NDArray[Any], NDArray[np.int64], Floats]:
    X, y, W = (np.load(Path(folder) / f"{name}.npy") for name in ("X", "y", "W"))
    return X, y, W


@dataclass(frozen=True)
class BackendTask:
    """``Objective(W)`` on one backend, over the first ``n_rows`` rows (0: all).

    The backend is pickled too, in case the worker's registry does not have it.
    """

    kind: ClassVar[Kind] = "backend"

    inputs: Inputs
    loss: Loss
    name: str
    backend: Backend
    n_rows: int = 0

    def objective(self) -> tuple[Objective, Floats]:
        """Return the objective, and the ``W`` to call it with."""
        if self.name not in available_backends():
            register_backend(self.backend, self.name)
        X, y, W = self.inputs.load()
        rows = slice(self.n_rows or len(X))
        return Objective(X[rows], y[rows], loss=self.loss, backend=self.name), W

    def bind(self) -> Callable[[], Any]:
        objective, W = self.objective()
        return partial(objective, W)


@dataclass(frozen=True)
class NumericalTask(BackendTask):
    """The numerical gradient at coordinates (K, 2), or at all of them (None)."""

    method: Literal["per_element", "incremental"] = "per_element"
    coordinates: tuple[tuple[int, int], ...] | None = None

    def bind(self) -> Callable[[], Any]:
        objective, W = self.objective()
        coordinates = None if self.coordinates is None else np.array(self.coordinates)
        return partial(
            numerical_gradient, objective, W, method=self.method, coordinates=coordinates
        )


@dataclass(frozen=True)
class AutoTask:
    """``Objective(W)`` on the backend that "auto" chooses."""

    kind: ClassVar[Kind] = "backend"

    inputs: Inputs
    loss: Loss

    def bind(self) -> Callable[[], Any]:
        X, y, W = self.inputs.load()
        objective = Objective(X, y, loss=self.loss)
        # NumPy answers until the kernels are compiled; timing starts after that.
        objective(W)
        compilations.wait()
        return partial(objective, W)


@dataclass(frozen=True)
class CandidateTask:
    """A user's function ``(W, X, y) -> (loss, dW)``, or its place ``"module:function"``."""

    kind: ClassVar[Kind] = "candidate"

    inputs: Inputs
    candidate: str | LossAndGrad

    def bind(self) -> Callable[[], Any]:
        X, y, W = self.inputs.load()
        return partial(resolve_candidate(self.candidate), W, X, y)


def resolve_candidate(candidate: str | LossAndGrad) -> LossAndGrad:
    """Return the function at ``"module:function"``; search the current folder too."""
    if callable(candidate):
        return candidate
    module_name, _, function_name = candidate.partition(":")
    if not (module_name and function_name):
        raise ValueError(f"candidate must look like 'my_module:my_function', got {candidate!r}")
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        module = import_module(module_name)
    except (Exception, SystemExit) as error:
        raise ValueError(f"candidate {candidate!r}: {named(error)}") from error
    function = getattr(module, function_name, None)
    if not callable(function):
        known = ", ".join(name for name in vars(module) if not name.startswith("_"))
        raise ValueError(f"candidate {candidate!r}: no such function; {module_name} has {known}")
    return function

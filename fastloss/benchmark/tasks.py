"""The timed calls: picklable descriptions, with their arrays in a folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from fastloss.arrays import Floats
from fastloss.backends import available_backends, register_backend
from fastloss.backends.background import compilations
from fastloss.backends.base import Backend
from fastloss.benchmark.results import Kind
from fastloss.candidates import USUAL, Candidate, Convention
from fastloss.losses.base import Loss
from fastloss.numerical import numerical_gradient
from fastloss.objective import Objective


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
    convention: Convention = USUAL

    def objective(self) -> tuple[Objective, Floats]:
        """Return the objective, and the ``W`` to call it with."""
        if self.name not in available_backends():
            register_backend(self.backend, self.name)
        X, y, W = self.inputs.load()
        rows = slice(self.n_rows or len(X))
        return self.convention.objective(X[rows], y[rows], self.loss, self.name), W

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
    convention: Convention = USUAL

    def bind(self) -> Callable[[], Any]:
        X, y, W = self.inputs.load()
        objective = self.convention.objective(X, y, self.loss)
        # NumPy answers until the kernels are compiled; timing starts after that.
        objective(W)
        compilations.wait()
        return partial(objective, W)


@dataclass(frozen=True)
class CandidateTask:
    """The bare call of a user's function."""

    kind: ClassVar[Kind] = "candidate"

    inputs: Inputs
    candidate: Candidate

    def bind(self) -> Callable[[], Any]:
        X, y, W = self.inputs.load()
        return self.candidate.bind(W, X, y)

    def portable(self, result: Any) -> Any:
        """Return loss and gradient, whatever library's numbers they are."""
        return self.candidate.result(result)

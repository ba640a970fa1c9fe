"""Compute losses and gradients of linear classifiers, on four backends.

- ``naive``: loops in plain Python.
- ``numpy``: two matrix products, and the loss on the scores between them, in blocks of rows.
- ``numba``: plain loops under ``@njit(parallel=True)``, one pass over ``X``.
- ``fused``: explicit vectors and cache blocks, one pass over ``X``; the fastest.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from fastloss.api import loss_and_grad, score_gradient
from fastloss.backends import (
    available_backends,
    register_backend,
    unavailable_backends,
    unregister_backend,
)
from fastloss.backends.base import Backend
from fastloss.explain import Explanation, explain
from fastloss.losses import available_losses, register_loss, unregister_loss
from fastloss.losses.base import Loss
from fastloss.losses.crammer_singer import CrammerSinger
from fastloss.losses.hinge import Hinge
from fastloss.losses.one_vs_all import OneVsAll
from fastloss.losses.softmax import Softmax
from fastloss.objective import Objective
from fastloss.problem import Problem
from fastloss.settings import use
from fastloss.version import __version__

if TYPE_CHECKING:
    from fastloss import benchmark, data, optim
    from fastloss.gradcheck import GradientCheck, check_gradient
    from fastloss.model import LinearModel
    from fastloss.numerical import numerical_gradient

__all__ = [
    "Backend",
    "CrammerSinger",
    "Explanation",
    "GradientCheck",
    "Hinge",
    "LinearModel",
    "Loss",
    "Objective",
    "OneVsAll",
    "Problem",
    "Softmax",
    "__version__",
    "available_backends",
    "available_losses",
    "benchmark",
    "check_gradient",
    "data",
    "explain",
    "loss_and_grad",
    "numerical_gradient",
    "optim",
    "register_backend",
    "register_loss",
    "score_gradient",
    "unavailable_backends",
    "unregister_backend",
    "unregister_loss",
    "use",
]

# Imported at first use, to keep ``import fastloss`` fast.
_LAZY_NAMES = {
    "GradientCheck": "fastloss.gradcheck",
    "LinearModel": "fastloss.model",
    "check_gradient": "fastloss.gradcheck",
    "numerical_gradient": "fastloss.numerical",
}
_LAZY_MODULES = ("benchmark", "data", "optim")


def __getattr__(name: str) -> Any:
    if name in _LAZY_MODULES:
        return import_module(f"fastloss.{name}")
    if name in _LAZY_NAMES:
        return getattr(import_module(_LAZY_NAMES[name]), name)
    raise AttributeError(f"module 'fastloss' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

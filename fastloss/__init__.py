"""Losses and gradients of linear classifiers: naive, vectorised in NumPy, compiled with Numba."""

from fastloss.api import Explanation, Objective, explain, loss_and_grad, score_gradient
from fastloss.backends import (
    available_backends,
    register_backend,
    unavailable_backends,
    unregister_backend,
)
from fastloss.backends.base import Backend, Problem
from fastloss.losses import available_losses, register_loss, unregister_loss
from fastloss.losses.base import Loss
from fastloss.losses.crammer_singer import CrammerSinger
from fastloss.losses.hinge import Hinge
from fastloss.losses.one_vs_all import OneVsAll
from fastloss.losses.softmax import Softmax
from fastloss.settings import use

__version__ = "0.1.0"

__all__ = [
    "Backend",
    "CrammerSinger",
    "Explanation",
    "Hinge",
    "Loss",
    "Objective",
    "OneVsAll",
    "Problem",
    "Softmax",
    "available_backends",
    "available_losses",
    "explain",
    "loss_and_grad",
    "register_backend",
    "register_loss",
    "score_gradient",
    "unavailable_backends",
    "unregister_backend",
    "unregister_loss",
    "use",
]

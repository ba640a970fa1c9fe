"""Minimising a loss: random search, gradient descent, SGD, Adam, L-BFGS."""

from fastloss.optim.base import Method
from fastloss.optim.descent import SGD, Adam, GradientDescent
from fastloss.optim.lbfgs import LBFGS
from fastloss.optim.methods import available_methods, get_method, register_method
from fastloss.optim.result import DivergedError, History, Record, Result
from fastloss.optim.run import minimize
from fastloss.optim.schedules import (
    Constant,
    Cosine,
    ExponentialDecay,
    InverseTime,
    Schedule,
    StepDecay,
    Warmup,
)
from fastloss.optim.searches import RandomLocalSearch, RandomSearch

__all__ = [
    "LBFGS",
    "SGD",
    "Adam",
    "Constant",
    "Cosine",
    "DivergedError",
    "ExponentialDecay",
    "GradientDescent",
    "History",
    "InverseTime",
    "Method",
    "RandomLocalSearch",
    "RandomSearch",
    "Record",
    "Result",
    "Schedule",
    "StepDecay",
    "Warmup",
    "available_methods",
    "get_method",
    "minimize",
    "register_method",
]

"""Registry of the methods."""

from __future__ import annotations

import inspect
from dataclasses import is_dataclass

from fastloss.optim.base import Method
from fastloss.optim.descent import SGD, Adam, GradientDescent
from fastloss.optim.lbfgs import LBFGS
from fastloss.optim.searches import RandomLocalSearch, RandomSearch
from fastloss.registry import Registry


def register_method(method: Method | type[Method], name: str | None = None) -> None:
    """Register a method by name: an instance, or a class to build with its defaults.

    Raises
    ------
    TypeError : not a method, or not a frozen dataclass (checkpoints compare its ``repr``).
    ValueError : the name is taken.
    """
    instance = method() if inspect.isclass(method) and issubclass(method, Method) else method
    if not isinstance(instance, Method):
        raise TypeError(f"method must be a fastloss.optim.Method, got {method!r}")
    if not (is_dataclass(instance) and type(instance).__hash__ is not None):
        raise TypeError(f"{type(instance).__name__} must be a frozen dataclass")
    _registry.add(instance.name if name is None else name, instance)


def unregister_method(name: str) -> None:
    """Remove a registered method."""
    _registry.remove(name)


def available_methods() -> tuple[str, ...]:
    """Return the names that ``method=`` accepts."""
    return tuple(_registry)


def get_method(method: str | Method) -> Method:
    """Return the method of this name, with its defaults; return an instance unchanged."""
    if isinstance(method, Method):
        return method
    if not isinstance(method, str):
        raise TypeError(f"method must be a name or a fastloss.optim.Method, got {method!r}")
    return _registry[method]


def _register_plugin(name: str, method: object) -> None:
    register_method(method, name)  # type: ignore[arg-type]  # register_method checks the type


_registry: Registry[Method] = Registry("method", "fastloss.methods", _register_plugin)

for _method in (RandomSearch, RandomLocalSearch, GradientDescent, SGD, Adam, LBFGS):
    register_method(_method)

"""Register losses by name, starting with the tables ``LOSSES`` in this package's modules."""

from __future__ import annotations

import inspect
import pkgutil
from dataclasses import is_dataclass
from importlib import import_module

from fastloss.losses.base import Loss
from fastloss.registry import Registry


def register_loss(loss: Loss | type[Loss], name: str | None = None) -> None:
    """Make a loss known by name to every backend, study and command.

    Parameters
    ----------
    loss : an instance of a `Loss` subclass, or the subclass (then built with its defaults).
    name : defaults to ``loss.name``.

    Raises
    ------
    TypeError : not a loss, or not a frozen dataclass (kernels are cached by its value).
    ValueError : the name is taken.
    """
    instance = loss() if inspect.isclass(loss) and issubclass(loss, Loss) else loss
    if not isinstance(instance, Loss):
        raise TypeError(f"loss must be a fastloss.Loss, got {loss!r}")
    if not (is_dataclass(instance) and type(instance).__hash__ is not None):
        raise TypeError(f"{type(instance).__name__} must be a frozen dataclass")
    if not isinstance(getattr(instance, "name", None), str):
        raise TypeError(f"{type(instance).__name__} must have a class variable `name`, a string")
    _registry.add(instance.name if name is None else name, instance)


def unregister_loss(name: str) -> None:
    """Remove a loss from the registry."""
    _registry.remove(name)


def available_losses() -> tuple[str, ...]:
    """Return the names that ``loss=`` accepts, sorted by each loss's ``order``."""
    return tuple(_registry)


def get_loss(loss: str | Loss) -> Loss:
    """Return the loss registered as ``loss``; return an instance unchanged."""
    if isinstance(loss, Loss):
        return loss
    if not isinstance(loss, str):
        raise TypeError(f"loss must be a name or a fastloss.Loss, got {loss!r}")
    try:
        return _registry[loss]
    except ValueError as error:
        known = _OTHER_NAMES.get(loss.lower().replace("_", "").replace("-", ""))
        if known is None:
            raise
        raise ValueError(f"{error}; {loss} is {known!r} here") from None


def name_of(loss: Loss) -> str:
    """Return the first name registered for the loss's class, or else ``loss.name``."""
    kinds = {type(_registry[name]): name for name in reversed(available_losses())}
    return kinds.get(type(loss), loss.name)


def shown_name(loss: str | Loss) -> str:
    """Return the name of a loss, or an instance with its parameters if these have no name."""
    if isinstance(loss, str):
        return loss
    return next((name for name in available_losses() if get_loss(name) == loss), repr(loss))


def _register_plugin(name: str, loss: object) -> None:
    register_loss(loss, name)  # type: ignore[arg-type]  # register_loss checks


# What others call these losses, in lower case without underscores and hyphens.
_OTHER_NAMES = {
    **dict.fromkeys(("crossentropy", "categoricalcrossentropy", "logsoftmax", "ce"), "softmax"),
    **dict.fromkeys(("svm", "multiclasssvm", "westonwatkins"), "hinge"),
}

_registry: Registry[Loss] = Registry("loss", "fastloss.losses", _register_plugin)

for _module in pkgutil.iter_modules(__path__, prefix=f"{__name__}."):
    for _name, _loss in getattr(import_module(_module.name), "LOSSES", {}).items():
        register_loss(_loss, _name)

"""Register backends by name, starting with each ``BACKEND`` in this package's modules."""

from __future__ import annotations

import inspect
import pkgutil
from importlib import import_module

from fastloss.backends.base import Backend
from fastloss.losses.base import Loss
from fastloss.registry import Registry


def register_backend(backend: Backend | type[Backend], name: str | None = None) -> None:
    """Make a backend known by name (``backend.name`` unless given).

    Raises
    ------
    TypeError : not a `Backend`, or one with abstract methods left.
    ValueError : the name is taken, or is "auto".
    """
    instance = backend() if inspect.isclass(backend) and issubclass(backend, Backend) else backend
    if not isinstance(instance, Backend):
        raise TypeError(f"backend must be a fastloss.Backend, got {backend!r}")
    key = instance.name if name is None else name
    if key == "auto":
        raise ValueError("backend name 'auto' is reserved")
    _registry.add(key, instance)


def unregister_backend(name: str) -> None:
    """Remove a backend from the registry."""
    _registry.remove(name)


def get_backend(name: str, loss: Loss | None = None) -> Backend:
    """Return the backend called ``name``; raise if it cannot run here or cannot run ``loss``."""
    if not isinstance(name, str):
        raise TypeError(f"backend must be a name, got {name!r}")
    backend = _registry[name]
    why_not = backend.unavailable(loss)
    if why_not is not None:
        raise RuntimeError(f"backend {name!r} cannot run: {why_not}")
    return backend


def registered_backends() -> dict[str, Backend]:
    """Return all backends by name, sorted by ``order``, whether or not they can run here."""
    return {name: _registry[name] for name in _registry}


def available_backends(loss: Loss | None = None) -> tuple[str, ...]:
    """Return the names of the backends that can run here (and can run ``loss``), in order."""
    backends = registered_backends().items()
    return tuple(name for name, backend in backends if backend.unavailable(loss) is None)


def unavailable_backends(loss: Loss | None = None) -> dict[str, str]:
    """Return the names of the backends that cannot run (``loss``), and the reasons."""
    backends = registered_backends().items()
    reasons = {name: backend.unavailable(loss) for name, backend in backends}
    return {name: reason for name, reason in reasons.items() if reason is not None}


def registry_version() -> int:
    """Return a number that changes whenever a backend is registered or removed."""
    return _registry.version


def _register_plugin(name: str, backend: object) -> None:
    register_backend(backend, name)  # type: ignore[arg-type]  # register_backend checks


_registry: Registry[Backend] = Registry("backend", "fastloss.backends", _register_plugin)

for _module in pkgutil.iter_modules(__path__, prefix=f"{__name__}."):
    _backend = getattr(import_module(_module.name), "BACKEND", None)
    if _backend is not None:
        register_backend(_backend)

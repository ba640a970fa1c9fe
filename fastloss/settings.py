"""Resolve settings in order: the argument, ``fastloss.use``, the environment, then "auto"."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache, partial

from fastloss.arrays import as_integer
from fastloss.backends import get_backend
from fastloss.kernels import matrix_unit
from fastloss.restoring import restoring
from fastloss.threads import available_threads

AUTO = "auto"
_VARIABLES = _BACKEND, N_THREADS = "FASTLOSS_BACKEND", "FASTLOSS_NUM_THREADS"
#: Environment variables of fastloss; others that begin with FASTLOSS_ are probably misspelt.
KNOWN_VARIABLES = (
    *(*_VARIABLES, "FASTLOSS_AMX", "FASTLOSS_CACHE_DIR", "FASTLOSS_DEBUG"),
    *("FASTLOSS_DATA", "FASTLOSS_SCREENSHOTS"),  # read by the scripts and tests of a checkout
)
# The largest integer of the thread libraries. At most as many threads start as there are CPUs.
_MOST_THREADS = 2**31 - 1


@dataclass(frozen=True)
class _Scope:
    backend: str = AUTO
    n_threads: int | None = None


_NOTHING_SET = _Scope()
_scope: ContextVar[_Scope] = ContextVar("fastloss.use", default=_NOTHING_SET)


@contextmanager
def use(*, backend: str | None = None, n_threads: int | None = None) -> Iterator[None]:
    """Choose the backend and the number of threads for all calls inside the block.

    Arguments of a call take precedence. A nested block overrides only the settings that it names.
    Python threads started inside the block do not inherit its settings (a `contextvars` variable).

    Raises
    ------
    ValueError : an unknown backend (the message lists the known ones), or ``n_threads < 1``.
    RuntimeError : a backend that cannot run here.

    Examples
    --------
    >>> import fastloss
    >>> with fastloss.use(backend="numpy", n_threads=1):
    ...     fastloss.explain(1000, 100, 10).backend
    'numpy'
    """
    outer = _scope.get()
    inner = _Scope(
        backend=outer.backend if backend is None else check_backend(backend),
        n_threads=outer.n_threads if n_threads is None else _as_n_threads("n_threads", n_threads),
    )
    with restoring(partial(_scope.set, outer)):
        _scope.set(inner)
        yield


def check_backend(backend: str) -> str:
    """Return ``backend``; raise unless it is "auto" or a backend that can run here."""
    if backend != AUTO:
        get_backend(backend)
    return backend


def environment() -> dict[str, str]:
    """Return the environment variables of fastloss that are set; reading them takes 1 us."""
    return {name: os.environ[name] for name in _VARIABLES if os.environ.get(name)}


def checked_environment() -> dict[str, str]:
    """Return `environment`; raise at a bad ``FASTLOSS_AMX``, and warn of unknown variables.

    Unknown variables are looked for once, because reading all variables takes longer.
    """
    matrix_unit.is_wanted()
    _warn_of_unknown()
    return environment()


@cache
def _warn_of_unknown() -> None:
    for name, problem in unknown_variables().items():
        warnings.warn(f"{name} is {problem}", RuntimeWarning, stacklevel=_calls_below_user())


def _calls_below_user() -> int:
    """Return the ``stacklevel`` that makes a warning of the caller name the user's line."""
    frame, level = sys._getframe(1), 1
    # NumPy's frames are the decorators around constructors.
    while frame.f_back and str(frame.f_globals.get("__name__")).startswith(("fastloss.", "numpy.")):
        frame, level = frame.f_back, level + 1
    return level


def unknown_variables() -> dict[str, str]:
    """Return the problem of each variable that begins with FASTLOSS_ and is not read."""
    known = ", ".join(sorted(KNOWN_VARIABLES))
    return {
        name: f"not read; known: {known}"
        for name in sorted(os.environ)
        if name.startswith("FASTLOSS_") and name not in KNOWN_VARIABLES
    }


def requested_backend(argument: str, environment: Mapping[str, str]) -> tuple[str, str]:
    """Return the requested backend (or "auto"), and the setting that requests it."""
    if argument != AUTO:
        return argument, "the argument backend="
    if _scope.get().backend != AUTO:
        return _scope.get().backend, "fastloss.use"
    name = environment.get(_BACKEND, AUTO)
    try:
        return check_backend(name), _BACKEND
    except (ValueError, RuntimeError) as error:
        raise type(error)(f"{_BACKEND}: {error}") from None


def requested_threads(argument: int | None, environment: Mapping[str, str]) -> int | None:
    """Return the requested number of threads; None means `threads.available_threads`."""
    if argument is not None:
        return _as_n_threads("n_threads", argument)
    if _scope.get().n_threads is not None:
        return _scope.get().n_threads
    text = environment.get(N_THREADS)
    if text is None:
        return None
    try:
        return _as_n_threads(N_THREADS, int(text) if text.isdecimal() else 0)
    except ValueError:
        raise ValueError(f"{N_THREADS} must be an integer >= 1, got {text!r}") from None


def threads_to_use(argument: int | None = None) -> int:
    """Return the requested number of threads, or else `threads.available_threads`."""
    return requested_threads(argument, environment()) or available_threads()


def _as_n_threads(name: str, value: object) -> int:
    return min(as_integer(name, value, 1), _MOST_THREADS)

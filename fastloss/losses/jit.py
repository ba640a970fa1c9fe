"""Compile functions decorated with ``@njit`` when they are first called.

Importing Numba takes 0.2 s and compiling a loss seconds, so neither happens with the package. This
module solves all difficulties with Numba, so that losses read like Numba's documentation:

(a) A function decorated with `njit` refers to its helpers by their names in its module. They are
    bound at the first call, in a copy of the function and not in a closure: Numba does not find a
    closure in its cache again from another process.
(b) Numba's cache notices a change in the file of the function it compiles, not in its helpers'.
    The names of compiled functions therefore end in a fingerprint of all they refer to.
(c) The key of Numba's cache ignores options (numba issue 6845), so the serial twin of a parallel
    function has a name of its own. A serial function never calls a parallel one (numba issue 4807).
(d) Numba compiles a function again, for seconds, for each layout and read-only flag. Here a
    function is compiled for one signature, and accepts arguments of that signature only.
(e) Numba's threads come from one of several libraries. "workqueue" aborts the process when two
    Python threads call at once, even if one of the calls is a user's. A child forked after "omp"
    has run is killed when it calls. See `threads_to_use`.
(f) Numba's ``fastmath=True`` makes ``isnan`` false. Here it stands for `FASTMATH`: sums may be
    added in any order, but NaN and infinity stay what they are.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, cached_property, partial
from operator import methodcaller
from types import FunctionType
from typing import Any, TypeVar, overload

from fastloss import kernel_cache
from fastloss.restoring import restoring

FASTMATH = {"contract", "reassoc", "nsz"}

prange: Any = range  # Numba's own in compiled code

Function = TypeVar("Function", bound=Callable[..., Any])


class Jit:
    """A function for Numba; called from Python it runs as Python.

    Attributes
    ----------
    py_func : the function itself.
    targetoptions : the options of ``numba.njit`` that it was decorated with.
    """

    def __init__(self, function: Any, options: dict[str, Any]) -> None:
        self.py_func = function
        self.targetoptions = options
        self.__name__, self.__doc__ = function.__name__, function.__doc__
        self.__module__ = function.__module__
        self._made_by: tuple[Any, ...] = Jit, (function, options)

    def __call__(self, *arguments: Any) -> Any:
        return self.py_func(*arguments)

    def __repr__(self) -> str:
        return f"<njit {self.__module__}.{self.__name__}>"

    def __reduce__(self) -> str | tuple[Any, ...]:
        """Pickle by name, as functions are; by value what has no name that another process knows.

        The latter is for joblib and cloudpickle, which can pickle the functions of a notebook.
        """
        module = sys.modules.get(self.__module__)
        is_importable = getattr(module, self.__name__, None) is self
        return self.__name__ if is_importable and self.__module__ != "__main__" else self._made_by

    def binding(self, **names: Any) -> Jit:
        """Return the function with some global names bound to other values."""
        function = self.py_func
        bound = FunctionType(
            function.__code__, {**function.__globals__, **names}, function.__name__
        )
        jit = Jit(bound, self.targetoptions)
        jit._made_by = methodcaller("binding", **names), (self,)
        return jit

    def name(self, *parts: object) -> str:
        """Return the name of the kernel that this function and ``parts`` determine."""
        stem = f"{self.py_func.__module__}_{self.__name__}"
        return kernel_cache.kernel_name(stem, self, *parts)

    def compile(self, name: str, signature: Any, *, parallel: bool) -> Callable[..., Any]:
        """Compile the function, or its serial twin, under a name, or load it from the cache."""
        from numba import njit

        options = {**self.targetoptions, "parallel": parallel}
        return kernel_cache.compile_cached(self._bound(), name, signature, njit, **options)

    @cached_property
    def _helper(self) -> Any:
        """Return the function in the form that other compiled functions call."""
        from numba import njit

        # Numba tells functions of one name apart by a count in the process. Kernels cached by
        # different processes can have the same count, and one would be linked to the other's.
        bound = self._bound()
        bound.__name__ = bound.__qualname__ = self.name()
        return njit(**self.targetoptions, error_model="numpy")(bound)

    def _bound(self) -> FunctionType:
        """Return a copy of the function that sees Numba's helpers among its globals."""
        import numba

        names = dict(self.py_func.__globals__)
        for name in self.py_func.__code__.co_names:
            if isinstance(value := names.get(name), Jit):
                names[name] = value._helper
            elif value is prange:
                names[name] = numba.prange
        return FunctionType(self.py_func.__code__, names, self.__name__)


@overload
def njit(function: Function, /) -> Jit: ...
@overload
def njit(*, parallel: bool = ..., fastmath: bool = ...) -> Callable[[Function], Jit]: ...
def njit(function: Any = None, /, *, parallel: bool = False, fastmath: bool = False) -> Any:
    """Decorate as ``numba.njit`` does, but compile later: ``@njit``, ``@njit(parallel=True)``."""

    options: dict[str, Any] = {"parallel": parallel}
    if fastmath:
        options["fastmath"] = FASTMATH

    def decorate(function: Any) -> Jit:
        return Jit(function, options)

    return decorate if function is None else decorate(function)


_is_forked = False


def _remember_fork() -> None:
    global _is_forked
    _is_forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_remember_fork)


def threads_to_use(n_threads: int) -> int:
    """Return how many of Numba's threads a parallel function may use; 1: run its serial twin.

    At most ``NUMBA_NUM_THREADS``. It is 1 in a forked child, without a threading layer, and with
    the layer workqueue.
    """
    if n_threads == 1 or _is_forked or not _has_safe_layer():
        return 1
    from numba import config

    return int(min(n_threads, config.NUMBA_NUM_THREADS))


def may_run_parallel(n_threads: int) -> bool:
    """Return whether `threads_to_use` is more than 1, without importing Numba.

    Before Numba is imported, its threading layer is assumed to be safe.
    """
    if "numba" in sys.modules:
        return threads_to_use(n_threads) > 1
    return n_threads > 1 and not _is_forked


@cache
def _has_safe_layer() -> bool:
    import numba

    try:
        numba.get_num_threads()  # starts the layer; its name is not known before
        return str(numba.threading_layer()) in ("tbb", "omp")
    except ValueError:
        return False


@contextmanager
def numba_threads(n_threads: int) -> Iterator[None]:
    """Run Numba's parallel functions on ``n_threads`` inside the block, in this thread only."""
    from numba import get_num_threads, set_num_threads

    with restoring(partial(set_num_threads, get_num_threads())):
        set_num_threads(n_threads)
        yield

"""Compile functions decorated with ``@njit`` when they are first called.

Importing Numba takes 0.2 s and compiling a loss takes seconds, so ``import fastloss`` does neither.
This module also hides the following properties of Numba, so that losses read like its manual:

(a) Numba cannot find a closure in its cache from another process. A function decorated with `njit`
    therefore names its helpers as globals, and the first call binds them in a copy of the function.
(b) Numba's cache notices changes in the file of a function, but not in the files of its helpers.
    The names of compiled functions therefore end in a fingerprint of all they refer to.
(c) The key of Numba's cache ignores options (numba issue 6845), so the serial twin of a parallel
    function has its own name. A serial function never calls a parallel one (numba issue 4807).
(d) Numba compiles a function again, for seconds, for each layout and read-only flag. Here a
    function is compiled for one signature and accepts only that signature.
(e) Numba takes its threads from one of several libraries. "workqueue" aborts the process if two
    Python threads call at once, even if one call is the user's. A child forked after "omp" has run
    is killed when it calls. See `threads_to_use`.
(f) Numba's ``fastmath=True`` makes ``isnan`` false. Here it means `FASTMATH`: sums may be
    reordered, but NaN and infinity are kept.
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
    """A function that Numba can compile; a call from Python runs it as plain Python.

    Attributes
    ----------
    py_func : the Python function.
    targetoptions : its options for ``numba.njit``.
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
        """Pickle by name, or by value if another process cannot import the name.

        joblib and cloudpickle can pickle the functions of a notebook by value.
        """
        module = sys.modules.get(self.__module__)
        is_importable = getattr(module, self.__name__, None) is self
        return self.__name__ if is_importable and self.__module__ != "__main__" else self._made_by

    def binding(self, **names: Any) -> Jit:
        """Return a copy of the function with some global names bound to other values."""
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

        # Numba distinguishes functions of one name by a counter in the process. Kernels cached by
        # different processes can share a count; one would then be linked to the other's helper.
        bound = self._bound()
        bound.__name__ = bound.__qualname__ = self.name()
        # Wrappers for calls from Python and C would be a tenth of the time to compile.
        options = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True, "error_model": "numpy"}
        return njit(**self.targetoptions, **options)(bound)

    def _bound(self) -> FunctionType:
        """Return a copy of the function whose globals name Numba's helpers."""
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
    """Return how many of Numba's threads a parallel function may use; 1 means its serial twin.

    The number is at most ``NUMBA_NUM_THREADS``. It is 1 in a forked child, without a threading
    layer, and with the layer workqueue.
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
        numba.get_num_threads()  # starts the layer, which has no name before
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

"""Check whether the machine and the installation let fastloss run fast; give advice."""

from __future__ import annotations

import os
import platform
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_info

from fastloss.backends import cost_model, unavailable_backends
from fastloss.kernel_cache import cached_kernels, can_import_numba, folder, make_folder
from fastloss.kernels import matrix_unit
from fastloss.machine import changed_by, cpu_name, on_load, surroundings
from fastloss.settings import (
    AUTO,
    KNOWN_VARIABLES,
    N_THREADS,
    environment,
    requested_backend,
    requested_threads,
    threads_to_use,
    unknown_variables,
)
from fastloss.threads import THREAD_VARIABLES, available_threads, thread_limits, usable_cpus
from fastloss.version import __version__

_OURS = (*KNOWN_VARIABLES, "NUMBA_DISABLE_JIT")


@dataclass(frozen=True)
class Finding:
    """One result of the check. ``advice`` is empty if all is well."""

    topic: str
    found: str
    advice: str = ""


def examine() -> list[Finding]:
    """Return all findings; takes a second, because Numba is imported."""
    return [*_machine(), *_numba(), *_blas(), *_settings()]


def _machine() -> Iterator[Finding]:
    yield Finding("fastloss", f"{__version__} on Python {platform.python_version()}")
    yield Finding("CPU", cpu_name())
    n_cpus, n_usable = os.cpu_count() or 1, usable_cpus()
    yield Finding(
        "CPUs",
        f"{n_usable} of {n_cpus} usable by this process",
        "" if n_usable == n_cpus else "the CPU affinity is limited: results are for these CPUs",
    )
    yield _threads()
    yield from _surroundings()


def _surroundings() -> Iterator[Finding]:
    """Yield conditions that make measurements differ between hours or between shells."""
    found = surroundings()
    if found["load"] is not None:
        yield Finding(
            "load average", f"{found['load']:.2f} in the last minute", on_load(found["load"])
        )
    if found["governor"]:
        is_steady = found["governor"] == "performance"
        advice = "" if is_steady else "the clock varies: cpupower frequency-set -g performance"
        yield Finding("clock governor", found["governor"], advice)
    for variable, value in found["variables"].items():
        is_ours = variable.startswith("FASTLOSS_") or variable in _OURS
        if (others := changed_by(variable)) and not is_ours:
            advice = f"it changes {', '.join(others)}: unset it before you compare with them"
            yield Finding(variable, value, advice)


def _threads() -> Finding:
    """Return the number of threads of a call, and the limit that decides it."""
    limits = thread_limits()
    decisive = min(limits, key=lambda source: limits[source])
    try:
        n_threads = threads_to_use()
    except ValueError as error:
        return Finding(
            "threads", f"none: {error}", f"set {N_THREADS} to an integer >= 1, or unset it"
        )
    if os.environ.get(N_THREADS):
        limits, decisive = {N_THREADS: n_threads, **limits}, N_THREADS
    sources = ", ".join(f"{source} {limit}" for source, limit in limits.items())
    is_over = n_threads > usable_cpus()
    advice = f"more threads than usable CPUs: set {N_THREADS} to {usable_cpus()}" if is_over else ""
    return Finding("threads", f"{n_threads}, decided by {decisive} ({sources})", advice)


def _numba() -> Iterator[Finding]:
    can_import_numba()  # records the reason if it cannot
    why_not = unavailable_backends().get("fused")
    if why_not is not None:
        yield Finding("Numba", why_not, "until this is fixed, backend='auto' is 'numpy'")
        return
    import numba

    from fastloss.kernels import amx, simd

    yield Finding("Numba", f"{numba.__version__}, {numba.config.NUMBA_NUM_THREADS} threads")
    unit = ""
    with suppress(ValueError):  # `_settings` reports a bad FASTLOSS_AMX
        unit = ", and a matrix unit (AMX) for many classes in float32" if amx.is_usable() else ""
    yield Finding("vectors", f"{8 * simd.target().vector_bytes} bits{unit}")
    source = cost_model.current().source
    measured = source == "measured here"
    yield Finding("costs", source, "" if measured else "fastloss warmup, so auto chooses better")
    place = folder()
    if place is None or not _can_write(place):
        yield Finding(
            "kernel cache",
            "no folder can be written",
            "set NUMBA_CACHE_DIR to a writable folder, or every process compiles again",
        )
        return
    kernels = cached_kernels()
    yield Finding(
        "kernel cache",
        f"{len(kernels)} kernels in {place}",
        "" if kernels else "fastloss warmup compiles them, so that no first call has to",
    )


def _can_write(place: Path) -> bool:
    try:
        make_folder(place)
        tempfile.TemporaryFile(dir=place).close()
    except OSError:
        return False
    return True


def _blas() -> Iterator[Finding]:
    pools = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
    for pool in pools:
        yield Finding(
            "BLAS",
            f"{pool['internal_api']} {pool['version']}, kernels for "
            f"{pool.get('architecture', 'any CPU')}, {pool['num_threads']} threads",
            "" if pool["num_threads"] <= available_threads() else "more threads than usable CPUs",
        )
    if any(_spins(pool) for pool in pools):
        yield Finding(
            "BLAS between calls",
            "OpenBLAS's threads spin for about 0.1 s after a product",
            "set OPENBLAS_THREAD_TIMEOUT=4 if calls alternate with NumPy's products",
        )
    if not pools:
        yield Finding(
            "BLAS",
            "none that threadpoolctl knows",
            "n_threads cannot limit it; set its own environment variable",
        )


def _spins(pool: dict[str, Any]) -> bool:
    """Return whether a pool's idle threads take half of a core from the next call."""
    is_spinning = pool["internal_api"] == "openblas" and pool.get("threading_layer") == "pthreads"
    return is_spinning and pool["num_threads"] > 1 and "OPENBLAS_THREAD_TIMEOUT" not in os.environ


def _settings() -> Iterator[Finding]:
    """Yield the environment variables that are set, and advice on bad ones."""
    for variable in _OURS:
        if variable in os.environ:
            yield Finding(variable, os.environ[variable], _on_variable(variable))
    for variable in THREAD_VARIABLES:
        value = os.environ.get(variable)
        if value and variable not in thread_limits():
            yield Finding(variable, value, "no number >= 1, so it limits nothing: unset it")
    for variable, problem in unknown_variables().items():
        yield Finding(variable, os.environ[variable], problem)


def _on_variable(variable: str) -> str:
    """Return advice on one of our variables; empty if its value is valid."""
    if variable == "NUMBA_DISABLE_JIT":
        return "nothing can be compiled, and calls take several times as long: unset it"
    try:
        if variable == "FASTLOSS_BACKEND":
            requested_backend(AUTO, environment())
        elif variable == N_THREADS:
            requested_threads(None, environment())
        elif variable == "FASTLOSS_AMX":
            matrix_unit.is_wanted()
    except (ValueError, RuntimeError) as error:
        return str(error)
    return ""

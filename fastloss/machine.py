"""Describe the machine of a result, its software and its settings."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_info

from fastloss.threads import THREAD_VARIABLES, available_threads, cpu_quota
from fastloss.version import __version__

#: The folder that fastloss is imported from: a checkout, or a folder of packages.
CHECKOUT = Path(__file__).parent.parent

_PACKAGES = (
    *("numpy", "numba", "llvmlite", "scipy"),
    *("scikit-learn", "torch", "jax", "jaxlib", "optax"),
)


#: Prefixes of variables that tune a library, with the prefixes of the contenders that use it.
TUNED_BY = {
    "OPENBLAS_": ("numpy", "scikit-learn"),
    "MKL_": ("numpy", "scikit-learn", "PyTorch"),
    "BLIS_": ("numpy", "scikit-learn"),
    "VECLIB_": ("numpy", "scikit-learn"),
    "OMP_": ("numba", "PyTorch", "scikit-learn"),
    "GOMP_": ("numba", "PyTorch", "scikit-learn"),
    "KMP_": ("numba", "PyTorch", "scikit-learn"),
    "NUMBA_": ("numba", "fused"),
    "FASTLOSS_": ("auto", "fused"),
    "XLA_": ("JAX",),
    "JAX_": ("JAX",),
    "TORCH": ("PyTorch",),
}

# Folders, and variables that threadpoolctl sets on import.
_NOT_TUNING = ("_DIR", "KMP_DUPLICATE_LIB_OK", "KMP_INIT_AT_FORK")

# A shell and other idle programs stay below this load.
_IDLE_LOAD = 0.5

# Measuring writes these, so they may differ from the measured commit.
_MEASURED = ("bench/results", "bench/plots", "docs/benchmarks", "*.md")


def environment(n_threads: int, seed: int) -> dict[str, Any]:
    """Return the facts needed to judge or repeat a result."""
    return {
        "time": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "cpu": cpu_name(),
        "cpus": os.cpu_count(),
        "affinity": available_threads(),
        "threads": n_threads,
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "packages": _versions(),
        "blas": [
            f"{pool['internal_api']} {pool['version']} ({pool.get('architecture', 'generic')})"
            for pool in threadpool_info()
            if pool["user_api"] == "blas"
        ],
        "threading_layer": threading_layer(),
        "matrix_unit": _has_matrix_unit(),
        "fastloss": __version__,
        "git": git_state(),
        "seed": seed,
        **surroundings(),
    }


def surroundings() -> dict[str, Any]:
    """Return the conditions that change this machine's speed between hours, or between shells.

    variables : the variables set that tune a library (see `TUNED_BY`), without folders.
    load : the average number of processes that computed or waited in the last minute, or None.
    governor : the rule by which Linux chooses the CPU's clock, or "".
    cpu_quota : the number of CPUs that control groups allow, or None.
    """
    quota = cpu_quota()
    return {
        "variables": {
            name: value
            for name, value in sorted(os.environ.items())
            if name.startswith(tuple(TUNED_BY)) and not name.endswith(_NOT_TUNING)
        },
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "governor": _first_line(Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")),
        "cpu_quota": quota if quota <= (os.cpu_count() or 1) else None,
    }


def on_load(load: float) -> str:
    """Return advice on a load average; empty if the machine is idle."""
    return "other programs compute: measure when they have ended" if load > _IDLE_LOAD else ""


def changed_by(variable: str) -> tuple[str, ...]:
    """Return the contenders whose speed a variable changes, as prefixes of their names."""
    if variable in THREAD_VARIABLES:
        return ()  # the harness sets them alike for all contenders
    return next((who for name, who in TUNED_BY.items() if variable.startswith(name)), ())


def cpu_name() -> str:
    """Return the model name of the CPU, or its architecture if unknown."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _versions() -> dict[str, str]:
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions


def git_state() -> str:
    """Return the commit of fastloss's checkout, with "-dirty" if changed; "" for a wheel.

    Results and pages, which measuring writes, do not count as changes.
    """
    if not (CHECKOUT / ".git").exists():
        return ""
    try:
        commit = _git("rev-parse", "--short", "HEAD")
        others = [f":(top,exclude){path}" for path in _MEASURED]
        changed = _git("status", "--porcelain", "--", ":(top)", *others)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return f"{commit}-dirty" if changed else commit


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(CHECKOUT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _first_line(path: Path) -> str:
    try:
        return path.read_text().partition("\n")[0]
    except OSError:
        return ""


def _has_matrix_unit() -> bool:
    try:
        from fastloss.kernels import amx
    except ImportError:
        return False
    return bool(amx.is_usable())


def threading_layer() -> str:
    """Return the threading layer that Numba picks here."""
    import numba

    numba.get_num_threads()  # starts the threads: Numba picks its layer then
    return str(numba.threading_layer())

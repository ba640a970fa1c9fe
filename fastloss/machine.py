"""The machine a result is from, and what it runs."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_info

from fastloss.threads import available_threads
from fastloss.version import __version__

_PACKAGES = (
    *("numpy", "numba", "llvmlite", "scipy"),
    *("scikit-learn", "torch", "jax", "jaxlib", "optax"),
)


def environment(n_threads: int, seed: int) -> dict[str, Any]:
    """What a reader needs to judge a result or repeat it."""
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
        "fastloss": __version__,
        "git": _git_state(),
        "seed": seed,
    }


def cpu_name() -> str:
    """The processor's own name for itself, where the system tells."""
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


def _git_state() -> str:
    """Commit of the checkout fastloss is imported from, "-dirty" if changed; "" for a wheel."""
    folder = Path(__file__).parent.parent
    if not (folder / ".git").exists():
        return ""
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def threading_layer() -> str:
    """Return the threading layer that Numba picks here."""
    import numba

    numba.get_num_threads()  # Numba picks when it starts its threads, and this starts them.
    return str(numba.threading_layer())

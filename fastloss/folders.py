"""Locate the folder in which fastloss keeps kernels and timings of this machine."""

from __future__ import annotations

import os
import sys
import warnings
from functools import cache
from pathlib import Path


def cache_folder() -> Path | None:
    """Return ``FASTLOSS_CACHE_DIR``, or the system's cache folder; None without a home directory.

    The folder need not exist.
    """
    if given := os.environ.get("FASTLOSS_CACHE_DIR"):
        return Path(given)
    try:
        if sys.platform == "win32":
            base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
        elif sys.platform == "darwin":
            base = Path.home() / "Library" / "Caches"
        else:
            base = Path(os.environ.get("XDG_CACHE_HOME", ""))
            if not base.is_absolute():  # the XDG specification ignores relative paths
                base = Path.home() / ".cache"
    except RuntimeError:
        return None
    # With a relative home, each working directory would get its own cache.
    return Path(base) / "fastloss" if os.path.isabs(base) else None


@cache
def warn_unwritable(place: Path, reason: str) -> None:
    """Warn, once a process, if an environment variable names a folder that cannot be written.

    A default folder may be read-only, as in a container.
    """
    for variable in ("NUMBA_CACHE_DIR", "FASTLOSS_CACHE_DIR"):
        given = os.environ.get(variable)
        if given and place.is_relative_to(given):
            warnings.warn(
                f"{variable} must be a folder that can be written, got {given!r} ({reason}); "
                "every process compiles its kernels again",
                RuntimeWarning,
                stacklevel=2,
            )

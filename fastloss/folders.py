"""Locate the folder in which fastloss keeps kernels and timings of this machine."""

from __future__ import annotations

import os
import sys
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

"""The folder in which fastloss keeps what it learns about this machine."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def cache_folder() -> Path | None:
    """Return ``FASTLOSS_CACHE_DIR``, or this system's usual place; None without a home directory.

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
            base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError:
        return None
    return Path(base) / "fastloss"

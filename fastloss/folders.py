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
            base = Path(os.environ.get("XDG_CACHE_HOME", ""))
            if not base.is_absolute():  # to be ignored, says the XDG specification
                base = Path.home() / ".cache"
    except RuntimeError:
        return None
    # A relative home would be another folder for each folder that fastloss runs in.
    return Path(base) / "fastloss" if os.path.isabs(base) else None

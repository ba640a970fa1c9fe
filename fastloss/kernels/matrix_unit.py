"""Ask the system for permission to use a matrix unit, without importing Numba."""

from __future__ import annotations

import ctypes
import os
import sys
from functools import cache

_ARCH_PRCTL, _ARCH_REQ_XCOMP_PERM, _XFEATURE_XTILEDATA = 158, 0x1023, 18


def is_wanted() -> bool:
    """Return whether ``FASTLOSS_AMX`` lets fastloss use the unit; raise at a bad value."""
    wanted = os.environ.get("FASTLOSS_AMX") or "1"
    if wanted not in ("0", "1"):
        raise ValueError(
            f"FASTLOSS_AMX must be 0 (no matrix unit) or 1 (the default), got {wanted!r}"
        )
    return wanted == "1"


@cache
def is_allowed() -> bool:
    """Ask Linux to let this process use the CPU's matrix unit; return whether it does.

    The permission holds for the whole process. From then on Linux rejects an alternate signal stack
    (``sigaltstack``) that is too small for the unit's registers, such as one of 8 KiB. If such a
    stack exists already, Linux refuses the permission. ``FASTLOSS_AMX=0`` disables the unit.

    Raises
    ------
    ValueError : another value of ``FASTLOSS_AMX`` than 0 and 1.
    """
    if not is_wanted() or sys.platform != "linux":
        return False
    process = ctypes.CDLL(None)
    refused = process.syscall(
        _ARCH_PRCTL, _ARCH_REQ_XCOMP_PERM, ctypes.c_ulong(_XFEATURE_XTILEDATA)
    )
    return int(refused) == 0

"""Whether the system lets this process use a matrix unit; without importing Numba."""

from __future__ import annotations

import ctypes
import os
import sys
from functools import cache

_ARCH_PRCTL, _ARCH_REQ_XCOMP_PERM, _XFEATURE_XTILEDATA = 158, 0x1023, 18


@cache
def is_allowed() -> bool:
    """Ask Linux to let this process use a matrix unit that the CPU has, and return the answer.

    It holds for the whole process: from then on Linux accepts no alternate signal stack
    (``sigaltstack``) that is too small for the registers of the unit, 8 KiB say. If there is such a
    stack already, the answer is no. ``FASTLOSS_AMX=0`` does without the unit.
    """
    if os.environ.get("FASTLOSS_AMX") == "0" or sys.platform != "linux":
        return False
    process = ctypes.CDLL(None)
    refused = process.syscall(
        _ARCH_PRCTL, _ARCH_REQ_XCOMP_PERM, ctypes.c_ulong(_XFEATURE_XTILEDATA)
    )
    return int(refused) == 0

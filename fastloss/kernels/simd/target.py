"""Describe the CPU that Numba compiles for: features, vector width and number of registers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from llvmlite import binding
from numba import config
from numba.core.codegen import get_host_cpu_features


@dataclass(frozen=True)
class Target:
    """The vectors of the CPU that Numba compiles for, and the sizes of tiles on it."""

    vector_bytes: int
    n_registers: int

    @property
    def tile_rows(self) -> int:
        """Return the rows of a score tile: with 5 classes, 20 or 10 sums and their operands."""
        return 4 if self.n_registers >= 32 else 2

    @property
    def tile_vectors(self) -> int:
        """Return the vectors of features of a gradient tile: with 5 classes, 20 or 10 sums."""
        return 4 if self.n_registers >= 32 else 2

    @property
    def product_rows(self) -> int:
        """Return the rows of a product tile: with two vectors each, 24 or 12 sums."""
        return 12 if self.n_registers >= 32 else 6


@cache
def target() -> Target:
    """Return the target: this CPU, or one with the features in ``NUMBA_CPU_FEATURES``.

    With ``NUMBA_CPU_NAME`` alone, Numba keeps the features of this CPU.
    """
    if binding.get_process_triple().startswith(("aarch64", "arm64")):
        return Target(16, 32)
    if "+avx512f" in features():
        return Target(64, 32)
    # NUMBA_CPU_FEATURES may name "+avx2" alone, which includes AVX.
    has_avx = any(feature.startswith("+avx") for feature in features())
    return Target(32 if has_avx else 16, 16)


@cache
def converts_halves() -> bool:
    """Return whether the CPU has an instruction that converts float16 to float32."""
    if binding.get_process_triple().startswith(("aarch64", "arm64")):
        return True
    return not features().isdisjoint({"+f16c", "+avx512f"})


@cache
def features() -> frozenset[str]:
    """Return LLVM's features, such as "+avx2", of this CPU or from ``NUMBA_CPU_FEATURES``."""
    given = get_host_cpu_features() if config.CPU_FEATURES is None else config.CPU_FEATURES
    return frozenset(given.split(","))

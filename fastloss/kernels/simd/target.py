"""The CPU that Numba compiles for: which features, how wide vectors, how many registers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from llvmlite import binding
from numba import config
from numba.core.codegen import get_host_cpu_features


@dataclass(frozen=True)
class Target:
    """The vectors of the machine that code is compiled for."""

    vector_bytes: int
    n_registers: int

    @property
    def tile_rows(self) -> int:
        """Rows of a score tile: with 5 classes, 20 or 10 sums and what feeds them."""
        return 4 if self.n_registers >= 32 else 2

    @property
    def tile_vectors(self) -> int:
        """Vectors of features of a gradient tile, likewise."""
        return 4 if self.n_registers >= 32 else 2

    @property
    def product_rows(self) -> int:
        """Rows of a product tile: with two vectors each, 24 or 12 sums."""
        return 12 if self.n_registers >= 32 else 6


@cache
def target() -> Target:
    """Of the CPU that Numba compiles for: this one, or what ``NUMBA_CPU_FEATURES`` says.

    ``NUMBA_CPU_NAME`` alone leaves Numba with the features of this one.
    """
    if binding.get_process_triple().startswith(("aarch64", "arm64")):
        return Target(16, 32)
    if "+avx512f" in features():
        return Target(64, 32)
    # Numba may be told of "+avx2" alone, which includes AVX.
    has_avx = any(feature.startswith("+avx") for feature in features())
    return Target(32 if has_avx else 16, 16)


@cache
def features() -> frozenset[str]:
    """Return LLVM's names of the features, each with a plus: this CPU's, or as Numba is told."""
    given = get_host_cpu_features() if config.CPU_FEATURES is None else config.CPU_FEATURES
    return frozenset(given.split(","))

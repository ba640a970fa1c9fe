"""Emit elementary functions without branches, so that LLVM vectorises loops over them."""

from __future__ import annotations

import math
from typing import Any

from llvmlite import ir
from numba import float64, types
from numba.extending import intrinsic

from fastloss.kernels.simd.emitter import INT64, Emitter


@intrinsic  # type: ignore[untyped-decorator]
def exp(typing_context: Any, x: Any) -> Any:
    """Return ``e**x`` to 1 ulp, without a branch.

    Write ``x = n log 2 + r`` with ``|r| <= log(2) / 2``, and sum the Taylor series of ``e**r``.
    ``2**n`` is multiplied in two halves, so that results below the normal range are right too.
    """
    number = x if x in (types.float32, types.float64) else float64

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value = context.cast(builder, arguments[0], signature.args[0], number)
        return _emit_exp(Emitter(builder, context.get_value_type(number), 64), value)

    return number(x), generate


def _emit_exp(e: Emitter, x: ir.Value) -> ir.Value:
    b, real = e.builder, e.element
    bits = ir.IntType(8 * e.itemsize)
    if e.itemsize == 4:
        # The leading part of log 2 has few digits, so its product with n is exact.
        low, high, n_terms, mantissa, bias = -104.0, 89.0, 8, 23, 127
        ln2_high, ln2_low = 0.693359375, -2.12194440e-4
    else:
        low, high, n_terms, mantissa, bias = -746.0, 710.0, 14, 52, 1023
        ln2_high, ln2_low = 6.93147180369123816490e-01, 1.90821492927058770002e-10

    def clamp(value: ir.Value, order: str, bound: float) -> ir.Value:
        # An ordered comparison keeps NaN.
        return b.select(b.fcmp_ordered(order, value, real(bound)), real(bound), value)

    x = clamp(clamp(x, "<", low), ">", high)
    n = e.intrinsic(f"llvm.rint.f{8 * e.itemsize}", real, [b.fmul(x, real(1 / math.log(2)))])
    r = e.multiply_add(n, real(-ln2_high), x)
    r = e.multiply_add(n, real(-ln2_low), r)
    series = real(1.0 / math.factorial(n_terms - 1))
    for k in range(n_terms - 2, -1, -1):
        series = e.multiply_add(series, r, real(1.0 / math.factorial(k)))
    # NaN has no integer; r propagates it.
    exponent = b.fptosi(b.select(b.fcmp_unordered("uno", n, n), real(0.0), n), bits)
    half = b.ashr(exponent, bits(1))
    for part in (half, b.sub(exponent, half)):
        power = b.shl(b.add(part, bits(bias)), bits(mantissa))
        series = b.fmul(series, b.bitcast(power, real))
    return series


@intrinsic  # type: ignore[untyped-decorator]
def log1p(typing_context: Any, x: Any) -> Any:
    """Return ``log(1 + x)`` of a float64 ``x >= 0`` to 1 ulp, without a branch.

    Write ``u = 1 + x = 2**n (1 + f)`` with ``1 + f`` from ``sqrt(1/2)`` to ``sqrt(2)``. The series
    of ``log(1 + f) = 2 atanh(s)``, ``s = f / (2 + f)``, is split into ``f - f**2 / 2``, which is
    nearly exact, and the rest. The rounding error ``lost`` of ``u`` adds ``lost / u``. Source:
    FreeBSD's ``s_log1p.c``, K.C. Ng, 1993.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value = context.cast(builder, arguments[0], signature.args[0], float64)
        return _emit_log1p(Emitter(builder, ir.DoubleType(), 64), value)

    return float64(x), generate


def _emit_log1p(e: Emitter, x: ir.Value) -> ir.Value:
    b, real = e.builder, e.element
    one = real(1.0)
    u = b.fadd(one, x)
    bits = b.bitcast(u, INT64)
    # The exponent of u / sqrt(1/2), as integers: the mantissa wraps into the exponent.
    root = 0x3FE6A09E667F3BCD
    exponent = b.ashr(b.sub(bits, INT64(root)), INT64(52))
    f = b.fsub(b.bitcast(b.sub(bits, b.shl(exponent, INT64(52))), real), one)
    n = b.sitofp(exponent, real)
    # Each difference is exact in its case.
    is_below = b.fcmp_ordered("<", x, one)
    lost = b.select(is_below, b.fsub(x, b.fsub(u, one)), b.fsub(one, b.fsub(u, x)))
    s = b.fdiv(f, b.fadd(real(2.0), f))
    square = b.fmul(s, s)
    series = real(2.0 / 23)
    for k in range(21, 1, -2):
        series = e.multiply_add(series, square, real(2.0 / k))
    half_square = b.fmul(b.fmul(real(0.5), f), f)
    rest = b.fmul(s, e.multiply_add(series, square, half_square))
    # The leading part of log 2 has few digits, so its product with n is exact.
    rest = b.fadd(rest, e.multiply_add(n, real(1.90821492927058770002e-10), b.fdiv(lost, u)))
    log_u = e.multiply_add(
        n, real(6.93147180369123816490e-01), b.fsub(f, b.fsub(half_square, rest))
    )
    return b.select(b.fcmp_ordered("==", x, real(math.inf)), x, log_u)

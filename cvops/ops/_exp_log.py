"""exp and log with the bits of ``kernels/exp_log.cuh``, for the reference implementations."""

from __future__ import annotations

import math

import numpy as np

_LN2_HIGH = float.fromhex("0x1.62e42fefap-1")
_LN2_LOW = float.fromhex("0x1.cf79abc9e3b39p-40")
_FACTORIALS = [math.factorial(n) for n in range(14, -1, -1)]


def exp(x: np.ndarray) -> np.ndarray:
    """Return e to the power of each float32 or float64."""
    x = np.asarray(x)
    is_double = x.dtype == np.float64
    low, high, first = (-746, 710, 0) if is_double else (-110, 90, 2)
    with np.errstate(all="ignore"):
        clamped = np.clip(x.astype(np.float64), low, high)
        n = np.rint(clamped * 1.4426950408889634)
        r = (clamped - n * _LN2_HIGH) - n * _LN2_LOW
        p = np.zeros_like(r)
        for factorial in _FACTORIALS[first:]:
            p = p * r + 1.0 / factorial
        whole = np.nan_to_num(n).astype(np.int32)
        if is_double:
            # Two factors: the first one is neither infinite nor denormal.
            return np.ldexp(np.ldexp(p, whole >> 1), whole - (whole >> 1))
        return np.ldexp(p, whole).astype(np.float32)


def log(x: np.ndarray) -> np.ndarray:
    """Return the natural logarithm of each float32: -inf for 0, NaN below 0."""
    return log_in_double(x).astype(np.float32)


def log_in_double(x: np.ndarray) -> np.ndarray:
    """Return the natural logarithm of each float32 or float64, in float64."""
    with np.errstate(all="ignore"):
        x = np.asarray(x).astype(np.float64)
        m, e = np.frexp(x)  # 0.5 <= m < 1
        low = m < 1.4142135623730951 / 2
        m, e = np.where(low, m * 2, m), np.where(low, e - 1, e).astype(np.float64)
        s = (m - 1.0) / (m + 1.0)
        z = s * s
        p = np.zeros_like(s)
        for divisor in range(23, 0, -2):
            p = p * z + 1.0 / divisor
        result = e * _LN2_HIGH + (e * _LN2_LOW + 2.0 * s * p)
        special = np.where(x == 0, -np.inf, np.where(x > 0, x, np.nan))
        return np.where((x > 0) & (x < np.inf), result, special)

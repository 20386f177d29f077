"""Checks of arguments that are not arrays. Each names the argument and the value that it got."""

from __future__ import annotations

import math
import operator
import struct
from collections.abc import Sequence
from numbers import Real
from typing import Any

_SINGLE = struct.Struct("f")
#: The boxes of one suppression are fewer: a grid has at most 65535 tiles of 256 on its y axis.
MAX_BOXES = 65535 * 256


def number(name: str, value: Any, low: float = -math.inf, high: float = math.inf) -> float:
    """``value`` as a float in [low, high]. NaN is refused."""
    try:
        x = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name}: expected a number, got {value!r}") from None
    if not low <= x <= high:
        limits = f" in [{low:g}, {high:g}]" if (low, high) != (-math.inf, math.inf) else ""
        raise ValueError(f"{name}: expected a number{limits}, got {value!r}")
    return x or _zero(x)


class _MinusZero(float):
    """-0.0 as an option: options that are equal are taken for the same, and 0.0 is not."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return type(other) is _MinusZero

    def __hash__(self) -> int:
        return hash(_MinusZero)


def _zero(x: float) -> float:
    return _MinusZero(x) if math.copysign(1, x) < 0 else x


def option(x: Any) -> Any:
    """``x``, of which nothing is known yet, or what stands for -0.0."""
    return _zero(float(x)) if isinstance(x, Real) and x == 0 else x


def single(name: str, value: Any) -> float:
    """``value`` as float32 has it: infinite if too large. NaN is refused."""
    x = number(name, value)
    try:
        y: float = _SINGLE.unpack(_SINGLE.pack(x))[0]
        return y or _zero(y)
    except OverflowError:
        return math.copysign(math.inf, x)


def integer(name: str, value: Any, low: int = -(2**31), high: int = 2**31 - 1) -> int:
    """``value`` as an int in [low, high]."""
    try:
        x = operator.index(value)
    except TypeError:
        raise TypeError(f"{name}: expected an integer, got {value!r}") from None
    if not low <= x <= high:
        raise ValueError(f"{name}: expected an integer in [{low}, {high}], got {value!r}")
    return x


def numbers(name: str, value: Any, length: int | None = None) -> tuple[float, ...]:
    """``value``, a number or a sequence of them, as a tuple of ``length`` floats (not empty)."""
    items: Sequence[Any] = value if hasattr(value, "__len__") else [value]
    if isinstance(value, str) or len(items) == 0 or length not in (None, len(items)):
        want = "one number or more" if length is None else f"{length} numbers"
        raise ValueError(f"{name}: expected {want}, got {value!r}")
    try:
        together = tuple(map(float, items))
        total = sum(together)
        if total == total and 0 not in together:  # NaN is not
            return together
    except (TypeError, ValueError):
        pass
    return tuple([number(name, item) for item in items])  # which names what is wrong


def sizes_fit(name: str, shape: tuple[int, ...], *sizes: int) -> None:
    """Refuse sizes that no int32 holds, unless an axis of length 0 leaves nothing to compute."""
    if 0 not in shape and max(sizes) >= 2**31:
        raise ValueError(f"{name}: expected sizes below 2**31, got shape {shape}")


def choice(name: str, value: Any, choices: tuple[str, ...]) -> str:
    if value not in choices:
        raise ValueError(f"{name}: expected one of {list(choices)}, got {value!r}")
    return str(value)

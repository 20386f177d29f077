"""Converters of options. An error names the argument and the value.

Each kind of option has one converter. The converters accept the values that MXNet 1.9.1 accepts,
also text: ``"True"``, ``"1"``, ``"0.5"``, ``"(0.5, 1)"``. ``Options`` of
``bindings/operators/options.cpp`` has the same rules for the operators of frameworks.
"""

from __future__ import annotations

import math
import operator
import re
import struct
from collections.abc import Mapping, Set
from typing import Any, Callable, ClassVar, Generic, TypeVar, cast

from cvops.backends import extension

F = TypeVar("F", bound=Callable[..., Any])
_SINGLE = struct.Struct("f")
#: One suppression has fewer boxes: the y axis of a grid has at most 65535 tiles of 256 boxes.
MAX_BOXES = 65535 * 256
_LARGEST = float.fromhex("0x1.fffffep+127")  # the largest finite float32
#: The texts that MXNet reads as a flag, in lower case.
_FLAGS = {"true": True, "1": True, "false": False, "0": False}
#: The types of numbers that need no conversion.
PLAIN = frozenset((int, float))
_DECIMAL = re.compile(
    r"\s*([+-]?(?:(\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?|inf(?:inity)?|nan))(?(2)f?)\s*",
    re.IGNORECASE | re.ASCII,
)
_INTEGER = re.compile(r"\s*([+-]?\d+)L?\s*", re.ASCII)
_TUPLE = re.compile(r"\s*[(\[](.*?),?\s*[)\]]\s*", re.DOTALL)


class memoized(Generic[F]):
    """A function of options, with a memory of its results: ``@memoized``.

    The result depends on the arguments only, and nobody changes it. The memory is that of the
    extension, which the first call loads.
    """

    __slots__ = ("arrays", "function", "get", "parts")
    #: All such functions.
    functions: ClassVar[list[memoized[Any]]] = []

    def __init__(
        self,
        function: F,
        arrays: bool = False,
        parts: tuple[Callable[..., Any], Callable[..., Any]] | None = None,
    ):
        self.functions.append(self)
        #: Computes a result. With ``arrays``, it reads the dtypes and the shapes of arrays only.
        self.function, self.arrays = function, arrays
        #: The function in two parts, as the extension's ``memoized`` takes them.
        self.parts = parts
        #: Takes the arguments of the function, by position.
        self.get = cast(F, self._first)

    def _first(self, *args: Any, **kwargs: Any) -> Any:
        self.forget()
        return self.get(*args, **kwargs)

    def forget(self) -> None:
        """Forget all results."""
        native = extension.native()
        if native is None:
            self.get = self.function
        else:
            self.get = native.memoized(self.function, self.arrays, self.parts)


def flag(name: str, value: Any) -> bool:
    """Return ``value`` as a bool: True, False, 1, 0, or the text of one of these in any case."""
    if value is True or value is False:
        return bool(value)
    known = _FLAGS.get(str(value).lower())
    if known is None:
        raise ValueError(f"{name}: expected True or False, got {value!r}")
    return known


def _scalar(value: Any) -> Any:
    """Return ``value``; None for what is no real number: a flag, bytes, an array with axes, ..."""
    kind = str(getattr(value, "dtype", type(value).__name__))
    if kind.startswith("complex") or kind.endswith(("bool", "bytes", "bytearray")):
        return None
    if tuple(getattr(value, "shape", ())) or hasattr(value, "mask"):
        return None
    return value


def _decimal(text: str) -> Any:
    """Return the float in ``text``; None if there is none, or it does not fit into float32."""
    match = _DECIMAL.fullmatch(text)
    x = float(match[1]) if match else None
    return None if x is None or (match[2] and abs(x) > _LARGEST) else x  # type: ignore[index]


def number(name: str, value: Any, low: float = -math.inf, high: float = math.inf) -> float:
    """Return ``value`` as a float in [low, high]; refuse NaN."""
    try:
        if type(value) in PLAIN:
            x = float(value)
        else:
            x = float(_decimal(value) if isinstance(value, str) else _scalar(value))
    except (TypeError, ValueError, OverflowError):
        raise TypeError(f"{name}: expected a number, got {value!r}") from None
    if not low <= x <= high:
        limits = f" in [{low:g}, {high:g}]" if (low, high) != (-math.inf, math.inf) else ""
        raise ValueError(f"{name}: expected a number{limits}, got {value!r}")
    return x


def single(name: str, value: Any) -> float:
    """Return ``value`` rounded to float32: infinite if it is too large; refuse NaN."""
    x = number(name, value)
    try:
        rounded: float = _SINGLE.unpack(_SINGLE.pack(x))[0]
        return rounded
    except OverflowError:
        return math.copysign(math.inf, x)


def integer(name: str, value: Any, low: int = -(2**31), high: int = 2**31 - 1) -> int:
    """Return ``value`` as an int in [low, high]; refuse each float, as MXNet does."""
    x = value
    if type(value) is not int:
        try:
            if isinstance(value, str):
                match = _INTEGER.fullmatch(value)
                # More digits than those of an int64 are out of each range.
                x = int(match[1][:21]) if match else None
            x = operator.index(_scalar(x))
        except TypeError:
            raise TypeError(f"{name}: expected an integer, got {value!r}") from None
    if not low <= x <= high:
        raise ValueError(f"{name}: expected an integer in [{low}, {high}], got {value!r}")
    return x


def elements(value: Any) -> Any:
    """Return the elements of a sequence, an array, or the text of a tuple; else [value]."""
    if type(value) in (tuple, list):
        return value
    if isinstance(value, str):
        match = _TUPLE.fullmatch(value)
        return (match[1].split(",") if match[1].strip() else []) if match else [value]
    sized = hasattr(value, "__len__") and getattr(value, "shape", None) != ()
    return value if sized and not isinstance(value, (Set, Mapping, bytes, bytearray)) else [value]


def integers(name: str, value: Any, form: str, low: int = -(2**31)) -> tuple[int, ...]:
    """Return ``value`` as a tuple of ints, ``low`` or more, one for each axis of ``form``."""
    items = elements(value)
    if len(items) != form.count(",") + 1:
        raise ValueError(f"{name}: expected {form}, got {value!r}")
    return tuple([integer(name, item, low) for item in items])


def numbers(name: str, value: Any, length: int | None = None) -> tuple[float, ...]:
    """Return a number or a sequence of numbers as a tuple of ``length`` floats (not empty)."""
    items = elements(value)
    if isinstance(value, str):
        items = [_decimal(item) for item in items]
        items = [] if None in items else items
    if len(items) == 0 or length not in (None, len(items)):
        want = "one number or more" if length is None else f"{length} numbers"
        raise ValueError(f"{name}: expected {want}, got {value!r}")
    if PLAIN.issuperset(map(type, items)) and 0 not in items:
        try:
            floats = tuple(map(float, items))
            total = sum(floats)
            if total == total:  # no NaN
                return floats
        except OverflowError:
            pass
    return tuple([number(name, item) for item in items])  # its error names the wrong item


def sizes_fit(name: str, shape: tuple[int, ...], *sizes: int) -> None:
    """Refuse sizes that do not fit into int32, unless an axis of length 0 makes the op trivial."""
    if max(sizes) >= 2**31 and 0 not in shape:
        raise ValueError(f"{name}: expected sizes below 2**31, got shape {shape}")


def choice(name: str, value: Any, choices: tuple[str, ...]) -> str:
    """Return ``value``, which is one of ``choices``."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name}: expected one of {list(choices)}, got {value!r}")
    return str(value)

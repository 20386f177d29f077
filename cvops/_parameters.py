"""The parameters of a kernel: what they take, and how it is laid out for a launch."""

from __future__ import annotations

import itertools
from numbers import Real
from typing import Any

import numpy as np

from cvops._arrays import Buffer

_INTEGERS: dict[str, Any] = {"int": np.int32, "long long": np.int64}


class Parameters:
    """The parameters of a kernel, of the types that it declares; "*" is a pointer.

    An argument is a :class:`Buffer` or None, which is a null pointer, for a pointer, a number for a
    number, and a structured NumPy array without axes for a struct. Others are refused by a
    TypeError, and an integer that does not fit by an OverflowError, which name the kernel.
    """

    def __init__(self, kernel: str, types: tuple[str, ...]):
        self._kernel, self._types = kernel, types
        #: How many bytes each struct has, as the first ones that were given; until then 0.
        self._structs = {
            i: 0 for i, type_ in enumerate(types) if type_ not in ("*", "float", *_INTEGERS)
        }

    def typed(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """``args``, the numbers as NumPy's scalars of the kernel's types."""
        if len(self._types) != len(args):
            raise TypeError(f"{self._kernel} takes {len(self._types)} arguments, got {len(args)}")
        return tuple(map(self._typed, itertools.count(), args))

    def _typed(self, i: int, arg: Any) -> Any:
        type_ = self._types[i]
        if type_ == "*" and (arg is None or isinstance(arg, Buffer)):
            return arg
        if type_ in _INTEGERS and isinstance(arg, (int, np.integer, np.bool_)):
            limits = np.iinfo(_INTEGERS[type_])
            if not limits.min <= arg <= limits.max:  # which an old NumPy would wrap around
                raise OverflowError(f"{self._kernel}: {arg} does not fit {type_}")
            return _INTEGERS[type_](arg)
        if type_ == "float" and isinstance(arg, Real):
            with np.errstate(over="ignore"):
                return np.float32(arg)
        if i in self._structs and isinstance(arg, np.ndarray) and arg.dtype.names:
            size = self._structs[i] or arg.nbytes
            if arg.nbytes != size:
                raise TypeError(
                    f"{self._kernel}: expected {type_} of {size} bytes, got {arg.nbytes}: {arg!r}"
                )
            self._structs[i] = size
            return arg
        raise TypeError(f"{self._kernel}: expected {type_} for an argument, got {arg!r}")

    def packed(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """``args`` as bytes, but for the addresses of buffers, which are as they are."""
        return tuple(
            x.pointer if isinstance(x, Buffer) else bytes(8) if x is None else x.tobytes()
            for x in self.typed(args)
        )

"""Arguments for kernels: their checks, and the memory that CUDA takes them from."""

from __future__ import annotations

import ctypes
import functools
import itertools
import struct
from numbers import Real
from typing import Any, Callable, NamedTuple

import numpy as np

from cvops._arrays import Buffer

_INTEGERS: dict[str, Any] = {"int": np.int32, "long long": np.int64}
#: What ``struct`` calls the types of parameters. Any other is a struct.
_CODES = {"*": "Q", "int": "i", "long long": "q", "float": "f"}


class Block(NamedTuple):
    """Memory with room for the arguments of one launch."""

    #: Where the addresses of the arguments stand, which ``cuLaunchKernel`` takes.
    address: int
    #: Writes the arguments as ``struct`` does: a pointer is an int, a struct its bytes.
    write: Callable[..., None]


class Parameters:
    """The parameters of a kernel, of the types that it declares; "*" is a pointer.

    An argument is a :class:`Buffer` or None, which is a null pointer, for a pointer, a number for a
    number, and a structured NumPy array without axes for a struct. Others are refused by a
    TypeError, and an integer that does not fit by an OverflowError, which name the kernel.
    """

    def __init__(self, kernel: str, types: tuple[str, ...]):
        self._kernel, self._types = kernel, types
        self._pointers = [i for i, type_ in enumerate(types) if type_ == "*"]
        #: How many bytes each struct has, as the first ones that were given; until then 0.
        self._structs = {i: 0 for i, type_ in enumerate(types) if type_ not in _CODES}
        #: Of no launch now. Threads that launch at a time have each its own.
        self._blocks: list[Block] = []

    def pack(self, args: tuple[Any, ...]) -> Block:
        """A block with ``args``, which is the caller's until :meth:`release`."""
        try:
            return self._filled(self._plain(args))
        except (TypeError, AttributeError, IndexError, OverflowError, struct.error):
            return self._filled(self._plain(self.typed(args)))  # or it says what is wrong

    def release(self, block: Block) -> None:
        """Give back a block after its launch: CUDA has copied what stands there."""
        self._blocks.append(block)

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

    def _plain(self, args: tuple[Any, ...]) -> list[Any]:
        """As :attr:`Block.write` takes them. The numbers, and how many they are, it checks."""
        values = list(args)
        for i in self._pointers:
            buffer = values[i]
            values[i] = 0 if buffer is None else buffer.pointer
        for i, size in self._structs.items():
            value = values[i]
            if value.nbytes != size or value.dtype.names is None:
                raise TypeError
            values[i] = value.tobytes()
        return values

    def _filled(self, values: list[Any]) -> Block:
        try:
            block = self._blocks.pop()
        except IndexError:
            block = self._new_block()
        block.write(*values)
        return block

    def _new_block(self) -> Block:
        codes = [_CODES.get(t, f"{self._structs.get(i)}s") for i, t in enumerate(self._types)]
        codes = [_padded(code) for code in codes]
        layout, first = struct.Struct("<" + "".join(codes)), 8 * len(codes)
        memory = (ctypes.c_uint64 * ((first + layout.size) // 8))()
        starts = itertools.accumulate(map(struct.calcsize, codes[:-1]), initial=first)
        memory[: len(codes)] = [ctypes.addressof(memory) + start for start in starts]
        return Block(ctypes.addressof(memory), functools.partial(layout.pack_into, memory, first))


def _padded(code: str) -> str:
    """To a multiple of 8 bytes, so that the next one is aligned."""
    return f"{code}{-struct.calcsize(code) % 8}x"

"""The launch that Module.launch describes, with the checks that Python can make."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

#: The kinds of arguments: ``enum class Kind`` of request.h.
VALUE, ARRAY, READ_ONLY_ARRAY, ADDRESS = range(4)


@dataclass(frozen=True)
class Argument:
    """A kind, and an array: the target of a pointer, or the bytes of a value."""

    kind: int
    array: np.ndarray


@dataclass(frozen=True)
class Request:
    kernel: str
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    args: tuple[Argument, ...]
    shared: int
    seed: int

    def __str__(self) -> str:
        return f"{self.kernel}, grid {self.grid}, block {self.block}"


def to_argument(value: Any) -> Argument:
    """Return the argument for a NumPy array or scalar."""
    if isinstance(value, np.uintp):
        return Argument(ADDRESS, np.array(value))
    if isinstance(value, np.ndarray) and not (value.dtype.names and value.size == 1):
        if not value.flags.c_contiguous:
            raise ValueError(f"expected a C-contiguous array, got strides {value.strides}")
        return Argument(ARRAY if value.flags.writeable else READ_ONLY_ARRAY, value)
    if isinstance(value, (np.generic, np.ndarray)):
        return Argument(VALUE, np.array(value))
    raise TypeError(f"expected a NumPy array or scalar, got {type(value)}")


def to_arguments(kernel: str, values: Sequence[Any]) -> tuple[Argument, ...]:
    """Return the argument for each value; an error names the kernel and the index."""
    made = []
    for i, value in enumerate(values):
        try:
            made.append(to_argument(value))
        except (TypeError, ValueError) as error:
            raise type(error)(f"{kernel}: argument {i}: {error}") from None
    return tuple(made)


def dim3(sizes: Sequence[int]) -> tuple[int, int, int]:
    """Return a grid or block of one to three sizes with three sizes."""
    x, y, z = (*map(int, sizes), *(1,) * (3 - len(sizes)))
    if min(x, y, z) < 0 or max(x, y, z) >= 1 << 32:
        raise ValueError(f"grid and block: expected 32-bit sizes from 0, got {tuple(sizes)}")
    return x, y, z

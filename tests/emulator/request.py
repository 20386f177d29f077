"""What Module.launch was asked for, checked as far as Python can."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

#: How an argument is passed; ``enum class Kind`` of request.h.
VALUE, ARRAY, READ_ONLY_ARRAY, ADDRESS = range(4)


@dataclass(frozen=True)
class Argument:
    """How it is passed, and an array: what a pointer shall point to, or the bytes of a value."""

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


def argument(value: Any) -> Argument:
    """The argument that a NumPy array or scalar stands for."""
    if isinstance(value, np.uintp):
        return Argument(ADDRESS, np.array(value))
    if isinstance(value, np.ndarray) and not (value.dtype.names and value.size == 1):
        if not value.flags.c_contiguous:
            raise ValueError("is not C-contiguous")
        return Argument(ARRAY if value.flags.writeable else READ_ONLY_ARRAY, value)
    if isinstance(value, (np.generic, np.ndarray)):
        return Argument(VALUE, np.array(value))
    raise TypeError(f"is neither a NumPy array nor a NumPy scalar but of {type(value)}")


def arguments(kernel: str, values: Sequence[Any]) -> tuple[Argument, ...]:
    """``argument`` of each; an error names the kernel and the argument's index."""
    made = []
    for i, value in enumerate(values):
        try:
            made.append(argument(value))
        except (TypeError, ValueError) as error:
            raise type(error)(f"{kernel}: argument {i} {error}") from None
    return tuple(made)


def three(sizes: Sequence[int]) -> tuple[int, int, int]:
    """A grid or block of one to three sizes, as CUDA takes it."""
    x, y, z = (*map(int, sizes), *(1,) * (3 - len(sizes)))
    if min(x, y, z) < 0 or max(x, y, z) >= 1 << 32:
        raise ValueError(f"sizes of a grid or block are 32-bit and not negative: {tuple(sizes)}")
    return x, y, z

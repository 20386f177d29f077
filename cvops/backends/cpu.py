"""Executors of ops on the CPU, with memory from the caller's library."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable
from typing import Any, Callable

import numpy as np

from cvops.arrays import ArrayType, Device, Library
from cvops.arrays.base import ceil_div
from cvops.backends import extension

#: An array of this number of bytes or more gets huge pages, from NumPy or from the extension.
_HUGE = 1 << 22
#: The largest element of a result, in bytes.
_MAX_ITEM = 8


class Cpu:
    """The CPU, for arrays of one library. A ``native`` implementation gets it as ``DeviceOps``."""

    def __init__(self, library: Library, device: Device):
        # The methods of the library itself: a wrapper takes longer than they do.
        self.to_numpy, self.from_numpy = library.to_numpy, library.from_numpy
        native = extension.native()
        #: The ops of the extension; None where it was not built.
        self.ops = getattr(native, "cpu", None)
        if library.empty_cpu is None:
            # The extension reuses the memory of large results.
            self.empty = getattr(native, "empty", np.empty)
            self.empty_all = functools.partial(_parts, self.empty)
        else:
            self.empty = library.empty_cpu
            self.empty_all = functools.partial(_each, self.empty)

    def run(
        self,
        implementation: Callable[..., Any],
        types: list[ArrayType],
        arrays: Iterable[Any],
        options: tuple[Any, ...],
    ) -> Any:
        """Run an implementation on NumPy arrays; return arrays of the caller's library."""
        out = implementation(self, *map(self.to_numpy, arrays), *options)
        from_numpy = self.from_numpy
        return tuple(map(from_numpy, out)) if type(out) is tuple else from_numpy(out)


class Reference(Cpu):
    """The CPU for the reference implementations, which use NumPy alone."""

    def run(
        self,
        implementation: Callable[..., Any],
        types: list[ArrayType],
        arrays: Iterable[Any],
        options: tuple[Any, ...],
    ) -> Any:
        out = implementation(*map(self.to_numpy, arrays), *options)
        return tuple(map(self.from_numpy, out)) if type(out) is tuple else self.from_numpy(out)


def _each(empty: Callable[..., np.ndarray], *types: ArrayType) -> tuple[np.ndarray, ...]:
    """Allocate several arrays, each by ``empty``."""
    return tuple([empty(shape, dtype) for shape, dtype in types])


def _parts(empty: Callable[..., np.ndarray], *types: ArrayType) -> tuple[np.ndarray, ...]:
    """Allocate several arrays as :func:`_each` does, or as parts of one array.

    That array lives until the last part dies. It gets huge pages: the first write to small ones may
    take longer than an op.
    """
    if sum([math.prod(shape) for shape, _ in types]) * _MAX_ITEM < _HUGE:
        return tuple([empty(shape, dtype) for shape, dtype in types])
    sizes = [math.prod(shape) * np.dtype(dtype).itemsize for shape, dtype in types]
    if sum(sizes) < _HUGE or min(sizes) >= _HUGE:
        return _each(empty, *types)
    starts = np.cumsum([0, *(ceil_div(size, 64) * 64 for size in sizes)])
    memory = empty((int(starts[-1]),), np.uint8)
    parts = (memory[start : start + size] for start, size in zip(starts, sizes))
    return tuple([part.view(dtype).reshape(shape) for part, (shape, dtype) in zip(parts, types)])

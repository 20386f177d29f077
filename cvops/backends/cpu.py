"""Executors of ops on the CPU, with memory from the caller's library."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any, Callable

import numpy as np

from cvops.arrays import ArrayType, Device, Library
from cvops.arrays.base import NumPy
from cvops.backends import extension


class Reference:
    """The CPU for the reference implementations, which use NumPy alone."""

    def __init__(self, library: Library, device: Device):
        # The methods of the library itself: a wrapper takes longer than they do.
        self.to_numpy, self.from_numpy = library.to_numpy, library.from_numpy

    def run(
        self,
        implementation: Callable[..., Any],
        types: list[ArrayType],
        arrays: Iterable[Any],
        options: tuple[Any, ...],
    ) -> Any:
        """Run an implementation on NumPy arrays; return arrays of the caller's library."""
        out = implementation(*map(self.to_numpy, arrays), *options)
        return tuple(map(self.from_numpy, out)) if type(out) is tuple else self.from_numpy(out)


class Cpu:
    """The CPU, for arrays of one library. A ``native`` implementation gets it as ``DeviceOps``."""

    def __init__(self, library: Library, device: Device):
        native = extension.native()
        #: The ops of the extension.
        self.ops = native.cpu
        if library.empty_cpu is None:
            # The extension reuses the memory of large results.
            self.empty, self.empty_all = native.empty, native.empty_all
        else:
            self.empty = library.empty_cpu
            self.empty_all = functools.partial(_each, self.empty)
        from_numpy = None if isinstance(library, NumPy) else library.from_numpy
        #: As :meth:`Reference.run`, in the extension.
        self.run = functools.partial(native.run_on_cpu, self, library.to_numpy, from_numpy)


def _each(empty: Callable[..., np.ndarray], *types: ArrayType) -> tuple[np.ndarray, ...]:
    """Allocate several arrays, each by ``empty``."""
    return tuple([empty(shape, dtype) for shape, dtype in types])

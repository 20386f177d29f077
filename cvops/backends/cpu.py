"""Executors of ops on the CPU, with memory from the caller's library."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Callable

from cvops.arrays import ArrayType, Device, Library
from cvops.backends import extension


class Cpu:
    """The CPU, for arrays of one library. A ``native`` implementation gets it as ``DeviceOps``."""

    def __init__(self, library: Library, device: Device):
        # The methods of the library itself: a wrapper takes longer than they do.
        self.to_numpy, self.from_numpy = library.to_numpy, library.from_numpy
        self.empty, self.empty_all = library.empty_cpu, library.empty_all_cpu
        #: The ops of the extension; None where it was not built.
        self.ops = getattr(extension.native(), "cpu", None)

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

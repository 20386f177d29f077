"""The executors of ops on the CPU: memory from the caller's library."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from cvops.arrays import Device, Library
from cvops.backends import extension


class Cpu:
    """The CPU, for arrays of one library; an implementation gets it as its first argument."""

    def __init__(self, library: Library, device: Device):
        # The library's own methods, since a call in between would take longer than they do.
        self.to_numpy, self.from_numpy = library.to_numpy, library.from_numpy
        #: New memory for a result, not initialized, as a NumPy array.
        self.empty = library.new
        #: The same for several results, of shapes and dtypes.
        self.empty_all = library.new_all
        #: The ops of the extension.
        self.ops = extension.native()

    def run(self, plan: Any, arrays: Iterable[Any], options: tuple[Any, ...]) -> Any:
        """Run the plan's implementation; return arrays of the caller's library."""
        out = plan.body(self, *map(self.to_numpy, arrays), *options)
        from_numpy = self.from_numpy
        return tuple(map(from_numpy, out)) if type(out) is tuple else from_numpy(out)


class Oracle(Cpu):
    """The CPU for the reference implementations, which use NumPy alone."""

    def run(self, plan: Any, arrays: Iterable[Any], options: tuple[Any, ...]) -> Any:
        out = plan.body(*map(self.to_numpy, arrays), *options)
        return tuple(map(self.from_numpy, out)) if type(out) is tuple else self.from_numpy(out)

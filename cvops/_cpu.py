"""Where the bodies for the CPU run: memory from the caller's library."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from cvops import _gpu
from cvops._arrays import Device, Library


class Cpu:
    """The CPU, for arrays of one library. What it does is the library's, without a step between."""

    def __init__(self, library: Library, device: Device):
        #: The caller's array as a body takes it.
        self.enter = library.to_numpy
        #: New memory for a result, not initialised, as a NumPy array.
        self.empty = library.new
        #: The same for several, of shapes and dtypes.
        self.empty_all = library.new_all
        #: A NumPy array that a body gives, as the caller's kind of array.
        self.leave = library.from_numpy
        self.module = _gpu.extension()

    def run(self, plan: Any, arrays: Iterable[Any], options: tuple[Any, ...]) -> Any:
        """What the plan's body gives for the caller's arrays, as his kind of array."""
        out = plan.body(self, *map(self.enter, arrays), *options)
        leave = self.leave
        return tuple(map(leave, out)) if type(out) is tuple else leave(out)


class Oracle(Cpu):
    """For bodies that make their results by NumPy alone."""

    def run(self, plan: Any, arrays: Iterable[Any], options: tuple[Any, ...]) -> Any:
        out = plan.body(*map(self.enter, arrays), *options)
        return tuple(map(self.leave, out)) if type(out) is tuple else self.leave(out)

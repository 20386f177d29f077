"""Where the bodies for the CPU run: memory from the caller's library."""

from __future__ import annotations

from typing import Any, Callable

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

    def run(self, body: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        return body(self, *args)


class Oracle(Cpu):
    """For bodies that make their results by NumPy alone."""

    def run(self, body: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        return body(*args)

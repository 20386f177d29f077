"""Launches that are made again and again: where cuLaunchKernel takes their arguments from."""

from __future__ import annotations

import ctypes
import functools
import struct
from collections.abc import Sequence
from typing import Callable, NamedTuple

from cvops import _kernels


class Launch(NamedTuple):
    kernel: str
    grid: tuple[int, ...]
    block: tuple[int, ...]
    #: In bytes.
    shared: int
    start: _kernels.Start

    def __str__(self) -> str:
        return f"{self.kernel}<<<{self.grid}, {self.block}, {self.shared}>>>"


class Launches:
    """Launches of kernels one after another, whose arguments but for addresses stay the same.

    An argument of a launch is the bytes of a value, or the place of an address among those that a
    call has.
    """

    def __init__(self, launches: Sequence[tuple[Launch, Sequence[int | bytes]]], count: int):
        self._layout = struct.Struct(f"{count}Q")
        values = b"".join(_padded(x) for _, args in launches for x in args if isinstance(x, bytes))
        self._values = (ctypes.c_uint64 * (len(values) // 8)).from_buffer_copy(values)
        self._launches = launches
        #: Of no call now. Threads that call at a time have each its own.
        self._frames: list[Frame] = []

    def __call__(self, addresses: Sequence[int], stream: int) -> None:
        frame = self.frame(addresses)
        for launch, arguments in frame.launches:
            try:
                launch.start(stream, arguments, 0)
            except Exception as error:
                raise RuntimeError(f"{launch}: {error}") from error
        self._frames.append(frame)  # CUDA has copied what stands there

    def frame(self, addresses: Sequence[int]) -> Frame:
        """One with these addresses, the caller's."""
        try:
            frame = self._frames.pop()
        except IndexError:
            frame = self._new_frame()
        frame.write(*addresses)
        return frame

    def _new_frame(self) -> Frame:
        count = self._layout.size // 8
        memory = (ctypes.c_uint64 * (count + sum(len(args) for _, args in self._launches)))()
        first, value, at = ctypes.addressof(memory), ctypes.addressof(self._values), count
        launches = []
        for launch, args in self._launches:
            launches.append((launch, first + 8 * at))
            for x in args:
                if isinstance(x, bytes):
                    memory[at], value = value, value + len(_padded(x))
                else:
                    memory[at] = first + 8 * x
                at += 1
        return Frame(functools.partial(self._layout.pack_into, memory, 0), launches)


class Frame(NamedTuple):
    """Memory for the arguments of a call's launches."""

    #: Writes the addresses; it owns the memory.
    write: Callable[..., None]
    #: Each with where the addresses of its arguments stand.
    launches: list[tuple[Launch, int]]


def _padded(value: bytes) -> bytes:
    """To a multiple of 8 bytes, so that the next one is aligned."""
    return value + bytes(-len(value) % 8)

"""Memory with the same address in this process and in the processes of sanitized launches.

Gaps separate its arrays. AddressSanitizer treats the gaps as poisoned.
"""

from __future__ import annotations

import ctypes
import itertools
import mmap
import os
from typing import NamedTuple

import numpy as np

#: An address that Linux does not select for a mapping, and that both sanitizers accept.
_BASE = 0x7E9000000000
_CAPACITY = 1 << 32
#: The alignment of an array, and the least distance between two arrays.
GAP = 256
_bases = itertools.count(_BASE, _CAPACITY)
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]


class Region(NamedTuple):
    start: int
    size: int


class Arena:
    """An allocator whose memory child processes can map."""

    def __init__(self) -> None:
        self._file = os.memfd_create("arena")
        os.ftruncate(self._file, _CAPACITY)
        fixed = 0x100000  # MAP_FIXED_NOREPLACE
        self.base = next(_bases)
        flags = mmap.MAP_SHARED | fixed
        got = _libc.mmap(
            self.base, _CAPACITY, mmap.PROT_READ | mmap.PROT_WRITE, flags, self._file, 0
        )
        assert got == self.base, f"the memory at {self.base:#x} is in use"
        self.regions: list[Region] = []
        self.used = 0

    @property
    def path(self) -> str:
        """The path of the memory's file for a child process."""
        return f"/proc/{os.getpid()}/fd/{self._file}"

    def allocate(self, size: int) -> int:
        """Return the address of new memory."""
        start = self.base + self.used
        self.used += -(-size // GAP) * GAP + GAP
        assert self.used <= _CAPACITY, "the arena is too small"
        self.regions.append(Region(start, size))
        return start

    def add_region(self, region: Region) -> None:
        """Make a part of the memory a region, and remove the regions that overlap it."""
        end = region.start + region.size
        others = [x for x in self.regions if x.start + x.size <= region.start or end <= x.start]
        self.regions = [*others, region]

    def array(self, shape: tuple[int, ...], dtype: object) -> np.ndarray:
        """Return a new array, filled with junk."""
        dtype = np.dtype(dtype)
        size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        memory = (ctypes.c_uint8 * size).from_address(self.allocate(size))
        array = np.frombuffer(memory, np.uint8)
        array[:] = 0xCD
        return array.view(dtype).reshape(shape)

    def close(self) -> None:
        _libc.munmap(self.base, _CAPACITY)
        os.close(self._file)

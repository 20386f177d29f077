"""Times of events and a profiler for benchmarks on the emulated driver.

The times are those of the emulator, not of a GPU.
"""

from __future__ import annotations

import time
from ctypes import POINTER, c_float, c_void_p

from . import backends
from .driver.api import CudaError, cuda, functions

_recorded: dict[int, float] = {}
#: The calls of the profiler: "start" or "stop".
profiled: list[str] = []


def install() -> None:
    """Call :func:`backends.install_driver` with these functions, before CuPy is imported."""
    record = functions["cudaEventRecord"]

    @cuda(c_void_p, c_void_p)
    def cudaEventRecord(event, stream):
        _recorded[event] = time.perf_counter()
        code = record(event, stream)
        if code:
            raise CudaError(code)

    @cuda(POINTER(c_float), c_void_p, c_void_p)
    def cudaEventElapsedTime(milliseconds, start, end):
        milliseconds[0] = 1e3 * (_recorded[end] - _recorded[start])

    @cuda()
    def cudaProfilerStart():
        profiled.append("start")

    @cuda()
    def cudaProfilerStop():
        profiled.append("stop")

    backends.register()
    backends.install_driver()

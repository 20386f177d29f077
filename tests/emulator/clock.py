"""What benchmarks ask of the emulated driver beside the ops: times of events, and a profiler.

The times are those of this machine, and mean nothing.
"""

from __future__ import annotations

import time
from ctypes import POINTER, c_float, c_void_p

from . import backends
from .driver.api import Refused, cuda, functions

_recorded: dict[int, float] = {}
#: "start" and "stop", as the profiler was told.
profiled: list[str] = []


def install() -> None:
    """As :func:`backends.install_driver`, before CuPy is imported."""
    record = functions["cudaEventRecord"]

    @cuda(c_void_p, c_void_p)
    def cudaEventRecord(event, stream):
        _recorded[event] = time.perf_counter()
        code = record(event, stream)
        if code:
            raise Refused(code)

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

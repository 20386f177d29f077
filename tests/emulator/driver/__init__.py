"""Two emulated GPUs: the functions of CUDA's driver and runtime that CuPy and cvops call.

CuPy, NVRTC and the cubins are the real ones. Device memory is memory of the host, kernels run in
the emulator, and a call returns after its work is done. The driver refuses what CUDA refuses:

- a kernel, a stream and a current device that are not of one GPU
- a cubin for another architecture
- arguments outside of the memory of the device
- calls that are not allowed while a graph is captured

``calls`` is a list of the calls.

    api.py           registers Python functions as functions of CUDA
    devices.py       the devices and their memory
    streams.py       streams, events, graphs
    kernels.py       modules and launches
    cupy_kernels.py  the kernels of CuPy
    interpose.py     replaces the functions of CUDA in this process
    elf.py           reads libraries and cubins
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable

from . import api, devices, interpose, kernels, streams
from .api import calls, functions
from .kernels import EmulatedKernel

__all__ = ["EmulatedKernel", "api", "calls", "devices", "install", "installed", "streams"]


def install(find_kernel: Callable[[str], EmulatedKernel | None]) -> None:
    """Become the driver of this process; call it before CuPy is imported."""
    kernels.find_kernel = find_kernel
    library = interpose.load_library(functions)
    library.cuda_thread.restype = ctypes.POINTER(ctypes.c_int)
    api.thread.numbers = library.cuda_thread
    interpose.replace_in_cupy(library, functions)


def installed() -> bool:
    return kernels.find_kernel is not None

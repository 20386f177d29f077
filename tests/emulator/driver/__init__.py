"""Two GPUs for CuPy where there is none: CUDA's functions, as far as CuPy and our extension go.

CuPy itself is the real one, and so are NVRTC and the cubins that it makes. Memory is the host's,
kernels run in the emulator, each call has done its work when it returns. What CUDA refuses is
refused: a kernel, a stream and a current device that do not belong together, a cubin for another
architecture, arguments that are not in the memory of the device, and what must not be called while
a graph is captured. What is called is written down in ``calls``.

    api.py           offers Python functions as CUDA's
    devices.py       the devices and their memory
    streams.py       streams, events, graphs
    kernels.py       modules and launches; cupy_kernels.py has what CuPy launches itself
    interpose.py     brings the functions to where CuPy looks for them
    elf.py           reads libraries and cubins
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable

from . import api, devices, interpose, kernels, streams
from .api import calls, functions
from .kernels import Emulated

__all__ = ["Emulated", "api", "calls", "devices", "install", "installed", "streams"]


def install(find: Callable[[str], Emulated | None]) -> None:
    """Be the driver of this process, before CuPy is imported. ``find`` knows kernels by name."""
    kernels.find = find
    library = interpose.load_library(functions)
    library.cuda_thread.restype = ctypes.POINTER(ctypes.c_int)
    api.thread.numbers = library.cuda_thread
    interpose.replace_in_cupy(library, functions)


def installed() -> bool:
    return kernels.find is not None

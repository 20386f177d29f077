"""The emulator as backends of cvops, which run the bodies for a GPU on NumPy arrays.

- "emulated": the launches that Python makes, those of the CuPy backend
- "emulated-native": the launches that C++ makes, those of the native backend on a GPU
- "emulated-small": the same C++ with the second values of CVOPS_STEP, for tests of sizes
- "emulated-address", "emulated-thread": the launches that Python makes, under a sanitizer
"""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np

from cvops import _cuda, _gpu, _kernels
from cvops._arrays import ALIGNMENT, Buffer
from cvops._op import BACKENDS, Backend
from emulator import driver
from emulator.driver import cupy_kernels
from emulator.emulator import Module, build_extension

#: How the warps and lanes of a block take turns; tests may set it.
SEED = 0
_NULL = np.uintp(0)
_BINDINGS = Path(__file__).parents[2] / "bindings"


def _aligned(shape: tuple[int, ...], dtype: object) -> np.ndarray:
    """New memory as a GPU's allocator gives it: aligned, and with junk in it."""
    dtype = np.dtype(dtype)
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    memory = np.full(size + ALIGNMENT, 0xCD, np.uint8)
    first = -memory.ctypes.data % ALIGNMENT
    return memory[first : first + size].view(dtype).reshape(shape)


def _buffer(x: np.ndarray) -> Buffer:
    return Buffer(x.ctypes.data, x.shape, x.dtype, x)


class Emulated(_gpu.Gpu):
    """Kernels launched from Python."""

    sanitizer: str | None = None
    multiprocessors = 4
    most_shared = 227 << 10

    def __init__(self, library, device):
        self.library, self.stream = library, 0

    def enter(self, x):
        x = self.library.to_numpy(x)
        if x.ctypes.data % ALIGNMENT:
            copy = _aligned(x.shape, x.dtype)
            copy[...] = x
            x = copy
        return _buffer(x)

    def leave(self, buffer):
        return self.library.from_numpy(buffer.owner)

    def empty(self, shape, dtype):
        return _buffer(_aligned(shape, dtype))

    def workspace(self, size):
        return self.empty((size,), np.uint8)

    def scratch(self, *kinds):
        return self.empty_all(*kinds)  # apart, so that a sanitizer sees where each ends

    def _launch(self, source, kernel, grid, block, args, shared):
        module = _module(source, self.sanitizer)
        args = _kernels.parameters(source, kernel).typed(args)
        args = tuple(x.owner if isinstance(x, Buffer) else _NULL if x is None else x for x in args)
        module.launch(kernel, grid, block, args, shared, seed=SEED)

    def run(self, plan, arrays, options):
        out = plan.body(self, *map(self.enter, arrays), *options)
        return tuple(map(self.leave, out)) if type(out) is tuple else self.leave(out)


class EmulatedAddress(Emulated):
    sanitizer = "address"


class EmulatedThread(Emulated):
    sanitizer = "thread"


class EmulatedNative(Emulated):
    """Kernels launched from C++."""

    @property
    def module(self):
        return _extension()


class EmulatedSmall(Emulated):
    """Kernels launched from C++ that was compiled with the second values of CVOPS_STEP."""

    @property
    def module(self):
        return _small_extension()


class NativeOnDriver(_cuda.Native):
    """The native backend on the emulated GPUs."""

    def extension(self):
        return _extension()


@functools.lru_cache(None)
def _module(source: str, sanitizer: str | None) -> Module:
    return Module(_kernels.source(source), source, sanitizer)


@functools.lru_cache(None)
def _extension():
    return build_extension(_BINDINGS, _kernels.KERNELS, driver=driver.installed())


@functools.lru_cache(None)
def _small_extension():
    return build_extension(
        _BINDINGS, _kernels.KERNELS, "_native_small", macros=["CVOPS_SMALL_STEPS"]
    )


def install_driver() -> None:
    """Let this process have GPUs that run the kernels in the emulator."""
    driver.install(_kernel)
    BACKENDS["cuda", "native"] = Backend("native_cuda", lambda: None, NativeOnDriver)


def _kernel(name: str) -> driver.Emulated | None:
    """What stands for a kernel of ours or of CuPy's."""
    if name.startswith("cupy_copy__"):
        return driver.Emulated(cupy_kernels.copy(name))
    if name == "cupy_fill":
        return driver.Emulated(cupy_kernels.fill)
    for source in _kernels.sources():
        types = _kernels.signatures(source).get(name)
        if types:
            pointers = tuple(i for i, type_ in enumerate(types) if type_ == "*")
            return driver.Emulated(functools.partial(_launch, source, name, pointers), pointers)
    return None


def _launch(source, kernel, pointers, grid, block, parameters, shared):
    args = [
        np.uintp(int.from_bytes(x, "little")) if i in pointers else np.void(x)
        for i, x in enumerate(parameters)
    ]
    _module(source, None).launch(kernel, grid, block, args, shared, seed=SEED)


def register() -> None:
    here = {
        "emulated": Backend("kernels", lambda: None, Emulated),
        "emulated-native": Backend("native_cuda", lambda: None, EmulatedNative),
        "emulated-small": Backend("native_cuda", lambda: None, EmulatedSmall),
        "emulated-address": Backend("kernels", lambda: None, EmulatedAddress),
        "emulated-thread": Backend("kernels", lambda: None, EmulatedThread),
    }
    BACKENDS.update({("cpu", name): backend for name, backend in here.items()})

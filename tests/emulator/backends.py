"""The emulator as backends of cvops for NumPy arrays.

- "emulated": the launches of the extension, with each kernel in the emulator
- "emulated-small": the same with the second values of CVOPS_STEP: small inputs reach each step
- "emulated-address", "emulated-thread": each launch under a sanitizer, in a child process
- "emulated-small-address", "emulated-small-thread": both
- "listed": no launch runs, no memory is accessed; a call returns numbers of bytes
"""

from __future__ import annotations

import functools
import math
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from cvops.backends import cuda, extension, nvrtc
from cvops.backends.registry import BACKENDS, Backend
from emulator import driver
from emulator.arena import GAP, Arena, Region
from emulator.driver import cupy_kernels
from emulator.emulator import Module, pointer_parameters
from emulator.extension import build_extension

#: The order of the warps and lanes of a block; tests may set it.
SEED = 0
#: The properties of the device. Few multiprocessors make small grids, which are fast to emulate.
MULTIPROCESSORS, MAX_SHARED = 4, 227 << 10
BINDINGS = Path(__file__).parents[2] / "bindings"


class Launch(NamedTuple):
    """A launch of the extension."""

    kernel: str
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    #: The bytes of dynamic shared memory.
    shared: int
    #: The bytes of each argument.
    arguments: list[bytes]


def on_launch(launch: Launch) -> Launch:
    """Receive each launch before it runs, and return the launch to run; tests may replace it."""
    return launch


def aligned(shape: tuple[int, ...], dtype: object) -> np.ndarray:
    """Return new memory like that of a GPU's allocator: aligned, and filled with junk."""
    dtype = np.dtype(dtype)
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    memory = np.full(size + GAP, 0xCD, np.uint8)
    first = -memory.ctypes.data % GAP
    return memory[first : first + size].view(dtype).reshape(shape)


def _launch(kernel, grid, block, shared, arguments, pointers, stream, *, build=(), arena=None):
    launch = on_launch(Launch(kernel, grid, block, shared, arguments))
    args = [
        np.uintp(int.from_bytes(x, "little")) if is_pointer else np.void(x)
        for x, is_pointer in zip(launch.arguments, pointers)
    ]
    module(nvrtc.source_of(kernel), *build).launch(
        kernel, launch.grid, launch.block, args, launch.shared, seed=SEED, arena=arena
    )


@functools.lru_cache(None)
def module(source: str, sanitizer: str | None = None, small: bool = False) -> Module:
    """Return the kernels of a source, with a sanitizer or the second values of CVOPS_STEP."""
    text = nvrtc.source(source)
    if small:
        return Module(f"#define CVOPS_SMALL_STEPS\n{text}", f"{source}_small", sanitizer)
    return Module(text, source, sanitizer)


@functools.lru_cache(None)
def native_module(small: bool) -> ModuleType:
    if not small:
        return extension.native()
    core = Path(extension.native().__file__).parent / "lib" / "libcvops.so"
    # Only the launches have steps. Python has loaded the library with the rest.
    flags = ["-O0", "-DCVOPS_SMALL_STEPS"]
    return build_extension(BINDINGS, nvrtc.KERNELS, "_native_small", flags, ["cuda"], core)


class Call:
    """One call of an op, like :class:`cvops.backends.cuda.Call`; ``array`` allocates memory."""

    def __init__(self, extension, launch, array, **options):
        self._array, self._scratch, self._new_buffer = array, [], extension.Buffer
        device = extension.CallbackDevice(launch, MULTIPROCESSORS, MAX_SHARED, **options)
        self.ops = extension.Gpu(device, 0, self._allocate)

    def _allocate(self, size):
        self._scratch.append(self._array((size,), np.uint8))
        return self._scratch[-1].ctypes.data

    def buffer(self, x: np.ndarray) -> Any:
        return self._new_buffer(x.ctypes.data, x.shape, x.dtype, x)

    def empty(self, shape, dtype):
        return self.buffer(self._array(shape, dtype))

    def empty_all(self, *types):
        return tuple([self.empty(*type_) for type_ in types])


class Emulated:
    """Runs the implementation for GPUs on NumPy arrays."""

    def __init__(self, library, device):
        self.library = library

    #: True if constants have the second values of CVOPS_STEP.
    small = False

    def new_call(self):
        """Return a call, and the function that allocates its arrays."""
        launch = functools.partial(_launch, build=(None, self.small))
        return Call(native_module(self.small), launch, aligned), aligned

    def run(self, implementation, types, arrays, options):
        call, array = self.new_call()
        buffers = []
        for x in map(self.library.to_numpy, arrays):
            copy = array(x.shape, x.dtype)
            copy[...] = x
            buffers.append(call.buffer(copy))
        out = implementation(call, *buffers, *options)
        from_buffer = self.from_buffer
        return tuple(map(from_buffer, out)) if type(out) is tuple else from_buffer(out)

    def from_buffer(self, buffer):
        """Return a result as an array of the caller's library."""
        return self.library.from_numpy(buffer.owner)


class EmulatedSmall(Emulated):
    """Emulated with the second values of CVOPS_STEP, in kernels and launches."""

    small = True


class Sanitized(Emulated):
    """Emulated with each array of a call in an arena, between poisoned gaps."""

    sanitizer: str

    def new_call(self):
        arena = Arena()
        launch = functools.partial(_launch, build=(self.sanitizer, self.small), arena=arena)

        def on_scratch(address, size):
            arena.add_region(Region(address, size))

        options = dict(scratch_gap=GAP, on_scratch=on_scratch)
        return Call(native_module(self.small), launch, arena.array, **options), arena.array

    def from_buffer(self, buffer):
        return self.library.from_numpy(buffer.owner.copy())


class EmulatedAddress(Sanitized):
    sanitizer = "address"


class EmulatedThread(Sanitized):
    sanitizer = "thread"


class EmulatedSmallAddress(EmulatedAddress):
    small = True


class EmulatedSmallThread(EmulatedThread):
    small = True


class ListedCall:
    """One call of an op, whose launches go to ``on_launch`` and do not run."""

    def __init__(self):
        self.results = 0

        def launch(kernel, grid, block, shared, arguments, pointers, stream):
            on_launch(Launch(kernel, grid, block, shared, arguments))

        device = extension.native().CallbackDevice(launch, MULTIPROCESSORS, MAX_SHARED)
        self.ops = extension.native().Gpu(device, 0, lambda size: GAP)

    def empty(self, shape, dtype):
        self.results += math.prod(shape) * np.dtype(dtype).itemsize
        return extension.native().Buffer(GAP, shape, np.dtype(dtype))

    def empty_all(self, *types):
        return tuple([self.empty(*type_) for type_ in types])


class Listed:
    """Runs no launch; a call returns the bytes of its results and of its scratch memory."""

    def __init__(self, library, device):
        pass

    def run(self, implementation, types, arrays, options):
        call, buffer = ListedCall(), extension.native().Buffer
        implementation(call, *[buffer(GAP, *type_) for type_ in types], *options)
        return call.results, call.ops.scratch_bytes


def use_for_mxnet() -> None:
    """Run the GPU operators for MXNet in the emulator, on MXNet's arrays on the CPU."""
    native = extension.native()
    native.set_default_device(native.CallbackDevice(_launch, MULTIPROCESSORS, MAX_SHARED, 0))


def use_driver_for_mxnet() -> None:
    """Run the GPU operators for MXNet on the emulated driver, with the cubins of NVRTC."""
    install_driver()
    driver.devices.host_memory_device = 0
    extension.native().set_default_functions(cuda.nvrtc_functions())


class NativeOnDriver(cuda.Cuda):
    """The native backend on the emulated GPUs, with kernels compiled by NVRTC instead of nvcc."""

    def functions(self):
        return cuda.nvrtc_functions()


def install_driver() -> None:
    """Give this process emulated GPUs; call it before CuPy is imported."""
    driver.install(_find_kernel)
    native = functools.lru_cache(None)(NativeOnDriver)
    BACKENDS["cuda", "native"] = Backend("native", lambda: None, native)


def _find_kernel(name: str) -> driver.EmulatedKernel | None:
    """Return a kernel of cvops or CuPy by its name."""
    if name.startswith("cupy_copy__"):
        return driver.EmulatedKernel(cupy_kernels.copy(name))
    if name == "cupy_fill":
        return driver.EmulatedKernel(cupy_kernels.fill)
    for source in nvrtc.sources():
        if name in nvrtc.kernels(source):
            pointers = pointer_parameters(nvrtc.source(source), name)
            return driver.EmulatedKernel(functools.partial(_run, source, name, pointers), pointers)
    return None


def _run(source, kernel, pointers, grid, block, parameters, shared):
    args = [
        np.uintp(int.from_bytes(x, "little")) if i in pointers else np.void(x)
        for i, x in enumerate(parameters)
    ]
    module(source).launch(kernel, grid, block, args, shared, seed=SEED)


def register() -> None:
    """Add the emulated backends to the backends of cvops."""
    executors = {
        "emulated": Emulated,
        "emulated-small": EmulatedSmall,
        "emulated-address": EmulatedAddress,
        "emulated-thread": EmulatedThread,
        "emulated-small-address": EmulatedSmallAddress,
        "emulated-small-thread": EmulatedSmallThread,
        "listed": Listed,
    }
    for name, executor in executors.items():
        BACKENDS["cpu", name] = Backend("native", extension.missing_native, executor)

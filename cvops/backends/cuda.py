"""The executors of ops on a GPU: memory from the caller's library, launches by the extension."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from cvops.arrays import Device, Library
from cvops.backends import extension, nvrtc
from cvops.backends.extension import Kind


class Buffer(NamedTuple):
    """C-contiguous memory of a GPU."""

    #: Its address.
    pointer: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    #: What keeps it alive.
    owner: Any = None

    @property
    def size(self) -> int:
        return math.prod(self.shape)


class Call:
    """One call of an op on a GPU, as its implementation sees it."""

    __slots__ = ("_device", "_held", "_library", "ops")

    def __init__(self, library: Library, device: Device, native_device: Any):
        self._library, self._device = library, device
        self._held = held = []  # type: list[Any]

        def allocate(size: int) -> int:
            address, owner = library.workspace(size, device)
            held.append(owner)
            return address

        #: The ops of the extension, on the library's current stream.
        self.ops = extension.native().Gpu(native_device, library.stream(device), allocate)

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Buffer:
        """A new array for a result, not initialized."""
        address, owner = self._library.empty(shape, dtype, self._device)
        return Buffer(address, shape, dtype, owner)

    def empty_all(self, *kinds: Kind) -> tuple[Buffer, ...]:
        """As :meth:`empty` for several results, of shapes and dtypes."""
        return tuple([self.empty(*kind) for kind in kinds])


class Cuda:
    """A GPU, for arrays of one library. The subclasses differ in who compiles the kernels."""

    def __init__(self, library: Library, device: Device):
        self.library, self.device = library, device
        native = extension.native()
        self._native_device = native.DriverDevice(device.number, self.functions())
        self._enter, self._set_context = native.enter_device, native.set_context
        #: Waits for the default stream.
        self.synchronize = native.synchronize

    def functions(self) -> Any:
        """The functions of the compiled kernels."""
        raise NotImplementedError

    def run(self, plan: Any, arrays: Iterable[Any], options: tuple[Any, ...]) -> Any:
        """Run the plan's implementation; return arrays of the caller's library."""
        library, device = self.library, self.device
        buffers = []
        for (shape, dtype), x in zip(plan.kinds, arrays):
            address, owner = library.memory(x)
            buffers.append(Buffer(address, shape, dtype, owner))
        before = self._enter(device.number)
        try:
            call = Call(library, device, self._native_device)
            out = plan.body(call, *buffers, *options)
            library.finish(self)
        finally:
            if before is not None:
                self._set_context(before)
        return tuple([x.owner for x in out]) if type(out) is tuple else out.owner


class CuPy(Cuda):
    """Kernels that NVRTC compiles and CuPy loads."""

    def functions(self) -> Any:
        return cupy_functions()


class Native(Cuda):
    """Kernels that nvcc compiled when the extension was built."""

    def functions(self) -> Any:
        return native_functions()


@functools.lru_cache(None)
def cupy_functions() -> Any:
    return extension.native().Functions(find=nvrtc.load)


@functools.lru_cache(None)
def native_functions() -> Any:
    native = extension.native()
    modules = native.Modules()
    for file in extension.machine_code():
        modules.add(str(file), list(nvrtc.kernels(file.stem)), arch=0)
    return native.Functions(modules=modules)


@functools.lru_cache(None)
def nvrtc_functions() -> Any:
    """Kernels that NVRTC compiles now for the GPUs of this machine, loaded without Python."""
    native = extension.native()
    modules = native.Modules()
    for arch in nvrtc.architectures():
        for source in nvrtc.sources():
            file = nvrtc.cubin_file(source, arch)
            modules.add(str(file), list(nvrtc.kernels(source)), arch)
    return native.Functions(modules=modules)

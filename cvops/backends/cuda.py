"""Executors of ops on a GPU, with memory from the caller's library and launches in C++."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Callable

from cvops.arrays import ArrayType, Device, Library
from cvops.backends import extension, nvrtc

if TYPE_CHECKING:
    from cvops._native import Buffer


class Call:
    """One call of an op on a GPU. A ``native`` implementation gets it as ``DeviceOps``."""

    __slots__ = ("_buffer", "_device", "_library", "_scratch", "ops")

    def __init__(self, library: Library, device: Device, native_device: Any, stream: int):
        self._library, self._device = library, device
        self._scratch = scratch = []  # type: list[Any]

        def allocate(size: int) -> int:
            address, owner = library.workspace(size, device)
            scratch.append(owner)
            return address

        native = extension.native()
        self._buffer = native.Buffer
        #: The ops of the extension, on the stream.
        self.ops = native.Gpu(native_device, stream, allocate)

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Buffer:
        """Make an uninitialized array for a result."""
        address, owner = self._library.empty_cuda(shape, dtype, self._device)
        return self._buffer(address, shape, dtype, owner)

    def empty_all(self, *types: ArrayType) -> tuple[Buffer, ...]:
        """Make an uninitialized array for each of several results."""
        return tuple([self.empty(shape, dtype) for shape, dtype in types])

    def free_scratch(self) -> None:
        """Give the scratch memory back to the library, which reuses it in stream order."""
        self._scratch.clear()


#: The streams of an executor that have idle calls, at most.
_MAX_IDLE_STREAMS = 64


class Cuda:
    """A GPU, for arrays of one library. The subclasses differ in the compiler of the kernels."""

    def __init__(self, library: Library, device: Device):
        self.library, self.device = library, device
        native = extension.native()
        self._native_device = native.DriverDevice(device.number, self.functions())
        self._buffer = native.Buffer
        self._enter, self._set_context = native.enter_device, native.set_context
        self._synchronize = native.synchronize
        #: The calls that have ended, by stream. A short call reuses one, to make none.
        self._idle: dict[int, list[Call]] = {}

    def functions(self) -> Any:
        """Return the functions of the compiled kernels."""
        raise NotImplementedError

    def run(
        self,
        implementation: Callable[..., Any],
        types: list[ArrayType],
        arrays: Iterable[Any],
        options: tuple[Any, ...],
    ) -> Any:
        """Run an implementation on buffers; return arrays of the caller's library."""
        library, device = self.library, self.device
        memory, make = library.memory, self._buffer
        buffers = []
        for (shape, dtype), x in zip(types, arrays):
            address, owner = memory(x)
            buffers.append(make(address, shape, dtype, owner))
        before = self._enter(device.number)
        try:
            stream = library.stream(device)
            idle = self._idle.get(stream)
            if idle is None:
                if len(self._idle) >= _MAX_IDLE_STREAMS:
                    self._idle.clear()
                idle = self._idle.setdefault(stream, [])
            try:
                call = idle.pop()
            except IndexError:
                call = Call(library, device, self._native_device, stream)
            out = implementation(call, *buffers, *options)
            if not library.exposes_stream:
                self._synchronize()
            call.free_scratch()
            idle.append(call)
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
    """Return the functions that NVRTC compiles and CuPy loads, each on first use."""
    return extension.native().Functions(find=nvrtc.load)


@functools.lru_cache(None)
def native_functions() -> Any:
    """Return the functions in the files of nvcc."""
    native = extension.native()
    modules = native.Modules()
    for file in extension.machine_code():
        modules.add(str(file), list(nvrtc.kernels(file.stem)), arch=0)
    return native.Functions(modules=modules)


@functools.lru_cache(None)
def nvrtc_functions() -> Any:
    """Compile all kernels with NVRTC for the GPUs here; C++ loads them without Python."""
    native = extension.native()
    modules = native.Modules()
    for arch in nvrtc.architectures():
        for source in nvrtc.sources():
            file = nvrtc.cubin_file(source, arch)
            modules.add(str(file), list(nvrtc.kernels(source)), arch)
    return native.Functions(modules=modules)

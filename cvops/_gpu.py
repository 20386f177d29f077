"""Where the bodies for a GPU run: memory from the caller's library, kernels by CuPy or by C++."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import math
from typing import Any, Callable

import numpy as np

from cvops import _kernels
from cvops._arrays import Buffer, Device, Library

#: The shape and the dtype of an array.
Kind = tuple[tuple[int, ...], Any]


class Gpu:
    """A device and a stream for one call of an op."""

    def __init__(self, library: Library, device: Device):
        self.library = library
        self.device = device
        self.stream = library.stream(device)

    def enter(self, x: Any) -> Buffer:
        """The caller's array as a body takes it."""
        return self.library.to_buffer(x)

    def leave(self, buffer: Buffer) -> Any:
        """A buffer that a body gives, as the caller's kind of array."""
        return buffer.owner

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Buffer:
        """New memory, not initialised."""
        return self.library.empty(shape, dtype, self.device)

    def empty_all(self, *kinds: Kind) -> tuple[Buffer, ...]:
        """The same for several."""
        return tuple([self.empty(*kind) for kind in kinds])

    def workspace(self, size: int) -> Buffer:
        """That many bytes which no one sees after the call."""
        return self.library.workspace(size, self.device)

    def scratch(self, *kinds: Kind) -> tuple[Buffer, ...]:
        """Arrays that no one sees after the call, of shapes and dtypes: parts of one workspace."""
        parts, size = _layout(kinds)
        memory = self.workspace(size)
        first, owner = memory.pointer, memory.owner
        return tuple([Buffer(first + at, shape, dtype, owner) for at, shape, dtype in parts])

    @property
    def multiprocessors(self) -> int:
        """How many the device has."""
        raise NotImplementedError

    @property
    def most_shared(self) -> int:
        """The most bytes of shared memory that a block may have."""
        raise NotImplementedError

    def launch(
        self,
        source: str,
        kernel: str,
        grid: tuple[int, ...],
        block: tuple[int, ...],
        *args: Any,
        shared: int = 0,
    ) -> None:
        """Queue ``kernel`` of ``kernels/<source>.cuh``. Nothing to do if a grid's size is 0.

        ``args`` are buffers (None is a null pointer), numbers (cast to the types that the kernel
        declares) and structs (0-d structured NumPy arrays, passed by value). ``shared`` is in
        bytes.
        """
        if 0 not in grid:
            self._launch(source, kernel, grid, block, args, shared)

    def _launch(
        self,
        source: str,
        kernel: str,
        grid: tuple[int, ...],
        block: tuple[int, ...],
        args: tuple[Any, ...],
        shared: int,
    ) -> None:
        raise NotImplementedError

    def run(self, body: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        """Call ``body`` with this device made current."""
        before = self._set_device(self.device.number)
        try:
            out = body(self, *args)
            self.library.finish(self)
        finally:
            if before != self.device.number:
                self._set_device(before)
        return out

    def _set_device(self, number: int) -> int:
        """Make a GPU the current one of this thread; the number of the one that was."""
        raise NotImplementedError

    def synchronize(self) -> None:
        """Wait for the default stream."""
        raise NotImplementedError


@functools.lru_cache(256)
def _layout(kinds: tuple[Kind, ...]) -> tuple[list[tuple[int, tuple[int, ...], Any]], int]:
    """Where each begins, with its shape and dtype, and the size of all, in bytes."""
    parts, size = [], 0
    for shape, dtype in kinds:
        parts.append((size, shape, np.dtype(dtype)))
        size += -(-math.prod(shape) * parts[-1][2].itemsize // 256) * 256
    return parts, size


class CuPy(Gpu):
    """Kernels compiled by NVRTC, loaded and launched by the driver as CuPy binds it."""

    @property
    def multiprocessors(self) -> int:
        return _kernels.attribute("MultiProcessorCount", self.device.number)

    @property
    def most_shared(self) -> int:
        return _kernels.attribute("MaxSharedMemoryPerBlockOptin", self.device.number)

    def _launch(self, source, kernel, grid, block, args, shared):  # type: ignore[no-untyped-def]
        loaded = _kernels.load(source, kernel, self.device.number)
        loaded.launch(grid, block, args, shared, self.stream)

    def _set_device(self, number: int) -> int:
        return _kernels.set_device(number)

    def synchronize(self) -> None:
        _kernels.synchronize()


class Native(Gpu):
    """Kernels compiled by nvcc, launched by the extension."""

    @property
    def module(self) -> Any:
        return extension()

    def _set_device(self, number: int) -> int:
        before: int = self.module.set_device(number)
        return before

    def synchronize(self) -> None:
        self.module.synchronize()


@functools.lru_cache(None)
def extension() -> Any:
    """The compiled extension; None where it was not built."""
    if importlib.util.find_spec("cvops._native") is None:
        return None
    return importlib.import_module("cvops._native")


def missing_extension() -> str | None:
    return None if extension() is not None else "needs the compiled extension cvops._native"


def missing_cuda_extension() -> str | None:
    if extension() is None or not extension().has_cuda:
        return "needs cvops._native built with a CUDA toolkit"
    return None if extension().device_count() > 0 else "needs an NVIDIA GPU and its driver"


def missing_cupy() -> str | None:
    if importlib.util.find_spec("cupy") is None:
        return "needs CuPy: pip install cvops[cuda12] or cvops[cuda13]"
    return None if _kernels.device_count() > 0 else "needs an NVIDIA GPU and its driver"

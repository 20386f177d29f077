"""Where the bodies for a GPU run: memory from the caller's library, kernels by CuPy or by C++."""

from __future__ import annotations

import functools
import importlib
import importlib.util
from typing import Any, Callable

import numpy as np

from cvops import _kernels
from cvops._arrays import Buffer, Device, Library


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

    def empty_all(self, *kinds: tuple[tuple[int, ...], Any]) -> tuple[Buffer, ...]:
        """The same for several, of shapes and dtypes."""
        return tuple([self.empty(*kind) for kind in kinds])

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

        ``args`` are buffers, numbers (cast to the types that the kernel declares) and structs
        (0-d structured NumPy arrays, passed by value). ``shared`` is in bytes.
        """
        if 0 in grid:
            return
        packed = _kernels.pack(source, kernel, args)
        try:
            self._launch(source, kernel, grid, block, packed, shared)
        except Exception as error:
            raise RuntimeError(f"{kernel}<<<{grid}, {block}, {shared}>>>: {error}") from error

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
        raise NotImplementedError

    def synchronize(self) -> None:
        """Wait for the default stream."""
        raise NotImplementedError


class CuPy(Gpu):
    """Kernels compiled by NVRTC, loaded and launched by CuPy."""

    @property
    def multiprocessors(self) -> int:
        return _kernels.attribute("MultiProcessorCount", self.device.number)

    @property
    def most_shared(self) -> int:
        return _kernels.attribute("MaxSharedMemoryPerBlockOptin", self.device.number)

    def _launch(self, source, kernel, grid, block, args, shared):  # type: ignore[no-untyped-def]
        args = tuple(np.uint64(x.pointer) if isinstance(x, Buffer) else x for x in args)
        function = _kernels.function(source, kernel, self.device.number)
        # A kernel may have more only if that is said before. It is said of the most that there is,
        # so that threads which launch it at once agree.
        if shared > 48 << 10:
            function.max_dynamic_shared_size_bytes = self.most_shared
        function(grid, block, args, shared_mem=shared)

    def run(self, body: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        with _kernels.current(self.device.number, self.stream):
            out = body(self, *args)
            self.library.finish(self)
        return out

    def synchronize(self) -> None:
        _kernels.synchronize()


class Native(Gpu):
    """Kernels compiled by nvcc, launched by the extension."""

    @property
    def module(self) -> Any:
        return extension()

    def run(self, body: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        before = self.module.set_device(self.device.number)
        try:
            out = body(self, *args)
            self.library.finish(self)
        finally:
            self.module.set_device(before)
        return out

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

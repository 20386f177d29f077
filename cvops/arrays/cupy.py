"""CuPy's arrays."""

from __future__ import annotations

import functools
import operator
import sys
from typing import Any, Callable

import numpy as np

from cvops._imports import load_nvrtc
from cvops.arrays.base import ALIGNMENT, Description, Device, Library, Memory


@functools.lru_cache(None)
def _gpu(number: int) -> Device:
    return Device("cuda", number)


class CuPy(Library):
    name = "a CuPy array"

    # The parts of CuPy that each call needs, looked up once.

    @functools.cached_property
    def _new(self) -> Callable[..., Any]:
        return sys.modules["cupy"].ndarray

    @functools.cached_property
    def _alloc(self) -> Callable[[int], Any]:
        return sys.modules["cupy"].cuda.alloc

    @functools.cached_property
    def _current(self) -> Callable[[], int]:
        return sys.modules["cupy"].cuda.runtime.getDevice

    @functools.cached_property
    def _stream(self) -> Callable[[int], Any]:
        return sys.modules["cupy"].cuda.get_current_stream

    @functools.cached_property
    def _is_contiguous(self) -> Callable[[Any], bool]:
        # ``flags`` makes an object; not all versions have the short way.
        short = hasattr(self._new, "_c_contiguous")
        return operator.attrgetter("_c_contiguous" if short else "flags.c_contiguous")

    def describe(self, x: Any) -> Description:
        return _gpu(x.data.device_id), x.dtype, x.shape

    def fetch(self, x: Any) -> np.ndarray:
        return np.asarray(x.get())

    def memory(self, x: Any) -> Memory:
        pointer = x.data.ptr
        if pointer % ALIGNMENT or not self._is_contiguous(x):
            load_nvrtc()  # CuPy compiles a kernel for the copy, which runs on the current device
            with x.device:
                x = x.copy()
            pointer = x.data.ptr
        return pointer, x

    def empty_cuda(self, shape: tuple[int, ...], dtype: Any, device: Device) -> Memory:
        if self._current() == device.number:
            x = self._new(shape, dtype)
        else:
            with sys.modules["cupy"].cuda.Device(device.number):
                x = self._new(shape, dtype)
        return x.data.ptr, x

    def workspace(self, size: int, device: Device) -> Memory:
        if self._current() == device.number:
            memory = self._alloc(size)
        else:
            with sys.modules["cupy"].cuda.Device(device.number):
                memory = self._alloc(size)
        return memory.ptr, memory

    def stream(self, device: Device) -> int:
        pointer: int = self._stream(device.number).ptr
        return pointer

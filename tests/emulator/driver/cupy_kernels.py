"""The kernels of CuPy that the tests need, as NumPy functions: copies and fills."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable

import numpy as np


def _view(array: bytes, dtype: np.dtype) -> np.ndarray:
    """Return the memory of a CArray (cupy/carray.cuh) as an array."""
    pointer, _, *rest = struct.unpack(f"<{len(array) // 8}q", array)
    shape, strides = rest[: len(rest) // 2], rest[len(rest) // 2 :]
    end = dtype.itemsize + sum((n - 1) * step for n, step in zip(shape, strides) if step > 0)
    start = sum((n - 1) * step for n, step in zip(shape, strides) if step < 0)
    memory = (ctypes.c_char * (end - start)).from_address(pointer + start)
    return np.ndarray(shape, dtype, memory, -start, strides)


def copy(name: str) -> Callable[..., None]:
    """Return the launch of ``cupy_copy__<dtype>_<dtype>``."""
    types = [np.dtype(x) for x in name.partition("__")[2].split("_")]

    def launch(grid, block, parameters, shared):
        source, target = (_view(x, dtype) for x, dtype in zip(parameters, types))
        target[...] = source

    return launch


def fill(grid, block, parameters, shared):
    """Launch ``cupy_fill``; the number is a value with the size of an element."""
    value, target, _ = parameters
    _view(target, np.dtype(f"V{len(value)}"))[...] = np.void(value)

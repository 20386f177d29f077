"""The devices and their memory."""

from __future__ import annotations

import ctypes
from ctypes import POINTER, c_int, c_size_t, c_ubyte, c_uint, c_uint64, c_void_p
from typing import NamedTuple

import numpy as np

from .api import (
    INVALID_CONTEXT,
    INVALID_DEVICE,
    INVALID_VALUE,
    OUT,
    Refused,
    cuda,
    device,
    drop,
    note,
    objects,
    thread,
)
from .streams import queue, same_device, stream_of, unsafe

#: Of two architectures, so that a kernel for the other one is noticed.
CAPABILITIES = ((9, 0), (8, 0))
#: The bytes of shared memory of a block that asked for them.
MOST_SHARED = 227 << 10
_TOTAL_MEMORY = 1 << 34
#: What cudaMalloc aligns to.
_ALIGNMENT = 512
# cudaDeviceAttr and CUdevice_attribute; others of the former are 0.
_MULTIPROCESSORS, _MAJOR, _MINOR, _MOST_SHARED = 16, 75, 76, 97
# cudaMemoryType.
_HOST_MEMORY, _DEVICE_MEMORY = 0, 2


class Memory(NamedTuple):
    array: np.ndarray
    start: int
    size: int
    device: int


_memory: dict[int, Memory] = {}
#: The device that may use the host's memory, as where the memory is unified; None if none may.
unified: int | None = None


def existing(number: int) -> int:
    if not 0 <= number < len(CAPABILITIES):
        raise Refused(INVALID_DEVICE)
    return number


def memory_at(address: int) -> Memory | None:
    for memory in list(_memory.values()):  # which another thread may change
        if memory.start <= address <= memory.start + memory.size:
            return memory
    return None


def device_of(address: int) -> int | None:
    """The device that may use the memory there."""
    memory = memory_at(address)
    return unified if memory is None else memory.device


@cuda(POINTER(c_int))
def cudaDriverGetVersion(version):
    version[0] = 13000


@cuda(POINTER(c_int))
def cudaGetDeviceCount(count):
    count[0] = len(CAPABILITIES)


@cuda(POINTER(c_int))
def cudaGetDevice(number):
    number[0] = device()


@cuda(c_int)
def cudaSetDevice(number):
    thread.device = thread.context = existing(number)


@cuda(POINTER(c_int))
def cuDeviceGetCount(count):
    count[0] = len(CAPABILITIES)


@cuda(OUT, c_int)
def cuDevicePrimaryCtxRetain(context, number):
    context[0] = 1 + existing(number)


@cuda(OUT)
def cuCtxGetCurrent(context):
    context[0] = None if thread.context is None else 1 + thread.context


@cuda(c_void_p)
def cuCtxSetCurrent(context):
    if context is not None and not 1 <= context <= len(CAPABILITIES):
        raise Refused(INVALID_CONTEXT, f"{context:#x} is no context")
    thread.context = None if context is None else context - 1


def _attributes(number: int) -> dict[int, int]:
    major, minor = CAPABILITIES[existing(number)]
    # Few multiprocessors, so that a grid as wide as the device is soon done.
    return {_MULTIPROCESSORS: 4, _MAJOR: major, _MINOR: minor, _MOST_SHARED: MOST_SHARED}


@cuda(POINTER(c_int), c_int, c_int)
def cudaDeviceGetAttribute(value, attribute, number):
    value[0] = _attributes(number).get(attribute, 0)


@cuda(POINTER(c_int), c_int, c_int)
def cuDeviceGetAttribute(value, attribute, number):
    if attribute not in _attributes(number):
        raise Refused(INVALID_VALUE, f"attribute {attribute}")
    value[0] = _attributes(number)[attribute]


@cuda(POINTER(c_int), c_int, c_int)
def cudaDeviceCanAccessPeer(can, number, peer):
    can[0] = int(existing(number) != existing(peer))


@cuda(c_int, c_uint)
def cudaDeviceEnablePeerAccess(peer, flags):
    """Copies go between the devices anyway; kernels stay in the memory of their own."""


@cuda(OUT, c_size_t)
def cudaMalloc(memory, size):
    note()
    unsafe()
    array = np.full(size + _ALIGNMENT, 0xCD, np.uint8)
    start = array.ctypes.data + -array.ctypes.data % _ALIGNMENT
    _memory[start] = Memory(array, start, size, device())
    memory[0] = start


@cuda(c_void_p)
def cudaFree(memory):
    note()
    unsafe()
    if memory is not None and _memory.pop(memory, None) is None:
        raise Refused(INVALID_VALUE, f"{memory:#x} was not allocated")


@cuda(POINTER(c_size_t), POINTER(c_size_t))
def cudaMemGetInfo(free, total):
    used = sum(x.size for x in list(_memory.values()) if x.device == device())
    free[0], total[0] = _TOTAL_MEMORY - used, _TOTAL_MEMORY


class PointerAttributes(ctypes.Structure):
    """``struct cudaPointerAttributes``, without what CUDA 13 reserves behind it."""

    _fields_ = (
        ("kind", c_int),
        ("device", c_int),
        ("on_device", c_void_p),
        ("on_host", c_void_p),
    )


@cuda(POINTER(PointerAttributes), c_void_p)
def cudaPointerGetAttributes(attributes, pointer):
    memory = memory_at(pointer or 0)
    if memory is None:
        attributes[0] = PointerAttributes(_HOST_MEMORY, -2, None, pointer)
    else:
        attributes[0] = PointerAttributes(_DEVICE_MEMORY, memory.device, pointer, None)


def _copy(to: int, from_: int, size: int, stream: int | None) -> None:
    host = memory_at(to) is None or memory_at(from_) is None
    queue(lambda: ctypes.memmove(to, from_, size), stream, host=host)


@cuda(c_void_p, c_void_p, c_size_t, c_int)
def cudaMemcpy(to, from_, size, kind):
    unsafe()
    _copy(to, from_, size, None)


@cuda(c_void_p, c_void_p, c_size_t, c_int, c_void_p)
def cudaMemcpyAsync(to, from_, size, kind, stream):
    _copy(to, from_, size, stream)


@cuda(c_void_p, c_int, c_size_t, c_void_p)
def cudaMemsetAsync(to, value, size, stream):
    queue(lambda: ctypes.memset(to, value, size), stream)


def _inside(start: int, size: int) -> int:
    """The device that has the memory of that size."""
    memory, number = memory_at(start), device_of(start)
    if number is None or (memory and start + size > memory.start + memory.size):
        raise Refused(INVALID_VALUE, f"{size} bytes at {start:#x} are not in memory of a GPU")
    return number


@cuda(c_uint64, c_uint64, c_size_t, c_void_p)
def cuMemcpyDtoDAsync_v2(to, from_, size, stream):
    _inside(to, size), _inside(from_, size)
    queue(lambda: ctypes.memmove(to, from_, size), stream)


@cuda(c_uint64, c_ubyte, c_size_t, c_void_p)
def cuMemsetD8Async(to, value, size, stream):
    same_device("a fill", stream_of(stream).device, _inside(to, size))
    queue(lambda: ctypes.memset(to, value, size), stream)


@cuda(OUT, c_size_t, c_uint)
def cudaHostAlloc(memory, size, flags):
    array = np.empty(size, np.uint8)
    objects[array.ctypes.data] = array
    memory[0] = array.ctypes.data


@cuda(c_void_p)
def cudaFreeHost(memory):
    drop(memory, np.ndarray)

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
    CudaError,
    cuda,
    current_device,
    free_handle,
    objects,
    record_call,
    thread,
)
from .streams import check_device_of, queue, refuse_during_capture, stream_of

#: Two architectures, so that a kernel for the other one is an error.
CAPABILITIES = ((9, 0), (8, 0))
#: The maximum bytes of shared memory of a block, static and dynamic.
MAX_SHARED = 227 << 10
_TOTAL_MEMORY = 1 << 34
#: The alignment of cudaMalloc.
_ALIGNMENT = 512
# cudaDeviceAttr and CUdevice_attribute. The value of any other cudaDeviceAttr is 0.
_MULTIPROCESSORS, _MAJOR, _MINOR, _MAX_SHARED = 16, 75, 76, 97
# cudaMemoryType.
_HOST_MEMORY, _DEVICE_MEMORY = 0, 2


class Memory(NamedTuple):
    array: np.ndarray
    start: int
    size: int
    device: int


_memory: dict[int, Memory] = {}
#: The device that can access memory of the host, like a device with unified memory; or None.
host_memory_device: int | None = None
#: The version of CUDA that the driver supports; tests may set it.
driver_version = 13000


def check_number(number: int) -> int:
    """Return the number of a device; a number without a device is an error."""
    if not 0 <= number < len(CAPABILITIES):
        raise CudaError(INVALID_DEVICE)
    return number


def memory_at(address: int) -> Memory | None:
    for memory in list(_memory.values()):  # a copy, because other threads change the dict
        if memory.start <= address <= memory.start + memory.size:
            return memory
    return None


def device_of(address: int) -> int | None:
    """Return the device that can access the memory at an address, or None."""
    memory = memory_at(address)
    return host_memory_device if memory is None else memory.device


@cuda(POINTER(c_int))
def cudaDriverGetVersion(version):
    version[0] = driver_version


@cuda(POINTER(c_int))
def cuDriverGetVersion(version):
    version[0] = driver_version


@cuda(POINTER(c_int))
def cudaGetDeviceCount(count):
    count[0] = len(CAPABILITIES)


@cuda(POINTER(c_int))
def cudaGetDevice(number):
    number[0] = current_device()


@cuda(c_int)
def cudaSetDevice(number):
    thread.device = thread.context = check_number(number)


@cuda(POINTER(c_int))
def cuDeviceGetCount(count):
    count[0] = len(CAPABILITIES)


@cuda(OUT, c_int)
def cuDevicePrimaryCtxRetain(context, number):
    context[0] = 1 + check_number(number)


@cuda(OUT)
def cuCtxGetCurrent(context):
    context[0] = None if thread.context is None else 1 + thread.context


@cuda(c_void_p)
def cuCtxSetCurrent(context):
    if context is not None and not 1 <= context <= len(CAPABILITIES):
        raise CudaError(INVALID_CONTEXT, f"expected a context, got {context:#x}")
    thread.context = None if context is None else context - 1


def _attributes(number: int) -> dict[int, int]:
    major, minor = CAPABILITIES[check_number(number)]
    # Few multiprocessors make small grids, which are fast to emulate.
    return {_MULTIPROCESSORS: 4, _MAJOR: major, _MINOR: minor, _MAX_SHARED: MAX_SHARED}


@cuda(POINTER(c_int), c_int, c_int)
def cudaDeviceGetAttribute(value, attribute, number):
    value[0] = _attributes(number).get(attribute, 0)


@cuda(POINTER(c_int), c_int, c_int)
def cuDeviceGetAttribute(value, attribute, number):
    if attribute not in _attributes(number):
        raise CudaError(INVALID_VALUE, f"unknown attribute {attribute}")
    value[0] = _attributes(number)[attribute]


@cuda(POINTER(c_int), c_int, c_int)
def cudaDeviceCanAccessPeer(can, number, peer):
    can[0] = int(check_number(number) != check_number(peer))


@cuda(c_int, c_uint)
def cudaDeviceEnablePeerAccess(peer, flags):
    """Do nothing: copies between devices always work, and kernels only use their own device."""


@cuda(OUT, c_size_t)
def cudaMalloc(memory, size):
    record_call()
    refuse_during_capture()
    array = np.full(size + _ALIGNMENT, 0xCD, np.uint8)
    start = array.ctypes.data + -array.ctypes.data % _ALIGNMENT
    _memory[start] = Memory(array, start, size, current_device())
    memory[0] = start


@cuda(c_void_p)
def cudaFree(memory):
    record_call()
    refuse_during_capture()
    if memory is not None and _memory.pop(memory, None) is None:
        raise CudaError(INVALID_VALUE, f"{memory:#x} was not allocated")


@cuda(POINTER(c_size_t), POINTER(c_size_t))
def cudaMemGetInfo(free, total):
    used = sum(x.size for x in list(_memory.values()) if x.device == current_device())
    free[0], total[0] = _TOTAL_MEMORY - used, _TOTAL_MEMORY


class PointerAttributes(ctypes.Structure):
    """The ``struct cudaPointerAttributes``, without the reserved fields at its end in CUDA 13."""

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
    refuse_during_capture()
    _copy(to, from_, size, None)


@cuda(c_void_p, c_void_p, c_size_t, c_int, c_void_p)
def cudaMemcpyAsync(to, from_, size, kind, stream):
    _copy(to, from_, size, stream)


@cuda(c_void_p, c_int, c_size_t, c_void_p)
def cudaMemsetAsync(to, value, size, stream):
    queue(lambda: ctypes.memset(to, value, size), stream)


def _device_of_range(start: int, size: int) -> int:
    """Return the device with these bytes."""
    memory, number = memory_at(start), device_of(start)
    if number is None or (memory and start + size > memory.start + memory.size):
        raise CudaError(INVALID_VALUE, f"{size} bytes at {start:#x} are not in memory of a GPU")
    return number


@cuda(c_uint64, c_uint64, c_size_t, c_void_p)
def cuMemcpyDtoDAsync_v2(to, from_, size, stream):
    _device_of_range(to, size), _device_of_range(from_, size)
    queue(lambda: ctypes.memmove(to, from_, size), stream)


@cuda(c_uint64, c_ubyte, c_size_t, c_void_p)
def cuMemsetD8Async(to, value, size, stream):
    check_device_of("a fill", stream_of(stream).device, _device_of_range(to, size))
    queue(lambda: ctypes.memset(to, value, size), stream)


@cuda(OUT, c_size_t, c_uint)
def cudaHostAlloc(memory, size, flags):
    array = np.empty(size, np.uint8)
    objects[array.ctypes.data] = array
    memory[0] = array.ctypes.data


@cuda(c_void_p)
def cudaFreeHost(memory):
    free_handle(memory, np.ndarray)

"""Modules, kernels and launches."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from ctypes import POINTER, c_char_p, c_int, c_uint, c_void_p
from pathlib import Path
from typing import NamedTuple

from emulator.build import EmulatorError

from . import elf
from .api import (
    ILLEGAL_ADDRESS,
    INVALID_VALUE,
    LAUNCH_FAILURE,
    NO_BINARY,
    NOT_FOUND,
    NOT_SUPPORTED,
    OUT,
    CudaError,
    cuda,
    current_device,
    free_handle,
    new_handle,
    object_of,
)
from .devices import CAPABILITIES, MAX_SHARED, device_of
from .streams import check_device_of, queue, refuse_during_capture, stream_of


class EmulatedKernel(NamedTuple):
    """A kernel that runs on the CPU."""

    #: launch(grid, block, parameters, shared); a parameter is its bytes.
    launch: Callable[..., None]
    #: The indices of the parameters that are pointers.
    pointers: tuple[int, ...] = ()


class Module(NamedTuple):
    device: int
    architecture: int
    kernels: dict[str, elf.Kernel]


class Function(NamedTuple):
    name: str
    device: int
    architecture: int
    kernel: elf.Kernel
    emulated: EmulatedKernel


#: CUfunction_attribute.
_STATIC_SHARED, _PTX_VERSION, _MAX_DYNAMIC_SHARED = 1, 5, 8
#: CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION.
_PROGRAMMATIC_STREAM_SERIALIZATION = 6
#: The error of each programmatic dependent launch, or 0; tests may set it.
refusal = 0
#: handle -> the maximum bytes of dynamic shared memory, for functions with this attribute.
_max_dynamic_shared: dict[int, int] = {}
#: Returns the kernel of a name. It is None if this driver is not installed.
find_kernel: Callable[[str], EmulatedKernel | None] | None = None


def _load(cubin: bytes) -> int:
    refuse_during_capture()
    major, minor = CAPABILITIES[current_device()]
    architecture = elf.architecture(cubin)
    if architecture != 10 * major + minor:
        raise CudaError(NO_BINARY, f"cubin: expected sm_{major}{minor}, got sm_{architecture}")
    return new_handle(Module(current_device(), architecture, elf.kernels(cubin)))


@cuda(OUT, c_char_p)
def cuModuleLoad(module, file):
    module[0] = _load(Path(file.decode()).read_bytes())


@cuda(OUT, c_void_p)
def cuModuleLoadData(module, cubin):
    size = elf.size(ctypes.string_at(cubin, elf.HEADER))
    module[0] = _load(ctypes.string_at(cubin, size))


@cuda(c_void_p)
def cuModuleUnload(module):
    free_handle(module, Module)


@cuda(OUT, c_void_p, c_char_p)
def cuModuleGetFunction(function, module, name):
    found, text = object_of(module, Module), name.decode()
    emulated = find_kernel(text)
    if text not in found.kernels or emulated is None:
        raise CudaError(NOT_FOUND, text)
    kernel = found.kernels[text]
    function[0] = new_handle(Function(text, found.device, found.architecture, kernel, emulated))


@cuda(c_void_p, c_int, c_int)
def cuFuncSetAttribute(function, attribute, value):
    found = object_of(function, Function)
    limit = MAX_SHARED - found.kernel.static_shared
    if attribute != _MAX_DYNAMIC_SHARED or not 0 <= value <= limit:
        raise CudaError(INVALID_VALUE, f"{found.name}: attribute {attribute} of value {value}")
    _max_dynamic_shared[function] = value


@cuda(POINTER(c_int), c_int, c_void_p)
def cuFuncGetAttribute(value, attribute, function):
    found = object_of(function, Function)
    values = {_STATIC_SHARED: found.kernel.static_shared, _PTX_VERSION: found.architecture}
    if attribute not in values:
        raise CudaError(INVALID_VALUE, f"{found.name}: unknown attribute {attribute}")
    value[0] = values[attribute]


def _check_pointer(function: Function, address: int) -> None:
    if address and device_of(address) != function.device:
        raise CudaError(
            ILLEGAL_ADDRESS, f"{function.name}: {address:#x} is not on GPU {function.device}"
        )


@cuda(c_void_p, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, c_void_p, OUT, c_void_p)
def cuLaunchKernel(
    function, grid_x, grid_y, grid_z, block_x, block_y, block_z, shared, stream, arguments, extra
):
    grid, block = (grid_x, grid_y, grid_z), (block_x, block_y, block_z)
    _launch(function, grid, block, shared, stream, arguments)


class LaunchAttribute(ctypes.Structure):
    """The ``CUlaunchAttribute``, with the first number of its value."""

    _fields_ = (("number", c_int), ("pad", c_int), ("value", c_int), ("rest", c_int * 15))


class LaunchConfig(ctypes.Structure):
    """The ``CUlaunchConfig``."""

    _fields_ = (
        ("grid", c_uint * 3),
        ("block", c_uint * 3),
        ("shared", c_uint),
        ("stream", c_void_p),
        ("attributes", POINTER(LaunchAttribute)),
        ("count", c_uint),
    )


@cuda(POINTER(LaunchConfig), c_void_p, OUT, c_void_p)
def cuLaunchKernelEx(config, function, arguments, extra):
    found, launch = object_of(function, Function), config[0]
    attributes = [(x.number, x.value) for x in launch.attributes[: launch.count]]
    if attributes != [(_PROGRAMMATIC_STREAM_SERIALIZATION, 1)]:
        raise CudaError(INVALID_VALUE, f"{found.name}: unknown attributes {attributes}")
    if refusal or found.architecture < 90:
        raise CudaError(refusal or NOT_SUPPORTED, f"{found.name}: no dependent launches")
    grid, block = tuple(launch.grid), tuple(launch.block)
    _launch(function, grid, block, launch.shared, launch.stream, arguments, dependent=True)


def _launch(function, grid, block, shared, stream, arguments, **details):
    found = object_of(function, Function)
    check_device_of(found.name, found.device, stream_of(stream).device)
    if min(grid + block) < 1 or math.prod(block) > found.kernel.max_threads:
        raise CudaError(INVALID_VALUE, f"{found.name}: grid {grid}, block {block}")
    limit = _max_dynamic_shared.get(function, (48 << 10) - found.kernel.static_shared)
    if shared > limit:
        raise CudaError(
            INVALID_VALUE,
            f"{found.name}: expected at most {limit} bytes of shared memory, got {shared}",
        )
    # The caller may reuse the memory of the arguments after the call.
    copies = [ctypes.string_at(arguments[i], size) for i, size in enumerate(found.kernel.sizes)]

    def work() -> None:
        for i in found.emulated.pointers:
            _check_pointer(found, int.from_bytes(copies[i], "little"))
        try:
            found.emulated.launch(grid, block, copies, shared)
        except EmulatorError as error:
            raise CudaError(LAUNCH_FAILURE, str(error)) from error

    queue(work, stream, kernel=found.name, **details)

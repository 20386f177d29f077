"""Modules, their kernels, and launches."""

from __future__ import annotations

import ctypes
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
    OUT,
    Refused,
    cuda,
    device,
    drop,
    get,
    new,
)
from .devices import CAPABILITIES, MOST_SHARED, device_of
from .streams import queue, same_device, stream_of, unsafe


class Emulated(NamedTuple):
    """What stands for a kernel."""

    #: launch(grid, block, parameters, shared), where a parameter is its bytes.
    launch: Callable[..., None]
    #: Which of the parameters are pointers.
    pointers: tuple[int, ...] = ()


class Module(NamedTuple):
    device: int
    kernels: dict[str, elf.Kernel]


class Function(NamedTuple):
    name: str
    device: int
    kernel: elf.Kernel
    emulated: Emulated


#: CUfunction_attribute.
_STATIC_SHARED, _MOST_DYNAMIC_SHARED = 1, 8
#: The most bytes of dynamic shared memory of a launch, for functions for which that was set.
_shared: dict[int, int] = {}
#: Gives what stands for the kernel of a name; None where this is not the driver.
find: Callable[[str], Emulated | None] | None = None


def _load(cubin: bytes) -> int:
    unsafe()
    major, minor = CAPABILITIES[device()]
    if elf.architecture(cubin) != 10 * major + minor:
        raise Refused(NO_BINARY, f"a cubin for sm_{elf.architecture(cubin)}")
    return new(Module(device(), elf.kernels(cubin)))


@cuda(OUT, c_char_p)
def cuModuleLoad(module, file):
    module[0] = _load(Path(file.decode()).read_bytes())


@cuda(OUT, c_void_p)
def cuModuleLoadData(module, cubin):
    size = elf.size(ctypes.string_at(cubin, elf.HEADER))
    module[0] = _load(ctypes.string_at(cubin, size))


@cuda(c_void_p)
def cuModuleUnload(module):
    drop(module, Module)


@cuda(OUT, c_void_p, c_char_p)
def cuModuleGetFunction(function, module, name):
    found, text = get(module, Module), name.decode()
    emulated = find(text)
    if text not in found.kernels or emulated is None:
        raise Refused(NOT_FOUND, text)
    function[0] = new(Function(text, found.device, found.kernels[text], emulated))


@cuda(c_void_p, c_int, c_int)
def cuFuncSetAttribute(function, attribute, value):
    found = get(function, Function)
    most = MOST_SHARED - found.kernel.static_shared
    if attribute != _MOST_DYNAMIC_SHARED or not 0 <= value <= most:
        raise Refused(INVALID_VALUE, f"{found.name}: attribute {attribute} of {value}")
    _shared[function] = value


@cuda(POINTER(c_int), c_int, c_void_p)
def cuFuncGetAttribute(value, attribute, function):
    found = get(function, Function)
    if attribute != _STATIC_SHARED:
        raise Refused(INVALID_VALUE, f"{found.name}: attribute {attribute}")
    value[0] = found.kernel.static_shared


def _check_pointer(function: Function, address: int) -> None:
    if address and device_of(address) != function.device:
        raise Refused(
            ILLEGAL_ADDRESS, f"{function.name}: {address:#x} is not on GPU {function.device}"
        )


@cuda(c_void_p, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, c_void_p, OUT, c_void_p)
def cuLaunchKernel(
    function, grid_x, grid_y, grid_z, block_x, block_y, block_z, shared, stream, arguments, extra
):
    found = get(function, Function)
    same_device(found.name, found.device, stream_of(stream).device)
    grid, block = (grid_x, grid_y, grid_z), (block_x, block_y, block_z)
    if min(grid + block) < 1 or block_x * block_y * block_z > found.kernel.max_threads:
        raise Refused(INVALID_VALUE, f"{found.name}: grid {grid}, block {block}")
    if shared > _shared.get(function, (48 << 10) - found.kernel.static_shared):
        raise Refused(INVALID_VALUE, f"{found.name}: {shared} bytes of shared memory")
    # Copied now: the caller's memory for them is his again.
    copies = [ctypes.string_at(arguments[i], size) for i, size in enumerate(found.kernel.sizes)]

    def work() -> None:
        for i in found.emulated.pointers:
            _check_pointer(found, int.from_bytes(copies[i], "little"))
        try:
            found.emulated.launch(grid, block, copies, shared)
        except EmulatorError as error:
            raise Refused(LAUNCH_FAILURE, str(error)) from error

    queue(work, stream, kernel=found.name)

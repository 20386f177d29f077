"""Two GPUs for CuPy where there is none: CUDA's functions, as far as CuPy and our extension go.

CuPy itself is the real one, and so are NVRTC and the cubins that it makes. Memory is the host's,
kernels run in the emulator, each call has done its work when it returns. What CUDA refuses is
refused: a kernel, a stream and a current device that do not belong together, a cubin for another
architecture, arguments that are not in the memory of the device, and what must not be called while
a graph is captured. What is called is written down in ``calls``.
"""

from __future__ import annotations

import ctypes
import itertools
import sys
import threading
import traceback
from collections.abc import Callable
from ctypes import POINTER, c_char_p, c_int, c_size_t, c_uint, c_void_p
from typing import Any, NamedTuple, Optional

import numpy as np

from . import elf, interpose
from .build import EmulatorError

#: Of two architectures, so that a kernel for the other one is noticed.
CAPABILITIES = ((9, 0), (8, 0))
_TOTAL_MEMORY = 1 << 34
#: What cudaMalloc aligns to.
_ALIGNMENT = 512

# cudaError_t.
_INVALID_VALUE, _INVALID_DEVICE, _NO_BINARY = 1, 101, 209
_INVALID_HANDLE, _NOT_FOUND, _LAUNCH_FAILURE = 400, 500, 719
_ILLEGAL_ADDRESS, _PEER_ALREADY_ENABLED = 700, 704
_CAPTURE_UNSUPPORTED, _CAPTURE_INVALIDATED, _CAPTURE_IMPLICIT = 900, 901, 906
_UNKNOWN = 999
# cudaDeviceAttr; those that are not here are 0.
_ATTRIBUTES = {10: 32, 16: 4, 39: 2048, 81: 233472, 97: 232448}
_MAJOR, _MINOR = 75, 76
_DEVICE_MEMORY, _HOST_MEMORY = 2, 0
_NON_BLOCKING, _RELAXED = 1, 2
_LEGACY_STREAMS = (None, 0, 1)


#: Where a function writes a handle or an address.
OUT = POINTER(c_void_p)
HOST_FUNCTION = ctypes.CFUNCTYPE(None, c_void_p)


class Call(NamedTuple):
    """A call of a function: on which device, and what else there is to say."""

    function: str
    device: int
    #: The handle of the stream for what is queued; 0 for the legacy stream.
    stream: int | None = None
    kernel: str | None = None
    #: Whether it only became a part of a graph.
    captured: bool = False


class Refused(Exception):
    """What a function gives as its error code, and why, which is printed."""

    def __init__(self, code: int, reason: str = ""):
        super().__init__(reason)
        self.code = code


class Memory(NamedTuple):
    array: np.ndarray
    start: int
    size: int
    device: int


class Stream:
    def __init__(self, device: int, blocking: bool):
        self.device, self.blocking = device, blocking
        #: What is being captured, None if nothing is, and in which mode.
        self.graph: list[Callable[[], None]] | None = None
        self.mode = 0
        self.invalid = False


class Emulated(NamedTuple):
    """What stands for a kernel."""

    #: launch(grid, block, parameters, shared), where a parameter is its bytes.
    launch: Callable[..., None]
    #: Which of the parameters are pointers.
    pointers: tuple[int, ...] = ()


class Function(NamedTuple):
    name: str
    device: int
    kernel: elf.Kernel
    emulated: Emulated


#: What was called since a test cleared it.
calls: list[Call] = []
#: CUDA's functions by name, for interpose.
functions: dict[str, Any] = {}
#: Gives what stands for the kernel of a name.
emulated_kernel: Callable[[str], Emulated | None] = lambda name: None

installed = False

_memory: dict[int, Memory] = {}
_objects: dict[int, Any] = {}
_handles = itertools.count(0x1000, 16)
_thread = threading.local()


def install(find: Callable[[str], Emulated | None]) -> None:
    """Be the driver of this process, before CuPy is imported. ``find`` knows kernels by name."""
    global emulated_kernel, installed
    emulated_kernel, installed = find, True
    interpose.replace_in_cupy(interpose.load_library(functions), functions)


def cuda(*types: Any) -> Callable[[Callable[..., None]], None]:
    """Offer a Python function as the C function of its name, which takes these types."""

    def offer(function: Callable[..., None]) -> None:
        def call(*args: Any) -> int:
            _thread.function = function.__name__
            try:
                function(*args)
            except Refused as error:
                if str(error):
                    print(f"{function.__name__}: {error}", file=sys.stderr)
                return error.code
            except BaseException:  # which cannot pass through C
                traceback.print_exc()
                return _UNKNOWN
            return 0

        functions[function.__name__] = ctypes.CFUNCTYPE(c_int, *types)(call)

    return offer


def _note(**more: Any) -> None:
    calls.append(Call(_thread.function, _device(), **more))


def _device() -> int:
    return getattr(_thread, "device", 0)


def _existing_device(device: int) -> int:
    if not 0 <= device < len(CAPABILITIES):
        raise Refused(_INVALID_DEVICE)
    return device


def _new(thing: Any) -> int:
    handle = next(_handles)
    _objects[handle] = thing
    return handle


def _get(handle: int | None, kind: type) -> Any:
    thing = _objects.get(handle or 0)
    if not isinstance(thing, kind):
        raise Refused(_INVALID_HANDLE, f"{handle} is no {kind.__name__}")
    return thing


def _stream(handle: int | None) -> Stream:
    if handle in _LEGACY_STREAMS:
        return Stream(_device(), blocking=True)
    return _get(handle, Stream)


@cuda(c_int, POINTER(c_char_p))
def cuGetErrorName(error, text):
    text[0] = str(error).encode()


@cuda(c_int, POINTER(c_char_p))
def cuGetErrorString(error, text):
    text[0] = b"refused by the emulated driver, which says why on stderr"


# --- the order of work, and its capture ---------------------------------------------------------


def _capturing() -> list[Stream]:
    streams = [x for x in list(_objects.values()) if isinstance(x, Stream)]
    return [stream for stream in streams if stream.graph is not None]


def _not_while(forbidden: list[Stream], code: int) -> None:
    for stream in forbidden:
        stream.invalid = True
    if forbidden:
        raise Refused(code, "not while a graph is captured")


def _unsafe() -> None:
    """What may wait for the device, which only a relaxed capture bears."""
    _not_while([x for x in _capturing() if x.mode != _RELAXED], _CAPTURE_UNSUPPORTED)


def _no_capture_that_waits_for_the_legacy_stream() -> None:
    streams = [x for x in _capturing() if x.blocking and x.device == _device()]
    _not_while(streams, _CAPTURE_IMPLICIT)


def _queue(work: Callable[[], None], handle: int | None, kernel: str | None = None) -> None:
    """Do it now, or each time that the graph is launched if the stream is captured."""
    stream = _stream(handle)
    if stream.invalid:
        raise Refused(_CAPTURE_INVALIDATED)
    if handle in _LEGACY_STREAMS:
        _no_capture_that_waits_for_the_legacy_stream()
    captured = stream.graph is not None
    _note(stream=handle or 0, kernel=kernel, captured=captured)
    if stream.graph is not None:
        stream.graph.append(work)
    else:
        work()


@cuda(OUT)
def cudaStreamCreate(stream):
    stream[0] = _new(Stream(_device(), blocking=True))


@cuda(OUT, c_uint)
def cudaStreamCreateWithFlags(stream, flags):
    stream[0] = _new(Stream(_device(), blocking=flags != _NON_BLOCKING))


@cuda(OUT, c_uint, c_int)
def cudaStreamCreateWithPriority(stream, flags, priority):
    stream[0] = _new(Stream(_device(), blocking=flags != _NON_BLOCKING))


@cuda(c_void_p)
def cudaStreamDestroy(stream):
    _get(stream, Stream)
    del _objects[stream]


@cuda(c_void_p)
def cudaStreamSynchronize(stream):
    _note()
    _not_while([x for x in [_stream(stream)] if x.graph is not None], _CAPTURE_UNSUPPORTED)
    if stream in _LEGACY_STREAMS:
        _no_capture_that_waits_for_the_legacy_stream()


@cuda()
def cudaDeviceSynchronize():
    _note()
    _not_while(_capturing(), _CAPTURE_UNSUPPORTED)


@cuda(c_void_p, POINTER(c_int))
def cudaStreamIsCapturing(stream, status):
    found = _stream(stream)
    if stream in _LEGACY_STREAMS:
        _no_capture_that_waits_for_the_legacy_stream()
    status[0] = 2 if found.invalid else int(found.graph is not None)


@cuda(c_void_p, c_int)
def cudaStreamBeginCapture(stream, mode):
    found = _get(stream, Stream)
    if found.graph is not None:
        raise Refused(_INVALID_VALUE, "is captured already")
    found.graph, found.mode = [], mode


@cuda(c_void_p, OUT)
def cudaStreamEndCapture(stream, graph):
    found = _get(stream, Stream)
    if found.graph is None:
        raise Refused(_INVALID_VALUE, "is not captured")
    work, found.graph = found.graph, None
    if found.invalid:
        found.invalid = False
        raise Refused(_CAPTURE_INVALIDATED)
    graph[0] = _new(work)


@cuda(c_void_p, HOST_FUNCTION, c_void_p)
def cudaLaunchHostFunc(stream, function, data):
    # By which our extension launches kernels (runtime.h): as strict as for them.
    _same_device("a kernel of the extension", _stream(stream).device)
    _queue(lambda: function(data), stream)


@cuda(OUT, c_void_p, c_void_p, c_void_p, c_size_t)
def cudaGraphInstantiate(executable, graph, node, log, size):
    executable[0] = _new(list(_get(graph, list)))


@cuda(c_void_p, c_void_p)
def cudaGraphLaunch(executable, stream):
    def work() -> None:
        for step in _get(executable, list):
            step()

    _queue(work, stream)


@cuda(c_void_p)
def cudaGraphDestroy(graph):
    _get(graph, list)
    del _objects[graph]


@cuda(c_void_p)
def cudaGraphExecDestroy(executable):
    _get(executable, list)
    del _objects[executable]


def _same_device(kernel: str, *devices: int) -> None:
    """A launch needs a kernel and a stream of the current device."""
    if {*devices} != {_device()}:
        raise Refused(_INVALID_HANDLE, f"{kernel}: of GPUs {devices} where {_device()} is current")


# --- devices ------------------------------------------------------------------------------------


@cuda(POINTER(c_int))
def cudaDriverGetVersion(version):
    version[0] = 13000


@cuda(POINTER(c_int))
def cudaGetDeviceCount(count):
    count[0] = len(CAPABILITIES)


@cuda(POINTER(c_int))
def cudaGetDevice(device):
    device[0] = _device()


@cuda(c_int)
def cudaSetDevice(device):
    _thread.device = _existing_device(device)


@cuda(POINTER(c_int), c_int, c_int)
def cudaDeviceGetAttribute(value, attribute, device):
    major, minor = CAPABILITIES[_existing_device(device)]
    value[0] = {**_ATTRIBUTES, _MAJOR: major, _MINOR: minor}.get(attribute, 0)


@cuda(POINTER(c_int), c_int, c_int)
def cudaDeviceCanAccessPeer(can, device, peer):
    can[0] = int(_existing_device(device) != _existing_device(peer))


@cuda(c_int, c_uint)
def cudaDeviceEnablePeerAccess(peer, flags):
    """Copies go between the devices anyway; kernels stay in the memory of their own."""


@cuda()
def cudaGetLastError():
    """None is kept: each call has given its own."""


# --- memory -------------------------------------------------------------------------------------


@cuda(OUT, c_size_t)
def cudaMalloc(memory, size):
    _note()
    _unsafe()
    array = np.full(size + _ALIGNMENT, 0xCD, np.uint8)
    start = array.ctypes.data + -array.ctypes.data % _ALIGNMENT
    _memory[start] = Memory(array, start, size, _device())
    memory[0] = start


@cuda(c_void_p)
def cudaFree(memory):
    _note()
    _unsafe()
    if memory is not None and _memory.pop(memory, None) is None:
        raise Refused(_INVALID_VALUE, f"{memory:#x} was not allocated")


@cuda(POINTER(c_size_t), POINTER(c_size_t))
def cudaMemGetInfo(free, total):
    used = sum(x.size for x in list(_memory.values()) if x.device == _device())
    free[0], total[0] = _TOTAL_MEMORY - used, _TOTAL_MEMORY


def _memory_at(address: int) -> Memory | None:
    for memory in list(_memory.values()):  # which another thread may change
        if memory.start <= address <= memory.start + memory.size:
            return memory
    return None


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
    memory = _memory_at(pointer or 0)
    if memory is None:
        attributes[0] = PointerAttributes(_HOST_MEMORY, -2, None, pointer)
    else:
        attributes[0] = PointerAttributes(_DEVICE_MEMORY, memory.device, pointer, None)


@cuda(c_void_p, c_void_p, c_size_t, c_int)
def cudaMemcpy(to, from_, size, kind):
    _unsafe()
    _queue(lambda: ctypes.memmove(to, from_, size), None)


@cuda(c_void_p, c_void_p, c_size_t, c_int, c_void_p)
def cudaMemcpyAsync(to, from_, size, kind, stream):
    _queue(lambda: ctypes.memmove(to, from_, size), stream)


@cuda(c_void_p, c_int, c_size_t, c_void_p)
def cudaMemsetAsync(to, value, size, stream):
    _queue(lambda: ctypes.memset(to, value, size), stream)


@cuda(OUT, c_size_t, c_uint)
def cudaHostAlloc(memory, size, flags):
    array = np.empty(size, np.uint8)
    _objects[array.ctypes.data] = array
    memory[0] = array.ctypes.data


@cuda(c_void_p)
def cudaFreeHost(memory):
    _get(memory, np.ndarray)
    del _objects[memory]


# --- events -------------------------------------------------------------------------------------


class Event(NamedTuple):
    device: int


@cuda(OUT, c_uint)
def cudaEventCreateWithFlags(event, flags):
    event[0] = _new(Event(_device()))


@cuda(c_void_p)
def cudaEventDestroy(event):
    _get(event, Event)
    del _objects[event]


@cuda(c_void_p, c_void_p)
def cudaEventRecord(event, stream):
    if _get(event, Event).device != _stream(stream).device:
        raise Refused(_INVALID_HANDLE, "event and stream are of different devices")
    _queue(lambda: None, stream)


@cuda(c_void_p)
def cudaEventSynchronize(event):
    _get(event, Event)
    _note()
    _unsafe()


# --- kernels ------------------------------------------------------------------------------------


class Module(NamedTuple):
    device: int
    kernels: dict[str, elf.Kernel]


def _load(cubin: bytes) -> int:
    _unsafe()
    major, minor = CAPABILITIES[_device()]
    if elf.architecture(cubin) != 10 * major + minor:
        raise Refused(_NO_BINARY, f"a cubin for sm_{elf.architecture(cubin)}")
    return _new(Module(_device(), elf.kernels(cubin)))


@cuda(OUT, c_char_p)
def cuModuleLoad(module, file):
    with open(file, "rb") as opened:
        module[0] = _load(opened.read())


@cuda(OUT, c_void_p)
def cuModuleLoadData(module, cubin):
    size = elf.size(ctypes.string_at(cubin, elf.HEADER))
    module[0] = _load(ctypes.string_at(cubin, size))


@cuda(c_void_p)
def cuModuleUnload(module):
    _get(module, Module)
    del _objects[module]


@cuda(OUT, c_void_p, c_char_p)
def cuModuleGetFunction(function, module, name):
    found = _get(module, Module)
    text = name.decode()
    emulated = emulated_kernel(text)
    if text not in found.kernels or emulated is None:
        raise Refused(_NOT_FOUND, text)
    function[0] = _new(Function(text, found.device, found.kernels[text], emulated))


def _check_pointer(function: Function, address: int) -> None:
    memory = _memory_at(address)
    if address and (memory is None or memory.device != function.device):
        raise Refused(
            _ILLEGAL_ADDRESS, f"{function.name}: {address:#x} is not on GPU {function.device}"
        )


@cuda(c_void_p, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, c_void_p, OUT, c_void_p)
def cuLaunchKernel(function, grid_x, grid_y, grid_z, block_x, block_y, block_z, shared, stream, arguments, extra):
    found = _get(function, Function)
    _same_device(found.name, found.device, _stream(stream).device)
    grid, block = (grid_x, grid_y, grid_z), (block_x, block_y, block_z)
    if min(grid + block) < 1 or block_x * block_y * block_z > found.kernel.max_threads:
        raise Refused(_INVALID_VALUE, f"{found.name}: grid {grid}, block {block}")
    # Copied now: the caller's memory for them is his again.
    copies = [ctypes.string_at(arguments[i], size) for i, size in enumerate(found.kernel.sizes)]

    def work() -> None:
        for i in found.emulated.pointers:
            _check_pointer(found, int.from_bytes(copies[i], "little"))
        try:
            found.emulated.launch(grid, block, copies, shared)
        except EmulatorError as error:
            raise Refused(_LAUNCH_FAILURE, str(error)) from error

    _queue(work, stream, found.name)

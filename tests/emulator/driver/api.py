"""Registers Python functions as functions of CUDA, with handles and error codes."""

from __future__ import annotations

import ctypes
import itertools
import sys
import threading
import traceback
from collections.abc import Callable
from ctypes import POINTER, c_char_p, c_int, c_uint, c_void_p
from typing import Any, NamedTuple

# cudaError_t and CUresult.
INVALID_VALUE, NOT_INITIALIZED, INVALID_DEVICE, NO_BINARY = 1, 3, 101, 209
INVALID_CONTEXT, INVALID_HANDLE, NOT_FOUND = 201, 400, 500
ILLEGAL_ADDRESS, LAUNCH_FAILURE = 700, 719
CAPTURE_UNSUPPORTED, CAPTURE_INVALIDATED, CAPTURE_IMPLICIT = 900, 901, 906
NOT_SUPPORTED, UNKNOWN = 801, 999

#: The type of an output parameter: a handle or an address.
OUT = POINTER(c_void_p)


class Call(NamedTuple):
    """A call of a function on a device."""

    function: str
    device: int
    #: The handle of the stream for queued work; 0 is the legacy stream.
    stream: int | None = None
    kernel: str | None = None
    #: True for a copy from or to memory of the host.
    host: bool = False
    #: True for work that became a part of a graph.
    captured: bool = False
    #: True for a programmatic dependent launch.
    dependent: bool = False


class CudaError(Exception):
    """An error code that a function of CUDA returns, and the reason, which is printed."""

    def __init__(self, code: int, reason: str = ""):
        super().__init__(reason)
        self.code = code


#: The calls since a test cleared the list.
calls: list[Call] = []
#: name -> function of CUDA.
functions: dict[str, Any] = {}
#: handle -> object.
objects: dict[int, Any] = {}


class Thread:
    """CUDA's state of the calling thread.

    A C variable has the two numbers, because Python loses the data of a thread that it did not
    start.
    """

    #: numbers(): the address of the thread's two numbers, which are 0 at first.
    numbers: Callable[[], Any]
    #: ``running.function`` is the name of the function that runs.
    running = threading.local()

    @property
    def context(self) -> int | None:
        """The device of the current context; None if the thread has no context."""
        return self.numbers()[0] - 1 if self.numbers()[0] else None

    @context.setter
    def context(self, device: int | None) -> None:
        self.numbers()[0] = 0 if device is None else device + 1

    @property
    def device(self) -> int:
        """The device for which the runtime creates a context when a function needs one."""
        return self.numbers()[1]

    @device.setter
    def device(self, device: int) -> None:
        self.numbers()[1] = device


thread = Thread()
#: Functions of the runtime that need no context.
_RUNTIME_WITHOUT_CONTEXT = {"cudaDriverGetVersion", "cudaGetDevice", "cudaGetDeviceCount"}
#: Functions of the driver that work before cuInit.
_DRIVER_WITHOUT_INIT = {
    "cuInit",
    "cuDriverGetVersion",
    "cuGetExportTable",
    "cuGetErrorName",
    "cuGetErrorString",
}
#: Functions of the driver that need no context.
_DRIVER_WITHOUT_CONTEXT = {
    *_DRIVER_WITHOUT_INIT,
    "cuDeviceGetCount",
    "cuDeviceGetAttribute",
    "cuDevicePrimaryCtxRetain",
    "cuCtxGetCurrent",
    "cuCtxSetCurrent",
    "cuModuleGetFunction",
    "cuModuleUnload",
    "cuFuncGetAttribute",
    "cuFuncSetAttribute",
}
#: "initialized" is true after cuInit, which the runtime or the process calls.
_state = {"initialized": False}

_handles = itertools.count(0x1000, 16)


def cuda(*types: Any) -> Callable[[Callable[..., None]], None]:
    """Register a Python function as the C function of its name, with these parameter types."""

    def register(function: Callable[..., None]) -> None:
        def call(*args: Any) -> int:
            thread.running.function = function.__name__
            try:
                _check_context(function.__name__)
                function(*args)
            except CudaError as error:
                if str(error):
                    print(f"{function.__name__}: {error}", file=sys.stderr)
                return error.code
            except BaseException:  # an exception cannot pass through C
                traceback.print_exc()
                return UNKNOWN
            return 0

        functions[function.__name__] = ctypes.CFUNCTYPE(c_int, *types)(call)

    return register


def _check_context(name: str) -> None:
    """Refuse a function of the driver without a context; for the runtime, create the context."""
    if name.startswith("cuda") or name == "cuInit":
        _state["initialized"] = True
        if name not in {*_RUNTIME_WITHOUT_CONTEXT, "cuInit"} and thread.context is None:
            thread.context = thread.device
    elif name not in _DRIVER_WITHOUT_INIT and not _state["initialized"]:
        raise CudaError(NOT_INITIALIZED, "cuInit was not called")
    elif name not in _DRIVER_WITHOUT_CONTEXT and thread.context is None:
        raise CudaError(INVALID_CONTEXT, "the thread has no context")


def record_call(**details: Any) -> None:
    """Add the function that runs to ``calls``."""
    calls.append(Call(thread.running.function, current_device(), **details))


def current_device() -> int:
    return thread.device if thread.context is None else thread.context


def new_handle(value: Any) -> int:
    """Return a new handle of an object."""
    handle = next(_handles)
    objects[handle] = value
    return handle


def object_of(handle: int | None, type_: type) -> Any:
    """Return the object of a handle; an object of another type is an error."""
    value = objects.get(handle or 0)
    if not isinstance(value, type_):
        raise CudaError(INVALID_HANDLE, f"expected the handle of a {type_.__name__}, got {handle}")
    return value


def free_handle(handle: int | None, type_: type) -> None:
    object_of(handle, type_)
    del objects[handle]


@cuda()
def cudaGetLastError():
    """Return 0: each function returns its own error, and no error is stored."""


@cuda(c_uint)
def cuInit(flags):
    if flags:
        raise CudaError(INVALID_VALUE, f"flags: expected 0, got {flags}")


@cuda(OUT, c_void_p)
def cuGetExportTable(table, number):
    """Refuse: NVRTC asks for functions without names, and works without them."""
    raise CudaError(NOT_FOUND)


#: error -> text, which stays at one address because the caller may keep it.
_names: dict[int, bytes] = {}


@cuda(c_int, POINTER(c_char_p))
def cuGetErrorName(error, text):
    text[0] = _names.setdefault(error, str(error).encode())


@cuda(c_int, POINTER(c_char_p))
def cuGetErrorString(error, text):
    text[0] = b"refused by the emulated driver, see stderr"

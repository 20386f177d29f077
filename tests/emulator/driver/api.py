"""How a Python function becomes one of CUDA's."""

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
UNKNOWN = 999

#: Where a function writes a handle or an address.
OUT = POINTER(c_void_p)


class Call(NamedTuple):
    """A call of a function: on which device, and what else there is to say."""

    function: str
    device: int
    #: The handle of the stream for what is queued; 0 for the legacy stream.
    stream: int | None = None
    kernel: str | None = None
    #: Whether the host's memory is copied from or to.
    host: bool = False
    #: Whether it only became a part of a graph.
    captured: bool = False


class Refused(Exception):
    """What a function gives as its error code, and why, which is printed."""

    def __init__(self, code: int, reason: str = ""):
        super().__init__(reason)
        self.code = code


#: What was called since a test cleared it.
calls: list[Call] = []
#: CUDA's functions by name.
functions: dict[str, Any] = {}
#: What the handles stand for that were given out.
objects: dict[int, Any] = {}


class Thread:
    """What CUDA knows of the thread that calls.

    C has the numbers: a thread that Python did not start has no data of Python's.
    """

    #: The address of the thread's two numbers; both are 0 at first.
    numbers: Callable[[], Any]
    #: The function that runs.
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
        """The device of which the runtime makes a context when it needs one."""
        return self.numbers()[1]

    @device.setter
    def device(self, device: int) -> None:
        self.numbers()[1] = device


thread = Thread()
#: What the runtime tells without making a context.
_WITHOUT_CONTEXT = {"cudaDriverGetVersion", "cudaGetDevice", "cudaGetDeviceCount"}
#: The driver's answer before cuInit.
_WITHOUT_INIT = {"cuInit", "cuGetExportTable", "cuGetErrorName", "cuGetErrorString"}
#: The driver's answer for a thread without a context.
_OF_NO_CONTEXT = {
    *_WITHOUT_INIT,
    *("cuDeviceGetCount", "cuDeviceGetAttribute", "cuDevicePrimaryCtxRetain"),
    *("cuCtxGetCurrent", "cuCtxSetCurrent", "cuModuleGetFunction", "cuModuleUnload"),
    *("cuFuncGetAttribute", "cuFuncSetAttribute"),
}
#: True after cuInit, which the runtime or the process calls.
_state = {"initialized": False}

_handles = itertools.count(0x1000, 16)


def cuda(*types: Any) -> Callable[[Callable[..., None]], None]:
    """Offer a Python function as the C function of its name, which takes these types."""

    def offer(function: Callable[..., None]) -> None:
        def call(*args: Any) -> int:
            thread.running.function = function.__name__
            try:
                _enter(function.__name__)
                function(*args)
            except Refused as error:
                if str(error):
                    print(f"{function.__name__}: {error}", file=sys.stderr)
                return error.code
            except BaseException:  # which cannot pass through C
                traceback.print_exc()
                return UNKNOWN
            return 0

        functions[function.__name__] = ctypes.CFUNCTYPE(c_int, *types)(call)

    return offer


def _enter(name: str) -> None:
    """The runtime makes the context that a function needs; the driver refuses."""
    if name.startswith("cuda") or name == "cuInit":
        _state["initialized"] = True
        if name not in {*_WITHOUT_CONTEXT, "cuInit"} and thread.context is None:
            thread.context = thread.device
    elif name not in _WITHOUT_INIT and not _state["initialized"]:
        raise Refused(NOT_INITIALIZED, "cuInit was not called")
    elif name not in _OF_NO_CONTEXT and thread.context is None:
        raise Refused(INVALID_CONTEXT, "the thread has no context")


def note(**more: Any) -> None:
    """Write down the call that runs."""
    calls.append(Call(thread.running.function, device(), **more))


def device() -> int:
    """The current one."""
    return thread.device if thread.context is None else thread.context


def new(thing: Any) -> int:
    """A handle for it."""
    handle = next(_handles)
    objects[handle] = thing
    return handle


def get(handle: int | None, kind: type) -> Any:
    """What a handle stands for, which is to be of that kind."""
    thing = objects.get(handle or 0)
    if not isinstance(thing, kind):
        raise Refused(INVALID_HANDLE, f"{handle} is no {kind.__name__}")
    return thing


def drop(handle: int | None, kind: type) -> None:
    get(handle, kind)
    del objects[handle]


@cuda()
def cudaGetLastError():
    """None is kept: each call has given its own."""


@cuda(c_uint)
def cuInit(flags):
    if flags:
        raise Refused(INVALID_VALUE, f"flags {flags}")


@cuda(OUT, c_void_p)
def cuGetExportTable(table, number):
    """NVRTC asks for functions that have no names, and does without them."""
    raise Refused(NOT_FOUND)


#: The caller may keep the address of a text.
_names: dict[int, bytes] = {}


@cuda(c_int, POINTER(c_char_p))
def cuGetErrorName(error, text):
    text[0] = _names.setdefault(error, str(error).encode())


@cuda(c_int, POINTER(c_char_p))
def cuGetErrorString(error, text):
    text[0] = b"refused by the emulated driver, which says why on stderr"

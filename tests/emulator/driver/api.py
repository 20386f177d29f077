"""How a Python function becomes one of CUDA's."""

from __future__ import annotations

import ctypes
import itertools
import sys
import threading
import traceback
from collections.abc import Callable
from ctypes import POINTER, c_char_p, c_int, c_void_p
from typing import Any, NamedTuple

# cudaError_t.
INVALID_VALUE, INVALID_DEVICE, NO_BINARY = 1, 101, 209
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
#: The current device, whether it has a context, and the function that runs.
thread = threading.local()
#: What the runtime tells without making a context.
_WITHOUT_CONTEXT = {"cudaDriverGetVersion", "cudaGetDevice", "cudaGetDeviceCount"}

_handles = itertools.count(0x1000, 16)


def cuda(*types: Any) -> Callable[[Callable[..., None]], None]:
    """Offer a Python function as the C function of its name, which takes these types."""

    def offer(function: Callable[..., None]) -> None:
        def call(*args: Any) -> int:
            thread.function = function.__name__
            if thread.function.startswith("cuda") and thread.function not in _WITHOUT_CONTEXT:
                thread.context = True
            try:
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


def note(**more: Any) -> None:
    """Write down the call that runs."""
    calls.append(Call(thread.function, device(), **more))


def device() -> int:
    """The current one."""
    return getattr(thread, "device", 0)


def has_context() -> bool:
    """Whether this thread has one, of the current device."""
    return getattr(thread, "context", False)


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


@cuda(c_int, POINTER(c_char_p))
def cuGetErrorName(error, text):
    text[0] = str(error).encode()


@cuda(c_int, POINTER(c_char_p))
def cuGetErrorString(error, text):
    text[0] = b"refused by the emulated driver, which says why on stderr"

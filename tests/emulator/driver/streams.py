"""Streams, events and graphs."""

from __future__ import annotations

from collections.abc import Callable
from ctypes import POINTER, c_int, c_size_t, c_uint, c_void_p
from typing import Any, NamedTuple

from .api import (
    CAPTURE_IMPLICIT,
    CAPTURE_INVALIDATED,
    CAPTURE_UNSUPPORTED,
    INVALID_HANDLE,
    INVALID_VALUE,
    OUT,
    CudaError,
    cuda,
    current_device,
    free_handle,
    new_handle,
    object_of,
    objects,
    record_call,
)

_NON_BLOCKING, _RELAXED = 1, 2
_LEGACY_STREAMS = (None, 0, 1)


class Stream:
    def __init__(self, device: int, blocking: bool):
        self.device, self.blocking = device, blocking
        #: The captured work, or None outside of a capture.
        self.graph: list[Callable[[], None]] | None = None
        #: The mode of the capture: cudaStreamCaptureMode.
        self.mode = 0
        #: True after a call that invalidated the capture.
        self.invalid = False


class Event(NamedTuple):
    device: int


def stream_of(handle: int | None) -> Stream:
    if handle in _LEGACY_STREAMS:
        return Stream(current_device(), blocking=True)
    return object_of(handle, Stream)


def _capturing() -> list[Stream]:
    streams = [x for x in list(objects.values()) if isinstance(x, Stream)]
    return [stream for stream in streams if stream.graph is not None]


def _invalidate(streams: list[Stream], code: int) -> None:
    """Invalidate the captures of streams, and raise an error if there are any."""
    for stream in streams:
        stream.invalid = True
    if streams:
        raise CudaError(code, "not allowed while a graph is captured")


def refuse_during_capture() -> None:
    """Refuse a function that may synchronize, except during a relaxed capture."""
    _invalidate([x for x in _capturing() if x.mode != _RELAXED], CAPTURE_UNSUPPORTED)


def _refuse_legacy_stream_during_capture() -> None:
    """Refuse the legacy stream during the capture of a stream that synchronizes with it."""
    streams = [x for x in _capturing() if x.blocking and x.device == current_device()]
    _invalidate(streams, CAPTURE_IMPLICIT)


def queue(work: Callable[[], None], handle: int | None, **details: Any) -> None:
    """Run the work now, or add it to the graph if the stream is captured.

    ``details`` are further fields for the list of calls.
    """
    stream = stream_of(handle)
    if stream.invalid:
        raise CudaError(CAPTURE_INVALIDATED)
    if handle in _LEGACY_STREAMS:
        _refuse_legacy_stream_during_capture()
    captured = stream.graph is not None
    record_call(stream=handle or 0, captured=captured, **details)
    if stream.graph is not None:
        stream.graph.append(work)
    else:
        work()


def check_device_of(name: str, *devices: int) -> None:
    """Refuse work whose kernel, stream or memory is not of the current device."""
    if {*devices} != {current_device()}:
        raise CudaError(
            INVALID_HANDLE, f"{name}: expected the current GPU {current_device()}, got {devices}"
        )


@cuda(OUT)
def cudaStreamCreate(stream):
    stream[0] = new_handle(Stream(current_device(), blocking=True))


@cuda(OUT, c_uint)
def cudaStreamCreateWithFlags(stream, flags):
    stream[0] = new_handle(Stream(current_device(), blocking=flags != _NON_BLOCKING))


@cuda(OUT, c_uint, c_int)
def cudaStreamCreateWithPriority(stream, flags, priority):
    stream[0] = new_handle(Stream(current_device(), blocking=flags != _NON_BLOCKING))


@cuda(c_void_p)
def cudaStreamDestroy(stream):
    free_handle(stream, Stream)


def _synchronize(stream: int | None) -> None:
    record_call()
    _invalidate([x for x in [stream_of(stream)] if x.graph is not None], CAPTURE_UNSUPPORTED)
    if stream in _LEGACY_STREAMS:
        _refuse_legacy_stream_during_capture()


@cuda(c_void_p)
def cudaStreamSynchronize(stream):
    _synchronize(stream)


@cuda(c_void_p)
def cuStreamSynchronize(stream):
    _synchronize(stream)


@cuda()
def cudaDeviceSynchronize():
    record_call()
    _invalidate(_capturing(), CAPTURE_UNSUPPORTED)


@cuda(c_void_p, POINTER(c_int))
def cudaStreamIsCapturing(stream, status):
    found = stream_of(stream)
    if stream in _LEGACY_STREAMS:
        _refuse_legacy_stream_during_capture()
    status[0] = 2 if found.invalid else int(found.graph is not None)


@cuda(c_void_p, c_int)
def cudaStreamBeginCapture(stream, mode):
    found = object_of(stream, Stream)
    if found.graph is not None:
        raise CudaError(INVALID_VALUE, "the stream is already captured")
    found.graph, found.mode = [], mode


@cuda(c_void_p, OUT)
def cudaStreamEndCapture(stream, graph):
    found = object_of(stream, Stream)
    if found.graph is None:
        raise CudaError(INVALID_VALUE, "the stream is not captured")
    work, found.graph = found.graph, None
    if found.invalid:
        found.invalid = False
        raise CudaError(CAPTURE_INVALIDATED)
    graph[0] = new_handle(work)


@cuda(OUT, c_void_p, c_void_p, c_void_p, c_size_t)
def cudaGraphInstantiate(executable, graph, node, log, size):
    executable[0] = new_handle(list(object_of(graph, list)))


@cuda(c_void_p, c_void_p)
def cudaGraphLaunch(executable, stream):
    def work() -> None:
        for step in object_of(executable, list):
            step()

    queue(work, stream)


@cuda(c_void_p)
def cudaGraphDestroy(graph):
    free_handle(graph, list)


@cuda(c_void_p)
def cudaGraphExecDestroy(executable):
    free_handle(executable, list)


@cuda(OUT, c_uint)
def cudaEventCreateWithFlags(event, flags):
    event[0] = new_handle(Event(current_device()))


@cuda(c_void_p)
def cudaEventDestroy(event):
    free_handle(event, Event)


@cuda(c_void_p, c_void_p)
def cudaEventRecord(event, stream):
    if object_of(event, Event).device != stream_of(stream).device:
        raise CudaError(INVALID_HANDLE, "the event and the stream are of different devices")
    queue(lambda: None, stream)


@cuda(c_void_p)
def cudaEventSynchronize(event):
    object_of(event, Event)
    record_call()
    refuse_during_capture()

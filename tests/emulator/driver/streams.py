"""Streams, events and graphs: the order of work, and its capture."""

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
    Refused,
    cuda,
    device,
    drop,
    get,
    new,
    note,
    objects,
)

_NON_BLOCKING, _RELAXED = 1, 2
_LEGACY_STREAMS = (None, 0, 1)


class Stream:
    def __init__(self, device: int, blocking: bool):
        self.device, self.blocking = device, blocking
        #: What is being captured, None if nothing is, and in which mode.
        self.graph: list[Callable[[], None]] | None = None
        self.mode = 0
        self.invalid = False


class Event(NamedTuple):
    device: int


def stream_of(handle: int | None) -> Stream:
    if handle in _LEGACY_STREAMS:
        return Stream(device(), blocking=True)
    return get(handle, Stream)


def _capturing() -> list[Stream]:
    streams = [x for x in list(objects.values()) if isinstance(x, Stream)]
    return [stream for stream in streams if stream.graph is not None]


def _not_while(forbidden: list[Stream], code: int) -> None:
    for stream in forbidden:
        stream.invalid = True
    if forbidden:
        raise Refused(code, "not while a graph is captured")


def unsafe() -> None:
    """What may wait for the device, which only a relaxed capture bears."""
    _not_while([x for x in _capturing() if x.mode != _RELAXED], CAPTURE_UNSUPPORTED)


def _no_capture_that_waits_for_the_legacy_stream() -> None:
    streams = [x for x in _capturing() if x.blocking and x.device == device()]
    _not_while(streams, CAPTURE_IMPLICIT)


def queue(work: Callable[[], None], handle: int | None, **more: Any) -> None:
    """Do it now, or each time that the graph is launched if the stream is captured.

    ``more`` is for the list of calls.
    """
    stream = stream_of(handle)
    if stream.invalid:
        raise Refused(CAPTURE_INVALIDATED)
    if handle in _LEGACY_STREAMS:
        _no_capture_that_waits_for_the_legacy_stream()
    captured = stream.graph is not None
    note(stream=handle or 0, captured=captured, **more)
    if stream.graph is not None:
        stream.graph.append(work)
    else:
        work()


def same_device(kernel: str, *devices: int) -> None:
    """A launch needs a kernel and a stream of the current device."""
    if {*devices} != {device()}:
        raise Refused(INVALID_HANDLE, f"{kernel}: of GPUs {devices} where {device()} is current")


@cuda(OUT)
def cudaStreamCreate(stream):
    stream[0] = new(Stream(device(), blocking=True))


@cuda(OUT, c_uint)
def cudaStreamCreateWithFlags(stream, flags):
    stream[0] = new(Stream(device(), blocking=flags != _NON_BLOCKING))


@cuda(OUT, c_uint, c_int)
def cudaStreamCreateWithPriority(stream, flags, priority):
    stream[0] = new(Stream(device(), blocking=flags != _NON_BLOCKING))


@cuda(c_void_p)
def cudaStreamDestroy(stream):
    drop(stream, Stream)


def _synchronize(stream: int | None) -> None:
    note()
    _not_while([x for x in [stream_of(stream)] if x.graph is not None], CAPTURE_UNSUPPORTED)
    if stream in _LEGACY_STREAMS:
        _no_capture_that_waits_for_the_legacy_stream()


@cuda(c_void_p)
def cudaStreamSynchronize(stream):
    _synchronize(stream)


@cuda(c_void_p)
def cuStreamSynchronize(stream):
    _synchronize(stream)


@cuda()
def cudaDeviceSynchronize():
    note()
    _not_while(_capturing(), CAPTURE_UNSUPPORTED)


@cuda(c_void_p, POINTER(c_int))
def cudaStreamIsCapturing(stream, status):
    found = stream_of(stream)
    if stream in _LEGACY_STREAMS:
        _no_capture_that_waits_for_the_legacy_stream()
    status[0] = 2 if found.invalid else int(found.graph is not None)


@cuda(c_void_p, c_int)
def cudaStreamBeginCapture(stream, mode):
    found = get(stream, Stream)
    if found.graph is not None:
        raise Refused(INVALID_VALUE, "is captured already")
    found.graph, found.mode = [], mode


@cuda(c_void_p, OUT)
def cudaStreamEndCapture(stream, graph):
    found = get(stream, Stream)
    if found.graph is None:
        raise Refused(INVALID_VALUE, "is not captured")
    work, found.graph = found.graph, None
    if found.invalid:
        found.invalid = False
        raise Refused(CAPTURE_INVALIDATED)
    graph[0] = new(work)


@cuda(OUT, c_void_p, c_void_p, c_void_p, c_size_t)
def cudaGraphInstantiate(executable, graph, node, log, size):
    executable[0] = new(list(get(graph, list)))


@cuda(c_void_p, c_void_p)
def cudaGraphLaunch(executable, stream):
    def work() -> None:
        for step in get(executable, list):
            step()

    queue(work, stream)


@cuda(c_void_p)
def cudaGraphDestroy(graph):
    drop(graph, list)


@cuda(c_void_p)
def cudaGraphExecDestroy(executable):
    drop(executable, list)


@cuda(OUT, c_uint)
def cudaEventCreateWithFlags(event, flags):
    event[0] = new(Event(device()))


@cuda(c_void_p)
def cudaEventDestroy(event):
    drop(event, Event)


@cuda(c_void_p, c_void_p)
def cudaEventRecord(event, stream):
    if get(event, Event).device != stream_of(stream).device:
        raise Refused(INVALID_HANDLE, "event and stream are of different devices")
    queue(lambda: None, stream)


@cuda(c_void_p)
def cudaEventSynchronize(event):
    get(event, Event)
    note()
    unsafe()

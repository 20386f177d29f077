"""What a call takes on a GPU: of the device with a warm and a cold cache, of the host, of memory.

The device's times are those between two CUDA events on the stream that the call works on. Before
the first event the device is given other work, for longer than the host takes to queue what is
timed: so that gaps in which the device would wait for Python are not part of them. That work is
writing a buffer twice as large as the second-level cache, and is also what empties the cache. A
call that waits for the device itself, as many of PyTorch's do, cannot be queued ahead, and its
waiting counts.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from statistics import median
from typing import Any, Callable, NamedTuple, Optional

#: Measurements of a time, at least and at most; and one of a call that takes so many seconds.
ROUNDS, LONG = (5, 50), 0.03
#: Calls between two events with a warm cache, and the seconds that they are to take at most.
CALLS, TOGETHER = 10, 2e-3
#: The other work takes this many times as long as queueing does, in the buffer's writes at most.
AHEAD, MOST_WRITES = 1.5, 100


class GpuTimes(NamedTuple):
    """Medians, in seconds, and bytes."""

    #: A call after another of the same.
    warm: float
    #: A call whose inputs and results lie in no cache.
    cold: float
    #: Until the call returns, the device idle before it: checks, allocation, launches.
    host: float
    #: The most memory at a time beside inputs and results; None where nothing is allocated.
    memory: Optional[int]


@lru_cache(maxsize=1)
def _scrubber() -> tuple[Any, float]:
    """The buffer, and the seconds that it takes to write it."""
    import cupy
    from cupy.cuda import runtime

    cache = runtime.deviceGetAttribute(runtime.cudaDevAttrL2CacheSize, cupy.cuda.Device().id)
    buffer = cupy.cuda.alloc(max(2 * cache, 1 << 20))
    stream = cupy.cuda.get_current_stream()
    _write(buffer, 3)
    return buffer, between(stream, lambda: _write(buffer, 20)) / 20


def _write(buffer: Any, times: int) -> None:
    """CUDA's own kernel: CuPy's would have to be compiled."""
    for _ in range(times):
        buffer.memset_async(1, buffer.mem.size)


def between(stream: Any, work: Callable[[], Any]) -> float:
    """Seconds of the device between two events around what ``work`` queues on ``stream``."""
    import cupy

    start, end = cupy.cuda.Event(), cupy.cuda.Event()
    start.record(stream)
    out = work()
    end.record(stream)
    end.synchronize()
    del out
    return cupy.cuda.get_elapsed_time(start, end) / 1e3


def occupy(stream: Any, seconds: float) -> None:
    """Give the device work for that long, and leave nothing of use in its cache."""
    buffer, once = _scrubber()
    with stream:
        _write(buffer, max(1, min(MOST_WRITES, math.ceil(AHEAD * seconds / once))))


def measure(
    call: Callable[[], Any], stream: Any, memory: Optional[int], seconds: float
) -> GpuTimes:
    """Times of ``call``, which has been called before; about ``seconds`` for each of the three."""
    import cupy

    device = cupy.cuda.Device()

    def whole() -> float:
        """Of the host until the device is done."""
        start = time.perf_counter()
        call()
        device.synchronize()
        return time.perf_counter() - start

    def host() -> float:
        device.synchronize()
        start = time.perf_counter()
        out = call()
        taken = time.perf_counter() - start
        del out
        return taken

    _scrubber()
    device.synchronize()
    once = min(whole() for _ in range(2))
    least, most = ROUNDS if once < LONG else (1, 1)
    rounds = max(least, min(most, int(seconds / once)))
    queued = median(host() for _ in range(rounds))
    calls = max(1, min(CALLS, int(TOGETHER / once)))

    def repeat() -> None:
        for _ in range(calls):
            call()

    def warm() -> float:
        occupy(stream, (calls + 1) * queued)
        call()
        return between(stream, repeat) / calls

    def cold() -> float:
        occupy(stream, queued)
        return between(stream, call)

    several = max(least, rounds // calls)
    warm_seconds = median(warm() for _ in range(several))
    return GpuTimes(warm_seconds, median(cold() for _ in range(rounds)), queued, memory)


# --- memory ---------------------------------------------------------------------------------------


@contextmanager
def _pool() -> Iterator[list[int]]:
    """What CuPy's pool has given in this thread and not got back: now, and at most."""
    from cupy.cuda import memory_hook

    used = [0, 0]

    class Hook(memory_hook.MemoryHook):
        name = "what a call takes"

        def malloc_postprocess(self, **about: Any) -> None:
            used[0] += about["mem_size"]
            used[1] = max(used)

        def free_postprocess(self, **about: Any) -> None:
            used[0] -= about["mem_size"]

    with Hook():
        yield used


def cupy_memory(call: Callable[[], Any]) -> int:
    """The most bytes of CuPy's pool at a time beside the results."""
    with _pool() as used:
        out = call()
        beside = used[1] - used[0]
    del out
    return beside


def torch_memory(call: Callable[[], Any]) -> int:
    """The same of PyTorch's."""
    import torch

    torch.cuda.reset_peak_memory_stats()
    out = call()
    beside = torch.cuda.max_memory_allocated() - torch.cuda.memory_allocated()
    del out
    return beside

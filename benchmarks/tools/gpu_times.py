"""Measures a call on a GPU: device time with a warm and a cold cache, host time, memory.

The device time is the time between two CUDA events on the stream of the call. Before the first
event the device writes to a buffer twice as large as the L2 cache, which empties the cache. The
writes take longer than the host needs to queue the timed calls: the times then include no gaps in
which the device waits for Python. Many calls of PyTorch wait for the device, so that the host
cannot queue them ahead; their times include the wait.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from statistics import median
from typing import Any, Callable, NamedTuple, Optional

#: Minimum and maximum number of measurements of a time; a call of LONG seconds is measured once.
ROUNDS, LONG = (5, 50), 0.03
#: Maximum number of calls between two events with a warm cache, and their maximum seconds.
MAX_CALLS, MAX_SECONDS = 10, 2e-3
#: The writes take QUEUE_FACTOR times as long as the host, and are at most MAX_WRITES.
QUEUE_FACTOR, MAX_WRITES = 1.5, 100


class GpuTimes(NamedTuple):
    """Medians, in seconds, and bytes."""

    #: A call after an identical call.
    warm: float
    #: A call whose inputs and results are not in the L2 cache.
    cold: float
    #: Host time until the call returns, with an idle device: checks, allocation, launches.
    host: float
    #: Peak extra memory: allocated by the call, without results; None for a replay of a graph.
    memory: Optional[int]


@lru_cache(maxsize=1)
def _cache_buffer() -> tuple[Any, float]:
    """Return the buffer that empties the cache, and the seconds of one write to it."""
    import cupy
    from cupy.cuda import runtime

    cache = runtime.deviceGetAttribute(runtime.cudaDevAttrL2CacheSize, cupy.cuda.Device().id)
    buffer = cupy.cuda.alloc(max(2 * cache, 1 << 20))
    stream = cupy.cuda.get_current_stream()
    _write(buffer, 3)
    return buffer, between(stream, lambda: _write(buffer, 20)) / 20


def _write(buffer: Any, times: int) -> None:
    """Write with CUDA's own kernel, because CuPy's would need a compilation."""
    for _ in range(times):
        buffer.memset_async(1, buffer.mem.size)


def between(stream: Any, work: Callable[[], Any]) -> float:
    """Return the device's seconds between two events around the work queued on ``stream``."""
    import cupy

    start, end = cupy.cuda.Event(), cupy.cuda.Event()
    start.record(stream)
    out = work()
    end.record(stream)
    end.synchronize()
    del out
    return cupy.cuda.get_elapsed_time(start, end) / 1e3


def occupy(stream: Any, seconds: float) -> None:
    """Keep the device busy for that time, and empty its cache."""
    buffer, once = _cache_buffer()
    with stream:
        _write(buffer, max(1, min(MAX_WRITES, math.ceil(QUEUE_FACTOR * seconds / once))))


def measure(
    call: Callable[[], Any], stream: Any, memory: Optional[int], seconds: float
) -> GpuTimes:
    """Measure a call that was made before, for about ``seconds`` for each of its times."""
    import cupy

    device = cupy.cuda.Device()

    def synchronized() -> float:
        """Return the host's seconds until the device has finished."""
        start = time.perf_counter()
        call()
        device.synchronize()
        return time.perf_counter() - start

    def host() -> float:
        """Return the host's seconds until the call returns."""
        device.synchronize()
        start = time.perf_counter()
        out = call()
        taken = time.perf_counter() - start
        del out
        return taken

    _cache_buffer()
    device.synchronize()
    once = min(synchronized() for _ in range(2))
    minimum, maximum = ROUNDS if once < LONG else (1, 1)
    rounds = max(minimum, min(maximum, int(seconds / once)))
    queued = median(host() for _ in range(rounds))
    calls = max(1, min(MAX_CALLS, int(MAX_SECONDS / once)))

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

    warm_rounds = max(minimum, rounds // calls)
    warm_seconds = median(warm() for _ in range(warm_rounds))
    return GpuTimes(warm_seconds, median(cold() for _ in range(rounds)), queued, memory)


# --- memory ---------------------------------------------------------------------------------------


@contextmanager
def _pool() -> Iterator[list[int]]:
    """Track the bytes of CuPy's pool that this thread has allocated: current and peak."""
    from cupy.cuda import memory_hook

    used = [0, 0]

    class Hook(memory_hook.MemoryHook):
        name = "peak memory of a call"

        def malloc_postprocess(self, **about: Any) -> None:
            used[0] += about["mem_size"]
            used[1] = max(used)

        def free_postprocess(self, **about: Any) -> None:
            used[0] -= about["mem_size"]

    with Hook():
        yield used


def cupy_memory(call: Callable[[], Any]) -> int:
    """Return the peak extra bytes of CuPy's pool: without the results."""
    with _pool() as used:
        out = call()
        extra = used[1] - used[0]
    del out
    return extra


def torch_memory(call: Callable[[], Any]) -> int:
    """Return the peak extra bytes of PyTorch's pool: without the results."""
    import torch

    torch.cuda.reset_peak_memory_stats()
    out = call()
    extra = torch.cuda.max_memory_allocated() - torch.cuda.memory_allocated()
    del out
    return extra

"""Measures a call on a GPU: device time with a warm and a cold cache, host time, memory.

The device time is the time between two CUDA events on the stream of the call. Before the first
event the device gets other work that takes longer than the host needs to queue the timed calls:
gaps in which the device would wait for Python are then not included. That work writes a buffer
twice as large as the L2 cache, which also empties the cache. A call that itself waits for the
device, as many of PyTorch's do, cannot be queued ahead; its waiting is included.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from statistics import median
from typing import Any, Callable, NamedTuple, Optional

#: The least and the most measurements of a time; a call of LONG seconds is measured once.
ROUNDS, LONG = (5, 50), 0.03
#: The most calls between two events with a warm cache, and the most seconds for them.
CALLS, TOGETHER = 10, 2e-3
#: The other work takes AHEAD times as long as the host, with at most MOST_WRITES writes.
AHEAD, MOST_WRITES = 1.5, 100


class GpuTimes(NamedTuple):
    """Medians, in seconds, and bytes."""

    #: A call after an identical call.
    warm: float
    #: A call whose inputs and results are in no cache.
    cold: float
    #: Host time until the call returns, with an idle device: checks, allocation, launches.
    host: float
    #: Peak memory without inputs and results; None if nothing is allocated.
    memory: Optional[int]


@lru_cache(maxsize=1)
def _scrubber() -> tuple[Any, float]:
    """Return the buffer, and the seconds of one write to it."""
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
    buffer, once = _scrubber()
    with stream:
        _write(buffer, max(1, min(MOST_WRITES, math.ceil(AHEAD * seconds / once))))


def measure(
    call: Callable[[], Any], stream: Any, memory: Optional[int], seconds: float
) -> GpuTimes:
    """Measure ``call``, which was called before, for about ``seconds`` for each time."""
    import cupy

    device = cupy.cuda.Device()

    def whole() -> float:
        """Return the host's seconds until the device is done."""
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
    """Track the bytes of CuPy's pool that this thread has allocated: now, and at most."""
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
    """Return the peak bytes of CuPy's pool without the results."""
    with _pool() as used:
        out = call()
        beside = used[1] - used[0]
    del out
    return beside


def torch_memory(call: Callable[[], Any]) -> int:
    """Return the peak bytes of PyTorch's pool without the results."""
    import torch

    torch.cuda.reset_peak_memory_stats()
    out = call()
    beside = torch.cuda.max_memory_allocated() - torch.cuda.memory_allocated()
    del out
    return beside

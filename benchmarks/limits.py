"""What this machine can do at most, measured: bytes moved, and pairs of boxes compared, a second.

One process for each core does the same at the same time, on data of its own, so that no thread
waits for another nor for Python's lock, and their rates are added up; the best of some rounds
counts. Memory is moved by the C library, as many bytes as the job in question moves, so that a
limit is that of the caches which hold them. The inner loops are our ops on boxes that stay in the
caches, of which no pair can be left out unseen.
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
import time
from functools import lru_cache, partial
from typing import Any, Callable, NamedTuple

import numpy as np
from gpu_times import between

import cvops

ROUNDS, SECONDS = 5, 0.03
#: Bytes for each process at least: with fewer, Python's share of a call would count.
FEWEST = 1 << 18


def copying(num: int) -> tuple[Callable[[], Any], int]:
    source, target = np.ones(num // 2, np.uint8), np.ones(num // 2, np.uint8)
    start, to, size = source.ctypes.data, target.ctypes.data, num // 2
    # The arrays are named, so that they live as long as the function does.
    return lambda _=(source, target): ctypes.memmove(to, start, size), 2 * size


def writing(num: int) -> tuple[Callable[[], Any], int]:
    target = np.ones(num, np.uint8)
    to = target.ctypes.data
    return lambda _=target: ctypes.memset(to, 1, num), num


def reading(num: int) -> tuple[Callable[[], Any], int]:
    """Of a byte that is not there."""
    source = np.ones(num, np.uint8)
    memchr = ctypes.CDLL(None).memchr
    memchr.argtypes = ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t
    start = source.ctypes.data
    return lambda _=source: memchr(start, 0, num), num


def overlapping(num: int) -> np.ndarray:
    """Corners of boxes that all have the middle in common."""
    rng = np.random.default_rng(0)
    return np.float32(rng.uniform([0, 0, 0.6, 0.6], [0.4, 0.4, 1, 1], (num, 4)))


def iou(num: int) -> tuple[Callable[[], Any], int]:
    lhs, rhs = overlapping(256), overlapping(1024)
    return lambda: cvops.box_iou(lhs, rhs, backend="native"), len(lhs) * len(rhs)


def nms(num: int) -> tuple[Callable[[], Any], int]:
    """Boxes that all overlap, and are all kept: none is to 99 % another."""
    data = np.zeros((1500, 6), np.float32)
    data[:, 1] = np.linspace(1, 0.01, len(data))
    data[:, 2:] = overlapping(len(data))
    kept = cvops.box_nms(data, overlap_thresh=0.99)
    assert (kept[:, 1] > 0).all()
    pairs = len(data) * (len(data) - 1) // 2
    return lambda: cvops.box_nms(data, overlap_thresh=0.99, backend="native"), pairs


MEMORY = {"copying": copying, "writing": writing, "reading": reading}
LOOPS = {"IoU": iou, "NMS": nms}


class Floor(NamedTuple):
    """The least time that a job can take here."""

    seconds: float
    #: What it spends the time on.
    what: str


class Limits:
    """The limits of the CPU, measured when they are first asked for; to be closed."""

    def __init__(self) -> None:
        self.processes = cores()
        self.rates: dict[tuple[str, int], float] = {}
        self._workers: list[subprocess.Popen[str]] = []

    def rate(self, kind: str, size: int = 0) -> float:
        """Bytes a second for data of that many bytes, or pairs a second."""
        size = max(1 << (size - 1).bit_length(), FEWEST * self.processes) if size else 0
        if (kind, size) not in self.rates:
            self._start()
            self._tell(json.dumps([kind, size // self.processes]))
            self._replies()
            self.rates[kind, size] = max(self._round() for _ in range(ROUNDS))
        return self.rates[kind, size]

    def floor(self, job: Any) -> Floor:
        """Of a ``harness.Job``: its bytes, or the pairs of its inner loop if they take longer."""
        kind = "copying"
        if 10 * job.read < job.written:
            kind = "writing"
        elif 10 * job.written < job.read:
            kind = "reading"
        floors = [Floor(job.moved / self.rate(kind, job.moved), kind)]
        if job.inner is not None:
            pairs = job.inner.pairs(job.expected)
            floors.append(Floor(pairs / self.rate(job.inner.loop), f"{job.inner.loop} pairs"))
        return max(floors)

    def close(self) -> None:
        for worker in self._workers:
            worker.communicate()
        self._workers.clear()

    def _start(self) -> None:
        if self._workers:
            return
        environment = {
            **os.environ,
            "CVOPS_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        }
        self._workers += [
            subprocess.Popen(
                [sys.executable, __file__],
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for _ in range(self.processes)
        ]

    def _round(self) -> float:
        self._tell("go")
        return sum(map(float, self._replies()))

    def _tell(self, line: str) -> None:
        for worker in self._workers:
            assert worker.stdin is not None
            print(line, file=worker.stdin, flush=True)

    def _replies(self) -> list[str]:
        replies = [worker.stdout.readline() for worker in self._workers if worker.stdout]
        if not all(replies):
            raise RuntimeError("a process that measures this machine's limits has ended")
        return replies


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@lru_cache(maxsize=1)
def gpu_copying() -> float:
    """Bytes a second of a large copy on the GPU, those read and those written."""
    import cupy

    num = 1 << 30
    source, target = cupy.cuda.alloc(num), cupy.cuda.alloc(num)
    source.memset_async(1, num)
    stream = cupy.cuda.get_current_stream()
    copy = partial(target.copy_from_device_async, source, num)
    return 2 * num / min(between(stream, copy) for _ in range(8))


def _work() -> None:
    """One process: a line names what to do; for each further line one round of it."""
    while line := sys.stdin.readline():
        kind, size = json.loads(line)
        call, units = {**MEMORY, **LOOPS}[kind](size)
        call()
        print("ready", flush=True)
        for _ in range(ROUNDS):
            sys.stdin.readline()
            calls, start = 0, time.perf_counter()
            while (taken := time.perf_counter() - start) < SECONDS:
                call()
                calls += 1
            print(calls * units / taken, flush=True)


if __name__ == "__main__":
    _work()

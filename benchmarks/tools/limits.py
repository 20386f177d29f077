"""Measures limits of this machine, bytes per second and pairs of boxes per second.

The lower bound of a job's time is its work divided by such a limit.

One process per core does the same work on its own data, so that no thread waits for another thread
or for Python's lock. A limit is the sum of their rates, in the best of several rounds. The C
library moves as many bytes as the job, so that they are in the same caches. The inner loops are our
ops on boxes in the cache, with inputs that allow no pruning.
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
from tools.gpu_times import between
from tools.jobs import Job
from tools.machine import cores

import cvops

ROUNDS, SECONDS = 5, 0.03
#: The minimum bytes of a process; with fewer bytes, Python's time would be a part of the result.
MIN_BYTES = 1 << 18


# Each of these functions returns a call, and its number of bytes or pairs.


def copying(num: int) -> tuple[Callable[[], Any], int]:
    source, target = np.ones(num // 2, np.uint8), np.ones(num // 2, np.uint8)
    start, to, size = source.ctypes.data, target.ctypes.data, num // 2
    # The default argument keeps the arrays alive as long as the function.
    return lambda _=(source, target): ctypes.memmove(to, start, size), 2 * size


def writing(num: int) -> tuple[Callable[[], Any], int]:
    target = np.ones(num, np.uint8)
    to = target.ctypes.data
    return lambda _=target: ctypes.memset(to, 1, num), num


def reading(num: int) -> tuple[Callable[[], Any], int]:
    """Search for a byte that does not occur."""
    source = np.ones(num, np.uint8)
    memchr = ctypes.CDLL(None).memchr
    memchr.argtypes = ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t
    start = source.ctypes.data
    return lambda _=source: memchr(start, 0, num), num


def overlapping(num: int) -> np.ndarray:
    """Return corners of boxes that all contain the center of the image."""
    rng = np.random.default_rng(0)
    return np.float32(rng.uniform([0, 0, 0.6, 0.6], [0.4, 0.4, 1, 1], (num, 4)))


def iou(num: int) -> tuple[Callable[[], Any], int]:
    lhs, rhs = overlapping(256), overlapping(1024)
    return lambda: cvops.box_iou(lhs, rhs, backend="native"), len(lhs) * len(rhs)


def nms(num: int) -> tuple[Callable[[], Any], int]:
    """Suppress boxes that all overlap by less than 99 %, so that all are kept."""
    data = np.zeros((1500, 6), np.float32)
    data[:, 1] = np.linspace(1, 0.01, len(data))
    data[:, 2:] = overlapping(len(data))
    kept = cvops.box_nms(data, overlap_thresh=0.99)
    assert (kept[:, 1] > 0).all()
    pairs = len(data) * (len(data) - 1) // 2
    return lambda: cvops.box_nms(data, overlap_thresh=0.99, backend="native"), pairs


MEMORY = {"copying": copying, "writing": writing, "reading": reading}
LOOPS = {"IoU": iou, "NMS": nms}


class LowerBound(NamedTuple):
    """A lower bound of the time of a job on this machine."""

    seconds: float
    #: The work that takes this time: a key of MEMORY, or pairs of one of LOOPS.
    work: str


class Limits:
    """The limits of the CPU, measured on first use. Close it at the end."""

    def __init__(self) -> None:
        self.processes = cores()
        self.rates: dict[tuple[str, int], float] = {}
        self._workers: list[subprocess.Popen[str]] = []

    def rate(self, kind: str, size: int = 0) -> float:
        """Return bytes per second for data of ``size`` bytes, or pairs per second."""
        size = max(1 << (size - 1).bit_length(), MIN_BYTES * self.processes) if size else 0
        if (kind, size) not in self.rates:
            self._start()
            self._send(json.dumps([kind, size // self.processes]))
            self._receive()
            self.rates[kind, size] = max(self._round() for _ in range(ROUNDS))
        return self.rates[kind, size]

    def lower_bound(self, job: Job) -> LowerBound:
        """Return the time of the job's bytes, or of its pairs if that is longer."""
        assert job.read is not None
        kind = "copying"
        if 10 * job.read < job.written:
            kind = "writing"
        elif 10 * job.written < job.read:
            kind = "reading"
        bounds = [LowerBound(job.moved / self.rate(kind, job.moved), kind)]
        if job.inner is not None:
            pairs = job.inner.pairs(job.expected)
            seconds = pairs / self.rate(job.inner.name)
            bounds.append(LowerBound(seconds, f"{job.inner.name} pairs"))
        return max(bounds)

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
        self._send("start a round")
        return sum(map(float, self._receive()))

    def _send(self, line: str) -> None:
        for worker in self._workers:
            assert worker.stdin is not None
            print(line, file=worker.stdin, flush=True)

    def _receive(self) -> list[str]:
        replies = [worker.stdout.readline() for worker in self._workers if worker.stdout]
        if not all(replies):
            raise RuntimeError("limits: expected a rate of each process, got the end of a process")
        return replies


@lru_cache(maxsize=1)
def gpu_copying() -> float:
    """Return bytes per second of a large copy on the GPU, read plus written."""
    import cupy

    num = 1 << 30
    source, target = cupy.cuda.alloc(num), cupy.cuda.alloc(num)
    source.memset_async(1, num)
    stream = cupy.cuda.get_current_stream()
    copy = partial(target.copy_from_device_async, source, num)
    return 2 * num / min(between(stream, copy) for _ in range(8))


def _serve() -> None:
    """Run as a process of Limits: a line names the work, each further line starts one round."""
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
    _serve()

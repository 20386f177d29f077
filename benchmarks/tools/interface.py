"""The interface of an implementation: a library or a backend on a device."""

from __future__ import annotations

import contextlib
import time
from typing import Any, Callable, Optional

import numpy as np
from tools.gpu_times import GpuTimes
from tools.jobs import Job, check_identical, to_numpy


class Unavailable(Exception):
    """This implementation cannot run this job here; the message is the reason."""


class Implementation:
    """A library or a backend on a device, "cpu" or "cuda"; the tables have its name."""

    #: The key of ``Job.peers``; None for cvops.
    library: Optional[str] = None

    def __init__(self, name: str, device: str = "cpu"):
        self.name = name
        self.device = device

    def missing(self) -> str | None:
        """Return the reason why it cannot run here; None if it can."""
        raise NotImplementedError

    def prepare(self, job: Job) -> Callable[[], Any]:
        """Return the function to time, which returns the results."""
        raise NotImplementedError

    def first_call(self, job: Job) -> tuple[Callable[[], Any], float]:
        """Check a first call; return the function and the seconds of that call."""
        call = self.prepare(job)
        start = self.clock()
        out = call()
        self.wait(out)
        once = self.clock() - start
        self.check(job, to_numpy(out))
        return call, once

    def settings(self) -> contextlib.AbstractContextManager[None]:
        """Return a context for the run."""
        return contextlib.nullcontext()

    def wait(self, out: Any) -> None:
        """Wait for the results."""

    def clock(self) -> float:
        """Return seconds."""
        return time.perf_counter()

    def gpu_times(self, call: Callable[[], Any], seconds: float) -> GpuTimes | None:
        """Measure a call from :meth:`first_call` by CUDA's events; None on a CPU."""
        return None

    def check(self, job: Job, out: list[np.ndarray]) -> None:
        """Raise if the results do not agree with ours."""
        check = job.peers[self.library].check if self.library else check_identical
        check(job.expected, out)

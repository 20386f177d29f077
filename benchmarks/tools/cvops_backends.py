"""The backends of cvops as implementations of a job."""

from __future__ import annotations

import contextlib
import importlib.util
import time
from collections.abc import Iterator
from functools import partial
from typing import Any, Callable, NamedTuple

from tools import gpu_times
from tools.gpu_times import GpuTimes
from tools.interface import Implementation, Unavailable
from tools.jobs import Job, flat

import cvops
from cvops.backends.registry import BACKENDS


class Cvops(Implementation):
    """A backend of cvops on a device, with CuPy's arrays on a GPU."""

    def __init__(self, name: str, device: str, backend: str):
        super().__init__(name, device)
        self.backend = backend

    def missing(self) -> str | None:
        missing = BACKENDS[self.device, self.backend].missing()
        if missing is None and self.device == "cuda" and not importlib.util.find_spec("cupy"):
            return "needs CuPy for its arrays"
        return missing

    def prepare(self, job: Job) -> Callable[[], Any]:
        arrays = job.arrays
        if self.device == "cuda":
            import cupy

            arrays = [cupy.asarray(x) for x in arrays]
        return partial(job.ours, *arrays, backend=self.backend)

    def wait(self, out: Any) -> None:
        if self.device == "cuda":
            import cupy

            cupy.cuda.get_current_stream().synchronize()

    def gpu_times(self, call: Callable[[], Any], seconds: float) -> GpuTimes | None:
        if self.device == "cpu":
            return None
        import cupy

        memory = gpu_times.cupy_memory(call)
        return gpu_times.measure(call, cupy.cuda.get_current_stream(), memory, seconds)


class OneThread(Cvops):
    """A backend on one thread of the CPU."""

    @contextlib.contextmanager
    def settings(self) -> Iterator[None]:
        before = cvops.get_num_threads()
        cvops.set_num_threads(1)
        try:
            yield
        finally:
            cvops.set_num_threads(before)


class Replay(NamedTuple):
    """The replay of a captured call, which writes to the same results."""

    graph: Any
    stream: Any
    out: Any
    #: The captured call; it owns the inputs, which each replay reads.
    call: Any = None

    def __call__(self) -> Any:
        self.graph.launch(self.stream)
        return self.out


class Captured(Cvops):
    """Replays of a call that was captured in a CUDA graph."""

    def prepare(self, job: Job) -> Callable[[], Any]:
        call = super().prepare(job)
        try:
            return self._capture(call)
        except Exception as error:  # CUDA, CuPy and cvops have different types of errors
            raise Unavailable(f"not captured: {error}") from error

    def _capture(self, call: Callable[[], Any]) -> Replay:
        import cupy

        stream = cupy.cuda.Stream(non_blocking=True)
        cupy.cuda.Device().synchronize()  # the inputs are copied on another stream
        with stream:
            # These calls load the kernels and fill the pool of this stream: a capture cannot
            # allocate memory.
            for _ in range(3):
                call()
            stream.synchronize()
            stream.begin_capture()
            try:
                out = call()
            except Exception:
                with contextlib.suppress(Exception):
                    stream.end_capture()
                raise
            graph = stream.end_capture()
            # The checked results are those of a replay.
            for x in flat(out):
                x.data.memset_async(0xB3, x.nbytes)
            graph.launch(stream)
            stream.synchronize()
        return Replay(graph, stream, out, call)

    def wait(self, out: Any) -> None:
        """Return at once; only the clock waits, so that replays run without gaps."""

    def clock(self) -> float:
        import cupy

        cupy.cuda.Device().synchronize()
        return time.perf_counter()

    def gpu_times(self, call: Any, seconds: float) -> GpuTimes:
        return gpu_times.measure(call, call.stream, None, seconds)

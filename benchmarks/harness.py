"""What the benchmarks share: who runs, how a result is checked, and the table at the end.

A benchmark states a job once, and each contender that is here runs it in a test of its own. A
result is compared with ours on the CPU before it is timed; MXNet's and torchvision's as far as they
promise the same. All are given arrays of their own kind, and what they give is waited for: on a GPU
a call is timed with a synchronisation after it. The contenders named "graph" are replays of a
captured call, many of them in a row, which is the time that the GPU itself takes. Inputs that fit
into a cache are found there.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import platform
import sys
import time
import warnings
from collections.abc import Sequence
from datetime import date
from functools import partial
from importlib import metadata
from typing import Any, Callable, NamedTuple, Optional

import numpy as np

from cvops._mxnet import mxnet
from cvops._op import BACKENDS

#: Makes the function to be timed, without arguments, from what the contender hands to it.
Prepare = Callable[..., Callable[[], Any]]


class Job(NamedTuple):
    """One op on one input."""

    op: str
    size: str
    #: ``ours(*arrays, backend=...)``
    ours: Callable[..., Any]
    arrays: Sequence[np.ndarray]
    #: Bytes that must be read and written: each input and each output once.
    moved: int
    #: How much work it is, and of what.
    work: tuple[int, str]
    #: From the module and a function that makes its arrays; None if it has no such op.
    mxnet: Optional[Prepare] = None
    torchvision: Optional[Prepare] = None
    #: Raise where MXNet's results, or torchvision's, are not what they should be beside ours.
    as_mxnet: Optional[Callable[[list[np.ndarray], list[np.ndarray]], None]] = None
    as_torchvision: Optional[Callable[[list[np.ndarray], list[np.ndarray]], None]] = None
    #: Contenders that would take more than about a second.
    too_slow: Sequence[str] = ()


class Absent(Exception):
    """This contender cannot run this job here; why."""


class Contender:
    """``name`` is what the table calls it, ``device`` "cpu" or "cuda"."""

    def __init__(self, name: str, device: str):
        self.name = name
        self.device = device

    def missing(self) -> str | None:
        """Why it cannot run here; None if it can."""
        raise NotImplementedError

    def prepare(self, job: Job) -> Callable[[], Any]:
        """The function to be timed, which gives the results."""
        raise NotImplementedError

    def wait(self, out: Any) -> None:
        """Wait for results."""

    def clock(self) -> float:
        """Seconds."""
        return time.perf_counter()

    def check(self, job: Job, out: list[np.ndarray], ours: list[np.ndarray]) -> None:
        """Raise if the results are not what they should be."""
        identical(ours, out)


class Ours(Contender):
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


class Captured(Ours):
    """Replays of a call that was captured in a CUDA graph."""

    def prepare(self, job: Job) -> Callable[[], Any]:
        call = super().prepare(job)
        try:
            return self._capture(call)
        except Exception as error:  # of CUDA, of CuPy or of ours: each means the same here
            raise Absent(f"not captured: {error}") from error

    def _capture(self, call: Callable[[], Any]) -> Callable[[], Any]:
        import cupy

        stream = cupy.cuda.Stream(non_blocking=True)
        cupy.cuda.Device().synchronize()  # the inputs are copied on another stream
        with stream:
            # Kernels are loaded, and the pool of this stream is left with the memory that a call
            # takes: nothing may be allocated while capturing.
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
            # The results are to be those of a replay.
            for x in _flat(out):
                x.fill(-77)
            graph.launch(stream)
            stream.synchronize()

        def replay() -> Any:
            graph.launch(stream)
            return out

        return replay

    def wait(self, out: Any) -> None:
        """Only the clock waits, so that replays follow one another."""

    def clock(self) -> float:
        import cupy

        cupy.cuda.Device().synchronize()
        return time.perf_counter()


class MXNet(Contender):
    def missing(self) -> str | None:
        try:
            mxnet()
        except ImportError as error:
            return str(error)
        return None

    def prepare(self, job: Job) -> Callable[[], Any]:
        if job.mxnet is None:
            raise Absent("has no such op")
        mx = mxnet()
        return job.mxnet(mx, mx.nd.array)

    def wait(self, out: Any) -> None:
        for x in _flat(out):
            x.wait_to_read()

    def check(self, job: Job, out: list[np.ndarray], ours: list[np.ndarray]) -> None:
        (job.as_mxnet or identical)(ours, out)


class TorchVision(Contender):
    def missing(self) -> str | None:
        if not (importlib.util.find_spec("torch") and importlib.util.find_spec("torchvision")):
            return "needs torch and torchvision"
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                import torch
                import torchvision  # noqa: F401
        except (ImportError, RuntimeError) as error:  # two that were not built for each other
            return f"cannot be imported: {error}"
        if self.device == "cuda" and not torch.cuda.is_available():
            return "needs an NVIDIA GPU and a torch built for it"
        return None

    def prepare(self, job: Job) -> Callable[[], Any]:
        if job.torchvision is None:
            raise Absent("has no such op")
        import torch
        import torchvision

        return job.torchvision(torchvision, lambda x: torch.from_numpy(x).to(self.device))

    def wait(self, out: Any) -> None:
        if self.device == "cuda":
            import torch

            torch.cuda.synchronize()

    def check(self, job: Job, out: list[np.ndarray], ours: list[np.ndarray]) -> None:
        assert job.as_torchvision is not None
        job.as_torchvision(ours, out)


CONTENDERS: dict[str, Contender] = {
    "mxnet": MXNet("MXNet", "cpu"),
    "torchvision": TorchVision("torchvision", "cpu"),
    "numpy": Ours("cvops numpy", "cpu", "numpy"),
    "native": Ours("cvops native", "cpu", "native"),
    "torchvision-gpu": TorchVision("torchvision, GPU", "cuda"),
    "cupy-gpu": Ours("cvops cupy, GPU", "cuda", "cupy"),
    "native-gpu": Ours("cvops native, GPU", "cuda", "native"),
    "cupy-graph": Captured("cvops cupy, GPU graph", "cuda", "cupy"),
    "native-graph": Captured("cvops native, GPU graph", "cuda", "native"),
}


# --- results --------------------------------------------------------------------------------------


def _flat(out: Any) -> list[Any]:
    return list(out) if isinstance(out, (tuple, list)) else [out]


def to_numpy(out: Any) -> list[np.ndarray]:
    """What a contender gave, as NumPy arrays."""

    def one(x: Any) -> np.ndarray:
        if isinstance(x, np.ndarray):
            return x
        if hasattr(x, "asnumpy"):
            return x.asnumpy()
        return x.get() if hasattr(x, "get") else x.detach().cpu().numpy()

    return [one(x) for x in _flat(out)]


def identical(ours: list[np.ndarray], theirs: list[np.ndarray]) -> None:
    """Raise unless all bits are the same."""
    assert len(ours) == len(theirs)
    for x, y in zip(ours, theirs):
        assert x.dtype == y.dtype, f"{x.dtype} and {y.dtype}"
        np.testing.assert_array_equal(x.view(np.uint32), y.view(np.uint32))


_reference: tuple[Any, list[np.ndarray]] = ("", [])


def reference(job: Job) -> list[np.ndarray]:
    """What the best of ours gives on the CPU; kept until the next job."""
    global _reference
    key = job.op, job.size
    if _reference[0] != key:
        _reference = key, to_numpy(job.ours(*job.arrays, backend=None))
    return _reference[1]


# --- inputs ---------------------------------------------------------------------------------------

#: Of the feature maps of TinySSD at 256 x 256, 5,444 anchors: side, and sizes; ratios of all.
TINY_SSD = [
    (32, (0.2, 0.272)),
    (16, (0.37, 0.447)),
    (8, (0.54, 0.619)),
    (4, (0.71, 0.79)),
    (1, (0.88, 0.961)),
]
TINY_SSD_RATIOS = (1, 2, 0.5)
#: As many anchors as SSD has at 512 x 512: 24,564.
SSD_512 = [
    (64, (0.07, 0.1025)),
    (32, (0.15, 0.2121, 0.18, 0.13)),
    (16, (0.3, 0.3674, 0.33, 0.28)),
    (8, (0.45, 0.5196, 0.48, 0.42)),
    (4, (0.6, 0.6708, 0.63, 0.57)),
    (2, (0.75, 0.8216)),
    (1, (0.9, 0.9721)),
]


def anchors(maps: Sequence[tuple[int, Sequence[float]]]) -> np.ndarray:
    """The anchors of a model, float32 (1, A, 4)."""
    from cvops import multibox_prior

    return np.concatenate(
        [multibox_prior((side, side), sizes, TINY_SSD_RATIOS) for side, sizes in maps], axis=1
    )


def boxes(rng: Any, num: int, small: float = 0.02, large: float = 0.3) -> np.ndarray:
    """Corners of boxes all over an image of size 1, float32 (num, 4), of sides in that range."""
    center = rng.random((num, 2))
    half = rng.uniform(small, large, (num, 2)) / 2
    return np.concatenate([center - half, center + half], axis=1).astype(np.float32)


# --- the table ------------------------------------------------------------------------------------


class Row(NamedTuple):
    """A contender's time for a job."""

    job: Job
    contender: Contender
    median: float


def table(rows: Sequence[Row], notes: Sequence[str] = ()) -> str:
    """The medians as Markdown, with the rates and the ratios that follow from them."""
    copies = {}
    for device in {row.contender.device for row in rows}:
        with contextlib.suppress(Exception):  # a GPU that an error has left unusable
            copies[device] = copy_rate(device)
    medians = {(r.job.op, r.job.size, r.contender.name): r.median for r in rows}

    def ratio(row: Row, peer: str) -> str:
        other = medians.get((row.job.op, row.job.size, peer))
        return "" if other is None or row.contender.name == peer else digits(other / row.median)

    text = [about()]
    for device, rate in sorted(copies.items()):
        name = "GPU" if device == "cuda" else "CPU, one thread"
        text.append(f"A copy of memory ({name}): {digits(rate)} GB/s, read and written.")
    heads = "size | backend | median | GB/s | of a copy | work per second | x MXNet | x torchvision"
    for op in dict.fromkeys(row.job.op for row in rows):
        lines = [heads.split(" | ")]
        size = ""
        for row in (row for row in rows if row.job.op == op):
            rate = row.job.moved / row.median / 1e9
            count, unit = row.job.work
            peer = "torchvision" if row.contender.device == "cpu" else "torchvision, GPU"
            lines.append(
                [
                    row.job.size if row.job.size != size else "",
                    row.contender.name,
                    scaled(row.median, SECONDS),
                    digits(rate),
                    _percent(rate / copies.get(row.contender.device, float("inf"))),
                    scaled(count / row.median, PREFIXES) + unit,
                    ratio(row, "MXNet"),
                    ratio(row, peer),
                ]
            )
            size = row.job.size
        text += ["", f"### {op}", "", *aligned(lines)]
    if notes:
        text += ["", "Not measured:", "", *(f"- {note}" for note in notes)]
    return "\n".join(text) + "\n"


def aligned(lines: list[list[str]]) -> list[str]:
    """A Markdown table; all but the first two columns to the right."""
    widths = [max(map(len, column)) for column in zip(*lines)]
    rule = ["-" * w if i < 2 else "-" * (w - 1) + ":" for i, w in enumerate(widths)]
    rows = [
        " | ".join(
            x.ljust(w) if i < 2 else x.rjust(w) for i, (x, w) in enumerate(zip(line, widths))
        )
        for line in (lines[0], rule, *lines[1:])
    ]
    return [f"| {row} |" for row in rows]


def digits(x: float) -> str:
    """Three digits, never as a power of ten."""
    places = next((p for p, least in enumerate((100, 10, 1, 0.1)) if x >= least), 4)
    return f"{x:.{places}f}"


def _percent(x: float) -> str:
    return f"{100 * x:.0f} %" if x >= 0.01 else "< 1 %"


def scaled(x: float, units: dict[float, str]) -> str:
    """In the largest unit that is not above ``x``, or the last."""
    unit = next((unit for unit in units if x >= unit), min(units))
    return f"{digits(x / unit)} {units[unit]}"


SECONDS = {1: "s", 1e-3: "ms", 1e-6: "us"}
PREFIXES = {1e12: "T ", 1e9: "G ", 1e6: "M ", 1e3: "k ", 1: ""}


def copy_rate(device: str) -> float:
    """GB/s of a large copy, counting what is read and what is written; the best of some."""
    num = (1 << 30 if device == "cuda" else 1 << 27) // 4
    if device == "cuda":
        import cupy as library
    else:
        library = np
    source, target = library.ones(num, np.float32), library.ones(num, np.float32)
    best = float("inf")
    for _ in range(8):
        start = time.perf_counter()
        library.copyto(target, source)
        if device == "cuda":
            library.cuda.Device().synchronize()
        best = min(best, time.perf_counter() - start)
    return 2 * source.nbytes / best / 1e9


def gpu_name() -> str | None:
    cupy = sys.modules.get("cupy")
    if cupy is None or BACKENDS["cuda", "cupy"].missing() is not None:
        return None
    return cupy.cuda.runtime.getDeviceProperties(0)["name"].decode()


def cpu_name() -> str:
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as file:
        for line in file:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def os_name() -> str:
    with contextlib.suppress(OSError), open("/etc/os-release", encoding="utf-8") as file:
        for line in file:
            if line.startswith("PRETTY_NAME="):
                return line.partition("=")[2].strip().strip('"')
    return platform.platform()


def versions() -> dict[str, str]:
    """Of Python, of cvops, and of the libraries that were imported."""
    try:
        own = metadata.version("cvops")
    except metadata.PackageNotFoundError:
        own = "from a checkout"
    names = "numpy", "mxnet", "cupy", "torch", "torchvision"
    modules = {name: sys.modules.get(name) for name in names}
    found = {n: str(m.__version__) for n, m in modules.items() if hasattr(m, "__version__")}
    return {"python": platform.python_version(), **found, "cvops": own}


def about() -> str:
    """The machine, its software and the day, in a line."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    machine = f"{cpu_name()}, {cores} cores; {gpu_name() or 'no GPU'}"
    software = ", ".join(f"{name} {version}" for name, version in versions().items())
    return f"{machine}; {os_name()}; {software}; {date.today()}."

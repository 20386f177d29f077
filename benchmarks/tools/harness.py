"""Jobs, contenders and checks of the benchmarks.

A benchmark defines a job once. Each available contender runs it in a test of its own. Its result is
compared with that of cvops on the CPU before the timing, as far as a peer promises the same result.
All contenders get arrays of their own library, and each timed call includes the wait for its
result: a synchronization on a GPU. The contenders named "graph" replay a captured call many times.
``gpu_times`` also measures with the clock of the GPU. Inputs that fit into a cache are in the
cache, except in its cold times. Each library uses its default threads; see ``report.threads``.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, Callable, NamedTuple, Optional

import numpy as np
from peers import onnx_ops
from tools import gpu_times
from tools.gpu_times import GpuTimes

import cvops
from cvops._mxnet import mxnet
from cvops.ops._op import BACKENDS


def identical(ours: list[np.ndarray], theirs: list[np.ndarray]) -> None:
    """Raise unless all bits are the same."""
    assert len(ours) == len(theirs)
    for x, y in zip(ours, theirs):
        assert x.dtype == y.dtype, f"{x.dtype} and {y.dtype}"
        np.testing.assert_array_equal(x.view(np.uint32), y.view(np.uint32))


class Peer(NamedTuple):
    """A job as another library does it."""

    #: Returns the function to time, from the module and a function that makes its arrays.
    prepare: Callable[[Any, Callable[..., Any]], Callable[[], Any]]
    #: Raises if its results, the second argument, do not agree with ours.
    agrees: Callable[[list[np.ndarray], list[np.ndarray]], None] = identical


class Inner(NamedTuple):
    """The innermost loop of a job that may be bound by arithmetic."""

    #: One of ``limits.LOOPS``.
    loop: str
    #: Returns the pairs of boxes that must be compared without pruning, from our results.
    pairs: Callable[[list[np.ndarray]], int]


@dataclass(eq=False)
class Job:
    """One op on one input."""

    op: str
    size: str
    #: ``ours(*arrays, backend=...)``
    ours: Callable[..., Any]
    arrays: Sequence[np.ndarray]
    #: The amount of work, and its unit.
    work: tuple[int, str]
    #: Bytes of the results.
    written: int
    #: Bytes that must be read, each input once; by default all of the arrays.
    read: Optional[int] = None
    inner: Optional[Inner] = None
    #: The peers, by the keys of ``LIBRARIES``.
    peers: dict[str, Peer] = field(default_factory=dict)
    #: Contenders that need more than about a second.
    too_slow: Sequence[str] = ()

    def __post_init__(self) -> None:
        if self.read is None:
            self.read = sum(x.nbytes for x in self.arrays)

    @property
    def moved(self) -> int:
        """Bytes that must be read or written, each once."""
        assert self.read is not None
        return self.read + self.written

    @cached_property
    def expected(self) -> list[np.ndarray]:
        """The results of our best implementation on the CPU."""
        return to_numpy(self.ours(*self.arrays, backend=None))


def job_of(op: str, *arguments: Any) -> Job:
    """Return the job that the op's benchmark makes."""
    forward = op.removesuffix("_backward")
    module = importlib.import_module(f"bench_{forward}")
    return (module.job if op == forward else module.backward_job)(*arguments)


class Absent(Exception):
    """This contender cannot run this job here; the message is the reason."""


class Contender:
    """A library or an implementation on a device, "cpu" or "cuda"; the tables have its name."""

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

    def begin(self, job: Job) -> tuple[Callable[[], Any], float]:
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
        """Measure a call from :meth:`begin` by the GPU's clock; None on a CPU."""
        return None

    def check(self, job: Job, out: list[np.ndarray]) -> None:
        """Raise if the results do not agree with ours."""
        agrees = job.peers[self.library].agrees if self.library else identical
        agrees(job.expected, out)


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

    def gpu_times(self, call: Callable[[], Any], seconds: float) -> GpuTimes | None:
        if self.device == "cpu":
            return None
        import cupy

        memory = gpu_times.cupy_memory(call)
        return gpu_times.measure(call, cupy.cuda.get_current_stream(), memory, seconds)


class OneThread(Ours):
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


class Captured(Ours):
    """Replays of a call that was captured in a CUDA graph."""

    def prepare(self, job: Job) -> Callable[[], Any]:
        call = super().prepare(job)
        try:
            return self._capture(call)
        except Exception as error:  # CUDA, CuPy and cvops have different types of errors
            raise Absent(f"not captured: {error}") from error

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
            for x in _flat(out):
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


class Library(Contender):
    """Another library."""

    def prepare(self, job: Job) -> Callable[[], Any]:
        assert self.library is not None
        if self.library not in job.peers:
            raise Absent("has no such op")
        return job.peers[self.library].prepare(*self.tools())

    def tools(self) -> tuple[Any, Callable[..., Any]]:
        """Return the module, and the function that makes its arrays from NumPy's."""
        raise NotImplementedError


class MXNet(Library):
    library = "mxnet"

    def missing(self) -> str | None:
        try:
            mxnet()
        except ImportError as error:
            return str(error)
        return None

    def tools(self) -> tuple[Any, Callable[..., Any]]:
        return mxnet(), mxnet().nd.array

    def wait(self, out: Any) -> None:
        for x in _flat(out):
            x.wait_to_read()


class Torch(Library):
    """PyTorch's own kernels; a job gets the module ``peers.torch_ops``."""

    #: The modules that it needs, and the one that a job gets.
    modules: tuple[str, ...] = ("torch",)
    module = "peers.torch_ops"

    def __init__(self, library: str, name: str, device: str = "cpu"):
        super().__init__(name, device)
        self.library = library

    def missing(self) -> str | None:
        if not all(map(importlib.util.find_spec, self.modules)):
            return f"needs {' and '.join(self.modules)}"
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                for module in self.modules:
                    importlib.import_module(module)
        except (ImportError, RuntimeError) as error:  # the two versions do not match
            return f"cannot be imported: {error}"
        if self.device == "cuda" and not importlib.import_module("torch").cuda.is_available():
            return "needs an NVIDIA GPU and a torch built for it"
        return None

    def tools(self) -> tuple[Any, Callable[..., Any]]:
        import torch

        module = importlib.import_module(self.module)
        return module, lambda x: torch.from_numpy(x).to(self.device)

    def wait(self, out: Any) -> None:
        if self.device == "cuda":
            import torch

            torch.cuda.synchronize()

    def gpu_times(self, call: Callable[[], Any], seconds: float) -> GpuTimes | None:
        """Measure with CuPy's events: the current stream of both libraries is the default one."""
        if self.device == "cpu" or not importlib.util.find_spec("cupy"):
            return None
        import cupy

        memory = gpu_times.torch_memory(call)
        return gpu_times.measure(call, cupy.cuda.Stream.null, memory, seconds)


class TorchVision(Torch):
    """torchvision; a job gets its module."""

    modules = "torch", "torchvision"
    module = "torchvision"


class OnnxRuntime(Library):
    """Single operators of ONNX Runtime; a job gets the module ``peers.onnx_ops``."""

    library = "onnxruntime"

    def missing(self) -> str | None:
        if not importlib.util.find_spec("onnxruntime"):
            return "needs onnxruntime"
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                import onnxruntime  # noqa: F401
        except ImportError as error:  # a build for another NumPy
            return f"cannot be imported: {error}"
        return None

    def tools(self) -> tuple[Any, Callable[..., Any]]:
        return onnx_ops, np.asarray


#: The names of the libraries, by the keys of ``Job.peers``.
LIBRARIES = {
    "mxnet": "MXNet",
    "torchvision": "torchvision",
    "onnxruntime": "ONNX Runtime",
    "torch": "PyTorch",
    "book": "the book's PyTorch",
}
CONTENDERS: dict[str, Contender] = {
    "mxnet": MXNet(LIBRARIES["mxnet"]),
    "torchvision": TorchVision("torchvision", LIBRARIES["torchvision"]),
    "onnxruntime": OnnxRuntime(LIBRARIES["onnxruntime"]),
    "torch": Torch("torch", LIBRARIES["torch"]),
    "book": Torch("book", LIBRARIES["book"]),
    "numpy": Ours("cvops numpy", "cpu", "numpy"),
    "native": Ours("cvops native", "cpu", "native"),
    "native-one-thread": OneThread("cvops native, one thread", "cpu", "native"),
    "torchvision-gpu": TorchVision("torchvision", "torchvision, GPU", "cuda"),
    "torch-gpu": Torch("torch", "PyTorch, GPU", "cuda"),
    "book-gpu": Torch("book", "the book's PyTorch, GPU", "cuda"),
    "cupy-gpu": Ours("cvops cupy, GPU", "cuda", "cupy"),
    "native-gpu": Ours("cvops native, GPU", "cuda", "native"),
    "cupy-graph": Captured("cvops cupy, GPU graph", "cuda", "cupy"),
    "native-graph": Captured("cvops native, GPU graph", "cuda", "native"),
}
#: The contenders that are too slow for the large jobs for a GPU.
PEERS_ON_CPU = tuple(
    name for name, x in CONTENDERS.items() if x.library is not None and x.device == "cpu"
)


# --- results --------------------------------------------------------------------------------------


def _flat(out: Any) -> list[Any]:
    return list(out) if isinstance(out, (tuple, list)) else [out]


def to_numpy(out: Any) -> list[np.ndarray]:
    """Convert the results of a contender to NumPy arrays."""

    def one(x: Any) -> np.ndarray:
        if isinstance(x, np.ndarray):
            return x
        if hasattr(x, "asnumpy"):
            return x.asnumpy()
        return x.get() if hasattr(x, "get") else x.detach().cpu().numpy()

    return [one(x) for x in _flat(out)]


def same_scores(ours: np.ndarray, theirs: np.ndarray, share: float = 0.999) -> None:
    """Raise unless that share of the scores of kept boxes is the same.

    Scores identify boxes. Other roundings change a few decisions.
    """
    assert len(np.intersect1d(ours, theirs)) >= share * len(np.unique(ours))
    assert abs(len(ours) - len(theirs)) <= (1 - share) * len(ours)


def pairs_of_kept(out: list[np.ndarray]) -> int:
    """Count the pairs of kept boxes of one class, which NMS must compare.

    ``out`` is a result of box_nms or multibox_detection: rows that begin with the class, -1 for
    empty rows.
    """
    pairs = 0
    for rows in out[0].reshape(-1, *out[0].shape[-2:]):
        _, kept = np.unique(rows[rows[:, 0] >= 0, 0], return_counts=True)
        pairs += int((kept * (kept - 1) // 2).sum())
    return pairs


# --- inputs ---------------------------------------------------------------------------------------

#: The feature maps of TinySSD at 256 x 256, side and sizes: 5,444 anchors with the ratios below.
TINY_SSD = (
    (32, (0.2, 0.272)),
    (16, (0.37, 0.447)),
    (8, (0.54, 0.619)),
    (4, (0.71, 0.79)),
    (1, (0.88, 0.961)),
)
TINY_SSD_RATIOS = (1, 2, 0.5)
#: Feature maps with the 24,564 anchors of SSD at 512 x 512.
SSD_512 = (
    (64, (0.07, 0.1025)),
    (32, (0.15, 0.2121, 0.18, 0.13)),
    (16, (0.3, 0.3674, 0.33, 0.28)),
    (8, (0.45, 0.5196, 0.48, 0.42)),
    (4, (0.6, 0.6708, 0.63, 0.57)),
    (2, (0.75, 0.8216)),
    (1, (0.9, 0.9721)),
)


def anchors(maps: Sequence[tuple[int, Sequence[float]]]) -> np.ndarray:
    """Return the anchors of a model, float32 (1, A, 4)."""
    sides, sizes = zip(*maps)
    return cvops.multibox_priors(
        [(side, side) for side in sides], sizes, [TINY_SSD_RATIOS] * len(maps)
    )


def boxes(rng: Any, num: int, small: float = 0.02, large: float = 0.3) -> np.ndarray:
    """Return random corners, float32 (num, 4), in an image of size 1, with sides in that range."""
    center = rng.random((num, 2))
    half = rng.uniform(small, large, (num, 2)) / 2
    return np.concatenate([center - half, center + half], axis=1).astype(np.float32)

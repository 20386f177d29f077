"""What the benchmarks share: what a job is, who runs it, and how a result is checked.

A benchmark states a job once, and each contender that is here runs it in a test of its own. A
result is compared with ours on the CPU before it is timed; the peers' as far as they promise the
same. All are given arrays of their own kind, and what they give is waited for: on a GPU a call is
timed with a synchronisation after it. The contenders named "graph" are replays of a captured call,
many of them in a row. What the GPU itself takes, by its own clock, is measured beside
(``gpu_times``). Inputs that fit into a cache are found there, but where that says otherwise.
Everyone runs with the threads that it takes by itself; see ``report.threads``.
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

import gpu_times
import numpy as np
import onnx_ops
from gpu_times import GpuTimes

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
    """How another library does a job."""

    #: From the module and a function that makes its arrays, the function to be timed.
    prepare: Callable[[Any, Callable[..., Any]], Callable[[], Any]]
    #: Raises where its results, the second argument, are not what they should be beside ours.
    agrees: Callable[[list[np.ndarray], list[np.ndarray]], None] = identical


class Inner(NamedTuple):
    """The innermost loop of a job that may be bound by arithmetic."""

    #: One of ``limits.LOOPS``.
    loop: str
    #: From our results, how many pairs of boxes one has to look at who rules out none unseen.
    pairs: Callable[[list[np.ndarray]], int]


@dataclass(eq=False)
class Job:
    """One op on one input."""

    op: str
    size: str
    #: ``ours(*arrays, backend=...)``
    ours: Callable[..., Any]
    arrays: Sequence[np.ndarray]
    #: How much work it is, and of what.
    work: tuple[int, str]
    #: Bytes of the results.
    written: int
    #: Bytes that must be read, each input once; by default all of the arrays.
    read: Optional[int] = None
    inner: Optional[Inner] = None
    #: By the keys of ``LIBRARIES``.
    peers: dict[str, Peer] = field(default_factory=dict)
    #: Contenders that would take more than about a second.
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
        """What the best of ours gives on the CPU."""
        return to_numpy(self.ours(*self.arrays, backend=None))


def job_of(op: str, *arguments: Any) -> Job:
    """By the op's benchmark."""
    forward = op.removesuffix("_backward")
    module = importlib.import_module(f"bench_{forward}")
    return (module.job if op == forward else module.backward_job)(*arguments)


class Absent(Exception):
    """This contender cannot run this job here; why."""


class Contender:
    """``name`` is what the tables call it, ``device`` "cpu" or "cuda"."""

    #: The key of ``Job.peers``; None if it is ours.
    library: Optional[str] = None

    def __init__(self, name: str, device: str = "cpu"):
        self.name = name
        self.device = device

    def missing(self) -> str | None:
        """Why it cannot run here; None if it can."""
        raise NotImplementedError

    def prepare(self, job: Job) -> Callable[[], Any]:
        """The function to be timed, which gives the results."""
        raise NotImplementedError

    def begin(self, job: Job) -> tuple[Callable[[], Any], float]:
        """That function, after a first call, whose results are checked, and its seconds."""
        call = self.prepare(job)
        start = self.clock()
        out = call()
        self.wait(out)
        once = self.clock() - start
        self.check(job, to_numpy(out))
        return call, once

    def settings(self) -> contextlib.AbstractContextManager[None]:
        """What holds while it runs."""
        return contextlib.nullcontext()

    def wait(self, out: Any) -> None:
        """Wait for results."""

    def clock(self) -> float:
        """Seconds."""
        return time.perf_counter()

    def gpu_times(self, call: Callable[[], Any], seconds: float) -> GpuTimes | None:
        """Of a call that :meth:`begin` gave; None on a CPU."""
        return None

    def check(self, job: Job, out: list[np.ndarray]) -> None:
        """Raise if the results are not what they should be."""
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
    """A captured call, to be called again: it writes to the same results."""

    graph: Any
    stream: Any
    out: Any
    #: What was captured: it holds the inputs, which each replay reads.
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
        except Exception as error:  # of CUDA, of CuPy or of ours: each means the same here
            raise Absent(f"not captured: {error}") from error

    def _capture(self, call: Callable[[], Any]) -> Replay:
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
                x.data.memset_async(0xB3, x.nbytes)
            graph.launch(stream)
            stream.synchronize()
        return Replay(graph, stream, out, call)

    def wait(self, out: Any) -> None:
        """Only the clock waits, so that replays follow one another."""

    def clock(self) -> float:
        import cupy

        cupy.cuda.Device().synchronize()
        return time.perf_counter()

    def gpu_times(self, call: Any, seconds: float) -> GpuTimes:
        return gpu_times.measure(call, call.stream, None, seconds)


class Library(Contender):
    """Somebody else's."""

    def prepare(self, job: Job) -> Callable[[], Any]:
        assert self.library is not None
        if self.library not in job.peers:
            raise Absent("has no such op")
        return job.peers[self.library].prepare(*self.tools())

    def tools(self) -> tuple[Any, Callable[..., Any]]:
        """The module, and what makes its arrays of NumPy's."""
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
    """PyTorch without kernels of others; the "module" that a job gets is ``torch_ops``."""

    #: What it needs, and what a job gets.
    modules: tuple[str, ...] = ("torch",)
    module = "torch_ops"

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
        except (ImportError, RuntimeError) as error:  # two that were not built for each other
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
        """By CuPy's clock: the current stream of both is the default one."""
        if self.device == "cpu" or not importlib.util.find_spec("cupy"):
            return None
        import cupy

        memory = gpu_times.torch_memory(call)
        return gpu_times.measure(call, cupy.cuda.Stream.null, memory, seconds)


class TorchVision(Torch):
    """The module that a job gets is its own."""

    modules = "torch", "torchvision"
    module = "torchvision"


class OnnxRuntime(Library):
    """Its operators one by one; the "module" that a job gets is ``onnx_ops``."""

    library = "onnxruntime"

    def missing(self) -> str | None:
        if not importlib.util.find_spec("onnxruntime"):
            return "needs onnxruntime"
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                import onnxruntime  # noqa: F401
        except ImportError as error:  # one that was built for another NumPy
            return f"cannot be imported: {error}"
        return None

    def tools(self) -> tuple[Any, Callable[..., Any]]:
        return onnx_ops, np.asarray


#: By the keys of ``Job.peers``.
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
#: Of a job for a GPU: they are too slow for it.
PEERS_ON_CPU = tuple(
    name for name, x in CONTENDERS.items() if x.library is not None and x.device == "cpu"
)


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


def same_scores(ours: np.ndarray, theirs: np.ndarray, share: float = 0.999) -> None:
    """Raise unless that share of the scores of kept boxes is the same.

    Scores name boxes. Other roundings may decide a few otherwise.
    """
    assert len(np.intersect1d(ours, theirs)) >= share * len(np.unique(ours))
    assert abs(len(ours) - len(theirs)) <= (1 - share) * len(ours)


def pairs_of_kept(out: list[np.ndarray]) -> int:
    """Each box that suppression kept has to be held against those kept before it in its class.

    ``out`` is what box_nms or multibox_detection gave: rows that begin with the class, and with -1
    where there is none.
    """
    pairs = 0
    for rows in out[0].reshape(-1, *out[0].shape[-2:]):
        _, kept = np.unique(rows[rows[:, 0] >= 0, 0], return_counts=True)
        pairs += int((kept * (kept - 1) // 2).sum())
    return pairs


# --- inputs ---------------------------------------------------------------------------------------

#: Of the feature maps of TinySSD at 256 x 256, 5,444 anchors: side, and sizes; ratios of all.
TINY_SSD = (
    (32, (0.2, 0.272)),
    (16, (0.37, 0.447)),
    (8, (0.54, 0.619)),
    (4, (0.71, 0.79)),
    (1, (0.88, 0.961)),
)
TINY_SSD_RATIOS = (1, 2, 0.5)
#: As many anchors as SSD has at 512 x 512: 24,564.
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
    """The anchors of a model, float32 (1, A, 4)."""
    sides, sizes = zip(*maps)
    return cvops.multibox_priors(
        [(side, side) for side in sides], sizes, [TINY_SSD_RATIOS] * len(maps)
    )


def boxes(rng: Any, num: int, small: float = 0.02, large: float = 0.3) -> np.ndarray:
    """Corners of boxes all over an image of size 1, float32 (num, 4), of sides in that range."""
    center = rng.random((num, 2))
    half = rng.uniform(small, large, (num, 2)) / 2
    return np.concatenate([center - half, center + half], axis=1).astype(np.float32)

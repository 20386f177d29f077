"""Call overhead: every op on arrays of a few elements.

``bench_overhead`` times each op and the operators of MXNet and torchvision, with a wait for the
result. ``bench_layers`` makes a table of the layers of a call, and of the times for arrays of other
libraries. Its times are those of the fastest of many rounds.

- adapter: conversion of the arrays and of the results, and memory for the results
- contract: the checks of the arrays and of the other arguments
- dispatch: from the checked arguments to the implementation, and the Python code of that
- binding: pybind11, measured by the same call with empty arrays
- core: C++

``bench_host`` times calls on a GPU until they return, with their kernels queued. ``host.py`` does
the same without a GPU and without the time of the driver.
"""

from __future__ import annotations

import time
from functools import lru_cache, partial
from typing import Any, Callable, NamedTuple

import numpy as np
import pytest
from tools.harness import Job, Peer, boxes

import cvops
from cvops import arrays
from cvops.ops import _op
from cvops.ops._op import BACKENDS

RNG = np.random.default_rng(0)
ROWS = np.column_stack([np.zeros(4), RNG.random(4), boxes(RNG, 4)]).astype(np.float32)
ANCHORS = boxes(RNG, 4)[None]
LABEL = np.float32([[[0, 0.1, 0.1, 0.6, 0.7]]])
SCORES = RNG.random((1, 2, 4), np.float32)
OFFSETS = RNG.random((1, 16), np.float32)
MAPS = RNG.random((1, 1, 4, 4), np.float32)
ROIS = np.float32([[0, 0, 0, 3, 3]])
BINS = np.float32(np.ones((1, 1, 2, 2)))
CELLS = cvops.roi_pooling(MAPS, ROIS, (2, 2), 1.0, return_argmax=True)[1]
CLASSES = np.int32([[0, 1], [2, 1]])
COLORS = np.uint8([[[0, 0, 0], [128, 0, 0]]])
SSD = dict(sizes=(0.2, 0.272), ratios=(1, 2, 0.5))
MINING = dict(negative_mining_ratio=3.0, negative_mining_thresh=0.5)


class Tiny(NamedTuple):
    """An op on little work: ``op(*arrays, *args, **options)``."""

    op: Callable[..., Any]
    arrays: tuple[np.ndarray, ...]
    args: tuple[Any, ...] = ()
    options: dict[str, Any] = {}
    #: Arrays without work, for the same call; empty if the op has no such arrays.
    nothing: tuple[np.ndarray, ...] = ()
    empty_args: tuple[Any, ...] = ()
    #: Makes a call of the library's own op, from the module and its arrays; None without one.
    mxnet: Any = None
    torchvision: Any = None


def backward_of_roi_pooling(mx, out_grad, argmax):
    """MXNet's backward pass uses the positions of its own forward pass, which are the same."""
    data = mx.nd.array(MAPS)
    data.attach_grad()
    with mx.autograd.record():
        out = mx.nd.ROIPooling(data, mx.nd.array(ROIS), (2, 2), 1.0)

    def backward():
        out.backward(out_grad, retain_graph=True)
        return data.grad

    return backward


def deconvolution(mx, maps):
    along = np.float32([0.25, 0.75, 0.75, 0.25])
    weight = mx.nd.array((along[:, None] * along)[None, None])
    sizes = dict(kernel=(4, 4), stride=(2, 2), pad=(1, 1))
    return partial(mx.nd.Deconvolution, maps, weight, **sizes, num_filter=1, no_bias=True)


def bincount(mx, prediction, label):
    prediction, label = prediction.as_np_ndarray().reshape(-1), label.as_np_ndarray().reshape(-1)
    return lambda: mx.np.bincount(label * 3 + prediction, minlength=9).reshape(3, 3)


def contrib(name, **options):
    """Return a function that makes the call of MXNet's op of that name."""
    return lambda mx, *arrays: partial(getattr(mx.nd.contrib, name), *arrays, **options)


CASES = {
    "box_iou": Tiny(
        *(cvops.box_iou, (ANCHORS[0], ANCHORS[0])),
        nothing=(ANCHORS[0][:0], ANCHORS[0][:0]),
        mxnet=contrib("box_iou"),
        torchvision=lambda tv, *arrays: partial(tv.ops.box_iou, *arrays),
    ),
    "box_nms": Tiny(cvops.box_nms, (ROWS,), nothing=(ROWS[:0],), mxnet=contrib("box_nms")),
    "box_nms, by class": Tiny(
        *(cvops.box_nms, (ROWS,), (), dict(id_index=0, topk=400)),
        nothing=(ROWS[:0],),
        mxnet=contrib("box_nms", id_index=0, topk=400),
    ),
    "multibox_prior": Tiny(cvops.multibox_prior, (MAPS,), mxnet=contrib("MultiBoxPrior")),
    "multibox_prior, of SSD": Tiny(
        cvops.multibox_prior, (MAPS,), (), SSD, mxnet=contrib("MultiBoxPrior", **SSD)
    ),
    "multibox_target": Tiny(
        *(cvops.multibox_target, (ANCHORS, LABEL, SCORES)),
        mxnet=contrib("MultiBoxTarget"),
        nothing=(ANCHORS, LABEL[:0], SCORES[:0]),
    ),
    "multibox_target, mining": Tiny(
        *(cvops.multibox_target, (ANCHORS, LABEL, SCORES), (), MINING),
        mxnet=contrib("MultiBoxTarget", **MINING),
        nothing=(ANCHORS, LABEL[:0], SCORES[:0]),
    ),
    "multibox_detection": Tiny(
        *(cvops.multibox_detection, (SCORES, OFFSETS, ANCHORS)),
        nothing=(SCORES[:0], OFFSETS[:0], ANCHORS),
        mxnet=contrib("MultiBoxDetection"),
    ),
    "multiclass_nms": Tiny(
        *(cvops.multiclass_nms, (ANCHORS, SCORES)), nothing=(ANCHORS[:0], SCORES[:0])
    ),
    "roi_pooling": Tiny(
        *(cvops.roi_pooling, (MAPS, ROIS), ((2, 2), 1.0)),
        nothing=(MAPS, ROIS[:0]),
        empty_args=((2, 2), 1.0),
        mxnet=lambda mx, *arrays: partial(mx.nd.ROIPooling, *arrays, (2, 2), 1.0),
        torchvision=lambda tv, *arrays: partial(tv.ops.roi_pool, *arrays, (2, 2), 1.0),
    ),
    "roi_pooling_backward": Tiny(
        *(cvops.roi_pooling_backward, (BINS, CELLS), (MAPS.shape,)),
        nothing=(BINS[:0], CELLS[:0]),
        empty_args=((0, 1, 4, 4),),
        mxnet=backward_of_roi_pooling,
    ),
    "bilinear_upsample": Tiny(
        *(cvops.bilinear_upsample, (MAPS,), (2,)),
        nothing=(MAPS[:0],),
        empty_args=(2,),
        mxnet=deconvolution,
    ),
    "confusion_matrix": Tiny(
        *(cvops.confusion_matrix, (CLASSES, CLASSES), (3,)),
        nothing=(CLASSES[:0], CLASSES[:0]),
        mxnet=bincount,
        empty_args=(3,),
    ),
    "label_from_color": Tiny(
        *(cvops.label_from_color, (COLORS, COLORS[0])), nothing=(COLORS[:0], COLORS[0])
    ),
}
of_each = pytest.mark.parametrize("name", CASES)


@of_each
def bench_overhead(race, name):
    race(job(name))


@lru_cache(maxsize=1)
def job(name):
    tiny = CASES[name]
    op, _, options = name.partition(", ")

    def mxnet(mx, array):
        return tiny.mxnet(mx, *(array(x, dtype=x.dtype) for x in tiny.arrays))

    def torchvision(tv, tensor):
        return tiny.torchvision(tv, *map(tensor, tiny.arrays))

    peers = dict(mxnet=tiny.mxnet and mxnet, torchvision=tiny.torchvision and torchvision)
    return Job(
        op,
        f"a few elements{', ' + options if options else ''}",
        lambda *arrays, backend: tiny.op(*arrays, *tiny.args, **tiny.options, backend=backend),
        tiny.arrays,
        work=(1, "calls"),
        written=0,
        peers={library: Peer(prepare, close) for library, prepare in peers.items() if prepare},
    )


def close(ours, theirs):
    for x, y in zip(ours, theirs):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)


# --- the layers -----------------------------------------------------------------------------------


def quickest(
    call: Callable[..., Any], *args: Any, calls: int = 50, between: Callable[[], Any] = int
) -> float:
    """Return the microseconds of a call, in the fastest round; call ``between`` before each."""
    best = float("inf")
    for _ in range(200):
        between()
        start = time.perf_counter()
        for _ in range(calls):
            call(*args)
        best = min(best, time.perf_counter() - start)
    return best / calls * 1e6


class Steps:
    """The steps of a call on the CPU, each as a function and its arguments."""

    def __init__(self, tiny: Tiny, inputs: tuple[np.ndarray, ...], args: tuple[Any, ...]):
        self.bindings: list[tuple[Any, ...]] = []
        self.memory: list[tuple[Any, ...]] = []
        self.implementation: tuple[Any, ...] = ()
        library = arrays.library_of(inputs[0])
        executor = BACKENDS["cpu", "native"].executor(library, arrays.CPU)
        before = dict(vars(executor))

        def recorded(steps, function):
            return lambda *args: steps.append((function, *args)) or function(*args)

        class Ops:
            def __getattr__(_, name):
                return recorded(self.bindings, getattr(before["ops"], name))

        def run(implementation, types, inputs, options):
            self.implementation = implementation, executor, *inputs, *options
            return type(executor).run(executor, implementation, types, inputs, options)

        executor.ops, executor.run = Ops(), run
        executor.empty = recorded(self.memory, before["empty"])
        executor.empty_all = recorded(self.memory, before["empty_all"])
        _op.clear_caches()  # a signature keeps the executor's method
        try:
            tiny.op(*inputs, *args, **tiny.options)
        finally:
            vars(executor).clear()
            vars(executor).update(before)
            _op.clear_caches()


def layers(tiny: Tiny) -> dict[str, float]:
    steps = Steps(tiny, tiny.arrays, tiny.args)
    nothing = Steps(tiny, tiny.nothing, tiny.empty_args) if tiny.nothing else None
    library = arrays.library_of(tiny.arrays[0])
    native = sum(quickest(*step) for step in steps.bindings)
    binding = sum(quickest(*step) for step in nothing.bindings) if nothing else native
    memory = sum(quickest(*step) for step in steps.memory)
    adapter = memory + len(steps.memory) * quickest(library.from_numpy, tiny.arrays[0])
    for x in tiny.arrays:
        adapter += sum(
            quickest(f, x) for f in (arrays.library_of, library.describe, library.to_numpy)
        )
    implementation = quickest(*steps.implementation)
    whole = quickest(partial(tiny.op, *tiny.arrays, *tiny.args, **tiny.options))
    return {
        "adapter": adapter,
        "contract": whole - adapter - (implementation - memory),
        "dispatch": implementation - memory - native,
        "binding": binding,
        "core": native - binding,
        "NumPy": whole,
    }


def makers() -> dict[str, Callable[[np.ndarray], Any]]:
    """The functions that make arrays of the other installed libraries."""
    found: dict[str, Callable[[np.ndarray], Any]] = {}
    try:
        import torch

        found["PyTorch"] = torch.from_numpy
    except ImportError:
        pass
    try:
        from cvops._mxnet import mxnet

        mx = mxnet()
        found["MXNet"] = lambda x: mx.nd.array(x, dtype=x.dtype)
    except ImportError:
        pass
    return found


@pytest.fixture(scope="module")
def appendix(tables):
    return tables("Layers of a call")


@of_each
def bench_layers(request, appendix, name):
    if BACKENDS["cpu", "native"].missing() is not None:
        pytest.skip("needs the compiled extension")
    if request.config.option.benchmark_disable:
        pytest.skip("times")
    tiny = CASES[name]
    row = layers(tiny)
    for library, make in makers().items():
        arrays = tuple(map(make, tiny.arrays))
        row[library] = quickest(partial(tiny.op, *arrays, *tiny.args, **tiny.options))
    if not appendix:
        appendix.append(["op", *(f"{layer}, us" for layer in row)])
    appendix.append([name, *(f"{x:.2f}" for x in row.values())])


# --- a GPU's host ---------------------------------------------------------------------------------


def gpu_libraries() -> dict[str, tuple[Callable[[np.ndarray], Any], Callable[[], Any]]]:
    """The functions that make arrays on a GPU, and that wait for it, by library."""
    found: dict[str, tuple[Callable[[np.ndarray], Any], Callable[[], Any]]] = {}
    if BACKENDS["cuda", "cupy"].missing() is None:
        import cupy

        found["CuPy"] = cupy.asarray, cupy.cuda.runtime.deviceSynchronize
    try:
        import torch

        if torch.cuda.is_available():
            found["PyTorch"] = lambda x: torch.from_numpy(x).cuda(), torch.cuda.synchronize
    except ImportError:
        pass
    return found


@pytest.fixture(scope="module")
def host_appendix(tables):
    return tables("Host time of a call on a GPU, arrays and backend")


@of_each
def bench_host(request, host_appendix, name):
    if request.config.option.benchmark_disable:
        pytest.skip("times")
    tiny = CASES[name]
    backends = [b for b in ("cupy", "native") if BACKENDS["cuda", b].missing() is None]
    row = {}
    for library, (make, wait) in gpu_libraries().items():
        arrays = tuple(map(make, tiny.arrays))
        for backend in backends:
            call = partial(tiny.op, *arrays, *tiny.args, **tiny.options, backend=backend)
            call()
            # A round this short never fills the queue of launches.
            row[f"{library}, {backend}"] = quickest(call, calls=10, between=wait)
    if not row:
        pytest.skip("needs a GPU")
    if not host_appendix:
        host_appendix.append(["op", *(f"{column}, us" for column in row)])
    host_appendix.append([name, *(f"{x:.2f}" for x in row.values())])

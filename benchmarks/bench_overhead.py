"""Call overhead: every op on arrays of a few elements.

``bench_overhead`` times each op and the operators of MXNet and torchvision, with a wait for the
result. ``bench_layers`` makes a table of the layers of a call (``tools/layers.py``), and of the
times for arrays of other libraries. ``bench_gpu_host`` times calls on a GPU until they return, with
their kernels queued. ``host.py`` does the same without a GPU and without the time of the driver.
The times of both tables are those of the fastest of many rounds.
"""

from __future__ import annotations

from functools import lru_cache, partial
from typing import Any, Callable

import numpy as np
import pytest
from tools.jobs import Job, Peer
from tools.layers import layers
from tools.small_calls import CASES, quickest

from cvops.backends.registry import BACKENDS

all_cases = pytest.mark.parametrize("name", CASES)


@all_cases
def bench_overhead(time_job, name):
    time_job(job(name))


@lru_cache(maxsize=1)
def job(name):
    small = CASES[name]
    op, _, options = name.partition(", ")

    def mxnet(mx, array):
        return small.mxnet(mx, *(array(x, dtype=x.dtype) for x in small.arrays))

    def torchvision(tv, tensor):
        return small.torchvision(tv, *map(tensor, small.arrays))

    peers = dict(mxnet=small.mxnet and mxnet, torchvision=small.torchvision and torchvision)
    return Job(
        op,
        f"a few elements{', ' + options if options else ''}",
        lambda *arrays, backend: small.op(*arrays, *small.args, **small.options, backend=backend),
        small.arrays,
        work=(1, "calls"),
        written=0,
        peers={
            library: Peer(prepare, check_close) for library, prepare in peers.items() if prepare
        },
    )


def check_close(ours, theirs):
    for x, y in zip(ours, theirs):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)


def add_row(lines: list[list[str]], name: str, times: dict[str, float]) -> None:
    """Add the microseconds of a case to a table, whose first row is the head."""
    if not lines:
        lines.append(["op", *(f"{column}, us" for column in times)])
    lines.append([name, *(f"{x:.2f}" for x in times.values())])


# --- layers ---------------------------------------------------------------------------------------


def array_functions() -> dict[str, Callable[[np.ndarray], Any]]:
    """Return the functions that make arrays of the other installed libraries, by library."""
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
def layers_table(tables):
    return tables("Layers of a call")


@all_cases
def bench_layers(request, layers_table, name):
    if BACKENDS["cpu", "native"].missing() is not None:
        pytest.skip("needs the compiled extension")
    if request.config.option.benchmark_disable:
        pytest.skip("only measures times")
    small = CASES[name]
    times = layers(small)
    for library, make in array_functions().items():
        arrays = tuple(map(make, small.arrays))
        times[library] = quickest(partial(small.op, *arrays, *small.args, **small.options))
    add_row(layers_table, name, times)


# --- host time on a GPU ---------------------------------------------------------------------------


def gpu_libraries() -> dict[str, tuple[Callable[[np.ndarray], Any], Callable[[], Any]]]:
    """Return functions that make arrays on a GPU, and that wait for the GPU, by library."""
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
def host_table(tables):
    return tables("Host time of a call on a GPU, arrays and backend")


@all_cases
def bench_gpu_host(request, host_table, name):
    if request.config.option.benchmark_disable:
        pytest.skip("only measures times")
    small = CASES[name]
    backends = [b for b in ("cupy", "native") if BACKENDS["cuda", b].missing() is None]
    times = {}
    for library, (make, wait) in gpu_libraries().items():
        arrays = tuple(map(make, small.arrays))
        for backend in backends:
            call = partial(small.op, *arrays, *small.args, **small.options, backend=backend)
            call()
            # A round this short never fills the queue of launches.
            times[f"{library}, {backend}"] = quickest(call, calls=10, between=wait)
    if not times:
        pytest.skip("needs a GPU")
    add_row(host_table, name, times)

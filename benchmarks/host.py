"""What the host does for a call on a GPU: ``python benchmarks/host.py [op ...]``, without a GPU.

The ops of bench_overhead on CuPy arrays, by CuPy's backend and by the extension, whose GPU half is
compiled by g++ as the tests do; and on PyTorch's tensors, where it is installed: tensors of the CPU
that are taken for a GPU's, so that its allocator is not the one for GPUs. CuPy is the real one, but
CUDA's functions are ours, which return at once: what is left is Python's, the library's and our
share of a call, of which the quickest of many rounds counts. A launch takes the driver itself some
2 us more.
"""

from __future__ import annotations

import ctypes
import re
import sys
import tempfile
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Callable

import numpy as np

HERE = Path(__file__).parent
PASSES = 20
sys.path += [str(HERE), str(HERE.parent), str(HERE.parent / "tests")]

CUDA = """\
#include <cstddef>
extern "C" {
long launches = 0;
static thread_local int current = 0;
static char* next = reinterpret_cast<char*>(1ull << 40);
int cudaGetDeviceCount(int* count) { return *count = 1, 0; }
int cudaGetDevice(int* device) { return *device = current, 0; }
int cudaSetDevice(int device) { return current = device, 0; }
int cudaDeviceGetAttribute(int* value, int which, int) {  // those of an H200
  return *value = which == 75 ? 9 : which == 16 ? 132 : which == 97 ? 232448 : 0, 0;
}
int cudaMemGetInfo(size_t* free, size_t* all) { return *free = *all = 1ull << 36, 0; }
int cudaMalloc(void** to, size_t size) { return *to = next, next += (size / 512 + 1) * 512, 0; }
int cudaFree(void*) { return 0; }
int cudaMemcpyAsync(void*, const void*, size_t, int, void*) { return 0; }
int cudaMemsetAsync(void*, int, size_t, void*) { return 0; }
int cudaStreamSynchronize(void*) { return 0; }
int cuCtxGetCurrent(void** context) { return *context = next, 0; }
int cuModuleLoad(void** module, const char*) { return *module = next, 0; }
int cuModuleGetFunction(void** function, void*, const char*) { return *function = next, 0; }
int cuFuncSetAttribute(void*, int, int) { return 0; }
int cuLaunchKernel(void*, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned,
                   void*, void**, void**) { return ++launches, 0; }
}
"""

#: In the place of the emulator's launches.
LAUNCH = """\
#include "runtime.h"
extern "C" int cuLaunchKernel(void*, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned,
                              unsigned, void*, void**, void**);
extern "C" const char* cudaGetErrorString(cudaError_t) { return "an error"; }
cudaError_t emulator::launch(const cudaLaunchConfig_t&, const void*, const std::function<void()>&,
                             std::initializer_list<const void*>) {
  cuLaunchKernel(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
  return cudaSuccess;
}
cudaError_t emulator::allow_dynamic_shared(const void*, int) { return cudaSuccess; }
"""


def idle_cuda() -> ctypes.CDLL:
    """What this process has in the place of CUDA from now on."""
    from emulator.build import run_compiler
    from emulator.driver import interpose

    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(folder, "cuda.cpp"), Path(folder, "cuda.so")
        source.write_text(CUDA)
        run_compiler("-O2", "-fPIC", "-shared", source, "-o", library)
        idle = ctypes.CDLL(str(library))
    functions = {name: idle[name] for name in re.findall(r"int (cu\w+)\(", CUDA)}
    interpose.replace_in_cupy(interpose.load_library(functions), functions)
    return idle


def idle_extension() -> Any:
    """The extension with its half for GPUs, upon those functions."""
    from emulator.extension import build_extension

    from cvops.backends import nvrtc

    with tempfile.TemporaryDirectory() as folder:
        launch = Path(folder, "launch.cpp")
        launch.write_text(LAUNCH)
        bindings = HERE.parent / "bindings"
        return build_extension(bindings, nvrtc.KERNELS, "_native_idle", launch=launch)


def on_tensors() -> Callable[[np.ndarray], Any] | None:
    """Take PyTorch's tensors for a GPU's from now on; what makes one."""
    try:
        import torch
    except ImportError:
        return None
    from cvops import arrays

    arrays.CPU = arrays.Device("cuda", 0)
    arrays._torch_gpu = lru_cache(None)(lambda number: torch.device("cpu"))
    arrays._torch_stream = lru_cache(None)(lambda: int)
    return lambda x: torch.empty(x.shape, dtype=getattr(torch, x.dtype.name))


def main() -> None:
    launches = ctypes.c_long.in_dll(idle_cuda(), "launches")
    import cupy
    from bench_overhead import CASES, quickest

    from cvops.backends import extension, nvrtc

    nvrtc.cubin_file = lambda name, arch: Path(name)  # type: ignore[assignment]
    extension = idle_extension()
    extension.native = lambda: extension  # type: ignore[assignment]
    tensor = on_tensors()
    columns: dict[str, tuple[Callable[[np.ndarray], Any], str]] = {
        "CuPy, cupy": (lambda x: cupy.empty(x.shape, x.dtype), "cupy"),
        "CuPy, native": (lambda x: cupy.empty(x.shape, x.dtype), "native"),
    }
    if tensor is not None:
        columns["PyTorch, native"] = tensor, "native"
    calls: dict[str, list[Callable[[], Any]]] = {}
    for name, tiny in CASES.items():
        if len(sys.argv) == 1 or name.partition(",")[0] in sys.argv:
            calls[name] = [
                partial(tiny.op, *map(make, tiny.arrays), *tiny.args, **tiny.options, backend=way)
                for make, way in columns.values()
            ]
    counts = {}
    for name, row in calls.items():
        for call in row:
            call()
            before = launches.value
            call()
            counts[name] = launches.value - before
    times = {name: [float("inf")] * len(columns) for name in calls}
    for _ in range(PASSES):  # rather than longer at a time: others may have the machine for a while
        for name, row in calls.items():
            times[name] = [min(best, quickest(f, calls=10)) for best, f in zip(times[name], row)]
    print(f"{'us a call':26}{'launches':>10}" + "".join(f"{column:>17}" for column in columns))
    for name, row in times.items():
        print(f"{name:26}{counts[name]:10}" + "".join(f"{time:17.1f}" for time in row))


if __name__ == "__main__":
    main()

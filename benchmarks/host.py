"""Measures the host time of calls on a GPU: ``python benchmarks/host.py [op ...]``, without a GPU.

The calls are those of bench_overhead: on CuPy arrays by both backends, and on PyTorch tensors if
PyTorch is installed. CuPy is the real one, but the functions of CUDA are stand-ins that return at
once. The PyTorch tensors are CPU tensors, so their allocator is not the one for GPUs. The time is
the shortest of many rounds. A real launch takes about 2 us more in the driver. "New shapes" are
calls that neither the checks of the arrays nor those of the options have seen.
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
sys.path += [str(HERE.parent), str(HERE.parent / "tests")]

CUDA = """\
#include <cstddef>
extern "C" {
long launches = 0;
static thread_local int current = 0;
static char* const first = reinterpret_cast<char*>(1ull << 40);
static char* next = first;
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
int cudaStreamSynchronize(void*) { return 0; }
int cuInit(unsigned) { return 0; }
int cuDriverGetVersion(int* version) { return *version = 13000, 0; }
int cuGetExportTable(const void**, const void*) { return 500; }
int cuGetErrorString(int, const char** text) { return *text = "an error", 0; }
int cuDeviceGetCount(int* count) { return *count = 1, 0; }
int cuDeviceGetAttribute(int* value, int which, int device) {
  return cudaDeviceGetAttribute(value, which, device);
}
int cuDevicePrimaryCtxRetain(void** context, int) { return *context = first, 0; }
int cuCtxGetCurrent(void** context) { return *context = first, 0; }
int cuCtxSetCurrent(void*) { return 0; }
int cuMemcpyDtoDAsync_v2(unsigned long long, unsigned long long, size_t, void*) { return 0; }
int cuMemsetD8Async(unsigned long long, unsigned char, size_t, void*) { return 0; }
int cuStreamSynchronize(void*) { return 0; }
int cuModuleLoad(void** module, const char*) { return *module = next, 0; }
int cuModuleGetFunction(void** function, void*, const char*) { return *function = next, 0; }
int cuFuncGetAttribute(int* value, int which, void*) { return *value = which == 5 ? 90 : 0, 0; }
int cuFuncSetAttribute(void*, int, int) { return 0; }
int cuLaunchKernel(void*, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned,
                   void*, void**, void**) { return ++launches, 0; }
int cuLaunchKernelEx(const void*, void*, void**, void**) { return ++launches, 0; }
}
"""


def idle_cuda() -> ctypes.CDLL:
    """Replace the functions of CUDA in this process; return the library with the stand-ins."""
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


def on_tensors() -> Callable[[np.ndarray], Any] | None:
    """Treat PyTorch's CPU tensors as GPU tensors from now on; return a function that makes one."""
    try:
        import torch
    except ImportError:
        return None
    from cvops.arrays import torch as tensors

    tensors.CPU = tensors.Device("cuda", 0)
    tensors.Torch.cpu_flag = None  # the checks of tensors on a GPU
    tensors._gpu = lru_cache(None)(lambda number: torch.device("cpu"))
    tensors._current_stream = lru_cache(None)(lambda: int)
    return lambda x: torch.empty(x.shape, dtype=getattr(torch, x.dtype.name))


def main() -> None:
    launches = ctypes.c_long.in_dll(idle_cuda(), "launches")
    import cupy
    from tools.small_calls import CASES, forget_checks, quickest

    from cvops.backends import extension, nvrtc

    nvrtc.cubin_file = lambda name, arch: Path(name)  # type: ignore[assignment]
    files = tuple(Path(f"{name}.fatbin") for name in nvrtc.sources())
    extension.machine_code = lambda: files  # type: ignore[assignment]
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

    def seen(call: Callable[[], Any]) -> float:
        return quickest(call, calls=10)

    def unseen(call: Callable[[], Any]) -> float:
        return quickest(call, calls=1, between=forget_checks)

    ways = seen, unseen
    times = {name: [float("inf")] * (2 * len(columns)) for name in calls}
    for _ in range(PASSES):  # many short passes: another process can use the machine for a while
        for name, row in calls.items():
            now = [way(call) for call in row for way in ways]
            times[name] = list(map(min, times[name], now))
    heads = [head for column in columns for head in (column, "new shapes")]
    print(f"{'us a call':26}{'launches':>10}" + "".join(f"{head:>17}" for head in heads))
    for name, found in times.items():
        print(f"{name:26}{counts[name]:10}" + "".join(f"{time:17.1f}" for time in found))


if __name__ == "__main__":
    main()

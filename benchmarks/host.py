"""What the host does for a call on a GPU: ``python benchmarks/host.py``, with CuPy and no GPU.

The ops of bench_overhead on CuPy arrays, by CuPy's backend. CuPy is the real one, but CUDA's
functions are ours, which return at once: what is left is Python's and CuPy's share of a call, of
which the quickest of many rounds counts. A launch takes the driver itself some 2 us more.
"""

from __future__ import annotations

import ctypes
import re
import sys
import tempfile
from functools import partial
from pathlib import Path

HERE = Path(__file__).parent
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
int cudaStreamSynchronize(void*) { return 0; }
int cuModuleLoad(void** module, const char*) { return *module = next, 0; }
int cuModuleGetFunction(void** function, void*, const char*) { return *function = next, 0; }
int cuFuncSetAttribute(void*, int, int) { return 0; }
int cuLaunchKernel(void*, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned,
                   void*, void**, void**) { return ++launches, 0; }
}
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


def main() -> None:
    launches = ctypes.c_long.in_dll(idle_cuda(), "launches")
    import cupy
    from bench_overhead import CASES, quickest

    from cvops import _kernels

    _kernels.cubin_file = lambda name, arch: Path(name)  # type: ignore[assignment]
    print(f"{'op':28}{'launches':>10}{'us a call':>12}")
    for name, tiny in CASES.items():
        arrays = [cupy.empty(x.shape, x.dtype) for x in tiny.arrays]
        call = partial(tiny.op, *arrays, *tiny.args, **tiny.options, backend="cupy")
        call()
        before = launches.value
        call()
        print(f"{name:28}{launches.value - before:10}{quickest(call, calls=10):12.1f}", flush=True)


if __name__ == "__main__":
    main()

"""Launches of CUDA kernels on a CPU, with NumPy arrays."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import sanitized
from .arena import Arena
from .build import (
    ALIGNMENT,
    FLAGS,
    SANITIZERS,
    EmulatorError,
    cached,
    emulator_objects,
    run_compiler,
    without_include_folders,
)
from .request import ADDRESS, VALUE, Request, dim3, to_arguments

__all__ = ["EmulatorError", "Module", "pointer_parameters"]

_BOUNDS = r"(?:__launch_bounds__\s*\(((?:[^()]|\([^()]*\))*)\)\s*)?"
_KERNEL = re.compile(rf'extern\s+"C"\s+__global__\s+{_BOUNDS}void\s+{_BOUNDS}(\w+)\s*\(')
_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)

_UNIT = """\
#include "cuda_emulator.h"
#include "packed.h"
#line 1 "{name}"
{source}
#line 1 "kernels of {name}"
static const emulator::Kernel kernels[] = {{
{rows}
}};
int cvops_emulator_launch(const emulator::Request* request, char* message, size_t capacity) {{
  return emulator::launch(kernels, *request, message, capacity);
}}
"""


class _Request(ctypes.Structure):
    """The ``struct Request`` of request.h."""

    _fields_ = (
        ("kernel", ctypes.c_char_p),
        ("grid", ctypes.c_uint32 * 3),
        ("block", ctypes.c_uint32 * 3),
        ("shared", ctypes.c_uint64),
        ("seed", ctypes.c_uint64),
        ("os_threads", ctypes.c_uint32),
        ("count", ctypes.c_uint32),
        ("args", ctypes.POINTER(ctypes.c_void_p)),
        ("sizes", ctypes.POINTER(ctypes.c_uint64)),
        ("kinds", ctypes.POINTER(ctypes.c_uint8)),
    )


def pointer_parameters(source: str, kernel: str) -> tuple[int, ...]:
    """Return the indices of a kernel's parameters that are pointers."""
    text = _COMMENT.sub(" ", source)
    end = next(x.end() for x in _KERNEL.finditer(text) if x[3] == kernel)
    parameters = text[end : text.index(")", end)].split(",")
    return tuple(i for i, parameter in enumerate(parameters) if "*" in parameter)


class Module:
    """The kernels of one source text, compiled for the CPU.

    source: CUDA C++ without ``#include``. Its kernels are ``extern "C" __global__ void``,
    outside of namespaces and macros.

    name: the name in compiler messages and in the cache.

    sanitizer: None, "address" (which also finds undefined behavior) or "thread". A
    sanitized module runs each launch in a new process; addresses must be in an
    :class:`Arena`. A module without a sanitizer finds misaligned addresses.

    The attribute ``os_threads`` is the number of OS threads that share the blocks of a
    launch. The default 0 means one for each core.
    """

    def __init__(self, source: str, name: str, sanitizer: str | None = None) -> None:
        if sanitizer not in SANITIZERS:
            raise ValueError(f"sanitizer: expected None, 'address' or 'thread', got {sanitizer!r}")
        found = _KERNEL.findall(_COMMENT.sub(" ", source))
        if not found:
            raise ValueError(f'{name}: expected an extern "C" __global__ void function, got none')
        self.name = name
        self.kernels = tuple(kernel for _, _, kernel in found)
        self.sanitizer = sanitizer
        self.os_threads = 0
        rows = []
        for before, after, kernel in found:
            # The arguments of __launch_bounds__ become further arguments.
            bounds = ", ".join(filter(None, (f'"{kernel}"', before, after)))
            rows.append(f"    emulator::kernel_row<&{kernel}>({bounds}),")
        unit = _UNIT.format(name=name, source=source, rows="\n".join(rows))
        self._file = _build(unit, re.sub(r"\W", "_", name), sanitizer)
        # A function of a CDLL releases the GIL.
        self._library = None if sanitizer else ctypes.CDLL(str(self._file))

    def launch(
        self,
        kernel: str,
        grid: Sequence[int],
        block: Sequence[int],
        args: Sequence[Any],
        shared: int = 0,
        seed: int = 0,
        arena: Arena | None = None,
    ) -> None:
        """Run a kernel to its end. Several Python threads may do so concurrently.

        args: a C-contiguous NumPy array is passed as a pointer, a NumPy scalar by value. A
        struct by value is a structured scalar, or a structured array of one element.
        ``np.uintp`` is an address.

        shared: bytes of dynamic shared memory.

        seed: the order of warps and lanes: 0 is forward, 1 backward, any other shuffled. A
        correct kernel gives the same result for each seed.

        arena: the memory of the addresses, for a sanitized module.

        Raises EmulatorError if the launch is refused or the kernel breaks a rule of CUDA.
        """
        request = Request(
            kernel, dim3(grid), dim3(block), to_arguments(kernel, args), int(shared), int(seed)
        )
        try:
            if self._library is None:
                sanitized.launch(self._file, request, arena)
            else:
                _launch(self._library, request, self.os_threads)
        except EmulatorError as error:
            raise EmulatorError(f"{self.name}: {request}: {error}") from None


def _launch(library: ctypes.CDLL, request: Request, os_threads: int) -> None:
    arrays = [arg.array for arg in request.args]
    count = len(arrays)
    # An argument is passed by its address: a value is in its array, a pointer in this list.
    pointers = (ctypes.c_void_p * count)(*(array.ctypes.data for array in arrays))
    args = (ctypes.c_void_p * count)()
    for i, arg in enumerate(request.args):
        is_value = arg.kind in (VALUE, ADDRESS)
        args[i] = pointers[i] if is_value else ctypes.addressof(pointers) + 8 * i
    packed = _Request(
        kernel=request.kernel.encode(),
        grid=request.grid,
        block=request.block,
        shared=request.shared,
        seed=request.seed,
        os_threads=os_threads,
        count=count,
        args=args,
        sizes=(ctypes.c_uint64 * count)(*(array.nbytes for array in arrays)),
        kinds=(ctypes.c_uint8 * count)(*(arg.kind for arg in request.args)),
    )
    message = ctypes.create_string_buffer(1024)
    if library.cvops_emulator_launch(ctypes.byref(packed), message, ctypes.c_size_t(len(message))):
        raise EmulatorError(message.value.decode())


def _build(unit: str, name: str, sanitizer: str | None) -> Path:
    """Return the shared library of a translation unit, or the program with a sanitizer."""
    flags = [*FLAGS, *SANITIZERS[sanitizer]]
    sources = ["block", "grid", "shared_memory", "runner" if sanitizer else "alignment"]
    objects = emulator_objects(sources, sanitizer)
    output = "-pie" if sanitizer else "-shared"
    checks = () if sanitizer else ALIGNMENT

    def make(path: Path) -> None:
        source, kernels = path.with_suffix(".cpp"), path.with_suffix(".o")
        source.write_text(unit, "utf-8")
        run_compiler(*flags, *checks, "-c", source, "-o", kernels)
        run_compiler(*flags, output, kernels, *objects, "-o", path)

    key = [unit, *without_include_folders([*flags, *checks]), *(path.name for path in objects)]
    return cached(name, ".run" if sanitizer else ".so", key, make)

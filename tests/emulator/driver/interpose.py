"""Replaces functions of CUDA in this process.

CuPy finds the driver by its name, ``libcuda.so.1``. The CUDA runtime is linked into a module of
CuPy: in memory, a replaced function begins with a jump to the new function. No file changes.
"""

from __future__ import annotations

import atexit
import ctypes
import importlib.util
import mmap
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from emulator.build import cached, run_compiler

from . import elf

#: The instruction jmp *(%rip); the address follows it.
_JUMP = b"\xff\x25\0\0\0\0"
#: A library whose functions jump to the addresses in a table, which is filled at run time.
_LIBRARY = """\
extern "C" {{
void* cuda_table[{count}];
int cuda_after_exit() {{ return 0; }}
int* cuda_thread() {{
  static thread_local int numbers[2];
  return numbers;
}}
{functions}
}}
"""
_FUNCTION = (
    'asm(".text\\n.globl {name}\\n.type {name}, @function\\n{name}: jmp *cuda_table + {at}(%rip)");'
)


def load_library(functions: Mapping[str, Any]) -> ctypes.CDLL:
    """Load a ``libcuda.so.1`` with ctypes functions into this process.

    Libraries that are loaded later also find the functions.
    """
    lines = [_FUNCTION.format(name=name, at=8 * i) for i, name in enumerate(functions)]
    text = _LIBRARY.format(count=len(functions), functions="\n".join(lines))

    def make(path: Path) -> None:
        source = path.with_suffix(".cpp")
        source.write_text(text, "utf-8")
        run_compiler("-shared", "-fPIC", "-Wl,-soname,libcuda.so.1,-Bsymbolic", source, "-o", path)

    library = ctypes.CDLL(str(cached("libcuda", ".so", [text], make)), ctypes.RTLD_GLOBAL)
    table = (ctypes.c_void_p * len(functions)).in_dll(library, "cuda_table")
    table[:] = [_address(function) for function in functions.values()]
    # CuPy frees memory after the end of Python, when ctypes functions cannot run.
    after_exit = [_address(library.cuda_after_exit)] * len(functions)
    atexit.register(table.__setitem__, slice(None), after_exit)
    return library


def _address(function: Any) -> int:
    return ctypes.cast(function, ctypes.c_void_p).value or 0


def replace_in_cupy(library: ctypes.CDLL, names: Iterable[str]) -> None:
    """Replace functions of the CUDA runtime in CuPy by those of ``library``.

    The other functions return an error, because they do not find NVIDIA's driver.
    """
    package = importlib.util.find_spec("cupy_backends")
    assert package is not None
    for folder in package.submodule_search_locations or ():
        for file in Path(folder, "cuda", "api").glob("runtime.*.so"):
            _replace(file, {name: _address(library[name]) for name in names})


def _replace(file: Path, addresses: Mapping[str, int]) -> None:
    ctypes.CDLL(str(file))  # a later import uses the loaded library
    base = _base(file)
    for name, at in elf.functions(file.read_bytes()).items():
        if name in addresses:
            code = _JUMP + struct.pack("<Q", addresses[name])
            _make_writable(base + at, len(code))
            ctypes.memmove(base + at, code, len(code))


def _base(file: Path) -> int:
    for line in Path("/proc/self/maps").read_text().splitlines():
        if line.endswith(str(file.resolve())):
            return int(line.partition("-")[0], 16)
    raise RuntimeError(f"{file} is not loaded")


def _make_writable(start: int, size: int) -> None:
    first = start // mmap.PAGESIZE * mmap.PAGESIZE
    length = start + size - first
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mprotect(ctypes.c_void_p(first), ctypes.c_size_t(length), 7):  # read, write, execute
        raise OSError(ctypes.get_errno(), "mprotect")

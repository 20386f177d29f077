"""CUDA sources: their text, their compilation with NVRTC, and their load through CuPy."""

from __future__ import annotations

import functools
import re
import threading
from pathlib import Path
from typing import Any

from cvops._imports import load_nvrtc
from cvops.backends import cache, extension

_PACKAGE = Path(__file__).parents[1]
#: Installed as package data; in a checkout it is the folder next to the package.
KERNELS = next(d for d in (_PACKAGE / "kernels", _PACKAGE.parent / "kernels") if d.is_dir())
#: Each operation is rounded, and denormals are kept, as in CMakeLists.txt for nvcc: the GPU returns
#: the bits of the CPU.
FLAGS = ("-std=c++17", "-fmad=false", "-ftz=false", "-prec-div=true", "-prec-sqrt=true")
#: NVRTC of CUDA 12 else refuses a generic lambda as a function of the host.
OPTIONS = (*FLAGS, "-default-device")

_KERNEL = re.compile(r'extern "C" __global__ void\s+(?:__launch_bounds__\([^)]*\)\s+)?(\w+)\(')


@functools.lru_cache(None)
def source(name: str) -> str:
    """Return the text of ``kernels/<name>.cuh`` with its headers inserted.

    NVRTC then needs no include path, and a new text of a header changes the key in the cache.
    ``#line`` gives the true file in errors.
    """
    seen: set[str] = set()

    def expand(file: str) -> str:
        if file in seen:
            return ""
        seen.add(file)
        lines = [f'#line 1 "{file}"']
        for number, line in enumerate((KERNELS / file).read_text("utf-8").splitlines(), 1):
            include = re.match(r'#include "(.+)"', line)
            if include:
                lines += [expand(include[1]), f'#line {number + 1} "{file}"']
            else:
                lines.append(line.replace("#pragma once", ""))
        return "\n".join(lines) + "\n"

    return expand(f"{name}.cuh")


@functools.lru_cache(None)
def kernels(name: str) -> tuple[str, ...]:
    """List the kernels of ``kernels/<name>.cuh``, without those of its headers."""
    text = (KERNELS / f"{name}.cuh").read_text("utf-8")
    return tuple(_KERNEL.findall(re.sub(r"//.*", "", text)))


@functools.lru_cache(None)
def sources() -> tuple[str, ...]:
    """List the names of the files in ``kernels/`` that have kernels."""
    return tuple(sorted(file.stem for file in KERNELS.glob("*.cuh") if kernels(file.stem)))


@functools.lru_cache(None)
def source_of(kernel: str) -> str:
    """Return the name of the file of a kernel."""
    return next(name for name in sources() if kernel in kernels(name))


def compile_cubin(
    nvrtc: Any, name: str, arch: int, extra: tuple[str, ...] = ()
) -> tuple[bytes, str]:
    """Compile ``kernels/<name>.cuh`` for ``arch`` (90 for sm_90) into machine code and a log.

    ``nvrtc`` is ``cupy.cuda.nvrtc``. ``cupy.RawModule`` cannot compile the kernels, since it adds
    ``-ftz=true``, which makes denormals zero on the GPU only.
    """
    program = nvrtc.createProgram(source(name), f"{name}.cuh", (), ())
    try:
        nvrtc.compileProgram(program, (*OPTIONS, f"-arch=sm_{arch}", *extra))
        # CuPy strips the last byte as the end of a text; it is the last zero of the ELF headers.
        return nvrtc.getCUBIN(program) + b"\0", nvrtc.getProgramLog(program)
    except nvrtc.NVRTCError as error:
        log = nvrtc.getProgramLog(program)
        raise RuntimeError(f"{name}.cuh does not compile for sm_{arch}: {error}\n{log}") from error
    finally:
        nvrtc.destroyProgram(program)


def architectures() -> list[int]:
    """List the architectures of the GPUs of this machine: 90 for sm_90."""
    native = extension.native()
    major, minor = 75, 76  # CUdevice_attribute
    return sorted(
        {
            10 * native.device_attribute(device, major) + native.device_attribute(device, minor)
            for device in range(native.device_count())
        }
    )


def cubin_file(name: str, arch: int) -> Path:
    """Return the file of compiled kernels in the cache; compile it if it is missing."""
    nvrtc = load_nvrtc()
    key = source(name), str(OPTIONS), str(arch), str(nvrtc.getVersion())
    entry = cache.Entry(f"{name}-sm{arch}", key, ".cubin")
    file = entry.find()
    if file is not None:
        return file
    cubin, _ = compile_cubin(nvrtc, name, arch)
    with entry.workplace() as folder:
        made = folder / "cubin"
        made.write_bytes(cubin)
        return entry.add(made)


#: The modules that CuPy has loaded, and their kernels.
_loaded: dict[str, Any] = {}
_loading = threading.Lock()


def load(kernel: str, device: int) -> int:
    """Return the driver's handle of a kernel for ``device``, which is the current device."""
    import cupy

    arch = int(cupy.cuda.Device(device).compute_capability)
    file = str(cubin_file(source_of(kernel), arch))
    with _loading:
        module = _loaded.setdefault(file, cupy.RawModule(path=file))
        function = _loaded.setdefault(f"{file}: {kernel}", module.get_function(kernel))
        try:
            return int(function.kernel.ptr)
        except Exception as error:
            raise RuntimeError(
                f"cannot load {file}: {error}. Kernels cannot be loaded during graph capture: "
                "call the op once before capturing"
            ) from error

"""CUDA sources: reading them, compiling them with NVRTC, and loading them through CuPy."""

from __future__ import annotations

import functools
import hashlib
import re
import tempfile
import threading
from pathlib import Path
from typing import Any

from cvops._imports import load_nvrtc
from cvops.backends import cache, extension

_PACKAGE = Path(__file__).parents[1]
#: Installed as package data; in a checkout it is the folder next to the package.
KERNELS = next(d for d in (_PACKAGE / "kernels", _PACKAGE.parent / "kernels") if d.is_dir())
#: One rounding for each operation and no flushed denormals, as CMakeLists.txt tells nvcc: the GPU
#: gives the bits that the CPU gives.
FLAGS = ("-std=c++17", "-fmad=false", "-ftz=false", "-prec-div=true", "-prec-sqrt=true")

_KERNEL = re.compile(r'extern "C" __global__ void\s+(?:__launch_bounds__\([^)]*\)\s+)?(\w+)\(')


@functools.lru_cache(None)
def source(name: str) -> str:
    """The text of ``kernels/<name>.cuh`` with the headers that it includes put in place.

    NVRTC then needs no include path, and a cache of compiled kernels that is keyed by this text
    notices an edited header. ``#line`` lets errors name the true file.
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
    """The kernels of ``kernels/<name>.cuh`` itself, without those of the headers it includes."""
    text = (KERNELS / f"{name}.cuh").read_text("utf-8")
    return tuple(_KERNEL.findall(re.sub(r"//.*", "", text)))


@functools.lru_cache(None)
def sources() -> tuple[str, ...]:
    """The names of the files in ``kernels/`` that have kernels."""
    return tuple(sorted(file.stem for file in KERNELS.glob("*.cuh") if kernels(file.stem)))


@functools.lru_cache(None)
def source_of(kernel: str) -> str:
    """The name of the file that has a kernel."""
    return next(name for name in sources() if kernel in kernels(name))


def compile_cubin(
    nvrtc: Any, name: str, arch: int, extra: tuple[str, ...] = ()
) -> tuple[bytes, str]:
    """Compile ``kernels/<name>.cuh`` for ``arch`` (90 for sm_90); the machine code and the log.

    ``nvrtc`` is ``cupy.cuda.nvrtc``. This is done here and not by ``cupy.RawModule`` because CuPy
    adds ``-ftz=true``, which would make denormals zero on the GPU alone.
    """
    program = nvrtc.createProgram(source(name), f"{name}.cuh", (), ())
    try:
        nvrtc.compileProgram(program, (*FLAGS, f"-arch=sm_{arch}", *extra))
        # CuPy strips the last byte as if it ended a text; it is the last zero of the ELF's headers.
        return nvrtc.getCUBIN(program) + b"\0", nvrtc.getProgramLog(program)
    except nvrtc.NVRTCError as error:
        log = nvrtc.getProgramLog(program)
        raise RuntimeError(f"{name}.cuh does not compile for sm_{arch}: {error}\n{log}") from error
    finally:
        nvrtc.destroyProgram(program)


def architectures() -> list[int]:
    """The architectures of the GPUs of this machine: 90 for sm_90."""
    native = extension.native()
    major, minor = 75, 76  # CUdevice_attribute
    return sorted(
        {
            10 * native.device_attribute(device, major) + native.device_attribute(device, minor)
            for device in range(native.device_count())
        }
    )


def cubin_file(name: str, arch: int) -> Path:
    """The compiled kernels in the cache, compiled now if they are not there."""
    nvrtc = load_nvrtc()
    key = "\0".join((source(name), str(FLAGS), str(arch), str(nvrtc.getVersion())))
    file = cache.folder() / f"{name}-sm{arch}-{hashlib.sha256(key.encode()).hexdigest()[:24]}.cubin"
    if not cache.has(file):
        cubin, _ = compile_cubin(nvrtc, name, arch)
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            dir=file.parent, prefix=cache.TEMPORARY, delete=False
        ) as temporary:
            temporary.write(cubin)
        cache.put(Path(temporary.name), file)
    return file


#: The kernels that CuPy has loaded, which keep their modules.
_loaded: dict[str, Any] = {}
_loading = threading.Lock()


def load(kernel: str, device: int) -> int:
    """The driver's handle of a kernel for ``device``, which is the current one."""
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

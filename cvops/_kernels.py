"""CUDA sources: reading them, compiling them with NVRTC, and their launch through CuPy."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import glob
import hashlib
import os
import re
import sysconfig
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import numpy as np

from cvops._arrays import Buffer

_HERE = Path(__file__).parent
#: Installed as package data; in a checkout it is the folder next to the package.
KERNELS = next(d for d in (_HERE / "kernels", _HERE.parent / "kernels") if d.is_dir())
#: One rounding for each operation and no flushed denormals, as CMakeLists.txt tells nvcc: the GPU
#: gives the bits that the CPU gives.
FLAGS = ("-std=c++17", "-fmad=false", "-ftz=false", "-prec-div=true", "-prec-sqrt=true")

_SIGNATURE = re.compile(
    r'extern "C" __global__ void\s+(?:__launch_bounds__\([^)]*\)\s+)?(\w+)\(([^)]*)\)'
)
#: The types of a kernel's parameters that are numbers. Any other name is a struct.
_NUMBERS: dict[str, Any] = {"int": np.int32, "long long": np.int64, "float": np.float32}


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
def signatures(name: str) -> dict[str, tuple[str, ...]]:
    """The kernels of ``kernels/<name>.cuh`` and the types of their parameters; "*" is a pointer."""
    text = re.sub(r"//.*", "", source(name))
    return {
        kernel: tuple(_type(parameter) for parameter in parameters.split(","))
        for kernel, parameters in _SIGNATURE.findall(text)
    }


def _type(parameter: str) -> str:
    if "*" in parameter:
        return "*"
    words = [w for w in parameter.split()[:-1] if w != "const"]
    return " ".join(words).rpartition("::")[2]


def pack(name: str, kernel: str, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """``args`` as the types that ``kernel`` declares; a TypeError where they are not of its form.

    None is a null pointer.

    Left to itself CuPy would pass 64 bits for an int and a double for a float, and the kernel would
    read other bits than were meant.
    """
    types = signatures(name)[kernel]
    if len(types) != len(args):
        raise TypeError(f"{kernel} takes {len(types)} arguments, got {len(args)}")
    packed: list[Any] = []
    for type_, arg in zip(types, args):
        if type_ == "*" and (arg is None or isinstance(arg, Buffer)):
            packed.append(np.uintp(0) if arg is None else arg)
        elif type_ in _NUMBERS and not isinstance(arg, (Buffer, np.ndarray)):
            number = _NUMBERS[type_]
            # An old NumPy would wrap around in silence.
            if type_ != "float" and not np.iinfo(number).min <= arg <= np.iinfo(number).max:
                raise OverflowError(f"{kernel}: {arg} does not fit {type_}")
            packed.append(number(arg))
        elif type_ not in _NUMBERS and isinstance(arg, np.ndarray) and arg.dtype.names:
            packed.append(arg)
        else:
            raise TypeError(f"{kernel}: expected {type_} for an argument, got {arg!r}")
    return tuple(packed)


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


@functools.lru_cache(None)
def load_nvrtc() -> Any:
    """``cupy.cuda.nvrtc``, after its library is loaded from the nvidia wheels if it lies there.

    CuPy 13 looks for it on the system only.
    """
    folders = [sysconfig.get_paths()["purelib"], sysconfig.get_paths()["platlib"]]
    for folder in dict.fromkeys(folders):
        found = glob.glob(f"{folder}/nvidia/cuda_nvrtc/lib/libnvrtc*.so*")
        found += glob.glob(f"{folder}/nvidia/cu13/lib/libnvrtc*.so*")
        for file in sorted(found, key=lambda f: "builtins" not in f):
            if ".alt." not in file:
                with contextlib.suppress(OSError):
                    ctypes.CDLL(file, ctypes.RTLD_GLOBAL)
    from cupy.cuda import nvrtc

    return nvrtc


def cache_folder() -> Path:
    base = os.environ.get("CVOPS_CACHE_DIR")
    return Path(base) if base else Path.home() / ".cache" / "cvops"


def sources() -> list[str]:
    """The names of the files in ``kernels/`` that have kernels."""
    return sorted(file.stem for file in KERNELS.glob("*.cuh") if signatures(file.stem))


def architectures() -> list[int]:
    """Those of the GPUs that CuPy sees: 90 for sm_90."""
    import cupy

    devices = map(cupy.cuda.Device, range(device_count()))
    return sorted({int(device.compute_capability) for device in devices})


def cubin_file(name: str, arch: int) -> Path:
    """The compiled kernels in the cache, compiled now if they are not there."""
    nvrtc = load_nvrtc()
    key = "\0".join((source(name), str(FLAGS), str(arch), str(nvrtc.getVersion())))
    file = cache_folder() / f"{name}-sm{arch}-{hashlib.sha256(key.encode()).hexdigest()[:24]}.cubin"
    if not file.exists():
        cubin, _ = compile_cubin(nvrtc, name, arch)
        file.parent.mkdir(parents=True, exist_ok=True)
        # Written beside it and moved, so that another process never sees half of it.
        with tempfile.NamedTemporaryFile(dir=file.parent, delete=False) as temporary:
            temporary.write(cubin)
        os.replace(temporary.name, file)
    return file


_functions: dict[tuple[str, str, int], Any] = {}
_compiling = threading.Lock()


def function(name: str, kernel: str, device: int) -> Callable[..., None]:
    """The kernel, ready to launch on ``device``, which is the current one."""
    key = name, kernel, device
    if key not in _functions:
        import cupy

        with _compiling:
            arch = int(cupy.cuda.Device(device).compute_capability)
            module = cupy.RawModule(path=str(cubin_file(name, arch)))
            _functions[key] = module.get_function(kernel)
    return _functions[key]


@contextlib.contextmanager
def current(device: int, stream: int) -> Iterator[None]:
    """Make CuPy launch on that stream of that device."""
    import cupy

    with cupy.cuda.Device(device):
        if stream == cupy.cuda.get_current_stream().ptr:
            yield
        else:
            with _external_stream(stream, device):
                yield


def _external_stream(stream: int, device: int) -> Any:
    from cupy.cuda import ExternalStream, Stream

    if not hasattr(Stream, "from_external"):  # CuPy 13
        return ExternalStream(stream, device)

    class Foreign:
        def __cuda_stream__(self) -> tuple[int, int]:
            return 0, stream

    return Stream.from_external(Foreign())


def synchronize() -> None:
    """Wait for the default stream of the current device."""
    import cupy

    cupy.cuda.Stream.null.synchronize()


@functools.lru_cache(None)
def device_count() -> int:
    """The number of GPUs that CuPy sees; 0 where there is no driver."""
    import cupy

    try:
        return int(cupy.cuda.runtime.getDeviceCount())
    except cupy.cuda.runtime.CUDARuntimeError:
        return 0

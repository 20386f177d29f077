"""CUDA sources: reading them, compiling them with NVRTC, and their launch through CuPy."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import re
import tempfile
import threading
from pathlib import Path
from typing import Any, Callable, NamedTuple

from cvops import _cache
from cvops._imports import wheel_folders
from cvops._parameters import Parameters

_HERE = Path(__file__).parent
#: Installed as package data; in a checkout it is the folder next to the package.
KERNELS = next(d for d in (_HERE / "kernels", _HERE.parent / "kernels") if d.is_dir())
#: One rounding for each operation and no flushed denormals, as CMakeLists.txt tells nvcc: the GPU
#: gives the bits that the CPU gives.
FLAGS = ("-std=c++17", "-fmad=false", "-ftz=false", "-prec-div=true", "-prec-sqrt=true")

_SIGNATURE = re.compile(
    r'extern "C" __global__ void\s+(?:__launch_bounds__\([^)]*\)\s+)?(\w+)\(([^)]*)\)'
)


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


@functools.lru_cache(None)
def parameters(name: str, kernel: str) -> Parameters:
    return Parameters(kernel, signatures(name)[kernel])


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

    CuPy 13 looks for it on the system only. Of several wheels the first on ``sys.path`` counts.
    """
    folders = [*wheel_folders("cuda_nvrtc"), *wheel_folders("cu13")]
    for folder in folders:
        # The compiler is the last, since it loads the built-in headers by their bare name.
        found = sorted(folder.glob("libnvrtc*.so*"), key=lambda file: "builtins" not in file.name)
        for file in found:
            if ".alt." not in file.name:
                with contextlib.suppress(OSError):
                    ctypes.CDLL(str(file), ctypes.RTLD_GLOBAL)
    from cupy.cuda import nvrtc

    return nvrtc


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
    file = (
        _cache.folder() / f"{name}-sm{arch}-{hashlib.sha256(key.encode()).hexdigest()[:24]}.cubin"
    )
    if not _cache.has(file):
        cubin, _ = compile_cubin(nvrtc, name, arch)
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            dir=file.parent, prefix=_cache.TEMPORARY, delete=False
        ) as temporary:
            temporary.write(cubin)
        _cache.put(Path(temporary.name), file)
    return file


#: The bytes of shared memory that a kernel may have without asking.
_SHARED = 48 << 10
#: ``cuLaunchKernel`` for a kernel, its grid, its block and its shared memory. It takes the stream,
#: where the addresses of the arguments stand, and 0.
Start = Callable[[int, int, int], None]

_modules: dict[tuple[str, int], int] = {}
_loading = threading.Lock()


@functools.lru_cache(None)
def load(name: str, kernel: str, device: int) -> int:
    """The driver's handle of a kernel for ``device``, which is the current one."""
    import cupy

    driver = cupy.cuda.driver
    with _loading:
        if (name, device) not in _modules:
            arch = int(cupy.cuda.Device(device).compute_capability)
            file = str(cubin_file(name, arch))
            try:
                _modules[name, device] = driver.moduleLoad(file)
            except Exception as error:
                raise RuntimeError(
                    f"{file} cannot be loaded: {error}. While a graph is captured nothing can; "
                    "call the op once before"
                ) from error
        return int(driver.moduleGetFunction(_modules[name, device], kernel))


def start(
    function: int, grid: tuple[int, ...], block: tuple[int, ...], shared: int, device: int
) -> Start:
    """What launches the kernel of a handle on ``device``, as often as it is called."""
    import cupy

    if shared > _SHARED:
        _allow_shared(function, device)
    sizes = (*grid, 1, 1)[:3] + (*block, 1, 1)[:3]
    return functools.partial(cupy.cuda.driver.launchKernel, function, *sizes, shared)


@functools.lru_cache(None)
def _allow_shared(function: int, device: int) -> None:
    """Let the kernel have all the shared memory that there is.

    It is not said how much a launch takes, so that threads which launch at once agree.
    """
    import cupy

    driver = cupy.cuda.driver
    most = attribute("MaxSharedMemoryPerBlockOptin", device)
    driver.funcSetAttribute(function, driver.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, most)


def set_device(device: int) -> int:
    """Make it the current one of this thread, which may launch there then; the one that was."""
    current = _current()
    before: int = current.device()
    if device != before:
        current.set_device(device)
    if not current.context():
        # The driver wants a context, which a thread gets when it asks the runtime for work.
        current.work()
    return before


class _Current(NamedTuple):
    """What CuPy has for the device and the context of a thread."""

    device: Callable[[], int]
    set_device: Callable[[int], None]
    context: Callable[[], int]
    work: Callable[[], Any]


@functools.lru_cache(None)
def _current() -> _Current:
    from cupy.cuda import driver, runtime

    return _Current(runtime.getDevice, runtime.setDevice, driver.ctxGetCurrent, runtime.memGetInfo)


def synchronize() -> None:
    """Wait for the default stream of the current device."""
    _runtime().streamSynchronize(0)


@functools.lru_cache(None)
def _runtime() -> Any:
    import cupy

    return cupy.cuda.runtime


@functools.lru_cache(None)
def attribute(name: str, device: int) -> int:
    """One of a GPU's attributes, by the name that CUDA has for it after "cudaDevAttr"."""
    runtime = _runtime()
    # Not of all that CuPy's Device.attributes asks for: those that CUDA does not know any more are
    # errors to compute-sanitizer.
    return int(runtime.deviceGetAttribute(getattr(runtime, f"cudaDevAttr{name}"), device))


@functools.lru_cache(None)
def device_count() -> int:
    """The number of GPUs that CuPy sees; 0 where there is no driver."""
    try:
        return int(_runtime().getDeviceCount())
    except _runtime().CUDARuntimeError:
        return 0

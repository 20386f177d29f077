"""Build of the operators for the installed MXNet, and their load.

MXNet loads operators from a shared library, which needs two source files of MXNet's wheel. Our
library is the ABI boundary only (``bindings/mxnet``). The ops are in ``libcvops.so``, which the
Python extension uses too.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import importlib.util
import os
import platform
import shlex
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from cvops._imports import pip_command
from cvops._mxnet import mxnet
from cvops._mxnet.operators import OPERATORS
from cvops.backends import cache, cuda, extension, nvrtc

_PACKAGE = Path(__file__).parents[1]
#: Installed as package data; in a checkout it is the folder next to the package.
BINDINGS = next(d for d in (_PACKAGE / "bindings", _PACKAGE.parent / "bindings") if d.is_dir())
_FLAGS = ("-std=c++17", "-O2", "-fPIC", "-pthread")


class Library(NamedTuple):
    """The library of operators in MXNet."""

    path: Path
    #: True if the operators accept MXNet's GPU arrays.
    has_kernels: bool


def compiler() -> list[str]:
    """Return the command of the C++ compiler: the environment variable CXX, or g++."""
    try:
        return shlex.split(os.environ.get("CXX", "")) or ["g++"]
    except ValueError as error:
        raise ImportError(f"CXX={os.environ['CXX']!r} is not a command: {error}") from error


def wheel() -> Path:
    """Return the folder of the installed MXNet, without an import of it."""
    spec = importlib.util.find_spec("mxnet")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"No module named 'mxnet': {pip_command('mxnet')}")
    return Path(spec.origin).parent


def _run(folder: Path, *command: str | Path) -> None:
    line = [*compiler(), *map(str, command)]
    # The compiler's own temporary files need the same disk.
    environment = {**os.environ, "TMPDIR": str(folder)}
    try:
        done = subprocess.run(line, capture_output=True, text=True, env=environment)
    except OSError as error:
        raise ImportError(
            f"cvops.mxnet builds its operators for MXNet with a C++ compiler, and "
            f"{line[0]!r} cannot be run ({error.strerror}): install one (on Debian: apt-get "
            "install g++) or name it in the environment variable CXX. The functions of cvops and "
            "cvops.contrib take MXNet's arrays without it, but not for a gradient"
        ) from error
    if done.returncode:
        full = os.strerror(errno.ENOSPC)
        if full in done.stderr:
            raise OSError(errno.ENOSPC, full)
        head = "\n".join(done.stderr.splitlines()[:40])
        raise ImportError(f"cvops.mxnet cannot build its operators: {shlex.join(line)}\n{head}")


def _core() -> Path:
    """Load ``libcvops.so``, and return its path."""
    native = extension.native()
    if native is None:
        raise ImportError(
            "cvops.mxnet needs the compiled extension cvops._native, which this installation lacks"
        )
    path = Path(native.__file__).parent / "lib" / "libcvops.so"
    ctypes.CDLL(str(path))  # the loader then finds it by its name
    return path


class Recipe(NamedTuple):
    """The files and flags of the library for this MXNet and this cvops."""

    entry: cache.Entry
    sources: list[Path]
    flags: list[str]
    core: Path


def recipe() -> Recipe:
    """Return the recipe of :func:`build`; compile nothing.

    Raises:
        ImportError: MXNet 1.9.1 or our extension is missing.
    """
    core = _core()
    mx = wheel()
    abi = [mx / "include" / "mxnet" / "lib_api.h", mx / "src" / "lib_api.cc"]
    for file in abi:
        if not file.is_file():
            raise ImportError(f"cvops.mxnet needs MXNet 1.9.1, whose wheel has {file}")
    folders = [BINDINGS, BINDINGS / "operators", BINDINGS / "runtime", nvrtc.KERNELS]
    headers = [x for folder in (*folders, BINDINGS / "mxnet") for x in folder.glob("*.h")]
    headers += nvrtc.KERNELS.rglob("*.cuh")
    sources = sorted(BINDINGS.glob("mxnet/*.cpp"))
    flags = [*_FLAGS, f"-isystem{mx}", f"-isystem{mx / 'include'}"]
    flags += [f"-I{folder}" for folder in folders]
    texts = [path.read_text("utf-8") for path in (*sorted(headers), *sources, *abi)]
    key = [*texts, *_FLAGS, platform.machine(), " ".join(compiler())]
    return Recipe(cache.Entry("mxnet-operators", key, ".so"), sources, flags, core)


def build() -> Path:
    """Return the library for this MXNet and this cvops; compile it if the cache lacks it.

    Raises:
        ImportError: MXNet, the extension or a compiler is missing, or does not work. The cache
            folder cannot be written, or others can write to it.
    """
    entry, sources, flags, core = recipe()
    try:
        path = entry.find()
        if path is not None:
            return path
        with entry.workplace() as folder:
            return entry.add(_compile(folder, sources, flags, core))
    except OSError as error:
        raise ImportError(f"cvops.mxnet has no operators for MXNet: {error.strerror}") from error


def _compile(folder: Path, sources: list[Path], flags: list[str], core: Path) -> Path:
    def compile_object(source: Path) -> Path:
        made = folder / f"{source.stem}.o"
        _run(folder, *flags, "-c", source, "-o", made)
        return made

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(compile_object, sources))
    made = folder / "operators.so"
    _run(folder, "-shared", *objects, core, wheel() / "libmxnet.so", "-o", made)
    return made


@functools.cache
def library() -> Library:
    """Return the operators; the first call builds them and loads them into MXNet.

    Raises:
        ImportError: as :func:`build`.
    """
    path = build()
    load(path)
    _check_shapes(path)
    return Library(path, _use_kernels())


def _use_kernels() -> bool:
    """Set the operators' kernels for GPUs: those of nvcc, or those that NVRTC compiles now."""
    if not (mxnet().runtime.Features().is_enabled("CUDA") and extension.has_gpu()):
        return False
    if extension.machine_code():
        functions = cuda.native_functions()
    elif extension.missing_cupy() is None:
        functions = cuda.nvrtc_functions()
    else:
        return False
    extension.native().set_default_functions(functions)
    return True


def _check_shapes(path: Path) -> None:
    """Add our check of the shapes before MXNet's own code: see ``infer_shape.cpp``."""
    check = ctypes.CDLL(str(path)).cvops_check_shapes
    for operator in OPERATORS:
        inputs = [name.encode() for name in operator.inputs]
        names = (ctypes.c_char_p * len(inputs))(*inputs)
        if check(operator.full_name.encode(), names, len(inputs)):
            raise ImportError(f"cvops.mxnet cannot check the shapes of {operator.full_name}")


def load(path: Path) -> None:
    """Load a library of operators into MXNet.

    ``mx.library.load`` would make each function of MXNet again, and lose the patches of others,
    such as AMP.
    """
    base = mxnet().base
    base.check_call(base._LIB.MXLoadLib(str(path).encode(), base.mx_uint(0)))

"""Adapters: small libraries that a C++ compiler builds for the installed framework, on first use.

An adapter is the ABI boundary only (``bindings/mxnet``, ``bindings/torch``). The operators are in
``libcvops.so``, which the Python extension uses too.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import shlex
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from cvops.backends import cache, cuda, extension, nvrtc

_PACKAGE = Path(__file__).parents[1]
#: Installed as package data; in a checkout it is the folder next to the package.
BINDINGS = next(d for d in (_PACKAGE / "bindings", _PACKAGE.parent / "bindings") if d.is_dir())
_FOLDERS = (BINDINGS, BINDINGS / "operators", BINDINGS / "runtime", nvrtc.KERNELS)
_FLAGS = ("-O2", "-fPIC", "-pthread", *(f"-I{folder}" for folder in _FOLDERS))


def compiler() -> list[str]:
    """Return the command of the C++ compiler: the environment variable CXX, or g++."""
    try:
        return shlex.split(os.environ.get("CXX", "")) or ["g++"]
    except ValueError as error:
        raise ImportError(f"CXX={os.environ['CXX']!r} is not a command: {error}") from error


class Adapter(NamedTuple):
    """The files and flags of an adapter."""

    #: The public module: "cvops.mxnet".
    module: str
    #: The folder of its sources in ``bindings/``.
    folder: str
    framework: str
    #: The flags for the framework's headers.
    flags: tuple[str, ...]
    #: Texts that are different for each ABI of the framework.
    abi: tuple[str, ...]
    #: The framework's libraries.
    libraries: tuple[Path, ...]

    def entry(self) -> cache.Entry:
        """Return the adapter's place in the cache."""
        headers = [x for folder in _FOLDERS for x in folder.glob("*.h")]
        headers += BINDINGS.glob(f"{self.folder}/*.h")
        headers += nvrtc.KERNELS.rglob("*.cuh")
        texts = [path.read_text("utf-8") for path in (*sorted(headers), *self._sources())]
        # The flags name folders, so that another installation has another entry.
        key = [*texts, *self.abi, *_FLAGS, *self.flags, platform.machine(), " ".join(compiler())]
        return cache.Entry(f"{self.folder}-operators", key, ".so")

    def build(self) -> Path:
        """Return the adapter's library; compile it if the cache lacks it.

        Raises:
            ImportError: the extension or a compiler is missing, or does not work. The cache folder
                cannot be written, or others can write to it.
        """
        core = self._core()
        entry = self.entry()
        try:
            path = entry.find()
            if path is not None:
                return path
            with entry.workplace() as folder:
                return entry.add(self._compile(folder, core))
        except OSError as error:
            raise ImportError(
                f"{self.module} has no operators for {self.framework}: {error.strerror}"
            ) from error

    def _sources(self) -> list[Path]:
        return sorted(BINDINGS.glob(f"{self.folder}/*.cpp"))

    def _core(self) -> Path:
        """Load ``libcvops.so``, and return its path."""
        native = extension.native()
        if native is None:
            raise ImportError(
                f"{self.module} needs the compiled extension cvops._native, which this "
                "installation lacks"
            )
        path = Path(native.__file__).parent / "lib" / "libcvops.so"
        ctypes.CDLL(str(path))  # the loader then finds it by its name
        return path

    def _compile(self, folder: Path, core: Path) -> Path:
        def compile_object(source: Path) -> Path:
            made = folder / f"{source.stem}.o"
            self.run(folder, *_FLAGS, *self.flags, "-c", source, "-o", made)
            return made

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            objects = list(pool.map(compile_object, self._sources()))
        made = folder / "operators.so"
        self.run(folder, "-shared", *objects, core, *self.libraries, "-o", made)
        return made

    def run(self, folder: Path, *command: str | Path) -> None:
        """Run the compiler with its temporary files in ``folder``.

        Raises:
            ImportError: it is missing, or does not accept the sources.
            OSError: the disk is full.
        """
        line = [*compiler(), *map(str, command)]
        # The compiler's own temporary files need the same disk.
        environment = {**os.environ, "TMPDIR": str(folder)}
        try:
            done = subprocess.run(line, capture_output=True, text=True, env=environment)
        except OSError as error:
            raise ImportError(
                f"{self.module} builds its operators for {self.framework} with a C++ compiler, and "
                f"{line[0]!r} cannot be run ({error.strerror}): install one (on Debian: apt-get "
                "install g++) or name it in the environment variable CXX. The functions of cvops "
                f"take {self.framework}'s arrays without it"
            ) from error
        if done.returncode:
            full = os.strerror(errno.ENOSPC)
            if full in done.stderr:
                raise OSError(errno.ENOSPC, full)
            head = "\n".join(done.stderr.splitlines()[:40])
            raise ImportError(
                f"{self.module} cannot build its operators: {shlex.join(line)}\n{head}"
            )


def use_kernels() -> bool:
    """Set the operators' kernels for GPUs: those of nvcc, or those that NVRTC compiles now.

    It returns False if there is no GPU, or neither kind of kernels.
    """
    if not extension.has_gpu():
        return False
    if extension.machine_code():
        functions = cuda.native_functions()
    elif extension.missing_cupy() is None:
        functions = cuda.nvrtc_functions()
    else:
        return False
    extension.native().set_default_functions(functions)
    return True

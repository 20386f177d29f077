"""The C++ compiler, and a cache of its files."""

from __future__ import annotations

import fcntl
import functools
import hashlib
import os
import platform
import shlex
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Callable

HERE = Path(__file__).resolve().parent
#: -ffp-contract=off gives one rounding for each operation, as in all builds of the kernels. Hidden
#: visibility separates the variables of several libraries in one process.
FLAGS = (
    "-std=c++17",
    "-ffp-contract=off",
    "-fno-strict-aliasing",
    "-fPIC",
    "-fvisibility=hidden",
    "-pthread",
    f"-I{HERE}",
)
#: sanitizer -> further flags. Both use one OS thread. AddressSanitizer has redzones around static
#: variables, but not around thread-local ones. The threads of ThreadSanitizer are the CUDA threads.
#: AddressSanitizer reports more details than the check of object sizes, which is therefore off.
#: The compilation takes most of the time of a sanitized test, and half of it without optimization.
SANITIZERS = {
    None: ("-O2",),
    "address": (
        "-O0",
        "-g1",
        "-fno-omit-frame-pointer",
        "-DEMULATOR_ONE_OS_THREAD",
        "-fsanitize=address,undefined,float-cast-overflow",
        "-fno-sanitize=object-size",
        "-fno-sanitize-recover=all",
    ),
    "thread": ("-O0", "-g1", "-fsanitize=thread", "-DEMULATOR_ONE_OS_THREAD"),
}
#: Further flags to compile kernels without a sanitizer: alignment.cpp reports a misaligned address.
#: The link does not use them, because they would add the compiler's own runtime library.
ALIGNMENT = ("-fsanitize=alignment", "-fno-sanitize-recover=alignment")


class EmulatorError(RuntimeError):
    """A compilation failed, a launch was refused, or a kernel broke a rule of CUDA."""


def compiler() -> list[str]:
    """Return the command of the C++ compiler: the environment variable CXX, or g++."""
    return shlex.split(os.environ.get("CXX", "g++"))


def run_compiler(*args: str | Path, command: str | None = None) -> None:
    """Run the compiler, or the one named ``command``; an error has the output of the compiler."""
    command = [*([command] if command else compiler()), *map(str, args)]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError as error:
        raise EmulatorError(f"the emulator needs a C++ compiler: {error}") from error
    if done.returncode:
        head = "\n".join(done.stderr.splitlines()[:40])
        raise EmulatorError(f"{shlex.join(command)}\n{head}")


@functools.cache
def _version(command: tuple[str, ...]) -> str:
    done = subprocess.run([*command, "--version"], capture_output=True, text=True)
    return done.stdout + platform.machine()


@functools.cache
def _headers() -> str:
    return "".join(path.read_text("utf-8") for path in sorted(HERE.rglob("*.h")))


def _cache_folder() -> Path:
    """Return the folder CVOPS_EMULATOR_CACHE, or build/emulator of the checkout."""
    default = HERE.parents[1] / "build" / "emulator"
    folder = Path(os.environ.get("CVOPS_EMULATOR_CACHE") or default)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def cached(name: str, suffix: str, key: Iterable[str], make: Callable[[Path], None]) -> Path:
    """Return the file that ``make(path)`` writes; a file with the texts of ``key`` is reused.

    The compiler and the emulator's headers are part of every key. One thread of one process makes
    a file; others that need it wait.
    """
    texts = [_version(tuple(compiler())), _headers(), *key]
    digest = hashlib.sha256("\0".join(texts).encode()).hexdigest()[:24]
    path = _cache_folder() / f"{name}-{digest}{suffix}"
    if path.exists():
        return path
    with path.with_name(f"{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # released when the file is closed, or the process ends
        if not path.exists():
            with tempfile.TemporaryDirectory(dir=path.parent) as folder:
                made = Path(folder, path.name)
                make(made)
                os.replace(made, path)
    return path


def without_include_folders(flags: Iterable[str | Path]) -> list[str]:
    """Return the flags for a key, which has the texts of headers instead of their folders."""
    return [flag for flag in map(str, flags) if not flag.startswith("-I")]


def compile_object(source: Path, flags: Sequence[str | Path], includes: Iterable[str] = ()) -> Path:
    """Return the object file of a source; ``includes`` are texts of headers in other folders."""
    key = [source.read_text("utf-8"), *without_include_folders(flags), *includes]
    return cached(source.stem, ".o", key, lambda o: run_compiler(*flags, "-c", source, "-o", o))


def compile_objects(jobs: Iterable[Callable[[], Path]]) -> list[Path]:
    """Return the results of several calls, which run on all cores."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return [future.result() for future in [pool.submit(job) for job in jobs]]


def emulator_objects(names: Iterable[str], sanitizer: str | None = None) -> list[Path]:
    """Return the object files of the emulator's sources, which all modules share."""
    flags = (*FLAGS, *SANITIZERS[sanitizer])
    sources = [HERE / f"{name}.cpp" for name in names]
    return compile_objects(functools.partial(compile_object, s, flags) for s in sources)

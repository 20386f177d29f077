"""The compiler, and a cache of what it made."""

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
#: One rounding for each operation, as kernels and CPU loops are compiled everywhere. Hidden: two
#: libraries in one process must not share variables of one name.
FLAGS = (
    *("-std=c++17", "-ffp-contract=off", "-fno-strict-aliasing"),
    *("-fPIC", "-fvisibility=hidden", "-pthread", f"-I{HERE}"),
)
#: The further flags for each sanitizer. AddressSanitizer puts redzones around plain statics only,
#: which needs one OS thread. ThreadSanitizer gets its threads from the CUDA threads.
#: AddressSanitizer also finds the errors of the check of object sizes, and its message says more.
SANITIZERS = {
    None: ("-O2",),
    "address": (
        *("-O1", "-g", "-fno-omit-frame-pointer", "-DEMULATOR_ONE_OS_THREAD"),
        *("-fsanitize=address,undefined,float-cast-overflow", "-fno-sanitize=object-size"),
        "-fno-sanitize-recover=all",
    ),
    "thread": ("-O1", "-g", "-fsanitize=thread", "-DEMULATOR_ONE_OS_THREAD"),
}
#: The further flags for kernels without a sanitizer: alignment.cpp handles a misaligned address.
#: The link is without them, or the compiler's runtime library would be a part of the process.
ALIGNMENT = ("-fsanitize=alignment", "-fno-sanitize-recover=alignment")


class EmulatorError(RuntimeError):
    """A kernel that does not compile, a launch that is refused, or a rule broken as it ran."""


def compiler() -> list[str]:
    """The command of the C++ compiler: that of the environment variable CXX, or g++."""
    return shlex.split(os.environ.get("CXX", "g++"))


def run_compiler(*args: str | Path, command: str | None = None) -> None:
    """Run the compiler, or another of that name; what it says on failure is the error."""
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
    """CVOPS_EMULATOR_CACHE, or build/emulator of the checkout."""
    default = HERE.parents[1] / "build" / "emulator"
    folder = Path(os.environ.get("CVOPS_EMULATOR_CACHE") or default)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def cached(name: str, suffix: str, key: Iterable[str], make: Callable[[Path], None]) -> Path:
    """The file that ``make(path)`` writes, made anew only when a text of ``key`` changes.

    The compiler and the emulator's headers are part of every key. Threads and processes that
    want the same file wait for the one that makes it.
    """
    texts = [_version(tuple(compiler())), _headers(), *key]
    digest = hashlib.sha256("\0".join(texts).encode()).hexdigest()[:24]
    path = _cache_folder() / f"{name}-{digest}{suffix}"
    if path.exists():
        return path
    with path.with_name(f"{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # until it is closed, or the process ends
        if not path.exists():
            with tempfile.TemporaryDirectory(dir=path.parent) as folder:
                made = Path(folder, path.name)
                make(made)
                os.replace(made, path)
    return path


def without_folders(flags: Iterable[str | Path]) -> list[str]:
    """What of the flags belongs in a key: the texts in include folders do, their places do not."""
    return [flag for flag in map(str, flags) if not flag.startswith("-I")]


def compile_object(source: Path, flags: Sequence[str | Path], includes: Iterable[str] = ()) -> Path:
    """The object file of a source; ``includes`` are the texts it includes beside our headers."""
    key = [source.read_text("utf-8"), *without_folders(flags), *includes]
    return cached(source.stem, ".o", key, lambda o: run_compiler(*flags, "-c", source, "-o", o))


def compile_objects(jobs: Iterable[Callable[[], Path]]) -> list[Path]:
    """The results of several calls, made on all cores."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return [future.result() for future in [pool.submit(job) for job in jobs]]


def emulator_objects(names: Iterable[str], sanitizer: str | None = None) -> list[Path]:
    """The emulator's own sources, compiled once for all modules."""
    flags = (*FLAGS, *SANITIZERS[sanitizer])
    sources = [HERE / f"{name}.cpp" for name in names]
    return compile_objects(functools.partial(compile_object, s, flags) for s in sources)

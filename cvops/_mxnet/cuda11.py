"""The CUDA 11 libraries that MXNet's GPU wheels need and do not contain.

Packages on PyPI (``nvidia-*-cu11``) install them into ``site-packages/nvidia/*/lib``, which the
loader does not search. The loader finds a library by its name once it is in memory.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import struct
from pathlib import Path

from cvops._imports import pip_command, wheel_folders

#: The prefix of a library's name -> the package with the library.
PACKAGES = {
    "libcublas": "nvidia-cublas-cu11",
    "libcudart": "nvidia-cuda-runtime-cu11",
    "libcudnn": "nvidia-cudnn-cu11<9",
    "libcufft": "nvidia-cufft-cu11",
    "libcurand": "nvidia-curand-cu11",
    "libcusolver": "nvidia-cusolver-cu11",
    "libnccl": "nvidia-nccl-cu11",
    "libnvrtc": "nvidia-cuda-nvrtc-cu11",
    "libnvToolsExt": "nvidia-nvtx-cu11",
}
DRIVER = "libcuda.so.1"

_LOADED_SEGMENT, _DYNAMIC_SEGMENT = 1, 2
_END, _NEEDED, _NAMES = 0, 1, 5


def needed(library: Path) -> list[str]:
    """List the libraries that a shared library needs (its DT_NEEDED entries).

    The list is empty for a truncated file, and for one that is not 64-bit little-endian ELF, the
    format of Linux on x86-64 and ARM. The function reads a small part of the file, since MXNet's
    library has nearly a gigabyte.
    """
    try:
        return _needed(library)
    except struct.error:
        return []


def _needed(library: Path) -> list[str]:
    with library.open("rb") as file:

        def read(offset: int, size: int) -> bytes:
            file.seek(offset)
            return file.read(size)

        header = read(0, 64)
        if header[:6] != b"\x7fELF\x02\x01":
            return []
        (table,) = struct.unpack_from("<Q", header, 32)
        entry, count = struct.unpack_from("<HH", header, 54)
        # Fields: kind, flags, offset in the file, virtual and physical address, size in the file.
        segments = [struct.unpack("<IIQQQQ", read(table + i * entry, 40)) for i in range(count)]
        numbers: list[tuple[int, int]] = []
        for kind, _, offset, _, _, size in segments:
            if kind == _DYNAMIC_SEGMENT:
                numbers += struct.iter_unpack("<QQ", read(offset, size // 16 * 16))
        tags = [tag for tag, _ in numbers]
        numbers = numbers[: tags.index(_END)] if _END in tags else numbers
        address = dict(numbers).get(_NAMES)
        for kind, _, offset, start, _, size in segments:
            if kind == _LOADED_SEGMENT and address is not None and 0 <= address - start < size:
                names = offset + address - start
                found = [read(names + at, 256) for tag, at in numbers if tag == _NEEDED]
                return [name.partition(b"\0")[0].decode() for name in found]
        return []


def package(soname: str) -> str | None:
    """Return the package of a library of CUDA; None for another library."""
    return next((name for begin, name in PACKAGES.items() if soname.startswith(begin)), None)


def libmxnet() -> Path | None:
    """Return the library of the installed MXNet, without an import; None without MXNet."""
    spec = importlib.util.find_spec("mxnet")
    folders = list(spec.submodule_search_locations or []) if spec else []
    files = [os.environ.get("MXNET_LIBRARY_PATH", ""), *(f"{d}/libmxnet.so" for d in folders)]
    return next((Path(file) for file in files if os.path.isfile(file)), None)


def preload(library: Path) -> dict[str, str]:
    """Load the libraries of CUDA that ``library`` needs, each after the libraries that it needs.

    Returns:
        Each library that is missing or cannot be loaded -> its remedy. If it is empty, the loader
        can load ``library``.
    """
    folders = [library.parent, *wheel_folders("*")]
    seen: set[str] = set()
    failed: set[str] = set()
    missing: dict[str, str] = {}

    def load_needs(file: Path) -> None:
        for soname in needed(file):
            if soname not in seen and (soname == DRIVER or package(soname)):
                seen.add(soname)
                load(soname)

    def load(soname: str) -> None:
        try:
            ctypes.CDLL(soname, ctypes.RTLD_GLOBAL)
            return
        except OSError as error:
            failed.add(soname)
            known = package(soname)
            remedy = f'pip install "{known}"' if known else f"the NVIDIA driver: {error}"
        file = next((d / soname for d in folders if (d / soname).is_file()), None)
        if file is None:
            missing[soname] = remedy
            return
        load_needs(file)
        try:
            ctypes.CDLL(str(file), ctypes.RTLD_GLOBAL)
            failed.remove(soname)
        except OSError as error:
            if not failed & set(needed(file)):  # otherwise one of these is the cause
                missing[soname] = str(error)

    load_needs(library)
    return missing


def preload_for_mxnet() -> None:
    """Make an installed MXNet for GPUs importable.

    Raises:
        ImportError: libraries are missing; the message has them and the packages to install.
    """
    library = libmxnet()
    missing = preload(library) if library else {}
    if missing:
        raise ImportError(explain(missing))


def explain(missing: dict[str, str]) -> str:
    """Return a message with the missing libraries of :func:`preload` and their remedies."""
    lines = [f"  {soname}: {remedy}" for soname, remedy in missing.items()]
    text = "the installed MXNet is for GPUs, and these libraries that it needs cannot be loaded:\n"
    text += "\n".join(lines)
    if any(package(soname) for soname in missing):
        text += f"\nAll of CUDA: {pip_command('mxnet-cu112')}"
    if DRIVER in missing:
        text += (
            "\nWithout the NVIDIA driver the GPU wheel cannot be loaded at all, for the CPU either:"
            f" pip uninstall mxnet-cu112 && {pip_command('mxnet')}"
        )
    return text

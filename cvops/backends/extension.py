"""The compiled extension, and the reasons why a GPU cannot be used here."""

from __future__ import annotations

import functools
import importlib
import importlib.util
from pathlib import Path
from typing import Any


@functools.lru_cache(None)
def native() -> Any:
    """Return the compiled extension ``cvops._native``; None where it was not built."""
    if importlib.util.find_spec("cvops._native") is None:
        return None
    return importlib.import_module("cvops._native")


@functools.lru_cache(None)
def machine_code() -> tuple[Path, ...]:
    """List the files that nvcc compiled with the extension, one for each file of kernels."""
    found = native()
    folder = Path(found.__file__).parent / "fatbin" if found else Path()
    return tuple(sorted(folder.glob("*.fatbin")))


@functools.lru_cache(None)
def has_gpu() -> bool:
    """Report if this machine has an NVIDIA GPU and its driver."""
    return bool(native().device_count())


_NO_GPU = "needs an NVIDIA GPU and its driver"


def missing_native() -> str | None:
    return None if native() is not None else "needs the compiled extension cvops._native"


def missing_machine_code() -> str | None:
    if not machine_code():
        return "needs cvops._native built with a CUDA toolkit"
    return None if has_gpu() else _NO_GPU


def missing_cupy() -> str | None:
    if native() is None:
        return missing_native()
    if importlib.util.find_spec("cupy") is None:
        return "needs CuPy: pip install cvops[cuda12] or cvops[cuda13]"
    return None if has_gpu() else _NO_GPU

"""Build of the operators for the installed PyTorch, and their load."""

from __future__ import annotations

import ctypes
import functools
from pathlib import Path

import torch

from cvops.backends import adapter


def recipe() -> adapter.Adapter:
    """Return the adapter for this PyTorch; compile nothing.

    Raises:
        ImportError: PyTorch is older than 2.6, and has another ABI of the C++ library.
    """
    if not torch._C._GLIBCXX_USE_CXX11_ABI:
        raise ImportError(f"cvops.torch: expected PyTorch 2.6 or later, got {torch.__version__}")
    folder = Path(torch.__file__).parent
    include, lib = folder / "include", folder / "lib"
    api = include / "torch" / "csrc" / "api" / "include"
    return adapter.Adapter(
        module="cvops.torch",
        folder="torch",
        framework="PyTorch",
        flags=("-std=c++20", f"-isystem{include}", f"-isystem{api}"),
        abi=(torch.__version__,),
        libraries=tuple(lib / f"lib{name}.so" for name in ("torch_cpu", "c10")),
    )


def build() -> Path:
    """Return the library of operators; compile it if the cache lacks it.

    Raises:
        ImportError: as :func:`recipe`; the extension or a compiler is missing, or does not work.
    """
    return recipe().build()


@functools.cache
def has_kernels() -> bool:
    """Report if the operators accept tensors on a GPU; the first call sets their kernels."""
    return adapter.use_kernels()


@functools.cache
def library() -> ctypes.CDLL:
    """Return the operators; the first call builds and loads them.

    Raises:
        ImportError: as :func:`build`.
    """
    has_kernels()
    return ctypes.CDLL(str(build()))

"""Build of the operators for the installed PyTorch, and their load."""

from __future__ import annotations

import ctypes
import functools
from pathlib import Path

from cvops.backends import adapter
from cvops.backends.torch_adapter import recipe


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

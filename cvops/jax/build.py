"""Build of the operators for the installed JAX, and their load."""

from __future__ import annotations

import ctypes
import functools
from pathlib import Path

import jax
import jaxlib

from cvops.backends import adapter


def recipe() -> adapter.Adapter:
    """Return the adapter for this JAX; compile nothing.

    Raises:
        ImportError: JAX is older than 0.5, and has no calls of foreign functions.
    """
    if not hasattr(jax, "ffi"):
        raise ImportError(f"cvops.jax: expected JAX 0.5 or later, got {jax.__version__}")
    include = Path(jax.ffi.include_dir())
    return adapter.Adapter(
        module="cvops.jax",
        folder="jax",
        framework="JAX",
        flags=("-std=c++17", f"-isystem{include}"),
        abi=(jaxlib.__version__,),
        libraries=(),
    )


def build() -> Path:
    """Return the library of operators; compile it if the cache lacks it.

    Raises:
        ImportError: as :func:`recipe`; the extension or a compiler is missing, or does not work.
    """
    return recipe().build()


@functools.cache
def library() -> ctypes.CDLL:
    """Return the operators, and register them with JAX; the first call builds and loads them.

    Raises:
        ImportError: as :func:`build`.
    """
    loaded = ctypes.CDLL(str(build()))
    suffixes = {"cpu": ""}
    if adapter.use_kernels():
        suffixes["CUDA"] = "_cuda"
    for platform, suffix in suffixes.items():
        for target in ("cvops_forward", "cvops_backward"):
            handler = jax.ffi.pycapsule(getattr(loaded, target + suffix))
            jax.ffi.register_ffi_target(target, handler, platform=platform)
    return loaded

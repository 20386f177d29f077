"""Build of the operators for the installed MXNet, and their load."""

from __future__ import annotations

import ctypes
import functools
import importlib.util
from pathlib import Path
from typing import NamedTuple

from cvops._imports import pip_command
from cvops._mxnet import mxnet
from cvops.backends import adapter
from cvops.backends.operators import OPERATORS


class Library(NamedTuple):
    """The library of operators in MXNet."""

    path: Path
    #: True if the operators accept MXNet's GPU arrays.
    has_kernels: bool


def wheel() -> Path:
    """Return the folder of the installed MXNet, without an import of it."""
    spec = importlib.util.find_spec("mxnet")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"No module named 'mxnet': {pip_command('mxnet')}")
    return Path(spec.origin).parent


def recipe() -> adapter.Adapter:
    """Return the adapter for this MXNet; compile nothing.

    MXNet loads operators from a shared library, which needs two source files of MXNet's wheel.

    Raises:
        ImportError: MXNet 1.9.1 is missing.
    """
    mx = wheel()
    abi = [mx / "include" / "mxnet" / "lib_api.h", mx / "src" / "lib_api.cc"]
    for file in abi:
        if not file.is_file():
            raise ImportError(f"cvops.mxnet needs MXNet 1.9.1, whose wheel has {file}")
    return adapter.Adapter(
        module="cvops.mxnet",
        folder="mxnet",
        framework="MXNet",
        flags=("-std=c++17", f"-isystem{mx}", f"-isystem{mx / 'include'}"),
        abi=tuple(file.read_text("utf-8") for file in abi),
        libraries=(mx / "libmxnet.so",),
    )


def build() -> Path:
    """Return the library of operators; compile it if the cache lacks it.

    Raises:
        ImportError: as :func:`recipe`, and as :meth:`cvops.backends.adapter.Adapter.build`.
    """
    return recipe().build()


@functools.cache
def library() -> Library:
    """Return the operators; the first call builds them and loads them into MXNet.

    Raises:
        ImportError: MXNet, the extension or a compiler is missing, or does not work.
    """
    path = build()
    load(path)
    _check_shapes(path)
    has_cuda = mxnet().runtime.Features().is_enabled("CUDA")
    return Library(path, has_cuda and adapter.use_kernels())


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

"""The array libraries: NumPy, CuPy, PyTorch, MXNet, JAX, and each library with DLPack.

An op accepts arrays of the caller's library and returns arrays of that library. An executor sees a
NumPy array on the CPU, or an address on a GPU, which share the caller's memory. The root module of
an array's type selects the library, so that cvops imports no library by itself.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from cvops.arrays import dlpack
from cvops.arrays.base import ALIGNMENT as ALIGNMENT
from cvops.arrays.base import CPU as CPU
from cvops.arrays.base import ArrayType as ArrayType
from cvops.arrays.base import Description as Description
from cvops.arrays.base import Device as Device
from cvops.arrays.base import Library as Library
from cvops.arrays.base import MaskedNumPy, NumPy
from cvops.arrays.base import Memory as Memory
from cvops.arrays.base import dtype_name as dtype_name
from cvops.arrays.cupy import CuPy
from cvops.arrays.jax import Jax
from cvops.arrays.mxnet import MXNet, MXNetNumPy, SparseMXNet
from cvops.arrays.shapes import Shapes
from cvops.arrays.torch import Torch, WrappedTorch, has_memory

_JAX = Jax()
_BY_ROOT: dict[str, Library] = {
    "numpy": NumPy(),
    "cupy": CuPy(),
    "torch": Torch(),
    "mxnet": MXNet(),
    "jax": _JAX,
    "jaxlib": _JAX,
    "cvops": Shapes(),
}
_BY_MODULE: dict[str, Library] = {
    "mxnet.numpy": MXNetNumPy(),
    "mxnet.ndarray.sparse": SparseMXNet(),
    "numpy.ma": MaskedNumPy(),
    "numpy.ma.core": MaskedNumPy(),
}
_WRAPPED_TORCH = WrappedTorch()
_BY_TYPE: dict[type, Library | None] = {}


def library_of(x: Any) -> Library | None:
    """Return the library of an array; None if ``x`` is not an array of a known library."""
    try:
        return _BY_TYPE[type(x)]
    except KeyError:
        library = _BY_TYPE[type(x)] = _find_library(x)
        return library


def _find_library(x: Any) -> Library | None:
    if not (hasattr(x, "shape") and hasattr(x, "dtype")):
        return None
    modules = [base.__module__ for base in type(x).__mro__]
    found = [_BY_MODULE[module] for module in modules if module in _BY_MODULE]
    roots = (module.partition(".")[0] for module in modules)
    found += [_BY_ROOT[root] for root in roots if root in _BY_ROOT]
    if not found:
        return dlpack.find(x)
    library = found[0]
    return _WRAPPED_TORCH if isinstance(library, Torch) and not has_memory(type(x)) else library


def as_numbers(name: str, x: Any) -> np.ndarray:
    """Convert an array of numbers, of any library on any device, or nested lists, to NumPy.

    Raises:
        TypeError: ``x`` is not of numbers; flags and text are not numbers.
    """
    library = library_of(x)
    try:
        y = np.asarray(x if library is None else library.fetch(x))
    except (TypeError, ValueError) as error:  # ragged lists; dtypes that NumPy lacks
        raise TypeError(f"{name}: expected an array of numbers, got {x!r}") from error
    if y.dtype.kind not in "iuf":
        raise TypeError(f"{name}: expected an array of numbers, got {y.dtype} {x!r}")
    return y


def as_rows(name: str, x: Any, *widths: int) -> np.ndarray:
    """Convert rows of numbers, (n, W) with W in ``widths``, to NumPy; an empty list has n = 0.

    Raises:
        TypeError: ``x`` is not of numbers.
        ValueError: ``x`` has another shape.
    """
    rows = as_numbers(name, x)
    if rows.shape == (0,):
        rows = rows.reshape(0, widths[0])
    if rows.ndim != 2 or rows.shape[1] not in widths:
        want = " or ".join(f"(n, {width})" for width in widths)
        raise ValueError(f"{name}: expected shape {want}, got {rows.shape}")
    return rows

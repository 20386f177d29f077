"""The one place that knows which array libraries exist.

An op gets arrays of the caller's library and gives arrays of that library back. In between, an
array is a NumPy array (on the CPU) or memory of a GPU at an address, which share the caller's
memory. A library is found by the root module of its arrays' type, so that nothing is imported that
the caller did not bring.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from cvops.arrays.base import ALIGNMENT as ALIGNMENT
from cvops.arrays.base import CPU as CPU
from cvops.arrays.base import Description as Description
from cvops.arrays.base import Device as Device
from cvops.arrays.base import Library as Library
from cvops.arrays.base import MaskedNumPy, NumPy
from cvops.arrays.base import Memory as Memory
from cvops.arrays.base import dtype_name as dtype_name
from cvops.arrays.cupy import CuPy
from cvops.arrays.mxnet import MXNet, MXNetNumPy, SparseMXNet
from cvops.arrays.torch import Torch, WrappedTorch, has_memory

_BY_ROOT: dict[str, Library] = {
    "numpy": NumPy(),
    "cupy": CuPy(),
    "torch": Torch(),
    "mxnet": MXNet(),
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
    """The library that ``x`` is an array of; None if it is not an array that we know."""
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
        return None
    library = found[0]
    return _WRAPPED_TORCH if isinstance(library, Torch) and not has_memory(type(x)) else library


def as_numbers(name: str, x: Any) -> np.ndarray:
    """An array of numbers as NumPy's: of any library, on any device, or nested lists.

    Raises:
        TypeError: ``x`` is not of numbers; flags and text are none.
    """
    library = library_of(x)
    try:
        y = np.asarray(x if library is None else library.fetch(x))
    except (TypeError, ValueError) as error:  # ragged lists, dtypes that NumPy does not have
        raise TypeError(f"{name}: expected an array of numbers, got {x!r}") from error
    if y.dtype.kind not in "iuf":
        raise TypeError(f"{name}: expected an array of numbers, got {y.dtype} {x!r}")
    return y


def as_rows(name: str, x: Any, *widths: int) -> np.ndarray:
    """Rows of numbers, (n, W), W one of ``widths``, as :func:`as_numbers`; of an empty list n = 0.

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

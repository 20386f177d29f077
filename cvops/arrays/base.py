"""The interface of an array library, and NumPy."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from typing import Any, Callable, NamedTuple

import numpy as np

_ndarray = np.ndarray
#: The alignment in bytes that the kernels' 16-byte loads need.
ALIGNMENT = 16


class Device(NamedTuple):
    """The device of an array: ``kind`` is "cpu" or "cuda"."""

    kind: str
    number: int = 0

    def __str__(self) -> str:
        return "the CPU" if self.kind == "cpu" else f"GPU {self.number}"


CPU = Device("cpu")
#: The shape and the dtype of an array.
ArrayType = tuple[tuple[int, ...], Any]
#: The device of an array, its dtype (for :func:`dtype_name`) and its shape.
Description = tuple[Device, Any, tuple[int, ...]]
#: An address on a GPU, and the array or the like that keeps the memory alive.
Memory = tuple[int, Any]


def ceil_div(a: int, b: int) -> int:
    """Return a / b, rounded up."""
    return -(-a // b)


class Library:
    """An array library. ``x`` is an array of it throughout."""

    #: The name of an array of this library in an error message, with its article.
    name = "a NumPy array"
    #: False if the library's work runs on a stream that :meth:`stream` does not return.
    exposes_stream = True
    #: False if a description may have no hash; the checks are then not cached.
    is_hashable = True
    #: The attribute that is True for an array on the CPU. Its ``dtype``, which has no copies, and
    #: its ``shape`` then describe it as :meth:`describe` does. None: there is no such attribute.
    cpu_flag: str | None = None
    #: Runs a call that the library may record for a gradient, of a ``Signature``, the arrays and
    #: the options; its ``execute`` computes without recording. None: no gradients.
    autograd: Callable[[Any, Iterable[Any], tuple[Any, ...]], Any] | None = None
    #: Allocates an uninitialized array on the CPU, of a shape and a dtype, that :meth:`from_numpy`
    #: can return. None: any NumPy array.
    empty_cpu: Callable[[tuple[int, ...], Any], np.ndarray] | None = None

    def describe(self, x: Any) -> Description:
        """Return the hashable facts that the checks of an op need."""
        return CPU, x.dtype, x.shape

    def to_numpy(self, x: Any) -> np.ndarray:
        """Return ``x`` on the CPU as a C-contiguous, aligned NumPy array, without a copy if it can.

        The result shares the memory of an ``x`` that is contiguous and aligned.
        """
        if type(x) is _ndarray and x.flags.carray:
            return x
        # The operators of a subclass, such as numpy.matrix, may differ from an array's.
        return np.require(np.asarray(x), requirements=("C", "A"))

    def fetch(self, x: Any) -> np.ndarray:
        """Return ``x``, of any dtype on any device, as a NumPy array."""
        return np.asarray(x)

    def from_numpy(self, y: np.ndarray) -> Any:
        """Return ``y`` as an array of this library; a copy if :attr:`empty_cpu` did not make it."""
        return y

    def copy(self, x: Any) -> Any:
        """Return a new array with the values of ``x``."""
        return x.copy()

    def to_float32(self, x: Any) -> Any:
        """Return a float16 or bfloat16 array as a float32 array."""
        return x.astype(np.float32)

    def to_half(self, y: Any, dtype: Any) -> Any:
        """Return a float32 array in the dtype float16 or bfloat16; another array as it is."""
        if y.dtype != np.float32:
            return y
        with np.errstate(over="ignore"):  # the result is infinite
            return y.astype(dtype)

    def memory(self, x: Any) -> Memory:
        """Return the memory of ``x`` on a GPU; of a copy if it is not contiguous and aligned."""
        raise TypeError(f"{self.name} is not on a GPU")

    def empty_cuda(self, shape: tuple[int, ...], dtype: Any, device: Device) -> Memory:
        """Allocate an uninitialized array on a GPU, by the library, on its current stream."""
        raise TypeError(f"{self.name} is not on a GPU")

    def workspace(self, size: int, device: Device) -> Memory:
        """Allocate ``size`` bytes on a GPU, which need not be an array of the library."""
        return self.empty_cuda((size,), np.uint8, device)

    def stream(self, device: Device) -> int:
        """Return the ``cudaStream_t`` of the library's work on ``device``."""
        return 0

    def cast(self, before: str, dtype: str) -> str:
        """Return the rest of an error message: the method call that converts to ``dtype``.

        It is empty where a conversion loses a part of the values, as for complex numbers.
        """
        plain = re.fullmatch(r"[<>=|]?(bool|b?float\d*|u?int\d*|[biufO]\d*|object)", before)
        return f": convert it by {self._cast(before, dtype)}" if plain else ""

    def _cast(self, before: str, dtype: str) -> str:
        return f'.astype("{dtype}")'


@functools.lru_cache(None)
def dtype_name(dtype: Any) -> str:
    """Return the name of a dtype of NumPy or PyTorch: "float32"."""
    return str(dtype).rpartition(".")[2]


class NumPy(Library):
    pass


class MaskedNumPy(NumPy):
    def describe(self, x: Any) -> Description:
        raise TypeError(
            "expected an array without a mask, got a numpy.ma.MaskedArray: "
            "replace the masked elements first, for example by .filled(-1)"
        )

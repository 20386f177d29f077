"""The interface of an array library, and NumPy."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterable
from typing import Any, Callable, NamedTuple

import numpy as np

_ndarray = np.ndarray
#: From as many bytes on NumPy asks for huge pages.
_HUGE = 1 << 22
#: What the kernels' 16-byte loads need of a pointer.
ALIGNMENT = 16


class Device(NamedTuple):
    """Where an array lies: ``kind`` is "cpu" or "cuda"."""

    kind: str
    number: int = 0

    def __str__(self) -> str:
        return "the CPU" if self.kind == "cpu" else f"GPU {self.number}"


CPU = Device("cpu")
#: Where an array lies, its dtype (for :func:`dtype_name`) and its shape.
Description = tuple[Device, Any, tuple[int, ...]]
#: An address on a GPU, and the array or the like that keeps alive what lies there.
Memory = tuple[int, Any]


class Library:
    """An array library. ``x`` is an array of it throughout."""

    #: What an error message calls an array of this library.
    name = "NumPy array"
    #: True if :meth:`runner` takes the arrays of which an op reads the shape alone.
    takes_unread = False

    def describe(self, x: Any) -> Description:
        """What the checks of an op go by, all hashable."""
        return CPU, x.dtype, x.shape

    def to_numpy(self, x: Any) -> np.ndarray:
        """``x`` on the CPU as a C-contiguous, aligned NumPy array; a copy only if it is not."""
        if type(x) is _ndarray and x.flags.carray:
            return x
        # The operators of a subclass, such as numpy.matrix, may differ from an array's.
        return np.require(np.asarray(x), requirements=("C", "A"))

    def fetch(self, x: Any) -> np.ndarray:
        """``x`` of any dtype as a NumPy array, from any device."""
        return np.asarray(x)

    def new(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """New memory on the CPU, not initialised, for :meth:`from_numpy` to give out."""
        return np.empty(shape, dtype)

    def new_all(self, *kinds: tuple[tuple[int, ...], Any]) -> tuple[np.ndarray, ...]:
        """As :meth:`new` for several results, of shapes and dtypes.

        They may be parts of one array, which then lives as long as any of them: from 4 MiB on NumPy
        asks the system for huge pages, and to touch small ones for the first time may take longer
        than an op.
        """
        sizes = [math.prod(shape) * np.dtype(dtype).itemsize for shape, dtype in kinds]
        if sum(sizes) < _HUGE or min(sizes) >= _HUGE:
            return tuple([self.new(*kind) for kind in kinds])
        starts = np.cumsum([0, *(-(-size // 64) * 64 for size in sizes)])
        memory = self.new((int(starts[-1]),), np.uint8)
        parts = (memory[start : start + size] for start, size in zip(starts, sizes))
        return tuple([part.view(kind[1]).reshape(kind[0]) for part, kind in zip(parts, kinds)])

    def from_numpy(self, y: np.ndarray) -> Any:
        """An array of this library with ``y``'s memory if :meth:`new` made it, or a copy."""
        return y

    def copy(self, x: Any) -> Any:
        """A new array with the values of ``x``."""
        return x.copy()

    def memory(self, x: Any) -> Memory:
        """``x`` on a GPU as C-contiguous aligned memory, without a copy where it is that."""
        raise TypeError(f"a {self.name} does not lie on a GPU")

    def empty(self, shape: tuple[int, ...], dtype: Any, device: Device) -> Memory:
        """A new array on a GPU, from the library's own allocator on its current stream."""
        raise TypeError(f"a {self.name} does not lie on a GPU")

    def workspace(self, size: int, device: Device) -> Memory:
        """That many bytes on a GPU, which need not be an array of the library."""
        return self.empty((size,), np.uint8, device)

    def stream(self, device: Device) -> int:
        """The ``cudaStream_t`` that the library's work on ``device`` is queued on."""
        return 0

    def finish(self, gpu: Any) -> None:
        """Called after kernels are queued on ``gpu``, for a library that cannot know of them."""

    def runner(self, place: Any) -> Callable[[Any, Iterable[Any], tuple[Any, ...]], Any]:
        """The function that computes a call: of a plan, the caller's arrays and the options.

        A library with gradients puts a function of its own before the executor's.
        """
        return place.run

    def cast(self, before: str, dtype: str) -> str:
        """The rest of an error message: the method call that converts an array to ``dtype``.

        Empty where a conversion would lose a part of the values, as of complex numbers.
        """
        plain = re.fullmatch(r"[<>=|]?(bool|b?float\d*|u?int\d*|[biufO]\d*|object)", before)
        return f": convert it by {self._cast(before, dtype)}" if plain else ""

    def _cast(self, before: str, dtype: str) -> str:
        return f'.astype("{dtype}")'


@functools.lru_cache(None)
def dtype_name(dtype: Any) -> str:
    """The name of NumPy's or PyTorch's dtype: "float32"."""
    return str(dtype).rpartition(".")[2]


class NumPy(Library):
    pass


class MaskedNumPy(NumPy):
    def describe(self, x: Any) -> Description:
        raise TypeError(
            "expected an array without a mask, got a numpy.ma.MaskedArray: "
            "replace the masked elements first, for example by .filled(-1)"
        )

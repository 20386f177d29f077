"""What the bodies for a GPU have of it, and what is missing where there is none."""

from __future__ import annotations

import functools
import importlib
import importlib.util
from typing import Any

import numpy as np

from cvops import _kernels
from cvops._arrays import Buffer

#: The shape and the dtype of an array.
Kind = tuple[tuple[int, ...], Any]


class Gpu:
    """What a body has of a GPU."""

    #: Of the bodies in C++: the extension, and the ``cudaStream_t`` to queue on.
    module: Any
    stream: Any

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Buffer:
        """New memory for a result, not initialised."""
        raise NotImplementedError

    def empty_all(self, *kinds: Kind) -> tuple[Buffer, ...]:
        """The same for several."""
        return tuple([self.empty(*kind) for kind in kinds])

    def scratch(self, *kinds: Kind) -> tuple[Buffer, ...]:
        """Arrays that no one sees after the call, of shapes and dtypes."""
        raise NotImplementedError

    def workspace(self, size: int) -> Buffer:
        """That many bytes which no one sees after the call."""
        return self.scratch(((size,), np.uint8))[0]

    @property
    def multiprocessors(self) -> int:
        """How many the device has."""
        raise NotImplementedError

    @property
    def most_shared(self) -> int:
        """The most bytes of shared memory that a block may have."""
        raise NotImplementedError

    def launch(
        self,
        source: str,
        kernel: str,
        grid: tuple[int, ...],
        block: tuple[int, ...],
        *args: Any,
        shared: int = 0,
    ) -> None:
        """Queue ``kernel`` of ``kernels/<source>.cuh``. Nothing to do if a grid's size is 0.

        ``args`` are buffers (None is a null pointer), numbers (cast to the types that the kernel
        declares) and structs (0-d structured NumPy arrays, passed by value). ``shared`` is in
        bytes.
        """
        if 0 not in grid:
            self._launch(source, kernel, grid, block, args, shared)

    def _launch(
        self,
        source: str,
        kernel: str,
        grid: tuple[int, ...],
        block: tuple[int, ...],
        args: tuple[Any, ...],
        shared: int,
    ) -> None:
        raise NotImplementedError


@functools.lru_cache(None)
def extension() -> Any:
    """The compiled extension; None where it was not built."""
    if importlib.util.find_spec("cvops._native") is None:
        return None
    return importlib.import_module("cvops._native")


def missing_extension() -> str | None:
    return None if extension() is not None else "needs the compiled extension cvops._native"


def missing_cuda_extension() -> str | None:
    if extension() is None or not extension().has_cuda:
        return "needs cvops._native built with a CUDA toolkit"
    return None if extension().device_count() > 0 else "needs an NVIDIA GPU and its driver"


def missing_cupy() -> str | None:
    if importlib.util.find_spec("cupy") is None:
        return "needs CuPy: pip install cvops[cuda12] or cvops[cuda13]"
    return None if _kernels.device_count() > 0 else "needs an NVIDIA GPU and its driver"

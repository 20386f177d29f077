"""MXNet's arrays, by MXNet's C functions."""

from __future__ import annotations

import ctypes
import functools
import math
import sys
from collections.abc import Iterable
from typing import Any, Callable

import numpy as np

from cvops.arrays.base import ALIGNMENT, CPU, Description, Device, Library, Memory


class MXNet(Library):
    """``mx.nd.NDArray``, and ``mx.np.ndarray`` in :class:`MXNetNumPy`.

    MXNet computes in the background: an input is waited for before its memory is read. A result is
    written to memory that MXNet gives, before MXNet knows of anything that would read it. On the
    GPU MXNet gives its stream to nobody, so that our kernels go to the default stream and are
    waited for.

    All through MXNet's C functions, since the properties of its arrays take longer.
    """

    name = "MXNet NDArray"
    takes_unread = True
    #: Computes a call while MXNet records; :mod:`cvops` sets it.
    run_recording: Callable[[Any, tuple[Any, ...], tuple[Any, ...]], Any]

    def runner(self, place: Any) -> Callable[[Any, Iterable[Any], tuple[Any, ...]], Any]:
        return self._run

    def _run(self, plan: Any, arrays: Iterable[Any], options: tuple[Any, ...]) -> Any:
        recording = ctypes.c_bool()
        _call("MXAutogradIsRecording", ctypes.byref(recording))
        if recording.value:
            return self.run_recording(plan, tuple(arrays), options)
        return plan.place.run(plan, arrays if plan.kinds else (), options)

    def describe(self, x: Any) -> Description:
        return self._device(x), self._dtype(x), self._shape(x)

    def _device(self, x: Any) -> Device:
        kind, number = ctypes.c_int(), ctypes.c_int()
        _call("MXNDArrayGetContext", x.handle, ctypes.byref(kind), ctypes.byref(number))
        return Device("cuda", number.value) if kind.value == _GPU else CPU

    def _dtype(self, x: Any) -> np.dtype[Any]:
        code = ctypes.c_int()
        _call("MXNDArrayGetDType", x.handle, ctypes.byref(code))
        return _dtypes()[code.value]

    def _shape(self, x: Any) -> tuple[int, ...]:
        count, axes = ctypes.c_int(), ctypes.POINTER(ctypes.c_int64)()
        _call("MXNDArrayGetShapeEx64", x.handle, ctypes.byref(count), ctypes.byref(axes))
        return tuple(axes[: count.value])

    def _wait(self, x: Any) -> None:
        _call("MXNDArrayWaitToRead", x.handle)

    def _pointer(self, x: Any) -> int:
        """Of what was waited for."""
        pointer = ctypes.c_void_p()
        _call("MXNDArrayGetData", x.handle, ctypes.byref(pointer))
        return pointer.value or 0

    def to_numpy(self, x: Any) -> np.ndarray:
        self._wait(x)
        return self._view(x, self._shape(x), self._dtype(x))

    def fetch(self, x: Any) -> np.ndarray:
        return np.asarray(x.asnumpy())

    def _view(self, x: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
        size = math.prod(shape) * dtype.itemsize
        if size == 0:
            return np.empty(shape, dtype)
        memory: Any = (ctypes.c_char * size).from_address(self._pointer(x))
        memory.owner = x  # the view keeps `memory` alive, and `memory` the NDArray
        return np.ndarray(shape, dtype, memory)

    def new(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        return self._view(self._new(shape, dtype, CPU), shape, np.dtype(dtype))

    def new_all(self, *kinds: tuple[tuple[int, ...], Any]) -> tuple[np.ndarray, ...]:
        return tuple([self.new(*kind) for kind in kinds])

    def from_numpy(self, y: np.ndarray) -> Any:
        if y.size == 0:
            return self._new(y.shape, y.dtype, CPU)
        if not isinstance(y.base, ctypes.Array):
            copy = self.new(y.shape, y.dtype)
            copy[...] = y
            y = copy
        return y.base.owner  # type: ignore[union-attr]

    def _new(self, shape: tuple[int, ...], dtype: Any, device: Device) -> Any:
        where = _CPU if device.kind == "cpu" else _GPU
        axes = (ctypes.c_int64 * len(shape))(*shape)
        code = _codes()[np.dtype(dtype)]
        handle, at_once = ctypes.c_void_p(), 0
        _call(
            *("MXNDArrayCreateEx64", axes, len(shape), where, device.number, at_once, code),
            ctypes.byref(handle),
        )
        return self._array(handle)

    def _array(self, handle: ctypes.c_void_p) -> Any:
        return sys.modules["mxnet"].nd.NDArray(handle)

    def memory(self, x: Any) -> Memory:
        self._wait(x)
        if self._pointer(x) % ALIGNMENT:  # a part of another
            x = x.copy()
            self._wait(x)
        return self._pointer(x), x

    def empty(self, shape: tuple[int, ...], dtype: Any, device: Device) -> Memory:
        return self.memory(self._new(shape, dtype, device))

    def finish(self, gpu: Any) -> None:
        gpu.synchronize()


#: MXNet's numbers for kinds of devices.
_CPU, _GPU = 1, 2


def _call(function: str, *args: Any) -> None:
    """Call a function of MXNet's C interface."""
    base = sys.modules["mxnet"].base
    if getattr(base._LIB, function)(*args):
        raise base.get_last_ffi_error()


@functools.lru_cache(None)
def _dtypes() -> dict[int, np.dtype[Any]]:
    """Of MXNet's numbers for them."""
    kinds = sys.modules["mxnet"].ndarray.ndarray._DTYPE_MX_TO_NP
    return {code: np.dtype(kind) for code, kind in kinds.items() if kind is not None}


@functools.lru_cache(None)
def _codes() -> dict[np.dtype[Any], int]:
    return {dtype: code for code, dtype in _dtypes().items()}


class MXNetNumPy(MXNet):
    name = "MXNet NumPy ndarray"

    def _array(self, handle: ctypes.c_void_p) -> Any:
        return sys.modules["mxnet"].np.ndarray(handle)


class SparseMXNet(MXNet):
    def describe(self, x: Any) -> Description:
        raise TypeError(
            f"expected a dense NDArray, got one of storage type {x.stype!r}: "
            'convert it by .tostype("default")'
        )

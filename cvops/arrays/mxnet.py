"""MXNet's arrays, through the C API of MXNet."""

from __future__ import annotations

import ctypes
import functools
import math
import sys
from collections.abc import Iterable
from typing import Any

import numpy as np

from cvops.arrays import mxnet_autograd
from cvops.arrays.base import ALIGNMENT, CPU, Description, Device, Library, Memory


class MXNet(Library):
    """``mx.nd.NDArray``, and ``mx.np.ndarray`` in :class:`MXNetNumPy`.

    MXNet computes asynchronously: the memory of an input is read after a wait for the input. The
    memory of a result is written before any work of MXNet can read it. On a GPU, MXNet does not
    expose its stream: the kernels run on the default stream, and the executor waits for them.

    The C functions of MXNet are faster than the properties of its arrays.
    """

    name = "an MXNet NDArray"
    exposes_stream = False

    def autograd(self, signature: Any, arrays: Iterable[Any], options: tuple[Any, ...]) -> Any:
        recording = ctypes.c_bool()
        _call("MXAutogradIsRecording", ctypes.byref(recording))
        if recording.value:
            return mxnet_autograd.run(signature, tuple(arrays), options)
        return signature.execute(arrays, options)

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
        """Return the address of an array whose computation is complete."""
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

    def empty_cpu(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        return self._view(self._new(shape, dtype, CPU), shape, np.dtype(dtype))

    def from_numpy(self, y: np.ndarray) -> Any:
        if y.size == 0:
            return self._new(y.shape, y.dtype, CPU)
        if not isinstance(y.base, ctypes.Array):
            copy = self.empty_cpu(y.shape, y.dtype)
            copy[...] = y
            y = copy
        return y.base.owner  # type: ignore[union-attr]

    def _new(self, shape: tuple[int, ...], dtype: Any, device: Device) -> Any:
        where = _CPU if device.kind == "cpu" else _GPU
        axes = (ctypes.c_int64 * len(shape))(*shape)
        code = _codes()[np.dtype(dtype)]
        handle, delayed = ctypes.c_void_p(), 0
        _call(
            "MXNDArrayCreateEx64",
            axes,
            len(shape),
            where,
            device.number,
            delayed,
            code,
            ctypes.byref(handle),
        )
        return self._array(handle)

    def _array(self, handle: ctypes.c_void_p) -> Any:
        return sys.modules["mxnet"].nd.NDArray(handle)

    def memory(self, x: Any) -> Memory:
        self._wait(x)
        if self._pointer(x) % ALIGNMENT:  # a slice of another array
            x = x.copy()
            self._wait(x)
        return self._pointer(x), x

    def empty_cuda(self, shape: tuple[int, ...], dtype: Any, device: Device) -> Memory:
        return self.memory(self._new(shape, dtype, device))


#: MXNet's codes of the kinds of devices.
_CPU, _GPU = 1, 2


def _call(function: str, *args: Any) -> None:
    """Call a function of MXNet's C API."""
    base = sys.modules["mxnet"].base
    if getattr(base._LIB, function)(*args):
        raise base.get_last_ffi_error()


@functools.lru_cache(None)
def _dtypes() -> dict[int, np.dtype[Any]]:
    """Map MXNet's codes of dtypes to the dtypes."""
    kinds = sys.modules["mxnet"].ndarray.ndarray._DTYPE_MX_TO_NP
    return {code: np.dtype(kind) for code, kind in kinds.items() if kind is not None}


@functools.lru_cache(None)
def _codes() -> dict[np.dtype[Any], int]:
    return {dtype: code for code, dtype in _dtypes().items()}


class MXNetNumPy(MXNet):
    name = "an MXNet NumPy ndarray"

    def _array(self, handle: ctypes.c_void_p) -> Any:
        return sys.modules["mxnet"].np.ndarray(handle)


class SparseMXNet(MXNet):
    def describe(self, x: Any) -> Description:
        raise TypeError(
            f"expected a dense NDArray, got one of storage type {x.stype!r}: "
            'convert it by .tostype("default")'
        )

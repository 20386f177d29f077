"""The one place that knows which array libraries exist.

An op gets arrays of the caller's library and gives arrays of that library back. In between, an
array is a NumPy array (on the CPU) or a :class:`Buffer` (on a GPU), which share the caller's
memory. A library is found by the root module of its arrays' type, so that nothing is imported that
the caller did not bring.
"""

from __future__ import annotations

import ctypes
import functools
import sys
from typing import Any, NamedTuple

import numpy as np

#: What the kernels' 16-byte loads need of a pointer.
ALIGNMENT = 16


class Device(NamedTuple):
    """Where an array lies: ``kind`` is "cpu" or "cuda"."""

    kind: str
    number: int = 0

    def __str__(self) -> str:
        return "the CPU" if self.kind == "cpu" else f"GPU {self.number}"


class Buffer(NamedTuple):
    """C-contiguous memory of a GPU. ``owner`` is the library's array that keeps it alive."""

    pointer: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    owner: Any

    @property
    def size(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64))


class Library:
    """An array library. ``x`` is an array of it throughout."""

    #: What an error message calls an array of this library.
    name = "NumPy array"

    def device(self, x: Any) -> Device:
        return Device("cpu")

    def dtype(self, x: Any) -> str:
        """The name of ``x``'s dtype: NumPy's where NumPy has it."""
        return _dtype_name(x.dtype)

    def to_numpy(self, x: Any) -> np.ndarray:
        """``x`` on the CPU as a C-contiguous, aligned NumPy array; a copy only if it is not."""
        if type(x) is np.ndarray and x.flags.c_contiguous and x.flags.aligned:
            return x
        return np.require(x, requirements=("C", "A"))

    def from_numpy(self, y: np.ndarray) -> Any:
        """An array of this library with ``y``'s memory."""
        return y

    def copy(self, x: Any) -> Any:
        """A new array with the values of ``x``."""
        return x.copy()

    def to_buffer(self, x: Any) -> Buffer:
        """``x`` on a GPU as C-contiguous aligned memory, without a copy where it is that."""
        raise TypeError(f"a {self.name} does not lie on a GPU")

    def empty(self, shape: tuple[int, ...], dtype: Any, device: Device) -> Buffer:
        """New memory on a GPU, from the library's own allocator on its current stream."""
        raise TypeError(f"a {self.name} does not lie on a GPU")

    def stream(self, device: Device) -> int:
        """The ``cudaStream_t`` that the library's work on ``device`` is queued on."""
        return 0

    def finish(self, gpu: Any) -> None:
        """Called after kernels are queued on ``gpu``, for a library that cannot know of them."""


@functools.lru_cache(None)
def _dtype_name(dtype: Any) -> str:
    """Kept, because NumPy takes longer over it than over the rest of a call."""
    return str(dtype)


class NumPy(Library):
    pass


class CuPy(Library):
    name = "CuPy array"

    def device(self, x: Any) -> Device:
        return Device("cuda", x.device.id)

    def to_buffer(self, x: Any) -> Buffer:
        import cupy

        x = cupy.ascontiguousarray(x)
        if x.data.ptr % ALIGNMENT:
            x = x.copy()
        return Buffer(x.data.ptr, x.shape, x.dtype, x)

    def empty(self, shape: tuple[int, ...], dtype: Any, device: Device) -> Buffer:
        import cupy

        with cupy.cuda.Device(device.number):
            return self.to_buffer(cupy.empty(shape, dtype))

    def stream(self, device: Device) -> int:
        import cupy

        with cupy.cuda.Device(device.number):
            return int(cupy.cuda.get_current_stream().ptr)


class Torch(Library):
    """PyTorch tensors. Results do not require a gradient."""

    name = "PyTorch tensor"

    def device(self, x: Any) -> Device:
        if x.device.type not in ("cpu", "cuda"):
            raise TypeError(f"expected a tensor on the CPU or a CUDA device, got one on {x.device}")
        return Device(x.device.type, x.device.index or 0)

    def dtype(self, x: Any) -> str:
        return _dtype_name(x.dtype).rpartition(".")[2]

    def to_numpy(self, x: Any) -> np.ndarray:
        return super().to_numpy(x.detach().contiguous().numpy())

    def from_numpy(self, y: np.ndarray) -> Any:
        import torch

        return torch.from_numpy(y)

    def copy(self, x: Any) -> Any:
        return x.detach().clone()

    def to_buffer(self, x: Any) -> Buffer:
        x = x.detach().contiguous()
        if x.data_ptr() % ALIGNMENT:
            x = x.clone()
        return Buffer(x.data_ptr(), tuple(x.shape), np.dtype(self.dtype(x)), x)

    def empty(self, shape: tuple[int, ...], dtype: Any, device: Device) -> Buffer:
        import torch

        kind = getattr(torch, np.dtype(dtype).name)
        return self.to_buffer(torch.empty(shape, dtype=kind, device=f"cuda:{device.number}"))

    def stream(self, device: Device) -> int:
        import torch

        return int(torch.cuda.current_stream(device.number).cuda_stream)


class MXNet(Library):
    """``mx.nd.NDArray``, and ``mx.np.ndarray`` in :class:`MXNetNumPy`.

    MXNet computes in the background: an input is waited for before its memory is read. On the GPU
    MXNet gives its stream to nobody, so that our kernels go to the default stream and are waited
    for.
    """

    name = "MXNet NDArray"

    def device(self, x: Any) -> Device:
        if getattr(x, "stype", "default") != "default":
            raise TypeError(f"expected a dense NDArray, got one of storage type {x.stype!r}")
        context = x.ctx
        kind = context.device_type
        return Device("cuda", context.device_id) if kind == "gpu" else Device("cpu")

    def dtype(self, x: Any) -> str:
        return _dtype_name(np.dtype(x.dtype))

    def _pointer(self, x: Any) -> int:
        base = sys.modules["mxnet"].base
        pointer = ctypes.c_void_p()
        x.wait_to_read()
        base.check_call(base._LIB.MXNDArrayGetData(x.handle, ctypes.byref(pointer)))
        return pointer.value or 0

    def to_numpy(self, x: Any) -> np.ndarray:
        dtype = np.dtype(x.dtype)
        size = int(np.prod(x.shape, dtype=np.int64))
        if size == 0:
            return np.empty(x.shape, dtype)
        memory: Any = (ctypes.c_char * (size * dtype.itemsize)).from_address(self._pointer(x))
        memory.owner = x  # the view keeps `memory` alive, and `memory` the NDArray
        return np.frombuffer(memory, dtype).reshape(x.shape)

    def from_numpy(self, y: np.ndarray) -> Any:
        mx = sys.modules["mxnet"]
        if y.size == 0:
            return mx.nd.empty(y.shape, dtype=y.dtype)
        return mx.nd.from_dlpack(y.__dlpack__())

    def to_buffer(self, x: Any) -> Buffer:
        if self._pointer(x) % ALIGNMENT:  # a part of another
            x = x.copy()
        return Buffer(self._pointer(x), x.shape, np.dtype(x.dtype), x)

    def empty(self, shape: tuple[int, ...], dtype: Any, device: Device) -> Buffer:
        mx = sys.modules["mxnet"]
        kinds = {"uint64": "int64", "uint32": "int32"}  # which MXNet does not have
        name = np.dtype(dtype).name
        x = mx.nd.empty(shape, ctx=mx.gpu(device.number), dtype=kinds.get(name, name))
        return self.to_buffer(x)

    def finish(self, gpu: Any) -> None:
        gpu.synchronize()


class MXNetNumPy(MXNet):
    name = "MXNet NumPy ndarray"

    def from_numpy(self, y: np.ndarray) -> Any:
        return super().from_numpy(y).as_np_ndarray()

    def empty(self, shape: tuple[int, ...], dtype: Any, device: Device) -> Buffer:
        buffer = super().empty(shape, dtype, device)
        return buffer._replace(owner=buffer.owner.as_np_ndarray())


_BY_ROOT: dict[str, Library] = {
    "numpy": NumPy(),
    "cupy": CuPy(),
    "torch": Torch(),
    "mxnet": MXNet(),
}
_MXNET_NUMPY = MXNetNumPy()
_BY_TYPE: dict[type, Library | None] = {}


def library_of(x: Any) -> Library | None:
    """The library that ``x`` is an array of; None if it is not an array that we know."""
    kind = type(x)
    if kind not in _BY_TYPE:
        roots = (base.__module__.partition(".")[0] for base in kind.__mro__)
        root = next((root for root in roots if root in _BY_ROOT), None)
        known = root is not None and hasattr(x, "shape") and hasattr(x, "dtype")
        library = _BY_ROOT[root] if root is not None and known else None
        if root == "mxnet" and kind.__module__.startswith("mxnet.numpy"):
            library = _MXNET_NUMPY
        _BY_TYPE[kind] = library
    return _BY_TYPE[kind]

"""Arrays of any other library, through DLPack and the array API standard.

The arrays have ``__dlpack__`` and ``__dlpack_device__``. Their namespace has ``from_dlpack``: the
result of ``__array_namespace__``, or the root module of their type. On a GPU it also has ``empty``,
and the arrays have ``device``. The values of an array, and of a result, stay in their memory.
"""

from __future__ import annotations

import ctypes
import math
import sys
from typing import Any, NamedTuple

import numpy as np

from cvops.arrays.base import ALIGNMENT, CPU, Description, Device, Library, Memory

#: DLPack's kinds of devices with memory that the CPU can read, and those of CUDA.
_ON_CPU, _ON_CUDA = (1, 3), (2, 13)
#: DLPack's codes of the kinds of elements.
_KINDS = {0: "int", 1: "uint", 2: "float", 4: "bfloat", 5: "complex", 6: "bool"}
#: The legacy default stream of CUDA, as DLPack names it and as the driver does.
_STREAM, _STREAM_OF_DRIVER = 1, 0


#: The names of capsules, and the offset in bytes of the ``DLTensor`` in the struct of each.
_OFFSETS = {b"dltensor": 0, b"dltensor_versioned": 32}


class _Tensor(ctypes.Structure):
    """``DLTensor`` of DLPack's C header."""

    _fields_ = [
        ("data", ctypes.c_void_p),
        ("device_kind", ctypes.c_int32),
        ("device_number", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    ]


# The functions of ctypes.pythonapi are those of the whole process; MXNet gives them other types.
_name_of = ctypes.PYFUNCTYPE(ctypes.c_char_p, ctypes.py_object)(
    ("PyCapsule_GetName", ctypes.pythonapi)
)
_pointer_of = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)


class _Export(NamedTuple):
    """An array as DLPack describes it. Its memory lives as long as the capsule."""

    capsule: Any
    pointer: int
    dtype: str
    shape: tuple[int, ...]
    is_contiguous: bool


def _capsule(x: Any, **options: Any) -> Any:
    """Return the capsule of an array: of DLPack 1, which can be read-only, or of an older one."""
    try:
        return x.__dlpack__(max_version=(1, 0), **options)
    except Exception:  # libraries raise various errors for the argument
        pass
    try:
        return x.__dlpack__(**options)
    except (BufferError, NotImplementedError, RuntimeError, TypeError, ValueError) as error:
        raise TypeError(f"expected an array that DLPack can describe: {error}") from error


def _export(x: Any, **options: Any) -> _Export:
    capsule = _capsule(x, **options)
    name = _name_of(capsule)
    tensor = _Tensor.from_address(_pointer_of(capsule, name) + _OFFSETS[name])
    shape = tuple(tensor.shape[: tensor.ndim])
    dense = [math.prod(shape[i + 1 :]) for i in range(tensor.ndim)]
    strides = tensor.strides[: tensor.ndim] if tensor.strides else dense
    # The stride of an axis of length 1 has no meaning.
    same = all(size == 1 or a == b for size, a, b in zip(shape, strides, dense))
    kind, bits = _KINDS.get(tensor.code, f"type {tensor.code} of bits "), tensor.bits
    dtype = kind if kind == "bool" else f"{kind}{bits}"
    return _Export(
        capsule,
        (tensor.data or 0) + tensor.byte_offset,
        dtype if tensor.lanes == 1 else f"{dtype}x{tensor.lanes}",
        shape,
        same or 0 in shape,
    )


class DLPack(Library):
    """The arrays of one namespace."""

    # The executor waits for the kernels: the library has no stream that it could use.
    exposes_stream = False

    def __init__(self, namespace: Any):
        self._namespace = namespace
        self._module = getattr(namespace, "__name__", type(namespace).__name__)
        self.name = f"an array of {self._module}"
        #: The library's own object for each GPU.
        self._devices: dict[Device, Any] = {}

    def describe(self, x: Any) -> Description:
        if not hasattr(self._namespace, "from_dlpack"):
            raise TypeError(
                f"expected an array of a library with from_dlpack, got one of {self._module}: "
                "convert it by numpy.from_dlpack"
            )
        kind, number = map(int, x.__dlpack_device__())
        if kind in _ON_CPU:
            found = _export(x)
            return CPU, found.dtype, found.shape
        if kind not in _ON_CUDA:
            raise TypeError(
                f"expected an array on the CPU or a CUDA device, got one on DLPack's device {kind}"
            )
        device, found = Device("cuda", number), _export(x, stream=_STREAM)
        if not found.is_contiguous or found.pointer % ALIGNMENT:
            raise TypeError(
                f"expected a C-contiguous array at a multiple of {ALIGNMENT} bytes on {device}, "
                "got another layout: copy it"
            )
        self._devices[device] = getattr(x, "device", None)
        return device, found.dtype, found.shape

    def to_numpy(self, x: Any) -> np.ndarray:
        return np.require(np.from_dlpack(x), requirements=("C", "A"))

    def fetch(self, x: Any) -> np.ndarray:
        if int(x.__dlpack_device__()[0]) not in _ON_CPU:
            raise TypeError("its values are on a GPU: copy it to the CPU")
        return np.from_dlpack(x)

    def from_numpy(self, y: np.ndarray) -> Any:
        return self._namespace.from_dlpack(y)

    def memory(self, x: Any) -> Memory:
        found = _export(x, stream=_STREAM)
        return found.pointer, (x, found.capsule)

    def empty_cuda(self, shape: tuple[int, ...], dtype: Any, device: Device) -> Memory:
        kind = getattr(self._namespace, np.dtype(dtype).name)
        x = self._namespace.empty(shape, dtype=kind, device=self._devices[device])
        return _export(x, stream=_STREAM).pointer, x

    def stream(self, device: Device) -> int:
        return _STREAM_OF_DRIVER

    def to_float32(self, x: Any) -> Any:
        return self._namespace.astype(x, self._namespace.float32)

    def to_half(self, y: Any, dtype: Any) -> Any:
        is_single = str(y.dtype).rpartition(".")[2] == "float32"
        return self._namespace.astype(y, getattr(self._namespace, dtype)) if is_single else y

    def _cast(self, before: str, dtype: str) -> str:
        return f"{self._module}.astype(x, {self._module}.{dtype})"


_libraries: dict[int, DLPack] = {}


def find(x: Any) -> DLPack | None:
    """Return the library of an array that none of our other files knows; None without DLPack."""
    if not (hasattr(x, "__dlpack__") and hasattr(x, "__dlpack_device__")):
        return None
    if hasattr(x, "__array_namespace__"):
        namespace = x.__array_namespace__()
    else:
        namespace = sys.modules[type(x).__module__.partition(".")[0]]
    # The library keeps the namespace, so that its id stays its own.
    return _libraries.setdefault(id(namespace), DLPack(namespace))

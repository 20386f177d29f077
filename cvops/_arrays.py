"""The one place that knows which array libraries exist.

An op gets arrays of the caller's library and gives arrays of that library back. In between, an
array is a NumPy array (on the CPU) or memory of a GPU at an address, which share the caller's
memory. A library is found by the root module of its arrays' type, so that nothing is imported that
the caller did not bring.
"""

from __future__ import annotations

import ctypes
import functools
import math
import operator
import re
import sys
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


class Buffer(NamedTuple):
    """C-contiguous memory of a GPU."""

    #: Its address.
    pointer: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    #: What keeps it alive.
    owner: Any = None

    @property
    def size(self) -> int:
        return math.prod(self.shape)


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


@functools.lru_cache(None)
def _gpu(number: int) -> Device:
    return Device("cuda", number)


class CuPy(Library):
    name = "CuPy array"

    # What each call needs of CuPy, found once.

    @functools.cached_property
    def _new(self) -> Callable[..., Any]:
        return sys.modules["cupy"].ndarray

    @functools.cached_property
    def _alloc(self) -> Callable[[int], Any]:
        return sys.modules["cupy"].cuda.alloc

    @functools.cached_property
    def _current(self) -> Callable[[], int]:
        return sys.modules["cupy"].cuda.runtime.getDevice

    @functools.cached_property
    def _stream(self) -> Callable[[int], Any]:
        return sys.modules["cupy"].cuda.get_current_stream

    @functools.cached_property
    def _is_contiguous(self) -> Callable[[Any], bool]:
        # Without the object that ``flags`` makes, where there is a way.
        short = hasattr(self._new, "_c_contiguous")
        return operator.attrgetter("_c_contiguous" if short else "flags.c_contiguous")

    def describe(self, x: Any) -> Description:
        return _gpu(x.data.device_id), x.dtype, x.shape

    def fetch(self, x: Any) -> np.ndarray:
        return np.asarray(x.get())

    def memory(self, x: Any) -> Memory:
        pointer = x.data.ptr
        if pointer % ALIGNMENT or not self._is_contiguous(x):
            from cvops._kernels import load_nvrtc

            load_nvrtc()  # CuPy copies by a kernel of its own, to the current device
            with x.device:
                x = x.copy()
            pointer = x.data.ptr
        return pointer, x

    def empty(self, shape: tuple[int, ...], dtype: Any, device: Device) -> Memory:
        if self._current() == device.number:
            x = self._new(shape, dtype)
        else:
            with sys.modules["cupy"].cuda.Device(device.number):
                x = self._new(shape, dtype)
        return x.data.ptr, x

    def workspace(self, size: int, device: Device) -> Memory:
        if self._current() == device.number:
            memory = self._alloc(size)
        else:
            with sys.modules["cupy"].cuda.Device(device.number):
                memory = self._alloc(size)
        return memory.ptr, memory

    def stream(self, device: Device) -> int:
        pointer: int = self._stream(device.number).ptr
        return pointer


class Torch(Library):
    """PyTorch tensors. :mod:`cvops._torch` has their gradients, and what is refused."""

    name = "PyTorch tensor"

    # The functions of PyTorch that each call needs, found once.

    @functools.cached_property
    def _is_tracing(self) -> Callable[[], bool]:
        return sys.modules["torch"]._C._is_tracing

    @functools.cached_property
    def _count_modes(self) -> Callable[[], int]:
        return sys.modules["torch"]._C._len_torch_dispatch_stack

    @functools.cached_property
    def _forward_ad(self) -> Any:
        return sys.modules["torch"].autograd.forward_ad

    def describe(self, x: Any) -> Description:
        if self._is_tracing():
            from cvops import _torch

            raise _torch.refusal("torch.jit.trace")
        try:
            return CPU if x.is_cpu else _torch_device(x.device), x.dtype, x.shape
        except RuntimeError as error:  # a nested tensor has no shape
            raise TypeError(f"expected a tensor with a shape, got {type(x)}: {error}") from None

    def runner(self, place: Any) -> Callable[[Any, Iterable[Any], tuple[Any, ...]], Any]:
        return self._run

    def _run(self, plan: Any, arrays: Iterable[Any], options: tuple[Any, ...]) -> Any:
        if not self._count_modes() and self._forward_ad._current_level < 0:
            for x in arrays:
                if x.requires_grad:
                    break
            else:
                try:
                    return plan.place.run(plan, arrays, options)
                except (RuntimeError, TypeError):
                    from cvops import _torch

                    _torch.check(plan, arrays)
                    raise
        from cvops import _torch

        return _torch.run(plan, arrays, options)

    def to_numpy(self, x: Any) -> np.ndarray:
        try:
            y = x.numpy()
        except RuntimeError:  # it requires a gradient, or its negative bit is set
            y = x.numpy(force=True)
        return y if y.flags.carray else np.require(y, requirements=("C", "A"))

    def _cast(self, before: str, dtype: str) -> str:
        return f".to(torch.{dtype})"

    def fetch(self, x: Any) -> np.ndarray:
        return np.asarray(x.detach().cpu().numpy())

    def from_numpy(self, y: np.ndarray) -> Any:
        return sys.modules["torch"].from_numpy(y)

    def copy(self, x: Any) -> Any:
        return x.detach().clone()

    def memory(self, x: Any) -> Memory:
        if x.requires_grad:
            x = x.detach()
        if x.is_neg() or not x.is_contiguous():
            x = x.resolve_neg().contiguous()
        pointer = x.data_ptr()
        if pointer % ALIGNMENT:
            x = x.clone()
            pointer = x.data_ptr()
        return pointer, x

    def empty(self, shape: tuple[int, ...], dtype: Any, device: Device) -> Memory:
        kind, where = _torch_dtype(dtype), _torch_gpu(device.number)
        x = sys.modules["torch"].empty(shape, dtype=kind, device=where)
        return x.data_ptr(), x

    def stream(self, device: Device) -> int:
        return int(_torch_stream()(device.number))


@functools.lru_cache(None)
def _torch_device(device: Any) -> Device:
    if device.type not in ("cpu", "cuda"):
        raise TypeError(f"expected a tensor on the CPU or a CUDA device, got one on {device}")
    return Device(device.type, device.index or 0)


@functools.lru_cache(None)
def _torch_gpu(number: int) -> Any:
    return sys.modules["torch"].device("cuda", number)


@functools.lru_cache(None)
def _torch_dtype(dtype: Any) -> Any:
    """NumPy's as PyTorch has it."""
    return getattr(sys.modules["torch"], np.dtype(dtype).name)


@functools.lru_cache(None)
def _torch_stream() -> Callable[[int], int]:
    """What gives the current stream of a GPU."""
    torch = sys.modules["torch"]
    try:
        # Without the object that the public function makes: what PyTorch's own compiled code asks.
        found: Callable[[int], int] = torch._C._cuda_getCurrentRawStream
        return found
    except AttributeError:
        return lambda number: torch.cuda.current_stream(number).cuda_stream


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

    def runner(self, place: Any) -> Callable[[Any, Iterable[Any], tuple[Any, ...]], Any]:
        return self._run

    def _run(self, plan: Any, arrays: Iterable[Any], options: tuple[Any, ...]) -> Any:
        recording = ctypes.c_bool()
        _mxnet("MXAutogradIsRecording", ctypes.byref(recording))
        if recording.value:
            from cvops import _recording

            return _recording.run(plan, tuple(arrays), options)
        return plan.place.run(plan, arrays if plan.kinds else (), options)

    def describe(self, x: Any) -> Description:
        return self._device(x), self._dtype(x), self._shape(x)

    def _device(self, x: Any) -> Device:
        kind, number = ctypes.c_int(), ctypes.c_int()
        _mxnet("MXNDArrayGetContext", x.handle, ctypes.byref(kind), ctypes.byref(number))
        return Device("cuda", number.value) if kind.value == _MXNET_GPU else CPU

    def _dtype(self, x: Any) -> np.dtype[Any]:
        code = ctypes.c_int()
        _mxnet("MXNDArrayGetDType", x.handle, ctypes.byref(code))
        return _mxnet_dtypes()[code.value]

    def _shape(self, x: Any) -> tuple[int, ...]:
        count, axes = ctypes.c_int(), ctypes.POINTER(ctypes.c_int64)()
        _mxnet("MXNDArrayGetShapeEx64", x.handle, ctypes.byref(count), ctypes.byref(axes))
        return tuple(axes[: count.value])

    def _wait(self, x: Any) -> None:
        _mxnet("MXNDArrayWaitToRead", x.handle)

    def _pointer(self, x: Any) -> int:
        """Of what was waited for."""
        pointer = ctypes.c_void_p()
        _mxnet("MXNDArrayGetData", x.handle, ctypes.byref(pointer))
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
        where = _MXNET_CPU if device.kind == "cpu" else _MXNET_GPU
        axes = (ctypes.c_int64 * len(shape))(*shape)
        code = _mxnet_codes()[np.dtype(dtype)]
        handle, at_once = ctypes.c_void_p(), 0
        _mxnet(
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
_MXNET_CPU, _MXNET_GPU = 1, 2


def _mxnet(function: str, *args: Any) -> None:
    """Call a function of MXNet's C interface."""
    base = sys.modules["mxnet"].base
    if getattr(base._LIB, function)(*args):
        raise base.get_last_ffi_error()


@functools.lru_cache(None)
def _mxnet_dtypes() -> dict[int, np.dtype[Any]]:
    """Of MXNet's numbers for them."""
    kinds = sys.modules["mxnet"].ndarray.ndarray._DTYPE_MX_TO_NP
    return {code: np.dtype(kind) for code, kind in kinds.items() if kind is not None}


@functools.lru_cache(None)
def _mxnet_codes() -> dict[np.dtype[Any], int]:
    return {dtype: code for code, dtype in _mxnet_dtypes().items()}


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


class MaskedNumPy(NumPy):
    def describe(self, x: Any) -> Description:
        raise TypeError(
            "expected an array without a mask, got a numpy.ma.MaskedArray: "
            "replace the masked elements first, for example by .filled(-1)"
        )


class WrappedTorch(Torch):
    """Subclasses of a tensor that have no memory of their own, and the like."""

    def describe(self, x: Any) -> Description:
        from cvops import _torch

        raise _torch.refused_type(type(x))


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
    return _WRAPPED_TORCH if isinstance(library, Torch) and not _has_memory(type(x)) else library


def _has_memory(kind: Any) -> bool:
    """Report if objects of a class of PyTorch are tensors that have their values in memory."""
    tensor = sys.modules["torch"].Tensor
    return issubclass(kind, tensor) and kind.__torch_dispatch__ is tensor.__torch_dispatch__


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

"""PyTorch's tensors."""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterable
from typing import Any, Callable

import numpy as np

from cvops.arrays import torch_autograd
from cvops.arrays.base import ALIGNMENT, CPU, Description, Device, Library, Memory


class Torch(Library):
    """PyTorch tensors. Their gradients are in :mod:`cvops.arrays.torch_autograd`."""

    name = "a PyTorch tensor"
    cpu_flag = "is_cpu"

    # The parts of PyTorch that each call needs, looked up once.

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
            raise torch_autograd.refusal("torch.jit.trace")
        try:
            return CPU if x.is_cpu else _device(x.device), x.dtype, x.shape
        except RuntimeError as error:  # a nested tensor has no shape
            raise TypeError(f"expected a tensor with a shape, got {type(x)}: {error}") from None

    def autograd(self, signature: Any, arrays: Iterable[Any], options: tuple[Any, ...]) -> Any:
        if self._is_tracing():  # a remembered shape without axes has not been described now
            name = next(iter(signature.shapes), signature.op.name)
            raise NotImplementedError(f"{name}: {torch_autograd.refusal('torch.jit.trace')}")
        if not signature.types:
            arrays = ()
        if not self._count_modes() and self._forward_ad._current_level < 0:
            for x in arrays:
                if x.requires_grad:
                    break
            else:
                try:
                    return signature.execute(arrays, options)
                except (RuntimeError, TypeError):
                    torch_autograd.check(signature, arrays)
                    raise
        return torch_autograd.run(signature, arrays, options)

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

    @functools.cached_property
    def from_numpy(self) -> Callable[[np.ndarray], Any]:
        found: Callable[[np.ndarray], Any] = sys.modules["torch"].from_numpy
        return found

    def copy(self, x: Any) -> Any:
        return x.detach().clone()

    def to_float32(self, x: Any) -> Any:
        return x.float()

    def to_half(self, y: Any, dtype: Any) -> Any:
        return y.to(dtype) if y.dtype == sys.modules["torch"].float32 else y

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

    def empty_cuda(self, shape: tuple[int, ...], dtype: Any, device: Device) -> Memory:
        kind, where = _dtype(dtype), _gpu(device.number)
        x = sys.modules["torch"].empty(shape, dtype=kind, device=where)
        return x.data_ptr(), x

    def stream(self, device: Device) -> int:
        return int(_current_stream()(device.number))


@functools.lru_cache(None)
def _device(device: Any) -> Device:
    if device.type not in ("cpu", "cuda"):
        raise TypeError(f"expected a tensor on the CPU or a CUDA device, got one on {device}")
    return Device(device.type, device.index or 0)


@functools.lru_cache(None)
def _gpu(number: int) -> Any:
    return sys.modules["torch"].device("cuda", number)


@functools.lru_cache(None)
def _dtype(dtype: Any) -> Any:
    """Convert a dtype of NumPy to one of PyTorch."""
    return getattr(sys.modules["torch"], np.dtype(dtype).name)


@functools.lru_cache(None)
def _current_stream() -> Callable[[int], int]:
    """Return the function that returns the current stream of a GPU."""
    torch = sys.modules["torch"]
    try:
        # PyTorch's compiled code calls this function; the public one makes an object.
        found: Callable[[int], int] = torch._C._cuda_getCurrentRawStream
        return found
    except AttributeError:
        return lambda number: torch.cuda.current_stream(number).cuda_stream


class WrappedTorch(Torch):
    """Subclasses of a tensor that have no memory of their own, and similar classes."""

    def describe(self, x: Any) -> Description:
        raise torch_autograd.refused_type(type(x))


def has_memory(kind: Any) -> bool:
    """Report if objects of a class of PyTorch are tensors that have their values in memory."""
    tensor = sys.modules["torch"].Tensor
    return issubclass(kind, tensor) and kind.__torch_dispatch__ is tensor.__torch_dispatch__

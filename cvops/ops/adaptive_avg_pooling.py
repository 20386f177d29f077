"""Adaptive average pooling, and its gradient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Optional, TypeVar, Union

import numpy as np

from cvops.ops import _check
from cvops.ops._op import DeviceOps, Op

Array = TypeVar("Array")
_OP = Op("adaptive_avg_pooling", data="float32 (N, C, H, W)")
_BACKWARD = Op("adaptive_avg_pooling_backward", out_grad="float32 (N, C, height, width)")


class _Sizes(NamedTuple):
    """The C++ struct ``AdaptivePooling``."""

    height: int
    width: int
    out_height: int
    out_width: int


def adaptive_avg_pooling(
    data: Array,
    output_size: Optional[Union[int, Sequence[int]]] = (),
    *,
    backend: str | None = None,
) -> Array:
    """Return the mean of the pixels in each bin of a grid over feature maps.

    The result has the bits of ``mx.nd.contrib.AdaptiveAvgPooling2D`` of MXNet 1.9.1 on the CPU.

    Along an axis of ``H`` pixels and ``height`` bins, bin ``i`` has the pixels from ``i * H //
    height`` to ``ceil((i + 1) * H / height)``, without the last. Adjacent bins overlap if ``H`` is
    not a multiple of ``height``. MXNet computes these numbers in float32, so its bins can differ if
    ``H * height`` is 2**24 or more.

    The op adds the pixels of a bin by rows, in float32. The width of the bin divides the sum, then
    the height. Each operation is rounded.

    Args:
        data: feature maps, float32 (N, C, H, W).
        output_size: height and width of the grid, or one number for both. () and None are 1.
        backend: the implementation; by default the best for the arrays' device.

    Returns:
        float32 (N, C, height, width). Without images or channels it is empty. A PyTorch result has
        the gradient of :func:`adaptive_avg_pooling_backward`, which has no gradient itself.

    Raises:
        TypeError: ``data`` is not a float32 array; ``output_size`` has a number that is not an
            integer.
        ValueError: ``data`` does not have four axes, or its maps have no pixels; ``output_size`` is
            below 1, or has more than two numbers; maps or grids have 2**30 elements or more; the
            product of the lengths of an axis before and after is 2**31 or more.

    Example:
        >>> data = np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4)
        >>> cvops.adaptive_avg_pooling(data, (2, 2))
        array([[[[ 2.5,  4.5],
                 [10.5, 12.5]]]], dtype=float32)
    """
    signature = _OP.signature.get(backend, data=data)
    return signature.run((data,), (_sizes.get(signature.shapes["data"], output_size),))


@_check.memoized
def _sizes(shape: tuple[int, ...], output_size: Any) -> _Sizes:
    images, channels, height, width = shape
    sizes = _Sizes(height, width, *_grid(output_size))
    _check_sizes("data", "output_size", images * channels, sizes)
    return sizes


def adaptive_avg_pooling_backward(
    out_grad: Array, data_shape: Sequence[int], *, backend: str | None = None
) -> Array:
    """Return the gradient of :func:`adaptive_avg_pooling` with respect to ``data``.

    The result has the bits of the gradient of ``mx.nd.contrib.AdaptiveAvgPooling2D`` of MXNet 1.9.1
    on the CPU. A pixel adds the gradients of its bins by rows of bins, in float32. The height of a
    bin divides its gradient first, then the width. Each operation is rounded. The result is the
    same in every run, also on a GPU.

    Args:
        out_grad: the gradient with respect to the result, float32 (N, C, height, width).
        data_shape: the shape of ``data``: (N, C, H, W).
        backend: the implementation; by default the best for the arrays' device.

    Returns:
        float32 of shape ``data_shape``.

    Raises:
        TypeError: ``out_grad`` is not a float32 array; ``data_shape`` has a number that is not an
            integer.
        ValueError: ``out_grad`` does not have four axes, or has no bins; ``data_shape`` does not
            have four numbers, has another number of images or channels, or has no pixels; sizes are
            too large (as in :func:`adaptive_avg_pooling`).
    """
    signature = _BACKWARD.signature.get(backend, out_grad=out_grad)
    return signature.run(
        (out_grad,), (_backward_sizes.get(signature.shapes["out_grad"], data_shape),)
    )


@_check.memoized
def _backward_sizes(grad_shape: tuple[int, ...], data_shape: Any) -> _Sizes:
    images, channels, height, width = grad_shape
    shape = _check.integers("data_shape", data_shape, "(N, C, H, W)", low=0)
    if shape[:2] != (images, channels):
        raise ValueError(
            f"data_shape: expected (N, C, H, W) with (N, C) = {(images, channels)} as in out_grad, "
            f"got {shape}"
        )
    sizes = _Sizes(shape[2], shape[3], height, width)
    _check_sizes("data_shape", "out_grad", images * channels, sizes)
    return sizes


def _grid(output_size: Any) -> tuple[int, int]:
    """Return height and width of the grid."""
    if output_size is None or (isinstance(output_size, str) and output_size == "None"):
        return 1, 1
    items = _check.elements(output_size)
    if len(items) > 2:
        raise ValueError(f"output_size: expected two integers at most, got {output_size!r}")
    sizes = [_check.integer("output_size", item, low=1) for item in items] or [1]
    return sizes[0], sizes[-1]


def _check_sizes(data: str, out: str, planes: int, sizes: _Sizes) -> None:
    """Refuse maps and grids that are empty or too large."""
    for name, height, width in ((data, *sizes[:2]), (out, *sizes[2:])):
        if height * width == 0 < planes:
            raise ValueError(f"{name}: expected one pixel or more, got {height} x {width}")
        if height * width >= 2**30:
            raise ValueError(f"{name}: expected less than 2**30 pixels, got {height} x {width}")
    for size, bins in zip(sizes[:2], sizes[2:]):
        if size * bins >= 2**31:
            raise ValueError(
                f"{out}: expected less than 2**31 / {size} bins along an axis of {size} pixels, "
                f"got {bins}"
            )


@_OP.backward()
def _gradient(out_grad: Any, sizes: _Sizes, backend: str | None) -> Any:
    shape = (*out_grad.shape[:2], *sizes[:2])
    return adaptive_avg_pooling_backward(out_grad, shape, backend=backend)


@_OP.mxnet
def _operator(sizes: _Sizes) -> tuple[str, dict[str, Any]]:
    return "AdaptiveAvgPooling2D", {"output_size": sizes[2:]}


def _bins(size: int, bins: int) -> list[tuple[int, slice, np.float32]]:
    """List the bins of an axis: number, pixels, length."""
    edges = [(i * size // bins, -(-(i + 1) * size // bins)) for i in range(bins)]
    return [(i, slice(*edge), np.float32(edge[1] - edge[0])) for i, edge in enumerate(edges)]


@_OP.implementation("numpy")
def _numpy(data: np.ndarray, sizes: _Sizes) -> np.ndarray:
    out = np.zeros((*data.shape[:2], *sizes[2:]), np.float32)
    if out.size == 0:
        return out
    with np.errstate(all="ignore"):
        for i, rows, height in _bins(sizes.height, sizes.out_height):
            for j, columns, width in _bins(sizes.width, sizes.out_width):
                pixels = data[:, :, rows, columns].reshape(*data.shape[:2], -1)
                # NumPy adds in another order along a contiguous axis.
                for k in range(pixels.shape[2]):
                    out[:, :, i, j] += pixels[:, :, k]
                out[:, :, i, j] = out[:, :, i, j] / width / height
    return out


@_BACKWARD.implementation("numpy")
def _backward_numpy(out_grad: np.ndarray, sizes: _Sizes) -> np.ndarray:
    grad = np.zeros((*out_grad.shape[:2], *sizes[:2]), np.float32)
    if grad.size == 0:
        return grad
    with np.errstate(all="ignore"):
        for i, rows, height in _bins(sizes.height, sizes.out_height):
            for j, columns, width in _bins(sizes.width, sizes.out_width):
                share = out_grad[:, :, i, j] / height / width
                grad[:, :, rows, columns] += share[:, :, None, None]
    return grad


@_OP.implementation("native")
def _native(device: DeviceOps, data: np.ndarray, sizes: _Sizes) -> np.ndarray:
    images, channels = data.shape[:2]
    out = device.empty((images, channels, *sizes[2:]), np.float32)
    device.ops.adaptive_avg_pooling(out, data, images * channels, sizes)
    return out


@_BACKWARD.implementation("native")
def _backward_native(device: DeviceOps, out_grad: np.ndarray, sizes: _Sizes) -> np.ndarray:
    images, channels = out_grad.shape[:2]
    grad = device.empty((images, channels, *sizes[:2]), np.float32)
    device.ops.adaptive_avg_pooling_backward(grad, out_grad, images * channels, sizes)
    return grad

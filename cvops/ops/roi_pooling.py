"""Max pooling of regions of interest to a fixed size, and its gradient."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any, Literal, TypeVar, Union, overload

import numpy as np

from cvops.ops import _check
from cvops.ops._op import DeviceOps, Op, Signature

Array = TypeVar("Array")
_OP = Op("roi_pooling", data="float32 (N, C, H, W)", rois="float32 (R, 5)")
_BACKWARD = Op(
    "roi_pooling_backward",
    out_grad="float32 (R, C, height, width)",
    argmax="int32 (R, C, height, width)",
)
#: ``RoiPooling`` of the kernel: the shape of ``data``, the pooled size and the scale.
_Sizes = tuple[int, int, int, int, int, int, float]
_LOWEST = np.finfo(np.float32).min


@overload
def roi_pooling(
    data: Array,
    rois: Array,
    pooled_size: Sequence[int],
    spatial_scale: float,
    *,
    return_argmax: Literal[False] = False,
    backend: str | None = None,
) -> Array: ...
@overload
def roi_pooling(
    data: Array,
    rois: Array,
    pooled_size: Sequence[int],
    spatial_scale: float,
    *,
    return_argmax: Literal[True],
    backend: str | None = None,
) -> tuple[Array, Array]: ...
@overload
def roi_pooling(
    data: Array,
    rois: Array,
    pooled_size: Sequence[int],
    spatial_scale: float,
    *,
    return_argmax: bool,
    backend: str | None = None,
) -> Union[Array, tuple[Array, Array]]: ...
def roi_pooling(
    data: Array,
    rois: Array,
    pooled_size: Sequence[int],
    spatial_scale: float,
    *,
    return_argmax: bool = False,
    backend: str | None = None,
) -> Any:
    """The largest values in a grid of bins of each region of interest, for each channel.

    As ``mx.nd.ROIPooling`` of MXNet 1.9.1 on the CPU, bit for bit.

    A roi's coordinates, times ``spatial_scale`` and rounded (halves away from zero), are its first
    and last pixel, both inside; where the last lies before the first, the roi is one pixel long
    there. Its height and width are divided into ``pooled_size`` bins of equal, fractional length;
    a bin has every pixel that it touches, so that neighbours may share some, but none outside of
    ``data``.

    Args:
        data: feature maps, float32 (N, C, H, W).
        rois: float32 (R, 5): the index of the image (its fraction is dropped), then the corners
            x1, y1, x2, y2 in units of pixels of ``data`` divided by ``spatial_scale``.
        pooled_size: height and width of the grid of bins.
        spatial_scale: pixels of ``data`` for each unit of the rois' coordinates, in [0, 1].
        return_argmax: whether to give the second result, which :func:`roi_pooling_backward` takes.
        backend: which implementation; by default the best for the arrays' device.

    Returns:
        ``pooled``, float32 (R, C, height, width), or with ``return_argmax`` the pair of it and
        ``argmax``, int32 of that shape: where in ``data.reshape(-1)`` each value stands, the first
        in order of rows where it stands several times. A bin without pixels gives 0 and -1, and so
        does every bin of a roi whose image does not exist. NaN is never chosen; a bin in which
        nothing is above -FLT_MAX, the lowest finite float32, gives -FLT_MAX and -1. Empty inputs
        give an empty result, or zeros where only the feature maps are empty.

        ``pooled`` as a PyTorch tensor has the gradient of :func:`roi_pooling_backward`, which has
        no gradient itself. The gradient with respect to ``rois`` is 0.

        Of a number, an image's index or a rounded product, that int32 cannot hold (it is too
        large, infinite or NaN) int32's lowest, -2**31, is used, and sums of int32 wrap around: so
        does MXNet on x86. A roi that ends at infinity is one pixel long, and one that begins there
        is empty.

    Raises:
        TypeError: an input is not a float32 array, they differ in kind or device, or
            ``pooled_size`` is not of integers.
        ValueError: ``data`` does not have four axes; ``rois`` is not (R, 5); ``pooled_size`` is
            not a pair of positive numbers, or of 2**30 bins or more; ``spatial_scale`` is out of
            [0, 1] or NaN; ``data`` has 2**31 elements or more, an axis of length 0 being counted
            as 1.
    """
    inputs = _OP.inputs(backend, data=data, rois=rois)
    height, width = _check.integers("pooled_size", pooled_size, "a pair (height, width)", low=1)
    if height * width >= 2**30:
        raise ValueError(f"pooled_size: expected less than 2**30 bins, got {pooled_size!r}")
    scale = _check.number("spatial_scale", spatial_scale, 0, 1)
    sizes = (*inputs.shapes["data"], height, width, scale)
    return inputs.run(sizes, _check.flag("return_argmax", return_argmax))


@_OP.check
def _check_shapes(signature: Signature) -> None:
    _check_size("data", signature.shapes["data"])


def roi_pooling_backward(
    out_grad: Array, argmax: Array, data_shape: Sequence[int], *, backend: str | None = None
) -> Array:
    """The gradient of :func:`roi_pooling` with respect to ``data``.

    As the gradient of ``mx.nd.ROIPooling`` of MXNet 1.9.1 on the CPU, bit for bit: each element of
    ``out_grad`` is added where its ``argmax`` points, in the order in which they stand. The same
    result in every run, on the GPU too. The gradient with respect to ``rois`` is 0, in MXNet too.

    Args:
        out_grad: the gradient with respect to ``pooled``, float32 (R, C, height, width).
        argmax: the second result of :func:`roi_pooling`, int32 of that shape. What does not point
            into its own channel of ``data``, as -1, is left out.
        data_shape: the shape (N, C, H, W) of ``data``.
        backend: which implementation; by default the best for the arrays' device.

    Returns:
        float32 of shape ``data_shape``; zeros where there are no rois.

    Raises:
        TypeError: ``out_grad`` is not a float32 array or ``argmax`` not an int32 one, they differ
            in kind or device, or ``data_shape`` is not of integers.
        ValueError: ``out_grad`` does not have four axes, or has 2**30 bins or more for a roi;
            ``argmax`` is not of its shape; ``data_shape`` is not of four numbers that are 0 or
            more, has not its number of channels, or is of 2**31 elements or more (as in
            :func:`roi_pooling`).
    """
    inputs = _BACKWARD.inputs(backend, out_grad=out_grad, argmax=argmax)
    channels = inputs.sizes["C"]
    shape = _check.integers("data_shape", data_shape, "(N, C, H, W)", low=0)
    if shape[1] != channels:
        raise ValueError(
            f"data_shape: expected (N, C, H, W) with C = {channels} as in out_grad, got {shape}"
        )
    _check_size("data_shape", shape)
    return inputs.run(shape)


@_OP.backward(residual=True)
def _gradient(out_grad: Any, argmax: Any, sizes: _Sizes, _: bool, backend: str | None) -> Any:
    return roi_pooling_backward(out_grad, argmax, sizes[:4], backend=backend)


@_OP.mxnet
def _operator(sizes: _Sizes, _: bool) -> tuple[str, dict[str, Any]]:
    return "ROIPooling", {"pooled_size": sizes[4:6], "spatial_scale": float(sizes[6])}


@_BACKWARD.check
def _check_backward_shapes(signature: Signature) -> None:
    height, width = signature.sizes["height"], signature.sizes["width"]
    if height * width >= 2**30:
        raise ValueError(f"out_grad: expected less than 2**30 bins, got {height} x {width}")


@functools.lru_cache(256)
def _check_size(name: str, shape: tuple[int, ...]) -> None:
    if math.prod(max(size, 1) for size in shape) >= 2**31:
        raise ValueError(f"{name}: expected less than 2**31 elements, got shape {tuple(shape)}")


@_OP.implementation("numpy")
def _numpy(data: np.ndarray, rois: np.ndarray, sizes: _Sizes, return_argmax: bool) -> Any:
    images, channels, height, width, pooled_height, pooled_width, scale = sizes
    pooled = np.zeros(_out_shape(rois, sizes), np.float32)
    argmax = np.full(pooled.shape, -1, np.int32)
    if pooled.size == 0:
        return (pooled, argmax) if return_argmax else pooled
    with np.errstate(all="ignore"):
        pixels = _truncated(_rounded(rois[:, 1:] * np.float32(scale)))
    for n, image in enumerate(_truncated(rois[:, 0])):
        if not 0 <= image < images:
            continue
        x1, y1, x2, y2 = pixels[n]
        planes = (image * channels + np.arange(channels)) * height * width
        for i, (top, bottom) in enumerate(_bins(y1, y2, pooled_height, height)):
            for j, (left, right) in enumerate(_bins(x1, x2, pooled_width, width)):
                if top < bottom and left < right:
                    window = data[image, :, top:bottom, left:right]
                    window = window.reshape(channels, (bottom - top) * (right - left))
                    window = np.where(window > _LOWEST, window, _LOWEST)
                    where = window.argmax(axis=1)
                    best = np.take_along_axis(window, where[:, None], axis=1)[:, 0]
                    row, column = np.divmod(where, right - left)
                    at = planes + (top + row) * width + left + column
                    pooled[n, :, i, j] = best
                    argmax[n, :, i, j] = np.where(best > _LOWEST, at, -1)
    return (pooled, argmax) if return_argmax else pooled


def _rounded(x: np.ndarray) -> np.ndarray:
    """To the nearest integer, halves away from zero. A double holds the sum exactly."""
    return np.copysign(np.floor(np.abs(x.astype(np.float64)) + 0.5), x)


def _truncated(x: np.ndarray) -> np.ndarray:
    """``x`` without its fraction; what int32 cannot hold becomes its lowest number."""
    return np.where((x >= -(2**31)) & (x < 2**31), x, -(2**31)).astype(np.int64)


def _wrapped(i: Any) -> Any:
    """What remains of ``i`` in 32 bits."""
    return (i + 2**31) % 2**32 - 2**31


def _bins(first: Any, last: Any, bins: int, limit: int) -> list[tuple[int, int]]:
    """The range of pixels of each bin of a roi along one axis."""
    size = max(_wrapped(last - first + 1), 1)
    length = np.float32(size) / np.float32(bins)
    i = np.arange(bins)
    begin = _truncated(np.floor(i.astype(np.float32) * length))
    end = _truncated(np.ceil((i + 1).astype(np.float32) * length))
    begin, end = (np.clip(_wrapped(edge + first), 0, limit) for edge in (begin, end))
    return list(zip(begin.tolist(), end.tolist()))


def _out_shape(rois: Any, sizes: _Sizes) -> tuple[int, int, int, int]:
    _, channels, _, _, pooled_height, pooled_width, _ = sizes
    return rois.shape[0], channels, pooled_height, pooled_width


@_OP.implementation("native")
def _native(
    device: DeviceOps, data: np.ndarray, rois: np.ndarray, sizes: _Sizes, return_argmax: bool
) -> Any:
    pooled = device.empty(_out_shape(rois, sizes), np.float32)
    argmax = device.empty(pooled.shape, np.int32) if return_argmax else None
    device.ops.roi_pooling(pooled, argmax, data, rois, sizes)
    return (pooled, argmax) if return_argmax else pooled


@_BACKWARD.implementation("numpy")
def _backward_numpy(out_grad: np.ndarray, argmax: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    grad = np.zeros(shape, np.float32)
    _, channels, height, width = shape
    if grad.size:
        channel = argmax // (height * width) % channels
        own = channel == np.arange(channels)[:, None, None]
        inside = (argmax >= 0) & (argmax < grad.size) & own
        # In the order in which they stand: each sum is rounded after each element.
        with np.errstate(all="ignore"):
            np.add.at(grad.reshape(-1), argmax[inside], out_grad[inside])
    return grad


def _grad_sizes(out_grad: Any, shape: tuple[int, ...]) -> tuple[int, int, int, int, int]:
    """The fields of ``RoiPoolingGrad``: rois, bins, images, channels, pixels.

    Rois without bins are as good as none: the number of bins is a divisor.
    """
    rois, _, pooled_height, pooled_width = out_grad.shape
    images, channels, height, width = shape
    bins = pooled_height * pooled_width
    return rois if bins else 0, max(bins, 1), images, channels, height * width


@_BACKWARD.implementation("native")
def _backward_native(
    device: DeviceOps, out_grad: np.ndarray, argmax: np.ndarray, shape: tuple[int, ...]
) -> np.ndarray:
    grad = device.empty(shape, np.float32)
    device.ops.roi_pooling_backward(grad, out_grad, argmax, _grad_sizes(out_grad, shape))
    return grad

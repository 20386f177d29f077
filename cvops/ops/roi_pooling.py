"""Max pooling of regions of interest to a fixed size, and its gradient."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, TypeVar, Union, overload

import numpy as np

from cvops.ops import _check
from cvops.ops._op import DeviceOps, Op, Signature

Array = TypeVar("Array")
_OP = Op("roi_pooling", data="float (N, C, H, W)", rois="float (R, 5)")
_BACKWARD = Op(
    "roi_pooling_backward",
    out_grad="float (R, C, height, width)",
    argmax="int32 (R, C, height, width)",
)
#: ``RoiPooling`` of the extension: the shape of ``data``, the pooled size and the scale.
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
    """Return the largest values in a grid of bins of each region of interest, for each channel.

    The result has the bits of ``mx.nd.ROIPooling`` of MXNet 1.9.1 on the CPU.

    The coordinates of a roi, times ``spatial_scale`` and rounded (halves away from zero), are its
    first and last pixel, both inclusive. A roi whose last pixel precedes the first is one pixel
    long in that direction. ``pooled_size`` bins of equal, fractional length divide the roi. A bin
    has every pixel of ``data`` that it touches, so neighbors may share pixels.

    ``float`` below is one dtype for all arrays: float32, float64 or half (float16 or bfloat16,
    which are computed in float32 and rounded once). Options are float32.

    Args:
        data: feature maps, float (N, C, H, W).
        rois: float (R, 5): the index of the image, whose fraction is dropped, then the corners
            x1, y1, x2, y2, in pixels of ``data`` divided by ``spatial_scale``.
        pooled_size: height and width of the grid of bins.
        spatial_scale: pixels of ``data`` for each unit of the rois' coordinates, in [0, 1].
        return_argmax: True also returns ``argmax``, which :func:`roi_pooling_backward` needs.
        backend: the implementation; by default the best for the arrays' device.

    Returns:
        ``pooled``, float (R, C, height, width). With ``return_argmax``, the pair (``pooled``,
        ``argmax``). ``argmax`` is int32 of the same shape: the index of each value in
        ``data.reshape(-1)``, the lowest one if the value occurs several times. A bin without
        pixels has 0 and -1, and so has each bin of a roi whose image does not exist. NaN is never
        the largest value. A bin without a value above -FLT_MAX, the lowest finite float32, has
        -FLT_MAX and -1. Empty inputs give an empty result, or zeros if only the maps are empty.

        ``pooled`` as a PyTorch tensor has the gradient of :func:`roi_pooling_backward`, which has
        no gradient itself. The gradient with respect to ``rois`` is 0.

        An image's index or a rounded product that does not fit into int32 (it is too large,
        infinite or NaN) becomes the lowest int32, -2**31. Sums of int32 wrap around, as in MXNet on
        x86. A roi that ends at infinity is one pixel long. One that begins there is empty.

    Raises:
        TypeError: an input is not a float array; the inputs differ in library or device;
            ``pooled_size`` has a number that is not an integer.
        ValueError: ``data`` does not have four axes; ``rois`` is not (R, 5); ``pooled_size`` is
            not a pair of positive numbers, or has 2**30 bins or more; ``spatial_scale`` is NaN or
            out of [0, 1]; ``data`` has 2**31 elements or more, where an axis of length 0 counts as
            1.

    Example:
        >>> data = np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4)
        >>> cvops.roi_pooling(data, np.float32([[0, 0, 0, 3, 3]]), (2, 2), 1.0)
        array([[[[ 5.,  7.],
                 [13., 15.]]]], dtype=float32)
    """
    signature = _OP.signature.get(backend, data=data, rois=rois)
    options = _options.get(signature.shapes["data"], pooled_size, spatial_scale, return_argmax)
    return signature.run((data, rois), options)


@_check.memoized
def _options(
    shape: tuple[int, ...], pooled_size: Any, spatial_scale: Any, return_argmax: Any
) -> tuple[_Sizes, bool]:
    images, channels, rows, columns = shape
    sizes = images, channels, rows, columns, *bins_and_scale.get(pooled_size, spatial_scale)
    return sizes, _check.flag("return_argmax", return_argmax)


@_check.memoized
def bins_and_scale(pooled_size: Any, spatial_scale: Any) -> tuple[int, int, float]:
    """Return the rows and the columns of bins of a roi, and the scale of its coordinates."""
    height, width = _check.integers("pooled_size", pooled_size, "a pair (height, width)", low=1)
    if height * width >= 2**30:
        raise ValueError(f"pooled_size: expected less than 2**30 bins, got {pooled_size!r}")
    return height, width, _check.number("spatial_scale", spatial_scale, 0, 1)


@_OP.check
def _check_shapes(signature: Signature) -> None:
    check_elements("data", signature.shapes["data"])


def roi_pooling_backward(
    out_grad: Array, argmax: Array, data_shape: Sequence[int], *, backend: str | None = None
) -> Array:
    """Return the gradient of :func:`roi_pooling` with respect to ``data``.

    The result has the bits of the gradient of ``mx.nd.ROIPooling`` of MXNet 1.9.1 on the CPU. Each
    element of ``out_grad`` is added at the index that its ``argmax`` has, in the order of the
    elements. The result is the same in every run, also on a GPU. The gradient with respect to
    ``rois`` is 0, as in MXNet.

    ``float`` below is one dtype for all arrays: float32, float64 or half (float16 or bfloat16,
    which are computed in float32 and rounded once). Options are float32.

    Args:
        out_grad: the gradient with respect to ``pooled``, float (R, C, height, width).
        argmax: the second result of :func:`roi_pooling`, int32 of that shape. An index outside of
            the element's own channel of ``data``, such as -1, is skipped.
        data_shape: the shape (N, C, H, W) of ``data``.
        backend: the implementation; by default the best for the arrays' device.

    Returns:
        float of shape ``data_shape``; zeros without rois.

    Raises:
        TypeError: ``out_grad`` is not a float array; ``argmax`` is not an int32 array; they
            differ in library or device; ``data_shape`` has a number that is not an integer.
        ValueError: ``out_grad`` does not have four axes, or a roi has 2**30 bins or more;
            ``argmax`` has another shape; ``data_shape`` does not have four numbers that are 0 or
            more, or has another number of channels, or has 2**31 elements or more (as in
            :func:`roi_pooling`).
    """
    signature = _BACKWARD.signature.get(backend, out_grad=out_grad, argmax=argmax)
    channels = signature.sizes["C"]
    shape = _check.integers("data_shape", data_shape, "(N, C, H, W)", low=0)
    if shape[1] != channels:
        raise ValueError(
            f"data_shape: expected (N, C, H, W) with C = {channels} as in out_grad, got {shape}"
        )
    check_elements("data_shape", shape)
    return signature.run((out_grad, argmax), (shape,))


@_OP.backward(residual=True)
def _gradient(out_grad: Any, argmax: Any, sizes: _Sizes, _: bool, backend: str | None) -> Any:
    return roi_pooling_backward(out_grad, argmax, sizes[:4], backend=backend)


@_OP.mxnet
def _operator(sizes: _Sizes, _: bool) -> tuple[str, dict[str, Any]]:
    return "ROIPooling", {"pooled_size": sizes[4:6], "spatial_scale": float(sizes[6])}


@_BACKWARD.check
def check_bins(signature: Signature) -> None:
    """Refuse ``out_grad`` with 2**30 bins or more."""
    height, width = signature.sizes["height"], signature.sizes["width"]
    if height * width >= 2**30:
        raise ValueError(f"out_grad: expected less than 2**30 bins, got {height} x {width}")


def check_elements(name: str, shape: tuple[int, ...]) -> None:
    """Refuse a shape of 2**31 elements or more, where an axis of length 0 counts as 1."""
    if (math.prod(shape) or math.prod([size or 1 for size in shape])) >= 2**31:
        raise ValueError(f"{name}: expected less than 2**31 elements, got shape {tuple(shape)}")


@_OP.implementation("numpy")
def _numpy(data: np.ndarray, rois: np.ndarray, sizes: _Sizes, return_argmax: bool) -> Any:
    images, channels, height, width, pooled_height, pooled_width, scale = sizes
    pooled = np.zeros(_out_shape(rois, sizes), data.dtype)
    argmax = np.full(pooled.shape, -1, np.int32)
    if pooled.size == 0:
        return (pooled, argmax) if return_argmax else pooled
    with np.errstate(all="ignore"):
        pixels = _truncated(_rounded(rois[:, 1:] * rois.dtype.type(np.float32(scale))))
    for n, image in enumerate(_truncated(rois[:, 0])):
        if not 0 <= image < images:
            continue
        x1, y1, x2, y2 = pixels[n]
        planes = (image * channels + np.arange(channels)) * height * width
        for i, (top, bottom) in enumerate(_bins(y1, y2, pooled_height, height, rois.dtype.type)):
            for j, (left, right) in enumerate(_bins(x1, x2, pooled_width, width, rois.dtype.type)):
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
    """Round to the nearest integer, halves away from zero."""
    whole = np.trunc(x)
    return whole + np.where(np.abs(x - whole) >= 0.5, np.sign(x), 0)


def _truncated(x: np.ndarray) -> np.ndarray:
    """Drop fractions; a number that does not fit into int32, and NaN, become the lowest int32."""
    return np.where((x >= -(2**31)) & (x < 2**31), x, -(2**31)).astype(np.int64)


def _wrapped(i: Any) -> Any:
    """Wrap ``i`` around to int32."""
    return (i + 2**31) % 2**32 - 2**31


def _bins(first: Any, last: Any, bins: int, limit: int, number: Any) -> list[tuple[int, int]]:
    """Return the range of pixels of each bin of a roi along one axis."""
    size = max(_wrapped(last - first + 1), 1)
    length = number(size) / number(bins)
    i = np.arange(bins)
    begin = _truncated(np.floor(i.astype(number) * length))
    end = _truncated(np.ceil((i + 1).astype(number) * length))
    begin, end = (np.clip(_wrapped(edge + first), 0, limit) for edge in (begin, end))
    return list(zip(begin.tolist(), end.tolist()))


def _out_shape(rois: Any, sizes: _Sizes) -> tuple[int, int, int, int]:
    _, channels, _, _, pooled_height, pooled_width, _ = sizes
    return rois.shape[0], channels, pooled_height, pooled_width


@_OP.implementation("native")
def _native(
    device: DeviceOps, data: np.ndarray, rois: np.ndarray, sizes: _Sizes, return_argmax: bool
) -> Any:
    pooled = device.empty(_out_shape(rois, sizes), data.dtype)
    argmax = device.empty(pooled.shape, np.int32) if return_argmax else None
    device.ops.roi_pooling(pooled, argmax, data, rois, sizes)
    return (pooled, argmax) if return_argmax else pooled


@_BACKWARD.implementation("numpy")
def _backward_numpy(out_grad: np.ndarray, argmax: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    grad = np.zeros(shape, out_grad.dtype)
    _, channels, height, width = shape
    if grad.size:
        channel = argmax // (height * width) % channels
        own = channel == np.arange(channels)[:, None, None]
        inside = (argmax >= 0) & (argmax < grad.size) & own
        # In the order of the elements: each addition is rounded.
        with np.errstate(all="ignore"):
            np.add.at(grad.reshape(-1), argmax[inside], out_grad[inside])
    return grad


def _grad_sizes(out_grad: Any, shape: tuple[int, ...]) -> tuple[int, int, int, int, int]:
    """Return the fields of ``RoiPoolingGrad``: rois, bins, images, channels, pixels.

    There are no rois without bins, since the number of bins is a divisor.
    """
    rois, _, pooled_height, pooled_width = out_grad.shape
    images, channels, height, width = shape
    bins = pooled_height * pooled_width
    return rois if bins else 0, max(bins, 1), images, channels, height * width


@_BACKWARD.implementation("native")
def _backward_native(
    device: DeviceOps, out_grad: np.ndarray, argmax: np.ndarray, shape: tuple[int, ...]
) -> np.ndarray:
    grad = device.empty(shape, out_grad.dtype)
    device.ops.roi_pooling_backward(grad, out_grad, argmax, _grad_sizes(out_grad, shape))
    return grad

"""Means of bilinear samples in regions of interest, and their gradient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np

from cvops.ops import _check
from cvops.ops._op import DeviceOps, Op, Signature
from cvops.ops.roi_pooling import bins_and_scale, check_bins, check_elements

Array = TypeVar("Array")
_OP = Op("roi_align", data="float (N, C, H, W)", rois="float (R, 5)")
_BACKWARD = Op("roi_align_backward", out_grad="float (R, C, height, width)", rois="float (R, 5)")
_MOST_SAMPLES = 1024


class _Sizes(NamedTuple):
    """``RoiAlign`` of the extension."""

    images: int
    #: The channels of the result.
    channels: int
    height: int
    width: int
    pooled_height: int
    pooled_width: int
    scale: float
    sample_ratio: int
    position_sensitive: bool
    aligned: bool

    @property
    def bins(self) -> int:
        return self.pooled_height * self.pooled_width

    @property
    def data_shape(self) -> tuple[int, int, int, int]:
        planes = self.channels * (self.bins if self.position_sensitive else 1)
        return self.images, planes, self.height, self.width


def roi_align(
    data: Array,
    rois: Array,
    pooled_size: Sequence[int],
    spatial_scale: float,
    sample_ratio: int = -1,
    position_sensitive: bool = False,
    aligned: bool = False,
    *,
    backend: str | None = None,
) -> Array:
    """Return the mean of bilinear samples in a grid of bins of each region of interest.

    The result has the bits of ``mx.nd.contrib.ROIAlign`` of MXNet 1.9.1 on the CPU.

    The coordinates of a roi, times ``spatial_scale``, are the positions of its edges in pixels of
    ``data``. Nothing is rounded to pixels. ``pooled_size`` bins of equal length divide the roi. A
    bin has ``sample_ratio`` samples along each axis, in the middles of equal parts of the bin.
    A sample is the bilinear interpolation of the four pixels next to it, and a pixel's value is at
    its integer position. A sample up to one pixel above or left of the map, or below or right of
    the last pixel, takes the nearest position in the map. Any other sample is 0, and it counts.

    The op rounds each operation to the dtype: ``w1 * d1 + w2 * d2 + w3 * d3 + w4 *
    d4`` for a sample (upper left, upper right, lower left, lower right pixel), the sum over rows of
    samples, then their number divides it.

    ``float`` below is one dtype for all arrays: float32, float64 or half (float16 or bfloat16,
    which are computed in float32 and rounded once). Options are float32.

    Args:
        data: feature maps, float (N, C, H, W).
        rois: float (R, 5): the index of the image, whose fraction is dropped, then the corners
            x1, y1, x2, y2, in pixels of ``data`` divided by ``spatial_scale``.
        pooled_size: height and width of the grid of bins.
        spatial_scale: pixels of ``data`` for each unit of the rois' coordinates, in [0, 1].
        sample_ratio: samples of a bin along each axis, at most 1024. 0 or less selects an adaptive
            number: the length of the bin in pixels, rounded up.
        position_sensitive: True gives each bin channels of its own: element (c, i, j) of a roi
            reads channel ``(c * height + i) * width + j`` of ``data``.
        aligned: True subtracts half a pixel from the positions. False enlarges a roi to one pixel
            along an axis where it is shorter or malformed.
        backend: the implementation; by default the best for the arrays' device.

    Returns:
        float (R, C, height, width), or (R, C / (height * width), height, width) with
        ``position_sensitive``. Each bin of a roi whose image does not exist is 0; MXNet does not
        write the bins of a negative index, and reads out of bounds for a large one. Empty maps
        give 0.

        With ``aligned``, an axis of a roi may have a length of 0 or less; MXNet aborts. Its samples
        are at the same formulas' positions. An adaptive number for such an axis is 0, and so it is
        for a length that is NaN or of 2**31 bins' pixels or more. A bin without samples is 0.

        A sample at a position of NaN is outside of the map. A sample outside adds 0 times the first
        pixel of the map, as in MXNet: NaN if that pixel is infinite or NaN.

        A PyTorch result has the gradient of :func:`roi_align_backward`, which has no gradient
        itself. The gradient with respect to ``rois`` is 0, as in MXNet.

    Raises:
        TypeError: an input is not a float array; the inputs differ in library or device;
            ``pooled_size`` has a number that is not an integer; ``sample_ratio`` is not an integer.
        ValueError: ``data`` does not have four axes; ``rois`` is not (R, 5); ``pooled_size`` is
            not a pair of positive numbers, or has 2**30 bins or more; ``spatial_scale`` is NaN or
            out of [0, 1]; ``sample_ratio`` is above 1024; ``position_sensitive`` or ``aligned`` is
            not a flag; ``data`` has 2**31 elements or more, where an axis of length 0 counts as 1,
            or, with ``position_sensitive``, a number of channels that is not a multiple of the
            number of bins.

    Example:
        >>> data = np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4)
        >>> cvops.roi_align(data, np.float32([[0, 0, 0, 2, 2]]), (2, 2), 1.0, sample_ratio=1)
        array([[[[2.5, 3.5],
                 [6.5, 7.5]]]], dtype=float32)
    """
    signature = _OP.signature.get(backend, data=data, rois=rois)
    sizes = _sizes.get(
        signature.shapes["data"],
        pooled_size,
        spatial_scale,
        sample_ratio,
        position_sensitive,
        aligned,
    )
    return signature.run((data, rois), (sizes,))


@_check.memoized
def _sizes(
    shape: tuple[int, ...],
    pooled_size: Any,
    spatial_scale: Any,
    sample_ratio: Any,
    position_sensitive: Any,
    aligned: Any,
) -> _Sizes:
    images, channels, rows, columns = shape
    height, width, scale = bins_and_scale.get(pooled_size, spatial_scale)
    samples, is_sensitive, aligned = _options(sample_ratio, position_sensitive, aligned)
    if is_sensitive:
        if channels % (height * width):
            raise ValueError(
                f"data: expected a multiple of height * width = {height * width} channels, as "
                f"position_sensitive needs, got {channels}"
            )
        channels //= height * width
    return _Sizes(
        images, channels, rows, columns, height, width, scale, samples, is_sensitive, aligned
    )


def _options(sample_ratio: Any, position_sensitive: Any, aligned: Any) -> tuple[int, bool, bool]:
    """Return the checked options of the samples, which both directions have."""
    return (
        _check.integer("sample_ratio", sample_ratio, high=_MOST_SAMPLES),
        _check.flag("position_sensitive", position_sensitive),
        _check.flag("aligned", aligned),
    )


@_OP.check
def _check_shapes(signature: Signature) -> None:
    check_elements("data", signature.shapes["data"])


def roi_align_backward(
    out_grad: Array,
    rois: Array,
    data_shape: Sequence[int],
    spatial_scale: float,
    sample_ratio: int = -1,
    position_sensitive: bool = False,
    aligned: bool = False,
    *,
    backend: str | None = None,
) -> Array:
    """Return the gradient of :func:`roi_align` with respect to ``data``.

    The result has the bits of the gradient of ``mx.nd.contrib.ROIAlign`` of MXNet 1.9.1 on the CPU.
    Each sample adds ``g * w / n`` to each of its four pixels: ``g`` is the element of ``out_grad``,
    ``w`` the weight of the pixel, ``n`` the number of samples of the bin. A pixel adds in the order
    of rois, then bins, then samples by rows, then the upper left, upper right, lower left and lower
    right pixel. Each operation is rounded. The result is the same in every run, also on a GPU. A
    sample outside of the map adds nothing. The gradient with respect to ``rois`` is 0, as in MXNet.

    ``float`` below is one dtype for all arrays: float32, float64 or half (float16 or bfloat16,
    which are computed in float32 and rounded once). Options are float32.

    Args:
        out_grad: the gradient with respect to the result, float (R, C, height, width).
        rois: as in :func:`roi_align`.
        data_shape: the shape of ``data``: (N, C, H, W), or (N, C * height * width, H, W) with
            ``position_sensitive``.
        spatial_scale: as in :func:`roi_align`.
        sample_ratio: as in :func:`roi_align`.
        position_sensitive: as in :func:`roi_align`.
        aligned: as in :func:`roi_align`.
        backend: the implementation; by default the best for the arrays' device.

    Returns:
        float of shape ``data_shape``; zeros without rois.

    Raises:
        TypeError: an array is not a float array; the arrays differ in library or device;
            ``data_shape`` has a number that is not an integer; ``sample_ratio`` is not an integer.
        ValueError: ``out_grad`` does not have four axes, or a roi has 2**30 bins or more; ``rois``
            is not (R, 5); ``data_shape`` does not have four numbers that are 0 or more, or has
            another number of channels, or has 2**31 elements or more (as in :func:`roi_align`); an
            option is out of range.
    """
    signature = _BACKWARD.signature.get(backend, out_grad=out_grad, rois=rois)
    sizes = _backward_sizes.get(
        signature.shapes["out_grad"], data_shape, spatial_scale, sample_ratio, position_sensitive,
        aligned,
    )  # fmt: skip
    return signature.run((out_grad, rois), (sizes,))


@_check.memoized
def _backward_sizes(
    grad_shape: tuple[int, ...],
    data_shape: Any,
    spatial_scale: Any,
    sample_ratio: Any,
    position_sensitive: Any,
    aligned: Any,
) -> _Sizes:
    scale = _check.number("spatial_scale", spatial_scale, 0, 1)
    options = _options(sample_ratio, position_sensitive, aligned)
    channels, height, width = grad_shape[1:]
    shape = _check.integers("data_shape", data_shape, "(N, C, H, W)", low=0)
    sizes = _Sizes(shape[0], channels, shape[2], shape[3], height, width, scale, *options)
    if shape != sizes.data_shape:
        raise ValueError(
            f"data_shape: expected (N, C, H, W) with C = {sizes.data_shape[1]} for this out_grad "
            f"and position_sensitive = {sizes.position_sensitive}, "
            f"got {shape}"
        )
    check_elements("data_shape", shape)
    return sizes


@_OP.backward(inputs=("rois",))
def _gradient(out_grad: Any, rois: Any, sizes: _Sizes, backend: str | None) -> Any:
    options = sizes[6:]
    return roi_align_backward(out_grad, rois, sizes.data_shape, *options, backend=backend)


@_OP.mxnet
def _operator(sizes: _Sizes) -> tuple[str, dict[str, Any]]:
    return "ROIAlign", {
        "pooled_size": (sizes.pooled_height, sizes.pooled_width),
        "spatial_scale": float(sizes.scale),
        "sample_ratio": sizes.sample_ratio,
        "position_sensitive": sizes.position_sensitive,
        "aligned": sizes.aligned,
    }


_BACKWARD.check(check_bins)


class _Axis:
    """One axis of a roi, and the samples of its bins."""

    def __init__(self, first: Any, last: Any, bins: int, size: int, sizes: _Sizes):
        self.number = number = type(first)  # numpy.float32 or numpy.float64
        scale, offset = number(np.float32(sizes.scale)), number(0.5 if sizes.aligned else 0)
        self.begin = first * scale - offset
        length = last * scale - offset - self.begin
        if not sizes.aligned and length < 1:
            length = number(1)
        self.bin = length / number(bins)
        self.count = sizes.sample_ratio
        if self.count <= 0:
            adaptive = np.ceil(self.bin)
            self.count = int(adaptive) if 0 < adaptive < 2**31 else 0
        self.size, self.end = size, number(size)
        #: For each bin the samples in the map: low and high pixel, low and high weight.
        self.samples = [list(self._in_map(i)) for i in range(bins)]

    def position(self, i: int, k: int) -> Any:
        """Return the position of sample ``k`` of bin ``i``."""
        number = self.number
        part = (number(k) + number(0.5)) * self.bin / number(self.count)
        return self.begin + number(i) * self.bin + part

    def _in_map(self, i: int) -> Any:
        low, high = 0, self.count
        if self.count > _MOST_SAMPLES:
            # Positions of an adaptive number rise. Most are not in the map.
            low = self._first(lambda k: self.position(i, k) >= -1)
            high = self._first(lambda k: self.position(i, k) > self.end)
        for k in range(low, high):
            at = self.position(i, k)
            if -1 <= at <= self.end:
                at = max(at, self.number(0))
                pixel = min(int(at), self.size - 1)
                at = self.number(pixel) if pixel == self.size - 1 else at
                weight = at - self.number(pixel)
                yield pixel, min(pixel + 1, self.size - 1), self.number(1) - weight, weight

    def _first(self, holds: Any) -> int:
        """Return the first sample for which ``holds`` is true, or their number."""
        low, high = 0, self.count
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if holds(middle) else (middle + 1, high)
        return low


def _bins_of(rois: np.ndarray, sizes: _Sizes) -> Any:
    """List each bin of a roi with an image.

    A bin is the number of the roi, the image, row and column of the bin, the samples of each axis,
    and the number of samples.
    """
    pixels, pooled = sizes.data_shape[2:], (sizes.pooled_height, sizes.pooled_width)
    for n, (index, x1, y1, x2, y2) in enumerate(rois):
        if -1 < index < sizes.images and 0 not in pixels:
            y = _Axis(y1, y2, pooled[0], pixels[0], sizes)
            x = _Axis(x1, x2, pooled[1], pixels[1], sizes)
            count = np.int64(y.count * x.count).astype(rois.dtype)
            for i, j in np.ndindex(*pooled):
                yield n, int(index), i, j, y.samples[i], x.samples[j], count


def _channels_of(i: int, j: int, sizes: _Sizes) -> slice:
    """Return the channels of ``data`` that bin (i, j) reads."""
    if not sizes.position_sensitive:
        return slice(None)
    return slice(i * sizes.pooled_width + j, None, sizes.bins)


def _out_shape(rois: Any, sizes: _Sizes) -> tuple[int, int, int, int]:
    return rois.shape[0], sizes.channels, sizes.pooled_height, sizes.pooled_width


@_OP.implementation("numpy")
def _numpy(data: np.ndarray, rois: np.ndarray, sizes: _Sizes) -> np.ndarray:
    out = np.zeros(_out_shape(rois, sizes), data.dtype)
    if out.size == 0:
        return out
    with np.errstate(all="ignore"):
        for n, image, i, j, rows, columns, count in _bins_of(rois, sizes):
            if count == 0:
                continue
            maps = data[image, _channels_of(i, j, sizes)]
            total = np.zeros(sizes.channels, data.dtype)
            for top, bottom, top_weight, bottom_weight in rows:
                for left, right, left_weight, right_weight in columns:
                    total += (
                        top_weight * left_weight * maps[:, top, left]
                        + top_weight * right_weight * maps[:, top, right]
                        + bottom_weight * left_weight * maps[:, bottom, left]
                        + bottom_weight * right_weight * maps[:, bottom, right]
                    )
            if len(rows) * len(columns) < count:
                total += data.dtype.type(0) * maps[:, 0, 0]
            out[n, :, i, j] = total / count
    return out


def reference(data: np.ndarray, rois: np.ndarray, sizes: tuple[Any, ...]) -> np.ndarray:
    """Return the reference result for the fields of :class:`_Sizes`."""
    return _numpy(data, rois, _Sizes(*sizes))


@_BACKWARD.implementation("numpy")
def _backward_numpy(out_grad: np.ndarray, rois: np.ndarray, sizes: _Sizes) -> np.ndarray:
    grad = np.zeros(sizes.data_shape, out_grad.dtype)
    if grad.size == 0 or out_grad.size == 0:
        return grad
    with np.errstate(all="ignore"):
        for n, image, i, j, rows, columns, count in _bins_of(rois, sizes):
            maps = grad[image, _channels_of(i, j, sizes)]
            for top, bottom, *y_weights in rows:
                for left, right, *x_weights in columns:
                    for row, y_weight in zip((top, bottom), y_weights):
                        for column, x_weight in zip((left, right), x_weights):
                            weighted = out_grad[n, :, i, j] * (y_weight * x_weight)
                            maps[:, row, column] += weighted / count
    return grad


@_OP.implementation("native")
def _native(device: DeviceOps, data: np.ndarray, rois: np.ndarray, sizes: _Sizes) -> np.ndarray:
    out = device.empty(_out_shape(rois, sizes), data.dtype)
    device.ops.roi_align(out, data, rois, sizes)
    return out


@_BACKWARD.implementation("native")
def _backward_native(
    device: DeviceOps, out_grad: np.ndarray, rois: np.ndarray, sizes: _Sizes
) -> np.ndarray:
    grad = device.empty(sizes.data_shape, out_grad.dtype)
    device.ops.roi_align_backward(grad, out_grad, rois, sizes)
    return grad

"""Means of bilinear samples in rotated regions of interest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np

from cvops.ops import _check
from cvops.ops._op import DeviceOps, Op, Signature
from cvops.ops.roi_pooling import bins_and_scale, check_elements

Array = TypeVar("Array")
_OP = Op("rroi_align", data="float32 (N, C, H, W)", rois="float32 (R, 6)")
_MOST_SAMPLES = 1024
_LARGEST_ANGLE = 2**20  # radians


class _Sizes(NamedTuple):
    """``RroiAlign`` of the extension."""

    images: int
    channels: int
    height: int
    width: int
    pooled_height: int
    pooled_width: int
    scale: float
    sampling_ratio: int


def rroi_align(
    data: Array,
    rois: Array,
    pooled_size: Sequence[int],
    spatial_scale: float,
    sampling_ratio: int = -1,
    *,
    backend: str | None = None,
) -> Array:
    """Return the mean of bilinear samples in the bins of each rotated region of interest.

    The op is ``mx.nd.contrib.RROIAlign`` of MXNet 1.9.1, which runs on the CPU only. It has no
    gradient, as in MXNet.

    The center and the size of a roi, times ``spatial_scale``, are in pixels of ``data``. A size
    below 1 becomes 1. A grid of ``pooled_size`` bins of equal size divides the roi. A bin has
    ``sampling_ratio`` samples along each axis, in the middles of equal parts of the bin. The roi
    with its samples is then turned by its angle: a sample at (x, y) from the center moves to
    ``(x * cos + y * sin, y * cos - x * sin)``. A positive angle turns the roi counterclockwise, as
    the y axis of an image points down. A sample has the value of :func:`roi_align` at its position.

    The op computes in float32, and each operation is rounded, as in :func:`roi_align`. The sine and
    the cosine of an angle are rounded correctly from the angle in radians, which is rounded to
    float32. They differ from those of MXNet's C library in the last bit, if at all; the results
    are then close to MXNet's, otherwise equal.

    Args:
        data: feature maps, float32 (N, C, H, W).
        rois: float32 (R, 6): the index of the image, whose fraction is dropped, then the center x
            and y, the width and the height, in pixels of ``data`` divided by ``spatial_scale``, and
            the angle in degrees.
        pooled_size: height and width of the grid of bins.
        spatial_scale: pixels of ``data`` for each unit of the rois' coordinates, in [0, 1].
        sampling_ratio: samples of a bin along each axis, at most 1024. 0 or less selects an
            adaptive number: the length of the bin in pixels, rounded up.
        backend: the implementation; by default the best for the arrays' device.

    Returns:
        float32 (R, C, height, width). Each bin of a roi whose image does not exist is 0; MXNet
        reads out of bounds. Empty maps give 0. An adaptive number is 0 for a length that is NaN or
        of 2**31 bins' pixels or more. A bin without samples is 0.

        A sample at a position of NaN is outside of the map; MXNet reads out of bounds. So is each
        sample of a roi whose angle is NaN or above 2**20 radians. A sample outside adds 0 times the
        first pixel of the map, as in MXNet: NaN if that pixel is infinite or NaN.

    Raises:
        TypeError: an input is not a float32 array; the inputs differ in library or device;
            ``pooled_size`` has a number that is not an integer; ``sampling_ratio`` is not an
            integer.
        ValueError: ``data`` does not have four axes; ``rois`` is not (R, 6); ``pooled_size`` is not
            a pair of positive numbers, or has 2**30 bins or more; ``spatial_scale`` is NaN or out
            of [0, 1]; ``sampling_ratio`` is above 1024; ``data`` has 2**31 elements or more, where
            an axis of length 0 counts as 1.

    Example:
        >>> data = np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4)
        >>> rois = np.float32([[0, 1, 1, 2, 2, 90]])  # image, x, y, width, height, degrees
        >>> cvops.rroi_align(data, rois, (2, 2), 1.0, sampling_ratio=1)
        array([[[[6.5, 2.5],
                 [7.5, 3.5]]]], dtype=float32)
    """
    signature = _OP.signature.get(backend, data=data, rois=rois)
    sizes = _sizes.get(signature.shapes["data"], pooled_size, spatial_scale, sampling_ratio)
    return signature.run((data, rois), (sizes,))


@_check.memoized
def _sizes(
    shape: tuple[int, ...], pooled_size: Any, spatial_scale: Any, sampling_ratio: Any
) -> _Sizes:
    images, channels, rows, columns = shape
    height, width, scale = bins_and_scale.get(pooled_size, spatial_scale)
    samples = _check.integer("sampling_ratio", sampling_ratio, high=_MOST_SAMPLES)
    return _Sizes(images, channels, rows, columns, height, width, scale, samples)


@_OP.check
def _check_shapes(signature: Signature) -> None:
    check_elements("data", signature.shapes["data"])


def _axis(length: np.float32, bins: int, sizes: _Sizes) -> tuple[np.ndarray, int]:
    """Return the positions of all samples (bins, samples) along an axis, from the center."""
    size = length * np.float32(sizes.scale)
    size = np.float32(1) if size < 1 else size
    step = size / np.float32(bins)
    count = sizes.sampling_ratio
    if count <= 0:
        adaptive = np.ceil(step)
        count = int(adaptive) if 0 < adaptive < 2**31 else 0
    i = np.arange(bins, dtype=np.float32)[:, None]
    k = np.arange(count, dtype=np.float32) + np.float32(0.5)
    return -size / np.float32(2) + i * step + k * step / np.float32(max(count, 1)), count


def _interpolated(maps: np.ndarray, y: np.float32, x: np.float32) -> np.ndarray | None:
    """Return the value of each channel at (y, x); None outside of the map."""
    height, width = maps.shape[1:]
    if not (-1 <= y <= height and -1 <= x <= width):
        return None
    y, x = max(y, np.float32(0)), max(x, np.float32(0))
    top, left = min(int(y), height - 1), min(int(x), width - 1)
    low = np.float32(0) if top == height - 1 else y - np.float32(top)
    right = np.float32(0) if left == width - 1 else x - np.float32(left)
    high, near = np.float32(1) - low, np.float32(1) - right
    bottom, beside = min(top + 1, height - 1), min(left + 1, width - 1)
    value: np.ndarray = (
        high * near * maps[:, top, left]
        + high * right * maps[:, top, beside]
        + low * near * maps[:, bottom, left]
        + low * right * maps[:, bottom, beside]
    )
    return value


@_OP.implementation("numpy")
def _numpy(data: np.ndarray, rois: np.ndarray, sizes: _Sizes) -> np.ndarray:
    bins = sizes.pooled_height, sizes.pooled_width
    out = np.zeros((len(rois), sizes.channels, *bins), np.float32)
    if out.size == 0 or 0 in data.shape:
        return out
    with np.errstate(all="ignore"):
        for n, (index, center_x, center_y, width, height, degrees) in enumerate(rois):
            if not -1 < index < sizes.images:
                continue
            maps = data[int(index)]
            angle = np.float64(np.float32(np.float64(degrees) * np.pi / 180))
            if not abs(angle) <= _LARGEST_ANGLE:
                angle = np.float64(np.nan)
            sin, cos = np.float32(np.sin(angle)), np.float32(np.cos(angle))
            scale = np.float32(sizes.scale)
            center_y, center_x = center_y * scale, center_x * scale
            rows, num_rows = _axis(height, bins[0], sizes)
            columns, num_columns = _axis(width, bins[1], sizes)
            count = np.float32(np.int64(num_rows * num_columns))
            for i, j in np.ndindex(*bins):
                if count == 0:
                    continue
                total = np.zeros(sizes.channels, np.float32)
                for y in rows[i]:
                    for x in columns[j]:
                        at = y * cos - x * sin + center_y, x * cos + y * sin + center_x
                        value = _interpolated(maps, *at)
                        total += np.float32(0) * maps[:, 0, 0] if value is None else value
                out[n, :, i, j] = total / count
    return out


@_OP.implementation("native")
def _native(device: DeviceOps, data: np.ndarray, rois: np.ndarray, sizes: _Sizes) -> Any:
    bins = sizes.pooled_height, sizes.pooled_width
    out = device.empty((rois.shape[0], sizes.channels, *bins), np.float32)
    device.ops.rroi_align(out, data, rois, sizes)
    return out

"""Means in the bins of regions of interest, of channels of their own, and their gradient."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np

from cvops.ops import _check
from cvops.ops._op import DeviceOps, Op, Signature
from cvops.ops.roi_pooling import check_elements

Array = TypeVar("Array")
_OP = Op("psroi_pooling", data="float32 (N, C, H, W)", rois="float32 (R, 5)")
_BACKWARD = Op(
    "psroi_pooling_backward", out_grad="float32 (R, D, height, width)", rois="float32 (R, 5)"
)
MOST_BINS = 2**15 - 1  # along an axis: a roi has less than 2**30 bins


class Sizes(NamedTuple):
    """``Psroi`` of the extension."""

    images: int
    channels: int
    height: int
    width: int
    output_dim: int
    pooled: int
    group: int
    scale: float

    @property
    def data_shape(self) -> tuple[int, int, int, int]:
        return self[:4]


def psroi_pooling(
    data: Array,
    rois: Array,
    spatial_scale: float,
    output_dim: int,
    pooled_size: int,
    group_size: int = 0,
    *,
    backend: str | None = None,
) -> Array:
    """Return the mean of the pixels in a grid of bins of each region of interest.

    It is the position-sensitive pooling of R-FCN. The result has the bits of
    ``mx.nd.contrib.PSROIPooling`` of MXNet 1.9.1 on the CPU.

    The corners of a roi are rounded to pixels of the image, half away from zero. They are then
    scaled to ``x1 * spatial_scale`` and ``(x2 + 1) * spatial_scale``. A roi is at least 0.1 pixels
    of ``data`` long. ``pooled_size`` bins of equal length divide each axis. A bin has each pixel
    that it touches, so neighbors overlap. Each bin belongs to one of ``group_size`` cells along
    each axis: bin ``i`` to cell ``floor(i * group_size / pooled_size)``. Output channel ``c`` of a
    bin in cell (i, j) reads channel ``(c * group_size + i) * group_size + j`` of ``data``.

    The op computes in float32, and each operation is rounded: the sum by rows of pixels, then the
    number of pixels divides it.

    Args:
        data: feature maps, float32 (N, C, H, W). The first ``output_dim * group_size**2`` channels
            are in use.
        rois: float32 (R, 5): the index of the image, whose fraction is dropped, then the corners
            x1, y1, x2, y2, in pixels of ``data`` divided by ``spatial_scale``.
        spatial_scale: pixels of ``data`` for each unit of the rois' coordinates, in [0, 1].
        output_dim: channels of the result.
        pooled_size: bins along each axis, less than 2**15.
        group_size: cells along each axis; 0 selects ``pooled_size``.
        backend: the implementation; by default the best for the arrays' device.

    Returns:
        float32 (R, output_dim, pooled_size, pooled_size). A bin without pixels is 0. So is each bin
        of a roi whose image does not exist; MXNet reads out of bounds. Empty maps give 0.

        A PyTorch result has the gradient of :func:`psroi_pooling_backward`, which has no gradient
        itself. The gradient with respect to ``rois`` is 0, as in MXNet.

    Raises:
        TypeError: an input is not a float32 array; the inputs differ in library or device;
            ``output_dim``, ``pooled_size`` or ``group_size`` is not an integer.
        ValueError: ``data`` does not have four axes; ``rois`` is not (R, 5); ``spatial_scale`` is
            NaN or out of [0, 1]; ``output_dim`` or ``pooled_size`` is below 1; ``pooled_size`` is
            2**15 or more; ``group_size`` is negative; ``data`` has less than ``output_dim *
            group_size**2`` channels, or 2**31 elements or more, where an axis of length 0 counts
            as 1.

    Example:
        >>> data = np.ones((1, 4, 4, 4), np.float32) * np.float32([0, 1, 2, 3])[:, None, None]
        >>> rois = np.float32([[0, 0, 0, 3, 3]])
        >>> cvops.psroi_pooling(data, rois, 1.0, output_dim=1, pooled_size=2)
        array([[[[0., 1.],
                 [2., 3.]]]], dtype=float32)
    """
    signature = _OP.signature.get(backend, data=data, rois=rois)
    sizes = forward_sizes.get(
        signature.shapes["data"], spatial_scale, output_dim, pooled_size, group_size
    )
    return signature.run((data, rois), (sizes,))


@_check.memoized
def forward_sizes(
    shape: tuple[int, ...], spatial_scale: Any, output_dim: Any, pooled_size: Any, group_size: Any
) -> Sizes:
    scale = _check.number("spatial_scale", spatial_scale, 0, 1)
    dim = _check.integer("output_dim", output_dim, low=1)
    pooled = _check.integer("pooled_size", pooled_size, low=1, high=MOST_BINS)
    return sizes_of("data", shape, scale, dim, pooled, group_size)


def sizes_of(
    name: str, shape: tuple[int, ...], scale: float, dim: int, pooled: int, group_size: Any
) -> Sizes:
    """Return the sizes for ``data`` of a shape; refuse fewer channels than the bins read."""
    group = _check.integer("group_size", group_size, low=0) or pooled
    if dim * group**2 > shape[1]:
        raise ValueError(
            f"{name}: expected at least output_dim * group_size**2 = {dim * group**2} channels, "
            f"got {shape[1]}"
        )
    images, channels, height, width = shape
    return Sizes(images, channels, height, width, dim, pooled, group, scale)


@_OP.check
def _check_shapes(signature: Signature) -> None:
    check_elements("data", signature.shapes["data"])


def psroi_pooling_backward(
    out_grad: Array,
    rois: Array,
    data_shape: Sequence[int],
    spatial_scale: float,
    group_size: int = 0,
    *,
    backend: str | None = None,
) -> Array:
    """Return the gradient of :func:`psroi_pooling` with respect to ``data``.

    Each pixel of a bin adds ``g / n``: ``g`` is the element of ``out_grad``, ``n`` the number of
    pixels of the bin. A pixel adds in the order of rois, then bins, as MXNet 1.9.1 does on the CPU.
    Each operation is rounded. The result is the same in every run, also on a
    GPU. The gradient with respect to ``rois`` is 0, as in MXNet.

    Args:
        out_grad: the gradient with respect to the result, float32 (R, output_dim, pooled_size,
            pooled_size).
        rois: as in :func:`psroi_pooling`.
        data_shape: the shape of ``data``, (N, C, H, W).
        spatial_scale: as in :func:`psroi_pooling`.
        group_size: as in :func:`psroi_pooling`.
        backend: the implementation; by default the best for the arrays' device.

    Returns:
        float32 of shape ``data_shape``; zeros without rois.

    Raises:
        TypeError: an array is not a float32 array; the arrays differ in library or device;
            ``data_shape`` has a number that is not an integer; ``group_size`` is not an integer.
        ValueError: ``out_grad`` does not have four axes, or its bins are not a square of less than
            2**15 along each axis; ``rois`` is not (R, 5); ``data_shape`` does not have four numbers
            that are 0 or more, has too few channels, or has 2**31 elements or more (as in
            :func:`psroi_pooling`); an option is out of range.
    """
    signature = _BACKWARD.signature.get(backend, out_grad=out_grad, rois=rois)
    return signature.run(
        (out_grad, rois),
        (_backward_sizes.get(signature.shapes["out_grad"], data_shape, spatial_scale, group_size),),
    )


@_check.memoized
def _backward_sizes(
    grad_shape: tuple[int, ...], data_shape: Any, spatial_scale: Any, group_size: Any
) -> Sizes:
    scale = _check.number("spatial_scale", spatial_scale, 0, 1)
    dim, pooled, _ = grad_shape[1:]
    shape = _check.integers("data_shape", data_shape, "(N, C, H, W)", low=0)
    sizes = sizes_of("data_shape", shape, scale, dim, pooled, group_size)
    check_elements("data_shape", shape)
    return sizes


@_OP.backward(inputs=("rois",))
def _gradient(out_grad: Any, rois: Any, sizes: Sizes, backend: str | None) -> Any:
    return psroi_pooling_backward(
        out_grad, rois, sizes.data_shape, sizes.scale, sizes.group, backend=backend
    )


@_OP.mxnet
def _operator(sizes: Sizes) -> tuple[str, dict[str, Any]]:
    return "PSROIPooling", {
        "spatial_scale": float(sizes.scale),
        "output_dim": sizes.output_dim,
        "pooled_size": sizes.pooled,
        "group_size": sizes.group,
    }


@_BACKWARD.check
def check_bins(signature: Signature) -> None:
    """Refuse ``out_grad`` without a square of bins, or with too many."""
    height, width = signature.sizes["height"], signature.sizes["width"]
    if height != width or not 1 <= height <= MOST_BINS:
        raise ValueError(
            f"out_grad: expected a square of 1 x 1 to {MOST_BINS} x {MOST_BINS} bins, "
            f"got {height} x {width}"
        )


def rounded(x: Any) -> Any:
    """Return ``x`` rounded half away from zero."""
    whole = np.trunc(x)
    return np.where(np.abs(x - whole) >= 0.5, whole + np.sign(x), whole)


def cells_of(sizes: Sizes) -> list[int]:
    """Return the cell of each bin along an axis."""
    i = np.arange(sizes.pooled, dtype=np.float32)
    cells = np.floor(i * np.float32(sizes.group) / np.float32(sizes.pooled))
    return cells.astype(int).clip(max=sizes.group - 1).tolist()


def channels_of(row: int, column: int, sizes: Sizes) -> slice:
    """Return the channels of ``data`` that a cell reads."""
    cells = sizes.group**2
    return slice(row * sizes.group + column, sizes.output_dim * cells, cells)


def _edges(first: Any, last: Any, limit: int, sizes: Sizes) -> list[tuple[int, int]]:
    """Return the range of pixels of each bin of a roi along one axis."""
    scale = np.float32(sizes.scale)
    begin = rounded(first) * scale
    size = (rounded(last) + np.float32(1)) * scale - begin
    size = np.float32(0.1) if size < np.float32(0.1) else size
    step = size / np.float32(sizes.pooled)
    i = np.arange(sizes.pooled + 1, dtype=np.float32)
    edges = np.stack([np.floor(i[:-1] * step + begin), np.ceil(i[1:] * step + begin)], axis=1)
    # Edges that do not fit into int become the smallest int, which is then clipped.
    edges = np.where(np.abs(edges) < 2**31, edges, 0)
    return edges.clip(0, limit).astype(int).tolist()


def _bins_of(rois: np.ndarray, sizes: Sizes) -> Iterator[tuple[Any, ...]]:
    """List each bin of a roi with an image: number, row, column, index of its values in data."""
    cells = cells_of(sizes)
    for n, (index, x1, y1, x2, y2) in enumerate(rois if 0 not in sizes.data_shape else ()):
        if -1 < index < sizes.images:
            columns = _edges(x1, x2, sizes.width, sizes)
            for i, (top, bottom) in enumerate(_edges(y1, y2, sizes.height, sizes)):
                for j, (left, right) in enumerate(columns):
                    if top < bottom and left < right:
                        channels = channels_of(cells[i], cells[j], sizes)
                        pixels = slice(top, bottom), slice(left, right)
                        yield n, i, j, (int(index), channels, *pixels)


def out_shape(rois: Any, sizes: Any) -> tuple[int, int, int, int]:
    """Return the shape of the result. ``sizes`` has two fields of ``Sizes``."""
    return rois.shape[0], sizes.output_dim, sizes.pooled, sizes.pooled


@_OP.implementation("numpy")
def _numpy(data: np.ndarray, rois: np.ndarray, sizes: Sizes) -> np.ndarray:
    out = np.zeros(out_shape(rois, sizes), np.float32)
    with np.errstate(all="ignore"):
        for n, i, j, at in _bins_of(rois, sizes):
            values = data[at].reshape(sizes.output_dim, -1)
            total = np.zeros(sizes.output_dim, np.float32)
            for value in values.T:  # in order: each addition is rounded
                total += value
            out[n, :, i, j] = total / np.float32(values.shape[1])
    return out


@_BACKWARD.implementation("numpy")
def _backward_numpy(out_grad: np.ndarray, rois: np.ndarray, sizes: Sizes) -> np.ndarray:
    grad = np.zeros(sizes.data_shape, np.float32)
    with np.errstate(all="ignore"):
        for n, i, j, at in _bins_of(rois, sizes):
            window = grad[at]
            window += (out_grad[n, :, i, j] / np.float32(window[0].size))[:, None, None]
    return grad


@_OP.implementation("native")
def _native(device: DeviceOps, data: np.ndarray, rois: np.ndarray, sizes: Sizes) -> np.ndarray:
    out = device.empty(out_shape(rois, sizes), np.float32)
    device.ops.psroi_pooling(out, data, rois, sizes)
    return out


@_BACKWARD.implementation("native")
def _backward_native(
    device: DeviceOps, out_grad: np.ndarray, rois: np.ndarray, sizes: Sizes
) -> np.ndarray:
    grad = device.empty(sizes.data_shape, np.float32)
    device.ops.psroi_pooling_backward(grad, out_grad, rois, sizes)
    return grad

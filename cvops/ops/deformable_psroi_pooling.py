"""Means of samples in bins that learned offsets move, of channels of their own; their gradients."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np

from cvops.ops import _check
from cvops.ops._deformed_bins import Options, bins_of
from cvops.ops._op import DeviceOps, Op, Signature
from cvops.ops.psroi_pooling import (
    MOST_BINS,
    Sizes,
    check_bins,
    forward_sizes,
    out_shape,
    sizes_of,
)
from cvops.ops.roi_pooling import check_elements

Array = TypeVar("Array")
_DATA = {"data": "float32 (N, C, H, W)", "rois": "float32 (R, 5)"}
_TRANS = "float32 (R, offsets, rows, columns)"
_OP = Op("deformable_psroi_pooling", **_DATA, trans=_TRANS)
#: The op without offsets.
_PLAIN = Op("deformable_psroi_pooling", **_DATA)
_GRAD = {"out_grad": "float32 (R, D, height, width)", **_DATA}
_BACKWARD = Op("deformable_psroi_pooling_backward", **_GRAD, trans=_TRANS)
_PLAIN_BACKWARD = Op("deformable_psroi_pooling_backward", **_GRAD)
_MOST_SAMPLES = 1024


def deformable_psroi_pooling(
    data: Array,
    rois: Array,
    trans: Array | None,
    spatial_scale: float,
    output_dim: int,
    group_size: int,
    pooled_size: int,
    part_size: int = 0,
    sample_per_part: int = 1,
    trans_std: float = 0.0,
    no_trans: bool = False,
    *,
    backend: str | None = None,
) -> Array:
    """Return the mean of samples in a grid of bins of each region of interest; offsets move bins.

    It is the pooling of deformable R-FCN. The result has the bits of
    ``mx.nd.contrib.DeformablePSROIPooling`` of MXNet 1.9.1 on the CPU.

    Bins, cells and channels are those of :func:`psroi_pooling`, but a roi begins and ends half a
    pixel of ``data`` earlier. ``part_size`` parts divide a roi along each axis: bin ``i`` belongs
    to part ``floor(i / pooled_size * part_size)``. A part has an offset (x, y) for each class, in
    multiples of ``trans_std`` and of the roi's size, which moves its bins. The output channels
    divide into classes of equal size, half as many as ``trans`` has channels. A bin has
    ``sample_per_part`` samples along each axis, from its begin, at equal distances. A sample is the
    bilinear interpolation of the pixels around it. One up to half a pixel outside of the map has
    the position of the edge; any other one is left out. The mean is over the remaining samples.

    The op computes in float32, and each operation is rounded: the weights times the upper left,
    lower left, upper right and lower right pixel for a sample, the sum over rows of samples, then
    their number divides it.

    Args:
        data: feature maps, float32 (N, C, H, W). The first ``output_dim * group_size**2`` channels
            are in use.
        rois: float32 (R, 5): the index of the image, whose fraction is dropped, then the corners
            x1, y1, x2, y2, in pixels of ``data`` divided by ``spatial_scale``.
        trans: offsets, float32 (R, 2 * classes, part_size, part_size), x before y; None with
            ``no_trans``.
        spatial_scale: pixels of ``data`` for each unit of the rois' coordinates, in [0, 1].
        output_dim: channels of the result.
        group_size: cells along each axis; 0 selects ``pooled_size``.
        pooled_size: bins along each axis, less than 2**15.
        part_size: parts along each axis; 0 selects ``pooled_size``.
        sample_per_part: samples of a bin along each axis, from 1 to 1024.
        trans_std: factor of the offsets, in [0, 1].
        no_trans: True leaves the bins where they are.
        backend: the implementation; by default the best for the arrays' device.

    Returns:
        float32 (R, output_dim, pooled_size, pooled_size). A bin without samples in the map is 0. So
        is each bin of a roi whose image does not exist; MXNet reads out of bounds. A sample at a
        position of NaN is left out; MXNet reads out of bounds. Empty maps give 0.

        A PyTorch result has the gradients of :func:`deformable_psroi_pooling_backward`, which has
        no gradient itself. The gradient with respect to ``rois`` is 0, as in MXNet.

    Raises:
        TypeError: an input is not a float32 array; the inputs differ in library or device; a size
            is not an integer; ``trans`` is not None with ``no_trans``.
        ValueError: ``data`` does not have four axes; ``rois`` is not (R, 5); ``trans`` is not (R, 2
            * classes, part_size, part_size), or ``output_dim`` is not a multiple of its classes; an
            option is out of range; ``no_trans`` is not a flag; ``data`` has less than ``output_dim
            * group_size**2`` channels, or 2**31 elements or more, where an axis of length 0 counts
            as 1. MXNet does not check channels and ``trans``.

    Example:
        >>> data = np.ones((1, 4, 4, 4), np.float32) * np.float32([0, 1, 2, 3])[:, None, None]
        >>> rois, trans = np.float32([[0, 0, 0, 3, 3]]), np.zeros((1, 2, 2, 2), np.float32)
        >>> cvops.deformable_psroi_pooling(data, rois, trans, 1.0, 1, 2, 2, sample_per_part=2)
        array([[[[0., 1.],
                 [2., 3.]]]], dtype=float32)
    """
    flag = _check.flag("no_trans", no_trans)
    arrays = {"data": data, "rois": rois}
    signature = _signature((_PLAIN, _OP), backend, flag, trans, arrays)
    options = _forward_options.get(
        signature.shapes["data"], signature.shapes.get("trans"), spatial_scale, output_dim,
        group_size, pooled_size, part_size, sample_per_part, trans_std,
    )  # fmt: skip
    return signature.run(tuple(arrays.values()), (options,))


def _signature(
    ops: tuple[Op, Op], backend: str | None, no_trans: bool, trans: Any, arrays: dict[str, Any]
) -> Signature:
    """Check the arrays, for the op without ``trans`` or the op with it. Add ``trans`` to them."""
    if not no_trans:
        arrays["trans"] = trans
        return ops[1].signature.get(backend, **arrays)
    if trans is not None:
        raise TypeError(f"trans: expected None with no_trans, got {type(trans).__name__}")
    return ops[0].signature.get(backend, **arrays)


@_check.memoized
def _forward_options(
    shape: tuple[int, ...],
    trans_shape: tuple[int, ...] | None,
    spatial_scale: Any,
    output_dim: Any,
    group_size: Any,
    pooled_size: Any,
    *others: Any,
) -> Options:
    sizes = forward_sizes.get(shape, spatial_scale, output_dim, pooled_size, group_size)
    return _options(sizes, trans_shape, *others)


def _options(
    sizes: Sizes,
    shape: tuple[int, ...] | None,
    part_size: Any,
    sample_per_part: Any,
    trans_std: Any,
) -> Options:
    """Return the checked options that both directions have."""
    part = _check.integer("part_size", part_size, low=0, high=MOST_BINS) or sizes.pooled
    samples = _check.integer("sample_per_part", sample_per_part, low=1, high=_MOST_SAMPLES)
    std = _check.number("trans_std", trans_std, 0, 1)
    if shape is None:
        return Options(*sizes, part, samples, std, 1)
    classes = shape[1] // 2
    if shape[1] < 2 or shape[1] % 2 or shape[2:] != (part, part) or sizes.output_dim % classes:
        raise ValueError(
            f"trans: expected shape (R, 2 * classes, part_size, part_size) with part_size = {part} "
            f"and classes that divide output_dim = {sizes.output_dim}, got {shape}"
        )
    return Options(*sizes, part, samples, std, classes)


def _check_shapes(signature: Signature) -> None:
    check_elements("data", signature.shapes["data"])


def _check_grad_shapes(signature: Signature) -> None:
    check_bins(signature)
    _check_shapes(signature)


for _op in (_OP, _PLAIN):
    _op.check(_check_shapes)
for _op in (_BACKWARD, _PLAIN_BACKWARD):
    _op.check(_check_grad_shapes)


def deformable_psroi_pooling_backward(
    out_grad: Array,
    data: Array,
    rois: Array,
    trans: Array | None,
    spatial_scale: float,
    group_size: int,
    part_size: int = 0,
    sample_per_part: int = 1,
    trans_std: float = 0.0,
    *,
    backend: str | None = None,
) -> tuple[Array, Array | None]:
    """Return the gradients of :func:`deformable_psroi_pooling` for ``data`` and ``trans``.

    ``g / n`` is the gradient of a sample: ``g`` is the element of ``out_grad``, ``n`` the number of
    samples of the bin in the map. A sample adds it times their weights to the upper left, lower
    left, upper right and lower right pixel. It adds to an offset the slope along the axis times the
    product of ``trans_std``, the gradient of the sample and the roi's size. A pixel adds in the
    order of rois, then bins, then samples by rows; an offset in the order of output channels, then
    bins, then samples. MXNet 1.9.1 has this order on the CPU. Each operation is rounded. The
    results are the same in every run, also on a GPU. The gradient with respect to ``rois`` is 0, as
    in MXNet.

    Args:
        out_grad: the gradient with respect to the result, float32 (R, output_dim, pooled_size,
            pooled_size).
        data: as in :func:`deformable_psroi_pooling`, like the following arguments.
        rois: float32 (R, 5).
        trans: float32 (R, 2 * classes, part_size, part_size), or None without offsets.
        spatial_scale: pixels of ``data`` for each unit of the rois' coordinates.
        group_size: cells along each axis, or 0.
        part_size: parts along each axis, or 0.
        sample_per_part: samples of a bin along each axis.
        trans_std: factor of the offsets.
        backend: the implementation; by default the best for the arrays' device.

    Returns:
        ``(data_grad, trans_grad)``: float32 of the shapes of ``data`` and of ``trans``; None for
        ``trans`` of None.

    Raises:
        TypeError: as in :func:`deformable_psroi_pooling`.
        ValueError: as there; or the bins of ``out_grad`` are not a square of less than 2**15 along
            each axis.
    """
    no_trans = trans is None
    arrays = {"out_grad": out_grad, "data": data, "rois": rois}
    signature = _signature((_PLAIN_BACKWARD, _BACKWARD), backend, no_trans, trans, arrays)
    options = _backward_options.get(
        signature.shapes["out_grad"], signature.shapes["data"], signature.shapes.get("trans"),
        spatial_scale, group_size, part_size, sample_per_part, trans_std,
    )  # fmt: skip
    out = signature.run(tuple(arrays.values()), (options,))
    return (out, None) if no_trans else out


@_check.memoized
def _backward_options(
    grad_shape: tuple[int, ...],
    shape: tuple[int, ...],
    trans_shape: tuple[int, ...] | None,
    spatial_scale: Any,
    group_size: Any,
    *others: Any,
) -> Options:
    scale = _check.number("spatial_scale", spatial_scale, 0, 1)
    dim, pooled, _ = grad_shape[1:]
    sizes = sizes_of("data", shape, scale, dim, pooled, group_size)
    return _options(sizes, trans_shape, *others)


@_OP.backward(inputs=("data", "rois", "trans"), arrays=3)
def _gradients(
    out_grad: Any, data: Any, rois: Any, trans: Any, options: Options, backend: str | None
) -> Any:
    args = options.scale, options.group, options.part, options.samples, options.trans_std
    grad, trans_grad = deformable_psroi_pooling_backward(
        out_grad, data, rois, trans, *args, backend=backend
    )
    return grad, rois.new_zeros(rois.shape), trans_grad


@_PLAIN.backward(inputs=("rois",))
def _gradient(out_grad: Any, rois: Any, options: Options, backend: str | None) -> Any:
    args = options.scale, options.group, options.part, options.samples, options.trans_std
    data = out_grad.new_empty(options[:4])  # without offsets, its shape matters only
    return deformable_psroi_pooling_backward(out_grad, data, rois, None, *args, backend=backend)[0]


@_OP.mxnet
def _operator(options: Options) -> tuple[str, dict[str, Any]]:
    return "DeformablePSROIPooling", {
        "spatial_scale": float(options.scale),
        "output_dim": options.output_dim,
        "group_size": options.group,
        "pooled_size": options.pooled,
        "part_size": options.part,
        "sample_per_part": options.samples,
        "trans_std": float(options.trans_std),
    }


@_PLAIN.mxnet
def _no_operator(options: Options) -> tuple[str, dict[str, Any]]:
    raise NotImplementedError(
        "no_trans: expected False while MXNet records, got True: pass zeros as trans"
    )


@_OP.implementation("numpy")
@_PLAIN.implementation("numpy")
def _numpy(data: np.ndarray, rois: np.ndarray, *rest: Any) -> np.ndarray:
    *offsets, options = rest
    out = np.zeros(out_shape(rois, options.psroi), np.float32)
    with np.errstate(all="ignore"):
        trans = offsets[0] if offsets else None
        for n, image, i, j, channels, planes, axes, *_ in bins_of(rois, trans, options):
            maps, total = data[image, planes], np.zeros(len(planes), np.float32)
            for top, bottom, top_weight, bottom_weight in axes[1]:
                for left, right, left_weight, right_weight in axes[0]:
                    total += (
                        left_weight * top_weight * maps[:, top, left]
                        + left_weight * bottom_weight * maps[:, bottom, left]
                        + right_weight * top_weight * maps[:, top, right]
                        + right_weight * bottom_weight * maps[:, bottom, right]
                    )
            out[n, channels, i, j] = total / np.float32(len(axes[0]) * len(axes[1]))
    return out


@_BACKWARD.implementation("numpy")
@_PLAIN_BACKWARD.implementation("numpy")
def _backward_numpy(out_grad: np.ndarray, data: np.ndarray, rois: np.ndarray, *rest: Any) -> Any:
    *offsets, options = rest
    trans = offsets[0] if offsets else None
    grad = np.zeros(data.shape, np.float32)
    #: For each offset the terms of its channels, in the order of bins and samples.
    terms: dict[Any, list[np.ndarray]] = {}
    with np.errstate(all="ignore"):
        std = np.float32(options.trans_std)
        for n, image, i, j, channels, planes, axes, where, lengths in bins_of(rois, trans, options):
            maps = data[image, planes]
            top_grad = out_grad[n, channels, i, j] / np.float32(len(axes[0]) * len(axes[1]))
            for top, bottom, high, low in axes[1]:
                for left, right, near, far in axes[0]:
                    for row, column, weight in (
                        *((top, left, near * high), (bottom, left, near * low)),
                        *((top, right, far * high), (bottom, right, far * low)),
                    ):
                        grad[image, planes, row, column] += weight * top_grad
                    a, b = maps[:, top, left], maps[:, bottom, left]
                    c, d = maps[:, top, right], maps[:, bottom, right]
                    x = (d * low + c * high - b * low - a * high) * (std * top_grad * lengths[0])
                    y = (d * far + b * near - c * far - a * near) * (std * top_grad * lengths[1])
                    key = (*where[:1], where[1].start, *where[2:])
                    terms.setdefault(key, []).append(np.stack([x, y]))
        if trans is None:
            return grad
        trans_grad = np.zeros(trans.shape, np.float32)
        for (n, first, row, column), of_offset in terms.items():
            # (2, channels, samples), added in order: each addition is rounded.
            for term in np.stack(of_offset, axis=2).reshape(2, -1).T:
                trans_grad[n, first : first + 2, row, column] += term
    return grad, trans_grad


@_OP.implementation("native")
@_PLAIN.implementation("native")
def _native(device: DeviceOps, data: Any, rois: Any, *rest: Any) -> Any:
    *offsets, options = rest
    out = device.empty(out_shape(rois, options), np.float32)
    trans = offsets[0] if offsets else None
    device.ops.deformable_psroi_pooling(out, data, rois, trans, options)
    return out


@_BACKWARD.implementation("native")
@_PLAIN_BACKWARD.implementation("native")
def _backward_native(device: DeviceOps, out_grad: Any, data: Any, rois: Any, *rest: Any) -> Any:
    *offsets, options = rest
    grad = device.empty(data.shape, np.float32)
    trans = offsets[0] if offsets else None
    trans_grad = None if trans is None else device.empty(trans.shape, np.float32)
    args = grad, trans_grad, out_grad, data, rois, trans, options
    device.ops.deformable_psroi_pooling_backward(*args)
    return grad if trans is None else (grad, trans_grad)

"""Pooling in RoIs: the functions of ``torchvision.ops``.

``ps_roi_pool`` is not here: torchvision rounds the RoIs after it scales them, and leaves out the
last row and the last column. ``cvops.psroi_pooling`` has MXNet's rules instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Union

import torch
from torch import Tensor

from cvops.torch.tensors import call, check

#: The arguments of the functions, by those of the operators.
_NAMES = {
    "data": "input",
    "rois": "boxes",
    "pooled_size": "output_size",
    "sample_ratio": "sampling_ratio",
}
Rois = Union[Tensor, Sequence[Tensor]]


def _rois(boxes: Rois) -> Tensor:
    """Return RoIs (K, 5) of an image's number and a box, from them or from a list of (L, 4)."""
    if isinstance(boxes, Tensor):
        return check("boxes", boxes, "(K, 5), or a list of (L, 4)", None, 5)
    if not isinstance(boxes, Sequence):
        raise TypeError(f"boxes: expected a tensor, or a list of them, got {type(boxes).__name__}")
    rows = [check(f"boxes[{i}]", x, "(L, 4)", None, 4) for i, x in enumerate(boxes)]
    if not rows:
        raise ValueError("boxes: expected a tensor for each image, got an empty list")
    index = [torch.full_like(x[:, :1], i) for i, x in enumerate(rows)]
    return torch.cat([torch.cat(index), torch.cat(rows)], dim=1)


def _size(output_size: int | Sequence[int]) -> list[int]:
    if isinstance(output_size, int):
        return [output_size] * 2
    if not hasattr(output_size, "__len__") or len(output_size) != 2:
        raise TypeError(f"output_size: expected an integer, or two, got {output_size!r}")
    return list(output_size)


def roi_align(
    input: Tensor,
    boxes: Rois,
    output_size: int | Sequence[int],
    spatial_scale: float = 1.0,
    sampling_ratio: int = -1,
    aligned: bool = False,
) -> Tensor:
    """Average bilinear samples in the bins of each RoI; as ``torchvision.ops.roi_align``.

    The gradient is deterministic on each device.

    Args:
        input: (N, C, H, W), float32, float64, float16 or bfloat16.
        boxes: RoIs (K, 5) of an image's number and (x1, y1, x2, y2), or a list with (L, 4) for
            each image.
        output_size: the bins (height, width), or one number for both.
        spatial_scale: the factor from the RoIs' coordinates to the input's, in [0, 1].
        sampling_ratio: samples of a bin along each axis; as many as needed if it is not positive.
        aligned: shift the RoIs by half a pixel.

    Returns:
        (K, C, height, width).

    Raises:
        TypeError: a tensor has another dtype.
        ValueError: a shape or a number is wrong.
    """
    return _roi_align(input, boxes, output_size, spatial_scale, sampling_ratio, False, aligned)


def _roi_align(
    input: Tensor,
    boxes: Rois,
    output_size: int | Sequence[int],
    spatial_scale: float,
    sampling_ratio: int,
    position_sensitive: bool,
    aligned: bool,
) -> Tensor:
    x = check("input", input, "(N, C, H, W)", None, None, None, None)
    options = spatial_scale, sampling_ratio, position_sensitive, aligned
    operator, size = torch.ops.cvops.roi_align, _size(output_size)
    found: Tensor = call(operator, _NAMES, x, _rois(boxes), size, *options)
    return found.to(input.dtype)


def ps_roi_align(
    input: Tensor,
    boxes: Rois,
    output_size: int | Sequence[int],
    spatial_scale: float = 1.0,
    sampling_ratio: int = -1,
) -> Tensor:
    """Average bilinear samples, with channels for each bin; as ``torchvision.ops.ps_roi_align``.

    The gradient is deterministic on each device. A RoI without height or width has the value 0 if
    ``sampling_ratio`` is not positive; torchvision's is NaN.

    Args:
        input: (N, C, H, W), float32, float16 or bfloat16. C is a multiple of the number of bins.
        boxes: as in :func:`roi_align`.
        output_size: as in :func:`roi_align`.
        spatial_scale: as in :func:`roi_align`.
        sampling_ratio: as in :func:`roi_align`.

    Returns:
        (K, C / (height * width), height, width).

    Raises:
        TypeError: a tensor has another dtype.
        ValueError: a shape or a number is wrong.
    """
    return _roi_align(input, boxes, output_size, spatial_scale, sampling_ratio, True, True)


def roi_pool(
    input: Tensor, boxes: Rois, output_size: int | Sequence[int], spatial_scale: float = 1.0
) -> Tensor:
    """Return the maximum in the bins of each RoI; as ``torchvision.ops.roi_pool``.

    Args:
        input: as in :func:`roi_align`.
        boxes: as in :func:`roi_align`.
        output_size: as in :func:`roi_align`.
        spatial_scale: as in :func:`roi_align`.

    Returns:
        (K, C, height, width). An empty bin is 0.

    Raises:
        TypeError: a tensor has another dtype.
        ValueError: a shape or a number is wrong.
    """
    x = check("input", input, "(N, C, H, W)", None, None, None, None)
    operator, size = torch.ops.cvops.roi_pooling, _size(output_size)
    found, _ = call(operator, _NAMES, x, _rois(boxes), size, spatial_scale)
    return found.to(input.dtype)

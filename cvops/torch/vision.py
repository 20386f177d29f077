"""The functions of ``torchvision.ops`` on our operators.

Names, arguments and rules are those of torchvision 0.28. Differences: a box whose score is NaN or
-inf is not kept; the IoU of two boxes without area is 0, and not NaN. float16 and bfloat16 tensors
are computed in float32, and rounded once. Each function has the same result on each device.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Union

import torch
from torch import Tensor

_FLOATS = (torch.float32, torch.float16, torch.bfloat16)
Rois = Union[Tensor, Sequence[Tensor]]


def _check(name: str, x: Any, shape: str, *sizes: int | None) -> Tensor:
    """Return a tensor of that shape as float32; None is any size."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{name}: expected a tensor, got {type(x).__name__}")
    if x.dtype not in _FLOATS:
        raise TypeError(
            f"{name}: expected float32, float16 or bfloat16, got {x.dtype}: convert it by "
            ".to(torch.float32)"
        )
    same = len(x.shape) == len(sizes)
    if not same or any(want not in (None, got) for want, got in zip(sizes, x.shape)):
        raise ValueError(f"{name}: expected shape {shape}, got {tuple(x.shape)}")
    return x.to(torch.float32)


def _nms(rows: Tensor, iou_threshold: float, id_index: int) -> Tensor:
    """Return the numbers of the kept rows (class if any, score, box), the best first."""
    coord = rows.shape[1] - 4
    _, index = torch.ops.cvops.box_nms(
        rows, iou_threshold, -math.inf, -1, coord, coord - 1, id_index
    )
    return index[index >= 0].to(torch.int64)


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Suppress boxes that overlap a box of a higher score; as ``torchvision.ops.nms``.

    Args:
        boxes: (N, 4) of (x1, y1, x2, y2), float32, float16 or bfloat16.
        scores: (N,). Of equal scores, the first one is the higher.
        iou_threshold: a box is suppressed if its IoU with a kept one is above it.

    Returns:
        int64 (kept,): the numbers of the kept boxes in the order of their scores.

    Raises:
        TypeError: a tensor has another dtype.
        ValueError: a shape is wrong, or the threshold is no number.
    """
    boxes = _check("boxes", boxes, "(N, 4)", None, 4)
    scores = _check("scores", scores, f"({len(boxes)},)", len(boxes))
    return _nms(torch.cat([scores[:, None], boxes], dim=1), iou_threshold, -1)


def batched_nms(boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float) -> Tensor:
    """Suppress boxes within each class; as ``torchvision.ops.batched_nms``.

    torchvision moves the boxes of each class apart, which changes their last bits, or loops over
    the classes. Here one call compares the boxes of each class as they are.

    Args:
        boxes: as in :func:`nms`.
        scores: as in :func:`nms`.
        idxs: (N,) the class of each box: integers from 0 to 2**24.
        iou_threshold: as in :func:`nms`.

    Returns:
        As :func:`nms`, over all classes.

    Raises:
        TypeError: as :func:`nms`.
        ValueError: as :func:`nms`; ``idxs`` has another shape.
    """
    boxes = _check("boxes", boxes, "(N, 4)", None, 4)
    scores = _check("scores", scores, f"({len(boxes)},)", len(boxes))
    if idxs.shape != scores.shape:
        raise ValueError(f"idxs: expected shape ({len(boxes)},), got {tuple(idxs.shape)}")
    classes = idxs.to(torch.float32)
    rows = torch.cat([classes[:, None], scores[:, None], boxes], dim=1)
    return _nms(rows, iou_threshold, 0)


def box_area(boxes: Tensor) -> Tensor:
    """Return the areas (N,) of boxes (N, 4); as ``torchvision.ops.box_area``."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def _iou(boxes1: Tensor, boxes2: Tensor, kind: str) -> Tensor:
    lhs, rhs = (
        _check(name, x, "(N, 4)", None, 4) for name, x in (("boxes1", boxes1), ("boxes2", boxes2))
    )
    found: Tensor = torch.ops.cvops.box_iou(lhs, rhs, "corner", kind)
    return found.to(torch.promote_types(boxes1.dtype, boxes2.dtype))


def box_iou(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """Return the IoU (N, M) of each box with each; as ``torchvision.ops.box_iou``.

    Args:
        boxes1: (N, 4) of (x1, y1, x2, y2), float32, float16 or bfloat16.
        boxes2: (M, 4).

    Raises:
        TypeError: a tensor has another dtype.
        ValueError: a shape is wrong.
    """
    return _iou(boxes1, boxes2, "iou")


def generalized_box_iou(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """Return the GIoU, as :func:`box_iou`: :func:`cvops.box_iou` has the formula."""
    return _iou(boxes1, boxes2, "giou")


def distance_box_iou(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """Return the DIoU, as :func:`box_iou`: :func:`cvops.box_iou` has the formula."""
    return _iou(boxes1, boxes2, "diou")


def complete_box_iou(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """Return the CIoU, as :func:`box_iou`: :func:`cvops.box_iou` has the formula."""
    return _iou(boxes1, boxes2, "ciou")


def clip_boxes_to_image(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Clip boxes (..., 4) to an image of ``size`` (height, width)."""
    height, width = size
    x, y = boxes[..., 0::2].clamp(0, width), boxes[..., 1::2].clamp(0, height)
    return torch.stack([x, y], dim=-1).reshape(boxes.shape)


def remove_small_boxes(boxes: Tensor, min_size: float) -> Tensor:
    """Return the numbers, int64 (kept,), of boxes (N, 4) whose sides are ``min_size`` or more."""
    sides = boxes[:, 2:] - boxes[:, :2]
    return (sides >= min_size).all(dim=1).nonzero()[:, 0]


def _rois(boxes: Rois) -> Tensor:
    """Return RoIs (K, 5) of an image's number and a box, from them or from a list of (L, 4)."""
    if isinstance(boxes, Tensor):
        return _check("boxes", boxes, "(K, 5), or a list of (L, 4)", None, 5)
    rows = [_check(f"boxes[{i}]", x, "(L, 4)", None, 4) for i, x in enumerate(boxes)]
    if not rows:
        raise ValueError("boxes: expected a tensor for each image, got an empty list")
    index = [torch.full_like(x[:, :1], i) for i, x in enumerate(rows)]
    return torch.cat([torch.cat(index), torch.cat(rows)], dim=1)


def _size(output_size: int | Sequence[int]) -> list[int]:
    return [output_size] * 2 if isinstance(output_size, int) else list(output_size)


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
        input: (N, C, H, W), float32, float16 or bfloat16.
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
    x = _check("input", input, "(N, C, H, W)", None, None, None, None)
    found: Tensor = torch.ops.cvops.roi_align(
        x, _rois(boxes), _size(output_size), spatial_scale, sampling_ratio, False, aligned
    )
    return found.to(input.dtype)


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
    x = _check("input", input, "(N, C, H, W)", None, None, None, None)
    found, _ = torch.ops.cvops.roi_pooling(x, _rois(boxes), _size(output_size), spatial_scale)
    return found.to(input.dtype)

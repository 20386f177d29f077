"""Boxes: the functions of ``torchvision.ops``, and the matching of anchors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from cvops.torch.tensors import call, check, floats, is_number, tensor


def box_area(boxes: Tensor) -> Tensor:
    """Return the areas (N,) of boxes (N, 4); as ``torchvision.ops.box_area``."""
    boxes = tensor("boxes", boxes)
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def _iou(boxes1: Tensor, boxes2: Tensor, kind: str) -> Tensor:
    lhs, rhs = (
        check(name, x, "(N, 4)", None, 4) for name, x in (("boxes1", boxes1), ("boxes2", boxes2))
    )
    dtype = torch.promote_types(lhs.dtype, rhs.dtype)  # float32 or float64
    found: Tensor = torch.ops.cvops.box_iou(lhs.to(dtype), rhs.to(dtype), "corner", kind)
    return found.to(torch.promote_types(boxes1.dtype, boxes2.dtype))


def box_iou(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """Return the IoU (N, M) of each box with each; as ``torchvision.ops.box_iou``.

    Args:
        boxes1: (N, 4) of (x1, y1, x2, y2), float32, float64, float16 or bfloat16.
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
    boxes = _corners("(..., 4)", boxes)
    if not isinstance(size, Sequence) or list(map(is_number, size)) != [True, True]:
        raise TypeError(f"size: expected a pair (height, width), got {size!r}")
    height, width = size
    x, y = boxes[..., 0::2].clamp(0, width), boxes[..., 1::2].clamp(0, height)
    return torch.stack([x, y], dim=-1).reshape(boxes.shape)


def _corners(shape: str, boxes: Any, axes: int | None = None) -> Tensor:
    """Return boxes of any dtype, with that number of axes."""
    got = tensor("boxes", boxes).shape
    if axes not in (None, len(got)) or got[-1:] != (4,):
        raise ValueError(f"boxes: expected shape {shape}, got {tuple(got)}")
    return boxes


def remove_small_boxes(boxes: Tensor, min_size: float) -> Tensor:
    """Return the numbers, int64 (kept,), of boxes (N, 4) whose sides are ``min_size`` or more."""
    boxes = _corners("(N, 4)", boxes, 2)
    if not is_number(min_size):
        raise TypeError(f"min_size: expected a number, got {min_size!r}")
    sides = boxes[:, 2:] - boxes[:, :2]
    return (sides >= min_size).all(dim=1).nonzero()[:, 0]


def masks_to_boxes(masks: Tensor) -> Tensor:
    """Return the bounding boxes of masks; as ``torchvision.ops.masks_to_boxes``.

    Args:
        masks: (N, H, W) of any dtype; a pixel is in the mask if it is not 0.

    Returns:
        float32 (N, 4): the first and the last column and row of each mask, as (x1, y1, x2, y2) in
        pixels. A mask without pixels has the box (0, 0, 0, 0).

    Raises:
        TypeError: ``masks`` is not a tensor.
        ValueError: it does not have three axes.
    """
    if tensor("masks", masks).dim() != 3:
        raise ValueError(f"masks: expected shape (N, H, W), got {tuple(masks.shape)}")
    inside = masks != 0
    if inside.numel() == 0:
        return torch.zeros(len(masks), 4, device=masks.device)

    def ends(line: Tensor) -> tuple[Tensor, Tensor]:
        """Return the numbers of the first and the last true element of each row."""
        place = torch.arange(line.shape[1], device=line.device)
        return torch.where(line, place, len(place)).amin(1), torch.where(line, place, -1).amax(1)

    (x1, x2), (y1, y2) = ends(inside.any(dim=1)), ends(inside.any(dim=2))
    found = torch.stack([x1, y1, x2, y2], dim=1) * inside.flatten(1).any(dim=1)[:, None]
    return found.to(torch.float32)


def match_anchors(
    anchors: Tensor,
    boxes: Tensor,
    high_threshold: float = 0.5,
    low_threshold: float | None = None,
    allow_low_quality_matches: bool = False,
    match_best_anchors: bool = False,
) -> Tensor:
    """Match each anchor with the ground truth of its highest IoU, without the matrix of IoUs.

    torchvision has classes for it, which need the matrix: ``match_anchors(anchors, boxes, 0.7, 0.3,
    True)`` stands for ``Matcher(0.7, 0.3, True)(box_iou(boxes, anchors))``, and ``match_anchors(
    anchors, boxes, 0.5, match_best_anchors=True)`` for ``SSDMatcher(0.5)(box_iou(boxes,
    anchors))``. The results are equal if each box overlaps an anchor; :func:`cvops.match_anchors`
    has the rules. :func:`install` leaves the classes as they are.

    Args:
        anchors: (A, 4) or (1, A, 4), or (..., A, 4) with the leading axes of ``boxes``; corners
            (x1, y1, x2, y2), float32, float16 or bfloat16.
        boxes: (..., M, 4), padded by boxes without area; M may be 0.
        high_threshold: the IoU from which on an anchor matches, in [0, 1].
        low_threshold: the IoU below which the result is -1; None means ``high_threshold``.
        allow_low_quality_matches: also match the anchors that have the highest IoU of a box.
        match_best_anchors: match the best anchor of each box to that box.

    Returns:
        int64 (..., A): the number of the matched box, -1, or -2 between the thresholds. It has no
        gradient.

    Raises:
        TypeError: a tensor has another dtype.
        ValueError: the shapes do not agree, or a threshold is out of its range.
    """
    found: Tensor = call(
        torch.ops.cvops.match_anchors,
        {},
        floats("anchors", anchors),
        floats("boxes", boxes),
        high_threshold,
        low_threshold,
        allow_low_quality_matches,
        match_best_anchors,
    )
    return found.to(torch.int64)

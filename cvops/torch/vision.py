"""The functions of ``torchvision.ops`` on our operators, and three that torchvision lacks.

Names, arguments and rules are those of torchvision 0.28. Differences: a box whose score is NaN or
-inf is not kept; the IoU of two boxes without area is 0, and not NaN. float16 and bfloat16 tensors
are computed in float32, and rounded once. Each function has the same result on each device. The
functions that torchvision has, and that are on operators with float64, take float64 tensors too. An
option such as a threshold is rounded to float32.

``ps_roi_pool`` is not here: torchvision rounds the RoIs after it scales them, and leaves out the
last row and the last column. ``cvops.psroi_pooling`` has MXNet's rules instead.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Union

import torch
from torch import Tensor

from cvops.ops._check import number

_FLOATS = (torch.float32, torch.float16, torch.bfloat16)
Rois = Union[Tensor, Sequence[Tensor]]
_ARGUMENTS = ("boxes", "scores", "idxs")
#: No class of a box: all classes take part.
_NO_BACKGROUND = -(2**31)


def _floats(name: str, x: Any, doubles: bool = False) -> Tensor:
    """Return a tensor of floats as float32; one of float64 as it is, if ``doubles``."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{name}: expected a tensor, got {type(x).__name__}")
    if doubles and x.dtype == torch.float64:
        return x
    if x.dtype not in _FLOATS:
        known = "float32, float64, float16" if doubles else "float32, float16"
        raise TypeError(
            f"{name}: expected {known} or bfloat16, got {x.dtype}: convert it by .to(torch.float32)"
        )
    return x if x.dtype == torch.float32 else x.to(torch.float32)


def _check(name: str, x: Any, shape: str, *sizes: int | None, doubles: bool = True) -> Tensor:
    """Return a tensor of that shape, as :func:`_floats`; a size of None is any size."""
    y = _floats(name, x, doubles)
    got = x.shape
    if len(got) == len(sizes):
        for want, size in zip(sizes, got):
            if want is not None and want != size:
                break
        else:
            return y
    raise ValueError(f"{name}: expected shape {shape}, got {tuple(got)}")


def _rows(
    boxes: Tensor,
    scores: Tensor,
    idxs: Tensor | None = None,
    names: Sequence[str] = _ARGUMENTS,
    doubles: bool = False,
) -> Tensor:
    """Return the rows (class if any, score, box) of checked boxes."""
    boxes = _check(names[0], boxes, "(N, 4)", None, 4, doubles=doubles)
    scores = _check(names[1], scores, f"({len(boxes)},)", len(boxes), doubles=doubles)
    columns = [scores.unsqueeze(1), boxes]
    if idxs is not None:
        if not isinstance(idxs, Tensor):
            raise TypeError(f"{names[2]}: expected a tensor, got {type(idxs).__name__}")
        if idxs.shape != scores.shape:
            raise ValueError(f"{names[2]}: expected shape ({len(boxes)},), got {tuple(idxs.shape)}")
        columns.insert(0, idxs.to(torch.float32)[:, None])
    return torch.cat(columns, dim=1)


def _is_plain(*tensors: Any) -> bool:
    """Report if PyTorch computes operators on these tensors, without a tracer or a mode."""
    return (
        not torch.compiler.is_compiling()
        and all([type(x) is Tensor for x in tensors])
        and not torch._C._len_torch_dispatch_stack()
        and torch._C._functorch.peek_interpreter_stack() is None
    )


def _nms(boxes: Tensor, scores: Tensor, idxs: Tensor | None, iou_threshold: float) -> Tensor:
    """Return the numbers of the kept boxes, the best first."""
    if _is_plain(boxes, scores, *(() if idxs is None else (idxs,))):
        found: Tensor | None = torch.ops.cvops._nms.default(boxes, scores, idxs, iou_threshold)
        if found is not None:
            return found
    rows = _rows(boxes, scores, idxs, doubles=True)
    id_index = -1 if idxs is None else 0
    coord = rows.shape[1] - 4
    _, index = torch.ops.cvops.box_nms(
        rows, iou_threshold, -math.inf, -1, coord, coord - 1, id_index, _NO_BACKGROUND
    )
    return index[index >= 0].to(torch.int64)


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Suppress boxes that overlap a box of a higher score; as ``torchvision.ops.nms``.

    Args:
        boxes: (N, 4) of (x1, y1, x2, y2), float32, float64, float16 or bfloat16.
        scores: (N,). The first one of equal scores is the higher.
        iou_threshold: a box is suppressed if its IoU with a kept one is above it.

    Returns:
        int64 (kept,): the numbers of the kept boxes in the order of their scores.

    Raises:
        TypeError: a tensor has another dtype.
        ValueError: a shape is wrong, or the threshold is no number.
    """
    return _nms(boxes, scores, None, iou_threshold)


def batched_nms(boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float) -> Tensor:
    """Suppress boxes within each class; as ``torchvision.ops.batched_nms``.

    torchvision moves the boxes of each class apart, which changes their last bits, or loops over
    the classes. Here one call compares the boxes of each class as they are.

    Args:
        boxes: as in :func:`nms`.
        scores: as in :func:`nms`.
        idxs: (N,) the class of each box: integers from -2**24 to 2**24.
        iou_threshold: as in :func:`nms`.

    Returns:
        As :func:`nms`, over all classes.

    Raises:
        TypeError: as :func:`nms`.
        ValueError: as :func:`nms`; ``idxs`` has another shape.
    """
    return _nms(boxes, scores, idxs, iou_threshold)


def soft_nms(
    boxes: Tensor,
    scores: Tensor,
    idxs: Tensor | None = None,
    iou_threshold: float = 0.3,
    sigma: float = 0.5,
    score_threshold: float = 0.001,
    method: str = "linear",
) -> tuple[Tensor, Tensor]:
    """Lower the scores of boxes that overlap a box of a higher score: Soft-NMS.

    torchvision has no such function. The rules are those of detectron2; :func:`cvops.soft_nms` has
    the formulas.

    Args:
        boxes: (N, 4) of (x1, y1, x2, y2), float32, float16 or bfloat16.
        scores: (N,). The first one of equal scores is the higher.
        idxs: the classes, as in :func:`batched_nms`; None for one class.
        iou_threshold: the IoU above which "linear" lowers a score.
        sigma: the divisor of the squared IoU for "gaussian".
        score_threshold: the score that a box must exceed, before and after; 0 or more.
        method: "linear" or "gaussian".

    Returns:
        int64 (kept,): the numbers of the kept boxes in the order of their new scores, and the new
        scores (kept,) in the dtype of ``scores``, without a gradient.

    Raises:
        TypeError: as :func:`nms`.
        ValueError: as :func:`batched_nms`; an option is out of its range.
    """
    rows = _rows(boxes, scores, idxs)
    coord, of_class = rows.shape[1] - 4, -1 if idxs is None else 0
    found, index = torch.ops.cvops.soft_nms(
        rows,
        method,
        sigma,
        iou_threshold,
        score_threshold,
        coord_start=coord,
        score_index=coord - 1,
        id_index=of_class,
        background_id=_NO_BACKGROUND,
    )
    kept = index >= 0
    return index[kept].to(torch.int64), found[kept, coord - 1].to(scores.dtype)


def weighted_boxes_fusion(
    boxes: Sequence[Tensor],
    scores: Sequence[Tensor],
    labels: Sequence[Tensor],
    weights: Sequence[float] | None = None,
    iou_threshold: float = 0.55,
    score_threshold: float = 0.0,
    score_type: str = "avg",
) -> tuple[Tensor, Tensor, Tensor]:
    """Fuse the boxes of several models for one image: Weighted Boxes Fusion.

    torchvision has no such function. The rules are those of the package ``ensemble_boxes``;
    :func:`cvops.weighted_boxes_fusion` has the formulas.

    Args:
        boxes: for each model (N, 4) of (x1, y1, x2, y2), float32, float16 or bfloat16.
        scores: for each model (N,).
        labels: for each model (N,): integers from 0 to 2**24.
        weights: a positive factor of the scores of each model; by default 1.
        iou_threshold: the IoU with the fused box above which a box joins it, in [0, 1].
        score_threshold: the score that a box must reach. A box of score 0 is left out.
        score_type: "avg" for the mean of the scores of a fused box, "max" for the highest one.

    Returns:
        Boxes (M, 4) in the dtype of ``boxes[0]``, scores (M,) in that of ``scores[0]``, labels (M,)
        in that of ``labels[0]``: the highest score first. They have no gradient.

    Raises:
        TypeError: a tensor has another dtype, or is none; a weight is no number.
        ValueError: there is no model; the models' lists have different lengths; a shape is wrong;
            a weight is not positive; an option is out of its range.
    """
    models = len(boxes)
    if models == 0:
        raise ValueError("boxes: expected a tensor for each model, got none")
    given = [1.0] * models if weights is None else weights
    for name, x in (("scores", scores), ("labels", labels), ("weights", given)):
        if len(x) != models:
            raise ValueError(f"{name}: expected {models} elements as boxes, got {len(x)}")
    factors = [number(f"weights[{i}]", x, 0) for i, x in enumerate(given)]
    if 0 in factors:
        raise ValueError(f"weights: expected positive numbers, got {weights!r}")
    least = number("score_threshold", score_threshold)
    rows = []
    for i, factor in enumerate(factors):
        names = [f"{name}[{i}]" for name in ("boxes", "scores", "labels")]
        row = _rows(boxes[i], scores[i], labels[i], names)
        score = torch.where(row[:, 1] >= least, row[:, 1] * factor, 0)
        rows.append(torch.cat([row[:, :1], score[:, None], row[:, 2:]], dim=1))
    found = torch.ops.cvops.weighted_boxes_fusion(
        torch.cat(rows), iou_threshold, models, score_type, id_index=0
    )
    found = found[found[:, 1] >= 0]
    score = found[:, 1] * (models / sum(factors))
    return (
        found[:, 2:].to(boxes[0].dtype),
        score.to(scores[0].dtype),
        found[:, 0].to(labels[0].dtype),
    )


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
    height, width = size
    x, y = boxes[..., 0::2].clamp(0, width), boxes[..., 1::2].clamp(0, height)
    return torch.stack([x, y], dim=-1).reshape(boxes.shape)


def remove_small_boxes(boxes: Tensor, min_size: float) -> Tensor:
    """Return the numbers, int64 (kept,), of boxes (N, 4) whose sides are ``min_size`` or more."""
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
    if not isinstance(masks, Tensor):
        raise TypeError(f"masks: expected a tensor, got {type(masks).__name__}")
    if masks.dim() != 3:
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
    found: Tensor = torch.ops.cvops.match_anchors(
        _floats("anchors", anchors),
        _floats("boxes", boxes),
        high_threshold,
        low_threshold,
        allow_low_quality_matches,
        match_best_anchors,
    )
    return found.to(torch.int64)


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
    x = _check("input", input, "(N, C, H, W)", None, None, None, None)
    options = spatial_scale, sampling_ratio, position_sensitive, aligned
    found: Tensor = torch.ops.cvops.roi_align(x, _rois(boxes), _size(output_size), *options)
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
    x = _check("input", input, "(N, C, H, W)", None, None, None, None)
    found, _ = torch.ops.cvops.roi_pooling(x, _rois(boxes), _size(output_size), spatial_scale)
    return found.to(input.dtype)

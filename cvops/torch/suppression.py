"""Suppression and fusion of boxes: functions of ``torchvision.ops``, and two that it lacks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from cvops.ops._check import number
from cvops.torch.tensors import call, check

_ARGUMENTS = ("boxes", "scores", "idxs")
#: The arguments of the functions, by those of the operators.
_NAMES = {"data": "boxes", "overlap_thresh": "iou_threshold", "valid_thresh": "score_threshold"}
#: No class of a box: all classes take part.
_NO_BACKGROUND = -(2**31)


def _rows(
    boxes: Tensor,
    scores: Tensor,
    idxs: Tensor | None = None,
    names: Sequence[str] = _ARGUMENTS,
    doubles: bool = False,
) -> Tensor:
    """Return the rows (class if any, score, box) of checked boxes."""
    boxes = check(names[0], boxes, "(N, 4)", None, 4, doubles=doubles)
    scores = check(names[1], scores, f"({len(boxes)},)", len(boxes), doubles=doubles)
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
        try:
            found: Tensor | None = torch.ops.cvops._nms.default(boxes, scores, idxs, iou_threshold)
        except RuntimeError:  # a threshold of another type, which the operator below refuses
            found = None
        if found is not None:
            return found
    rows = _rows(boxes, scores, idxs, doubles=True)
    id_index = -1 if idxs is None else 0
    coord = rows.shape[1] - 4
    columns = coord, coord - 1, id_index, _NO_BACKGROUND
    _, index = call(torch.ops.cvops.box_nms, _NAMES, rows, iou_threshold, -math.inf, -1, *columns)
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
    found, index = call(
        torch.ops.cvops.soft_nms,
        _NAMES,
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
    given = [1.0] * len(boxes) if weights is None else weights
    lists = {"boxes": boxes, "scores": scores, "labels": labels, "weights": given}
    for name, x in lists.items():
        if not hasattr(x, "__len__"):
            raise TypeError(f"{name}: expected one for each model, got {type(x).__name__}")
    models = len(boxes)
    if models == 0:
        raise ValueError("boxes: expected a tensor for each model, got none")
    for name, x in lists.items():
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
    operator, options = torch.ops.cvops.weighted_boxes_fusion, (iou_threshold, models, score_type)
    found = call(operator, _NAMES, torch.cat(rows), *options, id_index=0)
    found = found[found[:, 1] >= 0]
    score = found[:, 1] * (models / sum(factors))
    return (
        found[:, 2:].to(boxes[0].dtype),
        score.to(scores[0].dtype),
        found[:, 0].to(labels[0].dtype),
    )

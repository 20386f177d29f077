"""The ops in dense PyTorch, without special kernels, on a CPU or a GPU.

Functions named ``book_`` follow "Dive into Deep Learning" (14.4, anchor boxes): Python loops over
images, ground truths and boxes. The others process the whole batch at once, with all IoUs (B, A, G)
in memory, and wait for the device only in the functions of torchvision.

Their rules differ from those of cvops, which are MXNet's:

- ``book_multibox_target`` also assigns a ground truth to an anchor if the IoU equals the threshold.
  It assigns every ground truth to an anchor, even without overlap. It has no mining.
- ``book_multibox_detection`` suppresses across classes, and has no ``topk``.
- ``multibox_detection`` does not suppress a box whose IoU equals the threshold.
- The order of equal scores or IoUs is not specified. A GPU may contract sums and products.
- torchvision's ``batched_nms`` may add an offset for each class and image before it compares boxes,
  so that the corners have fewer bits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from peers.torch_boxes import box_decode as box_decode
from peers.torch_boxes import box_encode as box_encode
from peers.torch_boxes import box_iou as box_iou
from peers.torch_boxes import box_iou_rotated as box_iou_rotated
from peers.torch_boxes import decode
from peers.torch_boxes import nms_rotated as nms_rotated
from peers.torch_targets import book_multibox_target as book_multibox_target
from peers.torch_targets import match_anchors as match_anchors
from peers.torch_targets import multibox_target as multibox_target
from peers.torch_targets import rcnn_target as rcnn_target
from peers.torch_targets import rpn_target as rpn_target
from torch import Tensor

#: Boxes with lower scores are background.
MIN_SCORE = 0.01


def book_multibox_prior(data: Tensor, sizes: Sequence[float], ratios: Sequence[float]) -> Tensor:
    """Return the anchors (1, A, 4) of a feature map (..., H, W)."""
    height, width = data.shape[-2:]
    size = torch.tensor(sizes, device=data.device)
    root = torch.tensor(ratios, device=data.device).sqrt()
    y = (torch.arange(height, device=data.device) + 0.5) / height
    x = (torch.arange(width, device=data.device) + 0.5) / width
    y, x = torch.meshgrid(y, x, indexing="ij")
    center = torch.stack([x, y], dim=-1).reshape(-1, 1, 2)
    wide = torch.cat([size * root[0], size[0] * root[1:]]) * (height / width)
    high = torch.cat([size / root[0], size[0] / root[1:]])
    half = torch.stack([wide, high], dim=-1) / 2
    return torch.cat([center - half, center + half], dim=-1).reshape(1, -1, 4)


def bipartite_matching(data: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    """Return the results of ``cvops.bipartite_matching`` for scores (B, N, M) without NaN."""
    batch, num_rows, num_columns = data.shape
    columns, rows = data.new_full((batch, num_rows), -1), data.new_full((batch, num_columns), -1)
    data, at = data.clone(), torch.arange(batch, device=data.device)
    for _ in range(min(num_rows, num_columns)):
        best, index = data.flatten(1).max(dim=1)
        row, column = index // num_columns, index % num_columns
        is_matched = best > threshold
        columns[at, row] = torch.where(is_matched, column.to(data.dtype), columns[at, row])
        rows[at, column] = torch.where(is_matched, row.to(data.dtype), rows[at, column])
        data[at, row] = -math.inf
        data[at, :, column] = -math.inf
    return columns, rows


# --- suppression ----------------------------------------------------------------------------------


def soft_nms(
    boxes: Tensor,
    scores: Tensor,
    method: str = "linear",
    sigma: float = 0.5,
    threshold: float = 0.3,
    lowest: float = 0.001,
) -> Tensor:
    """Return the scores that ``cvops.soft_nms`` keeps, for the boxes of one class."""
    left = scores > lowest
    boxes, scores = boxes[left], scores[left]
    kept = []
    while len(scores):
        best = int(scores.argmax())
        kept.append(scores[best])
        iou = box_iou(boxes[best : best + 1], boxes)[0]
        if method == "gaussian":
            scores = scores * (-(iou * iou) / sigma).exp()
        else:
            scores = torch.where(iou > threshold, scores * (1 - iou), scores)
        left = scores > lowest
        left[best] = False
        boxes, scores = boxes[left], scores[left]
    return torch.stack(kept)


def matrix_nms(boxes: Tensor, scores: Tensor, method: str = "linear", sigma: float = 2.0) -> Tensor:
    """Return the scores that ``cvops.matrix_nms`` keeps, for the boxes of one class."""
    scores, order = scores.sort(descending=True)
    iou = box_iou(boxes[order], boxes[order]).triu_(diagonal=1)
    most = iou.amax(dim=0)[:, None]
    if method == "gaussian":
        factor = ((most * most - iou * iou) * sigma).exp()
    else:
        factor = (1 - iou) / (1 - most + 1e-10)
    scores = scores * factor.amin(dim=0).clamp(max=1)
    return scores[scores > 0].sort(descending=True).values


def paste_masks(masks: Tensor, boxes: Tensor, height: int, width: int) -> Tensor:
    """Return the result of ``cvops.paste_masks``, and half a cell around each box, as uint8."""
    y = torch.arange(height, device=masks.device) + 0.5
    x = torch.arange(width, device=masks.device) + 0.5
    x1, y1, x2, y2 = (column[:, None] for column in boxes.unbind(1))
    across, down = (x - x1) / (x2 - x1) * 2 - 1, (y - y1) / (y2 - y1) * 2 - 1
    shape = len(masks), height, width
    grid = torch.stack([across[:, None].expand(shape), down[:, :, None].expand(shape)], dim=3)
    sampled = torch.nn.functional.grid_sample(masks[:, None], grid, align_corners=False)
    return (sampled[:, 0] >= 0.5).to(torch.uint8)


# --- detections -----------------------------------------------------------------------------------


def _book_nms(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    """Return the indices of the kept boxes."""
    order, kept = scores.argsort(descending=True), []
    while order.numel() > 0:
        kept.append(order[0])
        rest = order[1:]
        order = rest[box_iou(boxes[order[:1]], boxes[rest])[0] <= threshold]
    return torch.stack(kept)


def book_multibox_detection(
    cls_prob: Tensor, loc_pred: Tensor, anchor: Tensor, nms_threshold: float = 0.5
) -> Tensor:
    """Return class, score, corners (B, A, 6): kept boxes first, then the others with class -1."""
    images = []
    for prob, offsets in zip(cls_prob, loc_pred):
        score, class_id = prob[1:].max(dim=0)
        boxes = decode(anchor[0], offsets.view(-1, 4))
        kept = _book_nms(boxes, score, nms_threshold)
        suppressed = torch.ones_like(score, dtype=torch.bool)
        suppressed[kept] = False
        order = torch.cat([kept, suppressed.nonzero()[:, 0]])
        class_id = torch.where(suppressed | (score < MIN_SCORE), -1, class_id)
        rows = torch.cat([class_id[:, None].to(boxes.dtype), score[:, None], boxes], dim=1)
        images.append(rows[order])
    return torch.stack(images)


def multibox_detection(
    torchvision: Any, cls_prob: Tensor, loc_pred: Tensor, anchor: Tensor, nms_topk: int = -1
) -> Tensor:
    """Return rows (B, K, 6), with class -1 if suppressed; K is ``nms_topk`` or A."""
    images, classes, num = cls_prob.shape
    score, class_id = cls_prob[:, 1:].max(dim=1)
    boxes = decode(anchor, loc_pred.view(images, num, 4))
    if 0 <= nms_topk < num:
        score, index = score.topk(nms_topk, dim=1)
        class_id = class_id.gather(1, index)
        boxes = boxes.gather(1, index[..., None].expand(-1, -1, 4))
    image = torch.arange(images, device=class_id.device)[:, None]
    valid = (score >= MIN_SCORE).nonzero()
    rows = valid[:, 0], valid[:, 1]
    groups = (image * classes + class_id)[rows]
    kept = torchvision.ops.batched_nms(boxes[rows], score[rows], groups, 0.5)
    result = torch.full_like(score, -1)
    kept_rows = rows[0][kept], rows[1][kept]
    result[kept_rows] = class_id[kept_rows].to(result.dtype)
    return torch.cat([result[..., None], score[..., None], boxes], dim=-1)


def topk_nms(
    torchvision: Any, boxes: Tensor, scores: Tensor, groups: Tensor, threshold: float, topk: int
) -> Tensor:
    """Return the indices of the kept boxes among the ``topk`` best boxes of each image.

    The indices refer to all of ``boxes`` (B, N, 4). ``scores`` and ``groups`` are (B, N); boxes of
    different groups do not suppress each other.
    """
    images, num = scores.shape
    score, index = scores.topk(topk, dim=1)
    index = (index + num * torch.arange(images, device=index.device)[:, None]).flatten()
    kept = torchvision.ops.batched_nms(
        boxes.view(-1, 4)[index], score.flatten(), groups.flatten()[index], threshold
    )
    return index[kept]

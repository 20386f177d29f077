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
from torch import Tensor

CENTER_VARIANCE, SIZE_VARIANCE = 0.1, 0.2
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


def box_iou(lhs: Tensor, rhs: Tensor) -> Tensor:
    """Return the IoUs (..., N, M) of boxes (..., N, 4) and (..., M, 4)."""
    low = torch.maximum(lhs[..., :, None, :2], rhs[..., None, :, :2])
    high = torch.minimum(lhs[..., :, None, 2:], rhs[..., None, :, 2:])
    overlap = (high - low).clamp(min=0).prod(dim=-1)
    areas = (x[..., 2:] - x[..., :2] for x in (lhs, rhs))
    left, right = (area.prod(dim=-1) for area in areas)
    return overlap / (left[..., :, None] + right[..., None, :] - overlap)


def _corners(boxes: Tensor) -> Tensor:
    """Return the corners (..., 4, 2) of rotated boxes (..., 5) in degrees, counterclockwise."""
    center, size = boxes[..., None, :2], boxes[..., None, 2:4] / 2
    turn = torch.deg2rad(boxes[..., 4])
    cos, sin = turn.cos()[..., None], turn.sin()[..., None]
    signs = torch.tensor([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]], device=boxes.device)
    x, y = (size * signs).unbind(dim=-1)
    return torch.stack([x * cos + y * sin, y * cos - x * sin], dim=-1) + center


def _cross(a: Tensor, b: Tensor) -> Tensor:
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]


def _are_inside(points: Tensor, boxes: Tensor) -> Tensor:
    """Return whether points (..., 4, 2) are in the boxes with these corners."""
    first, second, last = boxes[..., :1, :], boxes[..., 1:2, :], boxes[..., 3:, :]
    inside = torch.ones(points.shape[:-1], dtype=torch.bool, device=points.device)
    for side in (second - first, last - first):
        share = ((points - first) * side).sum(dim=-1) / (side * side).sum(dim=-1)
        inside &= (share >= -1e-6) & (share <= 1 + 1e-6)
    return inside


def box_iou_rotated(lhs: Tensor, rhs: Tensor) -> Tensor:
    """Return the IoUs (N, M) of rotated boxes (N, 5) and (M, 5).

    The vertices of an intersection are among 24 points: the corners of both boxes and the crossings
    of their sides. They are sorted by their direction from the mean.
    """
    a, b = torch.broadcast_tensors(_corners(lhs)[:, None], _corners(rhs)[None])
    start_a, start_b = a[..., :, None, :], b[..., None, :, :]
    side_a = a.roll(-1, dims=-2)[..., :, None, :] - start_a
    side_b = b.roll(-1, dims=-2)[..., None, :, :] - start_b
    turn = _cross(side_a, side_b)
    of_a = _cross(start_b - start_a, side_b) / turn
    of_b = _cross(start_b - start_a, side_a) / turn
    cross = (of_a >= 0) & (of_a <= 1) & (of_b >= 0) & (of_b <= 1) & (turn != 0)
    crossings = start_a + torch.where(cross, of_a, 0)[..., None] * side_a
    points = torch.cat([a, b, crossings.flatten(-3, -2)], dim=-2)
    exists = torch.cat([_are_inside(a, b), _are_inside(b, a), cross.flatten(-2)], dim=-1)
    count = exists.sum(dim=-1, keepdim=True).clamp(min=1)
    points = points - (points * exists[..., None]).sum(dim=-2, keepdim=True) / count[..., None]
    angle = torch.where(exists, torch.atan2(points[..., 1], points[..., 0]), 10)
    order = angle.argsort(dim=-1)
    points = points.gather(-2, order[..., None].expand_as(points))
    known = exists.gather(-1, order)[..., None]
    points = torch.where(known, points, points[..., :1, :])  # the rest repeats the first vertex
    overlap = _cross(points, points.roll(-1, dims=-2)).sum(dim=-1).abs() / 2
    overlap = torch.where(count[..., 0] > 2, overlap, 0)
    area_a, area_b = (x[..., 2] * x[..., 3] for x in (lhs, rhs))
    return overlap / (area_a[:, None] + area_b[None] - overlap)


def nms_rotated(rows: Tensor, overlap_thresh: float) -> Tensor:
    """Return the indices of the kept rows (N, 6) of a score and a box, the best first."""
    order = rows[:, 0].argsort(descending=True, stable=True)
    above = box_iou_rotated(rows[order, 1:], rows[order, 1:]) > overlap_thresh
    alive = torch.ones(len(rows), dtype=torch.bool, device=rows.device)
    for i in range(len(rows)):
        if alive[i]:
            alive[i + 1 :] &= ~above[i, i + 1 :]
    return order[alive]


def _centers(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Return centers and sizes."""
    low, high = boxes[..., :2], boxes[..., 2:]
    return (low + high) / 2, high - low


def encode(anchors: Tensor, boxes: Tensor) -> Tensor:
    """Return the offsets from anchors to boxes, (..., 4)."""
    (center, size), (to, to_size) = _centers(anchors), _centers(boxes)
    move = (to - center) / size / CENTER_VARIANCE
    return torch.cat([move, (to_size / size).log() / SIZE_VARIANCE], dim=-1)


def decode(anchors: Tensor, offsets: Tensor) -> Tensor:
    """Return the boxes (..., 4), clipped to the image."""
    center, size = _centers(anchors)
    center = center + offsets[..., :2] * CENTER_VARIANCE * size
    half = (offsets[..., 2:] * SIZE_VARIANCE).exp() * size / 2
    return torch.cat([center - half, center + half], dim=-1).clamp(0, 1)


def box_decode(data: Tensor, anchors: Tensor, stds: Tensor, clip: float) -> Tensor:
    """Return the result of ``cvops.box_decode`` for anchors in corner format."""
    center, size = _centers(anchors)
    center = data[..., :2] * stds[:2] * size + center
    half = (data[..., 2:] * stds[2:]).clamp(max=clip).exp() * size / 2
    return torch.cat([center - half, center + half], dim=-1)


def box_encode(
    samples: Tensor, matches: Tensor, anchors: Tensor, refs: Tensor, means: Tensor, stds: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the results of ``cvops.box_encode``."""
    (center, size), (to, to_size) = _centers(anchors), _centers(refs)
    at = matches.long()[..., None].expand(-1, -1, 2)
    to, to_size = to.gather(1, at), to_size.gather(1, at)
    offsets = torch.cat([(to - center) / size, (to_size / size).log()], dim=-1)
    mask = (samples > 0.5)[..., None].expand(-1, -1, 4)
    return torch.where(mask, (offsets - means) / stds, 0.0), mask.to(offsets.dtype)


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


# --- targets --------------------------------------------------------------------------------------


def _targets(
    anchors: Tensor, label: Tensor, match: Tensor, negative: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return offsets, mask and classes; ``match`` has the ground truth of each anchor, or -1."""
    positive = match >= 0
    gt = label.gather(1, match.clamp(min=0)[..., None].expand(-1, -1, label.shape[-1]))
    mask = positive[..., None].expand(-1, -1, 4)
    loc = torch.where(mask, encode(anchors, gt[..., 1:5]), 0.0)
    background = torch.where(negative, 0.0, -1.0)
    classes = torch.where(positive, gt[..., 0] + 1, background)
    return loc.flatten(1), mask.to(loc.dtype).flatten(1), classes


def _book_assign(gt: Tensor, anchors: Tensor, threshold: float) -> Tensor:
    """Return the index of the ground truth of each anchor, or -1."""
    iou = box_iou(anchors, gt)
    best, best_row = iou.max(dim=1)
    match = torch.full_like(best_row, -1)
    good = best >= threshold
    match[good] = best_row[good]
    for _ in range(len(gt)):
        index = iou.argmax()
        anchor, row = index // len(gt), index % len(gt)
        match[anchor] = row
        iou[anchor, :] = -1
        iou[:, row] = -1
    return match


def book_multibox_target(
    anchor: Tensor, label: Tensor, threshold: float = 0.5
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the targets of anchors (1, A, 4) for ground truths (B, G, 5) without padding."""
    images = []
    for rows in label:
        match = _book_assign(rows[:, 1:], anchor[0], threshold)[None]
        images.append(_targets(anchor, rows[None], match, match < 0))
    loc, mask, classes = (torch.cat(x) for x in zip(*images))
    return loc, mask, classes


def multibox_target(
    anchor: Tensor,
    label: Tensor,
    cls_pred: Tensor,
    overlap_threshold: float = 0.5,
    negative_mining_ratio: float = -1,
    negative_mining_thresh: float = 0.5,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the results of ``cvops.multibox_target`` for ground truths without padding."""
    images, num_gt = label.shape[:2]
    iou = box_iou(anchor, label[..., 1:5])
    best, best_row = iou.max(dim=2)
    match = torch.where(best > overlap_threshold, best_row, -1)
    image = torch.arange(images, device=label.device)
    for _ in range(num_gt):
        best_iou, index = iou.flatten(1).max(dim=1)
        anchor_index, row = index // num_gt, index % num_gt
        match[image, anchor_index] = torch.where(best_iou > 1e-6, row, match[image, anchor_index])
        iou[image, anchor_index] = -1
        iou[image, :, row] = -1
    negative = match < 0
    if negative_mining_ratio > 0:
        wanted = (~negative).sum(dim=1, keepdim=True) * negative_mining_ratio
        score = cls_pred[:, 0] - cls_pred.logsumexp(dim=1)
        negative &= best < negative_mining_thresh
        order = score.masked_fill(~negative, math.inf).argsort(dim=1, stable=True)
        ranks = torch.arange(order.shape[1], device=order.device).expand_as(order)
        rank = torch.empty_like(order).scatter_(1, order, ranks)
        negative &= rank < wanted.to(torch.int64)
    return _targets(anchor, label, match, negative)


def match_anchors(anchors: Tensor, boxes: Tensor, high: float = 0.7, low: float = 0.3) -> Tensor:
    """Return the results of ``cvops.match_anchors`` with low-quality matches of one image."""
    iou = box_iou(anchors, boxes)
    best, match = iou.max(dim=1)
    of_box = iou.amax(dim=0)
    matched = (best >= high) | ((iou == of_box) & (of_box > 0)).any(dim=1)
    return torch.where(matched, match, torch.where(best < low, -1, -2)).to(torch.int32)


def rpn_target(
    anchors: Tensor, labels: Tensor, noise: Tensor, num_sample: int = 256
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the results of ``cvops.rpn_target`` for ground truths without padding."""
    truths = labels[..., 1:]
    iou = box_iou(anchors, truths)
    best, match = iou.max(dim=2)
    of_truth = iou.amax(dim=1, keepdim=True)
    positive = (best >= 0.7) | ((iou == of_truth) & (of_truth > 0)).any(dim=2)
    negative = ~positive & (best < 0.3)

    def least(where: Tensor, most: Tensor) -> Tensor:
        order = noise.masked_fill(~where, math.inf).argsort(dim=1, stable=True)
        ranks = torch.arange(order.shape[1], device=order.device).expand_as(order)
        return where & (torch.empty_like(order).scatter_(1, order, ranks) < most)

    positive = least(positive, torch.tensor(num_sample // 2, device=noise.device))
    negative = least(negative, num_sample - positive.sum(dim=1, keepdim=True))
    classes = torch.where(positive, 1.0, torch.where(negative, 0.0, -1.0))
    zeros, ones = anchors.new_zeros(4), anchors.new_ones(4)
    repeated = anchors.expand(*noise.shape, 4)
    offsets, mask = box_encode(classes, match, repeated, truths, zeros, ones)
    return classes, offsets, mask


def rcnn_target(
    proposals: Tensor, labels: Tensor, noise: Tensor, num_sample: int = 512
) -> tuple[Tensor, ...]:
    """Return the results of ``cvops.rcnn_target`` for boxes and labels without padding.

    It needs enough positives and negatives in each image.
    """
    truths = labels[..., 1:]
    boxes = torch.cat([proposals, truths], dim=1)
    iou, match = box_iou(boxes, truths).max(dim=2)
    side = (iou < 0.5).to(noise.dtype)
    order = noise.argsort(dim=1, stable=True)
    order = order.gather(1, side.gather(1, order).argsort(dim=1, stable=True))
    rows = torch.arange(num_sample, device=noise.device)
    positives = (iou >= 0.5).sum(dim=1, keepdim=True)
    kept = positives.clamp(max=num_sample // 4)
    chosen = order.gather(1, torch.where(rows < kept, rows, positives + rows - kept))
    match = torch.where(rows < kept, match.gather(1, chosen), -1)
    rois = boxes.gather(1, chosen[..., None].expand(-1, -1, 4))
    classes = torch.where(match >= 0, labels[..., 0].gather(1, match.clamp(min=0)) + 1, 0.0)
    zeros, stds = rois.new_zeros(4), rois.new_tensor([0.1, 0.1, 0.2, 0.2])
    positive = (match >= 0).to(rois.dtype)
    offsets, mask = box_encode(positive, match.clamp(min=0), rois, truths, zeros, stds)
    return rois, classes, match.to(rois.dtype), offsets, mask


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

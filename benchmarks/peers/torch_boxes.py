"""IoUs and offsets of boxes in dense PyTorch, for ``torch_ops.py``."""

from __future__ import annotations

import torch
from torch import Tensor

CENTER_VARIANCE, SIZE_VARIANCE = 0.1, 0.2


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

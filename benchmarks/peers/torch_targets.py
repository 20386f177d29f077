"""Targets of detectors in dense PyTorch, for ``torch_ops.py``, which has the rules."""

from __future__ import annotations

import math

import torch
from peers.torch_boxes import box_encode, box_iou, encode
from torch import Tensor


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

"""Training targets of proposals: samples of them, with classes and offsets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from cvops.ops import _sampling
from cvops.ops._op import DeviceOps, Op, Signature
from cvops.ops._sampling import SampleOptions

Array = TypeVar("Array")
_OP = Op(
    "rcnn_target",
    proposals="float32 (B, N, 4)",
    labels="float32 (B, M, W)",
    noise="float32 (B, N + M)",
)
#: The sort has the boxes of one image in at most 65535 tiles of 2048.
_MAX_BOXES = 65535 * 2048

#: ``SampleShape`` of the kernels: images, proposals, ground truths, the length of a row of labels.
_Shape = tuple[int, int, int, int]


def rcnn_target(
    proposals: Array,
    labels: Array,
    noise: Array,
    num_sample: int = 128,
    pos_iou_thresh: float = 0.5,
    pos_ratio: float = 0.25,
    means: Sequence[float] = _sampling.ZEROS,
    stds: Sequence[float] = (0.1, 0.1, 0.2, 0.2),
    *,
    backend: str | None = None,
) -> tuple[Array, Array, Array, Array, Array]:
    """Sample proposals of each image, with the classes and the offsets for their training.

    MXNet 1.9.1 has no such operator: GluonCV composes it of many. The ground truths of an image are
    the rows of its labels before the first row of class -1. The boxes of an image are its
    proposals, then its ground truths. Boxes with a positive width and height are candidates; a row
    of -1 that pads the proposals is none, and neither is a box with a NaN corner. A candidate is
    positive if its highest IoU with a ground truth is at least ``pos_iou_thresh`` and above 0. The
    other candidates are negative.

    The samples of an image are, in this order:

    1. the positives with the least noise, at most ``num_sample`` * ``pos_ratio``;
    2. the negatives with the least noise, which fill the rows. If they are fewer than the rows,
       they are repeated in the same order.

    The lower index comes first for equal noise. -0 equals 0, and NaN comes after infinity. An image
    without positives has negatives only. In an image without negatives the positives with the least
    noise fill all rows, beyond their share, and are repeated in the same order. In an image without
    candidates the proposals are negatives, in the order of their indices, repeated; without
    proposals its rois are 0.

    Args:
        proposals: float32 (B, N, 4), corners (x1, y1, x2, y2) in any unit.
        labels: float32 (B, M, 5 or more), rows of class, x1, y1, x2, y2 in the proposals' unit; the
            op does not read more columns. Rows of -1 pad the labels of images with fewer than M
            ground truths.
        noise: float32 (B, N + M), such as uniform random numbers: the noise of the proposals, then
            that of the rows of ``labels``.
        num_sample: the number of samples n of an image.
        pos_iou_thresh: the IoU from which on a candidate is positive, in [0, 1].
        pos_ratio: the share of positives among the samples, in [0, 1]. The product with
            ``num_sample``, in float32, is rounded to the nearest integer, a half to the even one.
        means: the means of the four offsets.
        stds: the standard deviations of the four offsets.
        backend: the implementation; by default the best for the arrays' device.

    Returns:
        rois, float32 (B, n, 4): the corners of the samples.

        cls_target, float32 (B, n): 1 + the class of the ground truth of a positive, 0 for a
        negative.

        matches, float32 (B, n): the index of the ground truth of a positive, -1 for a negative. It
        is the ground truth with the highest IoU, and the lowest index among equal ones.

        box_target, float32 (B, n, 4): the offsets from a positive to its ground truth, as
        :func:`box_encode` computes them; 0 for a negative.

        box_mask, float32 (B, n, 4): 1 for a positive, 0 for a negative.

        There is no gradient: PyTorch results do not require one, and MXNet's is zero. On the CPU
        the results are parts of one array, which lives until the last of them dies. A GPU reads no
        value back, so a CUDA graph can capture the call.

    Raises:
        TypeError: an input is not a float32 array; the inputs differ in library or device; an
            option is not a number.
        ValueError: the shapes do not agree; N + M is above 65535 * 2048; another axis is 2**31 or
            more; ``num_sample`` is not positive; the threshold or the ratio is out of [0, 1];
            ``means`` or ``stds`` does not have four numbers.

    Example:
        >>> proposals = np.float32([[[0, 0, 4, 3], [6, 6, 9, 9]]])
        >>> labels, noise = np.float32([[[2, 0, 0, 4, 4]]]), np.float32([[0.1, 0.2, 0.9]])
        >>> results = cvops.rcnn_target(proposals, labels, noise, num_sample=2, pos_ratio=0.5)
        >>> results[:2]  # a positive, 1 + class; a negative
        (array([[[0., 0., 4., 3.],
                [6., 6., 9., 9.]]], dtype=float32), array([[3., 0.]], dtype=float32))
    """
    signature = _OP.signature.get(backend, proposals=proposals, labels=labels, noise=noise)
    options = _sampling.sample_options.get(num_sample, pos_ratio, pos_iou_thresh, 0, means, stds)
    images, truths, width = signature.shapes["labels"]
    return signature.run(
        (proposals, labels, noise), ((images, signature.sizes["N"], truths, width), options)
    )


@_OP.check
def _check_shapes(signature: Signature) -> None:
    shape = signature.shapes["noise"]
    total = signature.sizes["N"] + signature.sizes["M"]
    if shape[1] != total:
        raise ValueError(f"noise: expected shape (B, N + M) with N + M = {total}, got {shape}")
    if total > _MAX_BOXES and signature.sizes["B"] > 0:
        raise ValueError(f"noise: expected at most {_MAX_BOXES} boxes, got shape {shape}")
    _sampling.check_labels(signature)


@_OP.implementation("numpy")
def _numpy(
    proposals: np.ndarray,
    labels: np.ndarray,
    noise: np.ndarray,
    shape: _Shape,
    options: SampleOptions,
) -> tuple[np.ndarray, ...]:
    rows = len(proposals), options.num
    rois, box_target, box_mask = np.zeros((3, *rows, 4), np.float32)
    cls_target, matches = np.zeros(rows, np.float32), np.full(rows, -1, np.float32)
    for image, own in enumerate(proposals):
        truths = _sampling.truths_of(labels[image])
        boxes = np.concatenate([own, truths[:, 1:]])
        iou = _sampling.iou_matrix(boxes, truths[:, 1:])
        best = iou.max(axis=1, initial=0)
        candidates = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
        positive = candidates & (best > 0) & (best >= np.float32(options.positive_iou))
        order = noise[image, : len(boxes)]
        positives = _sampling.least(order, positive, len(boxes))
        negatives = _sampling.least(order, candidates & ~positive, len(boxes))
        if not len(positives) and not len(negatives):
            negatives = np.arange(len(own))
        if len(negatives):
            positives = positives[: options.most_positive]
        num = len(positives) if len(negatives) else options.num
        if not len(positives) and not len(negatives):
            continue
        chosen = [np.resize(positives, min(num, options.num))]
        chosen.append(np.resize(negatives, options.num - len(chosen[0])))
        which = np.concatenate(chosen).astype(np.int64)
        rois[image] = boxes[which]
        kept = len(chosen[0])
        if kept:
            match = iou[which[:kept]].argmax(axis=1)
            matches[image, :kept] = match
            cls_target[image, :kept] = truths[match, 0] + 1
            box_mask[image, :kept] = 1
            box_target[image, :kept] = _sampling.encode(
                boxes[which[:kept]], truths[match, 1:], options
            )
    return rois, cls_target, matches, box_target, box_mask


@_OP.implementation("native")
def _native(
    device: DeviceOps,
    proposals: np.ndarray,
    labels: np.ndarray,
    noise: np.ndarray,
    shape: _Shape,
    options: SampleOptions,
) -> tuple[np.ndarray, ...]:
    rows = (shape[0], options.num), np.float32
    boxes = (shape[0], options.num, 4), np.float32
    rois, box_target, box_mask, cls_target, matches = device.empty_all(
        boxes, boxes, boxes, rows, rows
    )
    out = rois, cls_target, matches, box_target, box_mask
    if shape[0] > 0:  # without images another size may be more than an int holds
        device.ops.rcnn_target(*out, proposals, labels, noise, shape, options)
    return out

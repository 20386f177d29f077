"""Training targets of the anchors of a region proposal network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from cvops.ops import _sampling
from cvops.ops._op import DeviceOps, Op, Signature
from cvops.ops._sampling import SampleOptions

Array = TypeVar("Array")
_OP = Op(
    "rpn_target",
    anchors="float32 (..., A, 4)",
    labels="float32 (B, M, W)",
    noise="float32 (B, A)",
)

#: ``SampleShape`` of the kernels: images, anchors, ground truths, the length of a row of labels.
_Shape = tuple[int, int, int, int]


def rpn_target(
    anchors: Array,
    labels: Array,
    noise: Array,
    num_sample: int = 256,
    pos_iou_thresh: float = 0.7,
    neg_iou_thresh: float = 0.3,
    pos_ratio: float = 0.5,
    means: Sequence[float] = _sampling.ZEROS,
    stds: Sequence[float] = (1.0, 1.0, 1.0, 1.0),
    *,
    backend: str | None = None,
) -> tuple[Array, Array, Array]:
    """Sample positive and negative anchors of each image, with the offsets to their boxes.

    MXNet 1.9.1 has no such operator: GluonCV does this on the host, with NumPy. The rules are
    those of Faster R-CNN. The ground truths of an image are the rows of its labels before the
    first row of class -1. An anchor is positive if its highest IoU is at least ``pos_iou_thresh``,
    or if it has the highest IoU of a ground truth (all anchors with that IoU are positive); an IoU
    of 0 makes no anchor positive. Each other anchor is negative if its highest IoU is below
    ``neg_iou_thresh``.

    At most ``num_sample`` * ``pos_ratio`` positives are samples, and negatives up to ``num_sample``
    samples in all. The samples of each side are the anchors with the least noise; equal noise goes
    to the lower index. -0 equals 0, and NaN comes after infinity. The caller draws the noise, so a
    call has one result on every device, and a graph can contain it.

    Args:
        anchors: float32 (A, 4) or (1, A, 4), corners (x1, y1, x2, y2) in any unit, such as the
            result of :func:`multibox_prior`. The op does not drop anchors that leave the image:
            their noise can be NaN.
        labels: float32 (B, M, 5 or more), rows of class, x1, y1, x2, y2 in the anchors' unit; the
            op does not read more columns. Rows of -1 pad the labels of images with fewer than M
            ground truths. A ground truth with a NaN corner matches nothing.
        noise: float32 (B, A), such as uniform random numbers.
        num_sample: the number of samples of an image.
        pos_iou_thresh: the IoU from which on an anchor is positive, in [0, 1].
        neg_iou_thresh: the IoU below which an anchor is negative, in [0, 1].
        pos_ratio: the share of positives among the samples, in [0, 1]. The product with
            ``num_sample``, in float32, is rounded to the nearest integer, a half to the even one.
        means: the means of the four offsets.
        stds: the standard deviations of the four offsets.
        backend: the implementation; by default the best for the arrays' device.

    Returns:
        cls_target, float32 (B, A): 1 for a positive sample, 0 for a negative one, -1 for each
        other anchor.

        box_target, float32 (B, A, 4): the offsets from a positive sample to its ground truth, as
        :func:`box_encode` computes them; 0 for each other anchor. The ground truth of an anchor is
        the one with its highest IoU, and the lowest index among equal ones. So an anchor that is
        positive as the best one of a ground truth may be encoded with another ground truth, with
        which it has a higher IoU.

        box_mask, float32 (B, A, 4): 1 for a positive sample, 0 for each other anchor.

        There is no gradient: PyTorch results do not require one, and MXNet's is zero. On the CPU
        the three are parts of one array, which lives until the last of them dies. A GPU reads no
        value back, so a CUDA graph can capture the call.

    Raises:
        TypeError: an input is not a float32 array; the inputs differ in library or device; an
            option is not a number.
        ValueError: the shapes do not agree; there are 2**30 anchors or more; another axis is 2**31
            or more; ``num_sample`` is not positive; a threshold or the ratio is out of [0, 1];
            ``means`` or ``stds`` does not have four numbers.

    Example:
        >>> anchors = np.float32([[0, 0, 4, 4], [0, 0, 4, 3], [6, 6, 9, 9], [5, 0, 9, 4]])
        >>> labels, noise = np.float32([[[0, 0, 0, 4, 4]]]), np.zeros((1, 4), np.float32)
        >>> cvops.rpn_target(anchors, labels, noise, num_sample=2)[0]
        array([[ 1., -1.,  0., -1.]], dtype=float32)
    """
    signature = _OP.signature.get(backend, anchors=anchors, labels=labels, noise=noise)
    options = _sampling.sample_options.get(
        num_sample, pos_ratio, pos_iou_thresh, neg_iou_thresh, means, stds
    )
    images, truths, width = signature.shapes["labels"]
    return signature.run(
        (anchors, labels, noise), ((images, signature.sizes["A"], truths, width), options)
    )


@_OP.check
def _check_shapes(signature: Signature) -> None:
    shape, num = signature.shapes["anchors"], signature.sizes["A"]
    if shape[:-2] not in ((), (1,)):
        raise ValueError(f"anchors: expected shape (A, 4) or (1, A, 4), got {shape}")
    if num >= 2**30:
        raise ValueError(f"anchors: expected fewer than 2^30 anchors, got {num}")
    _sampling.check_labels(signature)


@_OP.implementation("numpy")
def _numpy(
    anchors: np.ndarray,
    labels: np.ndarray,
    noise: np.ndarray,
    shape: _Shape,
    options: SampleOptions,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    anchors = anchors.reshape(-1, 4)
    cls_target = np.full(noise.shape, -1, np.float32)
    box_target, box_mask = np.zeros((2, *noise.shape, 4), np.float32)
    if noise.size == 0:
        return cls_target, box_target, box_mask
    for image, label in enumerate(labels):
        truths = _sampling.truths_of(label)[:, 1:]
        iou = _sampling.iou_matrix(anchors, truths)
        best = iou.max(axis=1, initial=0)
        positive = (best >= np.float32(options.positive_iou)) & (best > 0)
        positive |= ((iou == iou.max(axis=0)) & (iou > 0)).any(axis=1)
        negative = ~positive & (best < np.float32(options.negative_iou))
        chosen = _sampling.least(noise[image], positive, options.most_positive)
        others = _sampling.least(noise[image], negative, options.num - len(chosen))
        cls_target[image, chosen] = 1
        cls_target[image, others] = 0
        box_mask[image, chosen] = 1
        if len(chosen):
            matched = truths[iou[chosen].argmax(axis=1)]
            box_target[image, chosen] = _sampling.encode(anchors[chosen], matched, options)
    return cls_target, box_target, box_mask


@_OP.implementation("native")
def _native(
    device: DeviceOps,
    anchors: np.ndarray,
    labels: np.ndarray,
    noise: np.ndarray,
    shape: _Shape,
    options: SampleOptions,
) -> tuple[np.ndarray, ...]:
    classes, boxes = noise.shape, (*noise.shape, 4)
    out = device.empty_all((boxes, np.float32), (boxes, np.float32), (classes, np.float32))
    box_target, box_mask, cls_target = out
    if shape[0] * shape[1] > 0:  # without results another size may be more than an int holds
        device.ops.rpn_target(
            cls_target, box_target, box_mask, anchors, labels, noise, shape, options
        )
    return cls_target, box_target, box_mask

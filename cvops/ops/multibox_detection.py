"""Detections from predictions for anchors: decoded boxes and non-maximum suppression."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np

from cvops.ops import _check, _exp_log
from cvops.ops._op import DeviceOps, Op, Signature

Array = TypeVar("Array")
_OP = Op(
    "multibox_detection",
    cls_prob="float32 (B, C, A)",
    loc_pred="float32 (B, L)",
    anchor="float32 (1, A, 4)",
)
_VARIANCES = (0.1, 0.1, 0.2, 0.2)


class _Options(NamedTuple):
    """The options of the implementations, in the order of the extension's parameters."""

    clip: bool
    threshold: float
    variances: tuple[float, ...]
    #: ``NmsRule``: threshold, True if an IoU at the threshold suppresses, by_class, center.
    rule: tuple[float, bool, bool, bool]
    #: False for no suppression at all.
    suppresses: bool
    #: The maximum number of candidates of an image.
    limit: int


def multibox_detection(
    cls_prob: Array,
    loc_pred: Array,
    anchor: Array,
    clip: bool = True,
    threshold: float = 0.01,
    background_id: int = 0,
    nms_threshold: float = 0.5,
    force_suppress: bool = False,
    variances: Sequence[float] = _VARIANCES,
    nms_topk: int = -1,
    *,
    backend: str | None = None,
) -> Array:
    """Return the detections of a single-shot detector: decoded boxes after suppression.

    The op is ``mx.nd.contrib.MultiBoxDetection`` of MXNet 1.9.1 on the CPU, bit for bit except for
    coordinates that depend on exp. They are within one unit in the last place of exp's result. (An
    IoU that close to the threshold may change the suppression.) The result is the same on every
    device.

    The class of an anchor is the best one after class 0; among equal ones the lowest has priority.
    The anchors with a score of ``threshold`` or more are candidates, in descending order of the
    scores; equal scores are in the order of the anchors. A kept candidate suppresses each later one
    of its class if their IoU is ``nms_threshold`` or more. Boxes whose union is not positive do not
    suppress each other.

    Args:
        cls_prob: float32 (B, C, A), the probability of each class; class 0 is the background.
        loc_pred: float32 (B, 4 A), offsets (x, y, w, h) of the box of each anchor, in units of the
            variances.
        anchor: float32 (1, A, 4), corners (x1, y1, x2, y2) relative to the image.
        clip: True clips the boxes to [0, 1]; NaN becomes 1.
        threshold: the lowest score of a candidate.
        background_id: not used, as in MXNet: the background is class 0.
        nms_threshold: the IoU from which on a box is suppressed. Outside of (0, 1] there is no
            suppression, and the boxes are not sorted.
        force_suppress: True also suppresses boxes of other classes.
        variances: the factors of the offsets in x, y, w and h.
        nms_topk: the maximum number of boxes of an image in the suppression; all if not positive.
        backend: the implementation; by default the best for the arrays' device.

    Returns:
        float32 (B, A, 6), rows (class, score, x1, y1, x2, y2); classes count from 0 after the
        background. The first rows are the boxes in the suppression, sorted; a suppressed one has
        class -1. Then come the rows beyond ``nms_topk``, with class -1. As in MXNet they are the
        rows at these positions before the sort: a box may occur twice, and another not at all. The
        last rows are -1. There is no gradient, and MXNet's is zero: a PyTorch result does not
        require one. A GPU reads no value back, so a CUDA graph can capture the call.

    Raises:
        TypeError: an input is not a float32 array; the inputs differ in library or device; an
            argument is not a number.
        ValueError: the shapes do not agree; a threshold is NaN; there are not four variances; there
            are 65535 * 256 anchors or more; there are 2**31 images or classes or more.

    Example:
        >>> cls_prob = np.float32([[[0.1, 0.2], [0.9, 0.8]]])  # background, class 0; of two anchors
        >>> anchors = np.float32([[[0, 0, 0.5, 0.5], [0, 0, 0.5, 0.375]]])
        >>> cvops.multibox_detection(cls_prob, np.zeros((1, 8), np.float32), anchors)
        array([[[ 0.   ,  0.9  ,  0.   ,  0.   ,  0.5  ,  0.5  ],
                [-1.   ,  0.8  ,  0.   ,  0.   ,  0.5  ,  0.375]]], dtype=float32)
    """
    signature = _OP.signature.get(backend, cls_prob=cls_prob, loc_pred=loc_pred, anchor=anchor)
    options = _fitted.get(
        signature.sizes["A"], clip, threshold, background_id, nms_threshold, force_suppress,
        variances, nms_topk,
    )  # fmt: skip
    return signature.run((cls_prob, loc_pred, anchor), (options,))


@_check.memoized
def _fitted(num: int, *options: Any) -> _Options:
    """Return the options for a number of anchors."""
    checked = _options.get(*options)
    limit = checked.limit if 0 < checked.limit < num else num
    return _Options(*checked[:-1], limit)


@_check.memoized
def _options(
    clip: Any,
    threshold: Any,
    background_id: Any,
    nms_threshold: Any,
    force_suppress: Any,
    variances: Any,
    nms_topk: Any,
) -> _Options:
    _check.integer("background_id", background_id)
    nms_threshold = _check.single("nms_threshold", nms_threshold)
    return _Options(
        _check.flag("clip", clip),
        _check.number("threshold", threshold),
        _check.numbers("variances", variances, 4),
        (nms_threshold, True, not _check.flag("force_suppress", force_suppress), False),
        0 < nms_threshold <= 1,
        _check.integer("nms_topk", nms_topk),
    )


@_OP.check
def _check_shapes(signature: Signature) -> None:
    num = signature.sizes["A"]
    _check.sizes_fit("cls_prob", signature.shapes["cls_prob"], *signature.shapes["cls_prob"])
    if signature.sizes["L"] != 4 * num:
        got = signature.shapes["loc_pred"]
        raise ValueError(f"loc_pred: expected shape (B, {4 * num}), got {got}")
    if num >= _check.MAX_BOXES:
        raise ValueError(f"anchor: expected fewer than {_check.MAX_BOXES} anchors, got {num}")


@_OP.implementation("numpy")
def _numpy(
    cls_prob: np.ndarray, loc_pred: np.ndarray, anchor: np.ndarray, options: _Options
) -> np.ndarray:
    batch, num_classes, num = cls_prob.shape
    out = np.full((batch, num, 6), -1, np.float32)
    if num_classes < 2 or out.size == 0:
        return out
    for prob, offsets, rows in zip(cls_prob[:, 1:], loc_pred.reshape(batch, num, 4), out):
        # An anchor without a score above -1 is not valid.
        prob = np.where(prob > -1, prob, np.float32(-1))
        ids = prob.argmax(axis=0)  # prob.max may return a zero of the other sign
        scores = np.take_along_axis(prob, ids[None], axis=0)[0]
        valid = np.flatnonzero((scores > -1) & ~(scores < np.float32(options.threshold)))
        boxes = _decode(anchor[0], offsets, options)
        table = np.column_stack([ids.astype(np.float32), scores, boxes])[valid]
        rows[: len(table)] = table
        if not options.suppresses:
            continue
        order = np.argsort(-table[:, 1], kind="stable")[: options.limit]
        rows[len(order) : len(table), 0] = -1
        table = table[order]
        rows[: len(table), 1:] = table[:, 1:]
        rows[: len(table), 0] = np.where(_survivors(table, options), table[:, 0], np.float32(-1))
    return out


def _decode(anchors: np.ndarray, offsets: np.ndarray, options: _Options) -> np.ndarray:
    variances = np.array(options.variances, np.float32)
    with np.errstate(all="ignore"):
        size = anchors[:, 2:] - anchors[:, :2]
        center = offsets[:, :2] * variances[:2] * size + (anchors[:, :2] + anchors[:, 2:]) / 2
        half = _exp_log.exp(offsets[:, 2:] * variances[2:]) * size / 2
        boxes = np.concatenate([center - half, center + half], axis=1)
        if options.clip:
            boxes = np.where(boxes < 1, boxes, np.float32(1))
            boxes = np.where(boxes > 0, boxes, np.float32(0))
    return boxes


def _survivors(table: np.ndarray, options: _Options) -> np.ndarray:
    """Return a mask of the sorted rows that are not suppressed."""
    boxes, alive = table[:, 2:], np.ones(len(table), bool)
    threshold, _, by_class, _ = options.rule
    with np.errstate(all="ignore"):
        areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        for i in np.arange(len(table)):
            if not alive[i]:
                continue
            later = i + 1 + np.flatnonzero(alive[i + 1 :])
            if by_class:
                later = later[table[later, 0] == table[i, 0]]
            low = np.maximum(boxes[i, :2], boxes[later, :2])
            high = np.minimum(boxes[i, 2:], boxes[later, 2:])
            size = np.where(high - low > 0, high - low, np.float32(0))
            overlap = size[:, 0] * size[:, 1]
            union = areas[i] + areas[later] - overlap
            iou = overlap / union
            alive[later[(union > 0) & (iou >= np.float32(threshold))]] = False
    return alive


@_OP.implementation("native")
def _native(
    device: DeviceOps,
    cls_prob: np.ndarray,
    loc_pred: np.ndarray,
    anchor: np.ndarray,
    options: _Options,
) -> np.ndarray:
    batch, _, num = cls_prob.shape
    out = device.empty((batch, num, 6), np.float32)
    device.ops.multibox_detection(out, cls_prob, loc_pred, anchor, *options)
    return out

"""Boxes of a region proposal network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, TypeVar, Union, overload

import numpy as np

from cvops.ops import _check, _exp_log
from cvops.ops._op import DeviceOps, Op

Array = TypeVar("Array")
_OP = Op(
    "proposal",
    cls_prob="float32 (B, C, H, W)",
    bbox_pred="float32 (B, D, H, W)",
    im_info="float32 (B, 3)",
)
#: A cell has at most that many anchors: the parameters of a kernel are limited.
_MAX_ANCHORS = 128
_SCALES, _RATIOS = (4.0, 8.0, 16.0, 32.0), (0.5, 1.0, 2.0)


class _Options(NamedTuple):
    """``ProposalOptions`` of the extension."""

    stride: int
    min_size: int
    #: True if the offsets are added to the corners.
    corners: bool
    #: The maximum number of candidates.
    topk: int
    #: The number of rows of an image in the result.
    rows: int


@overload
def proposal(
    cls_prob: Array,
    bbox_pred: Array,
    im_info: Array,
    rpn_pre_nms_top_n: int = 6000,
    rpn_post_nms_top_n: int = 300,
    threshold: float = 0.7,
    rpn_min_size: int = 16,
    scales: Sequence[float] = _SCALES,
    ratios: Sequence[float] = _RATIOS,
    feature_stride: int = 16,
    output_score: Literal[False] = False,
    iou_loss: bool = False,
    *,
    backend: str | None = None,
) -> Array: ...
@overload
def proposal(
    cls_prob: Array,
    bbox_pred: Array,
    im_info: Array,
    rpn_pre_nms_top_n: int = 6000,
    rpn_post_nms_top_n: int = 300,
    threshold: float = 0.7,
    rpn_min_size: int = 16,
    scales: Sequence[float] = _SCALES,
    ratios: Sequence[float] = _RATIOS,
    feature_stride: int = 16,
    output_score: bool = False,
    iou_loss: bool = False,
    *,
    backend: str | None = None,
) -> Union[Array, tuple[Array, Array]]: ...
def proposal(
    cls_prob: Any,
    bbox_pred: Any,
    im_info: Any,
    rpn_pre_nms_top_n: int = 6000,
    rpn_post_nms_top_n: int = 300,
    threshold: float = 0.7,
    rpn_min_size: int = 16,
    scales: Sequence[float] = _SCALES,
    ratios: Sequence[float] = _RATIOS,
    feature_stride: int = 16,
    output_score: bool = False,
    iou_loss: bool = False,
    *,
    backend: str | None = None,
) -> Any:
    """Return the best boxes of a region proposal network (RPN), for one image.

    The op is ``mx.nd.contrib.Proposal`` of MXNet 1.9.1 on the CPU. :func:`multi_proposal` is the
    same for a batch, and describes it.

    Args:
        cls_prob: float32 (1, 2 A, H, W), as in :func:`multi_proposal`; so are the other arguments.
        bbox_pred: float32 (1, 4 A, H, W).
        im_info: float32 (1, 3).
        rpn_pre_nms_top_n: the maximum number of candidates.
        rpn_post_nms_top_n: the number of rows of the result.
        threshold: the IoU above which a box is suppressed.
        rpn_min_size: the minimum side of a box, in pixels of the unscaled image.
        scales: the scales of the anchors.
        ratios: the ratios of height to width of the anchors.
        feature_stride: the pixels from a cell to the next one.
        output_score: True also returns the scores.
        iou_loss: True adds the offsets to the corners of the anchors.
        backend: the implementation; by default the best for the arrays' device.

    Returns:
        float32 (``rpn_post_nms_top_n``, 5), and the scores with ``output_score``.

    Raises:
        TypeError: see :func:`multi_proposal`.
        ValueError: ``cls_prob`` does not have one image; see :func:`multi_proposal`.

    Example:
        >>> cls_prob = np.float32([0.1, 0.9]).reshape(1, 2, 1, 1)  # background, object; one anchor
        >>> bbox_pred, im_info = np.zeros((1, 4, 1, 1), np.float32), np.float32([[64, 64, 1]])
        >>> shape = {"scales": [2], "ratios": [1], "rpn_min_size": 8}
        >>> cvops.proposal(cls_prob, bbox_pred, im_info, rpn_post_nms_top_n=1, **shape)
        array([[ 0.,  0.,  0., 23., 23.]], dtype=float32)
    """
    signature = _OP.signature.get(backend, cls_prob=cls_prob, bbox_pred=bbox_pred, im_info=im_info)
    shape = signature.shapes["cls_prob"]
    if shape[0] != 1:
        raise ValueError(
            f"cls_prob: expected one image, got shape {shape}: multi_proposal takes several"
        )
    options = _options.get(
        signature.shapes["cls_prob"], signature.shapes["bbox_pred"], rpn_pre_nms_top_n,
        rpn_post_nms_top_n, threshold, rpn_min_size, scales, ratios, feature_stride, output_score,
        iou_loss,
    )  # fmt: skip
    return signature.run((cls_prob, bbox_pred, im_info), options)


@overload
def multi_proposal(
    cls_prob: Array,
    bbox_pred: Array,
    im_info: Array,
    rpn_pre_nms_top_n: int = 6000,
    rpn_post_nms_top_n: int = 300,
    threshold: float = 0.7,
    rpn_min_size: int = 16,
    scales: Sequence[float] = _SCALES,
    ratios: Sequence[float] = _RATIOS,
    feature_stride: int = 16,
    output_score: Literal[False] = False,
    iou_loss: bool = False,
    *,
    backend: str | None = None,
) -> Array: ...
@overload
def multi_proposal(
    cls_prob: Array,
    bbox_pred: Array,
    im_info: Array,
    rpn_pre_nms_top_n: int = 6000,
    rpn_post_nms_top_n: int = 300,
    threshold: float = 0.7,
    rpn_min_size: int = 16,
    scales: Sequence[float] = _SCALES,
    ratios: Sequence[float] = _RATIOS,
    feature_stride: int = 16,
    output_score: bool = False,
    iou_loss: bool = False,
    *,
    backend: str | None = None,
) -> Union[Array, tuple[Array, Array]]: ...
def multi_proposal(
    cls_prob: Any,
    bbox_pred: Any,
    im_info: Any,
    rpn_pre_nms_top_n: int = 6000,
    rpn_post_nms_top_n: int = 300,
    threshold: float = 0.7,
    rpn_min_size: int = 16,
    scales: Sequence[float] = _SCALES,
    ratios: Sequence[float] = _RATIOS,
    feature_stride: int = 16,
    output_score: bool = False,
    iou_loss: bool = False,
    *,
    backend: str | None = None,
) -> Any:
    """Return the best boxes of a region proposal network (RPN), for each image of a batch.

    The op is ``mx.nd.contrib.MultiProposal`` of MXNet 1.9.1 on the CPU, bit for bit except for
    coordinates that depend on exp. Their exp is within one unit in the last place of MXNet's. The
    result is the same on every device.

    Each cell of the feature map has A anchors: for each ratio those of all scales. A base anchor
    has the area of a square with the side ``feature_stride``, rounded as in Faster R-CNN, and the
    scale multiplies its sides. A box has both of its corners: its width is x2 - x1 + 1 pixels. The
    offsets (dx, dy, dw, dh) of an anchor with the center (ax, ay) and the size (aw, ah) describe
    the box with the center (dx aw + ax, dy ah + ay) and the size (exp(dw) aw, exp(dh) ah). The
    coordinates are clipped to the image.

    A box that is shorter than ``rpn_min_size`` times the scale of the image grows by that length
    along both axes, and its score becomes -1. So does the score of a cell beyond the image. As in
    MXNet, such boxes are still candidates. The ``rpn_pre_nms_top_n`` candidates with the highest
    scores remain; equal scores are in the order of rows, columns and anchors, and NaN is the lowest
    score. A kept box suppresses each later one if their IoU is above ``threshold``. As in MXNet, an
    image with fewer kept boxes than rows repeats them in order until all rows are full.

    Args:
        cls_prob: float32 (B, 2 A, H, W); channels A to 2 A - 1 are the scores of the anchors.
        bbox_pred: float32 (B, 4 A, H, W), the four offsets of each anchor.
        im_info: float32 (B, 3): height, width and scale of each image, in pixels. MXNet refuses an
            image with more cells than the feature map.
        rpn_pre_nms_top_n: the maximum number of candidates of an image; no maximum if not positive.
        rpn_post_nms_top_n: the number of rows of an image in the result.
        threshold: the IoU above which a box is suppressed.
        rpn_min_size: the minimum side of a box, in pixels of the unscaled image.
        scales: the scales of the anchors.
        ratios: the ratios of height to width of the anchors.
        feature_stride: the pixels from a cell to the next one.
        output_score: True also returns the scores.
        iou_loss: True adds the offsets to the corners of the anchors: (x1, y1, x2, y2).
        backend: the implementation; by default the best for the arrays' device.

    Returns:
        float32 (B * ``rpn_post_nms_top_n``, 5): the index of the image and the corners in pixels,
        the best first. With ``output_score``, the pair of it and the scores, float32 (B *
        ``rpn_post_nms_top_n``, 1). A GPU reads no value back, so a CUDA graph can capture the call.
        There is no gradient, and MXNet's is zero: a PyTorch result does not require one.

    Raises:
        TypeError: an input is not a float32 array; the inputs differ in library or device; an
            argument is not a number.
        ValueError: the shapes do not agree with each other, or with the number of anchors; an image
            has no anchor, or 65535 * 256 or more; a cell has more than 128 anchors; the result has
            2**31 rows or more; ``rpn_post_nms_top_n`` or ``feature_stride`` is not positive; the
            feature map has 2**31 pixels or more along an axis; ``threshold``, a scale or a ratio is
            NaN.
    """
    signature = _OP.signature.get(backend, cls_prob=cls_prob, bbox_pred=bbox_pred, im_info=im_info)
    options = _options.get(
        signature.shapes["cls_prob"], signature.shapes["bbox_pred"], rpn_pre_nms_top_n,
        rpn_post_nms_top_n, threshold, rpn_min_size, scales, ratios, feature_stride, output_score,
        iou_loss,
    )  # fmt: skip
    return signature.run((cls_prob, bbox_pred, im_info), options)


@_check.memoized
def _options(
    shape: tuple[int, ...],
    offsets_shape: tuple[int, ...],
    pre: Any,
    post: Any,
    threshold: Any,
    min_size: Any,
    scales: Any,
    ratios: Any,
    stride: Any,
    output_score: Any,
    iou_loss: Any,
) -> tuple[np.ndarray, np.ndarray, _Options, float, bool]:
    """Return the arguments of the implementations after the arrays."""
    scales, ratios = _floats.get("scales", scales), _floats.get("ratios", ratios)
    anchors = len(scales) * len(ratios)
    if anchors > _MAX_ANCHORS:
        raise ValueError(
            f"scales: expected at most {_MAX_ANCHORS} anchors of a cell, got {anchors} for "
            f"{len(ratios)} ratios"
        )
    batch, _, height, width = shape
    for name, each, got in (("cls_prob", 2, shape), ("bbox_pred", 4, offsets_shape)):
        if got[1] != each * anchors:
            raise ValueError(
                f"{name}: expected {each} * {anchors} channels for {len(scales)} scales and "
                f"{len(ratios)} ratios, got shape {got}"
            )
    num = anchors * height * width
    if not 1 <= num < _check.MAX_BOXES:
        raise ValueError(
            f"cls_prob: expected a cell or more, and fewer than {_check.MAX_BOXES} anchors, "
            f"got shape {shape}"
        )
    pre = _check.integer("rpn_pre_nms_top_n", pre)
    rows = _check.integer("rpn_post_nms_top_n", post, 1)
    if batch * rows >= 2**31:
        raise ValueError(f"rpn_post_nms_top_n: expected fewer than 2**31 rows, got {batch * rows}")
    stride = _check.integer("feature_stride", stride, 1)
    if max(height, width) * stride >= 2**31:
        raise ValueError(
            f"feature_stride: expected fewer than 2**31 pixels, got {stride} for a map of "
            f"{height} x {width}"
        )
    options = _Options(
        stride,
        _check.integer("rpn_min_size", min_size),
        _check.flag("iou_loss", iou_loss),
        min(pre, num) if pre > 0 else num,
        rows,
    )
    return (
        scales,
        ratios,
        options,
        _check.single("threshold", threshold),
        _check.flag("output_score", output_score),
    )


@_check.memoized
def _floats(name: str, value: Any) -> np.ndarray:
    with np.errstate(over="ignore"):  # a number beyond float32 is infinite
        return np.array(_check.numbers(name, value), np.float32)


def _base_anchors(scales: np.ndarray, ratios: np.ndarray, stride: int) -> np.ndarray:
    """Return the anchors (A, 4) of the first cell."""
    one, half = np.float32(1), np.float32(0.5)
    side, anchors = np.float32(stride), []
    center = half * (side - one)
    for ratio in ratios:
        for scale in scales:
            width = np.floor(np.sqrt(np.floor(side * side / ratio)) + half) * scale
            height = np.floor(width / scale * ratio + half) * scale
            anchors.append(
                [center + sign * half * (n - one) for sign in (-1, 1) for n in (width, height)]
            )
    return np.array(anchors, np.float32)


def _decode(
    offsets: np.ndarray, anchors: np.ndarray, options: _Options
) -> tuple[np.ndarray, np.ndarray]:
    """Return the low and the high corners (N, 2) of boxes that are not clipped."""
    low, high = anchors[..., :2], anchors[..., 2:]
    if options.corners:
        return low + offsets[..., :2], high + offsets[..., 2:]
    side = high - low + np.float32(1)
    center = (low + 0.5 * (side.astype(np.float64) - 1)).astype(np.float32)
    center = offsets[..., :2] * side + center
    half = 0.5 * ((_exp_log.exp(offsets[..., 2:]) * side).astype(np.float64) - 1)
    return (center - half).astype(np.float32), (center + half).astype(np.float32)


def _suppress(boxes: np.ndarray, threshold: float, most: int) -> list[int]:
    """Return the indices of the first ``most`` kept boxes; each includes its corners."""
    one = np.float32(1)
    areas = (boxes[:, 2] - boxes[:, 0] + one) * (boxes[:, 3] - boxes[:, 1] + one)
    left = np.arange(len(boxes))
    kept: list[int] = []
    while len(left) and len(kept) < most:
        first, left = left[0], left[1:]
        kept.append(int(first))
        low = np.maximum(boxes[first, :2], boxes[left, :2])
        high = np.minimum(boxes[first, 2:], boxes[left, 2:])
        overlap = np.prod(np.fmax(high - low + one, np.float32(0)), axis=1)
        iou = overlap / (areas[first] + areas[left] - overlap)
        left = left[~(iou > np.float32(threshold))]
    return kept


@_OP.implementation("numpy")
def _numpy(
    cls_prob: np.ndarray,
    bbox_pred: np.ndarray,
    im_info: np.ndarray,
    scales: np.ndarray,
    ratios: np.ndarray,
    options: _Options,
    threshold: float,
    output_score: bool,
) -> Any:
    batch, channels, height, width = cls_prob.shape
    num_anchors = channels // 2
    out = np.empty((batch, options.rows, 5), np.float32)
    out_score = np.empty((batch, options.rows, 1), np.float32)
    with np.errstate(all="ignore"):
        base = _base_anchors(scales, ratios, options.stride)
        y, x = np.mgrid[:height, :width].astype(np.float32) * np.float32(options.stride)
        anchors = base + np.stack([x, y, x, y], axis=-1)[:, :, None]
        for image, info in enumerate(im_info):
            offsets = bbox_pred[image].reshape(num_anchors, 4, height, width)
            low, high = _decode(offsets.transpose(2, 3, 0, 1), anchors, options)
            most = info[1::-1] - np.float32(1)
            low, high = (np.where(most < x, most, x) for x in (low, high))
            low, high = (np.where(x < 0, np.float32(0), x) for x in (low, high))
            scores = cls_prob[image, num_anchors:].transpose(1, 2, 0).copy()
            inside = info[:2] / np.float32(options.stride)
            scores[np.arange(height) >= np.trunc(inside[0])] = -1
            scores[:, np.arange(width) >= np.trunc(inside[1])] = -1
            min_size = np.float32(options.min_size) * info[2]
            small = (high - low + np.float32(1) < min_size).any(axis=-1)
            scores[small] = -1
            more = np.where(small, min_size / np.float32(2), np.float32(0))[..., None]
            boxes = np.concatenate([low - more, high + more], axis=-1).reshape(-1, 4)
            scores = scores.reshape(-1)
            order = np.argsort(-np.where(np.isnan(scores), -np.inf, scores), kind="stable")
            order = order[: options.topk]
            kept = order[_suppress(boxes[order], threshold, options.rows)]
            kept = np.resize(kept, options.rows)  # repeats them
            out[image, :, 0], out[image, :, 1:] = image, boxes[kept]
            out_score[image, :, 0] = scores[kept]
    out, out_score = out.reshape(-1, 5), out_score.reshape(-1, 1)
    return (out, out_score) if output_score else out


@_OP.implementation("native")
def _native(
    device: DeviceOps,
    cls_prob: np.ndarray,
    bbox_pred: np.ndarray,
    im_info: np.ndarray,
    scales: np.ndarray,
    ratios: np.ndarray,
    options: _Options,
    threshold: float,
    output_score: bool,
) -> Any:
    batch, _, height, width = cls_prob.shape
    out = device.empty((batch * options.rows, 5), np.float32)
    score = device.empty((batch * options.rows, 1), np.float32) if output_score else None
    device.ops.proposal(
        out, score, cls_prob, bbox_pred, im_info, scales, ratios, batch, height, width, options,
        threshold,
    )  # fmt: skip
    return (out, score) if output_score else out

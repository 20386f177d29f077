"""The ground truths that anchors match by their IoU."""

from __future__ import annotations

import math
from typing import Any, NamedTuple, TypeVar

import numpy as np

from cvops.ops import _check, _sampling
from cvops.ops._op import DeviceOps, Op, Signature

Array = TypeVar("Array")
_OP = Op("match_anchors", anchors="float32 (..., A, 4)", boxes="float32 (..., M, 4)")
#: The matches of anchors whose highest IoU is below both thresholds, or between them.
_BELOW_LOW, _BETWEEN = -1, -2


class _Shape(NamedTuple):
    """``MatchShape`` of the kernels."""

    images: int
    anchors: int
    boxes: int
    anchor_sets: int


class _Options(NamedTuple):
    """``MatchOptions`` of the kernels."""

    high: float
    low: float
    allow_low_quality: bool
    match_best: bool


def match_anchors(
    anchors: Array,
    boxes: Array,
    high_threshold: float = 0.5,
    low_threshold: float | None = None,
    allow_low_quality_matches: bool = False,
    match_best_anchors: bool = False,
    *,
    backend: str | None = None,
) -> Array:
    """Match each anchor with the ground truth of its highest IoU, without the matrix of IoUs.

    MXNet 1.9.1 has no such operator. The rules are those of ``Matcher`` and ``SSDMatcher`` of
    torchvision, and of ``Matcher`` of detectron2, which need the IoUs of all pairs. Here the
    scratch memory is proportional to A + M.

    An anchor matches the box of its highest IoU, and the lowest index among equal ones, if that
    IoU is at least ``high_threshold``. The result of another anchor is -1 if the IoU is below
    ``low_threshold``, and -2 otherwise. The options then change matches, in this order:

    - ``allow_low_quality_matches``, as ``Matcher``: each anchor that has the highest IoU of a box
      (all anchors with that IoU) matches the box of its own highest IoU, at any threshold.
    - ``match_best_anchors``, as ``SSDMatcher``: the anchor that has the highest IoU of a box, and
      the lowest index among equal ones, matches that box. It matches the last one of several
      such boxes.

    The IoU has the bits of :func:`box_iou`. A box that overlaps no anchor changes nothing, so rows
    of -1 or of NaN can pad the boxes of an image. torchvision instead counts an IoU of 0 as the
    highest one of such a box: ``Matcher`` then matches all anchors, and ``SSDMatcher`` the first.

    Args:
        anchors: float32 (A, 4) or (1, A, 4) for all images, or (..., A, 4) with the leading axes of
            ``boxes``; corners (x1, y1, x2, y2) in any unit. An anchor with a NaN corner has the IoU
            0 with each box.
        boxes: the ground truths, float32 (M, 4), or (..., M, 4) for several images; corners in the
            anchors' unit. An axis M of length 0 gives -1 for all anchors; torchvision raises an
            error.
        high_threshold: the IoU from which on an anchor matches, in [0, 1].
        low_threshold: the IoU below which the result is -1, in [0, ``high_threshold``]; None means
            ``high_threshold``.
        allow_low_quality_matches: see above.
        match_best_anchors: see above.
        backend: the implementation; by default the best for the arrays' device.

    Returns:
        int32 (..., A): the index of the matched box of each anchor, -1 or -2. The leading axes are
        those of ``boxes``. There is no gradient: PyTorch results do not require one, and MXNet's is
        zero. A GPU reads no value back, so a CUDA graph can capture the call.

    Raises:
        TypeError: an input is not a float32 array; the inputs differ in library or device; a
            threshold is not a number.
        ValueError: the shapes do not agree; an image has 2**30 boxes or more; another axis is 2**31
            or more; a threshold is out of its range; another option is not a flag.

    Example:
        >>> anchors = np.float32([[0, 0, 4, 4], [0, 0, 4, 2], [0, 0, 4, 1], [6, 6, 9, 9]])
        >>> boxes = np.float32([[0, 0, 4, 4]])
        >>> cvops.match_anchors(anchors, boxes, 0.7, 0.3)  # the IoUs are 1, 0.5, 0.25, 0
        array([ 0, -2, -1, -1], dtype=int32)
    """
    signature = _OP.signature.get(backend, anchors=anchors, boxes=boxes)
    options = _options.get(
        high_threshold, low_threshold, allow_low_quality_matches, match_best_anchors
    )
    return signature.run(
        (anchors, boxes),
        (*_shape.get(signature.shapes["anchors"], signature.shapes["boxes"]), options),
    )


@_check.memoized
def _shape(anchors: tuple[int, ...], boxes: tuple[int, ...]) -> tuple[tuple[int, ...], _Shape]:
    """Return the leading axes of the result, and all sizes."""
    leading = boxes[:-2]
    sizes = math.prod(leading), anchors[-2], boxes[-2], math.prod(anchors[:-2])
    return leading, _Shape(*sizes)


@_check.memoized
def _options(
    high_threshold: Any,
    low_threshold: Any,
    allow_low_quality_matches: Any,
    match_best_anchors: Any,
) -> _Options:
    high = _check.number("high_threshold", high_threshold, 0, 1)
    return _Options(
        high,
        high if low_threshold is None else _check.number("low_threshold", low_threshold, 0, high),
        _check.flag("allow_low_quality_matches", allow_low_quality_matches),
        _check.flag("match_best_anchors", match_best_anchors),
    )


@_OP.check
def _check_shapes(signature: Signature) -> None:
    anchors, boxes = signature.shapes["anchors"], signature.shapes["boxes"]
    if anchors[:-2] not in ((), (1,), boxes[:-2]):
        axes = "".join(f"{size}, " for size in boxes[:-2])
        same = f" or ({axes}A, 4)" if axes else ""
        raise ValueError(f"anchors: expected shape (A, 4), (1, A, 4){same}, got {anchors}")
    if boxes[-2] >= 2**30:
        raise ValueError(f"boxes: expected fewer than 2^30 boxes of an image, got {boxes[-2]}")
    _check.sizes_fit("anchors", anchors, *anchors)
    _check.sizes_fit("boxes", boxes, math.prod(boxes[:-2]))


@_OP.implementation("numpy")
def _numpy(
    anchors: np.ndarray,
    boxes: np.ndarray,
    leading: tuple[int, ...],
    shape: _Shape,
    options: _Options,
) -> np.ndarray:
    out = np.full((shape.images, shape.anchors), _BELOW_LOW, np.int32)
    if out.size and shape.boxes:
        anchors = anchors.reshape(-1, shape.anchors, 4)
        boxes = boxes.reshape(-1, shape.boxes, 4)
        for image, some in enumerate(boxes):
            own = anchors[image if len(anchors) > 1 else 0]
            out[image] = _matches(_sampling.iou_matrix(own, some), options)
    return out.reshape(*leading, shape.anchors)


def _matches(iou: np.ndarray, options: _Options) -> np.ndarray:
    """Return the matches (A) of an image from its IoUs (A, M)."""
    best, own, of_box = iou.max(axis=1), iou.argmax(axis=1), iou.max(axis=0)
    high, low = np.float32(options.high), np.float32(options.low)
    matched = best >= high
    if options.allow_low_quality:
        matched |= ((iou == of_box) & (iou > 0)).any(axis=1)
    out = np.where(matched, own, np.where(best < low, _BELOW_LOW, _BETWEEN))
    if options.match_best:
        for box in np.flatnonzero(of_box > 0):
            out[iou[:, box].argmax()] = box
    return out


@_OP.implementation("native")
def _native(
    device: DeviceOps,
    anchors: np.ndarray,
    boxes: np.ndarray,
    leading: tuple[int, ...],
    shape: _Shape,
    options: _Options,
) -> np.ndarray:
    out = device.empty((*leading, shape.anchors), np.int32)
    if shape.images * shape.anchors > 0:  # without results another size may exceed an int
        device.ops.match_anchors(out, anchors, boxes, shape, options)
    return out

"""Non-maximum suppression of boxes that have a score for each class."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeVar

import numpy as np

from cvops.ops import _check, box_nms
from cvops.ops._op import DeviceOps, Op, Signature

Array = TypeVar("Array")
_OP = Op("multiclass_nms", boxes="float (B, N, 4)", scores="float (B, C, N)")
#: float32 represents each integer up to this one, so it represents each class.
_MAX_CLASSES = 2**24


class _Options(NamedTuple):
    """The options of the implementations, in the order of the extension's parameters."""

    #: ``Candidates``: the score threshold, the first pair of the background, and the pair after it.
    candidates: tuple[float, int, int]
    #: ``NmsRule``: threshold, True if an IoU at the threshold suppresses, by_class, center.
    rule: tuple[float, bool, bool, bool]
    #: The maximum number of candidates of an image.
    limit: int
    #: The number of rows of an image in the result.
    rows: int


def multiclass_nms(
    boxes: Array,
    scores: Array,
    overlap_thresh: float = 0.5,
    valid_thresh: float = 0.01,
    topk: int = 1000,
    post_nms: int = -1,
    background_id: int = -1,
    force_suppress: bool = False,
    in_format: str = "corner",
    *,
    backend: str | None = None,
) -> tuple[Array, Array]:
    """Suppress boxes that have a score for each class: non-maximum suppression of a batch.

    Each pair of a class and a box with a score above ``valid_thresh`` is a candidate. The
    candidates of an image are in descending order of the scores; equal scores are in the order of
    the classes, then of the boxes. Only the first ``topk`` candidates of all classes remain. A kept
    candidate suppresses each later one of its class if their IoU is above ``overlap_thresh``; an
    equal IoU does not suppress.

    The result is that of :func:`box_nms` for C * N rows (class, score, box) in the order of
    ``scores``, with ``id_index=0``. It has therefore the bits of ``mx.nd.contrib.box_nms`` of
    MXNet 1.9.1 on the CPU. The rows are never in memory. There is no gradient.

    ``float`` below is one dtype for all arrays: float32, float64 or half (float16 or bfloat16,
    which are computed in float32 and rounded once). Options are float32.

    Args:
        boxes: float (B, N, 4), in any unit, in ``in_format``.
        scores: float (B, C, N), the score of each class for each box; 0 equals -0.
        overlap_thresh: the IoU above which a candidate is suppressed.
        valid_thresh: the score above which a pair is a candidate; a pair with a NaN score is not.
        topk: the maximum number of candidates of an image.
        post_nms: the maximum number of rows of an image in the result; no maximum if negative.
        background_id: the class without candidates; no such class if it is out of range.
        force_suppress: True also suppresses boxes of other classes.
        in_format: "corner" for (x1, y1, x2, y2), "center" for (x, y, width, height).
        backend: the implementation; by default the best for the arrays' device.

    Returns:
        ``out``, float (B, K, 6), and ``counts``, int32 (B). K is the smallest of ``topk``, C * N,
        and a ``post_nms`` that is not negative. The first counts[b] rows of image b are its kept
        candidates (class, score, and the four numbers of the box in ``boxes``), the best first.
        The other rows are -1. There is no gradient: a PyTorch result does not require one. A GPU
        reads no value back, so a CUDA graph can capture the call.

    Raises:
        TypeError: an input is not a float array; the inputs differ in library or device; an
            argument is not a number.
        ValueError: the shapes do not agree; C is above 2**24; B or C * N is 2**31 or more; a
            threshold is NaN; ``topk`` is not positive; ``topk`` and C * N are both 65535 * 256 or
            more; ``in_format`` is unknown.

    Example:
        >>> boxes = np.float32([[[0, 0, 2, 2], [0, 0, 2, 1.5]]])
        >>> scores = np.float32([[[0.9, 0.8], [0, 0.6]]])  # (images, classes, boxes)
        >>> cvops.multiclass_nms(boxes, scores, topk=3)
        (array([[[ 0. ,  0.9,  0. ,  0. ,  2. ,  2. ],
                [ 1. ,  0.6,  0. ,  0. ,  2. ,  1.5],
                [-1. , -1. , -1. , -1. , -1. , -1. ]]], dtype=float32), array([2], dtype=int32))
    """
    signature = _OP.signature.get(backend, boxes=boxes, scores=scores)
    options = _fitted.get(
        signature.shapes["scores"], overlap_thresh, valid_thresh, topk, post_nms, background_id,
        force_suppress, in_format,
    )  # fmt: skip
    return signature.run((boxes, scores), (options,))


@_check.memoized
def _fitted(shape: tuple[int, ...], *options: Any) -> _Options:
    """Return the options for ``scores`` of a shape."""
    valid_thresh, topk, post_nms, background_id, rule = _options.get(*options)
    _, classes, num = shape
    limit = min(topk, classes * num)
    if limit >= _check.MAX_BOXES:
        raise ValueError(
            f"topk: expected fewer than {_check.MAX_BOXES} of {classes * num} candidates, "
            f"got {topk}"
        )
    first, end = 0, 0
    if 0 <= background_id < classes:
        first, end = background_id * num, (background_id + 1) * num
    rows = limit if post_nms < 0 else min(post_nms, limit)
    return _Options((valid_thresh, first, end), rule, limit, rows)


@_check.memoized
def _options(
    overlap_thresh: Any,
    valid_thresh: Any,
    topk: Any,
    post_nms: Any,
    background_id: Any,
    force_suppress: Any,
    in_format: Any,
) -> tuple[float, int, int, int, tuple[float, bool, bool, bool]]:
    """Return the checked options: valid_thresh, topk, post_nms, background_id, and the rule."""
    topk = _check.integer("topk", topk, 1)
    post_nms = _check.integer("post_nms", post_nms)
    background_id = _check.integer("background_id", background_id)
    _check.choice("in_format", in_format, ("corner", "center"))
    valid_thresh = _check.single("valid_thresh", valid_thresh)
    overlap_thresh = _check.single("overlap_thresh", overlap_thresh)
    by_class = not _check.flag("force_suppress", force_suppress)
    rule = overlap_thresh, False, by_class, in_format == "center"
    return valid_thresh, topk, post_nms, background_id, rule


@_OP.check
def _check_shapes(signature: Signature) -> None:
    _, classes, num = shape = signature.shapes["scores"]
    _check.sizes_fit("scores", shape, *shape)
    if classes > _MAX_CLASSES or classes * num >= 2**31:
        raise ValueError(
            "scores: expected at most 2**24 classes, and fewer than 2**31 scores of an image, "
            f"got shape {shape}"
        )
    if signature.types[1][1] == np.float64 and classes * num >= _check.MAX_BOXES:
        raise ValueError(
            f"scores: expected fewer than {_check.MAX_BOXES} float64 scores of an image, "
            f"got shape {shape}"
        )


@_OP.implementation("numpy")
def _numpy(
    boxes: np.ndarray, scores: np.ndarray, options: _Options
) -> tuple[np.ndarray, np.ndarray]:
    batch, classes, num = scores.shape
    threshold, first, end = options.candidates
    if options.rows == 0:
        return np.empty((batch, 0, 6), scores.dtype), np.zeros(batch, np.int32)
    data = np.empty((batch, classes, num, 6), scores.dtype)
    data[..., 0] = np.arange(classes)[:, None]
    data[..., 1] = scores
    data[..., 2:] = boxes[:, None]
    data = data.reshape(batch, classes * num, 6)
    data[:, first:end, 1] = -np.inf  # above no threshold
    nms_options = box_nms._Options((6, 1, 2, 0), options.rule, threshold, -1, 0, options.limit)
    out, index = box_nms._suppress(data, nms_options)
    counts = np.minimum((index >= 0).sum(axis=1), options.rows).astype(np.int32)
    return out[:, : options.rows].copy(), counts


@_OP.implementation("native")
def _native(
    device: DeviceOps, boxes: np.ndarray, scores: np.ndarray, options: _Options
) -> tuple[np.ndarray, np.ndarray]:
    batch = scores.shape[0]
    out, counts = device.empty_all(((batch, options.rows, 6), scores.dtype), ((batch,), np.int32))
    device.ops.multiclass_nms(out, counts, boxes, scores, *options)
    return out, counts

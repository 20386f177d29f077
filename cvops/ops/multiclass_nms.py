"""Non-maximum suppression of boxes that have a score for each class."""

from __future__ import annotations

from typing import NamedTuple, TypeVar

import numpy as np

from cvops.ops import _check, box_nms
from cvops.ops._op import DeviceOps, Op, Signature

Array = TypeVar("Array")
_OP = Op("multiclass_nms", boxes="float32 (B, N, 4)", scores="float32 (B, C, N)")
#: float32 has all integers up to it, and so all classes of the result.
_MOST_CLASSES = 2**24


class _Options(NamedTuple):
    """What the bodies take beside the arrays: the arguments, as the kernels see them."""

    #: The score to be exceeded, and the candidates of the background, begin and end.
    candidates: tuple[float, int, int]
    #: Threshold, whether it suppresses itself, by_class and center: ``NmsRule``.
    rule: tuple[float, bool, bool, bool]
    #: How many candidates of an image take part at most, and how many rows it has in the result.
    most: int
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
    """Non-maximum suppression of boxes with a score for each class, for a whole batch.

    Each pair of a class and a box whose score is above ``valid_thresh`` is a candidate. Those of an
    image go in descending order of their scores, ties by class and then by box; the first ``topk``,
    of all classes together, take part. One that is kept suppresses each later one of its class
    whose IoU with it is above ``overlap_thresh`` (equal is not).

    The result is that of :func:`box_nms`, and so of ``mx.nd.contrib.box_nms`` of MXNet 1.9.1 on the
    CPU, bit for bit, given C * N rows (class, score, box) in the order of ``scores`` and
    ``id_index=0``; but those rows are never made. There is no gradient.

    Args:
        boxes: float32 (B, N, 4), in any unit, corners (x1, y1, x2, y2) or what ``in_format`` says.
        scores: float32 (B, C, N), of each class for each box; 0 equals -0.
        overlap_thresh: the IoU above which a candidate is suppressed.
        valid_thresh: candidates are those whose score is above it; a NaN score is not.
        topk: how many candidates of an image take part at most.
        post_nms: how many rows of an image are given at most; all if negative.
        background_id: the class that has no candidates; none if there is no such class.
        force_suppress: suppress across classes too.
        in_format: "corner", or "center": (x, y, width, height).
        backend: which implementation; by default the best for the arrays' device.

    Returns:
        ``out``, float32 (B, K, 6), and ``counts``, int32 (B). K is the least of ``topk``, C * N,
        and ``post_nms`` if that is not negative. The first counts[b] rows of an image are its kept
        candidates (class, score, x1, y1, x2, y2), the best first, with the four numbers of the box
        as they came in; the others are -1. No gradient: a PyTorch tensor that comes out does not
        require one. On a GPU no value is read back, so that the call can be captured in a CUDA
        graph.

    Raises:
        TypeError: an input is not a float32 array, or they differ in kind or device; an argument is
            not a number.
        ValueError: shapes do not fit each other; C is above 2**24, or B or C * N 2**31 or more; a
            threshold is NaN; ``topk`` is not positive, or 65535 * 256 or more where C * N is, too;
            ``in_format`` is neither word.
    """
    inputs = _OP.inputs(backend, boxes=boxes, scores=scores)
    _, classes, num = inputs.shapes["scores"]
    most = min(_check.integer("topk", topk, 1), classes * num)
    if most >= _check.MAX_BOXES:
        raise ValueError(
            f"topk: expected fewer than {_check.MAX_BOXES} of {classes * num} candidates, "
            f"got {topk}"
        )
    post_nms = _check.integer("post_nms", post_nms)
    background_id = _check.integer("background_id", background_id)
    _check.choice("in_format", in_format, ("corner", "center"))
    first = background_id * num if 0 <= background_id < classes else 0
    options = _Options(
        (
            _check.single("valid_thresh", valid_thresh),
            *(first, first + num if 0 <= background_id < classes else 0),
        ),
        (
            _check.single("overlap_thresh", overlap_thresh),
            False,
            not _check.flag("force_suppress", force_suppress),
            in_format == "center",
        ),
        most,
        most if post_nms < 0 else min(post_nms, most),
    )
    return inputs.run(options)


@_OP.check
def _check_shapes(signature: Signature) -> None:
    _, classes, num = shape = signature.shapes["scores"]
    _check.sizes_fit("scores", shape, *shape)
    if classes > _MOST_CLASSES or classes * num >= 2**31:
        raise ValueError(
            "scores: expected at most 2**24 classes, and fewer than 2**31 scores of an image, "
            f"got shape {shape}"
        )


@_OP.implementation("numpy")
def _numpy(
    boxes: np.ndarray, scores: np.ndarray, options: _Options
) -> tuple[np.ndarray, np.ndarray]:
    batch, classes, num = scores.shape
    threshold, first, end = options.candidates
    if options.rows == 0:
        return np.empty((batch, 0, 6), np.float32), np.zeros(batch, np.int32)
    data = np.empty((batch, classes, num, 6), np.float32)
    data[..., 0] = np.arange(classes)[:, None]
    data[..., 1] = scores
    data[..., 2:] = boxes[:, None]
    data = data.reshape(batch, classes * num, 6)
    data[:, first:end, 1] = -np.inf  # which is above no threshold
    contest = box_nms._Contest((6, 1, 2, 0), options.rule, threshold, -1, 0, options.most)
    out, index = box_nms._kept(data, contest)
    counts = np.minimum((index >= 0).sum(axis=1), options.rows).astype(np.int32)
    return out[:, : options.rows].copy(), counts


@_OP.implementation("native")
def _native(
    device: DeviceOps, boxes: np.ndarray, scores: np.ndarray, options: _Options
) -> tuple[np.ndarray, np.ndarray]:
    batch = scores.shape[0]
    out, counts = device.empty_all(((batch, options.rows, 6), np.float32), ((batch,), np.int32))
    device.ops.multiclass_nms(out, counts, boxes, scores, *options)
    return out, counts

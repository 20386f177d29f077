"""Non-maximum suppression that lowers scores."""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple, TypeVar, Union, overload

import numpy as np

from cvops.ops import _check, _exp_log
from cvops.ops._nms_rows import Columns, check_sets, columns_of, decay, fitted
from cvops.ops._op import DeviceOps, Op
from cvops.ops.box_iou import _intersection, _sized
from cvops.ops.box_nms import _candidates, _truncated

Array = TypeVar("Array")
_OP = Op("soft_nms", data="float32 (..., N, K)")


class _Options(NamedTuple):
    """The options of the implementations, in the order of the extension's parameters."""

    #: ``NmsColumns``: the width of a row, the columns of score, first coordinate and class.
    columns: Columns
    valid_thresh: float
    background_id: float
    #: The maximum number of candidates.
    topk: int
    #: ``SoftNms``: threshold, sigma, gaussian, by_class, center.
    op: tuple[float, float, bool, bool, bool]
    #: The number of rows of a set in the result.
    rows: int


@overload
def soft_nms(
    data: Array,
    method: str = "linear",
    sigma: float = 0.5,
    overlap_thresh: float = 0.3,
    valid_thresh: float = 0.001,
    topk: int = -1,
    post_nms: int = -1,
    coord_start: int = 2,
    score_index: int = 1,
    id_index: int = -1,
    background_id: int = -1,
    force_suppress: bool = False,
    in_format: str = "corner",
    *,
    return_index: Literal[False] = False,
    backend: str | None = None,
) -> Array: ...
@overload
def soft_nms(
    data: Array,
    method: str = "linear",
    sigma: float = 0.5,
    overlap_thresh: float = 0.3,
    valid_thresh: float = 0.001,
    topk: int = -1,
    post_nms: int = -1,
    coord_start: int = 2,
    score_index: int = 1,
    id_index: int = -1,
    background_id: int = -1,
    force_suppress: bool = False,
    in_format: str = "corner",
    *,
    return_index: bool = False,
    backend: str | None = None,
) -> Union[Array, tuple[Array, Array]]: ...
def soft_nms(
    data: Array,
    method: str = "linear",
    sigma: float = 0.5,
    overlap_thresh: float = 0.3,
    valid_thresh: float = 0.001,
    topk: int = -1,
    post_nms: int = -1,
    coord_start: int = 2,
    score_index: int = 1,
    id_index: int = -1,
    background_id: int = -1,
    force_suppress: bool = False,
    in_format: str = "corner",
    *,
    return_index: bool = False,
    backend: str | None = None,
) -> Any:
    """Lower the score of each box that overlaps a better one: Soft-NMS (Bodla et al., 2017).

    The candidates are the rows with a score above ``valid_thresh``. Only the first ``topk``
    candidates by score remain; equal scores are in the order of ``data``. Each step keeps the
    candidate with the highest score; of equal scores it keeps the first one in ``data``. It then
    multiplies the score of each other candidate of its class by a factor of their IoU. "linear":
    1 - IoU if the IoU is above ``overlap_thresh``, else 1. "gaussian": exp(-IoU**2 / sigma). A
    candidate whose score is not above ``valid_thresh`` any more is dropped.

    MXNet 1.9.1 has no such op. The rules are those of detectron2. In the paper and in mmcv, an IoU
    equal to the threshold lowers a score too. IoUs have the bits of :func:`box_nms`. A union of 0,
    or a NaN, lowers no score. The result is the same on every device. The time grows with the
    number of candidates times the number of kept rows, so ``topk`` and ``post_nms`` limit it.

    Args:
        data: float32 (..., N, K): sets of N rows of K numbers. Each leading index is one set.
        method: "linear" or "gaussian".
        sigma: the divisor of the squared IoU, for "gaussian".
        overlap_thresh: the IoU above which a score is lowered, for "linear".
        valid_thresh: the score that a row must exceed, before and after; 0 or more.
        topk: the maximum number of candidates in a set; no maximum if negative.
        post_nms: the maximum number of rows of a set in the result; N if negative.
        coord_start: the column of the first of the four coordinates, which have any unit.
        score_index: the column of the score.
        id_index: the column of the class, or -1. Classes are equal if their integer parts are.
        background_id: rows of this class are not candidates; -1 excludes the class -1.
        force_suppress: True also lowers the scores of boxes of other classes.
        in_format: "corner" for (x1, y1, x2, y2), "center" for (x, y, width, height).
        return_index: True also returns ``index``.
        backend: the implementation; by default the best for the array's device.

    Returns:
        ``out``, float32 (..., R, K), with R = ``post_nms``, or N if it is negative or larger: the
        kept rows with their new scores, the best first, then rows of -1. With ``return_index``, the
        pair (``out``, ``index``). ``index`` is int32 (..., R): the number of each row of ``out`` in
        its set, -1 for rows of -1. A GPU reads no value back, so a CUDA graph can capture the call.
        There is no gradient: a PyTorch result does not require one.

    Raises:
        TypeError: ``data`` is not a float32 array; an argument is not a number.
        ValueError: ``data`` has fewer than two axes; K is too small, or 2**31 or more; N is 65535 *
            256 or more; there are 2**31 sets or more that are not empty; a column is out of range
            or used twice; ``method`` or ``in_format`` is unknown; a threshold is NaN;
            ``valid_thresh`` is negative; ``sigma`` is not positive.

    Example:
        >>> rows = np.float32([[0.75, 0, 0, 2, 1], [1, 0, 0, 2, 2]])  # score, corners
        >>> cvops.soft_nms(rows, score_index=0, coord_start=1)  # the IoU is 0.5
        array([[1.   , 0.   , 0.   , 2.   , 2.   ],
               [0.375, 0.   , 0.   , 2.   , 1.   ]], dtype=float32)
    """
    signature = _OP.signature.get(backend, data=data)
    options = _fitted.get(
        signature.shapes["data"], method, sigma, overlap_thresh, valid_thresh, topk, post_nms,
        coord_start, score_index, id_index, background_id, force_suppress, in_format, return_index,
    )  # fmt: skip
    return signature.run((data,), options)


@_check.memoized
def _fitted(shape: tuple[int, ...], *options: Any) -> tuple[_Options, bool]:
    """Return the options for ``data`` of a shape."""
    checked, return_index = _options.get(*options)
    return fitted(checked, shape), return_index


@_check.memoized
def _options(
    method: Any,
    sigma: Any,
    overlap_thresh: Any,
    valid_thresh: Any,
    topk: Any,
    post_nms: Any,
    coord_start: Any,
    score_index: Any,
    id_index: Any,
    background_id: Any,
    force_suppress: Any,
    in_format: Any,
    return_index: Any,
) -> tuple[_Options, bool]:
    columns = columns_of(coord_start, score_index, id_index)
    rule = decay(method, sigma, force_suppress, in_format, columns)
    options = _Options(
        columns,
        _check.number("valid_thresh", valid_thresh, 0),
        _check.integer("background_id", background_id),
        _check.integer("topk", topk),
        (_check.single("overlap_thresh", overlap_thresh), *rule),
        _check.integer("post_nms", post_nms),
    )
    return options, _check.flag("return_index", return_index)


_OP.check(check_sets)


@_OP.implementation("numpy")
def _numpy(data: np.ndarray, options: _Options, return_index: bool) -> Any:
    *leading, num, width = data.shape
    _, score, coord, id_ = options.columns
    threshold, sigma, gaussian, by_class, center = options.op
    out = np.full((*leading, options.rows, width), -1, np.float32)
    index = np.full((*leading, options.rows), -1, np.int32)
    for at in np.ndindex(*leading) if out.size else ():
        rows, row = data[at], 0
        left = np.sort(
            _candidates(
                rows, options.columns, options.valid_thresh, options.background_id, options.topk
            )
        )
        boxes, areas = _sized(rows[:, coord : coord + 4], center)
        classes = _truncated(rows[:, id_]) if by_class else np.zeros(num)
        scores = rows[:, score].copy()
        while len(left) and row < options.rows:
            best = left[np.argmax(scores[left])]
            out[at][row], index[at][row] = rows[best], best
            out[at][row, score] = scores[best]
            row += 1
            left = left[left != best]
            same = left[classes[left] == classes[best]]
            kept, other = boxes[best : best + 1], boxes[same]
            overlap = _intersection(other, kept) if center else _intersection(kept, other)
            with np.errstate(all="ignore"):
                iou = overlap / (areas[best] + areas[same] - overlap)
                if gaussian:
                    factor = _exp_log.exp(-(iou * iou) / np.float32(sigma))
                else:
                    factor = np.where(iou > np.float32(threshold), np.float32(1) - iou, 1)
                lowers = (overlap > 0) & ~np.isnan(iou)
                scores[same] *= np.where(lowers, factor, 1).astype(np.float32)
            left = left[scores[left] > np.float32(options.valid_thresh)]
    return (out, index) if return_index else out


@_OP.implementation("native")
def _native(device: DeviceOps, data: np.ndarray, options: _Options, return_index: bool) -> Any:
    *leading, num, width = data.shape
    out = device.empty((*leading, options.rows, width), np.float32)
    index = device.empty((*leading, options.rows), np.int32) if return_index else None
    device.ops.soft_nms(out, index, data, math.prod(leading), num, *options)
    return (out, index) if return_index else out

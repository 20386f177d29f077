"""Non-maximum suppression that lowers all scores at once."""

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
_OP = Op("matrix_nms", data="float32 (..., N, K)")


class _Options(NamedTuple):
    """The options of the implementations, in the order of the extension's parameters."""

    #: ``NmsColumns``: the width of a row, the columns of score, first coordinate and class.
    columns: Columns
    valid_thresh: float
    background_id: float
    #: The maximum number of candidates.
    topk: int
    #: ``MatrixNms``: sigma, gaussian, by_class, center.
    op: tuple[float, bool, bool, bool]
    post_thresh: float
    #: The number of rows of a set in the result.
    rows: int


@overload
def matrix_nms(
    data: Array,
    method: str = "linear",
    sigma: float = 2.0,
    valid_thresh: float = 0.0,
    post_thresh: float = 0.0,
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
def matrix_nms(
    data: Array,
    method: str = "linear",
    sigma: float = 2.0,
    valid_thresh: float = 0.0,
    post_thresh: float = 0.0,
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
def matrix_nms(
    data: Array,
    method: str = "linear",
    sigma: float = 2.0,
    valid_thresh: float = 0.0,
    post_thresh: float = 0.0,
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
    """Lower the scores of overlapping boxes in parallel: Matrix NMS (SOLOv2, 2020), on boxes.

    The candidates are the rows with a score above ``valid_thresh``, in descending order of the
    scores; equal scores keep the order of ``data``. Only the first ``topk`` candidates remain. The
    score of candidate i is multiplied by the least of f(iou(i, j)) / f(m(j)) over the candidates j
    of its class before it, at most 1. m(j) is the greatest IoU of j with the candidates before j.
    "linear": f(iou) = 1 - iou. "gaussian": f(iou) = exp(-sigma iou**2).

    MXNet 1.9.1 has no such op. The rules are those of PaddlePaddle's ``matrix_nms``, except that
    ``topk`` counts the candidates of all classes. IoUs have the bits of :func:`box_nms`. The linear
    denominator is 1 - m(j) + 1e-10 in float32. A union of 0, or a NaN, lowers no score. The result
    is the same on every device.

    Args:
        data: float32 (..., N, K): sets of N rows of K numbers. Each leading index is one set.
        method: "linear" or "gaussian".
        sigma: the factor of the squared IoU, for "gaussian".
        valid_thresh: the score above which a row is a candidate; 0 or more.
        post_thresh: the score that a row must exceed in the result; 0 or more.
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
            or used twice; ``method`` or ``in_format`` is unknown; a threshold is negative or
            NaN; ``sigma`` is not positive.

    Example:
        >>> rows = np.float32([[0.75, 0, 0, 2, 1], [1, 0, 0, 2, 2]])  # score, corners
        >>> cvops.matrix_nms(rows, score_index=0, coord_start=1)  # the IoU is 0.5
        array([[1.   , 0.   , 0.   , 2.   , 2.   ],
               [0.375, 0.   , 0.   , 2.   , 1.   ]], dtype=float32)
    """
    signature = _OP.signature.get(backend, data=data)
    options = _fitted.get(
        signature.shapes["data"], method, sigma, valid_thresh, post_thresh, topk, post_nms,
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
    valid_thresh: Any,
    post_thresh: Any,
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
        rule,
        _check.number("post_thresh", post_thresh, 0),
        _check.integer("post_nms", post_nms),
    )
    return options, _check.flag("return_index", return_index)


_OP.check(check_sets)


@_OP.implementation("numpy")
def _numpy(data: np.ndarray, options: _Options, return_index: bool) -> Any:
    *leading, _, width = data.shape
    _, score, coord, id_ = options.columns
    sigma, gaussian, by_class, center = options.op
    one = np.float32(1)
    out = np.full((*leading, options.rows, width), -1, np.float32)
    index = np.full((*leading, options.rows), -1, np.int32)
    for at in np.ndindex(*leading) if out.size else ():
        order = _candidates(
            data[at], options.columns, options.valid_thresh, options.background_id, options.topk
        )
        rows = data[at][order]
        num = len(rows)
        boxes, areas = _sized(rows[:, coord : coord + 4], center)
        classes = _truncated(rows[:, id_]) if by_class else np.zeros(num)
        before, after = boxes[:, None], boxes[None]
        overlap = _intersection(after, before) if center else _intersection(before, after)
        pairs = (overlap > 0) & (classes[:, None] == classes) & np.tri(num, k=-1, dtype=bool).T
        with np.errstate(all="ignore"):
            iou = np.where(pairs, overlap / (areas[:, None] + areas - overlap), np.nan)
            most = np.fmax.reduce(iou, axis=0, initial=np.float32(0))[:, None]
            if gaussian:
                term = np.fmin.reduce(most * most - iou * iou, axis=0, initial=np.float32(0))
                factor = _exp_log.exp(term * np.float32(sigma))
            else:
                term = (one - iou) / (one - most + np.float32(1e-10))
                factor = np.fmin.reduce(term, axis=0, initial=one)
            scores = rows[:, score] * factor
        kept = np.flatnonzero(scores > np.float32(options.post_thresh))
        kept = kept[np.lexsort((order[kept], -scores[kept]))][: options.rows]
        out[at][: len(kept)], index[at][: len(kept)] = rows[kept], order[kept]
        out[at][: len(kept), score] = scores[kept]
    return (out, index) if return_index else out


@_OP.implementation("native")
def _native(device: DeviceOps, data: np.ndarray, options: _Options, return_index: bool) -> Any:
    *leading, num, width = data.shape
    out = device.empty((*leading, options.rows, width), np.float32)
    index = device.empty((*leading, options.rows), np.int32) if return_index else None
    device.ops.matrix_nms(out, index, data, math.prod(leading), num, *options)
    return (out, index) if return_index else out

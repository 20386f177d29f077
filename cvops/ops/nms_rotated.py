"""Non-maximum suppression of rotated boxes with scores."""

from __future__ import annotations

from typing import Any, Literal, TypeVar, Union, overload

import numpy as np

from cvops.ops import _check
from cvops.ops._nms_rows import check_columns, check_sets, columns_of, fitted_limit
from cvops.ops._op import DeviceOps, Op
from cvops.ops.box_iou_rotated import RotatedFormat, _boxes, _iou, rotated_format
from cvops.ops.box_nms import _Options, _sizes, _suppress_by, box_nms_backward

Array = TypeVar("Array")
_OP = Op("nms_rotated", data="float32 (..., N, K)")


@overload
def nms_rotated(
    data: Array,
    overlap_thresh: float = 0.5,
    valid_thresh: float = 0.0,
    topk: int = -1,
    coord_start: int = 2,
    score_index: int = 1,
    id_index: int = -1,
    background_id: int = -1,
    force_suppress: bool = False,
    angle: str = "degrees",
    clockwise: bool = False,
    *,
    return_index: Literal[False] = False,
    backend: str | None = None,
) -> Array: ...
@overload
def nms_rotated(
    data: Array,
    overlap_thresh: float = 0.5,
    valid_thresh: float = 0.0,
    topk: int = -1,
    coord_start: int = 2,
    score_index: int = 1,
    id_index: int = -1,
    background_id: int = -1,
    force_suppress: bool = False,
    angle: str = "degrees",
    clockwise: bool = False,
    *,
    return_index: Literal[True],
    backend: str | None = None,
) -> tuple[Array, Array]: ...
@overload
def nms_rotated(
    data: Array,
    overlap_thresh: float = 0.5,
    valid_thresh: float = 0.0,
    topk: int = -1,
    coord_start: int = 2,
    score_index: int = 1,
    id_index: int = -1,
    background_id: int = -1,
    force_suppress: bool = False,
    angle: str = "degrees",
    clockwise: bool = False,
    *,
    return_index: bool,
    backend: str | None = None,
) -> Union[Array, tuple[Array, Array]]: ...
def nms_rotated(
    data: Array,
    overlap_thresh: float = 0.5,
    valid_thresh: float = 0.0,
    topk: int = -1,
    coord_start: int = 2,
    score_index: int = 1,
    id_index: int = -1,
    background_id: int = -1,
    force_suppress: bool = False,
    angle: str = "degrees",
    clockwise: bool = False,
    *,
    return_index: bool = False,
    backend: str | None = None,
) -> Any:
    """Suppress each rotated box that overlaps a better one too much.

    MXNet 1.9.1 has no such operator. The rules are those of :func:`box_nms`, with the boxes and the
    IoU of :func:`box_iou_rotated`. The candidates are the rows with a score above ``valid_thresh``,
    in descending order of the scores; equal scores keep the order of ``data``. Only the first
    ``topk`` candidates remain. A kept candidate suppresses each later one of its class if their IoU
    is above ``overlap_thresh``; an equal IoU does not suppress.

    Args:
        data: float32 (..., N, K): sets of N rows of K numbers. Each leading index is one set.
        overlap_thresh: the IoU above which a row is suppressed.
        valid_thresh: the score above which a row is a candidate; a row with a NaN score is not.
        topk: the maximum number of candidates in a set; no maximum if negative. 0 returns a copy of
            ``data``.
        coord_start: the column of the first of the five numbers of a box: x and y of the center,
            width, height, angle.
        score_index: the column of the score.
        id_index: the column of the class, or -1. Classes are equal if their integer parts are.
        background_id: rows of this class are not candidates; -1 excludes the class -1.
        force_suppress: True also suppresses boxes of other classes.
        angle: the unit of the angles, "degrees" or "radians".
        clockwise: True if positive angles turn a box clockwise in an image, False if
            counterclockwise.
        return_index: True also returns ``index``, which :func:`box_nms_backward` needs.
        backend: the implementation; by default the best for the array's device.

    Returns:
        ``out``, float32 of ``data``'s shape: the kept rows, the best first, then rows of -1. With
        ``return_index``, the pair (``out``, ``index``). ``index`` is int32 (..., N): the number of
        each row of ``out`` in its set, -1 for rows of -1. The IoU of a box without area is 0, also
        that of a box with a number that is not finite. A GPU reads no value back, so a CUDA graph
        can capture the call. ``out`` as a PyTorch tensor has the gradient of
        :func:`box_nms_backward`, which has no gradient itself.

    Raises:
        TypeError: ``data`` is not a float32 array; an argument is not a number.
        ValueError: ``data`` has fewer than two axes; K is too small, or 2**31 or more; N is 65535 *
            256 or more; there are 2**31 sets or more that are not empty; a column is out of range
            or used twice; ``angle`` is unknown; a threshold is NaN.

    Example:
        >>> rows = np.float32([[0, 0.9, 0, 0, 4, 2, 0], [0, 0.8, 0, 0, 4, 2, 90]])
        >>> cvops.nms_rotated(rows, 0.3, id_index=0)  # class, score, x, y, width, height, degrees
        array([[ 0. ,  0.9,  0. ,  0. ,  4. ,  2. ,  0. ],
               [-1. , -1. , -1. , -1. , -1. , -1. , -1. ]], dtype=float32)
    """
    signature = _OP.signature.get(backend, data=data)
    options = _fitted.get(
        signature.shapes["data"], overlap_thresh, valid_thresh, topk, coord_start, score_index,
        id_index, background_id, force_suppress, angle, clockwise, return_index,
    )  # fmt: skip
    return signature.run((data,), options)


@_check.memoized
def _fitted(shape: tuple[int, ...], *options: Any) -> tuple[_Options, RotatedFormat, bool]:
    """Return the options for ``data`` of a shape."""
    checked, format, return_index = _options.get(*options)
    limit = fitted_limit(checked.limit, shape[-2])
    columns = check_columns(shape, checked.columns, 5)
    return _Options(columns, *checked[1:-1], limit), format, return_index


@_check.memoized
def _options(
    overlap_thresh: Any,
    valid_thresh: Any,
    topk: Any,
    coord_start: Any,
    score_index: Any,
    id_index: Any,
    background_id: Any,
    force_suppress: Any,
    angle: Any,
    clockwise: Any,
    return_index: Any,
) -> tuple[_Options, RotatedFormat, bool]:
    columns = columns_of(coord_start, score_index, id_index)
    across = _check.flag("force_suppress", force_suppress)
    by_class = columns[3] >= 0 and not across
    options = _Options(
        columns,
        (_check.number("overlap_thresh", overlap_thresh), False, by_class, False),
        _check.number("valid_thresh", valid_thresh),
        _check.integer("background_id", background_id),
        0,
        _check.integer("topk", topk),
    )
    format = rotated_format.get(angle, clockwise)
    return options, format, _check.flag("return_index", return_index)


_OP.check(check_sets)


@_OP.backward(residual=True)
def _gradient(
    out_grad: Any, index: Any, _: _Options, __: RotatedFormat, ___: bool, backend: str | None
) -> Any:
    return box_nms_backward(out_grad, index, backend=backend)


@_OP.mxnet
def _operator(
    options: _Options, format: RotatedFormat, _return_index: bool
) -> tuple[str, dict[str, Any]]:
    _, score, coord, id_ = options.columns
    threshold, _, by_class, _ = options.rule
    return "nms_rotated", {
        "overlap_thresh": _check.single("overlap_thresh", threshold),
        "valid_thresh": _check.single("valid_thresh", options.valid_thresh),
        "topk": options.limit,
        "coord_start": coord,
        "score_index": score,
        "id_index": id_,
        "background_id": options.background_id,
        "force_suppress": not by_class,
        "angle": "radians" if format.radians else "degrees",
        "clockwise": format.clockwise,
    }


@_OP.implementation("numpy")
def _numpy(data: np.ndarray, options: _Options, format: RotatedFormat, return_index: bool) -> Any:
    coord = options.columns[2]

    def ious_of(rows: np.ndarray) -> Any:
        boxes = _boxes(rows[:, coord : coord + 5], format)
        return lambda i, later: _iou(boxes.at(slice(i, i + 1)), boxes.at(later))

    out, index = _suppress_by(ious_of, data, options)
    return (out, index) if return_index else out


@_OP.implementation("native")
def _native(
    device: DeviceOps,
    data: np.ndarray,
    options: _Options,
    format: RotatedFormat,
    return_index: bool,
) -> Any:
    out = device.empty(data.shape, np.float32)
    index = device.empty(data.shape[:-1], np.int32) if return_index else None
    batch, num, _ = _sizes(data)
    device.ops.nms_rotated(out, index, data, batch, num, *options, format)
    return (out, index) if return_index else out

"""Non-maximum suppression of boxes with scores, and its gradient."""

from __future__ import annotations

import functools
import math
from typing import Any, Callable, Literal, NamedTuple, TypeVar, Union, overload

import numpy as np

from cvops.ops import _check
from cvops.ops._nms_rows import Columns, check_columns, check_sets, columns_of, fitted_limit
from cvops.ops._op import DeviceOps, Op, Signature
from cvops.ops.box_iou import _intersection, _sized

Array = TypeVar("Array")
_OP = Op("box_nms", data="float (..., N, K)")
_BACKWARD = Op("box_nms_backward", out_grad="float (..., N, K)", index="int32 (...)")


class _Options(NamedTuple):
    """The options of the implementations, in the order of the extension's parameters."""

    #: ``NmsColumns``: the width of a row, the columns of score, first coordinate and class.
    columns: Columns
    #: ``NmsRule``: threshold, True if an IoU at the threshold suppresses, by_class, center.
    rule: tuple[float, bool, bool, bool]
    valid_thresh: float
    background_id: float
    #: 0 for none, 1 for center format, 2 for corner format.
    conversion: int
    #: The maximum number of candidates; 0 for a copy of all rows.
    limit: int


@overload
def box_nms(
    data: Array,
    overlap_thresh: float = 0.5,
    valid_thresh: float = 0.0,
    topk: int = -1,
    coord_start: int = 2,
    score_index: int = 1,
    id_index: int = -1,
    background_id: int = -1,
    force_suppress: bool = False,
    in_format: str = "corner",
    out_format: str = "corner",
    *,
    return_index: Literal[False] = False,
    backend: str | None = None,
) -> Array: ...
@overload
def box_nms(
    data: Array,
    overlap_thresh: float = 0.5,
    valid_thresh: float = 0.0,
    topk: int = -1,
    coord_start: int = 2,
    score_index: int = 1,
    id_index: int = -1,
    background_id: int = -1,
    force_suppress: bool = False,
    in_format: str = "corner",
    out_format: str = "corner",
    *,
    return_index: Literal[True],
    backend: str | None = None,
) -> tuple[Array, Array]: ...
@overload
def box_nms(
    data: Array,
    overlap_thresh: float = 0.5,
    valid_thresh: float = 0.0,
    topk: int = -1,
    coord_start: int = 2,
    score_index: int = 1,
    id_index: int = -1,
    background_id: int = -1,
    force_suppress: bool = False,
    in_format: str = "corner",
    out_format: str = "corner",
    *,
    return_index: bool,
    backend: str | None = None,
) -> Union[Array, tuple[Array, Array]]: ...
def box_nms(
    data: Array,
    overlap_thresh: float = 0.5,
    valid_thresh: float = 0.0,
    topk: int = -1,
    coord_start: int = 2,
    score_index: int = 1,
    id_index: int = -1,
    background_id: int = -1,
    force_suppress: bool = False,
    in_format: str = "corner",
    out_format: str = "corner",
    *,
    return_index: bool = False,
    backend: str | None = None,
) -> Any:
    """Suppress each box that overlaps a better one too much: greedy non-maximum suppression.

    The result has the bits of ``mx.nd.contrib.box_nms`` of MXNet 1.9.1 on the CPU. The candidates
    are the rows with a score above ``valid_thresh``, in descending order of the scores; equal
    scores keep the order of ``data``. Only the first ``topk`` candidates remain. A kept candidate
    suppresses each later one of its class if their IoU is above ``overlap_thresh``; an equal IoU
    does not suppress. The area of an inverted box is 0. A union of 0, or a NaN, suppresses nothing.

    ``float`` below is one dtype for all arrays: float32, float64 or half (float16 or bfloat16,
    which are computed in float32 and rounded once). Options are float32.

    Args:
        data: float (..., N, K): sets of N rows of K numbers. Each leading index is one set.
        overlap_thresh: the IoU above which a row is suppressed.
        valid_thresh: the score above which a row is a candidate; a row with a NaN score is not.
        topk: the maximum number of candidates in a set; no maximum if negative. 0 returns a copy of
            ``data``.
        coord_start: the column of the first of the four coordinates, which have any unit.
        score_index: the column of the score.
        id_index: the column of the class, or -1. Classes are equal if their integer parts are.
        background_id: rows of this class are not candidates; -1 excludes the class -1.
        force_suppress: True also suppresses boxes of other classes.
        in_format: "corner" for (x1, y1, x2, y2), "center" for (x, y, width, height).
        out_format: the format of the boxes in the result. As in MXNet, a box with a negative first
            coordinate is not converted.
        return_index: True also returns ``index``, which :func:`box_nms_backward` needs.
        backend: the implementation; by default the best for the array's device.

    Returns:
        ``out``, float of ``data``'s shape: the kept rows, the best first, then rows of -1. With
        ``return_index``, the pair (``out``, ``index``). ``index`` is int32 (..., N): the number of
        each row of ``out`` in its set, -1 for rows of -1. A GPU reads no value back, so a CUDA
        graph can capture the call. ``out`` as a PyTorch tensor has the gradient of
        :func:`box_nms_backward`, which has no gradient itself.

    Raises:
        TypeError: ``data`` is not a float array; an argument is not a number.
        ValueError: ``data`` has fewer than two axes; K is too small, or 2**31 or more; N is 65535 *
            256 or more; there are 2**31 sets or more that are not empty; a column is out of range
            or used twice; a format is unknown; a threshold is NaN.

    Example:
        >>> rows = np.float32([[0, 0.8, 0, 0, 2, 1], [0, 0.9, 0, 0, 2, 2], [1, 0.7, 0, 0, 2, 2]])
        >>> cvops.box_nms(rows, 0.4, id_index=0)  # class, score, corners
        array([[ 0. ,  0.9,  0. ,  0. ,  2. ,  2. ],
               [ 1. ,  0.7,  0. ,  0. ,  2. ,  2. ],
               [-1. , -1. , -1. , -1. , -1. , -1. ]], dtype=float32)
    """
    signature = _OP.signature.get(backend, data=data)
    options = _fitted.get(
        signature.shapes["data"], overlap_thresh, valid_thresh, topk, coord_start, score_index,
        id_index, background_id, force_suppress, in_format, out_format, return_index,
    )  # fmt: skip
    return signature.run((data,), options)


@_check.memoized
def _fitted(shape: tuple[int, ...], *options: Any) -> tuple[_Options, bool]:
    """Return the options for ``data`` of a shape."""
    checked, return_index = _options.get(*options)
    limit = fitted_limit(checked.limit, shape[-2])
    return _Options(check_columns(shape, checked.columns), *checked[1:-1], limit), return_index


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
    in_format: Any,
    out_format: Any,
    return_index: Any,
) -> tuple[_Options, bool]:
    columns = columns_of(coord_start, score_index, id_index)
    _check.choice("in_format", in_format, ("corner", "center"))
    _check.choice("out_format", out_format, ("corner", "center"))
    across = _check.flag("force_suppress", force_suppress)
    by_class, center = columns[3] >= 0 and not across, in_format == "center"
    options = _Options(
        columns,
        (_check.number("overlap_thresh", overlap_thresh), False, by_class, center),
        _check.number("valid_thresh", valid_thresh),
        _check.integer("background_id", background_id),
        0 if in_format == out_format else 1 if out_format == "center" else 2,
        _check.integer("topk", topk),
    )
    return options, _check.flag("return_index", return_index)


def box_nms_backward(out_grad: Array, index: Array, *, backend: str | None = None) -> Array:
    """Return the gradient of :func:`box_nms` with respect to ``data``.

    The result has the bits of the gradient of ``mx.nd.contrib.box_nms`` of MXNet 1.9.1 on the CPU.
    Each row of ``out_grad`` is copied to the row that its ``index`` names; all other rows are 0.
    The copy ignores a conversion of the boxes by :func:`box_nms`.

    ``float`` below is one dtype for all arrays: float32, float64 or half (float16 or bfloat16,
    which are computed in float32 and rounded once). Options are float32.

    Args:
        out_grad: the gradient with respect to ``out``, float (..., N, K).
        index: the second result of :func:`box_nms`, int32 (..., N). An index outside of [0, N),
            such as -1, is skipped. The last of several equal ones counts, which :func:`box_nms`
            never returns.
        backend: the implementation; by default the best for the arrays' device.

    Returns:
        float of ``out_grad``'s shape.

    Raises:
        TypeError: ``out_grad`` is not a float array; ``index`` is not an int32 array; they differ
            in library or device.
        ValueError: ``out_grad`` has fewer than two axes; N is 65535 * 256 or more; K is 2**31 or
            more; there are 2**31 sets or more that are not empty; the shape of ``index`` is not
            ``out_grad.shape[:-1]``.
    """
    signature = _BACKWARD.signature.get(backend, out_grad=out_grad, index=index)
    return signature.run((out_grad, index), ())


_OP.check(check_sets)


@_OP.backward(residual=True)
def _gradient(out_grad: Any, index: Any, _: _Options, __: bool, backend: str | None) -> Any:
    return box_nms_backward(out_grad, index, backend=backend)


@_OP.mxnet
def _operator(options: _Options, _return_index: bool) -> tuple[str, dict[str, Any]]:
    _, score, coord, id_ = options.columns
    threshold, _, by_class, center = options.rule
    formats = "corner", "center"
    return "box_nms", {
        "overlap_thresh": _check.single("overlap_thresh", threshold),
        "valid_thresh": _check.single("valid_thresh", options.valid_thresh),
        "topk": options.limit,
        "coord_start": coord,
        "score_index": score,
        "id_index": id_,
        "background_id": options.background_id,
        "force_suppress": not by_class,
        "in_format": formats[center],
        "out_format": formats[(options.conversion == 1) if options.conversion else center],
    }


@_BACKWARD.check
def _check_backward_shapes(signature: Signature) -> None:
    shape, got = signature.shapes.values()
    _check.sizes_fit("out_grad", shape, math.prod(shape[:-2]))
    if shape[-2] >= _check.MAX_BOXES or shape[-1] >= 2**31:
        raise ValueError(
            f"out_grad: expected fewer than {_check.MAX_BOXES} rows of fewer than 2**31 numbers, "
            f"got shape {shape}"
        )
    if got != shape[:-1]:
        raise ValueError(f"index: expected shape {shape[:-1]} of the rows in out_grad, got {got}")


def _sizes(data: Any) -> tuple[int, int, int]:
    """Return the number of sets, the rows of a set and the numbers of a row."""
    shape = data.shape
    # A product of sizes would take a part of a small call.
    if len(shape) == 3:
        sizes: tuple[int, int, int] = shape
        return sizes
    if len(shape) == 2:
        return 1, *shape
    *leading, num, width = shape
    return math.prod(leading), num, width


@_OP.implementation("numpy")
def _numpy(data: np.ndarray, options: _Options, return_index: bool) -> Any:
    out, index = _suppress(data, options)
    return (out, index) if return_index else out


def _suppress(data: np.ndarray, options: _Options) -> tuple[np.ndarray, np.ndarray]:
    out, index = _suppress_by(functools.partial(_ious, options), data, options)
    _, _, coord, _ = options.columns
    if options.limit:
        _convert(out[..., coord : coord + 4], options.conversion)
    return out, index


#: A function from the index of a row and the indices of others to the IoUs of their boxes.
_IoUs = Callable[[int, np.ndarray], np.ndarray]


def _ious(options: _Options, rows: np.ndarray) -> _IoUs:
    coord, center = options.columns[2], options.rule[3]
    boxes, areas = _sized(rows[:, coord : coord + 4], center)

    def ious(i: int, later: np.ndarray) -> np.ndarray:
        kept, other = boxes[i : i + 1], boxes[later]
        overlap = _intersection(other, kept) if center else _intersection(kept, other)
        with np.errstate(all="ignore"):
            iou: np.ndarray = overlap / (areas[i] + areas[later] - overlap)
        return iou

    return ious


def _suppress_by(
    ious_of: Callable[[np.ndarray], _IoUs], data: np.ndarray, options: _Options
) -> tuple[np.ndarray, np.ndarray]:
    """Return ``out`` and ``index``. ``ious_of`` takes the candidates of a set."""
    id_ = options.columns[3]
    threshold, _, by_class, _ = options.rule
    overlap_thresh = np.float32(threshold)
    sizes = _sizes(data)
    out, index = np.full(sizes, -1, data.dtype), np.full(sizes[:2], -1, np.int32)
    if options.limit == 0:
        index[:] = np.arange(sizes[1])
        return data.copy(), index.reshape(data.shape[:-1])
    for rows, result, source in zip(data.reshape(sizes), out, index):
        order = _candidates(
            rows, options.columns, options.valid_thresh, options.background_id, options.limit
        )
        rows = rows[order]
        ious = ious_of(rows)
        classes = _truncated(rows[:, id_]) if by_class else np.zeros(len(rows))
        alive = np.ones(len(rows), bool)
        for i in range(len(rows)):
            if not alive[i]:
                continue
            later = i + 1 + np.flatnonzero(alive[i + 1 :] & (classes[i + 1 :] == classes[i]))
            alive[later[ious(i, later) > overlap_thresh]] = False
        result[: alive.sum()] = rows[alive]
        source[: alive.sum()] = order[alive]
    return out.reshape(data.shape), index.reshape(data.shape[:-1])


def _candidates(
    rows: np.ndarray,
    columns: tuple[int, int, int, int],
    valid_thresh: float,
    background_id: float,
    topk: int,
) -> np.ndarray:
    """Return the indices of the ``topk`` best valid rows, the best first."""
    _, score, _, id_ = columns
    valid = rows[:, score] > np.float32(valid_thresh)
    if id_ >= 0:
        valid &= rows[:, id_] != np.float32(background_id)
    order = np.flatnonzero(valid)
    return order[np.argsort(-rows[order, score], kind="stable")[:topk]]


def _truncated(x: np.ndarray) -> np.ndarray:
    """Drop fractions; a number that does not fit into int32, and NaN, become the lowest int32."""
    fits = (x >= -(2.0**31)) & (x < 2.0**31)
    return np.where(fits, np.trunc(np.where(fits, x, 0)), -(2.0**31))


def _convert(boxes: np.ndarray, conversion: int) -> None:
    """Convert boxes in place; a box with a negative first coordinate stays as it is."""
    if conversion == 0:
        return
    low, high = boxes[..., :2], boxes[..., 2:]
    with np.errstate(all="ignore"):
        if conversion == 1:
            converted = np.concatenate([(low + high) / 2, high - low], axis=-1)
        else:
            converted = np.concatenate([low - high / 2, low + high / 2], axis=-1)
    boxes[...] = np.where(boxes[..., :1] < 0, boxes, converted)


@_OP.implementation("native")
def _native(device: DeviceOps, data: np.ndarray, options: _Options, return_index: bool) -> Any:
    batch, num, _ = _sizes(data)
    out = device.empty(data.shape, data.dtype)
    index = device.empty(data.shape[:-1], np.int32) if return_index else None
    device.ops.box_nms(out, index, data, batch, num, *options)
    return (out, index) if return_index else out


@_BACKWARD.implementation("numpy")
def _backward_numpy(out_grad: np.ndarray, index: np.ndarray) -> np.ndarray:
    batch, num, _ = sizes = _sizes(out_grad)
    grad = np.zeros(sizes, out_grad.dtype)
    if grad.size == 0:
        return grad.reshape(out_grad.shape)
    for result, rows, at in zip(grad, out_grad.reshape(sizes), index.reshape(batch, num)):
        inside = (at >= 0) & (at < num)
        result[at[inside]] = rows[inside]
    return grad.reshape(out_grad.shape)


@_BACKWARD.implementation("native")
def _backward_native(device: DeviceOps, out_grad: np.ndarray, index: np.ndarray) -> np.ndarray:
    grad = device.empty(out_grad.shape, out_grad.dtype)
    device.ops.box_nms_backward(grad, out_grad, index, *_sizes(out_grad))
    return grad

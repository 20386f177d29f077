"""Non-maximum suppression of boxes with scores, and its gradient."""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple, TypeVar, Union, overload

import numpy as np

from cvops.ops import _check
from cvops.ops._op import DeviceOps, Op, Signature
from cvops.ops.box_iou import _intersection, _sized

Array = TypeVar("Array")
_OP = Op("box_nms", data="float32 (..., N, K)")
_BACKWARD = Op("box_nms_backward", out_grad="float32 (..., N, K)", index="int32 (...)")


class _Contest(NamedTuple):
    """What the bodies take beside the data: the arguments, as the kernels see them."""

    #: The width of a row, and its columns of score, first coordinate and class: ``NmsColumns``.
    columns: tuple[int, int, int, int]
    #: Threshold, whether it suppresses itself, by_class and center: ``NmsRule``.
    rule: tuple[float, bool, bool, bool]
    valid_thresh: float
    background_id: float
    #: 0 none, 1 to center format, 2 to corner format.
    conversion: int
    #: How many rows take part at most; 0 for a copy of all.
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
    """Greedy non-maximum suppression: of boxes that overlap too much, the best stays.

    As ``mx.nd.contrib.box_nms`` of MXNet 1.9.1 on the CPU, bit for bit. Rows whose score is above
    ``valid_thresh`` go in descending order of it, ties by their order in ``data``; the first
    ``topk`` take part. A row that is kept suppresses each later one of its class whose IoU with it
    is above ``overlap_thresh`` (equal is not). The areas of inverted boxes count as 0; where a
    union is 0 or an IoU NaN, nothing is suppressed.

    Args:
        data: float32 (..., N, K): N rows of K numbers; each leading index is a set of its own.
        overlap_thresh: the IoU above which a row is suppressed.
        valid_thresh: rows count whose score is above it; a NaN score does not.
        topk: how many rows take part at most; all if negative. 0 gives a copy of ``data``.
        coord_start: column of the first of the four coordinates, in any unit.
        score_index: column of the score.
        id_index: column of the class, or -1. Classes are compared without their fractions.
        background_id: rows of this class do not count; with -1, rows whose class is -1.
        force_suppress: suppress across classes too.
        in_format: "corner" for (x1, y1, x2, y2), "center" for (x, y, width, height).
        out_format: the same for the result. As in MXNet, a box whose first coordinate is negative
            is not converted.
        return_index: whether to give the second result, which :func:`box_nms_backward` takes.
        backend: which implementation; by default the best for the array's device.

    Returns:
        ``out``, float32 of ``data``'s shape: the kept rows, best first, then rows of -1. With
        ``return_index`` the pair of it and ``index``, int32 (..., N): which of the N rows of its
        set each row of ``out`` came from, -1 for rows of -1. On a GPU no value is read back, so
        that the call can be captured in a CUDA graph. ``out`` as a PyTorch tensor has the gradient
        of :func:`box_nms_backward`, which has no gradient itself.

    Raises:
        TypeError: ``data`` is not a float32 array; an argument is not a number.
        ValueError: ``data`` has fewer than two axes, K is too small or 2**31 or more, N is 65535 *
            256 or more, or there are 2**31 sets or more that are not empty; a column is out of
            range or serves twice; a format is unknown; a threshold is NaN.
    """
    inputs = _OP.inputs(backend, data=data)
    shape = inputs.shapes["data"]
    num, width = shape[-2:]
    score = _check.integer("score_index", score_index)
    coord = _check.integer("coord_start", coord_start)
    id_ = _check.integer("id_index", id_index)
    if width < 5 + (id_ > 0):
        want = "a score, a class and 4" if id_ > 0 else "a score and 4"
        raise ValueError(f"data: expected rows of {want} coordinates or more, got shape {shape}")
    if not 0 <= score < width or coord <= score < coord + 4:
        raise ValueError(
            f"score_index: expected a column beside the coordinates, got {score_index}"
        )
    if not 0 <= coord <= width - 4:
        raise ValueError(f"coord_start: expected four columns of {width}, got {coord_start}")
    if id_ >= width or coord <= id_ < coord + 4 or id_ == score:
        raise ValueError(f"id_index: expected a column of its own or -1, got {id_index}")
    if num >= _check.MAX_BOXES or width >= 2**31:
        raise ValueError(
            f"data: expected fewer than {_check.MAX_BOXES} rows of fewer than 2**31 numbers, "
            f"got shape {shape}"
        )
    _check.choice("in_format", in_format, ("corner", "center"))
    _check.choice("out_format", out_format, ("corner", "center"))
    topk = _check.integer("topk", topk)
    across = _check.flag("force_suppress", force_suppress)
    by_class, center = id_ >= 0 and not across, in_format == "center"
    contest = _Contest(
        (width, score, coord, max(id_, -1)),
        (_check.number("overlap_thresh", overlap_thresh), False, by_class, center),
        _check.number("valid_thresh", valid_thresh),
        _check.integer("background_id", background_id),
        0 if in_format == out_format else 1 if out_format == "center" else 2,
        num if topk < 0 else min(topk, num),
    )
    return inputs.run(contest, _check.flag("return_index", return_index))


def box_nms_backward(out_grad: Array, index: Array, *, backend: str | None = None) -> Array:
    """The gradient of :func:`box_nms` with respect to ``data``.

    As the gradient of ``mx.nd.contrib.box_nms`` of MXNet 1.9.1 on the CPU, bit for bit: each row of
    ``out_grad`` is copied to where its ``index`` points, and all other rows are 0. The rows are
    copied as they are also where :func:`box_nms` has converted the boxes.

    Args:
        out_grad: the gradient with respect to ``out``, float32 (..., N, K).
        index: the second result of :func:`box_nms`, int32 (..., N). What is not in [0, N), as -1,
            is left out. If a row is named several times, which :func:`box_nms` never does, the last
            counts.
        backend: which implementation; by default the best for the arrays' device.

    Returns:
        float32, ``out_grad``'s shape.

    Raises:
        TypeError: ``out_grad`` is not a float32 array or ``index`` not an int32 one, or they differ
            in kind or device.
        ValueError: ``out_grad`` has fewer than two axes, N is 65535 * 256 or more, K 2**31 or more,
            or there are 2**31 sets or more that are not empty; ``index`` has not ``out_grad``'s
            shape but for the last axis.
    """
    return _BACKWARD.inputs(backend, out_grad=out_grad, index=index).run()


@_OP.check
def _check_shapes(signature: Signature) -> None:
    _check.sizes_fit("data", signature.shapes["data"], math.prod(signature.shapes["data"][:-2]))


@_OP.backward(residual=True)
def _gradient(out_grad: Any, index: Any, _: _Contest, __: bool, backend: str | None) -> Any:
    return box_nms_backward(out_grad, index, backend=backend)


@_OP.mxnet
def _operator(contest: _Contest, _return_index: bool) -> tuple[str, dict[str, Any]]:
    _, score, coord, id_ = contest.columns
    threshold, _, by_class, center = contest.rule
    formats = "corner", "center"
    return "box_nms", {
        "overlap_thresh": _check.single("overlap_thresh", threshold),
        "valid_thresh": _check.single("valid_thresh", contest.valid_thresh),
        "topk": contest.limit,
        "coord_start": coord,
        "score_index": score,
        "id_index": id_,
        "background_id": contest.background_id,
        "force_suppress": not by_class,
        "in_format": formats[center],
        "out_format": formats[(contest.conversion == 1) if contest.conversion else center],
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
        raise ValueError(f"index: expected shape {shape[:-1]}, got {got}")


def _sizes(data: Any) -> tuple[int, int, int]:
    """The number of sets, the rows of each and the numbers of a row."""
    *leading, num, width = data.shape
    return math.prod(leading), num, width


@_OP.implementation("numpy")
def _numpy(data: np.ndarray, contest: _Contest, return_index: bool) -> Any:
    out, index = _kept(data, contest)
    return (out, index) if return_index else out


def _kept(data: np.ndarray, contest: _Contest) -> tuple[np.ndarray, np.ndarray]:
    _, score, coord, id_ = contest.columns
    threshold, _, by_class, center = contest.rule
    overlap_thresh, valid_thresh, background_id = map(
        np.float32, (threshold, contest.valid_thresh, contest.background_id)
    )
    sizes = _sizes(data)
    out, index = np.full(sizes, -1, np.float32), np.full(sizes[:2], -1, np.int32)
    if contest.limit == 0:
        index[:] = np.arange(sizes[1])
        return data.copy(), index.reshape(data.shape[:-1])
    for rows, result, source in zip(data.reshape(sizes), out, index):
        valid = rows[:, score] > valid_thresh
        if id_ >= 0:
            valid &= rows[:, id_] != background_id
        order = np.flatnonzero(valid)
        order = order[np.argsort(-rows[order, score], kind="stable")[: contest.limit]]
        rows = rows[order]
        boxes, areas = _sized(rows[:, coord : coord + 4], center)
        classes = _truncated(rows[:, id_]) if by_class else np.zeros(len(rows))
        alive = np.ones(len(rows), bool)
        for i in range(len(rows)):
            if not alive[i]:
                continue
            later = i + 1 + np.flatnonzero(alive[i + 1 :] & (classes[i + 1 :] == classes[i]))
            kept, other = boxes[i : i + 1], boxes[later]
            overlap = _intersection(other, kept) if center else _intersection(kept, other)
            with np.errstate(all="ignore"):
                iou = overlap / (areas[i] + areas[later] - overlap)
            alive[later[iou > overlap_thresh]] = False
        result[: alive.sum()] = rows[alive]
        source[: alive.sum()] = order[alive]
    _convert(out[..., coord : coord + 4], contest.conversion)
    return out.reshape(data.shape), index.reshape(data.shape[:-1])


def _truncated(x: np.ndarray) -> np.ndarray:
    """Integers without the fractions; what no int holds, and NaN, as the smallest int."""
    fits = (x >= -(2.0**31)) & (x < 2.0**31)
    return np.where(fits, np.trunc(np.where(fits, x, 0)), -(2.0**31))


def _convert(boxes: np.ndarray, conversion: int) -> None:
    """Convert in place, but for the boxes whose first coordinate is negative."""
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
def _native(device: DeviceOps, data: np.ndarray, contest: _Contest, return_index: bool) -> Any:
    out = device.empty(data.shape, np.float32)
    index = device.empty(data.shape[:-1], np.int32) if return_index else None
    batch, num, _ = _sizes(data)
    device.ops.box_nms(out, index, data, batch, num, *contest)
    return (out, index) if return_index else out


@_BACKWARD.implementation("numpy")
def _backward_numpy(out_grad: np.ndarray, index: np.ndarray) -> np.ndarray:
    batch, num, _ = sizes = _sizes(out_grad)
    grad = np.zeros(sizes, np.float32)
    if grad.size == 0:
        return grad.reshape(out_grad.shape)
    for result, rows, at in zip(grad, out_grad.reshape(sizes), index.reshape(batch, num)):
        inside = (at >= 0) & (at < num)
        result[at[inside]] = rows[inside]
    return grad.reshape(out_grad.shape)


@_BACKWARD.implementation("native")
def _backward_native(device: DeviceOps, out_grad: np.ndarray, index: np.ndarray) -> np.ndarray:
    grad = device.empty(out_grad.shape, np.float32)
    device.ops.box_nms_backward(grad, out_grad, index, *_sizes(out_grad))
    return grad

"""Pairwise intersection over union, its generalizations, and their gradient."""

from __future__ import annotations

import math
from typing import Any, TypeVar

import numpy as np

from cvops.ops import _check
from cvops.ops._op import DeviceOps, Op, Signature

Array = TypeVar("Array")
_SIDES = {"lhs": "float (..., N, 4)", "rhs": "float (..., M, 4)"}
_OP = Op("box_iou", **_SIDES)
#: The op for the kinds that have a gradient.
_KIND = Op("box_iou", **_SIDES)
_BACKWARD = Op("box_iou_backward", out_grad="float (...)", **_SIDES)
_KINDS = ("iou", "giou", "diou", "ciou")
_EPS = 1e-7
_FOUR_OVER_PI_SQUARED = 0.40528473456935108578
_LANES = 128


def box_iou(
    lhs: Array, rhs: Array, format: str = "corner", kind: str = "iou", *, backend: str | None = None
) -> Array:
    """Return the intersection over union of each box of ``lhs`` with each box of ``rhs``.

    The result of the kind "iou" has the bits of ``mx.nd.contrib.box_iou`` of MXNet 1.9.1 on the
    CPU. The other kinds subtract penalties, as torchvision's functions. ``hull`` is the smallest
    box that contains both boxes:

    - "giou" (``generalized_box_iou``): the share of the hull that neither box covers.
    - "diou" (``distance_box_iou``): the squared distance of the centers, divided by the squared
      diagonal of the hull plus 1e-7.
    - "ciou" (``complete_box_iou``): the penalty of "diou", and ``alpha * v``. ``v`` is 4 / pi**2
      times the squared difference of the angles ``atan(width / height)``, and ``alpha`` is ``v / (1
      - iou + v + 1e-7)``.

    All operations are rounded to the dtype, except those of an angle: float64, rounded once. Each
    implementation returns the same bits.

    ``float`` below is one dtype for all arrays: float32, float64 or half (float16 or bfloat16,
    which are computed in float32 and rounded once).

    Args:
        lhs: boxes, float (..., 4) with at least two axes, in any unit.
        rhs: boxes, float (..., 4) with at least two axes, in the same unit.
        format: "corner" for (x1, y1, x2, y2), "center" for (x, y, width, height).
        kind: "iou", "giou", "diou" or "ciou".
        backend: the implementation; by default the best for the arrays' device.

    Returns:
        float ``lhs.shape[:-1] + rhs.shape[:-1]``. The IoU is 0 where boxes do not overlap, also
        for two equal boxes without area. The area of an inverted box is 0, so an IoU may exceed 1;
        there is no clipping. Empty inputs give an empty result. A hull without area has no penalty
        in "giou", and the angle of a box without width and height is 0; torchvision returns NaN for
        both, and for the IoU of two boxes without area.

        A result of the kind "iou" has no gradient, and MXNet's is zero: a PyTorch result does not
        require one. The other kinds have the gradient of :func:`box_iou_backward` with respect to
        both inputs, in PyTorch and in MXNet, which has no gradient itself.

    Raises:
        TypeError: an input is not a float array, or the inputs differ in library or device.
        ValueError: the last axis of an input is not 4; an input has one axis only; an input has
            2**31 boxes or more; ``format`` or ``kind`` is unknown.

    Example:
        >>> boxes = np.float32([[0, 0, 2, 2], [1, 0, 3, 2]])
        >>> cvops.box_iou(boxes, boxes[:1])
        array([[1.        ],
               [0.33333334]], dtype=float32)
    """
    op = _OP if isinstance(kind, str) and kind == "iou" else _KIND
    signature = op.signature.get(backend, lhs=lhs, rhs=rhs)
    center = _check.choice("format", format, ("corner", "center")) == "center"
    if op is _OP:
        return signature.run((lhs, rhs), (center,))
    return signature.run((lhs, rhs), (center, _check.choice("kind", kind, _KINDS)))


def box_iou_backward(
    out_grad: Array,
    lhs: Array,
    rhs: Array,
    format: str = "corner",
    kind: str = "iou",
    *,
    backend: str | None = None,
) -> tuple[Array, Array]:
    """Return the gradients of :func:`box_iou` with respect to ``lhs`` and ``rhs``.

    MXNet 1.9.1 has no such gradient. As in PyTorch, equal coordinates of two boxes share the
    gradient of their maximum or minimum, and ``alpha`` of "ciou" counts as a constant. The
    gradient of an IoU of 0 is 0, and so is that of the area of an inverted box.

    The gradient of a box is the sum over the boxes of the other side: 128 partial sums,
    where sum ``l`` has the other boxes ``l``, ``l + 128`` and so on, then sums of pairs at distance
    64, 32, 16, 8, 4, 2 and 1. The result is the same in every run and for each implementation.

    ``float`` below is one dtype for all arrays: float32, float64 or half (float16 or bfloat16,
    which are computed in float32 and rounded once).

    Args:
        out_grad: the gradient with respect to the result, float of its shape.
        lhs: as in :func:`box_iou`.
        rhs: as in :func:`box_iou`.
        format: as in :func:`box_iou`.
        kind: as in :func:`box_iou`.
        backend: the implementation; by default the best for the arrays' device.

    Returns:
        float of the shape of ``lhs``, float of the shape of ``rhs``; zeros for a side if the
        other side has no boxes.

    Raises:
        TypeError: an array is not a float array, or the arrays differ in library or device.
        ValueError: ``lhs`` or ``rhs`` is refused by :func:`box_iou`; ``out_grad`` has another
            shape; ``format`` or ``kind`` is unknown.
    """
    signature = _BACKWARD.signature.get(backend, out_grad=out_grad, lhs=lhs, rhs=rhs)
    center = _check.choice("format", format, ("corner", "center")) == "center"
    return signature.run((out_grad, lhs, rhs), (center, _check.choice("kind", kind, _KINDS)))


def _check_shapes(signature: Signature) -> None:
    for name in _SIDES:
        rows = math.prod(signature.shapes[name][:-1])
        if rows >= 2**31:
            raise ValueError(f"{name}: expected fewer than 2^31 boxes, got {rows}")


@_BACKWARD.check
def _check_out_grad(signature: Signature) -> None:
    _check_shapes(signature)
    want = _out_shape(signature.shapes["lhs"], signature.shapes["rhs"])
    got = signature.shapes["out_grad"]
    if got != want:
        raise ValueError(f"out_grad: expected shape {want}, got {got}")


_OP.check(_check_shapes)
_KIND.check(_check_shapes)


def _out_shape(lhs: tuple[int, ...], rhs: tuple[int, ...]) -> tuple[int, ...]:
    return lhs[:-1] + rhs[:-1]


@_KIND.backward(inputs=("lhs", "rhs"), arrays=2)
def _gradient(
    out_grad: Any, lhs: Any, rhs: Any, center: bool, kind: str, backend: str | None
) -> Any:
    format = "center" if center else "corner"
    return box_iou_backward(out_grad, lhs, rhs, format, kind, backend=backend)


@_KIND.mxnet
def _operator(center: bool, kind: str) -> tuple[str, dict[str, Any]]:
    return "box_iou", {"format": "center" if center else "corner", "kind": kind}


@_OP.implementation("numpy")
def _numpy(lhs: np.ndarray, rhs: np.ndarray, center: bool) -> np.ndarray:
    out_shape = lhs.shape[:-1] + rhs.shape[:-1]
    lhs, area_lhs = _sized(lhs.reshape(-1, 1, 4), center)
    rhs, area_rhs = _sized(rhs.reshape(1, -1, 4), center)
    overlap = _intersection(rhs, lhs) if center else _intersection(lhs, rhs)
    with np.errstate(all="ignore"):
        iou = overlap / (area_lhs + area_rhs - overlap)
    return np.where(overlap <= 0, iou.dtype.type(0), iou).reshape(out_shape)


def _sized(boxes: np.ndarray, center: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return corners and areas; the area of an inverted box is 0."""
    with np.errstate(all="ignore"):
        low, high = boxes[..., :2], boxes[..., 2:]
        size = high if center else high - low
        if center:
            boxes = np.concatenate([low - size / 2, low + size / 2], axis=-1)
        area = size[..., 0] * size[..., 1]
    return boxes, np.where((size < 0).any(axis=-1), area.dtype.type(0), area)


def _intersection(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return areas of intersections. A comparison with NaN selects the side of ``b``."""
    size = _sides(_larger(a[..., :2], b[..., :2]), _smaller(a[..., 2:], b[..., 2:]))
    with np.errstate(all="ignore"):
        return size[..., 0] * size[..., 1]


def _larger(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.where(a > b, a, b)


def _smaller(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.where(a < b, a, b)


def _sides(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Return ``high - low``, or 0 where that is not positive."""
    with np.errstate(all="ignore"):
        return np.where(high - low > 0, high - low, low.dtype.type(0))


class _Boxes:
    """The boxes of one side: corners, area, center and sides, and the angle of "ciou"."""

    def __init__(self, boxes: np.ndarray, center: bool, kind: str):
        self.corners, self.area = _sized(boxes, center)
        low, high = boxes[..., :2], boxes[..., 2:]
        with np.errstate(all="ignore"):
            self.size = high if center else high - low
            self.center = low if center else (low + high) * np.float32(0.5)
        self.angle = _angle(self.size) if kind == "ciou" else np.zeros_like(self.area)


def _angle(size: np.ndarray) -> np.ndarray:
    """Return the arc tangent of width / height; 0 if both are 0. See ``box_angle`` in C++."""
    a, b = np.moveaxis(abs(size.astype(np.float64)), -1, 0)
    steep = a > b
    with np.errstate(all="ignore"):
        ratio = np.where(steep, b, a) / np.where(steep, a, b)
        high = ratio > 0.41421356237309503
        s = np.where(high, (ratio - 1) / (ratio + 1), ratio)
        p = np.zeros_like(s)
        for divisor in range(23, 0, -2):
            p = p * (s * s) + (1 if divisor % 4 == 1 else -1) / divisor
        angle = s * p
        angle = np.where(high, 0.78539816339744828 + angle, angle)
        angle = np.where(steep, 1.5707963267948966 - angle, angle)
    angle = np.where((a == 0) & (b == 0), 0.0, angle)
    negative = (size[..., 0] < 0) != (size[..., 1] < 0)
    return np.where(negative, -angle, angle).astype(size.dtype)


def _hull(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return width and height of the smallest boxes that contain both."""
    size = _sides(_smaller(a[..., :2], b[..., :2]), _larger(a[..., 2:], b[..., 2:]))
    return size[..., 0], size[..., 1]


@_KIND.implementation("numpy")
def _kind_numpy(lhs: np.ndarray, rhs: np.ndarray, center: bool, kind: str) -> np.ndarray:
    out_shape = _out_shape(lhs.shape, rhs.shape)
    a, b = (
        _Boxes(lhs.reshape(-1, 1, 4), center, kind),
        _Boxes(rhs.reshape(1, -1, 4), center, kind),
    )
    number = lhs.dtype.type
    one, zero, eps = number(1), number(0), number(_EPS)
    first, second = (b, a) if center else (a, b)
    overlap = _intersection(first.corners, second.corners)
    with np.errstate(all="ignore"):
        total = a.area + b.area - overlap
        iou = np.where(overlap <= 0, zero, overlap / total)
        width, height = _hull(a.corners, b.corners)
        if kind == "giou":
            hull = width * height
            out = iou - np.where(hull > 0, (hull - total) / hull, total * zero)
        else:
            dx, dy = np.moveaxis(a.center - b.center, -1, 0)
            out = iou - (dx * dx + dy * dy) / (width * width + height * height + eps)
        if kind == "ciou":
            turn = a.angle - b.angle
            v = number(_FOUR_OVER_PI_SQUARED) * (turn * turn)
            out = out - v / (one - iou + v + eps) * v
    return out.reshape(out_shape)


@_BACKWARD.implementation("numpy")
def _backward_numpy(
    out_grad: np.ndarray, lhs: np.ndarray, rhs: np.ndarray, center: bool, kind: str
) -> tuple[np.ndarray, np.ndarray]:
    a, b = lhs.reshape(-1, 4), rhs.reshape(-1, 4)
    out_grad = out_grad.reshape(len(a), len(b))
    return (
        _side_grad(out_grad, a, b, center, kind).reshape(lhs.shape),
        _side_grad(out_grad.T, b, a, center, kind).reshape(rhs.shape),
    )


def _side_grad(
    out_grad: np.ndarray, own: np.ndarray, other: np.ndarray, center: bool, kind: str
) -> np.ndarray:
    """Return the gradient of the boxes ``own``, from those of all pairs (own, other)."""
    sums = np.zeros((len(own), _LANES, 6), own.dtype)
    for begin in range(0, len(other), _LANES):
        boxes = other[begin : begin + _LANES]
        grads = _pair_grads(own[:, None], boxes[None], center, kind)
        with np.errstate(all="ignore"):
            sums[:, : len(boxes)] += out_grad[:, begin : begin + _LANES, None] * grads
    with np.errstate(all="ignore"):
        for step in (64, 32, 16, 8, 4, 2, 1):
            sums = sums[:, :step] + sums[:, step:]
        corners, by_area, by_angle = np.split(sums[:, 0], [4, 5], axis=-1)
        low, high = corners[:, :2], corners[:, 2:]
        size = _Boxes(own, center, kind).size
        width, height = size[:, :1], size[:, 1:]
        inverted = (size < 0).any(axis=-1, keepdims=True)
        norm = width * width + height * height
        zero = own.dtype.type(0)
        by_width = np.where(inverted, zero, by_area * height)
        by_width = by_width + np.where(norm > 0, by_angle * (height / norm), zero)
        by_height = np.where(inverted, zero, by_area * width)
        by_height = by_height - np.where(norm > 0, by_angle * (width / norm), zero)
        by_size = np.concatenate([by_width, by_height], axis=-1)
        if center:
            ends = low + high, np.float32(0.5) * (high - low) + by_size
        else:
            ends = low - by_size, high + by_size
    return np.concatenate(ends, axis=-1)


def _share(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the share of ``a`` in the gradient of the maximum."""
    return np.where(a > b, 1, np.where(a == b, 0.5, 0)).astype(a.dtype)


def _pair_grads(own: np.ndarray, other: np.ndarray, center: bool, kind: str) -> np.ndarray:
    """Return the derivatives of each pair: corners, area and angle of the box ``own``."""
    a, b = _Boxes(own, center, kind), _Boxes(other, center, kind)
    number = own.dtype.type
    zero, one, two, eps = number(0), number(1), number(2), number(_EPS)
    size = _sides(
        _larger(a.corners[..., :2], b.corners[..., :2]),
        _smaller(a.corners[..., 2:], b.corners[..., 2:]),
    )
    with np.errstate(all="ignore"):
        overlap = size[..., 0] * size[..., 1]
        total = a.area + b.area - overlap
        overlaps = overlap > 0
        iou = np.where(overlaps, overlap / total, zero)
        by_overlap = np.where(overlaps, (one + iou) / total, zero)
        by_area = np.where(overlaps, -(iou / total), zero)
        hull = np.stack(_hull(a.corners, b.corners), axis=-1)
        by_hull, by_center, by_angle = np.zeros_like(hull), np.zeros_like(hull), zero * iou
        if kind == "giou":
            area = hull[..., 0] * hull[..., 1]
            inverse = np.where(area > 0, one / area, zero)
            by_hull_area = np.where(area > 0, -(total / area / area), zero)
            by_overlap = np.where(overlaps, by_overlap - inverse, zero)
            by_area = by_area + inverse
            by_hull = by_hull_area[..., None] * hull[..., ::-1]
        elif kind != "iou":
            d = a.center - b.center
            diagonal = hull[..., 0] * hull[..., 0] + hull[..., 1] * hull[..., 1] + eps
            square = d[..., 0] * d[..., 0] + d[..., 1] * d[..., 1]
            by_center = -(two * d / diagonal[..., None])
            by_hull = two * hull * (square / diagonal / diagonal)[..., None]
        if kind == "ciou":
            turn = a.angle - b.angle
            factor = number(_FOUR_OVER_PI_SQUARED)
            v = factor * (turn * turn)
            alpha = v / (one - iou + v + eps)
            by_angle = -(alpha * (two * factor * turn))
        by_size = by_overlap[..., None] * size[..., ::-1]
        half = np.float32(0.5) * by_center
        a_low, a_high = a.corners[..., :2], a.corners[..., 2:]
        b_low, b_high = b.corners[..., :2], b.corners[..., 2:]
        low = half - by_size * _share(a_low, b_low) - by_hull * _share(b_low, a_low)
        high = half + by_size * _share(b_high, a_high) + by_hull * _share(a_high, b_high)
    by_angle = np.broadcast_to(by_angle, by_area.shape)
    return np.concatenate([low, high, by_area[..., None], by_angle[..., None]], axis=-1)


@_OP.implementation("native")
def _native(device: DeviceOps, lhs: np.ndarray, rhs: np.ndarray, center: bool) -> np.ndarray:
    out = device.empty(_out_shape(lhs.shape, rhs.shape), lhs.dtype)
    device.ops.box_iou(out, lhs, rhs, center)
    return out


@_KIND.implementation("native")
def _kind_native(
    device: DeviceOps, lhs: np.ndarray, rhs: np.ndarray, center: bool, kind: str
) -> np.ndarray:
    out = device.empty(_out_shape(lhs.shape, rhs.shape), lhs.dtype)
    device.ops.box_iou_kind(out, lhs, rhs, center, _KINDS.index(kind))
    return out


@_BACKWARD.implementation("native")
def _backward_native(
    device: DeviceOps,
    out_grad: np.ndarray,
    lhs: np.ndarray,
    rhs: np.ndarray,
    center: bool,
    kind: str,
) -> tuple[np.ndarray, np.ndarray]:
    grads = device.empty(lhs.shape, lhs.dtype), device.empty(rhs.shape, lhs.dtype)
    device.ops.box_iou_backward(*grads, out_grad, lhs, rhs, center, _KINDS.index(kind))
    return grads

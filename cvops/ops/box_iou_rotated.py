"""Pairwise intersection over union of rotated boxes."""

from __future__ import annotations

import math
from typing import Any, NamedTuple, TypeVar

import numpy as np

from cvops.ops import _check
from cvops.ops._op import DeviceOps, Op, Signature

Array = TypeVar("Array")
_OP = Op("box_iou_rotated", lhs="float32 (..., N, 5)", rhs="float32 (..., M, 5)")


class RotatedFormat(NamedTuple):
    """``RotatedFormat`` of the extension."""

    radians: bool
    clockwise: bool


def box_iou_rotated(
    lhs: Array,
    rhs: Array,
    angle: str = "degrees",
    clockwise: bool = False,
    *,
    backend: str | None = None,
) -> Array:
    """Return the intersection over union of each box of ``lhs`` with each box of ``rhs``.

    MXNet 1.9.1 has no such operator. The boxes are those of detectron2's
    ``pairwise_iou_rotated`` by default, and those of ``mmcv.ops.box_iou_rotated`` with
    ``angle="radians", clockwise=True``. The IoU is computed in float64 and rounded once: it has the
    same bits on every device.

    Args:
        lhs: boxes, float32 (..., 5) with at least two axes: x and y of the center, width, height,
            angle. The lengths have any unit.
        rhs: boxes, float32 (..., 5) with at least two axes, in the same units.
        angle: the unit of the angles, "degrees" or "radians". Angles may have any size in degrees,
            and up to 2**20 radians.
        clockwise: True if positive angles turn a box clockwise, False if counterclockwise, in an
            image whose y axis points down.
        backend: the implementation; by default the best for the arrays' device.

    Returns:
        float32 ``lhs.shape[:-1] + rhs.shape[:-1]``, in [0, 1]. The IoU is 0 for boxes that only
        touch. It is also 0 for a box without area: a width or a height is not positive, a number is
        not finite, or an angle is above 2**20 radians. Empty inputs give an empty result. There is
        no gradient: a PyTorch result does not require one.

    Raises:
        TypeError: an input is not a float32 array, or the inputs differ in library or device.
        ValueError: the last axis of an input is not 5; an input has one axis only; an input has
            2**31 boxes or more; ``angle`` is unknown; ``clockwise`` is not a flag.

    Example:
        >>> boxes = np.float32([[0, 0, 4, 2, 0], [0, 0, 4, 2, 90]])  # a turn by 90 degrees
        >>> cvops.box_iou_rotated(boxes, boxes[:1])
        array([[1.        ],
               [0.33333334]], dtype=float32)
    """
    signature = _OP.signature.get(backend, lhs=lhs, rhs=rhs)
    return signature.run((lhs, rhs), (rotated_format.get(angle, clockwise),))


@_check.memoized
def rotated_format(angle: Any, clockwise: Any) -> RotatedFormat:
    """Return the checked options of rotated boxes."""
    unit = _check.choice("angle", angle, ("degrees", "radians"))
    return RotatedFormat(unit == "radians", _check.flag("clockwise", clockwise))


@_OP.check
def _check_shapes(signature: Signature) -> None:
    for name, shape in signature.shapes.items():
        rows = math.prod(shape[:-1])
        if rows >= 2**31:
            raise ValueError(f"{name}: expected fewer than 2^31 boxes, got {rows}")


@_OP.implementation("numpy")
def _numpy(lhs: np.ndarray, rhs: np.ndarray, format: RotatedFormat) -> np.ndarray:
    out_shape = lhs.shape[:-1] + rhs.shape[:-1]
    rows, columns = _boxes(lhs.reshape(-1, 1, 5), format), _boxes(rhs.reshape(1, -1, 5), format)
    return _iou(rows, columns).reshape(out_shape)


class _Boxes(NamedTuple):
    """``RotatedBox`` of the kernels, as arrays of float64 of one shape."""

    x: np.ndarray
    y: np.ndarray
    width: np.ndarray
    height: np.ndarray
    cos: np.ndarray
    sin: np.ndarray

    def at(self, index: Any) -> _Boxes:
        """Return some of the boxes."""
        return _Boxes(*(numbers[index] for numbers in self))


def _boxes(numbers: np.ndarray, format: RotatedFormat) -> _Boxes:
    """Convert float32 (..., 5); a box without area becomes zeros."""
    exact = numbers.astype(np.float64)
    valid = np.isfinite(exact).all(axis=-1) & (exact[..., 2:4] > 0).all(axis=-1)
    if format.radians:
        valid &= abs(exact[..., 4]) <= 2**20
    x, y, width, height, angle = np.moveaxis(np.where(valid[..., None], exact, 0), -1, 0)
    cos, sin = _direction(angle, format.radians)
    return _Boxes(x, y, width, height, cos, sin if format.clockwise else -sin)


def _nearest_integer(x: np.ndarray) -> np.ndarray:
    return (x + 1.5 * 2.0**52) - 1.5 * 2.0**52


def _direction(angle: np.ndarray, radians: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return cosine and sine, from a reduction to a quadrant and Taylor series."""
    if radians:
        quadrant = _nearest_integer(angle * 0.6366197723675814)
        high, low = float.fromhex("0x1.921fb544p+0"), float.fromhex("0x1.0b4611a626331p-34")
        x = (angle - quadrant * high) - quadrant * low
    else:
        for turn in (360 * 2.0**80, 360 * 2.0**40, 360.0):
            angle = angle - turn * _nearest_integer(angle * (1 / turn))
        quadrant = _nearest_integer(angle * (1 / 90))
        x = (angle - 90 * quadrant) * 0.017453292519943295
    z = x * x
    sin, cos = np.full_like(x, -1 / math.factorial(15)), np.full_like(x, 1 / math.factorial(16))
    for n in (13, 11, 9, 7, 5, 3):
        sin = sin * z + (-1) ** (n // 2) / math.factorial(n)
    for n in (14, 12, 10, 8, 6, 4, 2):
        cos = cos * z + (-1) ** (n // 2) / math.factorial(n)
    sin, cos = x + x * (sin * z), 1 + cos * z
    turns = quadrant.astype(np.int64) % 4
    cos, sin = np.where(turns % 2, -sin, cos), np.where(turns % 2, cos, sin)
    return np.where(turns >= 2, -cos, cos), np.where(turns >= 2, -sin, sin)


def _iou(a: _Boxes, b: _Boxes) -> np.ndarray:
    """Return the float32 IoU of pairs of boxes."""
    overlap = _intersection(a, b)
    with np.errstate(all="ignore"):
        iou = overlap / (a.width * a.height + b.width * b.height - overlap)
    return np.where(overlap > 0, iou, 0).astype(np.float32)


def _intersection(a: _Boxes, b: _Boxes) -> np.ndarray:
    """Return the areas of intersections, in the frame of ``b``: see ``rotated_box.cuh``."""
    dx, dy = a.x - b.x, a.y - b.y
    x, y = dx * b.cos + dy * b.sin, dy * b.cos - dx * b.sin
    c, s = a.cos * b.cos + a.sin * b.sin, a.sin * b.cos - a.cos * b.sin
    w, h, width, height = 0.5 * b.width, 0.5 * b.height, 0.5 * a.width, 0.5 * a.height
    ux, uy, vx, vy = width * c, width * s, -(height * s), height * c
    own_x, own_y = dx * a.cos + dy * a.sin, dy * a.cos - dx * a.sin
    contact = 1 - 1e-12
    apart = abs(x) >= (w + abs(ux) + abs(vx)) * contact
    apart |= abs(y) >= (h + abs(uy) + abs(vy)) * contact
    apart |= abs(own_x) >= (width + w * abs(c) + h * abs(s)) * contact
    apart |= abs(own_y) >= (height + w * abs(s) + h * abs(c)) * contact
    with np.errstate(all="ignore"):
        slope_u, slope_v = np.where(s == 0, 0, c / s), np.where(c == 0, 0, -(s / c))
        corners = [
            (x - ux - vx, y - uy - vy),
            (x + ux - vx, y + uy - vy),
            (x + ux + vx, y + uy + vy),
            (x - ux + vx, y - uy + vy),
        ]
        total = (
            _clamped_integral(corners[0], corners[1], slope_u, w, h)
            + _clamped_integral(corners[2], corners[3], slope_u, w, h)
        ) + (
            _clamped_integral(corners[1], corners[2], slope_v, w, h)
            + _clamped_integral(corners[3], corners[0], slope_v, w, h)
        )
    most = np.minimum(a.width * a.height, b.width * b.height)
    return np.where(apart, 0, np.minimum(np.maximum(total, 0), most))


_Point = tuple[np.ndarray, np.ndarray]


def _clamped_integral(
    a: _Point, b: _Point, slope: np.ndarray, w: np.ndarray, h: np.ndarray
) -> np.ndarray:
    """Integrate the clamped x along an edge, over the clamped y."""
    low, high = (np.minimum(np.maximum(y, -h), h) for _, y in (a, b))
    begin, end = a[0] + (low - a[1]) * slope, b[0] + (high - b[1]) * slope
    start, stop = (np.minimum(np.maximum(x, -w), w) for x in (begin, end))
    beyond = np.maximum(abs(end), w) - np.maximum(abs(begin), w)
    difference = end - begin
    total = w * beyond + 0.5 * ((stop - start) * (stop + start))
    return np.where(difference == 0, start, total / difference) * (high - low)


@_OP.implementation("native")
def _native(
    device: DeviceOps, lhs: np.ndarray, rhs: np.ndarray, format: RotatedFormat
) -> np.ndarray:
    out = device.empty(lhs.shape[:-1] + rhs.shape[:-1], np.float32)
    device.ops.box_iou_rotated(out, lhs, rhs, format)
    return out

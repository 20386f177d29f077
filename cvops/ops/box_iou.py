"""Pairwise intersection over union."""

from __future__ import annotations

import math
from typing import TypeVar

import numpy as np

from cvops.ops import _check
from cvops.ops._op import DeviceOps, Op, Signature

Array = TypeVar("Array")
_OP = Op("box_iou", lhs="float32 (..., N, 4)", rhs="float32 (..., M, 4)")


def box_iou(lhs: Array, rhs: Array, format: str = "corner", *, backend: str | None = None) -> Array:
    """Return the intersection over union of each box of ``lhs`` with each box of ``rhs``.

    The result has the bits of ``mx.nd.contrib.box_iou`` of MXNet 1.9.1 on the CPU.

    Args:
        lhs: boxes, float32 (..., 4) with at least two axes, in any unit.
        rhs: boxes, float32 (..., 4) with at least two axes, in the same unit.
        format: "corner" for (x1, y1, x2, y2), "center" for (x, y, width, height).
        backend: the implementation; by default the best for the arrays' device.

    Returns:
        float32 ``lhs.shape[:-1] + rhs.shape[:-1]``. The IoU is 0 where boxes do not overlap, also
        for two equal boxes without area. The area of an inverted box is 0, so an IoU may exceed 1;
        there is no clipping. Empty inputs give an empty result. There is no gradient, and MXNet's
        is zero: a PyTorch result does not require one.

    Raises:
        TypeError: an input is not a float32 array, or the inputs differ in library or device.
        ValueError: the last axis of an input is not 4; an input has one axis only; an input has
            2**31 boxes or more; ``format`` is unknown.
    """
    inputs = _OP.inputs(backend, lhs=lhs, rhs=rhs)
    return inputs.run(_check.choice("format", format, ("corner", "center")) == "center")


@_OP.check
def _check_shapes(signature: Signature) -> None:
    for name, shape in signature.shapes.items():
        rows = math.prod(shape[:-1])
        if rows >= 2**31:
            raise ValueError(f"{name}: expected fewer than 2^31 boxes, got {rows}")


@_OP.implementation("numpy")
def _numpy(lhs: np.ndarray, rhs: np.ndarray, center: bool) -> np.ndarray:
    out_shape = lhs.shape[:-1] + rhs.shape[:-1]
    lhs, area_lhs = _sized(lhs.reshape(-1, 1, 4), center)
    rhs, area_rhs = _sized(rhs.reshape(1, -1, 4), center)
    overlap = _intersection(rhs, lhs) if center else _intersection(lhs, rhs)
    with np.errstate(all="ignore"):
        iou = overlap / (area_lhs + area_rhs - overlap)
    return np.where(overlap <= 0, np.float32(0), iou).reshape(out_shape)


def _sized(boxes: np.ndarray, center: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return corners and areas; the area of an inverted box is 0."""
    with np.errstate(all="ignore"):
        low, high = boxes[..., :2], boxes[..., 2:]
        size = high if center else high - low
        if center:
            boxes = np.concatenate([low - size / 2, low + size / 2], axis=-1)
        area = size[..., 0] * size[..., 1]
    return boxes, np.where((size < 0).any(axis=-1), np.float32(0), area)


def _intersection(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return areas of intersections. A comparison with NaN selects the side of ``b``."""
    with np.errstate(all="ignore"):
        low = np.where(a[..., :2] > b[..., :2], a[..., :2], b[..., :2])
        high = np.where(a[..., 2:] < b[..., 2:], a[..., 2:], b[..., 2:])
        size = np.where(high - low > 0, high - low, np.float32(0))
        return size[..., 0] * size[..., 1]


@_OP.implementation("native")
def _native(device: DeviceOps, lhs: np.ndarray, rhs: np.ndarray, center: bool) -> np.ndarray:
    out = device.empty(lhs.shape[:-1] + rhs.shape[:-1], np.float32)
    device.ops.box_iou(out, lhs, rhs, center)
    return out

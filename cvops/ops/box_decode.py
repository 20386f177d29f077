"""Boxes from predicted offsets and anchors."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeVar

import numpy as np

from cvops.ops import _check, _exp_log
from cvops.ops._op import DeviceOps, Op, Signature

Array = TypeVar("Array")
_OP = Op("box_decode", data="float (B, N, 4)", anchors="float (1, N, 4)")


class _Options(NamedTuple):
    """``BoxDecode`` of the extension."""

    std_x: float
    std_y: float
    std_w: float
    std_h: float
    clip: float
    #: True if the anchors are corners.
    corner: bool


def box_decode(
    data: Array,
    anchors: Array,
    std0: float = 1,
    std1: float = 1,
    std2: float = 1,
    std3: float = 1,
    clip: float = -1,
    format: str = "center",
    *,
    backend: str | None = None,
) -> Array:
    """Return the boxes that offsets describe relative to anchors.

    The op is ``mx.nd.contrib.box_decode`` of MXNet 1.9.1 on the CPU, bit for bit except for
    coordinates that depend on exp. Their exp is within one unit in the last place of MXNet's. The
    result is the same on every device.

    For an anchor with the center (ax, ay) and the size (aw, ah), offsets (dx, dy, dw, dh) describe
    the box with the center (dx std0 aw + ax, dy std1 ah + ay) and the size
    (exp(dw std2) aw, exp(dh std3) ah).

    ``float`` below is one dtype for all arrays: float32, float64 or half (float16 or bfloat16,
    which are computed in float32 and rounded once). Options are float32.

    Args:
        data: offsets, float (B, N, 4).
        anchors: float (1, N, 4), in any unit.
        std0: the factor of dx.
        std1: the factor of dy.
        std2: the factor of dw.
        std3: the factor of dh.
        clip: if positive, the upper bound of dw std2 and dh std3; NaN becomes the bound.
        format: the format of the anchors: "center" for (x, y, width, height), "corner" for
            (x1, y1, x2, y2).
        backend: the implementation; by default the best for the arrays' device.

    Returns:
        float (B, N, 4), corners (x1, y1, x2, y2) in the anchors' unit, for both formats. Empty
        inputs give an empty result. There is no gradient, and MXNet's is zero: a PyTorch result
        does not require one.

    Raises:
        TypeError: an input is not a float array; the inputs differ in library or device; a factor
            or ``clip`` is not a number.
        ValueError: the shapes do not agree; a factor or ``clip`` is NaN; ``format`` is unknown;
            there are 2**31 anchors or images or more.

    Example:
        >>> offsets, anchors = np.float32([[[1, 0, 0, 0]]]), np.float32([[[0, 0, 2, 2]]])
        >>> cvops.box_decode(offsets, anchors, 0.5, 0.5, 0.5, 0.5, format="corner")
        array([[[1., 0., 3., 2.]]], dtype=float32)
    """
    signature = _OP.signature.get(backend, data=data, anchors=anchors)
    return signature.run((data, anchors), (_options.get(std0, std1, std2, std3, clip, format),))


@_check.memoized
def _options(std0: Any, std1: Any, std2: Any, std3: Any, clip: Any, format: Any) -> _Options:
    return _Options(
        _check.single("std0", std0),
        _check.single("std1", std1),
        _check.single("std2", std2),
        _check.single("std3", std3),
        _check.single("clip", clip),
        _check.choice("format", format, ("corner", "center")) == "corner",
    )


@_OP.check
def _check_shapes(signature: Signature) -> None:
    shape = signature.shapes["data"]
    _check.sizes_fit("data", shape, *shape)


@_OP.implementation("numpy")
def _numpy(data: np.ndarray, anchors: np.ndarray, options: _Options) -> np.ndarray:
    std, clip = np.array(options[:4], data.dtype), data.dtype.type(options.clip)
    center, size = anchors[..., :2], anchors[..., 2:]
    with np.errstate(all="ignore"):
        if options.corner:
            size = size - center
            center = center + size * np.float32(0.5)
        center = data[..., :2] * std[:2] * size + center
        scale = data[..., 2:] * std[2:]
        if clip > 0:
            scale = np.where(scale < clip, scale, clip)
        half = _exp_log.exp(scale) * size * np.float32(0.5)
        return np.concatenate([center - half, center + half], axis=-1)


@_OP.implementation("native")
def _native(
    device: DeviceOps, data: np.ndarray, anchors: np.ndarray, options: _Options
) -> np.ndarray:
    out = device.empty(data.shape, data.dtype)
    device.ops.box_decode(out, data, anchors, options)
    return out

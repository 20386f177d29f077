"""Masks of boxes, resized to their boxes in an image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np

from cvops.ops import _check
from cvops.ops._op import DeviceOps, Op, Signature

Array = TypeVar("Array")
_OP = Op("paste_masks", masks="float32 (n, h, w)", boxes="float32 (n, 4)")


def paste_masks(
    masks: Array,
    boxes: Array,
    shape: Sequence[int],
    threshold: float = 0.5,
    *,
    backend: str | None = None,
) -> Array:
    """Resize the mask of each box to the box, and paste it into an image.

    MXNet 1.9.1 has no such operator. In a box the rule is that of detectron2, ``grid_sample`` of
    PyTorch with ``align_corners=False``: the center (x, y) of a pixel is at column (x - x1) / (x2 -
    x1) * w - 1/2 and row (y - y1) / (y2 - y1) * h - 1/2 of the mask. A pixel is 1 if the bilinear
    interpolation there is at least ``threshold``. Cells outside of the mask count as 0, so that a
    score falls to half of it at an edge of the box. torchvision rounds the box to pixels before.

    A pixel is in the box if x1 <= x < x2 and y1 <= y < y2 for its center. The other pixels are 0,
    whatever the threshold is; detectron2 also interpolates up to half a cell outside of a box.

    Args:
        masks: scores, float32 (n, h, w), such as probabilities.
        boxes: float32 (n, 4), corners (x1, y1, x2, y2) in pixels: the first pixel is from 0 to 1.
        shape: height H and width W of the image.
        threshold: the score from which on a pixel is 1.
        backend: the implementation; by default the best for the arrays' device.

    Returns:
        uint8 (n, H, W), 1 for the pixels of the masks and 0 for all others. A box without a
        positive width and height, outside of the image, or with a NaN or infinite corner has zeros.
        So has a mask without cells, and a pixel with a NaN interpolation. There is no gradient:
        a PyTorch result does not require one, and MXNet's is zero.

    Raises:
        TypeError: an input is not a float32 array; the inputs differ in library or device;
            ``shape`` has a number that is not an integer; ``threshold`` is not a number.
        ValueError: the shapes do not agree; an axis is 2**31 or more; ``shape`` is not a pair of
            numbers that are 0 or more; ``threshold`` is NaN.

    Example:
        >>> cvops.paste_masks(np.ones((1, 2, 2), np.float32), np.float32([[1, 0, 3, 2]]), (2, 4))
        array([[[0, 1, 1, 0],
                [0, 1, 1, 0]]], dtype=uint8)
    """
    signature = _OP.signature.get(backend, masks=masks, boxes=boxes)
    return signature.run((masks, boxes), _options.get(shape, threshold))


@_check.memoized
def _options(shape: Any, threshold: Any) -> tuple[tuple[int, ...], float]:
    size = _check.integers("shape", shape, "a pair (height, width)", low=0)
    return size, _check.single("threshold", threshold)


@_OP.check
def _check_shapes(signature: Signature) -> None:
    _check.sizes_fit("masks", signature.shapes["masks"], *signature.shapes["masks"])


@_OP.implementation("numpy")
def _numpy(
    masks: np.ndarray, boxes: np.ndarray, size: tuple[int, int], threshold: float
) -> np.ndarray:
    out = np.zeros((len(masks), *size), np.uint8)
    if out.size == 0 or masks.size == 0:
        return out
    for number, (x1, y1, x2, y2) in enumerate(boxes):
        with np.errstate(all="ignore"):
            sides = np.array([x2 - x1, y2 - y1], np.float32)
            if not ((sides > 0) & np.isfinite(sides)).all():
                continue
            columns, *x = _samples(x1, x2, size[1], masks.shape[2])
            rows, *y = _samples(y1, y2, size[0], masks.shape[1])
            padded = np.pad(masks[number], 1)
            low, low_weight, high_weight = y
            lines = low_weight[:, None] * padded[low] + high_weight[:, None] * padded[low + 1]
            low, low_weight, high_weight = x
            values = low_weight * lines[:, low] + high_weight * lines[:, low + 1]
            out[number, rows[:, None], columns] = values >= np.float32(threshold)
    return out


def _samples(first: np.float32, last: np.float32, size: int, cells: int) -> tuple[np.ndarray, ...]:
    """Return the pixels of an axis in a box; their low cells in a padded mask; both weights."""
    centers = np.arange(size, dtype=np.float32) + np.float32(0.5)
    pixels = np.flatnonzero((centers >= first) & (centers < last))
    part = (centers[pixels] - first) / (last - first)
    at = part * np.float32(cells) - np.float32(0.5)
    low = np.floor(at).astype(np.int64).clip(-1, cells - 1)
    high_weight = at - low.astype(np.float32)
    return pixels, low + 1, np.float32(1) - high_weight, high_weight


@_OP.implementation("native")
def _native(
    device: DeviceOps,
    masks: np.ndarray,
    boxes: np.ndarray,
    size: tuple[int, int],
    threshold: float,
) -> np.ndarray:
    num, height, width = masks.shape
    out = device.empty((num, *size), np.uint8)
    if num * size[0] * size[1] > 0:  # without results another size may be more than an int holds
        device.ops.paste_masks(out, masks, boxes, (num, height, width, *size), threshold)
    return out

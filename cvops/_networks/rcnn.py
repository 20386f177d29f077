"""Constants of the R-CNN family, the checks of its arguments, and predictions in one image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Callable, NamedTuple

import numpy as np

from cvops._networks import MAX_SIDE, class_names
from cvops.ops._check import choice, flag, integer, numbers

#: Standard deviations of the offsets of all boxes: x, y, width, height.
STDS = (0.1, 0.1, 0.2, 0.2)

#: Maximum logarithm of the ratio of a box and its anchor.
CLIP = math.log(1000 / 16)

#: Cells of the pooled features for boxes and for masks. A mask has twice as many.
BOX_CELLS, MASK_CELLS = (7, 7), (14, 14)

#: Channels of the head for masks.
MASK_CHANNELS = 48

#: Minimum side of a proposal in pixels of a training image.
MIN_SIDE = 4

#: Proposals before and after non-maximum suppression, and its IoU.
PRE_NMS, POST_NMS, PROPOSAL_IOU = 300, 60, 0.7

#: Sides of an object in cells, from which on the next coarser map of a pyramid is used.
PYRAMID_CELLS = 14

#: Samples of RoIAlign in each cell, along x and along y.
SAMPLE_RATIO = 2


def arguments(
    classes: Any, side: Any, mask: Any, roi: Any, backbone: str, fpn: Any, hidden: Any
) -> tuple[tuple[str, ...], int, dict[str, Any]]:
    """Return the arguments of a network after a check: classes, side, the others by name.

    The backbone checks ``backbone``.
    """
    names, side = class_names(classes), integer("side", side, 64, MAX_SIDE)
    options = {
        "mask": flag("mask", mask),
        "roi": choice("roi", roi, ("align", "pooling")),
        "backbone": backbone,
        "fpn": flag("fpn", fpn),
        "hidden": integer("hidden", hidden, 1),
    }
    return names, side, options


def anchor_sizes(sizes: Sequence[float] | None, maps: int) -> list[tuple[float, ...]]:
    """Return the sizes of the anchors of each map. A pyramid has more than one map."""
    if sizes is None:
        sizes = (0.1, 0.2, 0.4, 0.8) if maps == 4 else (0.2, 0.32, 0.5)
    sizes = numbers("sizes", sizes)
    if maps == 1:
        return [sizes]
    if len(sizes) != maps:
        raise ValueError(f"sizes: expected {maps}, one for each map, got {sizes}")
    return [(size,) for size in sizes]


class Prediction(NamedTuple):
    """Detections in one image."""

    #: float32 (n, 6), rows (class, score, x1, y1, x2, y2), corners in pixels of the image.
    rows: np.ndarray
    #: uint8 (n, height, width) of 0 and 1; None if the network has no masks.
    masks: np.ndarray | None


def predict(
    net: Any,
    image: Any,
    threshold: float,
    proposals: Any,
    proposes: bool,
    detect: Callable[..., Sequence[np.ndarray]],
) -> Prediction:
    """Return the detections of ``net``, a network of any framework, in one image.

    Args:
        image, threshold, proposals: as for ``cvops.models.rcnn.predict``.
        proposes: ``net`` has a region proposal network, and accepts no proposals.
        detect: a function from arrays, float32 images (1, 3, side, side) and proposals (1, n, 4) if
            they are given, to the detections (1, most, 6) and the masks (1, most, h, w) if there
            are any.

    Raises:
        ValueError: as for ``cvops.models.rcnn.predict``.
    """
    from cvops._pillow import Image
    from cvops.images import as_numpy
    from cvops.ops.paste_masks import paste_masks

    pixels = as_numpy(image)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        raise ValueError(
            f"image: expected uint8 (height, width, 3), got {pixels.dtype} {pixels.shape}"
        )
    if (proposals is None) != proposes:
        want = "no proposals" if proposes else "proposals (n, 4)"
        raise ValueError(f"proposals: expected {want} for a {type(net).__name__}")
    height, width = pixels.shape[:2]
    square = np.asarray(Image.fromarray(pixels).resize((net.side, net.side)))
    inputs = [square.transpose(2, 0, 1)[None].astype(np.float32)]
    if proposals is not None:
        boxes = np.asarray(proposals, np.float32).reshape(-1, 4) / ((width, height) * 2)
        if not len(boxes):  # MXNet's layers reject arrays without elements
            boxes = np.full((1, 4), -1, np.float32)
        inputs.append(boxes[None].astype(np.float32))
    rows, *scores = (x[0] for x in detect(*inputs))
    kept = (rows[:, 0] >= 0) & (rows[:, 1] >= threshold)
    rows = rows[kept]
    rows[:, 2:] *= (width, height) * 2
    if not net.mask:
        return Prediction(rows, None)
    boxes = np.ascontiguousarray(rows[:, 2:])
    return Prediction(rows, paste_masks(scores[0][kept], boxes, (height, width)))

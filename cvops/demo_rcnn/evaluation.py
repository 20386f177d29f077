"""Detections, their metrics and their drawing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from cvops import metrics, plot
from cvops._mxnet import mxnet
from cvops.demo_rcnn.proposals import valid
from cvops.models import plain_rcnn
from cvops.models.rcnn import FastRCNN, RCNNDetector
from cvops.ops.paste_masks import paste_masks

mx = mxnet()


class Found(NamedTuple):
    """Detections of one image in fractions of the image."""

    rows: np.ndarray  #: (n, 6)
    masks: np.ndarray | None  #: uint8 (n, side, side)
    proposals: np.ndarray  #: (m, 4)


def find(net: FastRCNN, dataset: Any, proposals: np.ndarray | None = None) -> list[Found]:
    """Return the detections of ``net`` in each item of ``dataset``."""
    detector = RCNNDetector(net)
    detector.hybridize(static_alloc=True)
    result = []
    for number in range(len(dataset)):
        pixels, _, _ = dataset[number]
        inputs = [mx.nd.array(pixels[None])]
        if proposals is not None:
            inputs.append(mx.nd.array(proposals[number][None]))
            boxes = proposals[number]
        else:
            boxes = net.proposals(inputs[0])[0].asnumpy()
        out = detector(*inputs)
        rows = (out[0] if net.mask else out)[0].asnumpy()
        kept = rows[:, 0] >= 0
        masks = None
        if net.mask:
            corners = np.ascontiguousarray(rows[kept, 2:] * net.side)
            masks = paste_masks(out[1][0].asnumpy()[kept], corners, (net.side, net.side))
        result.append(Found(rows[kept], masks, valid(boxes)))
    return result


def find_plain(net: plain_rcnn.RCNN, dataset: Any, proposals: np.ndarray) -> list[Found]:
    """Return the detections of an R-CNN in each image of ``dataset``."""
    result = []
    for number, found in enumerate(proposals):
        image, _, _ = dataset.scene(number)
        size = image.shape[1::-1] * 2
        boxes = valid(found)
        rows = net.predict(image, boxes * size, 0.02)
        rows[:, 2:] /= size
        result.append(Found(rows, None, boxes))
    return result


def report(found: Sequence[Found], dataset: Any) -> tuple[str, float]:
    """Return a table of the average precisions and recalls, and the mean AP of boxes at 0.5."""
    labels, masks = zip(*(dataset[i][1:] for i in range(len(found))))
    rows = [one.rows for one in found]
    num = len(dataset.classes)
    lines = [f"{'':16}{'AP50':>6}{'AP75':>6}"]
    values = [metrics.average_precision(rows, labels, num, iou) for iou in (0.5, 0.75)]
    for kind, name in enumerate(dataset.classes):
        lines.append(f"boxes, {name:9}" + "".join(f"{value[kind]:6.2f}" for value in values))
    if found[0].masks is not None:
        shapes = [one.masks for one in found]
        of_masks = [
            metrics.mask_average_precision(rows, shapes, labels, masks, num, iou)
            for iou in (0.5, 0.75)
        ]
        for kind, name in enumerate(dataset.classes):
            lines.append(f"masks, {name:9}" + "".join(f"{value[kind]:6.2f}" for value in of_masks))
    proposals = [one.proposals for one in found]
    count = np.mean([len(boxes) for boxes in proposals])
    recalls = [metrics.proposal_recall(proposals, labels, iou) for iou in (0.5, 0.7)]
    lines.append(
        f"recall of {count:.0f} proposals per image: "
        + ", ".join(f"{value:.2f} at IoU {iou}" for value, iou in zip(recalls, (0.5, 0.7)))
    )
    return "\n".join(lines), float(np.nanmean(values[0]))


def picture(found: Sequence[Found], dataset: Any, count: int = 8, threshold: float = 0.5) -> Any:
    """Draw the detections in the first ``count`` images, with their masks."""
    from cvops._pillow import Image

    tiles = []
    for number, one in zip(range(count), found):
        pixels = np.ascontiguousarray(dataset[number][0].transpose(1, 2, 0).astype(np.uint8))
        kept = one.rows[:, 1] >= threshold
        rows = one.rows[kept]
        rows[:, 2:] *= dataset.side
        masks = None if one.masks is None else one.masks[kept]
        image = Image.fromarray(pixels)
        tiles.append(plot.draw_detections(image, rows, dataset.classes, 3, masks))
    return plot.grid(tiles, columns=4)

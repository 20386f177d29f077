"""Average precision, recall of proposals, and confusion of the classes of detections."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from cvops.arrays import as_rows
from cvops.metrics._coco import coco_precision
from cvops.metrics._rows import (
    Options,
    Shapes,
    check_boxes,
    check_lengths,
    checked_rows,
    encoded,
    is_box,
    masks_of,
    options_of,
    overlaps_of,
    rows_of,
    sequence_of,
    sized,
)
from cvops.ops._check import number


def average_precision(
    detections: Sequence[Any],
    labels: Sequence[Any],
    num_classes: int,
    iou: float = 0.5,
    method: str = "coco",
) -> np.ndarray:
    """Return the average precision of each class.

    The precision at a recall is the maximum at that recall or a larger one. Methods:

    - "coco": mean precision at the 101 recalls 0, 0.01, ..., 1, from pycocotools, or from
      faster-coco-eval if it is installed. A detection matches the free box with the largest IoU.
      The 100 best detections per class and image count.
    - "area": area under the precision-recall curve, as in VOC from 2010 on.
    - "11-point": mean precision at the 11 recalls 0, 0.1, ..., 1, as in VOC until 2009.

    In both VOC methods a detection matches the box with the largest IoU. It is wrong if a better
    detection already matches this box. The first one of equal scores is better, by image, then
    by row.

    Args:
        detections: for each image an array of numbers (n, 6), rows (class, score, x1, y1, x2, y2).
            Rows of a class below 0 are not detections. A box that is NaN, infinite or inverted
            matches no object.
        labels: for each image an array of numbers (m, 5), rows (class, x1, y1, x2, y2), or (m, 6)
            with VOC's flag "difficult", 0 or 1. A seventh column, VOC's flag "truncated", has no
            effect. Rows of a class below 0 are padding. Difficult objects need no detection. A
            detection is ignored if its box with the largest IoU, of ``iou`` or more, is difficult.
        num_classes: classes are 0 to ``num_classes`` - 1.
        iou: minimum IoU, in (0, 1], of a right detection with a box of its class. No better
            detection may match this box.
        method: "coco", "area" or "11-point".

    The arrays can be of any library, on any device, or lists. An image without rows can be an empty
    list.

    Returns:
        float64 (num_classes,), in [0, 1]; NaN for a class without labels. Their mean is
        ``np.nanmean``.

    Raises:
        TypeError: an argument is not of the type above.
        ValueError: an argument is out of range; a class is not an integer below ``num_classes``; a
            score is NaN; a label's box is not finite or is inverted; ``detections`` and ``labels``
            differ in length. The message names the image and row.
    """
    options = options_of(num_classes, iou, method)
    found, truths = checked_rows(detections, labels, options.num_classes)
    for image, (rows, objects) in enumerate(zip(found, truths)):
        check_boxes(image, objects)
        rows[~is_box(rows[:, 2:6]), 2:6] = 0  # the IoU of an empty box is 0
    pairs = [
        (Shapes(rows, sized(rows[:, 2:6])), Shapes(objects, sized(objects[:, 1:5])))
        for rows, objects in zip(found, truths)
    ]
    return _average_precision(pairs, options)


def mask_average_precision(
    detections: Sequence[Any],
    detected_masks: Sequence[Any],
    labels: Sequence[Any],
    masks: Sequence[Any],
    num_classes: int,
    iou: float = 0.5,
    method: str = "coco",
) -> np.ndarray:
    """Return the average precision of each class, with the IoU of masks.

    It is :func:`average_precision` with another IoU: the number of pixels of both masks, divided by
    the number of pixels of one or both. The boxes of the rows have no effect. Objects whose mask is
    empty are difficult: VOC has objects without a mask.

    Args:
        detections, labels: as in :func:`average_precision`.
        detected_masks: for each image the masks (n, height, width) of its detections. Pixels that
            are not 0 belong to the mask.
        masks: for each image the masks (m, height, width) of its labels, of the same size.
        num_classes, iou, method: as in :func:`average_precision`.

    Raises:
        TypeError, ValueError: as in :func:`average_precision`; and masks that are not arrays of
            numbers, of another number than their rows, or of another size in one image.
    """
    options = options_of(num_classes, iou, method)
    found, truths = checked_rows(detections, labels, options.num_classes)
    shapes = masks_of("detected_masks", detected_masks, found), masks_of("masks", masks, truths)
    pairs = []
    for image, (rows, objects, *pair) in enumerate(zip(found, truths, *shapes)):
        sizes = [x.shape[1:] for x in pair if len(x)]
        if len(set(sizes)) > 1:
            raise ValueError(
                f"masks[{image}]: expected the size of detected_masks, {sizes[0]}, got {sizes[1]}"
            )
        empty = ~pair[1].any(axis=(1, 2))
        flags = objects[:, 5] if objects.shape[1] > 5 else np.zeros(len(objects))
        objects = np.column_stack([objects[:, :5], np.maximum(flags, empty)])
        pairs.append((Shapes(rows, encoded(pair[0])), Shapes(objects, encoded(pair[1]))))
    return _average_precision(pairs, options)


def _average_precision(pairs: Sequence[tuple[Shapes, Shapes]], options: Options) -> np.ndarray:
    pairs = [
        _without_difficult(
            found.only(found.rows[:, 0] >= 0), truths.only(truths.rows[:, 0] >= 0), options.iou
        )
        for found, truths in pairs
    ]
    num_classes, iou, method = options
    if method == "coco":
        return coco_precision(pairs, num_classes, iou)
    return np.array([_voc(pairs, kind, iou, method) for kind in range(num_classes)])


def _without_difficult(detections: Shapes, labels: Shapes, iou: float) -> tuple[Shapes, Shapes]:
    """Return the detections and labels of an image that are not ignored."""
    if labels.rows.shape[1] == 5:
        return detections, labels
    difficult = labels.rows[:, 5] > 0
    counts = np.ones(len(detections.rows), bool)
    for kind in np.unique(labels.rows[difficult, 0]):
        mine = np.flatnonzero(detections.rows[:, 0] == kind)
        theirs = labels.rows[:, 0] == kind
        overlaps = overlaps_of(detections.only(mine).shapes, labels.only(theirs).shapes)
        found = (overlaps >= iou).any(axis=1)
        counts[mine[found & difficult[theirs][overlaps.argmax(axis=1)]]] = False
    return detections.only(counts), labels.only(~difficult)


def _voc(pairs: Sequence[tuple[Shapes, Shapes]], kind: int, iou: float, method: str) -> float:
    """Return VOC's average precision of one class."""
    scores: list[float] = []
    hits: list[bool] = []
    total = 0
    for detections, labels in pairs:
        truths = labels.only(labels.rows[:, 0] == kind)
        found = detections.only(detections.rows[:, 0] == kind)
        found = found.only(np.argsort(-found.rows[:, 1], kind="stable"))
        total += len(truths.rows)
        free = np.ones(len(truths.rows), bool)
        for score, overlaps in zip(found.rows[:, 1], overlaps_of(found.shapes, truths.shapes)):
            hit = bool((overlaps >= iou).any()) and bool(free[overlaps.argmax()])
            if hit:
                free[overlaps.argmax()] = False
            scores.append(score)
            hits.append(hit)
    if not total:
        return math.nan
    right = np.array(hits, bool)[np.argsort(-np.array(scores), kind="stable")]
    count = right.cumsum()
    precision = count / np.arange(1, len(right) + 1)
    best = np.maximum.accumulate(precision[::-1])[::-1]  # at this recall or a larger one
    if method == "area":
        return float(best[right].sum() / total)
    # Integer arithmetic: a recall of 3 / 10 reaches 0.3 exactly.
    reached = [best[10 * count >= tenth * total] for tenth in range(11)]
    return float(np.mean([at[0] if len(at) else 0.0 for at in reached]))


def proposal_recall(proposals: Sequence[Any], labels: Sequence[Any], iou: float = 0.5) -> float:
    """Return the fraction of the objects that a proposal finds: the IoU of their boxes is enough.

    Args:
        proposals: for each image an array of numbers (n, 4), rows (x1, y1, x2, y2). A box that is
            NaN, infinite or inverted finds no object.
        labels: for each image an array of numbers, rows (class, x1, y1, x2, y2), as in
            :func:`average_precision`. Difficult objects do not count.
        iou: minimum IoU, in (0, 1].

    Returns:
        A number in [0, 1]; NaN without objects.

    Raises:
        TypeError: an argument is not of the type above.
        ValueError: an argument is out of range, or the two sequences differ in length.
    """
    iou = options_of(1, iou, "coco").iou
    found = [
        np.array(as_rows(f"proposals[{image}]", rows, 4), np.float64)
        for image, rows in enumerate(sequence_of("proposals", proposals))
    ]
    truths = rows_of("labels", labels, (5, 6, 7), 2**31)
    check_lengths("proposals", found, "labels", truths)
    total = hits = 0
    for image, (boxes, objects) in enumerate(zip(found, truths)):
        check_boxes(image, objects)
        counts = objects[:, 0] >= 0
        if objects.shape[1] > 5:
            counts &= objects[:, 5] == 0
        boxes = boxes[is_box(boxes)]
        overlaps = overlaps_of(sized(boxes), sized(objects[counts, 1:5]))
        total += int(counts.sum())
        hits += int((overlaps >= iou).any(axis=0).sum())
    return hits / total if total else math.nan


def detection_confusion(
    detections: Sequence[Any],
    labels: Sequence[Any],
    num_classes: int,
    iou: float = 0.5,
    score: float = 0.5,
) -> np.ndarray:
    """Count which classes are detected as which.

    The detections of an image have their turn by score, the best first. Each one takes the free
    object with the largest IoU, whatever its class, if that is ``iou`` or more. A detection whose
    object is difficult is not counted, nor is a difficult object that is not found.

    Args:
        detections, labels: as in :func:`average_precision`.
        num_classes: as in :func:`average_precision`.
        iou: minimum IoU, in (0, 1].
        score: minimum score of a detection that counts.

    Returns:
        int64 (num_classes + 1, num_classes + 1), one row per true class, one column per detected
        class. The last row has the detections without an object, the last column the objects that
        are not found.

    Raises:
        TypeError, ValueError: as in :func:`average_precision`.
    """
    options = options_of(num_classes, iou, "coco")
    score = number("score", score)
    found, truths = checked_rows(detections, labels, options.num_classes)
    matrix = np.zeros((num_classes + 1, num_classes + 1), np.int64)
    for image, (rows, objects) in enumerate(zip(found, truths)):
        check_boxes(image, objects)
        rows = rows[(rows[:, 0] >= 0) & (rows[:, 1] >= score) & is_box(rows[:, 2:6])]
        rows = rows[np.argsort(-rows[:, 1], kind="stable")]
        objects = objects[objects[:, 0] >= 0]
        flags = objects[:, 5] > 0 if objects.shape[1] > 5 else np.zeros(len(objects), bool)
        overlaps = overlaps_of(sized(rows[:, 2:6]), sized(objects[:, 1:5]))
        free = np.ones(len(objects), bool)
        for row, own in zip(rows, overlaps):
            own = np.where(free, own, -1)
            best = int(own.argmax()) if len(own) else -1
            if best < 0 or own[best] < options.iou:
                matrix[num_classes, int(row[0])] += 1
                continue
            free[best] = flags[best]  # several detections can be on one difficult object
            if not flags[best]:
                matrix[int(objects[best, 0]), int(row[0])] += 1
        for kind in objects[free & ~flags, 0]:
            matrix[int(kind), num_classes] += 1
    return matrix

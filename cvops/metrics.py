"""How good detections and segmentations are.

Boxes are (x1, y1, x2, y2), corners, in one unit throughout.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from cvops._arrays import library_of


def average_precision(
    detections: Sequence[np.ndarray],
    labels: Sequence[np.ndarray],
    num_classes: int,
    iou: float = 0.5,
) -> np.ndarray:
    """Average precision of each class by the COCO protocol, computed by pycocotools.

    The mean of the precision at 101 recalls; of each image the 100 best detections
    of a class count.

    Args:
        detections: of each image (n, 6), rows (class, score, x1, y1, x2, y2). Rows of
            a class under 0 are not detections.
        labels: of each image (m, 5), rows (class, x1, y1, x2, y2). Rows of a class
            under 0 fill up.
        num_classes: classes are 0 to ``num_classes`` - 1.
        iou: a detection is right if it overlaps a box of its class, not yet taken by
            a better one, by this much or more.

    Returns:
        float64 (num_classes,), in [0, 1]; nan for a class without labels. Their mean
        is ``np.nanmean``.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    if len(detections) != len(labels):
        raise ValueError(f"{len(detections)} images with detections, {len(labels)} with labels")

    def entry(image: int, kind: float, box: np.ndarray) -> dict:
        x, y, right, bottom = map(float, box)
        place = {"bbox": [x, y, right - x, bottom - y], "area": (right - x) * (bottom - y)}
        return {"image_id": image, "category_id": int(kind), "iscrowd": 0, **place}

    truths = [entry(i, r[0], r[1:5]) for i, rows in enumerate(labels) for r in rows if r[0] >= 0]
    found = [
        {**entry(i, row[0], row[2:6]), "score": float(row[1])}
        for i, rows in enumerate(detections)
        for row in rows
        if row[0] >= 0
    ]
    for rows in (truths, found):
        for number, row in enumerate(rows, 1):
            row["id"] = number  # from 1: to pycocotools an id of 0 is "not matched"

    frame = {
        "images": [{"id": i} for i in range(len(labels))],
        "categories": [{"id": kind} for kind in range(num_classes)],
    }
    truth, result = COCO(), COCO()
    with contextlib.redirect_stdout(io.StringIO()):
        for coco, rows in ((truth, truths), (result, found)):
            coco.dataset = {**frame, "annotations": rows}
            coco.createIndex()
        run = COCOeval(truth, result, "bbox")
        run.params.iouThrs = np.array([iou])
        run.evaluate()
        run.accumulate()
    # By (threshold, recall, class, range of areas: the first is all, number of detections).
    precision = run.eval["precision"][0, :, :, 0, -1]
    return np.where((precision > -1).any(axis=0), precision.mean(axis=0), np.nan)


def pixel_accuracy(matrix: Any) -> float:
    """The fraction of the pixels whose class is right.

    Args:
        matrix: of :func:`cvops.confusion_matrix`, or a sum of them: an array on the CPU, (classes,
            classes) with a row for each true class.

    Returns:
        In [0, 1]; nan where there are no pixels.

    Raises:
        ValueError: ``matrix`` is not square.
    """
    counts = _counts(matrix)
    return float(_ratio(counts.trace(), counts.sum()))


def mean_iou(matrix: Any) -> float:
    """The mean over the classes of intersection over union: of the pixels that are of a class or
    were predicted to be, the fraction that is both.

    Args:
        matrix: as in :func:`pixel_accuracy`.

    Returns:
        In [0, 1]. A class that is neither in the labels nor predicted is left out; nan where all
        are.

    Raises:
        ValueError: ``matrix`` is not square.
    """
    counts = _counts(matrix)
    both = counts.diagonal()
    iou = _ratio(both, counts.sum(axis=0) + counts.sum(axis=1) - both)
    return float(_ratio(np.nansum(iou), np.count_nonzero(~np.isnan(iou))))


def _counts(matrix: Any) -> np.ndarray:
    library = library_of(matrix)
    counts = np.asarray(matrix if library is None else library.to_numpy(matrix))
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1]:
        raise ValueError(f"matrix: expected shape (classes, classes), got {counts.shape}")
    return counts


def _ratio(a: Any, b: Any) -> Any:
    """nan where ``b`` is 0."""
    with np.errstate(all="ignore"):
        return np.true_divide(a, b)


@dataclasses.dataclass
class AnchorErrors:
    """Class error and box error over the anchors of the batches added so far."""

    anchors: int = 0
    right: float = 0.0
    offset_error: float = 0.0

    def add(self, anchors: int, right: float, offset_error: float) -> None:
        """A batch's number of anchors, those with their class right, and the sum of the
        absolute errors of their offsets, four to an anchor and 0 where masked."""
        self.anchors += anchors
        self.right += right
        self.offset_error += offset_error

    @property
    def class_error(self) -> float:
        """Fraction of the anchors whose class is wrong."""
        return 1 - self.right / self.anchors

    @property
    def box_mae(self) -> float:
        """Mean absolute error of the offsets, masked ones included."""
        return self.offset_error / (4 * self.anchors)

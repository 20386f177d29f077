"""Metrics of detections and segmentations.

Boxes are (x1, y1, x2, y2), corners, all in the same unit.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import io
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from cvops.arrays import as_numbers, as_rows
from cvops.ops._check import choice, integer, number


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
    options = _options(num_classes, iou, method)
    found, truths = _checked_rows(detections, labels, options.num_classes)
    for image, (rows, objects) in enumerate(zip(found, truths)):
        _check_boxes(image, objects)
        rows[~_is_box(rows[:, 2:6]), 2:6] = 0  # the IoU of an empty box is 0
    pairs = [
        (_Shapes(rows, _sized(rows[:, 2:6])), _Shapes(objects, _sized(objects[:, 1:5])))
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
    options = _options(num_classes, iou, method)
    found, truths = _checked_rows(detections, labels, options.num_classes)
    shapes = _masks("detected_masks", detected_masks, found), _masks("masks", masks, truths)
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
        pairs.append((_Shapes(rows, _encoded(pair[0])), _Shapes(objects, _encoded(pair[1]))))
    return _average_precision(pairs, options)


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
    iou = _options(1, iou, "coco").iou
    found = [
        np.array(as_rows(f"proposals[{image}]", rows, 4), np.float64)
        for image, rows in enumerate(_sequence("proposals", proposals))
    ]
    truths = _images("labels", labels, (5, 6, 7), 2**31)
    _check_lengths("proposals", found, "labels", truths)
    total = hits = 0
    for image, (boxes, objects) in enumerate(zip(found, truths)):
        _check_boxes(image, objects)
        counts = objects[:, 0] >= 0
        if objects.shape[1] > 5:
            counts &= objects[:, 5] == 0
        boxes = boxes[_is_box(boxes)]
        overlaps = _overlaps(_sized(boxes), _sized(objects[counts, 1:5]))
        total += int(counts.sum())
        hits += int((overlaps >= iou).any(axis=0).sum())
    return float(_ratio(hits, total))


class _Options(NamedTuple):
    num_classes: int
    iou: float
    method: str


class _Shapes(NamedTuple):
    """Rows of detections or labels of an image, and their shapes as pycocotools has them."""

    rows: np.ndarray
    #: Boxes (n, 4), (x, y, width, height), or n masks as run-length codes.
    shapes: Any

    def only(self, kept: np.ndarray) -> _Shapes:
        """Return the rows of True in ``kept``, or of the indices ``kept``, with their shapes."""
        if isinstance(self.shapes, np.ndarray):
            return _Shapes(self.rows[kept], self.shapes[kept])
        indices = np.arange(len(self.rows))[kept]
        return _Shapes(self.rows[kept], [self.shapes[i] for i in indices])


def _options(num_classes: Any, iou: Any, method: Any) -> _Options:
    num_classes = integer("num_classes", num_classes, 1)
    iou = number("iou", iou, 0, 1)
    if iou == 0:
        raise ValueError(f"iou: expected a number above 0, got {iou!r}")
    return _Options(num_classes, iou, choice("method", method, ("coco", "area", "11-point")))


def _check_lengths(first: str, one: Sequence[Any], second: str, other: Sequence[Any]) -> None:
    if len(one) != len(other):
        raise ValueError(
            f"{first}, {second}: expected equal lengths, got "
            f"{len(one)} images with {first}, {len(other)} with {second}"
        )


def _checked_rows(
    detections: Any, labels: Any, num_classes: int
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return the rows of each image, float64, after a check of classes, scores and flags."""
    found = _images("detections", detections, (6,), num_classes)
    truths = _images("labels", labels, (5, 6, 7), num_classes)
    _check_lengths("detections", found, "labels", truths)
    for image, (rows, objects) in enumerate(zip(found, truths)):
        _check_values(f"detections[{image}]", "scores", rows, ~np.isnan(rows[:, 1]))
        if objects.shape[1] > 5:
            flags = np.isin(objects[:, 5], (0, 1))
            _check_values(f"labels[{image}]", "difficult flags of 0 or 1", objects, flags)
    return found, truths


def _check_boxes(image: int, objects: np.ndarray) -> None:
    right = _is_box(objects[:, 1:5])
    _check_values(f"labels[{image}]", "finite corners, x1 <= x2, y1 <= y2", objects, right)


def _masks(name: str, masks: Any, rows: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return the masks of each image, bool (n, height, width), one for each row."""
    arrays = []
    for image, given in enumerate(_sequence(name, masks)):
        at = f"{name}[{image}]"
        pixels = as_numbers(at, given) if len(given) else np.zeros((0, 0, 0))
        if pixels.ndim != 3:
            raise ValueError(f"{at}: expected shape (n, height, width), got {pixels.shape}")
        arrays.append(pixels != 0)
    _check_lengths(name, arrays, "rows", rows)
    for image, (pixels, own) in enumerate(zip(arrays, rows)):
        if len(pixels) != len(own):
            raise ValueError(
                f"{name}[{image}]: expected {len(own)} masks, one for each row, got {len(pixels)}"
            )
    return arrays


def _sized(boxes: np.ndarray) -> np.ndarray:
    """Return corners as pycocotools has boxes: (x, y, width, height)."""
    boxes = np.array(boxes, np.float64)
    with np.errstate(invalid="ignore"):  # padding can have any numbers
        boxes[:, 2:] -= boxes[:, :2]
    return boxes


def _encoded(masks: np.ndarray) -> list[dict[str, Any]]:
    """Return the run-length codes of masks (n, height, width)."""
    from pycocotools import mask

    if not len(masks):
        return []
    codes: list[dict[str, Any]] = mask.encode(
        np.asfortranarray(masks.transpose(1, 2, 0).astype(np.uint8))
    )
    return codes


def _average_precision(pairs: Sequence[tuple[_Shapes, _Shapes]], options: _Options) -> np.ndarray:
    pairs = [
        _without_difficult(
            found.only(found.rows[:, 0] >= 0), truths.only(truths.rows[:, 0] >= 0), options.iou
        )
        for found, truths in pairs
    ]
    num_classes, iou, method = options
    if method == "coco":
        return _coco(pairs, num_classes, iou)
    return np.array([_voc(pairs, kind, iou, method) for kind in range(num_classes)])


def _sequence(name: str, images: Any) -> list[Any]:
    """Return the entry of each image."""
    if isinstance(images, (str, bytes, dict)) or not hasattr(images, "__len__"):
        raise TypeError(f"{name}: expected one array of rows for each image, got {images!r}")
    return [images[i] for i in range(len(images))]


def _images(name: str, images: Any, widths: tuple[int, ...], num_classes: int) -> list[np.ndarray]:
    """Return the rows of each image, float64 (n, W) with W in ``widths``; check their classes."""
    arrays = []
    for image, given in enumerate(_sequence(name, images)):
        at = f"{name}[{image}]"
        rows = np.array(as_rows(at, given, *widths), np.float64)  # a copy: the caller changes it
        kinds = rows[:, 0]
        right = (kinds < num_classes) & (kinds == np.floor(kinds))
        _check_values(at, f"whole classes below {num_classes}", rows, right)
        arrays.append(rows)
    return arrays


def _check_values(name: str, want: str, rows: np.ndarray, right: np.ndarray) -> None:
    """Raise a ValueError for the first row of class 0 or more that is not ``right``."""
    right = right | (rows[:, 0] < 0)
    if not right.all():
        row = int(right.argmin())
        raise ValueError(f"{name}: expected {want}, got {rows[row].tolist()} in row {row}")


def _is_box(boxes: np.ndarray) -> np.ndarray:
    """Return True for each box of (n, 4) with finite corners and a finite area of 0 or more."""
    with np.errstate(all="ignore"):
        size = boxes[:, 2:] - boxes[:, :2]
        return np.asarray((size >= 0).all(axis=1) & np.isfinite(size.prod(axis=1)))


def _overlaps(shapes: Any, truths: Any) -> np.ndarray:
    """Return the IoU, float64 (n, m), of n and m shapes, both boxes or both masks."""
    from pycocotools import mask

    if not len(shapes) or not len(truths):
        return np.zeros((len(shapes), len(truths)))
    return np.asarray(mask.iou(shapes, truths, [0] * len(truths)))


def _without_difficult(detections: _Shapes, labels: _Shapes, iou: float) -> tuple[_Shapes, _Shapes]:
    """Return the detections and labels of an image that are not ignored."""
    if labels.rows.shape[1] == 5:
        return detections, labels
    difficult = labels.rows[:, 5] > 0
    counts = np.ones(len(detections.rows), bool)
    for kind in np.unique(labels.rows[difficult, 0]):
        mine = np.flatnonzero(detections.rows[:, 0] == kind)
        theirs = labels.rows[:, 0] == kind
        overlaps = _overlaps(detections.only(mine).shapes, labels.only(theirs).shapes)
        found = (overlaps >= iou).any(axis=1)
        counts[mine[found & difficult[theirs][overlaps.argmax(axis=1)]]] = False
    return detections.only(counts), labels.only(~difficult)


def _voc(pairs: Sequence[tuple[_Shapes, _Shapes]], kind: int, iou: float, method: str) -> float:
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
        for score, overlaps in zip(found.rows[:, 1], _overlaps(found.shapes, truths.shapes)):
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


def _evaluator() -> tuple[Any, Any]:
    """Return the classes of pycocotools, or those of faster-coco-eval if it is installed."""
    if importlib.util.find_spec("faster_coco_eval") is not None:
        from faster_coco_eval import COCO, COCOeval_faster

        return COCO, COCOeval_faster
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    return COCO, COCOeval


def _coco(pairs: Sequence[tuple[_Shapes, _Shapes]], num_classes: int, iou: float) -> np.ndarray:
    run = _coco_run(pairs, num_classes, [iou])
    # Axes: IoU threshold, recall, class, range of areas (0: all), maximum number of detections.
    return _mean_precision(run.eval["precision"][0, :, :, 0, -1])


def _mean_precision(precision: np.ndarray) -> np.ndarray:
    """Return the mean over all axes but the last, the class; NaN for a class without labels."""
    flat = precision.reshape(-1, precision.shape[-1])
    return np.where((flat > -1).any(axis=0), flat.mean(axis=0), np.nan)


def _coco_run(
    pairs: Sequence[tuple[_Shapes, _Shapes]], num_classes: int, ious: Sequence[float] | None
) -> Any:
    """Return an evaluation of pycocotools, at COCO's ten IoUs by default.

    Difficult objects are crowds.
    """
    from pycocotools import mask

    new_frame, new_evaluation = _evaluator()
    by_boxes = not pairs or isinstance(pairs[0][0].shapes, np.ndarray)

    def entry(image: int, kind: float, shape: Any, crowd: float) -> dict:
        about = {"image_id": image, "category_id": int(kind), "iscrowd": int(crowd > 0)}
        if by_boxes:
            return {**about, "bbox": shape.tolist(), "area": float(shape[2] * shape[3])}
        return {**about, "segmentation": shape, "area": float(mask.area(shape))}

    truths = [
        entry(i, row[0], shape, row[5] if len(row) > 5 else 0)
        for i, (_, labels) in enumerate(pairs)
        for row, shape in zip(*labels)
    ]
    found = [
        {**entry(i, row[0], shape, 0), "score": float(row[1])}
        for i, (detections, _) in enumerate(pairs)
        for row, shape in zip(*detections)
    ]
    for rows in (truths, found):
        for key, row in enumerate(rows, 1):
            row["id"] = key  # from 1 on: for pycocotools an id of 0 means "no match"

    frame = {
        # pycocotools reads the size, although a run-length code has its own.
        "images": [{"id": i, "height": 0, "width": 0} for i in range(len(pairs))],
        "categories": [{"id": kind} for kind in range(num_classes)],
    }
    truth, result = new_frame(), new_frame()
    with contextlib.redirect_stdout(io.StringIO()):
        for coco, rows in ((truth, truths), (result, found)):
            coco.dataset = {**frame, "annotations": rows}
            coco.createIndex()
        run = new_evaluation(truth, result, "bbox" if by_boxes else "segm")
        if ious is not None:
            run.params.iouThrs = np.array(ious)
        run.evaluate()
        run.accumulate()
        if ious is None:
            run.summarize()
    return run


#: Names of COCO's table: average precision (AP) and recall (AR) at IoUs of 0.5 to 0.95; AP at one
#: IoU; of small, medium and large objects (s, m, l); AR of at most 1, 10 and 100 detections.
COCO_NAMES = (
    *("AP", "AP50", "AP75", "APs", "APm", "APl"),
    *("AR1", "AR10", "AR100", "ARs", "ARm", "ARl"),
)


class CocoMetrics(NamedTuple):
    """Result of :func:`coco_metrics`."""

    #: The metrics of ``COCO_NAMES``, in [0, 1]; NaN without objects.
    values: dict[str, float]
    #: Average precision of each class, float64 (num_classes,), at IoUs of 0.5 to 0.95, and at 0.5.
    ap: np.ndarray
    ap50: np.ndarray


def coco_metrics(
    detections: Sequence[Any],
    labels: Sequence[Any],
    num_classes: int,
    detected_masks: Sequence[Any] | None = None,
    masks: Sequence[Any] | None = None,
) -> CocoMetrics:
    """Return COCO's table of metrics, from pycocotools or faster-coco-eval.

    Difficult objects are COCO's crowds: detections on them are not counted.

    Args:
        detections, labels: as in :func:`average_precision`, in pixels, so that small, medium and
            large objects have COCO's areas.
        num_classes: as in :func:`average_precision`.
        detected_masks, masks: masks of the rows, as in :func:`mask_average_precision`, or their
            run-length codes from :func:`encode_masks`. By default boxes are compared.

    Raises:
        TypeError, ValueError: as in :func:`average_precision`; or the number of masks of an image
            is not that of its rows.
    """
    found, truths = _checked_rows(detections, labels, integer("num_classes", num_classes, 1))
    shapes: list[list[Any]] = [[], []]
    for image, (rows, objects) in enumerate(zip(found, truths)):
        _check_boxes(image, objects)
        rows[~_is_box(rows[:, 2:6]), 2:6] = 0
        if detected_masks is None or masks is None:
            shapes[0].append(_sized(rows[:, 2:6]))
            shapes[1].append(_sized(objects[:, 1:5]))
            continue
        for side, (name, given) in enumerate(
            (("detected_masks", detected_masks), ("masks", masks))
        ):
            own = rows if side == 0 else objects
            codes = given[image]
            codes = codes if isinstance(codes, list) else encode_masks(codes)
            if len(codes) != len(own):
                want = f"{len(own)} masks, one for each row"
                raise ValueError(f"{name}[{image}]: expected {want}, got {len(codes)}")
            shapes[side].append(codes)
    pairs = []
    for rows, objects, *both in zip(found, truths, *shapes):
        one, other = _Shapes(rows, both[0]), _Shapes(objects, both[1])
        pairs.append((one.only(rows[:, 0] >= 0), other.only(objects[:, 0] >= 0)))
    run = _coco_run(pairs, num_classes, None)
    precision = run.eval["precision"][:, :, :, 0, -1]
    stats = np.asarray(run.stats, np.float64)[: len(COCO_NAMES)]
    values = np.where(stats < 0, np.nan, stats).tolist()
    return CocoMetrics(
        dict(zip(COCO_NAMES, values)), _mean_precision(precision), _mean_precision(precision[0])
    )


def encode_masks(masks: Any) -> list[dict[str, Any]]:
    """Return pycocotools' run-length code of each mask; pixels that are not 0 belong to it.

    Args:
        masks: array of numbers (n, height, width).
    """
    pixels = as_numbers("masks", masks)
    if pixels.ndim != 3:
        raise ValueError(f"masks: expected shape (n, height, width), got {pixels.shape}")
    return _encoded(pixels != 0)


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
    options = _options(num_classes, iou, "coco")
    score = number("score", score)
    found, truths = _checked_rows(detections, labels, options.num_classes)
    matrix = np.zeros((num_classes + 1, num_classes + 1), np.int64)
    for image, (rows, objects) in enumerate(zip(found, truths)):
        _check_boxes(image, objects)
        rows = rows[(rows[:, 0] >= 0) & (rows[:, 1] >= score) & _is_box(rows[:, 2:6])]
        rows = rows[np.argsort(-rows[:, 1], kind="stable")]
        objects = objects[objects[:, 0] >= 0]
        flags = objects[:, 5] > 0 if objects.shape[1] > 5 else np.zeros(len(objects), bool)
        overlaps = _overlaps(_sized(rows[:, 2:6]), _sized(objects[:, 1:5]))
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


def pixel_accuracy(matrix: Any) -> float:
    """Return the fraction of pixels whose class is right.

    Args:
        matrix: counts (classes, classes), one row per true class, from
            :func:`cvops.confusion_matrix`, or a sum of them: an array of any library, on any
            device, or lists.

    Returns:
        A number in [0, 1]; NaN without pixels.

    Raises:
        TypeError: ``matrix`` is not an array of numbers.
        ValueError: ``matrix`` is not square, or has NaN, infinity or negative numbers.
    """
    counts = _counts(matrix)
    return float(_ratio(counts.trace(), counts.sum()))


def mean_iou(matrix: Any) -> float:
    """Return the mean intersection over union (IoU) of the classes.

    The IoU of a class is a ratio of pixels: both labeled and predicted as this class, divided by
    labeled or predicted as this class.

    Args:
        matrix: as in :func:`pixel_accuracy`.

    Returns:
        A number in [0, 1]. Classes without labels and predictions are omitted; NaN if all are.

    Raises:
        TypeError: ``matrix`` is not an array of numbers.
        ValueError: ``matrix`` is not square, or has NaN, infinity or negative numbers.
    """
    iou = class_iou(matrix)
    return float(_ratio(np.nansum(iou), np.count_nonzero(~np.isnan(iou))))


def class_iou(matrix: Any) -> np.ndarray:
    """Return the intersection over union of each class, float64 (classes,), as in :func:`mean_iou`.

    It is NaN for a class without labels and predictions.
    """
    counts = _counts(matrix)
    both = counts.diagonal()
    return np.asarray(_ratio(both, counts.sum(axis=0) + counts.sum(axis=1) - both))


def _counts(matrix: Any) -> np.ndarray:
    counts = as_numbers("matrix", matrix)
    counts = counts.astype(np.int64 if counts.dtype.kind in "iu" else np.float64)
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1]:
        raise ValueError(f"matrix: expected shape (classes, classes), got {counts.shape}")
    wrong = ~(np.isfinite(counts) & (counts >= 0))
    if wrong.any():
        row, column = map(int, np.argwhere(wrong)[0])
        raise ValueError(
            f"matrix: expected counts of 0 or more, got {counts[row, column]} at ({row}, {column})"
        )
    return counts


def _ratio(a: Any, b: Any) -> Any:
    """Return a / b; 0 / 0 is NaN."""
    with np.errstate(all="ignore"):
        return np.true_divide(a, b)


@dataclasses.dataclass
class AnchorErrors:
    """Class error and box error of anchors, summed over batches.

    Attributes:
        anchors: the number of anchors.
        right: the number of anchors whose class is right.
        offset_error: the sum of the absolute errors of the offsets.
    """

    anchors: int = 0
    right: float = 0.0
    offset_error: float = 0.0

    def __post_init__(self) -> None:
        self.anchors = integer("anchors", self.anchors, 0, 2**63)
        self.right = number("right", self.right, 0, self.anchors)
        self.offset_error = number("offset_error", self.offset_error, 0)

    def add(self, anchors: int, right: float, offset_error: float) -> None:
        """Add a batch.

        Args:
            anchors: number of anchors in the batch.
            right: number of anchors in the batch whose class is right.
            offset_error: sum of the absolute errors of the offsets, four per anchor; masked offsets
                have an error of 0.

        Raises:
            TypeError: an argument is not a number.
            ValueError: an argument is negative or NaN, or ``right`` is above ``anchors``.
        """
        batch = AnchorErrors(anchors, right, offset_error)
        self.anchors += batch.anchors
        self.right += batch.right
        self.offset_error += batch.offset_error

    @property
    def class_error(self) -> float:
        """Fraction of anchors whose class is wrong; NaN without anchors."""
        return float(1 - _ratio(self.right, self.anchors))

    @property
    def box_mae(self) -> float:
        """Mean absolute error of the offsets, including masked ones; NaN without anchors."""
        return float(_ratio(self.offset_error, 4 * self.anchors))

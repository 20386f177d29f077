"""COCO's metrics, from pycocotools or faster-coco-eval."""

from __future__ import annotations

import contextlib
import importlib.util
import io
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from cvops._imports import optional
from cvops.arrays import as_numbers
from cvops.metrics._rows import Shapes, check_boxes, checked_rows, encoded, is_box, sized
from cvops.ops._check import integer

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
    found, truths = checked_rows(detections, labels, integer("num_classes", num_classes, 1))
    shapes: list[list[Any]] = [[], []]
    for image, (rows, objects) in enumerate(zip(found, truths)):
        check_boxes(image, objects)
        rows[~is_box(rows[:, 2:6]), 2:6] = 0
        if detected_masks is None or masks is None:
            shapes[0].append(sized(rows[:, 2:6]))
            shapes[1].append(sized(objects[:, 1:5]))
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
        one, other = Shapes(rows, both[0]), Shapes(objects, both[1])
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
    return encoded(pixels != 0)


def coco_precision(
    pairs: Sequence[tuple[Shapes, Shapes]], num_classes: int, iou: float
) -> np.ndarray:
    run = _coco_run(pairs, num_classes, [iou])
    # Axes: IoU threshold, recall, class, range of areas (0: all), maximum number of detections.
    return _mean_precision(run.eval["precision"][0, :, :, 0, -1])


def _mean_precision(precision: np.ndarray) -> np.ndarray:
    """Return the mean over all axes but the last, the class; NaN for a class without labels."""
    flat = precision.reshape(-1, precision.shape[-1])
    return np.where((flat > -1).any(axis=0), flat.mean(axis=0), np.nan)


def _coco_run(
    pairs: Sequence[tuple[Shapes, Shapes]], num_classes: int, ious: Sequence[float] | None
) -> Any:
    """Return an evaluation of pycocotools, at COCO's ten IoUs by default.

    Difficult objects are crowds.
    """
    with optional():
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


def _evaluator() -> tuple[Any, Any]:
    """Return the classes of pycocotools, or those of faster-coco-eval if it is installed."""
    if importlib.util.find_spec("faster_coco_eval") is not None:
        from faster_coco_eval import COCO, COCOeval_faster

        return COCO, COCOeval_faster
    with optional():
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval

    return COCO, COCOeval

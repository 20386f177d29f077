"""Metrics of detections and segmentations.

Boxes are (x1, y1, x2, y2), corners, all in the same unit.
"""

from __future__ import annotations

from cvops.metrics._anchors import AnchorErrors
from cvops.metrics._coco import COCO_NAMES, CocoMetrics, coco_metrics, encode_masks
from cvops.metrics._detection import (
    average_precision,
    detection_confusion,
    mask_average_precision,
    proposal_recall,
)
from cvops.metrics._segmentation import class_iou, mean_iou, pixel_accuracy

__all__ = [
    "COCO_NAMES",
    "AnchorErrors",
    "CocoMetrics",
    "average_precision",
    "class_iou",
    "coco_metrics",
    "detection_confusion",
    "encode_masks",
    "mask_average_precision",
    "mean_iou",
    "pixel_accuracy",
    "proposal_recall",
]

"""Rows of detections and labels: their checks, and the shapes of their objects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from cvops._imports import optional
from cvops.arrays import as_numbers, as_rows
from cvops.ops._check import choice, integer, number


class Options(NamedTuple):
    num_classes: int
    iou: float
    method: str


def options_of(num_classes: Any, iou: Any, method: Any) -> Options:
    num_classes = integer("num_classes", num_classes, 1)
    iou = number("iou", iou, 0, 1)
    if iou == 0:
        raise ValueError(f"iou: expected a number above 0, got {iou!r}")
    return Options(num_classes, iou, choice("method", method, ("coco", "area", "11-point")))


class Shapes(NamedTuple):
    """Rows of detections or labels of an image, and their shapes as pycocotools has them."""

    rows: np.ndarray
    #: Boxes (n, 4), (x, y, width, height), or n masks as run-length codes.
    shapes: Any

    def only(self, kept: np.ndarray) -> Shapes:
        """Return the rows of True in ``kept``, or of the indices ``kept``, with their shapes."""
        if isinstance(self.shapes, np.ndarray):
            return Shapes(self.rows[kept], self.shapes[kept])
        indices = np.arange(len(self.rows))[kept]
        return Shapes(self.rows[kept], [self.shapes[i] for i in indices])


def sized(boxes: np.ndarray) -> np.ndarray:
    """Return corners as pycocotools has boxes: (x, y, width, height)."""
    boxes = np.array(boxes, np.float64)
    with np.errstate(invalid="ignore"):  # padding can have any numbers
        boxes[:, 2:] -= boxes[:, :2]
    return boxes


def encoded(masks: np.ndarray) -> list[dict[str, Any]]:
    """Return the run-length codes of masks (n, height, width)."""
    with optional():
        from pycocotools import mask

    if not len(masks):
        return []
    codes: list[dict[str, Any]] = mask.encode(
        np.asfortranarray(masks.transpose(1, 2, 0).astype(np.uint8))
    )
    return codes


def overlaps_of(shapes: Any, truths: Any) -> np.ndarray:
    """Return the IoU, float64 (n, m), of n and m shapes, both boxes or both masks."""
    with optional():
        from pycocotools import mask

    if not len(shapes) or not len(truths):
        return np.zeros((len(shapes), len(truths)))
    return np.asarray(mask.iou(shapes, truths, [0] * len(truths)))


def is_box(boxes: np.ndarray) -> np.ndarray:
    """Return True for each box of (n, 4) with finite corners and a finite area of 0 or more."""
    with np.errstate(all="ignore"):
        size = boxes[:, 2:] - boxes[:, :2]
        return np.asarray((size >= 0).all(axis=1) & np.isfinite(size.prod(axis=1)))


def checked_rows(
    detections: Any, labels: Any, num_classes: int
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return the rows of each image, float64, after a check of classes, scores and flags."""
    found = rows_of("detections", detections, (6,), num_classes)
    truths = rows_of("labels", labels, (5, 6, 7), num_classes)
    check_lengths("detections", found, "labels", truths)
    for image, (rows, objects) in enumerate(zip(found, truths)):
        check_values(f"detections[{image}]", "scores", rows, ~np.isnan(rows[:, 1]))
        if objects.shape[1] > 5:
            flags = np.isin(objects[:, 5], (0, 1))
            check_values(f"labels[{image}]", "difficult flags of 0 or 1", objects, flags)
    return found, truths


def check_boxes(image: int, objects: np.ndarray) -> None:
    right = is_box(objects[:, 1:5])
    check_values(f"labels[{image}]", "finite corners, x1 <= x2, y1 <= y2", objects, right)


def masks_of(name: str, masks: Any, rows: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return the masks of each image, bool (n, height, width), one for each row."""
    arrays = []
    for image, given in enumerate(sequence_of(name, masks)):
        at = f"{name}[{image}]"
        pixels = as_numbers(at, given) if len(given) else np.zeros((0, 0, 0))
        if pixels.ndim != 3:
            raise ValueError(f"{at}: expected shape (n, height, width), got {pixels.shape}")
        arrays.append(pixels != 0)
    check_lengths(name, arrays, "rows", rows)
    for image, (pixels, own) in enumerate(zip(arrays, rows)):
        if len(pixels) != len(own):
            raise ValueError(
                f"{name}[{image}]: expected {len(own)} masks, one for each row, got {len(pixels)}"
            )
    return arrays


def sequence_of(name: str, images: Any) -> list[Any]:
    """Return the entry of each image."""
    if isinstance(images, (str, bytes, dict)) or not hasattr(images, "__len__"):
        raise TypeError(f"{name}: expected one array of rows for each image, got {images!r}")
    return [images[i] for i in range(len(images))]


def rows_of(name: str, images: Any, widths: tuple[int, ...], num_classes: int) -> list[np.ndarray]:
    """Return the rows of each image, float64 (n, W) with W in ``widths``; check their classes."""
    arrays = []
    for image, given in enumerate(sequence_of(name, images)):
        at = f"{name}[{image}]"
        rows = np.array(as_rows(at, given, *widths), np.float64)  # a copy: the caller changes it
        kinds = rows[:, 0]
        right = (kinds < num_classes) & (kinds == np.floor(kinds))
        check_values(at, f"whole classes below {num_classes}", rows, right)
        arrays.append(rows)
    return arrays


def check_lengths(first: str, one: Sequence[Any], second: str, other: Sequence[Any]) -> None:
    if len(one) != len(other):
        raise ValueError(
            f"{first}, {second}: expected equal lengths, got "
            f"{len(one)} images with {first}, {len(other)} with {second}"
        )


def check_values(name: str, want: str, rows: np.ndarray, right: np.ndarray) -> None:
    """Raise a ValueError for the first row of class 0 or more that is not ``right``."""
    right = right | (rows[:, 0] < 0)
    if not right.all():
        row = int(right.argmin())
        raise ValueError(f"{name}: expected {want}, got {rows[row].tolist()} in row {row}")

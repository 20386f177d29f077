"""Metrics of a confusion matrix of pixels."""

from __future__ import annotations

from typing import Any

import numpy as np

from cvops.arrays import as_numbers


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

"""Counts of true and predicted classes."""

from __future__ import annotations

from typing import TypeVar

import numpy as np

from cvops.ops import _check
from cvops.ops._op import DeviceOps, Op, Signature

Array = TypeVar("Array")
_OP = Op("confusion_matrix", prediction="int32 (...)", label="int32 (...)")


def confusion_matrix(
    prediction: Array,
    label: Array,
    num_classes: int,
    ignore_label: int | None = None,
    *,
    backend: str | None = None,
) -> Array:
    """Count the pixels of each pair of a true and a predicted class.

    The sum of the matrices of several batches is the matrix of all. ``cvops.metrics`` computes
    ``pixel_accuracy`` and ``mean_iou`` from a matrix. MXNet 1.9.1 has no such operator.

    Args:
        prediction: the predicted class of each pixel, int32 of any shape.
        label: the true class of each pixel, int32 of the same shape.
        num_classes: the number of classes, which are 0 to ``num_classes`` - 1; in [1, 46340].
        ignore_label: a label whose pixels are not counted, such as 255 for the borders of Pascal
            VOC; an int32, or None. Pixels with a label or a prediction out of range are not
            counted, on any device.
        backend: the implementation; by default the best for the arrays' device.

    Returns:
        int64 (num_classes, num_classes): at (i, j) the number of pixels with label i and prediction
        j. It is zero without pixels. All implementations return the same. There is no gradient.

    Raises:
        TypeError: an input is not an int32 array; the inputs differ in library or device;
            ``num_classes`` or ``ignore_label`` is not an integer.
        ValueError: the shapes differ; ``num_classes`` is out of range; ``ignore_label`` does not
            fit into int32.

    Example:
        >>> prediction, label = np.int32([0, 1, 1, 0]), np.int32([0, 1, 0, 255])
        >>> cvops.confusion_matrix(prediction, label, 2, ignore_label=255)
        array([[1, 1],
               [0, 1]])
    """
    signature = _OP.signature.get(backend, prediction=prediction, label=label)
    num_classes = _check.integer("num_classes", num_classes, low=1, high=46340)
    # The implementations ignore -1, which is no class, in any case.
    ignored = -1 if ignore_label is None else _check.integer("ignore_label", ignore_label)
    return signature.run((prediction, label), (num_classes, ignored))


@_OP.check
def _check_shapes(signature: Signature) -> None:
    want, got = signature.shapes.values()
    if got != want:
        raise ValueError(f"label: expected the shape {want} of prediction, got {got}")


@_OP.implementation("numpy")
def _numpy(prediction: np.ndarray, label: np.ndarray, num_classes: int, ignored: int) -> np.ndarray:
    counts = (label >= 0) & (label < num_classes) & (label != ignored)
    counts &= (prediction >= 0) & (prediction < num_classes)
    cells = label[counts].astype(np.int64) * num_classes + prediction[counts]
    matrix = np.bincount(cells, minlength=num_classes**2)
    return matrix.reshape(num_classes, num_classes).astype(np.int64, copy=False)


@_OP.implementation("native")
def _native(
    device: DeviceOps, prediction: np.ndarray, label: np.ndarray, num_classes: int, ignored: int
) -> np.ndarray:
    matrix = device.empty((num_classes, num_classes), np.int64)
    device.ops.confusion_matrix(matrix, prediction, label, num_classes, ignored)
    return matrix

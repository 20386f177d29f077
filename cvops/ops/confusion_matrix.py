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
    """How often each pair of a true and a predicted class occurs.

    Matrices of several batches may be added. ``cvops.metrics`` has ``pixel_accuracy`` and
    ``mean_iou`` of one. MXNet 1.9.1 has no such operator.

    Args:
        prediction: the predicted class of each pixel, int32 of any shape.
        label: the true class of each pixel, int32 of the same shape.
        num_classes: classes are 0 to ``num_classes`` - 1; in [1, 46340].
        ignore_label: a label whose pixels are left out, as the 255 of Pascal VOC's borders; an
            int32, or None. Pixels whose label or prediction is none of the classes are left out
            anyway, on every device.
        backend: which implementation; by default the best for the arrays' device.

    Returns:
        int64 (num_classes, num_classes): at (i, j) the number of pixels of label i that were
        predicted as j. Zeros if there are no pixels. Every implementation gives the same.
        No gradient.

    Raises:
        TypeError: an input is not an int32 array, they differ in kind or device, or
            ``num_classes`` or ``ignore_label`` is not an integer.
        ValueError: the shapes differ; ``num_classes`` is out of range; ``ignore_label`` is no
            int32.
    """
    inputs = _OP.inputs(backend, prediction=prediction, label=label)
    num_classes = _check.integer("num_classes", num_classes, low=1, high=46340)
    # None is as good as a label that is none of the classes.
    ignored = -1 if ignore_label is None else _check.integer("ignore_label", ignore_label)
    return inputs.run(num_classes, ignored)


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

"""Steps that :mod:`rpn_target` and :mod:`rcnn_target` share: options, shapes, and the reference."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from cvops.ops import _check, _exp_log
from cvops.ops._op import Signature

ZEROS = (0.0, 0.0, 0.0, 0.0)


class SampleOptions(NamedTuple):
    """``SampleOptions`` of the kernels."""

    num: int
    most_positive: int
    positive_iou: float
    negative_iou: float
    mean_x: float
    mean_y: float
    mean_width: float
    mean_height: float
    std_x: float
    std_y: float
    std_width: float
    std_height: float


@_check.memoized
def sample_options(
    num_sample: Any,
    pos_ratio: Any,
    pos_iou_thresh: Any,
    neg_iou_thresh: Any,
    means: Any,
    stds: Any,
) -> SampleOptions:
    """Return the checked options. The number of positives is computed in float32."""
    num = _check.integer("num_sample", num_sample, 1)
    ratio = np.float32(_check.number("pos_ratio", pos_ratio, 0, 1))
    return SampleOptions(
        num,
        min(num, round(float(np.float32(num) * ratio))),
        _check.number("pos_iou_thresh", pos_iou_thresh, 0, 1),
        _check.number("neg_iou_thresh", neg_iou_thresh, 0, 1),
        *_check.numbers("means", means, 4),
        *_check.numbers("stds", stds, 4),
    )


def check_labels(signature: Signature) -> None:
    """Refuse short rows of labels, and sizes beyond int32."""
    labels = signature.shapes["labels"]
    if labels[2] < 5:
        raise ValueError(f"labels: expected rows of 5 or more, got shape {labels}")
    _check.sizes_fit("labels", labels, *labels)
    _check.sizes_fit("noise", signature.shapes["noise"], *signature.shapes["noise"])


def truths_of(label: np.ndarray) -> np.ndarray:
    """Return the rows (class, x1, y1, x2, y2) before the first row of class -1."""
    ends = np.flatnonzero(label[:, 0] == -1)
    return label[: ends[0], :5] if len(ends) else label[:, :5]


def iou_matrix(boxes: np.ndarray, truths: np.ndarray) -> np.ndarray:
    """Return the IoUs (N, M). NaN and numbers below 0 become 0, which matches nothing."""
    a, t = boxes[:, None], truths[None]
    with np.errstate(all="ignore"):
        size = np.minimum(a[..., 2:], t[..., 2:]) - np.maximum(a[..., :2], t[..., :2])
        overlap = np.where(size > 0, size, np.float32(0)).prod(axis=-1)
        area_a, area_t = ((x[..., 2] - x[..., 0]) * (x[..., 3] - x[..., 1]) for x in (a, t))
        union = area_a + area_t - overlap
        return np.where((overlap > 0) & (union > 0), overlap / union, np.float32(0))


def least(noise: np.ndarray, where: np.ndarray, most: int) -> np.ndarray:
    """Return the indices of up to ``most`` true elements, by ascending noise, NaN last."""
    found = np.flatnonzero(where)
    return found[np.argsort(noise[found], kind="stable")[:most]]


def encode(boxes: np.ndarray, truths: np.ndarray, options: SampleOptions) -> np.ndarray:
    """Return the offsets (N, 4) from boxes to truths, as ``box_encode``."""
    with np.errstate(all="ignore"):
        means, stds = np.array(options[4:], np.float32).reshape(2, 4)
        size, truth_size = (x[:, 2:] - x[:, :2] for x in (boxes, truths))
        half = np.float32(0.5)
        center, truth_center = boxes[:, :2] + size * half, truths[:, :2] + truth_size * half
        moves = ((truth_center - center) / size - means[:2]) / stds[:2]
        logs = (_exp_log.log_in_double(truth_size / size) - means[2:]) / stds[2:]
        return np.concatenate([moves, logs.astype(np.float32)], axis=1)

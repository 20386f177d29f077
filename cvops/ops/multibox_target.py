"""Training targets of the anchors of a detector, from the ground truth of each image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np

from cvops.ops import _check, _exp_log
from cvops.ops._op import DeviceOps, Op, Signature

Array = TypeVar("Array")
_OP = Op(
    "multibox_target",
    anchor="float32 (1, A, 4)",
    label="float32 (B, G, W)",
    cls_pred="float32 (B, C, A)",
)

#: ``TargetShape`` of the kernels: images, anchors, ground truths, label_width, classes.
_Shape = tuple[int, int, int, int, int]


class _Options(NamedTuple):
    """``TargetOptions`` of the kernels, where the numbers are float32."""

    overlap_threshold: float
    ignore_label: float
    mining_ratio: float
    mining_threshold: float
    variance_x: float
    variance_y: float
    variance_width: float
    variance_height: float


#: Below this number of anchors in a batch, the three results are allocated separately.
_FEW_ANCHORS = 1 << 15
_VARIANCES = (0.1, 0.1, 0.2, 0.2)
#: The bipartite stage matches pairs with an IoU above this one.
_MIN_IOU = np.float32(1e-6)


def multibox_target(
    anchor: Array,
    label: Array,
    cls_pred: Array,
    overlap_threshold: float = 0.5,
    ignore_label: float = -1.0,
    negative_mining_ratio: float = -1.0,
    negative_mining_thresh: float = 0.5,
    minimum_negative_samples: int = 0,
    variances: Sequence[float] = _VARIANCES,
    *,
    backend: str | None = None,
) -> tuple[Array, Array, Array]:
    """Assign a class and the offsets to a box to each anchor of a detector.

    The op is ``mx.nd.contrib.MultiBoxTarget`` of MXNet 1.9.1 on the CPU, on every device. The
    ground truths of an image are the rows of its label before the first row of class -1. Two stages
    make anchors positive:

    1. Among all pairs of a free ground truth and a free anchor, the pair with the highest IoU is
       matched, while there is an IoU above 1e-6. Among equal IoUs the lowest anchor has priority,
       then the lowest ground truth.
    2. Each other anchor is matched with the ground truth of its highest IoU, if that IoU is above
       ``overlap_threshold``. Among equal IoUs the lowest ground truth has priority.

    All other anchors are negative. With hard negative mining, only int(P * ratio) anchors are
    negative for P positives: those with the lowest softmax of class 0, among the anchors whose
    highest IoU is below ``negative_mining_thresh``. Among equal ones the lowest anchor has
    priority; NaN comes last. If there are fewer candidates, all are negative (MXNet raises).

    Args:
        anchor: float32 (1, A, 4), corners (x1, y1, x2, y2) in any unit.
        label: float32 (B, G, 5 or more), rows of class, x1, y1, x2, y2 in the anchors' unit; the op
            does not read more columns. Rows of -1 pad the labels of images with fewer than G ground
            truths. A ground truth with a NaN corner matches nothing. As in MXNet the op does not
            check a class: ``cls_target`` may be C or more, or a fraction. ``cvops.models`` refuses
            such labels.
        cls_pred: logits, float32 (B, C, A); class 0 is the background. Only mining reads them.
        overlap_threshold: the IoU above which the second stage matches; no second stage if it is
            not positive.
        ignore_label: the class of anchors that do not take part in the training.
        negative_mining_ratio: the number of negatives for each positive; no mining if not positive.
        negative_mining_thresh: the IoU below which an anchor is a candidate for mining.
        minimum_negative_samples: not used, as in MXNet on the CPU.
        variances: the divisors of the offsets in x, y, width and height.
        backend: the implementation; by default the best for the arrays' device.

    Returns:
        loc_target, float32 (B, 4 A): (dx / w, dy / h, log(w' / w), log(h' / h)) for each positive,
        each divided by its variance; 0 for the other anchors. w and h are the sizes of the anchor,
        w' and h' those of the ground truth; dx and dy lead from the center of the anchor to the
        center of the ground truth. The values are the same on every device. The logarithms may
        differ from MXNet's by 2 units in the last place.

        loc_mask, float32 (B, 4 A): four times 1 for each positive, 0 for the other anchors.

        cls_target, float32 (B, A): 1 + the class of the ground truth for a positive, 0 for a
        negative, ``ignore_label`` for the other anchors. All anchors of an image without ground
        truth have ``ignore_label``.

        On the CPU the three may be parts of one array, which lives until the last of them dies.

        There is no gradient, and MXNet's is zero. The exponential of the softmax may differ from
        MXNet's in its last bit. Another of two candidates with such close scores may then be
        negative.

    Raises:
        TypeError: an input is not a float32 array; the inputs differ in library or device.
        ValueError: the shapes do not agree; A or C is 0; A or G is 2**30 or more; another axis is
            2**31 or more; mining has a ``negative_mining_thresh`` that is not positive; on the CPU,
            the corners of a row of class -1 are not all -1. On a GPU this check would need a wait:
            such a row ends the ground truths as any other row of class -1.

    Example:
        >>> anchors = np.float32([[[0, 0, 0.5, 0.5], [0, 0, 0.5, 0.4], [0.5, 0.5, 1, 1]]])
        >>> labels = np.float32([[[1, 0, 0, 0.5, 0.5]]])  # class, corners
        >>> cls_preds = np.zeros((1, 3, 3), np.float32)
        >>> cvops.multibox_target(anchors, labels, cls_preds)[2]  # 1 + class, or 0
        array([[2., 2., 0.]], dtype=float32)
    """
    signature = _OP.signature.get(backend, anchor=anchor, label=label, cls_pred=cls_pred)
    options = _options.get(
        overlap_threshold, ignore_label, negative_mining_ratio, negative_mining_thresh,
        minimum_negative_samples, variances,
    )  # fmt: skip
    images, truths, label_width = signature.shapes["label"]
    _, classes, anchors = signature.shapes["cls_pred"]
    shape = images, anchors, truths, label_width, classes
    return signature.run((anchor, label, cls_pred), (shape, options))


@_check.memoized
def _options(
    overlap_threshold: Any,
    ignore_label: Any,
    negative_mining_ratio: Any,
    negative_mining_thresh: Any,
    minimum_negative_samples: Any,
    variances: Any,
) -> _Options:
    _check.integer("minimum_negative_samples", minimum_negative_samples)
    options = _Options(
        _check.number("overlap_threshold", overlap_threshold),
        _check.number("ignore_label", ignore_label),
        _check.single("negative_mining_ratio", negative_mining_ratio),
        _check.single("negative_mining_thresh", negative_mining_thresh),
        *_check.numbers("variances", variances, 4),
    )
    if options.mining_ratio > 0 and not options.mining_threshold > 0:
        raise ValueError(
            f"negative_mining_thresh: expected a positive number, got {negative_mining_thresh!r}"
        )
    return options


@_OP.check
def _check_shapes(signature: Signature) -> None:
    label, cls_pred = signature.shapes["label"], signature.shapes["cls_pred"]
    images, num_truths, width = label
    _, classes, num_anchors = cls_pred
    _check.sizes_fit("cls_pred", cls_pred, *cls_pred)
    if images > 0 and width >= 2**31:
        raise ValueError(f"label: expected rows of less than 2^31, got shape {label}")
    if width < 5:
        raise ValueError(f"label: expected rows of 5 or more, got shape {label}")
    if num_truths >= 2**30:
        raise ValueError(
            f"label: expected fewer than 2^30 ground truths per image, got {num_truths}"
        )
    if not 0 < num_anchors < 2**30:
        raise ValueError(f"anchor: expected from 1 to 2^30 - 1 anchors, got {num_anchors}")
    if classes == 0:
        raise ValueError(f"cls_pred: expected one class or more, got shape {cls_pred}")


def _refuse_half_padding(label: np.ndarray) -> None:
    """Refuse the first row of class -1 of an image if it has corners."""
    rows = label.reshape(-1, label.shape[2])
    ends = label[:, :, 0] == -1
    first = ends & (ends.cumsum(axis=1) == 1)
    wrong = np.flatnonzero(first.reshape(-1) & (rows[:, 1:5] != -1).any(axis=1))
    if len(wrong):
        image, at = divmod(int(wrong[0]), label.shape[1])
        corners = ", ".join(f"{x:.9g}" for x in label[image, at, 1:5])
        raise ValueError(
            f"label: expected corners of -1 where the class is -1, got "
            f"[{corners}] in image {image}, row {at}"
        )


@_OP.implementation("numpy")
def _numpy(
    anchor: np.ndarray,
    label: np.ndarray,
    cls_pred: np.ndarray,
    shape: _Shape,
    options: _Options,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    _refuse_half_padding(label)
    with np.errstate(over="ignore"):
        options = _Options(*np.array(options, np.float32))
    num_images, num_anchors = len(label), anchor.shape[1]
    loc_target = np.zeros((num_images, num_anchors, 4), np.float32)
    loc_mask = np.zeros((num_images, num_anchors, 4), np.float32)
    cls_target = np.full((num_images, num_anchors), options.ignore_label, np.float32)
    for image, rows in enumerate(label):
        ends = np.flatnonzero(rows[:, 0] == -1)
        truths = rows[: ends[0]] if len(ends) else rows
        if len(truths) == 0:
            continue
        iou = _iou(anchor[0], truths[:, 1:5])
        best = iou.max(axis=1)
        which = iou.argmax(axis=1)
        given = _bipartite(iou)
        positive = given >= 0
        which[positive] = given[positive]
        if options.overlap_threshold > 0:
            positive |= best > options.overlap_threshold
        if options.mining_ratio > 0:
            candidates = ~positive & (best < options.mining_threshold)
            count = _mining_count(positive, options.mining_ratio)
            negative = _mine(cls_pred[image], candidates, count)
        else:
            negative = ~positive
        cls_target[image, negative] = 0
        matched = truths[which[positive]]
        cls_target[image, positive] = matched[:, 0] + 1
        loc_mask[image, positive] = 1
        loc_target[image, positive] = _encode(anchor[0, positive], matched[:, 1:5], options)
    flat = num_images, 4 * num_anchors
    return loc_target.reshape(flat), loc_mask.reshape(flat), cls_target


def _iou(anchors: np.ndarray, truths: np.ndarray) -> np.ndarray:
    """Return the IoUs (A, G). NaN and numbers below 0 become 0, which matches nothing."""
    a, t = anchors[:, None], truths[None]
    with np.errstate(all="ignore"):
        size = np.minimum(a[..., 2:], t[..., 2:]) - np.maximum(a[..., :2], t[..., :2])
        size = np.maximum(size, np.float32(0))
        overlap = size[..., 0] * size[..., 1]
        area_a, area_t = ((x[..., 2] - x[..., 0]) * (x[..., 3] - x[..., 1]) for x in (a, t))
        union = area_a + area_t - overlap
        return np.where((overlap > 0) & (union > 0), overlap / union, np.float32(0))


def _bipartite(iou: np.ndarray) -> np.ndarray:
    """Return the ground truth of each anchor in the first stage; -1 for none."""
    free = iou.copy()
    given = np.full(len(iou), -1)
    for _ in range(iou.shape[1]):
        best, truth = np.unravel_index(free.argmax(), free.shape)
        if not free[best, truth] > _MIN_IOU:
            break
        given[best] = truth
        free[best, :] = 0
        free[:, truth] = 0
    return given


def _mining_count(positive: np.ndarray, ratio: float) -> int:
    num_positive = int(positive.sum())
    with np.errstate(all="ignore"):
        wanted = float(np.float32(num_positive) * ratio)
    return int(min(wanted, len(positive) - num_positive)) if wanted >= 1 else 0


def _mine(logits: np.ndarray, candidates: np.ndarray, count: int) -> np.ndarray:
    """Return a mask of the candidates with the lowest probability of background."""
    places = np.flatnonzero(candidates)
    logits = logits[:, places]
    top = logits[0]
    for row in logits[1:]:
        top = np.where(row > top, row, top)
    with np.errstate(all="ignore"):
        exp = _exp_log.exp(logits - top)
        total = np.zeros_like(top)
        for row in exp:
            total = total + row
        background = exp[0] / total
    negative = np.zeros(len(candidates), bool)
    negative[places[np.argsort(background, kind="stable")[:count]]] = True
    return negative


def _encode(anchors: np.ndarray, truths: np.ndarray, options: _Options) -> np.ndarray:
    with np.errstate(all="ignore"):
        size = anchors[:, 2:] - anchors[:, :2]
        center = (anchors[:, :2] + anchors[:, 2:]) * np.float32(0.5)
        truth_size = truths[:, 2:] - truths[:, :2]
        truth_center = (truths[:, :2] + truths[:, 2:]) * np.float32(0.5)
        offsets = np.concatenate(
            [(truth_center - center) / size, _exp_log.log(truth_size / size)], axis=1
        )
        return offsets / np.array(options[4:])


def _empty_results(device: DeviceOps, shape: _Shape) -> tuple[Any, Any, Any]:
    images, anchors, _, _, _ = shape
    offsets, classes = (images, 4 * anchors), (images, anchors)
    if images * anchors < _FEW_ANCHORS:
        loc_target = device.empty(offsets, np.float32)
        loc_mask = device.empty(offsets, np.float32)
        return loc_target, loc_mask, device.empty(classes, np.float32)
    return device.empty_all((offsets, np.float32), (offsets, np.float32), (classes, np.float32))


@_OP.implementation("native")
def _native(
    device: DeviceOps,
    anchor: np.ndarray,
    label: np.ndarray,
    cls_pred: np.ndarray,
    shape: _Shape,
    options: _Options,
) -> tuple[np.ndarray, ...]:
    loc_target, loc_mask, cls_target = _empty_results(device, shape)
    if shape[0] > 0:  # without images another size may be more than an int holds
        device.ops.multibox_target(
            loc_target, loc_mask, cls_target, anchor, label, cls_pred, shape, options
        )
    return loc_target, loc_mask, cls_target

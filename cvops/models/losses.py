"""Losses of anchor-based detectors, for MXNet arrays and symbols.

B images, A anchors, C classes without the background, which is class 0 in predictions. Shapes and
argument order are those of "Dive into Deep Learning", 9.7:

- ``cls_preds``, (B, A, C + 1): logits
- ``cls_labels``, (B, A): class of each anchor, 0 to C; 0 is the background. Anchors below 0 are
  ignored. MultiBoxTarget returns such labels for anchors that mining omits, and for all anchors of
  an image without objects: see ``label_background``.
- ``bbox_preds`` and ``bbox_labels``, (B, A * 4): offsets from each anchor to its box
- ``bbox_masks``, (B, A * 4): 1 if the anchor has a box, or else 0

A label that is not a class (C + 1, 0.5, NaN) raises a ValueError on the CPU, which names the label
and its position. In a graph (hybridized) and on a GPU the loss of its image is NaN.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from cvops._mxnet import mxnet
from cvops.ops._check import choice, number, numbers

mx = mxnet()

#: Minimum 1 - p of the power in a focal loss: for gamma < 1 the slope at 0 is infinite.
_MIN_COMPLEMENT = 1e-30


def on_cpu(x: Any) -> bool:
    """Return True if ``x`` is an array on the CPU; False for symbols and arrays on a GPU."""
    return isinstance(x, mx.nd.NDArray) and x.ctx.device_type != "gpu"


def _is_below_0(labels: Any) -> Any:
    return labels < 0


def check_classes(name: str, labels: Any, classes: int, ignored: str, is_ignored: Any) -> None:
    """Raise a ValueError for the first label that is neither 0 to ``classes`` - 1 nor ignored.

    Args:
        name: name of the labels, for the message.
        labels: an array on the CPU.
        classes: the number of classes.
        ignored: text of the message about labels that are ignored.
        is_ignored: function from an array of labels to the mask of ignored labels.
    """
    values = labels.asnumpy()
    known = (values >= 0) & (values < classes) & (values == np.floor(values))
    wrong = ~(known | is_ignored(values))
    if wrong.any():
        at = tuple(map(int, np.argwhere(wrong)[0]))
        raise ValueError(
            f"{name}: expected classes 0 to {classes - 1}{ignored}, got {values[at]:g} at {at}"
        )


def nan_if_unknown(F: Any, labels: Any, preds: Any, axis: int, rank: int, is_ignored: Any) -> Any:
    """Return 1 for each label that is a class of ``preds`` or is ignored, and NaN for the others.

    It works in graphs, where shapes are unknown.

    Args:
        axis: axis of the classes in ``preds``.
        rank: number of axes of ``labels``.
        is_ignored: as in ``check_classes``.
    """
    labels = F.BlockGrad(F.cast(labels, "float32"))
    shape = F.cast(F.shape_array(preds), "float32")
    classes = F.slice_axis(shape, axis=0, begin=axis, end=axis + 1).reshape((1,) * rank)
    known = F.broadcast_lesser(labels, classes) * (labels >= 0) * (labels == F.floor(labels))
    known = (known + is_ignored(labels)) > 0
    return F.BlockGrad(known / known)


def cross_entropy(F: Any, cls_preds: Any, cls_labels: Any) -> Any:
    """Return -log p of each anchor's class, (B, A); a class below 0 counts as 0, as in Gluon.

    ``F`` is ``mx.nd`` or ``mx.sym``. The loss is computed from the logits, because a probability
    can round to 0. It is finite for finite logits with finite differences.

    Raises:
        ValueError: a label on the CPU is not a class. In a graph its loss is NaN.
    """
    if on_cpu(cls_labels):
        check_classes("cls_labels", cls_labels, cls_preds.shape[-1], ", or below 0", _is_below_0)
    known = nan_if_unknown(F, cls_labels, cls_preds, 2, 2, _is_below_0)
    return -F.pick(F.log_softmax(cls_preds), cls_labels) * known


def focal(F: Any, cls_preds: Any, cls_labels: Any, alpha: float = 0.25, gamma: float = 2.0) -> Any:
    """Return -alpha (1 - p)^gamma log p of each anchor's class, (B, A) (Lin et al., 2017).

    Anchors with a large p have less weight. ``alpha`` is the same for all classes, as in the book.
    With gamma 0 and alpha 1 this is the cross entropy.
    """
    log_p = -cross_entropy(F, cls_preds, cls_labels)
    if gamma == 0:  # the gradient of 0^0 is NaN
        return -alpha * log_p
    return -alpha * F.maximum(-F.expm1(log_p), _MIN_COMPLEMENT) ** gamma * log_p


def l1(F: Any, errors: Any) -> Any:
    """Return ``|x|`` of each error x."""
    return F.abs(errors)


def smooth_l1(F: Any, errors: Any, scale: float = 1.0) -> Any:
    """Return the smooth L1 of each error x.

    It is ``(scale x)^2 / 2`` if ``|x| < 1 / scale^2``, or else ``|x| - 1 / (2 scale^2)``.
    """
    return F.smooth_l1(errors, scalar=scale)


def label_background(F: Any, cls_labels: Any, count: int = 0, cls_preds: Any = None) -> Any:
    """Return ``cls_labels`` with background anchors (class 0) in each image without objects.

    An image without objects is one whose labels are all below 0. The network learns the background
    from it.

    Args:
        count: number of anchors of such an image that become background: those with the largest
            cross entropy for ``cls_preds``. 0: all anchors.
    """
    empty = F.max(cls_labels, axis=1, keepdims=True) < 0
    background = F.zeros_like(cls_labels)
    if count:
        errors = F.BlockGrad(cross_entropy(F, cls_preds, background))
        background = F.topk(errors, axis=1, k=count, ret_typ="mask") - 1
    return F.where(F.broadcast_like(empty, cls_labels), background, cls_labels)


def weights_of(block: Any, class_weights: Any, classes: int | None = None) -> Any:
    """Return a constant of ``block``, the weight of each class; None without weights.

    ``block.initialize`` puts it on devices. ``hybrid_forward`` gets it as ``class_weights``.

    Raises:
        TypeError: a weight is not a number.
        ValueError: a weight is below 0 or infinite, or there are not ``classes`` of them.
    """
    if class_weights is None:
        return None
    values = numbers("class_weights", class_weights, classes)
    if not all(0 <= value < np.inf for value in values):
        raise ValueError(f"class_weights: expected numbers of 0 or more, got {class_weights!r}")
    return block.params.get_constant("class_weights", mx.nd.array(values))


def weighted(F: Any, losses: Any, labels: Any, class_weights: Any) -> Any:
    """Return ``losses`` times the weights of their classes, ``labels``, if there are weights."""
    if class_weights is None:
        return losses
    return losses * F.take(class_weights, F.BlockGrad(labels))  # indices are clipped


class DetectionLoss(mx.gluon.HybridBlock):  # type: ignore[misc, name-defined]
    """Loss of each image, (B,), from cls_preds, cls_labels, bbox_preds, bbox_labels, bbox_masks.

    It is the sum of two losses: that of the classes, for anchors whose label is 0 or more, and that
    of the offsets whose mask is 1. All anchors of an image without objects are background: see
    ``label_background``. To minimize the mean over the images, call ``loss.backward()`` and then
    ``trainer.step(B)``.

    Args:
        classes: loss of the classes, "cross_entropy" or "focal".
        boxes: loss of the offsets, "l1" or "smooth_l1".
        per: divisor of the sums. "anchor": the number of anchors, ignored ones included (for the
            offsets four times that number). This is the book's ``calc_loss`` if all anchors have a
            label. "box": the number of anchors with a box, as the mean over the images of the batch
            on this device, at least 1. Few of thousands of anchors have a box, so with "anchor" the
            offsets learn slowly at first.
        alpha, gamma: options of ``focal``.
        scale: option of ``smooth_l1``.
        class_weights: factors of the loss of the classes, C + 1 numbers of 0 or more; the
            background is first. ``initialize`` puts them on devices.

    Raises:
        TypeError: alpha, gamma, scale or a weight is not a number.
        ValueError: a name is not one of these, alpha or scale is not above 0, or gamma or a weight
            is below 0. A call raises it for labels: see the module.
    """

    def __init__(
        self,
        classes: str = "cross_entropy",
        boxes: str = "l1",
        per: str = "anchor",
        alpha: float = 0.25,
        gamma: float = 2.0,
        scale: float = 1.0,
        class_weights: Sequence[float] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.class_weights = weights_of(self, class_weights)
        choice("classes", classes, ("cross_entropy", "focal"))
        choice("boxes", boxes, ("l1", "smooth_l1"))
        choice("per", per, ("anchor", "box"))
        alpha, scale = number("alpha", alpha, 0), number("scale", scale, 0)
        for name, value in (("alpha", alpha), ("scale", scale)):
            if value == 0:
                raise ValueError(f"{name}: expected a number above 0, got {value!r}")
        gamma = number("gamma", gamma, 0)
        self.of_classes: Any = cross_entropy
        if classes == "focal":
            self.of_classes = functools.partial(focal, alpha=alpha, gamma=gamma)
        self.of_errors: Any = l1
        if boxes == "smooth_l1":
            self.of_errors = functools.partial(smooth_l1, scale=scale)
        self.per = per

    def hybrid_forward(
        self,
        F: Any,
        cls_preds: Any,
        cls_labels: Any,
        bbox_preds: Any,
        bbox_labels: Any,
        bbox_masks: Any,
        class_weights: Any = None,
    ) -> Any:
        cls_labels = label_background(F, cls_labels)
        class_losses = self.of_classes(F, cls_preds, cls_labels) * (cls_labels >= 0)
        class_losses = weighted(F, class_losses, cls_labels, class_weights)
        offset_losses = self.of_errors(F, (bbox_preds - bbox_labels) * bbox_masks)
        if self.per == "anchor":
            return F.mean(class_losses, axis=1) + F.mean(offset_losses, axis=1)
        matched = F.maximum(F.mean(F.sum(bbox_masks, axis=1)) / 4, 1)
        return F.broadcast_div(F.sum(class_losses, axis=1) + F.sum(offset_losses, axis=1), matched)


def calc_loss(
    cls_preds: Any, cls_labels: Any, bbox_preds: Any, bbox_labels: Any, bbox_masks: Any
) -> Any:
    """Return the book's loss of each image, (B,): means over all anchors of cross entropy and L1.

    As in the book, a label below 0 counts as background. ``DetectionLoss`` ignores it.
    """
    is_np = isinstance(cls_preds, mx.np.ndarray)
    cls_preds, cls_labels = cls_preds.as_nd_ndarray(), cls_labels.as_nd_ndarray()
    class_losses = cross_entropy(mx.nd, cls_preds, cls_labels)
    offset_errors = bbox_preds * bbox_masks - bbox_labels * bbox_masks
    offset_losses = l1(mx.nd, offset_errors.as_nd_ndarray())
    losses = class_losses.mean(axis=1) + offset_losses.mean(axis=1)
    return losses.as_np_ndarray() if is_np else losses


def cls_eval(cls_preds: Any, cls_labels: Any) -> float:
    """Return the number of anchors in the batch whose class is right."""
    classes = cls_preds.as_nd_ndarray().argmax(axis=-1)
    return float((classes == cls_labels.as_nd_ndarray()).sum().asscalar())


def bbox_eval(bbox_preds: Any, bbox_labels: Any, bbox_masks: Any) -> float:
    """Return the sum over the batch of the absolute errors of the offsets whose mask is 1."""
    errors = (bbox_labels - bbox_preds) * bbox_masks
    return float(errors.as_nd_ndarray().abs().sum().asscalar())

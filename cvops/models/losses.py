"""Losses of anchor-based detectors, in MXNet arrays and symbols alike.

B images, A anchors, C classes without the background, which is class 0 of what a
network predicts. The shapes and the order of the arguments are those of "Dive into
Deep Learning", 9.7:

- ``cls_preds``, (B, A, C + 1): logits
- ``cls_labels``, (B, A): class of each anchor, 0 to C, 0 for the background; below 0 for an
  anchor in no loss. MultiBoxTarget gives such labels to the anchors that mining leaves out,
  and to all anchors of an image without objects: see ``label_background``.
- ``bbox_preds`` and ``bbox_labels``, (B, A * 4): offsets from each anchor to its box
- ``bbox_masks``, (B, A * 4): 1 where the anchor has a box, 0 elsewhere

A label that is no class (C + 1, 0.5, NaN) raises a ValueError on the CPU, which names the label and
its place. In a graph (hybridized) and on a GPU the loss of its image is NaN.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from cvops._mxnet import mxnet
from cvops.ops._check import choice, number

mx = mxnet()

#: The least 1 - p that a focal loss takes the power of: the slope of a root at 0 is infinite.
_LEAST = 1e-30


def on_cpu(x: Any) -> bool:
    """True if the values of ``x`` can be looked at: for no symbol, and for no array on a GPU."""
    return isinstance(x, mx.nd.NDArray) and x.context.device_type != "gpu"


def _is_below_0(labels: Any) -> Any:
    return labels < 0


def check_classes(name: str, labels: Any, classes: int, spared: str, is_spared: Any) -> None:
    """Refuse the first label that is neither one of 0 to ``classes`` - 1 nor spared.

    Args:
        labels: an array on the CPU.
        spared: the text of the error for other labels that are allowed.
        is_spared: from an array of labels to the places of such others.
    """
    values = labels.asnumpy()
    known = (values >= 0) & (values < classes) & (values == np.floor(values))
    wrong = ~(known | is_spared(values))
    if wrong.any():
        at = tuple(map(int, np.argwhere(wrong)[0]))
        raise ValueError(
            f"{name}: expected classes 0 to {classes - 1}{spared}, got {values[at]:g} at {at}"
        )


def nan_if_unknown(F: Any, labels: Any, preds: Any, axis: int, rank: int, is_spared: Any) -> Any:
    """1 for each label that is a class of ``preds`` or spared, and NaN for the others.

    Works in graphs, where shapes are not known: ``axis`` is that of the classes in ``preds``,
    ``rank`` the number of axes of ``labels``.
    """
    labels = F.BlockGrad(F.cast(labels, "float32"))
    shape = F.cast(F.shape_array(preds), "float32")
    classes = F.slice_axis(shape, axis=0, begin=axis, end=axis + 1).reshape((1,) * rank)
    known = F.broadcast_lesser(labels, classes) * (labels >= 0) * (labels == F.floor(labels))
    known = (known + is_spared(labels)) > 0
    return F.BlockGrad(known / known)


def cross_entropy(F: Any, cls_preds: Any, cls_labels: Any) -> Any:
    """-log p of each anchor's class, (B, A); a class below 0 counts as 0, as in Gluon.

    ``F`` is ``mx.nd`` or ``mx.sym``. The logits are used, not the probabilities, which could be
    rounded to 0: finite for all finite logits whose differences are finite.

    Raises:
        ValueError: a label on the CPU is no class; in a graph the result is NaN.
    """
    if on_cpu(cls_labels):
        check_classes("cls_labels", cls_labels, cls_preds.shape[-1], ", or below 0", _is_below_0)
    known = nan_if_unknown(F, cls_labels, cls_preds, 2, 2, _is_below_0)
    return -F.pick(F.log_softmax(cls_preds), cls_labels) * known


def focal(F: Any, cls_preds: Any, cls_labels: Any, alpha: float = 0.25, gamma: float = 2.0) -> Any:
    """-alpha (1 - p)^gamma log p of each anchor's class, (B, A) (Lin et al., 2017).

    Anchors that are classified well already weigh less. ``alpha`` is one factor for
    all classes, as in the book; gamma 0 and alpha 1 is the cross entropy.
    """
    log_p = -cross_entropy(F, cls_preds, cls_labels)
    if gamma == 0:  # the slope of 0^0 is not a number
        return -alpha * log_p
    return -alpha * F.maximum(-F.expm1(log_p), _LEAST) ** gamma * log_p


def l1(F: Any, errors: Any) -> Any:
    """|x| of each error."""
    return F.abs(errors)


def smooth_l1(F: Any, errors: Any, scale: float = 1.0) -> Any:
    """(scale x)^2 / 2 of each error x with |x| < 1 / scale^2, and |x| - 1 / (2 scale^2) beyond."""
    return F.smooth_l1(errors, scalar=scale)


def label_background(F: Any, cls_labels: Any, count: int = 0, cls_preds: Any = None) -> Any:
    """``cls_labels`` with anchors of class 0 in each image without objects.

    An image without objects is one whose labels are all below 0. It teaches the background.

    Args:
        count: how many anchors of such an image become background, those with the largest cross
            entropy for ``cls_preds``. 0: all of them.
    """
    empty = F.max(cls_labels, axis=1, keepdims=True) < 0
    background = F.zeros_like(cls_labels)
    if count:
        errors = F.BlockGrad(cross_entropy(F, cls_preds, background))
        background = F.topk(errors, axis=1, k=count, ret_typ="mask") - 1
    return F.where(F.broadcast_like(empty, cls_labels), background, cls_labels)


class DetectionLoss(mx.gluon.HybridBlock):  # type: ignore[misc, name-defined]
    """cls_preds, cls_labels, bbox_preds, bbox_labels, bbox_masks to a loss of each image, (B,).

    The loss of the classes over the anchors whose label is not below 0, plus that of the
    offsets where the mask is 1. All anchors of an image without objects are background: see
    ``label_background``. Its mean over the images is what to minimize:
    ``loss.backward()``, then ``trainer.step(B)``.

    Args:
        classes: "cross_entropy" or "focal".
        boxes: "l1" or "smooth_l1".
        per: what the sums are divided by. "anchor": by the number of anchors (and the
            offsets' by four times that), those that count for nothing included: the
            book's ``calc_loss`` where every anchor has a label. "box": by the number of
            anchors with a box, the mean over the images of the batch on this device (1
            if that is less). Both say the same of the direction, but few of thousands of
            anchors have a box, and the offsets would hardly be learnt at first.
        alpha, gamma: of the focal loss, see ``focal``.
        scale: of the smooth L1 loss, see ``smooth_l1``.

    Raises:
        TypeError: alpha, gamma or scale is not a number.
        ValueError: a name is not one of those, alpha or scale is not above 0, or gamma
            is below 0; when called, see the module on labels.
    """

    def __init__(
        self,
        classes: str = "cross_entropy",
        boxes: str = "l1",
        per: str = "anchor",
        alpha: float = 0.25,
        gamma: float = 2.0,
        scale: float = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
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
    ) -> Any:
        cls_labels = label_background(F, cls_labels)
        of_classes = self.of_classes(F, cls_preds, cls_labels) * (cls_labels >= 0)
        errors = self.of_errors(F, (bbox_preds - bbox_labels) * bbox_masks)
        if self.per == "anchor":
            return F.mean(of_classes, axis=1) + F.mean(errors, axis=1)
        fitted = F.maximum(F.mean(F.sum(bbox_masks, axis=1)) / 4, 1)
        return F.broadcast_div(F.sum(of_classes, axis=1) + F.sum(errors, axis=1), fitted)


def calc_loss(
    cls_preds: Any, cls_labels: Any, bbox_preds: Any, bbox_labels: Any, bbox_masks: Any
) -> Any:
    """The book's loss of each image, (B,): means over all anchors of cross entropy and L1.

    As there, a label under 0 counts as background; ``DetectionLoss`` leaves it out.
    """
    of_classes = cross_entropy(mx.nd, cls_preds, cls_labels)
    errors = l1(mx.nd, bbox_preds * bbox_masks - bbox_labels * bbox_masks)
    return of_classes.mean(axis=1) + errors.mean(axis=1)


def cls_eval(cls_preds: Any, cls_labels: Any) -> float:
    """How many anchors of the batch have their class right."""
    return float((cls_preds.argmax(axis=-1) == cls_labels).sum().asscalar())


def bbox_eval(bbox_preds: Any, bbox_labels: Any, bbox_masks: Any) -> float:
    """Sum over the batch of the absolute errors of the offsets where the mask is 1."""
    return float(((bbox_labels - bbox_preds) * bbox_masks).abs().sum().asscalar())

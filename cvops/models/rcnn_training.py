"""The losses and the training step of Fast, Faster and Mask R-CNN."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cvops._mxnet import mxnet
from cvops._networks import rcnn as shared
from cvops._networks.rcnn import MASK_CELLS, SAMPLE_RATIO, STDS
from cvops.models import steps
from cvops.models.losses import on_cpu, smooth_l1, weighted, weights_of
from cvops.models.rcnn_networks import FasterRCNN, FastRCNN, image_size
from cvops.models.steps import contexts
from cvops.models.tiny_ssd import check_labels, nan_if_invalid
from cvops.ops._check import choice

mx = mxnet()

#: Samples of an image for the losses: anchors, rois; the fraction of rois with an object.
_RPN_SAMPLES, _ROI_SAMPLES, _ROI_POSITIVE = 64, 32, 0.25


class RCNNTraining(mx.gluon.HybridBlock):  # type: ignore[misc, name-defined]
    """Block from images and labels to losses, including the targets, for training of ``net``.

    The inputs, in this order:

    - images (B, 3, H, W)
    - labels (B, m, 5 or more): rows (class, x1, y1, x2, y2, ...), then rows of -1, as for
      ``Training`` of the SSD, with the same errors
    - with ``net.mask`` and the heads: masks (B, m, H, W) of 0 and 1, one for each row. The mask
      loss omits objects with an empty mask.
    - noise (B, K) of uniform random numbers, by which targets are sampled. K is A for the RPN,
      N + m for the heads, A + N + m for both. ``noise`` draws it.
    - for the heads alone: proposals (B, N, 4)

    The outputs are the loss of each image, (B,), and its parts, (B,) each: class and box of the
    RPN; class, box and mask of the heads, as far as there are.

    Targets: of the anchors 64 are sampled, at most half of them positive (IoU of 0.7 or more, or
    the best of an object). The proposals and the labels are candidates for 32 rois, at most a
    quarter of them positive (IoU of 0.5 or more). The losses are cross entropy for the classes and
    the cells of the masks, and smooth L1 for the offsets.

    Args:
        net: the network.
        parts: "all", approximate joint training of RPN and heads; "rpn"; or "heads". A ``FastRCNN``
            has only "heads", which is its default.
        class_weights: factors of the loss of the heads' classes, C + 1 numbers of 0 or more; the
            background is first. ``initialize`` puts them on devices.
    """

    def __init__(
        self,
        net: FastRCNN,
        parts: str | None = None,
        class_weights: Sequence[float] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.class_weights = weights_of(self, class_weights, len(net.classes) + 1)
        # Only the blocks in use are children: MXNet warns about unused parameters of a graph.
        object.__setattr__(self, "net", net)
        known = ("all", "rpn", "heads") if isinstance(net, FasterRCNN) else ("heads",)
        self.parts = choice("parts", known[0] if parts is None else parts, known)
        self.has_rpn, self.has_heads = self.parts != "heads", self.parts != "rpn"
        self.has_masks = net.mask and self.has_heads
        self.backbone = net.backbone
        if self.has_rpn:
            self.rpn = net.rpn
        if self.has_heads:
            self.box_head = net.box_head
        if self.has_masks:
            self.mask_head = net.mask_head

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the parts of the loss."""
        return (
            *(("rpn class", "rpn box") if self.has_rpn else ()),
            *(("class", "box") if self.has_heads else ()),
            *(("mask",) if self.has_masks else ()),
        )

    def noise_width(self, images: Any, labels: Any, proposals: Any = None) -> int:
        """Return the number K of random numbers of an image."""
        width = 0
        if self.has_rpn:
            anchors = self.net.num_anchors(*images.shape[2:])
            width += anchors
        if self.has_heads:
            width += labels.shape[1]
            width += min(shared.POST_NMS, anchors) if proposals is None else proposals.shape[1]
        return width

    def noise(self, images: Any, labels: Any, proposals: Any = None) -> Any:
        """Draw noise for a batch, on the CPU, by MXNet's generator."""
        shape = len(images), self.noise_width(images, labels, proposals)
        return mx.nd.random.uniform(shape=shape)

    def hybrid_forward(
        self, F: Any, images: Any, labels: Any, *rest: Any, class_weights: Any = None
    ) -> tuple[Any, ...]:
        net, given = self.net, list(rest)
        if on_cpu(labels):
            check_labels(labels, len(net.classes))
        masks = given.pop(0) if self.has_masks else None
        noise = F.BlockGrad(given.pop(0))
        valid = nan_if_invalid(F, labels, len(net.classes))
        objects = F.BlockGrad(F.slice_axis(labels, axis=2, begin=0, end=5))
        maps = net.backbone(images)
        losses: list[Any] = []
        proposals = given.pop(0) if self.parts == "heads" else None
        if isinstance(net, FasterRCNN) and self.has_rpn:
            anchors, logits, offsets = net.regions(F, maps)
            losses += self._rpn_losses(F, anchors, logits, offsets, objects, noise)
            if self.has_heads:
                proposals = net.propose(F, anchors, logits, offsets)
        if self.has_heads:
            losses += self._head_losses(
                F, images, maps, F.BlockGrad(proposals), objects, masks, noise, class_weights
            )
        total = sum(losses[1:], losses[0])
        return (F.broadcast_mul(total, valid), *losses)

    def _rpn_losses(
        self, F: Any, anchors: Any, logits: Any, offsets: Any, objects: Any, noise: Any
    ) -> list[Any]:
        targets = F.contrib.cvops_rpn_target(
            F.BlockGrad(anchors),
            objects,
            F.slice_like(noise, F.BlockGrad(logits), axes=(1,)),
            num_sample=_RPN_SAMPLES,
            stds=STDS,
        )
        kinds, wanted, weights = map(F.BlockGrad, targets)
        sampled = kinds >= 0
        count = F.maximum(F.sum(sampled, axis=1), 1)
        errors = _binary_cross_entropy(F, logits, kinds == 1) * sampled
        moves = smooth_l1(F, (offsets - wanted) * weights, 3)
        return [
            F.sum(errors, axis=1) / count,
            F.sum(moves, axis=(1, 2)) / count,
        ]

    def _head_losses(
        self,
        F: Any,
        images: Any,
        maps: Any,
        proposals: Any,
        objects: Any,
        masks: Any,
        noise: Any,
        class_weights: Any,
    ) -> list[Any]:
        net, num = self.net, len(self.net.classes)
        candidates = F.concat(
            *(F.slice_axis(x, axis=2, begin=0, end=1) for x in (proposals, objects)), dim=1
        ).reshape((0, 0))
        targets = F.contrib.cvops_rcnn_target(
            proposals,
            objects,
            # The RPN has the first numbers of the noise, so the heads take the last ones.
            F.slice_like(F.reverse(noise, axis=1), candidates, axes=(1,)),
            num_sample=_ROI_SAMPLES,
            pos_ratio=_ROI_POSITIVE,
            stds=STDS,
        )
        rois, kinds, matches, wanted, weights = map(F.BlockGrad, targets)
        logits, offsets = net.heads(F, images, maps, rois)
        errors = weighted(F, -F.pick(F.log_softmax(logits), kinds), kinds, class_weights)
        mine = F.one_hot(kinds - 1, num).expand_dims(axis=3)  # (B, n, C, 1); 0 for the background
        moves = F.broadcast_sub(offsets, wanted.expand_dims(axis=2))
        moves = F.broadcast_mul(F.broadcast_mul(moves, weights.expand_dims(axis=2)), mine)
        moves = F.sum(smooth_l1(F, moves), axis=(2, 3))
        losses = [F.mean(errors, axis=1), F.sum(moves, axis=1) / _ROI_SAMPLES]
        if masks is None:
            return losses
        count = int(_ROI_SAMPLES * _ROI_POSITIVE)  # rois with an object come first
        rois, kinds, matches = (
            F.slice_axis(x, axis=1, begin=0, end=count) for x in (rois, kinds, matches)
        )
        masks = F.BlockGrad(F.cast(masks, "float32"))
        filled = F.pick(
            F.broadcast_like(
                F.max(masks, axis=(2, 3)).expand_dims(axis=1), kinds, lhs_axes=(1,), rhs_axes=(1,)
            ),
            matches,
        )
        targets = F.contrib.cvops_mrcnn_mask_target(
            F.broadcast_mul(rois, image_size(F, images)),
            masks,
            F.relu(matches),
            F.where(filled > 0, kinds - 1, -F.ones_like(kinds)),
            num_rois=count,
            num_classes=num,
            mask_size=tuple(2 * cells for cells in MASK_CELLS),
            sample_ratio=SAMPLE_RATIO,
        )
        wanted, weights = map(F.BlockGrad, targets)
        logits = net.masks(F, images, maps, rois)
        errors = _binary_cross_entropy(F, F.reshape_like(logits, wanted), wanted) * weights
        cells = F.maximum(F.sum(weights, axis=(1, 2, 3, 4)), 1)
        return [*losses, F.sum(errors, axis=(1, 2, 3, 4)) / cells]


def _binary_cross_entropy(F: Any, logits: Any, targets: Any) -> Any:
    """Return the cross entropy of sigmoid(logits) for each target of 0 to 1."""
    return F.relu(logits) - logits * targets + F.Activation(-F.abs(logits), "softrelu")


def train_step(
    training: RCNNTraining,
    trainer: Any,
    images: Any,
    labels: Any,
    masks: Any = None,
    proposals: Any = None,
    noise: Any = None,
    devices: Sequence[Any] | None = None,
) -> list[Any]:
    """Run one training step: forward, backward, update of the weights.

    Args:
        training: hybridized or not.
        trainer: a ``gluon.Trainer`` of the network's parameters.
        images, labels, masks, proposals: a batch, as for ``training``, on any device.
        noise: as for ``training``; drawn by MXNet's generator by default.
        devices: as for ``train_step`` of the SSD.

    Returns:
        The outputs of ``training`` on each device.

    Raises:
        ValueError: an input is missing, or has another number of images; the batch has fewer images
            than devices; ``labels`` are on the CPU and ``check_labels`` rejects them.
    """
    if devices is None:
        devices = contexts(training.net)
    if on_cpu(labels):
        check_labels(labels, len(training.net.classes))
    needed = {
        "labels": (labels, True),
        "masks": (masks, training.has_masks),
        "proposals": (proposals, training.parts == "heads"),
    }
    for name, (array, is_needed) in needed.items():
        if is_needed and (array is None or len(array) != len(images)):
            got = "none" if array is None else len(array)
            raise ValueError(f"{name}: expected {name} of {len(images)} images, got {got}")
    if noise is None:
        noise = training.noise(images, labels, proposals)
    batch = [images, labels]
    batch += [masks] if training.has_masks else []
    batch += [noise]
    batch += [proposals] if training.parts == "heads" else []
    return steps.step(training, trainer, batch, devices, training.parts != "all")

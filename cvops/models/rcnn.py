"""Fast, Faster and Mask R-CNN (Girshick, 2015; Ren et al., 2015; He et al., 2017), in Gluon.

B images, N proposals of an image, C classes without the background, which is class 0 in
predictions. Boxes are (x1, y1, x2, y2), corners, in fractions of the image, unless the unit is
pixels. Offsets from one box to another have the standard deviations ``STDS``.

Blocks that hybridize as a whole, including the detection ops:

- ``FasterRCNN``: images to proposals and the predictions for them; with ``mask=True`` it is a Mask
  R-CNN. ``FastRCNN`` is the same with proposals as an input.
- ``RCNNTraining``: images, labels and masks to losses
- ``RCNNDetector``: images to detections and masks, for export
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cvops._mxnet import mxnet
from cvops._networks import rcnn as shared
from cvops._networks.rcnn import BOX_CELLS, CLIP, MASK_CELLS, MASK_CHANNELS, SAMPLE_RATIO, STDS
from cvops._networks.rcnn import Prediction as Prediction
from cvops.models import saved, steps
from cvops.models.losses import on_cpu, smooth_l1, weighted, weights_of
from cvops.models.rcnn_blocks import RPN, Backbone, BoxHead, MaskHead
from cvops.models.steps import contexts
from cvops.models.steps import freeze as freeze
from cvops.models.tiny_ssd import check_labels, nan_if_invalid
from cvops.ops._check import choice, integer, number, numbers

mx = mxnet()

#: Samples of an image for the losses: anchors, rois; the fraction of rois with an object.
_RPN_SAMPLES, _ROI_SAMPLES, _ROI_POSITIVE = 64, 32, 0.25


class FastRCNN(mx.gluon.HybridBlock):  # type: ignore[misc, name-defined]
    """Network from images and proposals to (logits, offsets) of the proposals.

    Images are (B, 3, H, W), RGB of 0 to 255. Proposals are (B, N, 4), from
    ``cvops.proposals.selective_search`` for example. Rows of -1 are padding. Logits are
    (B, N, C + 1). Offsets are (B, N, C, 4), from each proposal to a box of each class.

    Args:
        classes: names of the classes, without the background.
        side: height and width of the training images in pixels, 64 to 4096. The network accepts
            other sizes.
        mask: True adds the head that predicts a mask of 28 x 28 for each class.
        roi: "align" (RoIAlign with 2 x 2 samples per cell) or "pooling" (RoI pooling).
        backbone: "small", which trains from scratch, "squeezenet" or "resnet50".
        fpn: True pools the features of a pyramid, from the map for the size of each proposal.
        hidden: units of the two dense layers of the box head.

    Raises:
        TypeError, ValueError: an argument is not as above.
    """

    def __init__(
        self,
        classes: Sequence[str],
        side: int = 128,
        mask: bool = False,
        roi: str = "align",
        backbone: str = "small",
        fpn: bool = False,
        hidden: int = 256,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        import cvops.mxnet  # noqa: F401 (registers the ops)

        self.classes, self.side, self.options = shared.arguments(
            classes, side, mask, roi, backbone, fpn, hidden
        )
        self.mask, self.roi = self.options["mask"], self.options["roi"]
        hidden = self.options["hidden"]
        with self.name_scope():
            self.backbone = Backbone(backbone, self.options["fpn"])
            channels, num = self.backbone.channels[0], len(self.classes)
            self.box_head = BoxHead(channels, BOX_CELLS[0], hidden, num)
            self.mask_head: Any = MaskHead(channels, MASK_CHANNELS, num) if self.mask else None

    def initialize(self, init: Any = None, ctx: Any = None, **kwargs: Any) -> None:
        """Initialize all layers, as in Gluon. ``init`` is Xavier's initializer by default."""
        super().initialize(mx.init.Xavier() if init is None else init, ctx, **kwargs)

    # --- parts of the forward pass, for arrays or symbols ---

    def pool(self, F: Any, images: Any, maps: Any, rois: Any, cells: tuple[int, int]) -> Any:
        """Return the features in each roi of ``images``: ``(B * N, channels, *cells)``."""
        rois = F.BlockGrad(rois)
        pixels = F.broadcast_mul(rois, _image_size(F, images))
        first = F.slice_axis(pixels, axis=2, begin=0, end=1)
        image = F.contrib.arange_like(pixels, axis=0).reshape((-1, 1, 1))
        image = F.broadcast_like(image, first, lhs_axes=(1,), rhs_axes=(1,))
        level = self._level(F, pixels) if len(maps) > 1 else None
        pooled: Any = 0
        for i, (features, stride) in enumerate(zip(maps, self.backbone.strides)):
            # The features of a roi with a negative index of its image are 0.
            index = image if level is None else F.where(level == i, image, -F.ones_like(image))
            rows = F.concat(index, pixels, dim=2).reshape((-1, 5))
            given = {"pooled_size": cells, "spatial_scale": 1 / stride}
            if self.roi == "align":
                part = F.contrib.cvops_ROIAlign(features, rows, sample_ratio=SAMPLE_RATIO, **given)
            else:
                part = F.contrib.cvops_ROIPooling(features, rows, **given)
            pooled = part if i == 0 else pooled + part
        return pooled

    def _level(self, F: Any, pixels: Any) -> Any:
        """Return the index of the map for each roi, (B, N, 1)."""
        size = F.slice_axis(pixels, axis=2, begin=2, end=4)
        size = size - F.slice_axis(pixels, axis=2, begin=0, end=2)
        area = F.prod(F.relu(size), axis=2, keepdims=True)
        limits = ((shared.PYRAMID_CELLS * stride) ** 2 for stride in self.backbone.strides[1:])
        return sum(area >= limit for limit in limits)

    def heads(self, F: Any, images: Any, maps: Any, rois: Any) -> tuple[Any, Any]:
        """Return the logits (B, N, C + 1) and the offsets (B, N, C, 4) of rois."""
        num = len(self.classes)
        logits, offsets = self.box_head(self.pool(F, images, maps, rois, BOX_CELLS))
        logits = F.reshape_like(
            logits, rois, lhs_begin=0, lhs_end=1, rhs_begin=0, rhs_end=2
        )  # (B, N, C + 1)
        offsets = F.reshape_like(offsets, rois, lhs_begin=0, lhs_end=1, rhs_begin=0, rhs_end=2)
        return logits, offsets.reshape((0, 0, num, 4))

    def masks(self, F: Any, images: Any, maps: Any, rois: Any) -> Any:
        """Return the logits of the masks of rois, (B * N, C, 28, 28)."""
        return self.mask_head(self.pool(F, images, maps, rois, MASK_CELLS))

    def hybrid_forward(self, F: Any, images: Any, *given: Any) -> tuple[Any, ...]:
        (proposals,) = given
        return self.heads(F, images, self.backbone(images), proposals)

    def detect(
        self, *inputs: Any, threshold: float = 0.05, nms_threshold: float = 0.3, most: int = 20
    ) -> Any:
        """Return what ``RCNNDetector`` returns for ``inputs``."""
        return RCNNDetector(self, threshold, nms_threshold, most)(*inputs)

    # --- files ---

    def save(self, path: str | Path) -> None:
        """Write the parameters to ``path``, and the arguments of the network next to it."""
        about = {"model": type(self).__name__, "classes": self.classes, "side": self.side}
        saved.save(self, path, {**about, "options": self.options})

    @classmethod
    def load(cls, path: str | Path) -> Any:
        """Return the network that ``save`` wrote to ``path``, on the CPU.

        Raises:
            FileNotFoundError: ``path`` or its JSON file is missing.
            ValueError: one of the two is not a file of ``save`` of this class.
        """

        def make(about: dict[str, Any]) -> Any:
            if about["model"] != cls.__name__:
                raise ValueError(about["model"])
            return cls(about["classes"], about["side"], **about["options"])

        return saved.load(path, f"a {cls.__name__}", make)


class FasterRCNN(FastRCNN):
    """Network from images to (proposals, logits, offsets): a Fast R-CNN with an RPN.

    The region proposal network (RPN) predicts an object and offsets for each anchor. The 300 best
    boxes of 4 pixels or more pass a non-maximum suppression with an IoU of 0.7. At most 60 of them
    are the proposals, in descending order of scores; the other rows are -1. No gradient passes
    through the proposals.

    Args:
        sizes: sizes of the anchors, fractions of the image. With ``fpn`` the maps have one size
            each, from fine to coarse.
        ratios: ratios of width and height of the anchors.

    The other arguments are those of ``FastRCNN``.
    """

    def __init__(
        self,
        classes: Sequence[str],
        side: int = 128,
        mask: bool = False,
        roi: str = "align",
        backbone: str = "small",
        fpn: bool = False,
        hidden: int = 256,
        sizes: Sequence[float] | None = None,
        ratios: Sequence[float] = (1, 2, 0.5),
        **kwargs: Any,
    ) -> None:
        super().__init__(classes, side, mask, roi, backbone, fpn, hidden, **kwargs)
        maps = len(self.backbone.strides)
        self._sizes, self._ratios = shared.anchor_sizes(sizes, maps), numbers("ratios", ratios)
        flat = [size for sizes in self._sizes for size in sizes]
        self.options |= {"sizes": flat, "ratios": list(self._ratios)}
        self._per_cell = len(self._sizes[0]) + len(self._ratios) - 1
        with self.name_scope():
            channels = self.backbone.channels[0]
            self.rpn = RPN(channels, self._per_cell, min(channels, 512))

    def num_anchors(self, height: int, width: int) -> int:
        """Return the number of anchors of an image."""
        maps = self.backbone(mx.sym.var("data"))
        shapes = (one.infer_shape(data=(1, 3, height, width))[1][0] for one in maps)
        return sum(self._per_cell * shape[2] * shape[3] for shape in shapes)

    def regions(self, F: Any, maps: Any) -> tuple[Any, Any, Any]:
        """Return the anchors (1, A, 4), their logits (B, A) and their offsets (B, A, 4)."""
        anchors, parts = [], []
        for features, sizes in zip(maps, self._sizes):
            shape = F.BlockGrad(features)  # anchors depend only on the shape
            anchors.append(F.contrib.cvops_MultiBoxPrior(shape, sizes=sizes, ratios=self._ratios))
            parts.append(self.rpn(features))
        if len(parts) == 1:
            return (anchors[0], *parts[0])
        logits, offsets = (F.concat(*x, dim=1) for x in zip(*parts))
        return F.concat(*anchors, dim=1), logits, offsets

    def propose(self, F: Any, anchors: Any, logits: Any, offsets: Any) -> Any:
        """Return the proposals (B, N, 4), without gradients."""
        anchors, logits, offsets = map(F.BlockGrad, (anchors, logits, offsets))
        # Arrays outside of a graph: MXNet's backward of a part of the losses crashes on this part.
        with mx.autograd.pause():
            rows = self._best_boxes(F, anchors, logits, offsets)
        return F.BlockGrad(F.slice_axis(rows, axis=2, begin=2, end=6))

    def _best_boxes(self, F: Any, anchors: Any, logits: Any, offsets: Any) -> Any:
        """Return rows of multiclass_nms, (B, N, 6)."""
        boxes = F.contrib.cvops_box_decode(
            offsets, anchors, *STDS, clip=CLIP, format="corner"
        ).clip(0, 1)
        size = F.slice_axis(boxes, axis=2, begin=2, end=4)
        size = size - F.slice_axis(boxes, axis=2, begin=0, end=2)
        large = F.min(size, axis=2) >= shared.MIN_SIDE / self.side
        scores = F.sigmoid(logits) * large  # a score of 0 is no candidate
        rows, _ = F.contrib.cvops_multiclass_nms(
            *(boxes, scores.expand_dims(axis=1)),
            overlap_thresh=shared.PROPOSAL_IOU,
            valid_thresh=0,
            topk=shared.PRE_NMS,
            post_nms=shared.POST_NMS,
        )
        return rows

    def proposals(self, images: Any) -> Any:
        """Return the proposals (B, N, 4) for arrays of images."""
        return self.propose(mx.nd, *self.regions(mx.nd, self.backbone(images)))

    def hybrid_forward(self, F: Any, images: Any, *_: Any) -> tuple[Any, ...]:
        maps = self.backbone(images)
        proposals = self.propose(F, *self.regions(F, maps))
        return (proposals, *self.heads(F, images, maps, proposals))


def _image_size(F: Any, images: Any) -> Any:
    """Return (width, height, width, height) in pixels, (1, 1, 4), for arrays and symbols."""
    shape = F.cast(F.shape_array(images), "float32")
    height, width = (F.slice_axis(shape, axis=0, begin=i, end=i + 1) for i in (2, 3))
    return F.BlockGrad(F.concat(width, height, width, height, dim=0).reshape((1, 1, 4)))


# --- detection ------------------------------------------------------------------------------------


class RCNNDetector(mx.gluon.HybridBlock):  # type: ignore[misc, name-defined]
    """Block from the inputs of ``net`` to detections (B, most, 6), and masks (B, most, 28, 28).

    Rows are (class, score, x1, y1, x2, y2), in descending order of scores. Rows of -1 are padding.
    The masks are only there with ``net.mask``. They are scores, the probability of each cell of the
    box; ``cvops.paste_masks`` pastes them into an image.

    After hybridization and one call it can be exported: ``detector.export(path)`` writes the graph
    and the parameters. ``gluon.SymbolBlock.imports`` reads them, after ``import cvops.mxnet``.

    Args:
        net: a ``FasterRCNN``, whose input is the images, or a ``FastRCNN``, whose inputs are images
            and proposals.
        threshold: the minimum score.
        nms_threshold: a better detection of its class suppresses a box if their IoU is larger.
        most: the maximum number of detections of an image.
    """

    def __init__(
        self,
        net: FastRCNN,
        threshold: float = 0.05,
        nms_threshold: float = 0.3,
        most: int = 20,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.net = net
        self.most = integer("most", most, 1)
        self.options = {
            "valid_thresh": number("threshold", threshold, 0, 1),
            "overlap_thresh": number("nms_threshold", nms_threshold, 0, 1),
        }

    def hybrid_forward(self, F: Any, images: Any, *given: Any) -> Any:
        net, num = self.net, len(self.net.classes)
        maps = net.backbone(images)
        if isinstance(net, FasterRCNN):
            proposals = net.propose(F, *net.regions(F, maps))
        else:
            (proposals,) = given
        logits, offsets = net.heads(F, images, maps, proposals)
        scores = F.slice_axis(F.softmax(logits), axis=2, begin=1, end=None)
        size = F.slice_axis(proposals, axis=2, begin=2, end=4)
        size = size - F.slice_axis(proposals, axis=2, begin=0, end=2)
        scores = F.broadcast_mul(scores, F.min(size, axis=2, keepdims=True) > 0)
        starts = F.repeat(proposals, repeats=num, axis=1)  # (B, N * C, 4)
        boxes = F.contrib.cvops_box_decode(
            *(offsets.reshape((1, -1, 4)), starts.reshape((1, -1, 4)), *STDS),
            clip=CLIP,
            format="corner",
        ).clip(0, 1)
        kinds = F.contrib.arange_like(scores, axis=2).reshape((1, 1, -1))
        kinds = F.broadcast_like(kinds, scores)
        rows = F.concat(
            *(x.reshape((0, -1, 1)) for x in (kinds, scores)), F.reshape_like(boxes, starts), dim=2
        )
        # Rows beyond N * C are padding.
        padding = F.tile(
            -F.ones_like(F.slice_axis(rows, axis=1, begin=0, end=1)), (1, self.most, 1)
        )
        rows = F.contrib.cvops_box_nms(
            rows, coord_start=2, score_index=1, id_index=0, **self.options
        )
        rows = F.slice_axis(F.concat(rows, padding, dim=1), axis=1, begin=0, end=self.most)
        if not net.mask:
            return rows
        kinds = F.slice_axis(rows, axis=2, begin=0, end=1)
        found = F.slice_axis(rows, axis=2, begin=2, end=6)
        mine = F.one_hot(kinds.reshape((-1,)), num).reshape((0, 0, 1, 1))
        logits = F.sum(F.broadcast_mul(net.masks(F, images, maps, found), mine), axis=1)
        masks = F.reshape_like(
            F.sigmoid(logits), kinds, lhs_begin=0, lhs_end=1, rhs_begin=0, rhs_end=2
        )
        return rows, F.broadcast_mul(masks, kinds.expand_dims(axis=3) >= 0)


def predict(
    net: FastRCNN,
    image: Any,
    threshold: float = 0.5,
    nms_threshold: float = 0.3,
    proposals: Any = None,
    detector: Any = None,
) -> Prediction:
    """Return the detections of ``net`` in one image, in descending order of scores.

    Args:
        image: a Pillow image, read by the rules of ``cvops.images``, or an array of NumPy or MXNet,
            RGB, uint8 (H, W, 3). It is resized to the size of the training images.
        threshold: the minimum score.
        nms_threshold: see ``RCNNDetector``.
        proposals: boxes (n, 4) in pixels of ``image``, for a ``FastRCNN`` only.
        detector: a hybridized ``RCNNDetector`` of ``net``, which has its own two thresholds.

    Raises:
        ValueError: ``image`` is an array of another shape or dtype, or a Pillow image whose pixels
            have no rule; ``proposals`` are missing, or not for this network.
    """

    def detect(*arrays: Any) -> list[Any]:
        ctx = contexts(net)[0]
        block = RCNNDetector(net, threshold, nms_threshold) if detector is None else detector
        out = block(*(mx.nd.array(x, ctx=ctx) for x in arrays))
        return [x.asnumpy() for x in (out if net.mask else [out])]

    proposes = isinstance(net, FasterRCNN)
    return shared.predict(net, image, threshold, proposals, proposes, detect)


# --- training -------------------------------------------------------------------------------------


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
            F.broadcast_mul(rois, _image_size(F, images)),
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

"""The networks of Fast, Faster and Mask R-CNN, and their detections. :mod:`rcnn` describes them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cvops._mxnet import mxnet
from cvops._networks import rcnn as shared
from cvops._networks.rcnn import BOX_CELLS, CLIP, MASK_CELLS, MASK_CHANNELS, SAMPLE_RATIO, STDS
from cvops.models import saved
from cvops.models.rcnn_blocks import RPN, Backbone, BoxHead, MaskHead
from cvops.ops._check import integer, number, numbers

mx = mxnet()


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
        pixels = F.broadcast_mul(rois, image_size(F, images))
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


def image_size(F: Any, images: Any) -> Any:
    """Return (width, height, width, height) in pixels, (1, 1, 4), for arrays and symbols."""
    shape = F.cast(F.shape_array(images), "float32")
    height, width = (F.slice_axis(shape, axis=0, begin=i, end=i + 1) for i in (2, 3))
    return F.BlockGrad(F.concat(width, height, width, height, dim=0).reshape((1, 1, 4)))


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

"""Fast, Faster and Mask R-CNN as modules of PyTorch.

B images, N proposals of an image, A anchors, C classes without the background. Boxes are
(x1, y1, x2, y2), corners, in fractions of the image, unless the unit is pixels.
:mod:`cvops.models.rcnn` describes the networks. It also trains them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from cvops._networks import rcnn as shared
from cvops._networks.rcnn import CLIP, STDS
from cvops._networks.rcnn import Prediction as Prediction
from cvops.ops._check import integer, number, numbers
from cvops.torch.models import saved
from cvops.torch.models.rcnn_blocks import RPN, Backbone, BoxHead, MaskHead


class FastRCNN(nn.Module):  # type: ignore[misc]
    """Network from images and proposals to (logits, offsets) of the proposals.

    Images are (B, 3, H, W), RGB of 0 to 255. Proposals are (B, N, 4). Rows of -1 are padding.
    Logits are (B, N, C + 1), class 0 is the background. Offsets are (B, N, C, 4), from each
    proposal to a box of each class. :class:`cvops.models.FastRCNN` describes the arguments.

    Raises:
        TypeError, ValueError: an argument is not one that is described there.
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
    ) -> None:
        super().__init__()
        self.classes, self.side, options = shared.arguments(
            classes, side, mask, roi, backbone, fpn, hidden
        )
        self.mask, self.roi = options["mask"], options["roi"]
        self.backbone = Backbone(backbone, options["fpn"])
        channels, num = self.backbone.channels[0], len(self.classes)
        self.box_head = BoxHead(channels, shared.BOX_CELLS[0], options["hidden"], num)
        self.mask_head: Any = MaskHead(channels, shared.MASK_CHANNELS, num) if self.mask else None

    @classmethod
    def load(cls, path: str | Path) -> Any:
        """Return the network of the files that ``save`` of the Gluon network wrote.

        Raises:
            FileNotFoundError: ``path`` or its JSON file is missing.
            ValueError: one of the two is not a file of ``save`` of the class of this name.
        """

        def make(about: dict[str, Any]) -> FastRCNN:
            return cls(about["classes"], about["side"], **about["options"])

        return saved.load(path, cls.__name__, make)

    # --- parts of the forward pass ---

    def pool(
        self, images: Tensor, maps: Sequence[Tensor], rois: Tensor, cells: tuple[int, int]
    ) -> Tensor:
        """Return the features in each roi of ``images``: ``(B * N, channels, *cells)``."""
        height, width = images.shape[2:]
        pixels = rois.detach() * rois.new_tensor([width, height, width, height])
        image = torch.arange(len(rois), device=rois.device, dtype=rois.dtype)
        image = image.view(-1, 1, 1).expand(-1, rois.shape[1], 1)
        level = self._level(pixels) if len(maps) > 1 else None
        parts = []
        for i, (features, stride) in enumerate(zip(maps, self.backbone.strides)):
            # The features of a roi with a negative index of its image are 0.
            index = image if level is None else torch.where(level == i, image, -1.0)
            rows = torch.cat([index, pixels], dim=2).flatten(0, 1)
            if self.roi == "align":
                part = torch.ops.cvops.roi_align(
                    features, rows, cells, 1 / stride, sample_ratio=shared.SAMPLE_RATIO
                )
            else:
                part, _ = torch.ops.cvops.roi_pooling(features, rows, cells, 1 / stride)
            parts.append(part)
        pooled: Tensor = sum(parts[1:], parts[0])
        return pooled

    def _level(self, pixels: Tensor) -> Tensor:
        """Return the index of the map for each roi, (B, N, 1)."""
        area = (pixels[..., 2:] - pixels[..., :2]).relu().prod(dim=2, keepdim=True)
        limits = ((shared.PYRAMID_CELLS * stride) ** 2 for stride in self.backbone.strides[1:])
        level: Tensor = sum((area >= limit).long() for limit in limits)
        return level

    def heads(self, images: Tensor, maps: Sequence[Tensor], rois: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits (B, N, C + 1) and the offsets (B, N, C, 4) of rois."""
        logits, offsets = self.box_head(self.pool(images, maps, rois, shared.BOX_CELLS))
        offsets = offsets.unflatten(1, (len(self.classes), 4))
        return logits.unflatten(0, rois.shape[:2]), offsets.unflatten(0, rois.shape[:2])

    def masks(self, images: Tensor, maps: Sequence[Tensor], rois: Tensor) -> Tensor:
        """Return the logits of the masks of rois, (B * N, C, 28, 28)."""
        found: Tensor = self.mask_head(self.pool(images, maps, rois, shared.MASK_CELLS))
        return found

    def forward(self, images: Tensor, *given: Tensor) -> tuple[Tensor, ...]:
        maps = self.backbone(images)
        return self.heads(images, maps, self._proposals(maps, given))

    # --- detection ---

    def _proposals(self, maps: Sequence[Tensor], given: Sequence[Tensor]) -> Tensor:
        """Return the proposals (B, N, 4) for feature maps, or those that are given."""
        if len(given) != 1:
            raise TypeError(f"proposals: expected one tensor, got {len(given)}")
        shape = tuple(given[0].shape)
        if len(shape) != 3 or shape[::2] != (len(maps[0]), 4):
            raise ValueError(f"proposals: expected ({len(maps[0])}, N, 4), got {shape}")
        return given[0]

    def detect(
        self,
        images: Tensor,
        *given: Tensor,
        threshold: float = 0.05,
        nms_threshold: float = 0.3,
        most: int = 20,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Return detections (B, most, 6), and masks (B, most, 28, 28) of a network with masks.

        :class:`cvops.models.RCNNDetector` describes the results and the options. The inputs are
        those of the network.

        Raises:
            TypeError, ValueError: an option has another type or is out of its range there.
        """
        if not torch.compiler.is_compiling():  # a graph cannot contain the checks
            most = integer("most", most, 1)
            threshold = number("threshold", threshold, 0, 1)
            nms_threshold = number("nms_threshold", nms_threshold, 0, 1)
        num = len(self.classes)
        maps = self.backbone(images)
        proposals = self._proposals(maps, given)
        logits, offsets = self.heads(images, maps, proposals)
        sides = proposals[..., 2:] - proposals[..., :2]
        real = sides.amin(dim=2, keepdim=True) > 0
        scores = logits.softmax(dim=2)[..., 1:] * real
        starts = proposals.repeat_interleave(num, dim=1)  # (B, N * C, 4)
        boxes = torch.ops.cvops.box_decode(
            *(offsets.reshape(1, -1, 4), starts.reshape(1, -1, 4), *STDS),
            clip=CLIP,
            format="corner",
        ).clamp(0, 1)
        kinds = torch.arange(num, device=scores.device, dtype=scores.dtype).expand_as(scores)
        columns = [x.reshape(len(scores), -1, 1) for x in (kinds, scores)]
        rows = torch.cat([*columns, boxes.view_as(starts)], dim=2)
        rows, _ = torch.ops.cvops.box_nms(
            rows, nms_threshold, threshold, coord_start=2, score_index=1, id_index=0
        )
        # Rows beyond N * C are padding.
        rows = pad(rows, (0, 0, 0, most), value=-1.0)[:, :most]
        if not self.mask:
            return rows
        kinds = rows[..., 0]
        logits = self.masks(images, maps, rows[..., 2:])
        mine = kinds.flatten().clamp(min=0).long()
        scores = logits[torch.arange(len(mine), device=mine.device), mine].sigmoid()
        return rows, scores.unflatten(0, kinds.shape) * (kinds >= 0)[..., None, None]


class FasterRCNN(FastRCNN):
    """Network from images to (proposals, logits, offsets): a Fast R-CNN with an RPN.

    Proposals are (B, N, 4), without gradients. :class:`cvops.models.FasterRCNN` describes them, and
    the arguments. With ``mask=True`` the network is a Mask R-CNN.

    Raises:
        TypeError, ValueError: an argument is not one that is described there.
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
    ) -> None:
        super().__init__(classes, side, mask, roi, backbone, fpn, hidden)
        self._sizes = shared.anchor_sizes(sizes, len(self.backbone.strides))
        self._ratios = numbers("ratios", ratios)
        channels, per_cell = self.backbone.channels[0], len(self._sizes[0]) + len(self._ratios) - 1
        self.rpn = RPN(channels, per_cell, min(channels, 512))

    def regions(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Return the anchors (1, A, 4), their logits (B, A) and their offsets (B, A, 4)."""
        anchors = [
            torch.ops.cvops.multibox_prior(x.detach(), sizes, self._ratios)  # only the shape counts
            for x, sizes in zip(maps, self._sizes)
        ]
        parts = zip(anchors, *zip(*map(self.rpn, maps)))
        joined, logits, offsets = (torch.cat(x, dim=1) for x in zip(*parts))
        return joined, logits, offsets

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def propose(self, anchors: Tensor, logits: Tensor, offsets: Tensor) -> Tensor:
        """Return the proposals (B, N, 4), without gradients."""
        boxes = torch.ops.cvops.box_decode(
            offsets, anchors, *STDS, clip=CLIP, format="corner"
        ).clamp(0, 1)
        sides = boxes[..., 2:] - boxes[..., :2]
        large = sides.amin(dim=2) >= shared.MIN_SIDE / self.side
        scores = logits.sigmoid() * large  # a score of 0 is no candidate
        rows, _ = torch.ops.cvops.multiclass_nms(
            *(boxes, scores[:, None]),
            overlap_thresh=shared.PROPOSAL_IOU,
            valid_thresh=0.0,
            topk=shared.PRE_NMS,
            post_nms=shared.POST_NMS,
        )
        found: Tensor = rows[..., 2:]
        return found

    def _proposals(self, maps: Sequence[Tensor], given: Sequence[Tensor]) -> Tensor:
        if given:
            raise TypeError(f"proposals: expected none for a FasterRCNN, got {len(given)}")
        return self.propose(*self.regions(maps))

    def forward(self, images: Tensor, *given: Tensor) -> tuple[Tensor, ...]:
        maps = self.backbone(images)
        proposals = self._proposals(maps, given)
        return (proposals, *self.heads(images, maps, proposals))


def predict(
    net: FastRCNN,
    image: Any,
    threshold: float = 0.5,
    nms_threshold: float = 0.3,
    proposals: Any = None,
) -> Prediction:
    """Return the detections of ``net`` in one image, in descending order of scores.

    The network predicts in evaluation mode, and has its previous mode afterward.

    Args:
        image: a Pillow image, read by the rules of ``cvops.images``, or a NumPy array, RGB, uint8
            (H, W, 3). It is resized to the size of the training images.
        threshold: the minimum score.
        nms_threshold: see :class:`cvops.models.RCNNDetector`.
        proposals: boxes (n, 4) in pixels of ``image``, for a ``FastRCNN`` only.

    Raises:
        TypeError, ValueError: an option is not a number in [0, 1].
        ValueError: ``image`` is an array of another shape or dtype, or a Pillow image whose pixels
            have no rule; ``proposals`` are missing, or not for this network.
    """

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def detect(*arrays: np.ndarray) -> list[np.ndarray]:
        device = next(net.parameters()).device
        training = [module for module in net.modules() if module.training]
        net.eval()
        try:
            out = net.detect(
                *(torch.from_numpy(x).to(device) for x in arrays),
                threshold=threshold,
                nms_threshold=nms_threshold,
            )
        finally:
            for module in training:
                module.training = True
        return [x.cpu().numpy() for x in (out if isinstance(out, tuple) else (out,))]

    proposes = isinstance(net, FasterRCNN)
    return shared.predict(net, image, threshold, proposals, proposes, detect)

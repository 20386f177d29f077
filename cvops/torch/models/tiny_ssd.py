"""TinySSD as a module of PyTorch. B images, A anchors, C classes without the background."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from cvops._networks import MAX_SIDE, class_names
from cvops._networks.tiny_ssd import CHANNELS, RATIOS, SIZES
from cvops.ops._check import integer
from cvops.torch.models import saved


def halving(before: int, channels: int) -> nn.Sequential:
    """Return two 3 x 3 convolutions and a max pooling that halves height and width."""
    layers: list[nn.Module] = []
    for given in (before, channels):
        layers += [nn.Conv2d(given, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU()]
    return nn.Sequential(*layers, nn.MaxPool2d(2))


class TinySSD(nn.Module):  # type: ignore[misc]
    """Network from images (B, 3, H, W), RGB of 0 to 255, to (anchors, classes, offsets).

    :class:`cvops.models.TinySSD` describes the results. :func:`torch.ops.cvops.multibox_target`
    has the targets for training.

    Args:
        classes: names of the classes, without the background.
        side: height and width of the training images in pixels, 64 to 4096.

    Raises:
        TypeError: ``side`` is not an integer.
        ValueError: ``classes`` are not names, or ``side`` is not as above.
    """

    def __init__(self, classes: Sequence[str], side: int = 256) -> None:
        super().__init__()
        self.classes, self.side = class_names(classes), integer("side", side, 64, MAX_SIDE)
        first = nn.Sequential(halving(3, 16), halving(16, 32), halving(32, 64))
        halvings = [halving(64, 128), halving(128, 128), halving(128, 128)]
        self.stages = nn.Sequential(first, *halvings, nn.AdaptiveMaxPool2d(1))
        per_cell = [len(sizes) + len(ratios) - 1 for sizes, ratios in zip(SIZES, RATIOS)]

        def heads(numbers: int) -> nn.Sequential:
            return nn.Sequential(
                *(nn.Conv2d(c, n * numbers, 3, padding=1) for c, n in zip(CHANNELS, per_cell))
            )

        self.class_heads, self.offset_heads = heads(len(self.classes) + 1), heads(4)

    @classmethod
    def load(cls, path: str | Path) -> TinySSD:
        """Return the network of the files that ``cvops.models.TinySSD.save`` wrote.

        Raises:
            FileNotFoundError: ``path`` or its JSON file is missing.
            ValueError: one of the two is not a file of ``save``.
        """
        return saved.load(path, "TinySSD", lambda about: cls(about["classes"], about["side"]))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        anchors: list[Tensor] = []
        classes: list[Tensor] = []
        offsets: list[Tensor] = []
        features = images / 255 - 0.5
        for i, stage in enumerate(self.stages):
            features = stage(features)
            shape = features.detach()  # anchors depend only on the shape
            anchors.append(torch.ops.cvops.multibox_prior(shape, SIZES[i], RATIOS[i]))
            # Channels last: the flat order is (row, column, anchor of the cell), as for anchors.
            for heads, flat in ((self.class_heads, classes), (self.offset_heads, offsets)):
                flat.append(heads[i](features).permute(0, 2, 3, 1).flatten(1))
        joined = torch.cat(classes, dim=1).unflatten(1, (-1, len(self.classes) + 1))
        return torch.cat(anchors, dim=1), joined, torch.cat(offsets, dim=1)

    def detect(self, images: Tensor, threshold: float = 0.01, nms_threshold: float = 0.3) -> Tensor:
        """Return detections (B, A, 6) as :class:`cvops.models.Detector`."""
        anchors, classes, offsets = self(images)
        scores = classes.softmax(dim=-1).transpose(1, 2)
        found: Tensor = torch.ops.cvops.multibox_detection(
            scores, offsets, anchors, threshold=threshold, nms_threshold=nms_threshold
        )
        return found

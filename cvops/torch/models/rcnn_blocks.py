"""The blocks of the R-CNN family as modules of PyTorch: backbones, region proposals, heads.

B images, C classes without the background. A feature map is (B, channels, h, w). R rois have pooled
features (R, channels, size, size). The names of the parameters are those of
:mod:`cvops.models.rcnn_blocks`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad

from cvops._networks import MEAN, STD
from cvops.ops._check import choice, flag
from cvops.torch.models.tiny_ssd import halving

# --- backbones ------------------------------------------------------------------------------------


class _Stage(NamedTuple):
    """Layers of a backbone that end in a feature map."""

    layers: nn.Module
    channels: int
    #: Pixels of the image per cell of the map.
    stride: int


class _Trunk(NamedTuple):
    """A network without its classifier."""

    stages: list[_Stage]
    #: Index of the stage whose map is used without FPN.
    single: int


def _convolution(channels: int, before: int) -> nn.Sequential:
    """Return a 3 x 3 convolution with batch normalization."""
    return nn.Sequential(
        nn.Conv2d(before, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU()
    )


def _small() -> _Trunk:
    """Return a small network that trains from scratch in minutes, on a CPU."""
    second = nn.Sequential(halving(32, 64), _convolution(96, 64), _convolution(96, 96))
    return _Trunk(
        [
            _Stage(nn.Sequential(halving(3, 16), halving(16, 32)), 32, 4),
            _Stage(second, 96, 8),
            _Stage(halving(96, 128), 128, 16),
        ],
        single=1,
    )


class _Expand(nn.Module):  # type: ignore[misc]
    """The results of a 1 x 1 and a 3 x 3 convolution, joined along the channels."""

    def __init__(self, before: int, channels: int) -> None:
        super().__init__()
        for name, size in (("0", 1), ("1", 3)):
            layer = nn.Conv2d(before, channels, size, padding=size // 2)
            self.add_module(name, nn.Sequential(layer, nn.ReLU()))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([path(x) for path in self.children()], dim=1)


def _fire(before: int, squeezed: int) -> nn.Sequential:
    """Return a Fire module of SqueezeNet. It has 8 channels for each of ``squeezed``."""
    squeeze = nn.Sequential(nn.Conv2d(before, squeezed, 1), nn.ReLU())
    return nn.Sequential(squeeze, _Expand(squeezed, 4 * squeezed))


def _squeezenet() -> _Trunk:
    """Return SqueezeNet 1.1 of MXNet's model zoo."""

    def pool() -> nn.Module:
        return nn.MaxPool2d(3, 2, ceil_mode=True)

    first = [nn.Conv2d(3, 64, 3, 2), nn.ReLU(), pool(), _fire(64, 16), _fire(128, 16)]
    last = [pool(), _fire(256, 48), _fire(384, 48), _fire(384, 64), _fire(512, 64)]
    return _Trunk(
        [
            _Stage(nn.Sequential(*first), 128, 4),
            _Stage(nn.Sequential(pool(), _fire(128, 32), _fire(256, 32)), 256, 8),
            _Stage(nn.Sequential(*last), 512, 16),
        ],
        single=1,
    )


class _Bottleneck(nn.Module):  # type: ignore[misc]
    """A residual block of ResNet-50 v1 of MXNet's model zoo: the first convolution strides."""

    def __init__(self, before: int, channels: int, stride: int) -> None:
        super().__init__()
        inner = channels // 4
        self.body = nn.Sequential(
            *(nn.Conv2d(before, inner, 1, stride), nn.BatchNorm2d(inner), nn.ReLU()),
            *(nn.Conv2d(inner, inner, 3, padding=1, bias=False), nn.BatchNorm2d(inner), nn.ReLU()),
            *(nn.Conv2d(inner, channels, 1), nn.BatchNorm2d(channels)),
        )
        if before != channels:
            projection = nn.Conv2d(before, channels, 1, stride, bias=False)
            self.downsample = nn.Sequential(projection, nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        shortcut = self.downsample(x) if hasattr(self, "downsample") else x
        return (self.body(x) + shortcut).relu()


def _resnet50() -> _Trunk:
    """Return ResNet-50 v1 of MXNet's model zoo."""
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 7, 2, padding=3, bias=False), nn.BatchNorm2d(64)]
    layers += [nn.ReLU(), nn.MaxPool2d(3, 2, padding=1)]
    stages, before = [], 64
    for blocks, channels, stride in ((3, 256, 4), (4, 512, 8), (6, 1024, 16), (3, 2048, 32)):
        rest = (_Bottleneck(channels, channels, 1) for _ in range(blocks - 1))
        first = _Bottleneck(before, channels, 1 if stride == 4 else 2)
        stages.append(_Stage(nn.Sequential(*layers, nn.Sequential(first, *rest)), channels, stride))
        layers, before = [], channels
    return _Trunk(stages, single=2)


_BACKBONES = {"small": _small, "squeezenet": _squeezenet, "resnet50": _resnet50}


class FPN(nn.Module):  # type: ignore[misc]
    """Feature pyramid, as :class:`cvops.models.rcnn_blocks.FPN`."""

    def __init__(self, before: Sequence[int], channels: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(number, channels, 1) for number in before)
        self.smooth = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in before)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        tops = [layer(x) for layer, x in zip(self.lateral, maps)]
        for i in reversed(range(len(tops) - 1)):
            # A coarser map has half the cells of this map, rounded up or down. One more cell
            # covers the last row and column where it is rounded down.
            height, width = tops[i].shape[2:]
            padded = pad(tops[i + 1], (0, 1, 0, 1), mode="replicate")
            enlarged = interpolate(padded, scale_factor=2.0, mode="nearest")
            tops[i] = tops[i] + enlarged[:, :, :height, :width]
        return [layer(x) for layer, x in zip(self.smooth, tops)]


class Backbone(nn.Module):  # type: ignore[misc]
    """Images (B, 3, H, W), RGB of 0 to 255, to a list of feature maps, from fine to coarse.

    :class:`cvops.models.rcnn_blocks.Backbone` describes the arguments and attributes.
    """

    def __init__(self, name: str = "small", fpn: bool = False) -> None:
        super().__init__()
        trunk = _BACKBONES[choice("backbone", name, tuple(_BACKBONES))]()
        used = trunk.stages if flag("fpn", fpn) else trunk.stages[: trunk.single + 1]
        self.stages = nn.Sequential(*(stage.layers for stage in used))
        self.fpn: FPN | None = None
        self.channels, self.strides = [used[-1].channels], [used[-1].stride]
        if fpn:
            width = 64 if name == "small" else 256
            self.fpn = FPN([stage.channels for stage in used], width)
            self.channels = [width] * len(used)
            self.strides = [stage.stride for stage in used]
        mean, std = ([0.5] * 3, [1.0] * 3) if name == "small" else (MEAN.tolist(), STD.tolist())
        # Not in the state dict, since the files of parameters do not have them.
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> list[Tensor]:
        features = (images / 255 - self.mean) / self.std
        maps = []
        for stage in self.stages:
            features = stage(features)
            maps.append(features)
        return self.fpn(maps) if self.fpn is not None else maps[-1:]


# --- heads ----------------------------------------------------------------------------------------


class RPN(nn.Module):  # type: ignore[misc]
    """Features to the logit of each anchor, (B, A), and the offsets from the anchors, (B, A, 4)."""

    def __init__(self, before: int, per_cell: int, channels: int) -> None:
        super().__init__()
        self.shared = nn.Conv2d(before, channels, 3, padding=1)
        self.objects = nn.Conv2d(channels, per_cell, 1)
        self.offsets = nn.Conv2d(channels, 4 * per_cell, 1)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.shared(features).relu()
        # Channels last: the flat order is (row, column, anchor of the cell), as for anchors.
        logits, offsets = (
            head(hidden).permute(0, 2, 3, 1).flatten(1) for head in (self.objects, self.offsets)
        )
        return logits, offsets.unflatten(1, (-1, 4))


class BoxHead(nn.Module):  # type: ignore[misc]
    """Pooled features to logits (R, C + 1) and offsets (R, 4 C)."""

    def __init__(self, channels: int, size: int, hidden: int, num_classes: int) -> None:
        super().__init__()
        self.dense = nn.ModuleList(
            [nn.Linear(channels * size * size, hidden), nn.Linear(hidden, hidden)]
        )
        self.classes = nn.Linear(hidden, num_classes + 1)
        self.offsets = nn.Linear(hidden, 4 * num_classes)

    def forward(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        hidden = pooled.flatten(1)
        for layer in self.dense:
            hidden = layer(hidden).relu()
        return self.classes(hidden), self.offsets(hidden)


class MaskHead(nn.Module):  # type: ignore[misc]
    """Pooled features to the logits of a mask of each class, (R, C, 2 size, 2 size)."""

    def __init__(self, before: int, channels: int, num_classes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Conv2d(before, channels, 3, padding=1), nn.ReLU()),
            *(nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU()),
            *(nn.ConvTranspose2d(channels, channels, 2, 2), nn.ReLU()),
            nn.Conv2d(channels, num_classes, 1),
        )

    def forward(self, pooled: Tensor) -> Tensor:
        found: Tensor = self.layers(pooled)
        return found

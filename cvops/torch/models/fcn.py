"""FCN as a module of PyTorch. B images."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn


class _Block(nn.Module):  # type: ignore[misc]
    """A residual block of ResNet-18 v2: normalization before each convolution."""

    def __init__(self, before: int, channels: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(before)
        self.conv1 = nn.Conv2d(before, channels, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        if stride != 1:
            self.downsample = nn.Conv2d(before, channels, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn1(x).relu()
        shortcut = self.downsample(y) if hasattr(self, "downsample") else x
        return self.conv2(self.bn2(self.conv1(y)).relu()) + shortcut


def _resnet18() -> nn.Sequential:
    """Return ResNet-18 v2 of Gluon's zoo without its last two layers."""
    first = [nn.BatchNorm2d(3), nn.Conv2d(3, 64, 7, 2, padding=3, bias=False)]
    first += [nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, padding=1)]
    stages, before = [], 64
    for channels, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        blocks = _Block(before, channels, stride), _Block(channels, channels, 1)
        stages.append(nn.Sequential(*blocks))
        before = channels
    return nn.Sequential(*first, *stages, nn.BatchNorm2d(512), nn.ReLU())


class _Upsample(nn.Module):  # type: ignore[misc]
    def __init__(self, scale: int) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = torch.ops.cvops.bilinear_upsample(x, self.scale)
        return found


class FCN(nn.Module):  # type: ignore[misc]
    """Network from images (B, 3, H, W) of any size to scores (B, num_classes, H, W).

    :class:`cvops.models.FCN` describes the arguments. :func:`load_parameters` reads the file of its
    ``save_parameters``.

    Raises:
        ValueError: ``upsample`` or ``stride`` is not one of the known values.
    """

    def __init__(self, num_classes: int = 21, upsample: str = "bilinear", stride: int = 32) -> None:
        super().__init__()
        if upsample not in ("bilinear", "transposed"):
            raise ValueError(f"upsample: expected 'bilinear' or 'transposed', got {upsample!r}")
        if stride not in (32, 16, 8):
            raise ValueError(f"stride: expected 32, 16 or 8, got {stride!r}")

        def upsampling(scale: int) -> nn.Module:
            if upsample == "bilinear":
                return _Upsample(scale)
            return nn.ConvTranspose2d(num_classes, num_classes, 2 * scale, scale, scale // 2)

        # (depth, channels) of the finer feature maps.
        skips = [(8, 256), (7, 128)][: (32, 16, 8).index(stride)]
        self._depths = [depth for depth, _ in skips]
        self.features = _resnet18()
        self.score = nn.Conv2d(512, num_classes, 1)
        self.skip_scores = nn.Sequential(*(nn.Conv2d(c, num_classes, 1) for _, c in skips))
        self.doublings = nn.Sequential(*(upsampling(2) for _ in skips))
        self.upsample = upsampling(stride)

    def forward(self, images: Tensor) -> Tensor:
        maps = list(itertools.accumulate(self.features, lambda x, layer: layer(x), initial=images))
        scores = self.score(maps[-1])
        for depth, score, double in zip(self._depths, self.skip_scores, self.doublings):
            finer = score(maps[depth])
            scores = _crop(double(scores), finer) + finer
        return _crop(self.upsample(scores), images)


def _crop(x: Tensor, like: Tensor) -> Tensor:
    return x[:, :, : like.shape[2], : like.shape[3]]

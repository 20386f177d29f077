"""The networks of :mod:`cvops.models` as modules of PyTorch, which load the parameters of Gluon's.

They need neither MXNet nor Gluon. B images, A anchors, C classes without the background.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from cvops._files import check_regular
from cvops._mxnet import params

#: As ``SIZES``, ``RATIOS`` and ``CHANNELS`` of ``cvops.models.tiny_ssd``.
SIZES = ((0.2, 0.272), (0.37, 0.447), (0.54, 0.619), (0.71, 0.79), (0.88, 0.961))
RATIOS = ((1.0, 2.0, 0.5),) * 5
CHANNELS = (64, 128, 128, 128, 128)

#: Gluon's names of parameters that PyTorch names otherwise.
_NAMES = {"gamma": "weight", "beta": "bias"}


def load_parameters(net: nn.Module, path: str | Path) -> None:
    """Load a file of ``save_parameters`` of Gluon into a module of the same structure.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a file of parameters, or is one of another network. The message
            begins with the path, and names the parameters.
    """
    path = Path(path)
    found = {}
    for name, x in params.arrays(path).items():
        owner, _, last = name.rpartition(".")
        found[f"{owner}.{_NAMES.get(last, last)}"] = torch.from_numpy(x)
    wanted = {name: x for name, x in net.state_dict().items() if not name.endswith("_tracked")}
    for what, names in (("missing", wanted.keys() - found), ("unknown", found.keys() - wanted)):
        if names:
            raise ValueError(f"{path}: parameters of another network: {what}: {sorted(names)[:3]}")
    for name, x in wanted.items():
        if found[name].shape != x.shape or found[name].dtype != x.dtype:
            raise ValueError(
                f"{path}: {name}: expected {x.dtype} {tuple(x.shape)}, got {found[name].dtype} "
                f"{tuple(found[name].shape)}"
            )
    net.load_state_dict(found, strict=False)


def _halving(before: int, channels: int) -> nn.Sequential:
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
        side: height and width of the training images in pixels.
    """

    def __init__(self, classes: Sequence[str], side: int = 256) -> None:
        super().__init__()
        self.classes, self.side = tuple(classes), side
        first = nn.Sequential(_halving(3, 16), _halving(16, 32), _halving(32, 64))
        halvings = [_halving(64, 128), _halving(128, 128), _halving(128, 128)]
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
        description = Path(path).with_suffix(".json")
        try:
            check_regular(description)
            about = json.loads(description.read_text("utf-8"))
            if about["model"] != "TinySSD":
                raise ValueError(about["model"])
            net = cls(about["classes"], about["side"])
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise ValueError(f"{description}: does not describe a TinySSD") from error
        load_parameters(net, path)
        return net

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

"""The blocks of the R-CNN family: backbones, region proposals, heads.

B images, C classes without the background. A feature map is (B, channels, h, w). N rois of an
image are (B, N, 4), corners in fractions of the image.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Callable, NamedTuple

from cvops import weights
from cvops._mxnet import mxnet
from cvops.datasets.transforms import MEAN, STD
from cvops.models.tiny_ssd import halving
from cvops.ops._check import choice, flag

mx = mxnet()
nn = mx.gluon.nn

# --- backbones ------------------------------------------------------------------------------------


class _Stage(NamedTuple):
    """Layers of a backbone that end in a feature map."""

    layers: Any
    channels: int
    #: Pixels of the image per cell of the map.
    stride: int


class _Trunk(NamedTuple):
    """A network without its classifier."""

    stages: list[_Stage]
    #: Index of the stage whose map is used without FPN.
    single: int
    #: The loader of weights of the model zoo; None for a network of our own.
    load_zoo: Callable[..., Path] | None = None


def _join(*layers: Any) -> Any:
    block = nn.HybridSequential()
    block.add(*layers)
    return block


def _convolution(channels: int, before: int) -> Any:
    """Return a 3 x 3 convolution with batch normalization."""
    return _join(
        nn.Conv2D(channels, 3, padding=1, in_channels=before, use_bias=False),
        nn.BatchNorm(in_channels=channels),
        nn.Activation("relu"),
    )


def _small() -> _Trunk:
    """Return a small network that trains from scratch in minutes, on a CPU."""
    return _Trunk(
        [
            _Stage(_join(halving(3, 16), halving(16, 32)), 32, 4),
            _Stage(_join(halving(32, 64), _convolution(96, 64), _convolution(96, 96)), 96, 8),
            _Stage(halving(96, 128), 128, 16),
        ],
        single=1,
    )


def _zoo(name: str, ends: Sequence[tuple[int, int, int]], single: int) -> _Trunk:
    """Return a network of MXNet's model zoo.

    Each stage has the index of the layer after it, its channels and its stride.
    """
    net = mx.gluon.model_zoo.vision.get_model(name)
    layers, stages, first = list(net.features), [], 0
    for end, channels, stride in ends:
        stages.append(_Stage(_join(*layers[first:end]), channels, stride))
        first = end
    return _Trunk(stages, single, functools.partial(weights.load, net, name))


def _squeezenet() -> _Trunk:
    return _zoo("squeezenet1.1", [(5, 128, 4), (8, 256, 8), (13, 512, 16)], single=1)


def _resnet50() -> _Trunk:
    ends = [(5, 256, 4), (6, 512, 8), (7, 1024, 16), (8, 2048, 32)]
    return _zoo("resnet50_v1", ends, single=2)


#: Backbones by name.
BACKBONES = {"small": _small, "squeezenet": _squeezenet, "resnet50": _resnet50}


class FPN(mx.gluon.HybridBlock):  # type: ignore[misc, name-defined]
    """Feature pyramid (Lin et al., 2017): maps of equal channels, with features of coarser maps.

    The input and the result are maps from fine to coarse. Each stride is twice the one before.
    """

    def __init__(self, before: Sequence[int], channels: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        with self.name_scope():
            self.lateral, self.smooth = nn.HybridSequential(), nn.HybridSequential()
            for number in before:
                self.lateral.add(nn.Conv2D(channels, 1, in_channels=number))
                self.smooth.add(nn.Conv2D(channels, 3, padding=1, in_channels=channels))

    def hybrid_forward(self, F: Any, *maps: Any) -> list[Any]:
        top: Any = None
        result: list[Any] = []
        for i in reversed(range(len(maps))):
            lateral = self.lateral[i](maps[i])
            if top is not None:
                # A coarser map has half the cells of this map, rounded up or down. One more cell
                # covers the last row and column where it is rounded down.
                padded = F.Pad(top, mode="edge", pad_width=(0, 0, 0, 0, 0, 1, 0, 1))
                enlarged = F.UpSampling(padded, scale=2, sample_type="nearest")
                lateral = lateral + F.slice_like(enlarged, lateral, axes=(2, 3))
            top = lateral
            result.insert(0, self.smooth[i](top))
        return result


class Backbone(mx.gluon.HybridBlock):  # type: ignore[misc, name-defined]
    """Images (B, 3, H, W), RGB of 0 to 255, to a list of feature maps, from fine to coarse.

    Args:
        name: "small" (three convolutional blocks, trained from scratch), "squeezenet" or "resnet50"
            of MXNet's model zoo.
        fpn: True gives a feature pyramid of all stages, or else one map: of stride 8, and 16 for
            "resnet50".

    Attributes:
        channels: channels of each map.
        strides: pixels per cell of each map, which may round up.
    """

    def __init__(self, name: str = "small", fpn: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        choice("backbone", name, tuple(BACKBONES))
        fpn = flag("fpn", fpn)
        self._centered = name == "small"
        with self.name_scope():
            trunk = BACKBONES[name]()
            # A function: as an attribute the network would be a child block.
            self._load_zoo = trunk.load_zoo
            used = trunk.stages if fpn else trunk.stages[: trunk.single + 1]
            self.stages = nn.HybridSequential()
            self.stages.add(*(stage.layers for stage in used))
            if fpn:
                width = 64 if name == "small" else 256
                self.fpn: Any = FPN([stage.channels for stage in used], width)
                self.channels = [width] * len(used)
                self.strides = [stage.stride for stage in used]
            else:
                self.fpn = None
                self.channels, self.strides = [used[-1].channels], [used[-1].stride]

    def load_zoo(self, source: bool | str | Path = True, ctx: Any = None) -> None:
        """Load pretrained weights of the network in MXNet's model zoo.

        ``source`` and the errors are those of ``cvops.weights.load``.

        Raises:
            ValueError: the backbone is not of the zoo.
        """
        if self._load_zoo is None:
            raise ValueError("pretrained: expected a backbone of the model zoo, got 'small'")
        self._load_zoo(source, ctx, classifier=False)

    def hybrid_forward(self, F: Any, images: Any) -> list[Any]:
        if self._centered:
            features = images / 255 - 0.5
        else:
            mean, std = (x.reshape((1, 3, 1, 1)) for x in (MEAN, STD))
            features = F.concat(
                *(
                    (F.slice_axis(images, axis=1, begin=i, end=i + 1) / 255 - float(m)) / float(s)
                    for i, (m, s) in enumerate(zip(mean.flat, std.flat))
                ),
                dim=1,
            )
        maps = []
        for stage in self.stages:
            features = stage(features)
            maps.append(features)
        return self.fpn(*maps) if self.fpn is not None else maps[-1:]


# --- heads ----------------------------------------------------------------------------------------


class RPN(mx.gluon.HybridBlock):  # type: ignore[misc, name-defined]
    """Head of the region proposals, the same for all maps.

    It maps features to the logit of each anchor that it has an object, (B, A), and to the offsets
    from the anchors to the objects, (B, A, 4). Anchors are in the order of MultiBoxPrior.
    """

    def __init__(self, before: int, per_cell: int, channels: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        normal = mx.init.Normal(0.01)
        with self.name_scope():
            self.shared = nn.Conv2D(
                *(channels, 3, 1, 1), in_channels=before, weight_initializer=normal
            )
            self.objects = nn.Conv2D(per_cell, 1, in_channels=channels, weight_initializer=normal)
            self.offsets = nn.Conv2D(
                4 * per_cell, 1, in_channels=channels, weight_initializer=normal
            )

    def hybrid_forward(self, F: Any, features: Any) -> tuple[Any, Any]:
        hidden = F.relu(self.shared(features))
        # Channels last: the flat order is (row, column, anchor of the cell), as for anchors.
        logits, offsets = (
            head(hidden).transpose((0, 2, 3, 1)) for head in (self.objects, self.offsets)
        )
        return logits.flatten(), offsets.reshape((0, -1, 4))


class BoxHead(mx.gluon.HybridBlock):  # type: ignore[misc, name-defined]
    """Pooled features (R, channels, size, size) to logits (R, C + 1) and offsets (R, 4 C)."""

    def __init__(
        self, channels: int, size: int, hidden: int, num_classes: int, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        with self.name_scope():
            self.dense = _join(
                nn.Dense(hidden, "relu", in_units=channels * size * size),
                nn.Dense(hidden, "relu", in_units=hidden),
            )
            self.classes = nn.Dense(
                num_classes + 1, in_units=hidden, weight_initializer=mx.init.Normal(0.01)
            )
            self.offsets = nn.Dense(
                4 * num_classes, in_units=hidden, weight_initializer=mx.init.Normal(0.001)
            )

    def hybrid_forward(self, F: Any, pooled: Any) -> tuple[Any, Any]:
        hidden = self.dense(pooled)
        return self.classes(hidden), self.offsets(hidden)


class MaskHead(mx.gluon.HybridBlock):  # type: ignore[misc, name-defined]
    """Pooled features (R, channels, s, s) to the logits of a mask of each class, (R, C, 2s, 2s)."""

    def __init__(self, before: int, channels: int, num_classes: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        with self.name_scope():
            self.layers = nn.HybridSequential()
            for number in (before, channels):
                self.layers.add(
                    nn.Conv2D(channels, 3, padding=1, in_channels=number),
                    nn.Activation("relu"),
                )
            self.layers.add(
                nn.Conv2DTranspose(channels, 2, 2, in_channels=channels),
                nn.Activation("relu"),
                nn.Conv2D(num_classes, 1, in_channels=channels),
            )

    def hybrid_forward(self, F: Any, pooled: Any) -> Any:
        return self.layers(pooled)

"""TinySSD, the single shot detector of "Dive into Deep Learning", in Gluon.

B images, A anchors, C classes without the background, which is class 0 of what the
network predicts. Boxes are (x1, y1, x2, y2), corners, in fractions of the image.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cvops._mxnet import mxnet

mx = mxnet()
nd, nn = mx.nd, mx.gluon.nn

#: Of each of the five feature maps, fine to coarse: sizes (fractions of the image) and ratios.
SIZES = ((0.2, 0.272), (0.37, 0.447), (0.54, 0.619), (0.71, 0.79), (0.88, 0.961))
RATIOS = ((1, 2, 0.5),) * 5


class Prediction(NamedTuple):
    """What the network says of a batch."""

    anchors: Any  #: (1, A, 4)
    classes: Any  #: (B, A, C + 1), before softmax; class 0 is the background
    offsets: Any  #: (B, A * 4), from each anchor to its box, as MultiBoxTarget encodes them


class Targets(NamedTuple):
    """What the network should have said of a batch."""

    classes: Any  #: (B, A), 0 for the background
    offsets: Any  #: (B, A * 4)
    mask: Any  #: (B, A * 4), 1 where the anchor has a box to be fitted to


def halving(channels: int) -> Any:
    """Two 3 x 3 convolutions, then a max pooling that halves height and width."""
    block = nn.HybridSequential()
    for _ in range(2):
        block.add(
            nn.Conv2D(channels, kernel_size=3, padding=1),
            nn.BatchNorm(in_channels=channels),
            nn.Activation("relu"),
        )
    block.add(nn.MaxPool2D(2))
    return block


def stages() -> list[Any]:
    """The five blocks of layers; each ends in a feature map that boxes are predicted from.

    Of an image of 256 x 256 the maps are 32, 16, 8, 4 and 1 on a side.
    """
    first = nn.HybridSequential()
    first.add(*(halving(channels) for channels in (16, 32, 64)))
    return [first, halving(128), halving(128), halving(128), nn.GlobalMaxPool2D()]


class TinySSD(mx.gluon.Block):  # type: ignore[misc, name-defined]
    """The network: images (B, 3, H, W), RGB of 0 to 255, to a ``Prediction``.

    Args:
        classes: names of the classes, without the background.
        side: height and width, in pixels, of the images that it is trained on. It takes
            others too, and sees in them what it knows at this size.
        ops: where MultiBoxPrior, MultiBoxTarget and MultiBoxDetection are taken from:
            ``cvops.contrib`` if not given. ``mx.nd.contrib`` has the same.
    """

    def __init__(
        self, classes: Sequence[str], side: int = 256, ops: Any = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if ops is None:
            from cvops import contrib as ops
        self.classes = tuple(classes)
        self.side = side
        self.ops = ops
        with self.name_scope():
            self.stages = nn.HybridSequential()
            self.class_heads = nn.HybridSequential()
            self.offset_heads = nn.HybridSequential()
            for stage, sizes, ratios in zip(stages(), SIZES, RATIOS):
                per_place = len(sizes) + len(ratios) - 1
                self.stages.add(stage)
                self.class_heads.add(nn.Conv2D(per_place * (len(classes) + 1), 3, padding=1))
                self.offset_heads.add(nn.Conv2D(per_place * 4, 3, padding=1))

    def forward(self, images: Any) -> Prediction:
        anchors: list[Any] = []
        classes: list[Any] = []
        offsets: list[Any] = []
        features = images / 255 - 0.5
        for i, stage in enumerate(self.stages):
            features = stage(features)
            with mx.autograd.pause():  # anchors depend on the shape alone
                anchors.append(self.ops.MultiBoxPrior(features, sizes=SIZES[i], ratios=RATIOS[i]))
            # Channels last, so that the flat order is (row, column, anchor of the place).
            for heads, flat in ((self.class_heads, classes), (self.offset_heads, offsets)):
                flat.append(heads[i](features).transpose((0, 2, 3, 1)).flatten())
        joined = nd.concat(*classes, dim=1).reshape((0, -1, len(self.classes) + 1))
        return Prediction(nd.concat(*anchors, dim=1), joined, nd.concat(*offsets, dim=1))

    def detect(self, images: Any, threshold: float = 0.01, nms_threshold: float = 0.3) -> Any:
        """Detections (B, A, 6), rows (class, score, x1, y1, x2, y2), best score first.

        Class -1 marks a row that is no detection: under ``threshold``, or suppressed by
        a better one of its class that it overlaps by ``nms_threshold`` or more.
        """
        anchors, classes, offsets = self(images)
        scores = nd.softmax(classes).transpose((0, 2, 1))
        return self.ops.MultiBoxDetection(
            scores, offsets, anchors, threshold=threshold, nms_threshold=nms_threshold
        )

    def assign(self, prediction: Prediction, labels: Any) -> Targets:
        """Assign labels (B, m, 5), rows (class, x1, y1, x2, y2) or -1, to the anchors."""
        with mx.autograd.pause():
            offsets, mask, classes = self.ops.MultiBoxTarget(
                prediction.anchors, labels, prediction.classes.transpose((0, 2, 1))
            )
        return Targets(classes, offsets, mask)

    def save(self, path: str | Path) -> None:
        """Write the parameters to ``path``, and beside it (``.json``) what else ``load`` needs."""
        path = Path(path)
        self.save_parameters(str(path))
        about = {"model": "TinySSD", "classes": self.classes, "side": self.side}
        path.with_suffix(".json").write_text(json.dumps(about, indent=2) + "\n", "utf-8")

    @classmethod
    def load(cls, path: str | Path, ops: Any = None) -> TinySSD:
        """The network that ``save`` wrote to ``path``.

        Raises:
            FileNotFoundError: ``path`` or the JSON beside it is missing.
            ValueError: either is not what ``save`` writes.
        """
        path = Path(path)
        for file in (path, path.with_suffix(".json")):
            if not file.is_file():
                raise FileNotFoundError(f"{file}: no such file")
        try:
            about = json.loads(path.with_suffix(".json").read_text("utf-8"))
            net = cls(about["classes"], about["side"], ops)
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{path.with_suffix('.json')}: does not describe a TinySSD") from error
        try:
            net.load_parameters(str(path))
        except (mx.MXNetError, AssertionError, ValueError, KeyError) as error:
            raise ValueError(f"{path}: not the parameters of a TinySSD") from error
        return net


def loss(prediction: Prediction, target: Targets) -> Any:
    """Loss of a batch, (1,): what an anchor with a box costs, on average.

    The cross entropy of the classes of all anchors, plus the absolute errors of the
    offsets where they count, divided by the number of anchors with a box. A mean over
    all anchors, as in the book, says the same of the direction, but few of 5,444
    anchors have a box, and the offsets would hardly be learnt at first.
    """
    fitted = nd.maximum(target.mask.sum() / 4, 1)
    of_classes = -nd.pick(nd.log_softmax(prediction.classes), target.classes).sum()
    of_offsets = nd.abs((prediction.offsets - target.offsets) * target.mask).sum()
    return (of_classes + of_offsets) / fitted


def cls_eval(prediction: Prediction, target: Targets) -> float:
    """How many anchors of the batch have their class right."""
    return float((prediction.classes.argmax(axis=-1) == target.classes).sum().asscalar())


def bbox_eval(prediction: Prediction, target: Targets) -> float:
    """Sum over the batch of the absolute errors of the masked offsets."""
    return float(((target.offsets - prediction.offsets) * target.mask).abs().sum().asscalar())

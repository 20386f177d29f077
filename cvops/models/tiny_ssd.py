"""TinySSD, the single shot detector of "Dive into Deep Learning", in Gluon.

B images, A anchors, C classes without the background, which is class 0 in predictions. Boxes are
(x1, y1, x2, y2), corners, in fractions of the image, unless the unit is pixels.

Three blocks hybridize as a whole, including the detection ops:

- ``TinySSD``: images to anchors, classes and offsets
- ``Training``: images and labels to losses
- ``Detector``: images to detections, for export
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cvops._mxnet import mxnet
from cvops._networks import MAX_SIDE, class_names
from cvops._networks.tiny_ssd import CHANNELS
from cvops._networks.tiny_ssd import RATIOS as RATIOS
from cvops._networks.tiny_ssd import SIZES as SIZES
from cvops.models import saved
from cvops.models.losses import DetectionLoss, label_background, on_cpu
from cvops.models.steps import contexts, step
from cvops.ops._check import choice, integer, number

mx = mxnet()
nn = mx.gluon.nn

#: Maximum absolute corner in a label. Boxes can extend beyond the image.
MOST = 2


def halving(before: int, channels: int) -> Any:
    """Return two 3 x 3 convolutions and a max pooling that halves height and width."""
    block = nn.HybridSequential()
    for given in (before, channels):
        block.add(
            nn.Conv2D(channels, kernel_size=3, padding=1, in_channels=given),
            nn.BatchNorm(in_channels=channels),
            nn.Activation("relu"),
        )
    block.add(nn.MaxPool2D(2))
    return block


def stages() -> list[Any]:
    """Return the five stages. Each ends in a feature map for predictions.

    For an image of 256 x 256 the maps have sides of 32, 16, 8, 4 and 1.
    """
    first = nn.HybridSequential()
    first.add(halving(3, 16), halving(16, 32), halving(32, 64))
    return [first, halving(64, 128), halving(128, 128), halving(128, 128), nn.GlobalMaxPool2D()]


class TinySSD(mx.gluon.HybridBlock):  # type: ignore[misc, name-defined]
    """Network from images (B, 3, H, W), RGB of 0 to 255, to (anchors, classes, offsets).

    Anchors are (1, A, 4). Classes are logits (B, A, C + 1), class 0 is the background. Offsets are
    (B, A * 4), from each anchor to its box, in the encoding of MultiBoxTarget.

    Args:
        classes: names of the classes, without the background.
        side: height and width of the training images in pixels, 64 to 4096. The network accepts
            other sizes of 64 or more. It detects objects best at their size in training images.
        ops: library of MultiBoxPrior, MultiBoxTarget and MultiBoxDetection: "cvops" or "mxnet". The
            names of the parameters do not depend on it.

    Raises:
        TypeError: ``side`` is not an integer.
        ValueError: ``classes`` are not names, or ``side`` or ``ops`` is not as above.
    """

    def __init__(
        self, classes: Sequence[str], side: int = 256, ops: str = "cvops", **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        names = class_names(classes)
        choice("ops", ops, ("cvops", "mxnet"))
        if ops == "cvops":
            import cvops.mxnet  # noqa: F401 (registers the ops)
        self.classes = names
        self.side = integer("side", side, 64, MAX_SIDE)
        self.ops = ops
        with self.name_scope():
            self.stages = nn.HybridSequential()
            self.class_heads = nn.HybridSequential()
            self.offset_heads = nn.HybridSequential()
            for stage, channels, sizes, ratios in zip(stages(), CHANNELS, SIZES, RATIOS):
                self.stages.add(stage)
                per_cell = len(sizes) + len(ratios) - 1
                for heads, numbers in (
                    (self.class_heads, len(classes) + 1),
                    (self.offset_heads, 4),
                ):
                    heads.add(nn.Conv2D(per_cell * numbers, 3, padding=1, in_channels=channels))

    def op(self, F: Any, name: str) -> Any:
        """Return the op of MXNet's ``name`` in ``self.ops``, for arrays or symbols."""
        return getattr(F.contrib, f"cvops_{name}" if self.ops == "cvops" else name)

    def hybrid_forward(self, F: Any, images: Any) -> tuple[Any, Any, Any]:
        anchors: list[Any] = []
        classes: list[Any] = []
        offsets: list[Any] = []
        features = images / 255 - 0.5
        for i, stage in enumerate(self.stages):
            features = stage(features)
            shape = F.BlockGrad(features)  # anchors depend only on the shape
            anchors.append(self.op(F, "MultiBoxPrior")(shape, sizes=SIZES[i], ratios=RATIOS[i]))
            # Channels last: the flat order is (row, column, anchor of the cell), as for anchors.
            for heads, flat in ((self.class_heads, classes), (self.offset_heads, offsets)):
                flat.append(heads[i](features).transpose((0, 2, 3, 1)).flatten())
        joined = F.concat(*classes, dim=1).reshape((0, -1, len(self.classes) + 1))
        return F.concat(*anchors, dim=1), joined, F.concat(*offsets, dim=1)

    def detect(self, images: Any, threshold: float = 0.01, nms_threshold: float = 0.3) -> Any:
        """Return the detections of ``Detector`` in ``images``, (B, A, 6)."""
        return Detector(self, threshold, nms_threshold)(images)

    def save(self, path: str | Path) -> None:
        """Write the parameters to ``path``, and classes and side next to it (``.json``)."""
        saved.save(self, path, {"model": "TinySSD", "classes": self.classes, "side": self.side})

    @classmethod
    def load(cls, path: str | Path, ops: str = "cvops") -> TinySSD:
        """Return the network that ``save`` wrote to ``path``, on the CPU.

        Raises:
            FileNotFoundError: ``path`` or its JSON file is missing.
            ValueError: one of the two is not a file of ``save``.
        """

        def make(about: dict[str, Any]) -> Any:
            if about["model"] != "TinySSD":
                raise ValueError(about["model"])
            return cls(about["classes"], about["side"], ops)

        net: TinySSD = saved.load(path, "a TinySSD", make)
        return net


class Detector(mx.gluon.HybridBlock):  # type: ignore[misc, name-defined]
    """Block from images (B, 3, H, W), RGB of 0 to 255, to detections (B, A, 6).

    Rows are (class, score, x1, y1, x2, y2), in descending order of scores. Class -1 marks a row
    that is not a detection. Its score is below ``threshold``, or it was suppressed: a better
    detection of its class overlaps it with an IoU of ``nms_threshold`` or more.

    After hybridization and one call it can be exported: ``detector.export(path)`` writes the graph
    and the parameters. ``gluon.SymbolBlock.imports`` reads them. With ``net.ops`` "cvops" this
    needs ``import cvops.mxnet`` first.
    """

    def __init__(
        self, net: TinySSD, threshold: float = 0.01, nms_threshold: float = 0.3, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.net = net
        self.options = {
            "threshold": number("threshold", threshold),
            "nms_threshold": number("nms_threshold", nms_threshold),
        }

    def hybrid_forward(self, F: Any, images: Any) -> Any:
        anchors, classes, offsets = self.net(images)
        scores = F.softmax(classes).transpose((0, 2, 1))
        return self.net.op(F, "MultiBoxDetection")(scores, offsets, anchors, **self.options)


class Training(mx.gluon.HybridBlock):  # type: ignore[misc, name-defined]
    """Block from images and labels to losses, including the targets, for training of ``net``.

    The inputs are images (B, 3, H, W) and labels (B, m, 5 or more): rows (class, x1, y1, x2, y2,
    ...), then rows of -1. An image without objects has only rows of -1: the network learns the
    background from it. ``check_labels`` has the rules for classes and boxes. Boxes in pixels match
    no anchor; they are invalid. On the CPU invalid labels raise its ValueError. In a graph
    (hybridized) and on a GPU the loss of their image is NaN.

    The outputs are the loss of each image, (B,), and the arguments of ``loss``: cls_preds,
    cls_labels, bbox_preds, bbox_labels, bbox_masks.

    Args:
        net: the network.
        loss: a block with these five arguments; ``DetectionLoss()`` by default.
        negative_mining_ratio: number of negative anchors per positive anchor: those with the
            largest classification errors. The others are ignored. -1: all negative anchors count.
            An image without objects keeps the negative anchors of one positive anchor, 1 to
            100 of them.
        negative_mining_thresh: only anchors with an IoU below this are mined.
    """

    def __init__(
        self,
        net: TinySSD,
        loss: Any = None,
        negative_mining_ratio: float = -1,
        negative_mining_thresh: float = 0.5,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.net = net
        self.loss = DetectionLoss() if loss is None else loss
        self.options = {
            "negative_mining_ratio": number("negative_mining_ratio", negative_mining_ratio),
            "negative_mining_thresh": number("negative_mining_thresh", negative_mining_thresh),
        }

    def hybrid_forward(self, F: Any, images: Any, labels: Any) -> tuple[Any, ...]:
        if on_cpu(labels):
            check_labels(labels, len(self.net.classes))
        anchors, classes, offsets = self.net(images)
        target = self.net.op(F, "MultiBoxTarget")
        given = F.BlockGrad(classes).transpose((0, 2, 1))
        # MXNet's backward does not write the gradient of the anchors, so it is blocked.
        assigned = target(F.BlockGrad(anchors), labels, given, **self.options)
        bbox_labels, bbox_masks, cls_labels = map(F.BlockGrad, assigned)
        ratio = self.options["negative_mining_ratio"]
        count = int(min(max(ratio, 1), 100)) if ratio > 0 else 0
        cls_labels = label_background(F, cls_labels, count, classes)
        out = classes, cls_labels, offsets, bbox_labels, bbox_masks
        return (
            F.broadcast_mul(self.loss(*out), nan_if_invalid(F, labels, len(self.net.classes))),
            *out,
        )


def nan_if_invalid(F: Any, labels: Any, num_classes: int) -> Any:
    """Return 1 for each image whose labels pass ``check_labels``, NaN for the others, (B,)."""
    kinds = F.slice_axis(labels, axis=2, begin=0, end=1)
    low, high = (F.slice_axis(labels, axis=2, begin=i, end=i + 2) for i in (1, 3))
    ordered = F.min((low <= high) * (F.abs(low) <= MOST) * (F.abs(high) <= MOST), axis=2)
    known = (kinds >= 0) * (kinds < num_classes) * (kinds == F.floor(kinds))
    known = known.reshape((0, 0)) * ordered + (kinds == -1).reshape((0, 0))
    known = F.min(known, axis=1)
    return F.BlockGrad(known / known)


def check_labels(labels: Any, num_classes: int) -> None:
    """Raise a ValueError for labels that a network cannot learn.

    Args:
        labels: an array on the CPU, as for ``Training``.
        num_classes: the number of classes, without the background.

    Raises:
        ValueError: the shape is not (B, m, 5 or more); a class is not -1 or an integer from 0 to
            ``num_classes`` - 1; a box is not finite, inverted, or not in fractions of the image.
            The message names the image and the row.
    """
    shape = tuple(labels.shape)
    if len(shape) != 3 or shape[2] < 5:
        raise ValueError(f"labels: expected shape (B, m, 5 or more), got {shape}")
    values = labels.asnumpy()
    kinds, boxes = values[:, :, 0], values[:, :, 1:5]
    for want, right in (
        (f"classes 0 to {num_classes - 1}, or -1 for padding", np.isin(kinds, range(num_classes))),
        ("corners in fractions of the image", (abs(boxes) <= MOST).all(axis=2)),
        ("x1 <= x2 and y1 <= y2", (boxes[:, :, :2] <= boxes[:, :, 2:]).all(axis=2)),
    ):
        wrong = ~right & (kinds != -1)
        if wrong.any():
            image, row = map(int, np.argwhere(wrong)[0])
            got = values[image, row, :5].tolist()
            raise ValueError(f"labels: expected {want}, got {got} in image {image}, row {row}")


def train_step(
    training: Training, trainer: Any, images: Any, labels: Any, devices: Sequence[Any] | None = None
) -> list[Any]:
    """Run one training step: forward, backward, update of the weights.

    Args:
        training: hybridized or not.
        trainer: a ``gluon.Trainer`` of the network's parameters.
        images, labels: a batch of B images and its labels, as for ``training``, on any device.
        devices: MXNet's contexts, those of the parameters by default. The batch is split over them
            evenly or nearly so. Gradients are summed over the devices. A batch normalization uses
            only the part of its own device.

    Returns:
        The outputs of ``training`` on each device.

    Raises:
        ValueError: the batch has fewer images than devices, or another number of labels;
            ``labels`` are on the CPU and ``check_labels`` rejects them.
    """
    if devices is None:
        devices = contexts(training.net)
    if len(images) != len(labels):
        raise ValueError(f"labels: expected labels of {len(images)} images, got {len(labels)}")
    if on_cpu(labels):
        check_labels(labels, len(training.net.classes))
    return step(training, trainer, (images, labels), devices)


def predict(
    net: TinySSD, image: Any, threshold: float = 0.5, nms_threshold: float = 0.3
) -> np.ndarray:
    """Return the detections of ``net`` in one image, in descending order of scores.

    Args:
        image: a Pillow image, read by the rules of ``cvops.images``, or an array of NumPy or MXNet,
            RGB, uint8 (H, W, 3). It is resized to the size of the training images.
        threshold: the minimum score.
        nms_threshold: see ``Detector``.

    Returns:
        float32 (n, 6), rows (class, score, x1, y1, x2, y2), corners in pixels of ``image``. For a
        Pillow image with an EXIF orientation they are pixels of the upright image.

    Raises:
        ValueError: ``image`` is an array of another shape or dtype, or a Pillow image whose pixels
            have no rule.
    """
    from cvops._pillow import Image
    from cvops.images import as_numpy

    pixels = as_numpy(image)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        raise ValueError(
            f"image: expected uint8 (height, width, 3), got {pixels.dtype} {pixels.shape}"
        )
    height, width = pixels.shape[:2]
    square = np.asarray(Image.fromarray(pixels).resize((net.side, net.side)))
    batch = mx.nd.array(square.transpose(2, 0, 1)[None], ctx=contexts(net)[0])
    rows = net.detect(batch, threshold, nms_threshold)[0].asnumpy()
    rows = rows[rows[:, 0] >= 0]
    rows[:, 2:] *= (width, height) * 2
    return rows

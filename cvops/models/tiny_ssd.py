"""TinySSD, the single shot detector of "Dive into Deep Learning", in Gluon.

B images, A anchors, C classes without the background, which is class 0 of what the
network predicts. Boxes are (x1, y1, x2, y2), corners, in fractions of the image unless
pixels are said.

All three blocks hybridize as a whole, the detection ops included:

- ``TinySSD``: images to anchors, classes and offsets
- ``Training``: images and labels to losses
- ``Detector``: images to detections; made to be exported
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cvops._mxnet import mxnet
from cvops.models.losses import DetectionLoss, label_background, on_cpu
from cvops.ops._check import choice, integer, number

mx = mxnet()
nn = mx.gluon.nn

#: Of each of the five feature maps, fine to coarse: sizes (fractions of the image) and ratios.
SIZES = ((0.2, 0.272), (0.37, 0.447), (0.54, 0.619), (0.71, 0.79), (0.88, 0.961))
RATIOS = ((1, 2, 0.5),) * 5

#: The largest corner that a label may have. Boxes reach over the image, but not by its size.
MOST = 2

#: Channels of the feature maps.
CHANNELS = (64, 128, 128, 128, 128)


def halving(before: int, channels: int) -> Any:
    """Two 3 x 3 convolutions, then a max pooling that halves height and width."""
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
    """The five blocks of layers; each ends in a feature map that boxes are predicted from.

    Of an image of 256 x 256 the maps are 32, 16, 8, 4 and 1 on a side.
    """
    first = nn.HybridSequential()
    first.add(halving(3, 16), halving(16, 32), halving(32, 64))
    return [first, halving(64, 128), halving(128, 128), halving(128, 128), nn.GlobalMaxPool2D()]


class TinySSD(mx.gluon.HybridBlock):  # type: ignore[misc, name-defined]
    """The network: images (B, 3, H, W), RGB of 0 to 255, to (anchors, classes, offsets).

    Anchors are (1, A, 4); classes (B, A, C + 1), before softmax, class 0 the background;
    offsets (B, A * 4), from each anchor to its box, as MultiBoxTarget encodes them.

    Args:
        classes: names of the classes, without the background.
        side: height and width, in pixels, of the images that it is trained on: 64 or
            more. It takes others of 64 or more too, and sees in them what it knows at
            this size.
        ops: whose MultiBoxPrior, MultiBoxTarget and MultiBoxDetection it is made of:
            "cvops" or "mxnet". The names of the parameters do not depend on it.

    Raises:
        TypeError: ``side`` is not an integer.
        ValueError: ``classes`` are not names, or ``side`` or ``ops`` is not as above.
    """

    def __init__(
        self, classes: Sequence[str], side: int = 256, ops: str = "cvops", **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        listed = isinstance(classes, Iterable) and not isinstance(classes, str)
        names = tuple(classes) if listed else ()
        if not names or not all(isinstance(name, str) for name in names):
            raise ValueError(f"classes: expected one or more names, got {classes!r}")
        choice("ops", ops, ("cvops", "mxnet"))
        if ops == "cvops":
            import cvops.mxnet  # noqa: F401 (registers the ops)
        self.classes = names
        self.side = integer("side", side, 64)
        self.ops = ops
        with self.name_scope():
            self.stages = nn.HybridSequential()
            self.class_heads = nn.HybridSequential()
            self.offset_heads = nn.HybridSequential()
            for stage, channels, sizes, ratios in zip(stages(), CHANNELS, SIZES, RATIOS):
                self.stages.add(stage)
                per_place = len(sizes) + len(ratios) - 1
                for heads, numbers in (
                    (self.class_heads, len(classes) + 1),
                    (self.offset_heads, 4),
                ):
                    heads.add(nn.Conv2D(per_place * numbers, 3, padding=1, in_channels=channels))

    def op(self, F: Any, name: str) -> Any:
        """The op that MXNet calls ``name``, for arrays or symbols, ours or MXNet's."""
        return getattr(F.contrib, f"cvops_{name}" if self.ops == "cvops" else name)

    def hybrid_forward(self, F: Any, images: Any) -> tuple[Any, Any, Any]:
        anchors: list[Any] = []
        classes: list[Any] = []
        offsets: list[Any] = []
        features = images / 255 - 0.5
        for i, stage in enumerate(self.stages):
            features = stage(features)
            shape = F.BlockGrad(features)  # anchors depend on the shape alone
            anchors.append(self.op(F, "MultiBoxPrior")(shape, sizes=SIZES[i], ratios=RATIOS[i]))
            # Channels last, so that the flat order is (row, column, anchor of the place).
            for heads, flat in ((self.class_heads, classes), (self.offset_heads, offsets)):
                flat.append(heads[i](features).transpose((0, 2, 3, 1)).flatten())
        joined = F.concat(*classes, dim=1).reshape((0, -1, len(self.classes) + 1))
        return F.concat(*anchors, dim=1), joined, F.concat(*offsets, dim=1)

    def detect(self, images: Any, threshold: float = 0.01, nms_threshold: float = 0.3) -> Any:
        """Detections of ``images`` as ``Detector`` gives them, (B, A, 6)."""
        return Detector(self, threshold, nms_threshold)(images)

    def save(self, path: str | Path) -> None:
        """Write the parameters to ``path``, and beside it (``.json``) what else ``load`` needs."""
        path = Path(path)
        self.save_parameters(str(path))
        about = {"model": "TinySSD", "classes": self.classes, "side": self.side}
        path.with_suffix(".json").write_text(json.dumps(about, indent=2) + "\n", "utf-8")

    @classmethod
    def load(cls, path: str | Path, ops: str = "cvops") -> TinySSD:
        """The network that ``save`` wrote to ``path``, on the CPU.

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
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise ValueError(f"{path.with_suffix('.json')}: does not describe a TinySSD") from error
        try:
            net.load_parameters(str(path))
        except (mx.MXNetError, AssertionError, ValueError, KeyError) as error:
            raise ValueError(f"{path}: not the parameters of a TinySSD") from error
        return net


class Detector(mx.gluon.HybridBlock):  # type: ignore[misc, name-defined]
    """Images (B, 3, H, W), RGB of 0 to 255, to detections (B, A, 6).

    Rows are (class, score, x1, y1, x2, y2), best score first. Class -1 marks a row that is
    no detection: under ``threshold``, or suppressed by a better one of its class that it
    overlaps by ``nms_threshold`` or more.

    Hybridized and run once, it can be exported: ``detector.export(path)`` writes the graph
    and the parameters, and ``gluon.SymbolBlock.imports`` reads them, after
    ``import cvops.mxnet`` if ``net.ops`` is "cvops".
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
    """Images and labels to losses, targets included: what is hybridized to train ``net``.

    Takes images (B, 3, H, W) and labels (B, m, 5 or more), rows (class, x1, y1, x2, y2, ...) and
    then rows of -1; an image without objects has rows of -1 only, and teaches the background.
    ``check_labels`` has the rules for classes and boxes; pixels, which match no anchor, are no
    fractions. Other labels raise its ValueError on the CPU. In a graph (hybridized) and on a GPU
    the loss of their image is NaN.
    Gives the loss of each image, (B,), and what it was computed from, in the
    order of ``losses``: cls_preds, cls_labels, bbox_preds, bbox_labels, bbox_masks.

    Args:
        net: the network.
        loss: a block of those five; ``DetectionLoss()`` if not given.
        negative_mining_ratio: number of anchors without a box that count for one with a box;
            the classes of these anchors have the largest errors. -1: all count. An image without
            objects has as many as an image with one box, 1 to 100.
        negative_mining_thresh: only anchors with an IoU under this are mined.
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

    def _nan_if_unknown(self, F: Any, labels: Any) -> Any:
        """1 for each image whose labels ``check_labels`` takes, NaN for the others, (B,)."""
        kinds = F.slice_axis(labels, axis=2, begin=0, end=1)
        low, high = (F.slice_axis(labels, axis=2, begin=i, end=i + 2) for i in (1, 3))
        ordered = F.min((low <= high) * (F.abs(low) <= MOST) * (F.abs(high) <= MOST), axis=2)
        known = (kinds >= 0) * (kinds < len(self.net.classes)) * (kinds == F.floor(kinds))
        known = known.reshape((0, 0)) * ordered + (kinds == -1).reshape((0, 0))
        known = F.min(known, axis=1)
        return F.BlockGrad(known / known)

    def hybrid_forward(self, F: Any, images: Any, labels: Any) -> tuple[Any, ...]:
        if on_cpu(labels):
            check_labels(labels, len(self.net.classes))
        anchors, classes, offsets = self.net(images)
        target = self.net.op(F, "MultiBoxTarget")
        given = F.BlockGrad(classes).transpose((0, 2, 1))
        # MXNet's backward leaves the gradient of its anchors as it finds it: none is asked for.
        assigned = target(F.BlockGrad(anchors), labels, given, **self.options)
        bbox_labels, bbox_masks, cls_labels = map(F.BlockGrad, assigned)
        ratio = self.options["negative_mining_ratio"]
        count = int(min(max(ratio, 1), 100)) if ratio > 0 else 0
        cls_labels = label_background(F, cls_labels, count, classes)
        out = classes, cls_labels, offsets, bbox_labels, bbox_masks
        return (F.broadcast_mul(self.loss(*out), self._nan_if_unknown(F, labels)), *out)


def check_labels(labels: Any, num_classes: int) -> None:
    """Refuse labels that a network cannot learn.

    Args:
        labels: an array on the CPU, as ``Training`` takes them.
        num_classes: the number of classes, without the background.

    Raises:
        ValueError: the shape is not (B, m, 5 or more); a class is not a whole number of 0 to
            ``num_classes`` - 1, or -1; a box is not finite, inverted, or not in fractions of the
            image. The message names the image and the row.
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
    """One step of training: forward, backward, new weights.

    Args:
        training: hybridized or not.
        trainer: a ``gluon.Trainer`` of the network's parameters.
        images, labels: of a batch of B images, as ``training`` takes them, on any device.
        devices: MXNet's contexts, over which the batch is split evenly or nearly so; those
            of the parameters if not given. Gradients are summed over the devices; a batch
            normalization sees its own device's part alone.

    Returns:
        What ``training`` gave on each device.

    Raises:
        ValueError: the batch has fewer images than there are devices, or another number of labels;
            ``labels`` are on the CPU and ``check_labels`` refuses them.
    """
    if devices is None:
        devices = contexts(training.net)
    if len(images) != len(labels):
        raise ValueError(f"labels: expected those of {len(images)} images, got {len(labels)}")
    if on_cpu(labels):
        check_labels(labels, len(training.net.classes))
    if len(images) < len(devices):
        raise ValueError(f"{len(images)} images cannot be split over {len(devices)} devices")
    split = mx.gluon.utils.split_and_load
    parts = [split(given, list(devices), even_split=False) for given in (images, labels)]
    with mx.autograd.record():
        results = [training(*part) for part in zip(*parts)]
    mx.autograd.backward([loss for loss, *_ in results])
    if not trainer._kv_initialized:
        # The first step copies all parameters from the first device to the others. A static
        # graph writes running means in its backward, and MXNet does not wait for that.
        mx.nd.waitall()
        trainer._init_kvstore()
        trainer._init_params()
        # A distributed store keeps the first gradients where it has the weights: MXNet may fetch
        # them for the weights.
        mx.nd.waitall()
    trainer.step(len(images))
    return results


def contexts(net: Any) -> list[Any]:
    """The devices that the parameters of ``net`` are on."""
    return next(iter(net.collect_params().values())).list_ctx()


def predict(
    net: TinySSD, image: Any, threshold: float = 0.5, nms_threshold: float = 0.3
) -> np.ndarray:
    """What ``net`` sees in one image, best score first.

    Args:
        image: a Pillow image, read by the rules of ``cvops.images``, or RGB, uint8 (H, W, 3), as
            NumPy or MXNet array. It is resized to the size that the network was trained on.
        threshold: the least score.
        nms_threshold: see ``Detector``.

    Returns:
        float32 (n, 6), rows (class, score, x1, y1, x2, y2), corners in pixels of ``image``;
        of a Pillow image with an EXIF orientation, in those of the upright image.

    Raises:
        ValueError: ``image`` is an array of another shape or dtype, or a Pillow image whose pixels
            have no rule.
    """
    from PIL import Image

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

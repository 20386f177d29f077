"""Recipes of the detectors: TinySSD, Faster R-CNN, Mask R-CNN."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, Callable

import numpy as np

from cvops import metrics
from cvops._mxnet import mxnet
from cvops._pillow import Image
from cvops.datasets.loading import groups_of, load_groups
from cvops.datasets.voc_instances import mirror_instances, rand_crop_instances, square_instances
from cvops.models import rcnn, tiny_ssd
from cvops.models.losses import DetectionLoss
from cvops.models.steps import contexts
from cvops.recipes.recipe import Check, Evaluation, Found, Network, Recipe, nothing
from cvops.recipes.splits import Split

mx = mxnet()

#: Detections below this score are not wrong in the confusion matrix.
CONFUSED = 0.5

#: Maximum number of detections of an R-CNN in an image, as many as COCO counts.
_MOST = 100

#: Name of the row and the column of the confusion matrix for no object.
_NOTHING = "background"


class DetectorRecipe(Recipe):
    """The common parts of the detectors: labels, augmentation, metrics."""

    kinds: tuple[str, ...] = ("boxes", "instances")
    metric = "AP"
    #: True if the labels have masks.
    has_masks = False
    #: Minimum score of the detections of an evaluation.
    threshold = 0.01

    def item(
        self, split: Split, side: int, augment: bool, most: int
    ) -> Callable[[int, random.Random], tuple[np.ndarray, ...]]:
        def load(index: int, rng: random.Random) -> tuple[np.ndarray, ...]:
            image, labels, masks = split.scene(index)
            if not self.has_masks:
                masks = np.zeros((len(labels), 0, 0), np.uint8)
            if augment:
                image, labels, masks = rand_crop_instances(image, labels, masks, rng=rng)
                if rng.random() < 0.5:
                    image, labels, masks = mirror_instances(image, labels, masks)
            pixels, rows, square = square_instances(image, labels, masks, side, most)
            shapes = (square,) if self.has_masks else ()
            return (pixels, rows, *shapes, np.array(rng.getrandbits(32), np.uint32))

        return load

    def evaluate(
        self,
        net: Any,
        split: Split,
        batch_size: int = 16,
        threads: int = 2,
        check: Check = nothing,
        full: bool = True,
    ) -> Evaluation:
        predict = self.predictor(net, self.threshold)
        found, labels, detected, masks = [], [], [], []
        for batch in load_groups(split.scene, groups_of(range(len(split)), batch_size), threads):
            check()
            for (image, rows, shapes), one in zip(batch, predict([image for image, *_ in batch])):
                scaled = rows.astype(np.float64)
                scaled[:, 1:5] *= image.shape[1::-1] * 2
                labels.append(scaled)
                found.append(one.rows)
                if self.has_masks:  # as codes, which take less memory
                    detected.append(metrics.encode_masks(one.masks()))
                    masks.append(metrics.encode_masks(shapes))
        count = len(split.classes)
        table = metrics.coco_metrics(found, labels, count)
        values = dict(table.values)
        if self.has_masks:
            of_masks = metrics.coco_metrics(found, labels, count, detected, masks)
            values |= {f"mask {name}": value for name, value in of_masks.values.items()}
        if not full:
            return Evaluation(values, {}, np.zeros((0, 0), np.int64), (), [])
        voc = metrics.average_precision(found, labels, count, 0.5, "area")
        voc07 = metrics.average_precision(found, labels, count, 0.5, "11-point")
        columns = {"AP": table.ap, "AP50": table.ap50, "VOC AP": voc, "VOC07 AP": voc07}
        if self.has_masks:
            columns |= {"mask AP": of_masks.ap, "mask AP50": of_masks.ap50}
        values |= {"VOC mAP": _mean(voc), "VOC07 mAP": _mean(voc07)}
        classes = {
            name: {column: float(numbers[kind]) for column, numbers in columns.items()}
            for kind, name in enumerate(split.classes)
        }
        each = [
            metrics.detection_confusion([row], [label], count, score=CONFUSED)
            for row, label in zip(found, labels)
        ]
        errors = [int(matrix.sum() - matrix.trace()) for matrix in each]
        names = (*split.classes, _NOTHING)
        return Evaluation(values, classes, np.sum(each, axis=0), names, errors)


def _mean(values: np.ndarray) -> float:
    return float("nan") if np.isnan(values).all() else float(np.nanmean(values))


def squares(images: Sequence[np.ndarray], side: int) -> np.ndarray:
    """Return images resized to squares, float32 (B, 3, side, side)."""
    resized = [np.asarray(Image.fromarray(image).resize((side, side))) for image in images]
    return np.stack(resized).transpose(0, 3, 1, 2).astype(np.float32)


class SSDRecipe(DetectorRecipe):
    """TinySSD, by SGD with momentum."""

    name, saved_name = "ssd", "TinySSD"
    backbones = ("tiny",)
    rate = 0.005
    optimizer, options = "sgd", {"momentum": 0.9, "wd": 5e-4}

    def make(self, network: Network, devices: Sequence[Any]) -> tiny_ssd.TinySSD:
        net = tiny_ssd.TinySSD(network.classes, network.side)
        net.initialize(mx.init.Xavier(), ctx=list(devices))
        return net

    def load(self, path: Any) -> tiny_ssd.TinySSD:
        return tiny_ssd.TinySSD.load(path)

    def training(
        self, net: tiny_ssd.TinySSD, weights: Sequence[float] | None
    ) -> tuple[Any, tuple[str, ...]]:
        return make_ssd_training(net, weights), ("loss",)

    def step(self, training: Any, trainer: Any, batch: Sequence[np.ndarray]) -> list[float]:
        images, labels, _ = batch
        results = tiny_ssd.train_step(training, trainer, mx.nd.array(images), mx.nd.array(labels))
        return _means([(loss,) for loss, *_ in results])

    def predictor(
        self, net: tiny_ssd.TinySSD, threshold: float, nms_threshold: float = 0.3
    ) -> Callable[[Sequence[np.ndarray]], list[Found]]:
        detector = tiny_ssd.Detector(net, threshold, nms_threshold)
        detector.hybridize(static_alloc=True)

        def predict(images: Sequence[np.ndarray]) -> list[Found]:
            batch = mx.nd.array(squares(images, net.side), ctx=contexts(net)[0])
            return [
                _found(image, rows, threshold)
                for image, rows in zip(images, detector(batch).asnumpy())
            ]

        return predict


def make_ssd_training(
    net: tiny_ssd.TinySSD, weights: Sequence[float] | None = None
) -> tiny_ssd.Training:
    """Return the hybridized training graph, whose loss is per box: it learns the offsets sooner.

    ``weights`` are those of the classes, the background first.
    """
    training = tiny_ssd.Training(net, DetectionLoss(per="box", class_weights=weights))
    training.loss.initialize(ctx=contexts(net))
    training.hybridize(static_alloc=True, static_shape=True)
    return training


def _means(results: Sequence[Sequence[Any]]) -> list[float]:
    """Return the mean over the images of each output of all devices."""
    columns = (np.concatenate([x.asnumpy() for x in column]) for column in zip(*results))
    return [float(values.mean()) for values in columns]


def _found(
    image: np.ndarray, rows: np.ndarray, threshold: float, cells: np.ndarray | None = None
) -> Found:
    """Return detections in fractions of an image as detections in pixels."""
    height, width = image.shape[:2]
    kept = (rows[:, 0] >= 0) & (rows[:, 1] >= threshold)
    rows = rows[kept]
    rows[:, 2:] *= (width, height) * 2
    return Found((height, width), rows, None if cells is None else cells[kept])


class FasterRecipe(DetectorRecipe):
    """Faster R-CNN, by Adam, RPN and heads together."""

    name, saved_name = "faster", "FasterRCNN"
    backbones = ("small", "squeezenet", "resnet50")
    pretrained = ("squeezenet", "resnet50")
    threshold = 0.05

    def make(self, network: Network, devices: Sequence[Any]) -> rcnn.FasterRCNN:
        net = rcnn.FasterRCNN(
            network.classes, network.side, self.has_masks, backbone=network.backbone
        )
        net.initialize(ctx=list(devices))
        if network.pretrained:
            net.backbone.load_zoo(network.pretrained, list(devices))
        return net

    def load(self, path: Any) -> rcnn.FasterRCNN:
        net: rcnn.FasterRCNN = rcnn.FasterRCNN.load(path)
        return net

    def training(
        self, net: rcnn.FasterRCNN, weights: Sequence[float] | None
    ) -> tuple[Any, tuple[str, ...]]:
        training = rcnn.RCNNTraining(net, class_weights=weights)
        if weights is not None:
            training.class_weights.initialize(ctx=contexts(net))
        training.hybridize(static_alloc=True, static_shape=True)
        return training, ("loss", *training.names)

    def step(self, training: Any, trainer: Any, batch: Sequence[np.ndarray]) -> list[float]:
        images, labels, *masks, seeds = batch
        shape = len(images), training.noise_width(images, labels)
        noise = mx.nd.array(np.random.default_rng(seeds).random(shape, np.float32))
        results = rcnn.train_step(
            training,
            trainer,
            mx.nd.array(images),
            mx.nd.array(labels),
            mx.nd.array(masks[0], dtype=np.uint8) if masks else None,
            noise=noise,
        )
        return _means(results)

    def predictor(
        self, net: rcnn.FasterRCNN, threshold: float, nms_threshold: float = 0.3
    ) -> Callable[[Sequence[np.ndarray]], list[Found]]:
        detector = rcnn.RCNNDetector(net, threshold, nms_threshold, _MOST)
        detector.hybridize(static_alloc=True)

        def predict(images: Sequence[np.ndarray]) -> list[Found]:
            batch = mx.nd.array(squares(images, net.side), ctx=contexts(net)[0])
            out = detector(batch)
            rows, *cells = (x.asnumpy() for x in (out if net.mask else [out]))
            columns = cells[0] if cells else [None] * len(rows)
            return [
                _found(image, row, threshold, shape)
                for image, row, shape in zip(images, rows, columns)
            ]

        return predict


class MaskRecipe(FasterRecipe):
    """Mask R-CNN: a Faster R-CNN with masks."""

    name = "mask"
    kinds = ("instances",)
    has_masks = True

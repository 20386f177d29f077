"""The recipe of the FCN: semantic segmentation."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, Callable

import numpy as np

from cvops import metrics
from cvops._mxnet import mxnet
from cvops.datasets.loading import groups_of, load_groups
from cvops.datasets.transforms import normalize_image
from cvops.datasets.voc_labels import VOC_VOID
from cvops.models import fcn, steps
from cvops.ops.confusion_matrix import confusion_matrix
from cvops.recipes.recipe import Check, Evaluation, Found, Network, Recipe, nothing
from cvops.recipes.splits import Split

mx = mxnet()

#: Height and width of the parts in which large images are predicted.
_TILE = 1024, 1024


class FCNTraining(mx.gluon.HybridBlock):  # type: ignore[misc, name-defined]
    """Block from images and the classes of their pixels to the loss of each image, (B,)."""

    def __init__(self, net: fcn.FCN, weights: Sequence[float] | None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.net, self.loss = net, fcn.SegmentationLoss(VOC_VOID, weights)

    def hybrid_forward(self, F: Any, images: Any, labels: Any) -> tuple[Any]:
        return (self.loss(self.net(images), labels),)


class FCNRecipe(Recipe):
    """FCN-8s, by Adam."""

    name, saved_name = "fcn", "FCN"
    kinds = ("segmentation", "instances")
    backbones = pretrained = ("resnet18",)
    metric = "mean IoU"
    segments = True

    def make(self, network: Network, devices: Sequence[Any]) -> fcn.FCN:
        names = ("background", *network.classes)
        pretrained = network.pretrained
        net = fcn.FCN(len(names), stride=8, pretrained=pretrained, classes=names)
        net.initialize(ctx=list(devices))
        return net

    def load(self, path: Any) -> fcn.FCN:
        return fcn.FCN.load(path)

    def class_names(self, net: fcn.FCN) -> tuple[str, ...]:
        return net.classes or tuple(map(str, range(net.num_classes)))

    def item(
        self, split: Split, side: int, augment: bool, most: int
    ) -> Callable[[int, random.Random], tuple[np.ndarray, ...]]:
        def load(index: int, rng: random.Random) -> tuple[np.ndarray, ...]:
            image, label = split.pixels(index)
            pixels, classes = crop(normalize_image(image), label, side, rng if augment else None)
            return np.ascontiguousarray(pixels.transpose(2, 0, 1)), np.ascontiguousarray(classes)

        return load

    def training(
        self, net: fcn.FCN, weights: Sequence[float] | None
    ) -> tuple[Any, tuple[str, ...]]:
        training = FCNTraining(net, weights)
        training.loss.initialize(ctx=steps.contexts(net))
        training.hybridize(static_alloc=True, static_shape=True)
        return training, ("loss",)

    def step(self, training: Any, trainer: Any, batch: Sequence[np.ndarray]) -> list[float]:
        arrays = [mx.nd.array(x, dtype=x.dtype) for x in batch]
        results = steps.step(training, trainer, arrays, steps.contexts(training.net))
        losses = np.concatenate([loss.asnumpy() for (loss,) in results])
        return [float(losses.mean())]

    def predictor(
        self, net: fcn.FCN, threshold: float, nms_threshold: float = 0.3
    ) -> Callable[[Sequence[np.ndarray]], list[Found]]:
        net.hybridize(static_alloc=True)

        def predict(images: Sequence[np.ndarray]) -> list[Found]:
            nothing = np.zeros((0, 6), np.float32)
            maps = [fcn.predict(net, image, _TILE) for image in images]
            return [Found((len(x), len(x[0])), nothing, None, x) for x in maps]

        return predict

    def evaluate(
        self,
        net: fcn.FCN,
        split: Split,
        batch_size: int = 16,
        threads: int = 2,
        check: Check = nothing,
        full: bool = True,
    ) -> Evaluation:
        net.hybridize(static_alloc=True)
        names = self.class_names(net)
        matrix = np.zeros((len(names), len(names)), np.int64)
        errors = []
        for batch in load_groups(split.pixels, groups_of(range(len(split)), batch_size), threads):
            check()
            for image, label in batch:
                found = fcn.predict(net, image, _TILE)
                counts = confusion_matrix(found, label, len(names), VOC_VOID)
                matrix += counts
                errors.append(int(counts.sum() - counts.trace()))
        values = {
            "mean IoU": metrics.mean_iou(matrix),
            "pixel accuracy": metrics.pixel_accuracy(matrix),
        }
        ious = metrics.class_iou(matrix)
        classes = {name: {"IoU": float(iou)} for name, iou in zip(names, ious)}
        return Evaluation(values, classes, matrix, names, errors)


def crop(
    image: np.ndarray, label: np.ndarray, side: int, rng: random.Random | None
) -> tuple[np.ndarray, np.ndarray]:
    """Cut a square from an image (h, w, 3) and its classes, at the center without ``rng``.

    A smaller image is filled up with 0, the mean color, and its classes with ``VOC_VOID``. With
    ``rng`` the position is random, and the square is mirrored with a probability of 1/2.
    """
    lengths = [max(side - length, 0) for length in label.shape]
    if any(lengths):
        below = [(0, length) for length in lengths]
        image = np.pad(image, (*below, (0, 0)))
        label = np.pad(label, below, constant_values=VOC_VOID)
    y, x = (
        (length - side) // 2 if rng is None else rng.randint(0, length - side)
        for length in label.shape
    )
    image, label = image[y : y + side, x : x + side], label[y : y + side, x : x + side]
    if rng is not None and rng.random() < 0.5:
        image, label = image[:, ::-1], label[:, ::-1]
    return image, label

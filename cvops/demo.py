"""Train, evaluate and time a TinySSD, and draw its detections: ``cvops demo``."""

from __future__ import annotations

import dataclasses
import itertools
import math
import statistics
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Callable

import numpy as np

from cvops import data, metrics, plot
from cvops._mxnet import mxnet
from cvops.models import losses, tiny_ssd
from cvops.models.tiny_ssd import Detector, TinySSD
from cvops.ops import _check
from cvops.recipes.detectors import make_ssd_training
from cvops.training import Summary, Task, fit

mx = mxnet()


def train(
    net: TinySSD,
    batches: Any,
    epochs: int,
    rate: float = 0.005,
    seed: int = 0,
    saved: Path | None = None,
) -> list[metrics.AnchorErrors]:
    """Train by SGD with momentum and return the errors of each epoch.

    The learning rate falls along half a cosine.

    Args:
        net: network on the devices to train on.
        batches: an ``ImageDetIter``.
        epochs: number of epochs, 1 or more.
        rate: the maximum learning rate, 0 or more.
        seed: seed of the order of the images and of their augmentation in each epoch.
        saved: checkpoint file, written after each epoch. If it exists, training continues from it,
            with the same result as one uninterrupted run.

    Raises:
        CheckpointError: ``saved`` is not a checkpoint, or is one of another training.
    """
    epochs, rate = _check.integer("epochs", epochs, 1), _check.number("rate", rate, 0)
    training = make_ssd_training(net)

    def batches_of(epoch: int, first: int) -> Any:
        batches.seq.sort()  # the order must not depend on earlier epochs
        batches.reset()
        return itertools.islice(batches, first, None)

    def train_step(trainer: Any, batch: Any) -> list[float]:
        errors = metrics.AnchorErrors()
        results = tiny_ssd.train_step(training, trainer, batch.data[0], batch.label[0])
        for _, classes, class_labels, *boxes in results:
            right = losses.cls_eval(classes, class_labels)
            errors.add(class_labels.size, right, losses.bbox_eval(*boxes))
        return [errors.anchors, errors.right, errors.offset_error]

    def summary(numbers: np.ndarray) -> Summary:
        anchors, right, offset_error = numbers.sum(axis=0).tolist()
        errors = metrics.AnchorErrors(int(anchors), right, offset_error)
        text = f"class error {errors.class_error:.2e}, box MAE {errors.box_mae:.2e}"
        return dataclasses.asdict(errors), text

    steps = math.ceil(len(batches.seq) / batches.batch_size)
    task = Task(steps, batches_of, train_step, summary)
    settings = {"epochs": epochs, "rate": rate, "seed": seed, "side": net.side}
    history = fit(task, net, "sgd", {"momentum": 0.9, "wd": 5e-4}, settings, saved)
    return [metrics.AnchorErrors(**errors) for errors in history]


def evaluate(net: TinySSD, batches: Any) -> np.ndarray:
    """Return the average precision of each class at an IoU of 0.5, float64 (classes,)."""
    detections: list[np.ndarray] = []
    labels: list[np.ndarray] = []
    detector = Detector(net)
    detector.hybridize(static_alloc=True, static_shape=True)
    batches.reset()
    for batch in batches:
        count = batches.batch_size - batch.pad  # without the padding of the last batch
        detections.extend(detector(batch.data[0]).asnumpy()[:count])
        labels.extend(batch.label[0].asnumpy()[:count, :, :6])
    return metrics.average_precision(detections, labels, len(net.classes))


def seconds(work: Callable[[], Any]) -> float:
    """Return the time of ``work`` in seconds, including its asynchronous computation."""
    mx.nd.waitall()
    start = time.perf_counter()
    work()
    mx.nd.waitall()
    return time.perf_counter() - start


class Steps:
    """The parts of a network to time: whole hybridized steps, and their ops alone."""

    def __init__(self, net: TinySSD) -> None:
        self.net = net
        self.training = make_ssd_training(net)
        self.detector = Detector(net)
        self.detector.hybridize(static_alloc=True, static_shape=True)

    def work(self, images: Any, labels: Any) -> dict[str, Callable[[], Any]]:
        """Return a function for each part to time, on this batch."""
        net, nd = self.net, mx.nd
        maps = [images]  # anchors depend only on the shapes
        for stage in net.stages:
            maps.append(stage(maps[-1]))
        anchors, classes, offsets = net(images)
        logits = classes.transpose((0, 2, 1))
        scores = nd.softmax(logits, axis=1)

        def prior() -> None:
            for features, sizes, ratios in zip(maps[1:], tiny_ssd.SIZES, tiny_ssd.RATIOS):
                net.op(nd, "MultiBoxPrior")(features, sizes=sizes, ratios=ratios)

        def step() -> None:
            with mx.autograd.record():
                loss, *_ = self.training(images, labels)
            loss.backward()

        return {
            "prior": prior,
            "target": lambda: net.op(nd, "MultiBoxTarget")(anchors, labels, logits),
            "detection": lambda: net.op(nd, "MultiBoxDetection")(scores, offsets, anchors),
            "training": step,
            "detecting": lambda: self.detector(images),
        }


def times_of_ops(nets: Sequence[TinySSD], batches: Any, count: int = 5) -> str:
    """Return a table of the times of ops alone and of whole steps, for networks with other ``ops``.

    Each time is the median over the same ``count`` batches; the networks alternate. Whole steps are
    hybridized. A training step is forward, targets, loss and backward: weights do not change, but
    the running means of the batch normalization do. The ops alone get the same inputs as in a step.
    They run eagerly, because no op can be timed inside a graph.
    """
    steps_of = {net.ops: Steps(net) for net in nets}
    times: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in steps_of}
    batches.reset()
    first, *rest = itertools.islice(batches, count)
    for number, batch in enumerate([first, first, *rest]):
        for name, steps in steps_of.items():
            for part, work in steps.work(batch.data[0], batch.label[0]).items():
                duration = seconds(work)
                if number:  # the first batch is the warm-up
                    times[name][part].append(duration)
    lines = [
        "                    the ops alone                 whole steps",
        "ms per batch     prior   target detection    training detecting",
    ]
    for name, row in times.items():
        prior, target, detection, training, detecting = (
            1e3 * statistics.median(durations) for durations in row.values()
        )
        lines.append(
            f"{name:13} {prior:8.2f} {target:8.2f} {detection:9.2f} "
            f"{training:11.0f} {detecting:9.0f}"
        )
    return "\n".join(lines)


def picture(net: TinySSD, record: Path, count: int = 8, threshold: float = 0.5) -> Any:
    """Draw the detections of ``net`` in the first ``count`` images of a record file."""
    tiles = []
    for image, _ in data.read_record(record)[:count]:
        rows = tiny_ssd.predict(net, image, threshold)
        tiles.append(plot.draw_detections(image, rows, net.classes, scale=1.5))
    return plot.grid(tiles, columns=4)


def run(
    folder: Path,
    epochs: int = 3,
    train_images: int = 600,
    test_images: int = 100,
    batch_size: int = 8,
    seed: int = 0,
    side: int = data.SIDE,
    saved: Path | None = None,
) -> float:
    """Make the data, train, evaluate and time a TinySSD, and draw its detections.

    Writes the data, ``detections.png``, ``tiny_ssd.params``, ``tiny_ssd.json`` and ``scene.png``
    into ``folder``. ``scene.png`` is the first test image, an input for ``cvops detect``. Prints
    its progress. Training and test images have different photographs. For ``saved``, see ``train``.

    Returns:
        The mean average precision on the test images, at an IoU of 0.5.
    """
    folder.mkdir(parents=True, exist_ok=True)
    records = folder / "train.rec", folder / "test.rec"
    data.write_record(records[0], data.TRAIN_PHOTOS, train_images, 1, side)
    data.write_record(records[1], data.TEST_PHOTOS, test_images, 2, side)
    batches = data.iterator(records[0], batch_size, side, augment=True)
    test_batches = data.iterator(records[1], batch_size, side)

    mx.random.seed(seed)
    net = TinySSD(data.CLASSES, side)
    net.initialize(mx.init.Xavier())
    start = time.perf_counter()
    train(net, batches, epochs, seed=seed, saved=saved)
    print(f"trained in {time.perf_counter() - start:.0f} s")

    params = folder / "tiny_ssd.params"
    net.save(params)
    precision = evaluate(net, test_batches)
    picture(net, records[1]).save(folder / "detections.png")
    data.read_record(records[1])[0][0].save(folder / "scene.png")
    nets = [TinySSD.load(params, ops) for ops in ("mxnet", "cvops")]
    print("\n" + times_of_ops(nets, test_batches))

    print()
    for name, value in zip(net.classes, precision):
        print(f"AP@0.5 of {name}: {value:.2f}")
    mean = float(np.nanmean(precision))
    print(f"mAP@0.5: {mean:.2f}")
    return mean

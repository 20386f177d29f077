"""Train a TinySSD on the ops, measure it, and draw what it sees: ``cvops demo``."""

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
from tqdm.auto import tqdm

from cvops import checkpoint, data, metrics, plot
from cvops._mxnet import mxnet
from cvops.models import losses, tiny_ssd
from cvops.models.tiny_ssd import Detector, TinySSD, Training
from cvops.ops import _check

mx = mxnet()


def make_training(net: TinySSD) -> Training:
    """The graph that is trained: a loss per box, which learns the offsets from the start."""
    training = Training(net, losses.DetectionLoss(per="box"))
    training.hybridize(static_alloc=True, static_shape=True)
    return training


def train(
    net: TinySSD,
    batches: Any,
    epochs: int,
    rate: float = 0.005,
    seed: int = 0,
    saved: Path | None = None,
) -> list[metrics.AnchorErrors]:
    """Train by SGD with momentum; the rate falls along half a cosine. The errors of each epoch.

    Args:
        net: on the devices to train on.
        batches: an ``ImageDetIter``.
        seed: what the order of the images and their augmentation follow from, by epoch.
        saved: a file: a checkpoint is written there after each epoch, and if there is one
            to begin with, training goes on from it, to the same result as in one run.

    Raises:
        CheckpointError: ``saved`` is no checkpoint, or is one of another training.
    """
    epochs, rate = _check.integer("epochs", epochs, 1), _check.number("rate", rate, 0)
    steps = epochs * math.ceil(len(batches.seq) / batches.batch_size)
    schedule = mx.lr_scheduler.CosineScheduler(
        steps, rate, final_lr=rate / 100, warmup_steps=steps // 20, warmup_begin_lr=rate / 10
    )
    trainer = mx.gluon.Trainer(
        net.collect_params(),
        "sgd",
        {"learning_rate": rate, "momentum": 0.9, "wd": 5e-4, "lr_scheduler": schedule},
    )
    training = make_training(net)
    settings = {"epochs": epochs, "steps": steps, "rate": rate, "seed": seed, "side": net.side}
    history: list[metrics.AnchorErrors] = []
    if saved is not None and saved.exists():
        state = checkpoint.load(saved, net, trainer)
        if state["settings"] != settings:
            raise checkpoint.CheckpointError(
                f"{saved}: of a training with {state['settings']}, not {settings}"
            )
        history = [metrics.AnchorErrors(**past) for past in state["history"]]

    done = len(history) * steps // epochs
    with tqdm(total=steps, initial=done, unit="batch") as bar:
        for epoch in range(len(history), epochs):
            start, errors = time.perf_counter(), metrics.AnchorErrors()
            checkpoint.seed_all(seed, epoch)
            batches.seq.sort()  # in an order that does not depend on the epochs before
            batches.reset()
            for batch in batches:
                results = tiny_ssd.train_step(training, trainer, batch.data[0], batch.label[0])
                for _, classes, class_labels, *boxes in results:
                    right = losses.cls_eval(classes, class_labels)
                    errors.add(class_labels.size, right, losses.bbox_eval(*boxes))
                bar.set_postfix_str(f"class error {errors.class_error:.2e}", refresh=False)
                bar.update()
            history.append(errors)
            if saved is not None:
                past = list(map(dataclasses.asdict, history))
                checkpoint.save(saved, net, trainer, settings=settings, history=past)
            bar.write(
                f"epoch {epoch + 1:2d}: class error {errors.class_error:.2e}, "
                f"box MAE {errors.box_mae:.2e}, {time.perf_counter() - start:.1f} s"
            )
    return history


def evaluate(net: TinySSD, batches: Any) -> np.ndarray:
    """Average precision of each class at an IoU of 0.5."""
    detections: list[np.ndarray] = []
    labels: list[np.ndarray] = []
    detector = Detector(net)
    detector.hybridize(static_alloc=True, static_shape=True)
    batches.reset()
    for batch in batches:
        count = batches.batch_size - batch.pad  # the last batch may be filled up
        detections.extend(detector(batch.data[0]).asnumpy()[:count])
        labels.extend(batch.label[0].asnumpy()[:count, :, :6])
    return metrics.average_precision(detections, labels, len(net.classes))


def seconds(work: Callable[[], Any]) -> float:
    """What ``work`` takes, its computation behind the caller's back included."""
    mx.nd.waitall()
    start = time.perf_counter()
    work()
    mx.nd.waitall()
    return time.perf_counter() - start


class Steps:
    """What is timed of a network: whole steps as they are run, and the ops of them alone."""

    def __init__(self, net: TinySSD) -> None:
        self.net = net
        self.training = make_training(net)
        self.detector = Detector(net)
        self.detector.hybridize(static_alloc=True, static_shape=True)

    def work(self, images: Any, labels: Any) -> dict[str, Callable[[], Any]]:
        """Each thing to be timed, on this batch."""
        net, nd = self.net, mx.nd
        maps = [images]  # the right shapes, which is all that anchors depend on
        for stage in net.stages:
            maps.append(stage(maps[-1]))
        anchors, classes, offsets = net(images)
        logits = classes.transpose((0, 2, 1))
        scores = nd.softmax(logits, axis=1)

        def prior() -> None:
            for places, sizes, ratios in zip(maps[1:], tiny_ssd.SIZES, tiny_ssd.RATIOS):
                net.op(nd, "MultiBoxPrior")(places, sizes=sizes, ratios=ratios)

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
    """Time of the ops alone, and of whole steps, for networks that differ in their ``ops``.

    A table of medians over the same ``count`` batches, in turn. Whole steps are hybridized, a
    training step is forward, targets, loss and backward: no weight changes, but the
    running means of the batch normalisation do. The ops alone get what they get in the
    step; they are called one by one, since nothing can be timed inside of a graph.
    """
    peers = {net.ops: Steps(net) for net in nets}
    times: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in peers}
    batches.reset()
    first, *rest = itertools.islice(batches, count)
    for number, batch in enumerate([first, first, *rest]):
        for name, steps in peers.items():
            for part, work in steps.work(batch.data[0], batch.label[0]).items():
                taken = seconds(work)
                if number:  # the first batch warms up
                    times[name][part].append(taken)
    lines = [
        "                    the ops alone                 whole steps",
        "ms per batch     prior   target detection    training detecting",
    ]
    for name, row in times.items():
        prior, target, detection, training, detecting = (
            1e3 * statistics.median(taken) for taken in row.values()
        )
        lines.append(
            f"{name:13} {prior:8.2f} {target:8.2f} {detection:9.2f} "
            f"{training:11.0f} {detecting:9.0f}"
        )
    return "\n".join(lines)


def picture(net: TinySSD, record: Path, count: int = 8, threshold: float = 0.5) -> Any:
    """The first ``count`` images of a record file, with what ``net`` detects in them."""
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
    """The whole job: data, training, evaluation, timing, drawing.

    Writes ``detections.png``, ``tiny_ssd.params``, ``tiny_ssd.json``, the data and, to
    try ``cvops detect`` on, the first test image, ``scene.png``, into ``folder``, and
    prints as it goes. Returns the mean average precision at an IoU of
    0.5 on the test images, whose photographs are not those of training. ``saved`` is a
    checkpoint: see ``train``.
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

"""Train a TinySSD on the ops, measure it, and draw what it sees: ``cvops demo``."""

from __future__ import annotations

import contextlib
import itertools
import math
import random
import statistics
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from cvops import contrib, data, metrics, plot
from cvops._mxnet import mxnet
from cvops.models import tiny_ssd
from cvops.models.tiny_ssd import TinySSD

mx = mxnet()


def forward(net: TinySSD, batch: Any) -> tuple[Any, tiny_ssd.Prediction, tiny_ssd.Targets]:
    """Loss, prediction and targets of a batch, recorded for the backward pass."""
    with mx.autograd.record():
        prediction = net(batch.data[0])
        target = net.assign(prediction, batch.label[0])
        return tiny_ssd.loss(prediction, target), prediction, target


def train(
    net: TinySSD, batches: Any, epochs: int, rate: float = 0.005
) -> list[metrics.AnchorErrors]:
    """Train by SGD with momentum; the rate falls along half a cosine. The errors of each epoch."""
    steps = epochs * math.ceil(len(batches.seq) / batches.batch_size)
    schedule = mx.lr_scheduler.CosineScheduler(
        steps, rate, final_lr=rate / 100, warmup_steps=steps // 20, warmup_begin_lr=rate / 10
    )
    trainer = mx.gluon.Trainer(
        net.collect_params(),
        "sgd",
        {"learning_rate": rate, "momentum": 0.9, "wd": 5e-4, "lr_scheduler": schedule},
    )
    history = []
    with tqdm(total=steps, unit="batch") as bar:
        for epoch in range(1, epochs + 1):
            start, errors = time.perf_counter(), metrics.AnchorErrors()
            batches.reset()
            for batch in batches:
                loss, prediction, target = forward(net, batch)
                loss.backward()
                trainer.step(1)
                right = tiny_ssd.cls_eval(prediction, target)
                errors.add(target.classes.size, right, tiny_ssd.bbox_eval(prediction, target))
                bar.set_postfix_str(f"class error {errors.class_error:.2e}", refresh=False)
                bar.update()
            history.append(errors)
            bar.write(
                f"epoch {epoch:2d}: class error {errors.class_error:.2e}, "
                f"box MAE {errors.box_mae:.2e}, {time.perf_counter() - start:.1f} s"
            )
    return history


def evaluate(net: TinySSD, batches: Any) -> np.ndarray:
    """Average precision of each class at an IoU of 0.5."""
    detections: list[np.ndarray] = []
    labels: list[np.ndarray] = []
    batches.reset()
    for batch in batches:
        count = batches.batch_size - batch.pad  # the last batch may be filled up
        detections.extend(net.detect(batch.data[0]).asnumpy()[:count])
        labels.extend(batch.label[0].asnumpy()[:count])
    return metrics.average_precision(detections, labels, len(net.classes))


class Stopwatch:
    """``ops``, with the seconds of each call kept under the op's name.

    MXNet computes behind the caller's back, so a call is timed from when all before
    it is done until its own result is.
    """

    def __init__(self, ops: Any) -> None:
        self.ops = ops
        self.seconds: dict[str, float] = defaultdict(float)

    def __getattr__(self, name: str) -> Any:
        op = getattr(self.ops, name)

        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.time(name):
                return op(*args, **kwargs)

        return timed

    @contextlib.contextmanager
    def time(self, name: str) -> Iterator[None]:
        mx.nd.waitall()
        start = time.perf_counter()
        yield
        mx.nd.waitall()
        self.seconds[name] += time.perf_counter() - start


def ops_share(net: TinySSD, batches: Any, peers: dict[str, Any], count: int = 5) -> str:
    """Time of the detection ops in a training step and in detecting, as a table.

    Every peer does the same steps on the same ``count`` batches, in turn. A step is
    forward, targets, loss and backward: no weight changes, but the running means of
    the batch normalisation do.
    """
    own, times = net.ops, defaultdict(list)
    batches.reset()
    first, *rest = itertools.islice(batches, count)
    for number, batch in enumerate([first, first, *rest]):
        for name, ops in peers.items():
            net.ops = watch = Stopwatch(ops)
            with watch.time("training"):
                forward(net, batch)[0].backward()
            in_training = watch.seconds.pop("MultiBoxPrior")
            with watch.time("detecting"):
                net.detect(batch.data[0])
            if number:  # the first batch warms up
                times[name].append({"prior": in_training, **watch.seconds})
    net.ops = own

    lines = [
        "                          training step                          detecting",
        "ms per batch      prior   target    step   share     prior detection    step   share",
    ]
    for name, rows in times.items():
        middle = {key: 1e3 * statistics.median(row[key] for row in rows) for key in rows[0]}
        prior, prior_again = middle["prior"], middle["MultiBoxPrior"]
        target, detection = middle["MultiBoxTarget"], middle["MultiBoxDetection"]
        step, detecting = middle["training"], middle["detecting"]
        lines.append(
            f"{name:14} {prior:8.2f} {target:8.2f} {step:7.0f} {(prior + target) / step:7.1%} "
            f"{prior_again:9.2f} {detection:9.2f} {detecting:7.0f} "
            f"{(prior_again + detection) / detecting:7.1%}"
        )
    return "\n".join(lines)


def picture(net: TinySSD, record: Path, count: int = 8, threshold: float = 0.5) -> Any:
    """The first ``count`` images of a record file, with what ``net`` detects in them."""
    tiles = []
    for image, _ in data.read_record(record)[:count]:
        pixels = mx.nd.array(np.asarray(image).transpose(2, 0, 1)[None])
        rows = net.detect(pixels, threshold)[0].asnumpy()
        tiles.append(plot.show_bboxes(image, rows, net.classes, scale=1.5))
    return plot.grid(tiles, columns=4)


def run(
    folder: Path,
    epochs: int = 3,
    train_images: int = 600,
    test_images: int = 100,
    batch_size: int = 8,
    seed: int = 0,
    side: int = data.SIDE,
) -> float:
    """The whole job: data, training, evaluation, timing, drawing.

    Writes ``detections.png``, ``tiny_ssd.params``, ``tiny_ssd.json``, the data and, to
    try ``cvops detect`` on, the first test image, ``scene.png``, into ``folder``, and
    prints as it goes. Returns the mean average precision at an IoU of
    0.5 on the test images, whose photographs are not those of training.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for generator in (random.seed, np.random.seed, mx.random.seed):
        generator(seed)

    records = folder / "train.rec", folder / "test.rec"
    data.write_record(records[0], data.TRAIN_PHOTOS, train_images, 1, side)
    data.write_record(records[1], data.TEST_PHOTOS, test_images, 2, side)
    batches = data.iterator(records[0], batch_size, side, augment=True)
    test_batches = data.iterator(records[1], batch_size, side)

    net = TinySSD(data.CLASSES, side)
    net.initialize(mx.init.Xavier())
    net.hybridize(static_alloc=True, static_shape=True)
    start = time.perf_counter()
    train(net, batches, epochs)
    print(f"trained in {time.perf_counter() - start:.0f} s")

    net.save(folder / "tiny_ssd.params")
    precision = evaluate(net, test_batches)
    picture(net, records[1]).save(folder / "detections.png")
    data.read_record(records[1])[0][0].save(folder / "scene.png")
    print("\n" + ops_share(net, test_batches, {"mx.nd.contrib": mx.nd.contrib, "cvops": contrib}))

    print()
    for name, value in zip(net.classes, precision):
        print(f"AP@0.5 of {name}: {value:.2f}")
    mean = float(np.nanmean(precision))
    print(f"mAP@0.5: {mean:.2f}")
    return mean

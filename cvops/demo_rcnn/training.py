"""The training of the R-CNN family."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable

import numpy as np

from cvops._mxnet import mxnet
from cvops.demo_rcnn.proposals import valid
from cvops.models import plain_rcnn, rcnn
from cvops.models.rcnn import FasterRCNN, FastRCNN, RCNNTraining
from cvops.models.steps import contexts
from cvops.ops import _check
from cvops.training import Task, fit, loader_batches, mean_losses

mx = mxnet()

#: Side of the crops and number of features of plain R-CNN.
_CROP, _FEATURES = 32, 128


def train(
    net: FastRCNN,
    dataset: Any,
    epochs: int,
    batch_size: int = 4,
    rate: float = 1e-3,
    seed: int = 0,
    saved: Path | None = None,
    parts: str | None = None,
    proposals: Any = None,
) -> list[list[float]]:
    """Train by Adam and return the mean losses of each epoch, the total loss first.

    The learning rate falls along half a cosine.

    Args:
        net: network on the devices to train on.
        dataset: a ``VOCInstanceDataset``.
        epochs: number of epochs, 1 or more.
        batch_size: images per step, 1 or more. The images left over in an epoch are not used.
        rate: the maximum learning rate, 0 or more.
        seed: seed of the order of the images, of their augmentation and of the samples.
        saved: checkpoint file, written after each epoch. If it exists, training continues from it,
            with the same result as one uninterrupted run.
        parts: the parts of the network to train, as for ``RCNNTraining``.
        proposals: for the heads alone, the proposals of each image (images, n, 4) in fractions of
            it, or a function from a batch of images to its proposals.

    Raises:
        ValueError: ``dataset`` has fewer images than ``batch_size``.
        CheckpointError: ``saved`` is not a checkpoint, or is one of another training.
    """
    epochs, rate = _check.integer("epochs", epochs, 1), _check.number("rate", rate, 0)
    batch_size = _check.integer("batch_size", batch_size, 1)
    fixed = proposals is not None and not callable(proposals)
    given = proposals if fixed else np.zeros((len(dataset), 0, 4), np.float32)
    both = mx.gluon.data.ArrayDataset(dataset, given)
    loader = mx.gluon.data.DataLoader(both, batch_size, shuffle=True, last_batch="discard")
    if not len(loader):
        raise ValueError(
            f"dataset: expected {batch_size} images or more, a batch, got {len(dataset)}"
        )
    training = RCNNTraining(net, parts)
    training.hybridize(static_alloc=True, static_shape=True)

    def train_step(trainer: Any, batch: Any) -> list[float]:
        (images, labels, masks), boxes = batch
        if callable(proposals):
            boxes = proposals(images)
        results = rcnn.train_step(training, trainer, images, labels, masks, boxes)
        columns = (np.concatenate([x.asnumpy() for x in column]) for column in zip(*results))
        return [float(values.mean()) for values in columns]

    summary = mean_losses(("loss", *training.names))
    task = Task(len(loader), loader_batches(loader), train_step, summary)
    settings: dict[str, Any] = {"epochs": epochs, "rate": rate, "seed": seed}
    settings |= {"batch size": batch_size, "parts": training.parts, "images": len(dataset)}
    settings |= {"model": type(net).__name__, "side": net.side, "mask": net.mask}
    history = fit(task, net, "adam", {"wd": 1e-4}, settings, saved)
    return [list(means.values()) for means in history]


def train_alternating(net: FasterRCNN, dataset: Any, epochs: int, seed: int = 0) -> None:
    """Train in the four steps of the paper, ``epochs`` each.

    1. A copy of ``net`` learns the region proposals.
    2. ``net`` learns the heads, from the proposals of the copy.
    3. ``net`` gets the RPN of the copy, and trains it on its own features, which are frozen.
    4. ``net`` trains its heads from its own proposals; features and RPN are frozen.
    """
    first = FasterRCNN(net.classes, net.side, **net.options)
    first.initialize()

    def proposals_of(other: FasterRCNN) -> Callable[[Any], Any]:
        other.backbone.hybridize(static_alloc=True)
        context = contexts(other)[0]
        return lambda images: other.proposals(images.as_in_context(context))

    print("1: region proposals")
    train(first, dataset, epochs, seed=seed, parts="rpn")
    print("2: heads")
    train(net, dataset, epochs, seed=seed + 1, parts="heads", proposals=proposals_of(first))
    print("3: region proposals, shared features")
    for ours, theirs in zip(net.rpn.collect_params().values(), first.rpn.collect_params().values()):
        ours.set_data(theirs.data())
    rcnn.freeze(net.backbone)
    train(net, dataset, epochs, seed=seed + 2, parts="rpn")
    print("4: heads, shared features")
    rcnn.freeze(net.rpn)
    # The network computes its own proposals in another graph.
    copy = FasterRCNN(net.classes, net.side, **net.options)
    copy.initialize()
    for theirs, ours in zip(copy.collect_params().values(), net.collect_params().values()):
        theirs.set_data(ours.data())
    train(net, dataset, epochs, seed=seed + 3, parts="heads", proposals=proposals_of(copy))
    for part in (net.backbone, net.rpn):
        rcnn.freeze(part, False)


def train_plain(dataset: Any, proposals: np.ndarray, epochs: int, seed: int = 0) -> plain_rcnn.RCNN:
    """Train the features of an R-CNN as a classifier of crops, and fit its SVMs."""
    images, labels, boxes = [], [], []
    for number, found in enumerate(proposals):
        image, rows, _ = dataset.scene(number)
        size = image.shape[1::-1] * 2
        images.append(image)
        labels.append(np.column_stack([rows[:, 0], rows[:, 1:5] * size]))
        boxes.append(valid(found) * size)
    samples = plain_rcnn.Samples(images, labels, boxes, _CROP, seed)
    features = plain_rcnn.CropFeatures(_CROP, _FEATURES)
    net = mx.gluon.nn.HybridSequential()
    net.add(features, mx.gluon.nn.Dense(len(dataset.classes) + 1, in_units=_FEATURES))
    net.initialize(mx.init.Xavier())
    net.hybridize(static_alloc=True)
    loss_of = mx.gluon.loss.SoftmaxCrossEntropyLoss()
    batch = min(64, len(samples.kinds))
    crops = mx.gluon.data.ArrayDataset(samples.crops, samples.kinds + 1)
    loader = mx.gluon.data.DataLoader(crops, batch, shuffle=True, last_batch="discard")

    def train_step(trainer: Any, given: Any) -> list[float]:
        pixels, kinds = given
        with mx.autograd.record():
            loss = loss_of(net(pixels), kinds)
        loss.backward()
        trainer.step(batch)
        return [float(loss.mean().asscalar())]

    task = Task(len(loader), loader_batches(loader), train_step, mean_losses(["loss"]))
    settings = {"epochs": epochs, "rate": 1e-3, "seed": seed}
    fit(task, net, "adam", {"wd": 1e-4}, settings)
    return plain_rcnn.RCNN(features, dataset.classes, _CROP).fit(samples)

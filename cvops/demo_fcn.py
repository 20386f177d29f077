"""Train and evaluate an FCN, and draw its segmentations: ``cvops demo-fcn``."""

from __future__ import annotations

import itertools
import random
import time
from pathlib import Path
from typing import Any

import numpy as np

from cvops import metrics, plot, voc
from cvops._mxnet import mxnet, params
from cvops.models import FCN
from cvops.models.fcn import SegmentationLoss, predict
from cvops.ops import _check
from cvops.ops.confusion_matrix import confusion_matrix
from cvops.training import Task, fit, loader_batches, mean_losses

mx = mxnet()


def train(
    net: FCN,
    dataset: voc.VOCSegDataset,
    epochs: int,
    batch_size: int = 8,
    rate: float = 1e-3,
    seed: int = 0,
    saved: Path | None = None,
) -> list[float]:
    """Train by Adam and return the mean loss of each epoch.

    The learning rate falls along half a cosine.

    Args:
        net: network on the device to train on.
        dataset: data set whose labels of ``voc.VOC_VOID`` are ignored.
        epochs: number of epochs, 1 or more.
        batch_size: images per step, 1 or more. The images left over in an epoch are not used.
        rate: the maximum learning rate, 0 or more.
        seed: seed of the order of the images and of their crops in each epoch.
        saved: checkpoint file, written after each epoch. If it exists, training continues from it,
            with the same result as one uninterrupted run.

    Raises:
        ValueError: ``dataset`` has fewer images than ``batch_size``.
        CheckpointError: ``saved`` is not a checkpoint, or is one of another training.
    """
    epochs, rate = _check.integer("epochs", epochs, 1), _check.number("rate", rate, 0)
    batch_size = _check.integer("batch_size", batch_size, 1)
    loader = mx.gluon.data.DataLoader(dataset, batch_size, shuffle=True, last_batch="discard")
    if not len(loader):
        raise ValueError(
            f"dataset: expected {batch_size} images or more, a batch, got {len(dataset)}"
        )
    loss_of = SegmentationLoss(voc.VOC_VOID)
    context = net.score.weight.list_ctx()[0]

    def train_step(trainer: Any, batch: Any) -> list[float]:
        images, labels = batch
        with mx.autograd.record():
            scores = net(images.as_in_context(context))
            loss = loss_of(scores, labels.as_in_context(context))
        loss.backward()
        trainer.step(batch_size)
        return [float(loss.mean().asscalar())]

    task = Task(len(loader), loader_batches(loader), train_step, mean_losses(["loss"]))
    settings: dict[str, Any] = {"epochs": epochs, "rate": rate, "seed": seed}
    settings |= {"batch size": batch_size, "crop": list(dataset.crop_size)}
    history = fit(task, net, "adam", {"wd": 1e-4}, settings, saved)
    return [means["loss"] for means in history]


def evaluate(net: FCN, dataset: voc.VOCSegDataset) -> tuple[np.ndarray, np.ndarray]:
    """Sum the confusion matrices over all whole images.

    Void pixels are ignored.

    Returns:
        The matrix of ``net`` and that of a constant background prediction, int64 (C, C) each.
    """
    matrices = np.zeros((2, net.num_classes, net.num_classes), np.int64)
    for number in range(len(dataset)):
        image, label = dataset.image(number)
        for matrix, classes in zip(matrices, (predict(net, image), np.zeros_like(label))):
            matrix += confusion_matrix(classes, label, net.num_classes, voc.VOC_VOID)
    return matrices[0], matrices[1]


def picture(net: FCN, dataset: voc.VOCSegDataset, count: int = 6) -> Any:
    """Draw ``count`` images, each with its predicted classes and its label.

    The images are the first ones that have the size of the first image.
    """
    samples = (dataset.image(number) for number in range(len(dataset)))
    size = dataset.image(0)[1].shape
    alike = ((image, label) for image, label in samples if label.shape == size)
    tiles = [
        plot.show_segmentation(image, predict(net, image), label, voc.VOC_PALETTE)
        for image, label in itertools.islice(alike, count)
    ]
    return plot.grid(tiles, columns=2)


def run(
    folder: Path,
    epochs: int = 8,
    train_images: int = 320,
    val_images: int = 40,
    crop_size: tuple[int, int] = (96, 96),
    stride: int = 8,
    batch_size: int = 8,
    seed: int = 0,
    saved: Path | None = None,
) -> float:
    """Make the data, train and evaluate an FCN, and draw its segmentations.

    Writes the data, in the layout of VOC2012, ``segmentation.png`` and ``fcn.params`` into
    ``folder``. Prints its progress. Training and validation images have different photographs. For
    ``saved``, see ``train``.

    Returns:
        The pixel accuracy on the validation images.
    """
    for generator in (random.seed, np.random.seed, mx.random.seed):
        generator(seed)
    voc_dir = voc.make_voc(folder, train_images, val_images)
    train_set, val_set = (
        voc.VOCSegDataset(is_train, crop_size, voc_dir, void=voc.VOC_VOID)
        for is_train in (True, False)
    )
    net = FCN(len(voc.VOC_CLASSES), stride=stride)
    net.initialize()
    net.hybridize(static_alloc=True)
    start = time.perf_counter()
    train(net, train_set, epochs, min(batch_size, len(train_set)), seed=seed, saved=saved)
    print(f"trained in {time.perf_counter() - start:.0f} s")

    params.save(net, folder / "fcn.params")
    picture(net, val_set).save(folder / "segmentation.png")
    matrix, background = evaluate(net, val_set)
    accuracy = metrics.pixel_accuracy(matrix)
    print(f"\n{'':16}{'FCN':>6}  all background")
    for name, measure in (
        ("pixel accuracy", metrics.pixel_accuracy),
        ("mean IoU", metrics.mean_iou),
    ):
        print(f"{name:16}{measure(matrix):6.2f}{measure(background):16.2f}")
    return accuracy

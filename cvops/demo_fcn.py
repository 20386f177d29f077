"""Train an FCN, measure it, and draw what it sees: ``cvops demo-fcn``."""

from __future__ import annotations

import itertools
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from cvops import checkpoint, confusion_matrix, metrics, plot, voc
from cvops._mxnet import mxnet
from cvops.models import FCN
from cvops.models.fcn import SegmentationLoss, predict
from cvops.ops import _check

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
    """Train by Adam; the rate falls along half a cosine. The mean loss of each epoch.

    Args:
        net: on the device to train on.
        dataset: labels of ``voc.VOC_VOID`` do not count.
        seed: what the order of the images and their crops follow from, by epoch.
        saved: a file: a checkpoint is written there after each epoch, and if there is one
            to begin with, training goes on from it, to the same result as in one run.

    Raises:
        ValueError: the images do not fill a batch.
        CheckpointError: ``saved`` is no checkpoint, or is one of another training.
    """
    epochs, batch_size = (
        _check.integer("epochs", epochs, 1),
        _check.integer("batch_size", batch_size, 1),
    )
    rate = _check.number("rate", rate, 0)
    loader = mx.gluon.data.DataLoader(dataset, batch_size, shuffle=True, last_batch="discard")
    if not len(loader):
        raise ValueError(f"{len(dataset)} images do not fill a batch of {batch_size}")
    steps = epochs * len(loader)
    schedule = mx.lr_scheduler.CosineScheduler(
        steps, rate, final_lr=rate / 100, warmup_steps=steps // 20, warmup_begin_lr=rate / 10
    )
    options = {"learning_rate": rate, "wd": 1e-4, "lr_scheduler": schedule}
    trainer = mx.gluon.Trainer(net.collect_params(), "adam", options)
    settings: dict[str, Any] = {"epochs": epochs, "steps": steps, "batch size": batch_size}
    settings |= {"rate": rate, "seed": seed, "crop": list(dataset.crop_size)}
    history: list[float] = []
    if saved is not None and saved.exists():
        state = checkpoint.load(saved, net, trainer)
        if state["settings"] != settings:
            raise checkpoint.CheckpointError(
                f"{saved}: of a training with {state['settings']}, not {settings}"
            )
        history = state["history"]

    loss_of = SegmentationLoss(voc.VOC_VOID)
    context = net.score.weight.list_ctx()[0]
    with tqdm(total=steps, initial=len(history) * len(loader), unit="batch") as bar:
        for epoch in range(len(history), epochs):
            start, losses = time.perf_counter(), []
            checkpoint.seed_all(seed, epoch)
            for images, labels in loader:
                with mx.autograd.record():
                    scores = net(images.as_in_context(context))
                    loss = loss_of(scores, labels.as_in_context(context))
                loss.backward()
                trainer.step(batch_size)
                losses.append(float(loss.mean().asscalar()))
                bar.update()
            history.append(float(np.mean(losses)))
            if saved is not None:
                checkpoint.save(saved, net, trainer, settings=settings, history=history)
            seconds = time.perf_counter() - start
            bar.write(f"epoch {epoch + 1:2d}: loss {history[-1]:.3f}, {seconds:.1f} s")
    return history


def evaluate(net: FCN, dataset: voc.VOCSegDataset) -> tuple[np.ndarray, np.ndarray]:
    """The confusion matrices, summed over all whole images, of ``net`` and of one who sees
    nothing but background. Void pixels do not count."""
    matrices = np.zeros((2, net.num_classes, net.num_classes), np.int64)
    for number in range(len(dataset)):
        image, label = dataset.image(number)
        for matrix, seen in zip(matrices, (predict(net, image), np.zeros_like(label))):
            matrix += confusion_matrix(seen, label, net.num_classes, voc.VOC_VOID)
    return matrices[0], matrices[1]


def picture(net: FCN, dataset: voc.VOCSegDataset, count: int = 6) -> Any:
    """The first ``count`` images of one size, each with what ``net`` sees in it and its label."""
    samples = (dataset.image(number) for number in range(len(dataset)))
    first = dataset.image(0)[1].shape
    alike = ((image, label) for image, label in samples if label.shape == first)
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
    """The whole job: data, training, evaluation, drawing.

    Writes ``segmentation.png``, ``fcn.params`` and the data, in the layout of VOC2012,
    into ``folder``, and prints as it goes. Returns the pixel accuracy on the validation
    images, whose photographs are not those of training. ``saved`` is as for ``train``.
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

    net.save_parameters(str(folder / "fcn.params"))
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

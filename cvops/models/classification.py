"""Training and evaluation of image classifiers, with the helpers of "Dive into Deep Learning"."""

from __future__ import annotations

import time
from typing import Any, Callable, NamedTuple

from cvops._mxnet import mxnet
from cvops.datasets.cifar import CIFAR10
from cvops.models.losses import check_classes
from cvops.models.resnet import resnet18
from cvops.models.steps import contexts, step
from cvops.ops._check import integer, number

mx = mxnet()


class Epoch(NamedTuple):
    """Means over one epoch of a training."""

    loss: float
    train_acc: float  #: accuracy on the augmented training images, during the epoch
    test_acc: float  #: accuracy on the test images, after the epoch
    seconds: float


def try_gpu() -> Any:
    """Return ``mx.gpu(0)`` if MXNet can use it, or else ``mx.cpu()``."""
    return try_all_gpus()[0]


def try_all_gpus() -> list[Any]:
    """Return the contexts of all GPUs that MXNet can use, or else ``[mx.cpu()]``."""
    devices = []
    for i in range(mx.context.num_gpus()):
        try:
            mx.nd.array([0], ctx=mx.gpu(i)).wait_to_read()
        except mx.base.MXNetError:
            break
        devices.append(mx.gpu(i))
    return devices or [mx.cpu()]


def _devices(ctx: Any) -> list[Any]:
    return [ctx] if isinstance(ctx, mx.Context) else list(ctx)


def _check_labels(labels: Any, scores: Any) -> None:
    check_classes("labels", labels, scores.shape[1], "", lambda values: False)


def _right(scores: Any, labels: Any) -> int:
    right = scores.argmax(axis=1).astype("float32") == labels.astype("float32")
    return int(right.sum().asnumpy().item())


def evaluate_accuracy(data_iter: Any, net: Any, ctx: Any = None) -> float:
    """Return the fraction of images whose maximum score is that of their class.

    Args:
        data_iter: batches of images (B, ...) and classes (B,), such as a ``DataLoader``.
        net: block from images to scores (B, C).
        ctx: a context or a list of contexts, over which each batch is split; by default those of
            the parameters of ``net``.

    Raises:
        ValueError: there are no images, or a label is not 0 to C - 1.
    """
    devices = contexts(net) if ctx is None else _devices(ctx)
    right = total = 0
    for images, labels in data_iter:
        some = devices[: len(images)]  # MXNet cannot split fewer images than devices
        parts = (mx.gluon.utils.split_and_load(x, some, even_split=False) for x in (images, labels))
        for X, y in zip(*parts):
            scores = net(X)
            _check_labels(y, scores)
            right += _right(scores, y)
        total += len(images)
    if not total:
        raise ValueError("data_iter: expected one image or more, got none")
    return right / total


def train(
    train_iter: Any,
    test_iter: Any,
    net: Any,
    loss: Callable[..., Any],
    trainer: Any,
    ctx: Any,
    num_epochs: int,
    report: Callable[[str], Any] = print,
) -> list[Epoch]:
    """Train a classifier on one or more devices and return the means of each epoch.

    Args:
        train_iter, test_iter: batches of images (B, ...) and classes (B,), such as ``DataLoader``.
        net: block from images to scores (B, C), with parameters on ``ctx``.
        loss: function of scores and classes, which returns the loss of each image, (B,).
        trainer: a ``gluon.Trainer`` of the parameters.
        ctx: a context or a list of contexts, over which each batch is split evenly or nearly so.
        num_epochs: number of epochs, 1 or more.
        report: gets a line of text about the devices, and one about each epoch.

    Raises:
        ValueError: an iterator has no images, a batch has fewer images than devices, or a label is
            not 0 to C - 1.
    """
    num_epochs, devices = integer("num_epochs", num_epochs, 1), _devices(ctx)

    def training(X: Any, y: Any) -> tuple[Any, Any, Any]:
        scores = net(X)
        _check_labels(y, scores)
        return loss(scores, y), scores, y

    report(f"training on {devices}")
    epochs = []
    for epoch in range(1, num_epochs + 1):
        start = time.time()
        total, right, count = 0.0, 0, 0
        for batch in train_iter:
            for part, scores, labels in step(training, trainer, batch, devices):
                total += part.sum().asnumpy().item()
                right += _right(scores, labels)
                count += len(labels)
        if not count:
            raise ValueError("train_iter: expected one image or more, got none")
        test_acc = evaluate_accuracy(test_iter, net, devices)
        epochs.append(Epoch(total / count, right / count, test_acc, time.time() - start))
        report(
            "epoch {}, loss {:.4f}, train acc {:.3f}, test acc {:.3f}, time {:.1f} sec".format(
                epoch, *epochs[-1]
            )
        )
    return epochs


def train_with_data_aug(
    train_augs: Any,
    test_augs: Any,
    lr: float = 0.001,
    *,
    train_set: Any = None,
    test_set: Any = None,
    num_classes: int = 10,
    batch_size: int = 256,
    num_epochs: int = 10,
    channels: int = 64,
    stride: int = 1,
    report: Callable[[str], Any] = print,
) -> list[Epoch]:
    """Train a ResNet-18 by Adam on all GPUs, or on the CPU, and return the means of each epoch.

    Args:
        train_augs, test_augs: pipelines from an image to float32 (3, height, width).
        lr: the learning rate, 0 or more.
        train_set, test_set: data sets of images and classes, by default those of CIFAR-10 in the
            folder of ``gluon.data.vision.CIFAR10``.
        num_classes: number of classes.
        batch_size: images per step, 1 or more.
        num_epochs: number of epochs, 1 or more.
        channels, stride: as for ``resnet18``.
        report: as for :func:`train`.

    Raises:
        As ``CIFAR10`` and :func:`train`.
    """
    lr, batch_size = number("lr", lr, 0), integer("batch_size", batch_size, 1)
    train_set = CIFAR10(train=True) if train_set is None else train_set
    test_set = CIFAR10(train=False) if test_set is None else test_set
    devices, net = try_all_gpus(), resnet18(num_classes, channels, stride)
    net.initialize(mx.init.Xavier(), ctx=devices)
    net.hybridize(static_alloc=True)
    trainer = mx.gluon.Trainer(net.collect_params(), "adam", {"learning_rate": lr})
    loader = mx.gluon.data.DataLoader
    train_iter = loader(train_set.transform_first(train_augs), batch_size, shuffle=True)
    test_iter = loader(test_set.transform_first(test_augs), batch_size)
    loss = mx.gluon.loss.SoftmaxCrossEntropyLoss()
    return train(train_iter, test_iter, net, loss, trainer, devices, num_epochs, report)

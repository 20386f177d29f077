"""Fine-tune a pretrained network and compare it with others: ``cvops demo-finetune``."""

from __future__ import annotations

import functools
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Callable, NamedTuple

import numpy as np

from cvops import classification, plot, weights
from cvops._mxnet import mxnet
from cvops._pillow import Image
from cvops.checkpoint import seed_all
from cvops.models import finetune
from cvops.models.classification import Epoch, train, try_all_gpus
from cvops.ops import _check
from cvops.training import epoch_bar, save_accuracies

mx = mxnet()
vision = mx.gluon.model_zoo.vision

#: Classes of the made images, and classes of ImageNet of the same animals.
CLASSES = ("bee", "frog")
_IMAGENET_ROWS = (309, 31)  # bee; tree frog
#: Classes of the made images that the source is trained on where no weights are found.
_SOURCE_CLASSES = ("bird", "cat", "sheep")


class Source(NamedTuple):
    """A network with weights, and the function that makes one of its architecture."""

    net: Any
    make: Callable[[int], Any]  #: from the number of classes to a network without weights
    rate: float  #: the learning rate of the fine-tuned features
    text: str  #: the origin of the weights


class Setup(NamedTuple):
    """Sizes of a comparison."""

    side: int  #: height and width of the images for the network
    scale: tuple[float, float]  #: areas of the random crops, in fractions of the image
    epochs: int
    batch_size: int


#: Sizes for the made images.
MADE = Setup(64, (0.5, 1), 8, 16)
#: Sizes for the made images and a source that is trained here: from scratch it learns soon.
SMALL = Setup(64, (0.5, 1), 4, 8)
#: Sizes of the book.
BOOK = Setup(224, (0.08, 1), 5, 128)


# --- sources --------------------------------------------------------------------------------------


def zoo_source(name: str, pretrained: bool | str | Path = True) -> Source:
    """Return a network of Gluon's model zoo with weights of ``cvops.weights``.

    Raises:
        FileNotFoundError: there are no weights. The message has the commands that install them.
        ValueError: it is not a file of weights, or is one of another network.
    """
    path = weights.find(name, pretrained)
    net = weights.pretrained(name, path, try_all_gpus())
    # Without batch normalization the book's rate of 0.01 diverges.
    rate = 0.01 if any("gamma" in key for key in net.collect_params()) else 0.0005
    return Source(net, functools.partial(finetune.network, name), rate, f"{name} of {path}")


def _small_resnet(classes: int) -> Any:
    """Return a ResNet of few channels, for images of about 64 x 64 pixels."""
    return vision.ResNetV2(vision.BasicBlockV2, [1, 1, 1, 1], [16, 16, 32, 64, 128], classes)


def trained_source(folder: Path, images: int = 400, epochs: int = 12, seed: int = 0) -> Source:
    """Train a small ResNet on made images of other animals than those of the target.

    ``folder`` gets the images.
    """
    setup = MADE._replace(epochs=epochs)
    classification.make_image_folders(folder, _SOURCE_CLASSES, images, 150, seed, setup.side)
    seed_all(seed, 0)
    net = _small_resnet(len(_SOURCE_CLASSES))
    net.initialize(mx.init.Xavier(), ctx=try_all_gpus())
    (*_, last) = _train(net, folder, setup, "adam", 1e-3)
    text = f"a ResNet trained here on {', '.join(_SOURCE_CLASSES)}, test acc {last.test_acc:.2f}"
    return Source(net, _small_resnet, 0.02, text)


# --- training -------------------------------------------------------------------------------------


def _train(net: Any, root: Path, setup: Setup, optimizer: str, rate: float) -> list[Epoch]:
    net.hybridize(static_alloc=True)
    augs = classification.finetune_augs(setup.side, setup.scale)
    train_iter, test_iter = (
        classification.load_image_folders(root, is_train, aug, setup.batch_size)
        for is_train, aug in zip((True, False), augs)
    )
    options = {"learning_rate": rate, "wd": 1e-3}
    trainer = mx.gluon.Trainer(net.collect_params(), optimizer, options)
    loss = mx.gluon.loss.SoftmaxCrossEntropyLoss()
    devices = try_all_gpus()
    with epoch_bar(setup.epochs) as report:
        return train(train_iter, test_iter, net, loss, trainer, devices, setup.epochs, report)


def compare(
    source: Source,
    root: Path,
    classes: int,
    setup: Setup,
    rate: float | None = None,
    seed: int = 0,
    rows: Sequence[int] | None = None,
    only: Sequence[str] | None = None,
) -> tuple[dict[str, list[Epoch]], Any]:
    """Train networks of one architecture that differ in their weights, rate or frozen features.

    The optimizer is SGD without momentum. The rate of an output is ten times that of its features;
    the rate from scratch is ten times that of fine-tuning.

    Args:
        source: the network with weights.
        root: folder with the folders train and test.
        classes: number of classes.
        setup: sizes.
        rate: learning rate of the fine-tuned features; by default that of ``source``.
        seed: seed of the weights, of the order of the images and of their augmentation.
        rows: classes of ``source`` for one more network, whose output begins with their weights.
        only: names of the networks to train; all of them by default.

    Returns:
        The epochs of each network by its name, and the first network.
    """
    rate = source.rate if rate is None else _check.number("rate", rate, 0)
    devices = try_all_gpus()

    def fine_tuned(**options: Any) -> Any:
        return finetune.fine_tune(source.make(classes), source.net, ctx=devices, **options)

    def scratch() -> Any:
        net = source.make(classes)
        net.initialize(mx.init.Xavier(), ctx=devices)
        return net

    variants: dict[str, tuple[Callable[[], Any], float]] = {
        "fine-tuned": (fine_tuned, rate),
        "features frozen": (functools.partial(fine_tuned, frozen=True), rate),
        "rate ten times higher": (fine_tuned, 10 * rate),
        "from scratch": (scratch, 10 * rate),
    }
    if rows is not None:
        variants["output of the source"] = functools.partial(fine_tuned, rows=rows), rate
    results, nets = {}, []
    for name in variants if only is None else only:
        make, own_rate = variants[_check.choice("only", name, tuple(variants))]
        seed_all(seed, 0)
        nets.append(make())
        start = time.perf_counter()
        results[name] = _train(nets[-1], root, setup, "sgd", own_rate)
        last, duration = results[name][-1], time.perf_counter() - start
        print(
            f"seed {seed}, {name}: train acc {last.train_acc:.3f}, test acc {last.test_acc:.3f}, "
            f"{duration:.0f} s"
        )
    return results, nets[0]


# --- results --------------------------------------------------------------------------------------


def table(results: Sequence[dict[str, list[Epoch]]], seeds: Sequence[int]) -> str:
    """Return the accuracies of each network and seed after the last epoch, and their means."""
    titles = [f"seed {seed}" for seed in seeds] + ["mean"] * (len(results) > 1)
    lines = [f"{'test acc (train acc)':24}" + "".join(f"{title:>16}" for title in titles)]
    for name in results[0]:
        last = [run[name][-1] for run in results]
        pairs = [(epoch.test_acc, epoch.train_acc) for epoch in last]
        if len(pairs) > 1:
            pairs.append(tuple(np.mean(pairs, axis=0)))
        lines.append(f"{name:24}" + "".join(f"{a:8.3f} ({b:.3f})" for a, b in pairs))
    gains = [run["fine-tuned"][-1].test_acc - run["from scratch"][-1].test_acc for run in results]
    lines.append(
        f"\nfine-tuned against from scratch: test accuracy {min(gains):+.3f} to {max(gains):+.3f}, "
        f"higher in {sum(gain > 0 for gain in gains)} of {len(gains)} seeds"
    )
    return "\n".join(lines)


def picture(net: Any, root: Path, setup: Setup, count: int = 12) -> Any:
    """Draw test images of all classes, each with its predicted class and score."""
    _, dataset = classification.read_image_folders(root)
    _, augs = classification.finetune_augs(setup.side, setup.scale)
    context = try_all_gpus()[0]
    tiles = []
    for number in np.linspace(0, len(dataset) - 1, min(count, len(dataset))).astype(int):
        image, _ = dataset[number]
        pixels = mx.image.imresize(image, setup.side, setup.side).asnumpy()
        scores = net(augs(image).expand_dims(0).as_in_context(context)).softmax()[0].asnumpy()
        row = [scores.argmax(), scores.max(), 0, 0, setup.side, setup.side]
        tiles.append(
            plot.draw_detections(
                Image.fromarray(pixels), np.array([row]), dataset.synsets, 160 / setup.side
            )
        )
    return plot.grid(tiles, columns=4)


def run(
    folder: Path,
    epochs: int | None = None,
    train_images: int | None = None,
    seed: int = 0,
    seeds: int = 1,
    root: Path | None = None,
    network: str = "squeezenet1_1",
    pretrained: str | Path | None = None,
    rate: float | None = None,
    test_images: int = 200,
) -> list[dict[str, list[Epoch]]]:
    """Train the networks of :func:`compare`, print a table, and draw predictions and curves.

    Writes ``finetune.png``, ``curves.png`` and the made images into ``folder``. If ``pretrained``
    is None and there are no weights of ``network``, the source is trained here.

    Args:
        folder: output folder.
        epochs: number of epochs; by default 8 for the made images, 4 with a source that is trained
            here, or the book's 5.
        train_images: number of made training images; by default 120, or 40 with a source that is
            trained here.
        seed: the first seed. A seed has its own made training images, weights and random numbers.
        seeds: number of seeds, 1 or more.
        root: folder with the folders train and test of images; by default images are made.
        network: name in Gluon's model zoo.
        pretrained: file of weights, as for ``cvops.weights``.
        rate: as for :func:`compare`.
        test_images: number of made test images.

    Returns:
        For each seed, the epochs of each network.

    Raises:
        FileNotFoundError: ``root`` or ``pretrained`` is missing.
        ValueError: ``root`` has no such images, or ``pretrained`` are no weights of ``network``.
    """
    seeds = _check.integer("seeds", seeds, 1)
    epochs = None if epochs is None else _check.integer("epochs", epochs, 1)
    if root is not None:
        classification.read_image_folders(root)  # before a long training
    folder.mkdir(parents=True, exist_ok=True)
    try:
        source, is_zoo = zoo_source(network, True if pretrained is None else pretrained), True
    except FileNotFoundError as error:
        if pretrained is not None:
            raise
        print(f"no weights of {network}: {error}")
        source, is_zoo = trained_source(folder / "source"), False
    print(f"source: {source.text}")
    usual, setup = (120, MADE) if is_zoo else (40, SMALL)
    count = usual if train_images is None else train_images
    setup = setup if root is None else BOOK
    setup = setup if epochs is None else setup._replace(epochs=epochs)
    results: list[dict[str, list[Epoch]]] = []
    numbers = range(seed, seed + seeds)
    for number in numbers:
        images = root
        if images is None:
            images = folder / f"images-{number}-{count}"
            classification.make_image_folders(
                images, CLASSES, count, test_images, number, setup.side
            )
        train_set, test_set = classification.read_image_folders(images)
        if not results:
            print(
                f"{len(train_set)} training images, {len(test_set)} test images, "
                f"classes {', '.join(train_set.synsets)}"
            )
        rows = _IMAGENET_ROWS if root is None and is_zoo else None
        classes = len(train_set.synsets)
        result, net = compare(source, images, classes, setup, rate, number, rows)
        if not results:
            picture(net, images, setup).save(folder / "finetune.png")
        results.append(result)
    save_accuracies(results[0], folder / "curves.png")
    print("\n" + table(results, numbers))
    return results

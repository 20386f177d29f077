"""Train classifiers with and without image augmentation: ``cvops demo-augmentation``."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cvops import classification, plot
from cvops._pillow import Image
from cvops.checkpoint import seed_all
from cvops.models.classification import Epoch, train_with_data_aug
from cvops.ops import _check
from cvops.training import epoch_bar, save_accuracies

#: The pipelines of the comparison, the one without augmentation first.
PIPELINES = ("none", "flip", "flip and hue")

#: Sizes for the made images: an eighth of the book's channels.
_SMALL = {"channels": 8, "stride": 2, "batch_size": 32}


def table(results: Sequence[dict[str, list[Epoch]]], seeds: Sequence[int]) -> str:
    """Return the accuracies after the last epoch of each seed and pipeline, with their gap."""
    names = list(results[0])
    lines = [
        "seed  " + "".join(f"{name:>24}" for name in names),
        " " * 6 + f"{'train  test   gap':>24}" * len(names),
    ]
    last = np.array([[run[name][-1][1:3] for name in names] for run in results])
    rows: list[tuple[Any, np.ndarray]] = list(zip(seeds, last))
    if len(rows) > 1:
        rows.append(("mean", last.mean(axis=0)))
    for title, row in rows:
        cells = (f"{train:12.3f}{test:6.3f}{train - test:6.3f}" for train, test in row)
        lines.append(f"{title!s:6}" + "".join(cells))
    return "\n".join(lines)


def effects(results: Sequence[dict[str, list[Epoch]]]) -> str:
    """Return a line on each pipeline but the first: how often its accuracies differ as expected."""
    first, *others = results[0]
    lines = []
    for name in others:
        pairs = [(run[name][-1], run[first][-1]) for run in results]
        lower = sum(ours.train_acc < plain.train_acc for ours, plain in pairs)
        higher = sum(ours.test_acc > plain.test_acc for ours, plain in pairs)
        lines.append(
            f"{name}: against {first}, training accuracy is lower in {lower} and test accuracy "
            f"higher in {higher} of {len(pairs)} seeds"
        )
    return "\n".join(lines)


def picture(
    dataset: Any, names: Sequence[str] = PIPELINES, images: int = 3, copies: int = 5
) -> Image.Image:
    """Draw images of ``dataset`` and augmented copies of them, one row per image and pipeline."""
    tiles = []
    for name in names:
        augs = classification.pipelines(len(dataset[0][0]))[name]
        for number in range(min(images, len(dataset))):
            image = dataset[number][0]
            pixels = [image.asnumpy()]
            for _ in range(copies):
                tensor = augs(image).asnumpy().transpose(1, 2, 0)
                pixels.append(np.rint(255 * tensor).astype(np.uint8))
            tiles += [Image.fromarray(x).resize((96, 96), Image.Resampling.NEAREST) for x in pixels]
    return plot.grid(tiles, columns=1 + copies)


def run(
    folder: Path,
    epochs: int | None = None,
    train_images: int | None = None,
    seed: int = 0,
    seeds: int = 1,
    names: Sequence[str] = PIPELINES,
    root: Path | None = None,
    test_images: int = 500,
) -> list[dict[str, list[Epoch]]]:
    """Train with each pipeline, print a table, and draw augmented images and learning curves.

    Writes ``augmentation.png``, ``curves.png`` and the made images into ``folder``.

    Args:
        folder: output folder.
        epochs: number of epochs; by default 25 for the made images, or the book's 10.
        train_images: number of training images; by default 300 made ones, or all of ``root``.
        seed: the first seed. A seed has its own training images, weights and random numbers.
        seeds: number of seeds, 1 or more.
        names: pipelines of ``classification.pipelines``. The others are compared with the first.
        root: folder of CIFAR-10; by default images are made. The network is then the book's
            ResNet-18, or else one with an eighth of its channels.
        test_images: number of made test images.

    Returns:
        For each seed, the epochs of each pipeline.
    """
    known = classification.pipelines()
    for name in names:
        _check.choice("names", name, tuple(known))
    seeds, small = _check.integer("seeds", seeds, 1), root is None
    sizes = _SMALL if small else {}
    epochs = _check.integer("epochs", (25 if small else 10) if epochs is None else epochs, 1)
    count = 300 if train_images is None and small else train_images
    folder.mkdir(parents=True, exist_ok=True)
    results: list[dict[str, list[Epoch]]] = []
    numbers = range(seed, seed + seeds)
    for number in numbers:
        if small:
            root = classification.make_cifar10(folder, count or 300, test_images, number)
        train_set, test_set = (classification.CIFAR10(root, train) for train in (True, False))
        classes = len(train_set.classes)
        used = train_set if count is None else train_set.take(count)
        if not results:
            print(f"{len(used)} training images, {len(test_set)} test images, {classes} classes")
            seed_all(number, 0)
            picture(used, names).save(folder / "augmentation.png")
        runs = {}
        for name in names:
            start = time.perf_counter()
            seed_all(number, 0)
            with epoch_bar(epochs) as report:
                runs[name] = train_with_data_aug(
                    known[name],
                    classification.no_aug,
                    train_set=used,
                    test_set=test_set,
                    num_classes=classes,
                    num_epochs=epochs,
                    report=report,
                    **sizes,
                )
            last, duration = runs[name][-1], time.perf_counter() - start
            print(
                f"seed {number}, {name}: train acc {last.train_acc:.3f}, "
                f"test acc {last.test_acc:.3f}, {duration:.0f} s"
            )
        results.append(runs)
    save_accuracies(results[0], folder / "curves.png")
    print("\n" + table(results, numbers))
    if len(names) > 1:
        print("\n" + effects(results))
    return results

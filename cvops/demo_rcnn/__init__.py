"""Train, evaluate and time the R-CNN family, and draw its detections: ``cvops demo-rcnn``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from cvops import data, voc
from cvops.checkpoint import seed_all
from cvops.demo_rcnn import evaluation, timing, training
from cvops.demo_rcnn.proposals import search
from cvops.models import plain_rcnn
from cvops.models.rcnn import FasterRCNN, FastRCNN
from cvops.ops import _check

#: Epochs and number of training images of each model, by default.
DEFAULTS = {"rcnn": (3, 200), "fast": (4, 300), "faster": (3, 400), "mask": (4, 400)}


def run(
    folder: Path,
    epochs: int | None = None,
    train_images: int | None = None,
    test_images: int = 100,
    model: str = "mask",
    roi: str = "align",
    alternating: bool = False,
    seed: int = 0,
    side: int = 128,
    saved: Path | None = None,
) -> float:
    """Make the data, train, evaluate and time a model, and draw its detections.

    Writes the data, in the layout of VOC2012, ``rcnn.png``, and the parameters of a network into
    ``folder``. Prints its progress. Training and test images have different photographs.

    Args:
        folder: output folder.
        epochs, train_images: by default those of ``DEFAULTS``.
        test_images: number of test images.
        model: "rcnn", "fast", "faster" or "mask".
        roi: "align" or "pooling"; for all models but "rcnn".
        alternating: train a "faster" or "mask" model by ``training.train_alternating``, with
            ``epochs`` for each step.
        seed: seed of all random numbers.
        side: height and width of the images.
        saved: as for ``training.train``; not for "rcnn", nor with ``alternating``.

    Returns:
        The mean average precision of boxes on the test images, at an IoU of 0.5.

    Raises:
        ModuleNotFoundError: scikit-learn is not installed, for "rcnn".
        ValueError: an option is not for this model.
    """
    _check.choice("model", model, tuple(DEFAULTS))
    if alternating and model not in ("faster", "mask"):
        raise ValueError(f"alternating: expected a model with an RPN, got {model!r}")
    if saved is not None and (alternating or model == "rcnn"):
        raise ValueError("checkpoint: expected a training in one step of a network, got another")
    if model == "rcnn":
        plain_rcnn.require_sklearn()  # before minutes of training
    epochs, train_images = (
        default if given is None else given
        for given, default in zip((epochs, train_images), DEFAULTS[model])
    )
    seed_all(seed, 0)
    voc_dir = voc.make_voc_creatures(folder, train_images, test_images, side=side)
    own = model in ("rcnn", "fast")
    train_set, test_set = (
        voc.VOCInstanceDataset(is_train, voc_dir, data.CLASSES, side, mirror=is_train and not own)
        for is_train in (True, False)
    )
    start = time.perf_counter()
    boxes = tuple(map(search, (train_set, test_set))) if own else (None, None)
    if own:
        print(
            f"searched {train_images + test_images} images in {time.perf_counter() - start:.0f} s"
        )
    start = time.perf_counter()
    if model == "rcnn":
        plain = training.train_plain(train_set, boxes[0], epochs, seed)  # type: ignore[arg-type]
        print(f"trained in {time.perf_counter() - start:.0f} s")
        net: Any = plain
        found = evaluation.find_plain(plain, test_set, boxes[1])  # type: ignore[arg-type]
    else:
        kind = FastRCNN if model == "fast" else FasterRCNN
        net = kind(data.CLASSES, side, model == "mask", roi)
        net.initialize()
        if alternating:
            training.train_alternating(net, train_set, epochs, seed)
        else:
            batch = min(4, len(train_set))
            training.train(
                net, train_set, epochs, batch, seed=seed, saved=saved, proposals=boxes[0]
            )
        print(f"trained in {time.perf_counter() - start:.0f} s")
        net.save(folder / "rcnn.params")
        found = evaluation.find(net, test_set, boxes[1])
    evaluation.picture(found, test_set).save(folder / "rcnn.png")
    table, mean = evaluation.report(found, test_set)
    print(f"\n{timing.times_of_stages(net, test_set, boxes[1])}\n\n{table}")
    print(f"mAP of boxes at 0.5: {mean:.2f}")
    return mean

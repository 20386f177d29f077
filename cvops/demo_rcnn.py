"""Train, evaluate and time the R-CNN family, and draw its detections: ``cvops demo-rcnn``."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Callable, NamedTuple

import numpy as np

from cvops import data, metrics, plot, voc
from cvops._mxnet import mxnet
from cvops.checkpoint import seed_all
from cvops.models import plain_rcnn, rcnn
from cvops.models.rcnn import FasterRCNN, FastRCNN, RCNNDetector, RCNNTraining
from cvops.models.steps import contexts
from cvops.ops import _check
from cvops.ops.paste_masks import paste_masks
from cvops.proposals import selective_search
from cvops.training import Task, fit, loader_batches, mean_losses

mx = mxnet()

#: Epochs and number of training images of each model, by default.
DEFAULTS = {"rcnn": (3, 200), "fast": (4, 300), "faster": (3, 400), "mask": (4, 400)}

#: Maximum number of boxes of the selective search in an image.
_MOST = 300

#: Side of the crops and number of features of plain R-CNN.
_CROP, _FEATURES = 32, 128


class Found(NamedTuple):
    """Detections of one image in fractions of the image."""

    rows: np.ndarray  #: (n, 6)
    masks: np.ndarray | None  #: uint8 (n, side, side)
    proposals: np.ndarray  #: (m, 4)


# --- training -------------------------------------------------------------------------------------


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


def search(dataset: Any, most: int = _MOST) -> np.ndarray:
    """Return the boxes of the selective search in each image, (images, most, 4), in fractions.

    Rows of -1 are padding.
    """
    boxes = np.full((len(dataset), most, 4), -1, np.float32)
    for row, number in zip(boxes, range(len(dataset))):
        image, _, _ = dataset.scene(number)
        found = selective_search(image, most=most)
        row[: len(found)] = found / (image.shape[1::-1] * 2)
    return boxes


def train_plain(dataset: Any, proposals: np.ndarray, epochs: int, seed: int = 0) -> plain_rcnn.RCNN:
    """Train the features of an R-CNN as a classifier of crops, and fit its SVMs."""
    images, labels, boxes = [], [], []
    for number, found in enumerate(proposals):
        image, rows, _ = dataset.scene(number)
        size = image.shape[1::-1] * 2
        images.append(image)
        labels.append(np.column_stack([rows[:, 0], rows[:, 1:5] * size]))
        boxes.append(_valid(found) * size)
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


def _valid(boxes: np.ndarray) -> np.ndarray:
    """Return the boxes without the padding."""
    return boxes[boxes[:, 2] > boxes[:, 0]]


# --- evaluation -----------------------------------------------------------------------------------


def find(net: FastRCNN, dataset: Any, proposals: np.ndarray | None = None) -> list[Found]:
    """Return the detections of ``net`` in each item of ``dataset``."""
    detector = RCNNDetector(net)
    detector.hybridize(static_alloc=True)
    result = []
    for number in range(len(dataset)):
        pixels, _, _ = dataset[number]
        inputs = [mx.nd.array(pixels[None])]
        if proposals is not None:
            inputs.append(mx.nd.array(proposals[number][None]))
            boxes = proposals[number]
        else:
            boxes = net.proposals(inputs[0])[0].asnumpy()
        out = detector(*inputs)
        rows = (out[0] if net.mask else out)[0].asnumpy()
        kept = rows[:, 0] >= 0
        masks = None
        if net.mask:
            corners = np.ascontiguousarray(rows[kept, 2:] * net.side)
            masks = paste_masks(out[1][0].asnumpy()[kept], corners, (net.side, net.side))
        result.append(Found(rows[kept], masks, _valid(boxes)))
    return result


def find_plain(net: plain_rcnn.RCNN, dataset: Any, proposals: np.ndarray) -> list[Found]:
    """Return the detections of an R-CNN in each image of ``dataset``."""
    result = []
    for number, found in enumerate(proposals):
        image, _, _ = dataset.scene(number)
        size = image.shape[1::-1] * 2
        boxes = _valid(found)
        rows = net.predict(image, boxes * size, 0.02)
        rows[:, 2:] /= size
        result.append(Found(rows, None, boxes))
    return result


def report(found: Sequence[Found], dataset: Any) -> tuple[str, float]:
    """Return a table of the average precisions and recalls, and the mean AP of boxes at 0.5."""
    labels, masks = zip(*(dataset[i][1:] for i in range(len(found))))
    rows = [one.rows for one in found]
    num = len(dataset.classes)
    lines = [f"{'':16}{'AP50':>6}{'AP75':>6}"]
    values = [metrics.average_precision(rows, labels, num, iou) for iou in (0.5, 0.75)]
    for kind, name in enumerate(dataset.classes):
        lines.append(f"boxes, {name:9}" + "".join(f"{value[kind]:6.2f}" for value in values))
    if found[0].masks is not None:
        shapes = [one.masks for one in found]
        of_masks = [
            metrics.mask_average_precision(rows, shapes, labels, masks, num, iou)
            for iou in (0.5, 0.75)
        ]
        for kind, name in enumerate(dataset.classes):
            lines.append(f"masks, {name:9}" + "".join(f"{value[kind]:6.2f}" for value in of_masks))
    proposals = [one.proposals for one in found]
    count = np.mean([len(boxes) for boxes in proposals])
    recalls = [metrics.proposal_recall(proposals, labels, iou) for iou in (0.5, 0.7)]
    lines.append(
        f"recall of {count:.0f} proposals per image: "
        + ", ".join(f"{value:.2f} at IoU {iou}" for value, iou in zip(recalls, (0.5, 0.7)))
    )
    return "\n".join(lines), float(np.nanmean(values[0]))


def _median_ms(work: Callable[..., Any], inputs: Sequence[tuple[Any, ...]]) -> float:
    """Return the median time of ``work`` in milliseconds; the first input is the warm-up."""
    times = []
    for arguments in inputs:
        mx.nd.waitall()
        start = time.perf_counter()
        work(*arguments)
        mx.nd.waitall()
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times[1:])


def times_of_stages(net: Any, dataset: Any, proposals: Any = None, count: int = 6) -> str:
    """Return a line for each stage of a detection: its median time per image.

    The stages run eagerly, one image at a time. ``proposals`` are those of ``search``.
    """
    numbers = [0, *range(min(count, len(dataset)))]
    scenes = [dataset.scene(number)[0] for number in numbers]
    stages: dict[str, float] = {}
    if proposals is not None:
        stages["proposals: selective search"] = _median_ms(
            lambda scene: selective_search(scene, most=_MOST), [(scene,) for scene in scenes]
        )
    if isinstance(net, plain_rcnn.RCNN):
        boxes = [
            _valid(proposals[number]) * (scene.shape[1::-1] * 2)
            for number, scene in zip(numbers, scenes)
        ]
        runs = int(np.median([len(found) for found in boxes]))
        cut = [
            (plain_rcnn.crops_of(scene, found, net.side),) for scene, found in zip(scenes, boxes)
        ]
        name = f"features: {runs} runs of the network"
        stages[name] = _median_ms(net.features_of, cut)
        all_of_it = _median_ms(net.predict, list(zip(scenes, boxes)))
        stages["crops, SVMs, regression, NMS"] = max(all_of_it - stages[name], 0)
    else:
        images = [mx.nd.array(dataset[number][0][None]) for number in numbers]
        given = None
        if proposals is not None:
            given = [mx.nd.array(proposals[number][None]) for number in numbers]
        stages |= _times_of_network(net, images, given)
    lines = ["ms per image"]
    lines += [f"  {name:40}{value:8.1f}" for name, value in stages.items()]
    return "\n".join([*lines, f"  {'sum':40}{sum(stages.values()):8.1f}"])


def _times_of_network(net: FastRCNN, images: list[Any], proposals: Any) -> dict[str, float]:
    nd = mx.nd
    maps = [net.backbone(one) for one in images]
    stages = {"features: one run of the backbone": _median_ms(net.backbone, [(x,) for x in images])}
    if isinstance(net, FasterRCNN):
        faster = net  # its type is known in the function below

        def propose(features: Any) -> Any:
            return faster.propose(nd, *faster.regions(nd, features))

        stages["proposals: RPN, NMS"] = _median_ms(propose, [(x,) for x in maps])
        proposals = [propose(x) for x in maps]
    heads = [(nd, *inputs) for inputs in zip(images, maps, proposals)]
    stages["boxes: pooling, dense layers"] = _median_ms(net.heads, heads)
    if net.mask:
        detector = RCNNDetector(net)
        rows = [detector(one)[0] for one in images]
        found = [nd.slice_axis(x, axis=2, begin=2, end=6) for x in rows]
        inputs = [(nd, *one) for one in zip(images, maps, found)]
        stages["masks: pooling, convolutions"] = _median_ms(net.masks, inputs)
    return stages


def picture(found: Sequence[Found], dataset: Any, count: int = 8, threshold: float = 0.5) -> Any:
    """Draw the detections in the first ``count`` images, with their masks."""
    from PIL import Image

    tiles = []
    for number, one in zip(range(count), found):
        pixels = np.ascontiguousarray(dataset[number][0].transpose(1, 2, 0).astype(np.uint8))
        kept = one.rows[:, 1] >= threshold
        rows = one.rows[kept]
        rows[:, 2:] *= dataset.side
        masks = None if one.masks is None else one.masks[kept]
        image = Image.fromarray(pixels)
        tiles.append(plot.draw_detections(image, rows, dataset.classes, 3, masks))
    return plot.grid(tiles, columns=4)


# --- the command ----------------------------------------------------------------------------------


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
        alternating: train a "faster" or "mask" model by ``train_alternating``, with ``epochs`` for
            each step.
        seed: seed of all random numbers.
        side: height and width of the images.
        saved: as for ``train``; not for "rcnn", nor with ``alternating``.

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
        plain = train_plain(train_set, boxes[0], epochs, seed)  # type: ignore[arg-type]
        print(f"trained in {time.perf_counter() - start:.0f} s")
        net: Any = plain
        found = find_plain(plain, test_set, boxes[1])  # type: ignore[arg-type]
    else:
        kind = FastRCNN if model == "fast" else FasterRCNN
        net = kind(data.CLASSES, side, model == "mask", roi)
        net.initialize()
        if alternating:
            train_alternating(net, train_set, epochs, seed)
        else:
            batch = min(4, len(train_set))
            train(net, train_set, epochs, batch, seed=seed, saved=saved, proposals=boxes[0])
        print(f"trained in {time.perf_counter() - start:.0f} s")
        net.save(folder / "rcnn.params")
        found = find(net, test_set, boxes[1])
    picture(found, test_set).save(folder / "rcnn.png")
    table, mean = report(found, test_set)
    print(f"\n{times_of_stages(net, test_set, boxes[1])}\n\n{table}")
    print(f"mAP of boxes at 0.5: {mean:.2f}")
    return mean

"""A training on the set of a user: options, files of the run, early stopping.

The folder of a run has

- ``config.toml``: the options, which ``cvops train --config`` reads
- ``best.params``, ``last.params``, with the arguments of the network next to them (``.json``)
- ``last.checkpoint``: the state from which ``--resume`` continues
- ``log.csv``: losses and validation metrics, a row an epoch; ``events.*`` for TensorBoard
"""

from __future__ import annotations

import csv
import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Callable

from cvops import training
from cvops._files import check_folder, replacing
from cvops._imports import optional
from cvops._mxnet import mxnet
from cvops.checkpoint import seed_all
from cvops.datasets.loading import Loader
from cvops.datasets.sets import read_set
from cvops.distributed import KINDS, Process
from cvops.ops._check import choice, flag, integer, number
from cvops.recipes import RECIPES
from cvops.recipes.config import write_config
from cvops.recipes.recipe import Network
from cvops.recipes.splits import Split, class_weights

mx = mxnet()

#: Files of a run.
CONFIG, CHECKPOINT, LOG = "config.toml", "last.checkpoint", "log.csv"
BEST, LAST = "best.params", "last.params"


@dataclasses.dataclass(frozen=True)
class Options:
    """The options of a training. None stands for the default of the model.

    Attributes:
        data: folder of the set, from ``cvops data``.
        output: folder of the run.
        model: "ssd", "faster", "mask" or "fcn".
        backbone: name of the backbone; the models have different ones.
        pretrained: True, or a file of weights of the backbone: a source of ``cvops.weights``.
        side: height and width of the training images, 64 to 4096. Images are resized to it; for
            "fcn" they are cropped.
        epochs, batch: number of epochs; images per step, 1 or more, in all workers together.
        lr: maximum learning rate, above 0. It falls along half a cosine.
        workers: threads that load images. The results do not depend on it.
        devices: such as "cpu", "gpu" or "gpu:0,1". A batch is split over them.
        kvstore: "device", or one of ``cvops.distributed.KINDS`` for several processes.
        seed: seed of all random numbers.
        augment: crop and mirror the training images at random.
        difficult: False leaves out the objects with VOC's flag "difficult" in the training.
        class_weights: texts "name=weight", or "balanced" alone.
        patience: epochs without a better validation metric after which the training ends; 0: never.
        on_error: "stop" at an image that cannot be read, or "skip" it: all images are then read
            once before the training.
        tensorboard: write events for TensorBoard.
    """

    data: str
    output: str = "run"
    model: str = "ssd"
    backbone: str | None = None
    pretrained: bool | str = False
    side: int | None = None
    epochs: int = 50
    batch: int = 16
    lr: float | None = None
    workers: int = 2
    devices: str = "cpu"
    kvstore: str = "device"
    seed: int = 0
    augment: bool = True
    difficult: bool = True
    class_weights: tuple[str, ...] = ()
    patience: int = 0
    on_error: str = "stop"
    tensorboard: bool = False

    def __post_init__(self) -> None:
        recipe = RECIPES[choice("model", self.model, tuple(RECIPES))]
        backbone = recipe.backbones[0] if self.backbone is None else self.backbone
        choice("backbone", backbone, recipe.backbones)
        if self.pretrained and not recipe.pretrained:
            raise ValueError(f"pretrained: the model {self.model} has no pretrained weights")
        if self.pretrained and backbone not in recipe.pretrained:
            raise ValueError(
                f"pretrained: expected one of the backbones {list(recipe.pretrained)} of "
                f"{self.model}, got {backbone!r}"
            )
        weights = self.class_weights
        listed = isinstance(weights, (list, tuple)) and all(isinstance(x, str) for x in weights)
        if not listed:
            raise TypeError(f"class_weights: expected texts, got {weights!r}")
        rate = number("lr", recipe.rate if self.lr is None else self.lr, 0)
        if rate == 0:
            raise ValueError(f"lr: expected a number above 0, got {self.lr!r}")
        checked = {
            "backbone": backbone,
            "lr": rate,
            "side": integer("side", recipe.side if self.side is None else self.side, 64, 4096),
            "epochs": integer("epochs", self.epochs, 1),
            "batch": integer("batch", self.batch, 1),
            "workers": integer("workers", self.workers, 0, 256),
            "kvstore": choice("kvstore", self.kvstore, ("device", *KINDS)),
            "seed": integer("seed", self.seed, -(2**63), 2**63),
            "augment": flag("augment", self.augment),
            "difficult": flag("difficult", self.difficult),
            "patience": integer("patience", self.patience, 0),
            "on_error": choice("on_error", self.on_error, ("stop", "skip")),
            "tensorboard": flag("tensorboard", self.tensorboard),
            "class_weights": tuple(weights),
        }
        for name in ("data", "output", "devices"):
            if not isinstance(getattr(self, name), str):
                raise TypeError(f"{name}: expected a text, got {getattr(self, name)!r}")
        contexts(self.devices)
        for name, value in checked.items():
            object.__setattr__(self, name, value)


def contexts(devices: str) -> list[Any]:
    """Return MXNet's contexts of a text such as "cpu", "gpu" or "gpu:0,1".

    Raises:
        ValueError: the text is not of this form, or has a device twice.
    """
    kind, _, numbers = str(devices).partition(":")
    try:
        choice("devices", kind, ("cpu", "gpu"))
        chosen = [int(number) for number in (numbers or "0").split(",")]
    except ValueError:
        chosen = []
    if not chosen or min(chosen) < 0 or len(set(chosen)) < len(chosen):
        raise ValueError(f"devices: expected such as 'cpu', 'gpu' or 'gpu:0,1', got {devices!r}")
    return [mx.Context(kind, number) for number in chosen]


def check_devices(devices: Sequence[Any]) -> None:
    """Raise a ValueError for a GPU that MXNet does not see."""
    count = mx.context.num_gpus()
    for device in devices:
        if device.device_type == "gpu" and device.device_id >= count:
            raise ValueError(
                f"devices: expected one of the {count} GPUs that MXNet sees, got {device}"
            )


def train(
    options: Options,
    resume: bool = False,
    stop: Callable[[], bool] | None = None,
    process: Process | None = None,
    say: Callable[[str], None] = print,
) -> list[dict[str, Any]]:
    """Train a network on a set, with validation, logs and checkpoints.

    Args:
        options: the options.
        resume: continue from the checkpoint in the folder of the run, if it is there.
        stop: asked after each step and during the validation. At True the checkpoint is written
            and ``training.Interrupted`` raised. A resumed run has the bits of an uninterrupted one.
        process: the worker of a distributed training.
        say: gets messages.

    Returns:
        The losses and validation metrics of each epoch, by name.

    Raises:
        CheckpointError: the checkpoint is damaged, or one of another training.
        FileExistsError: the folder of the run has a checkpoint, without ``resume``.
        FloatingPointError: the loss is not finite.
        ModuleNotFoundError: TensorBoard is asked for and tensorboardX is not installed.
        OSError, ValueError: a file cannot be read or written, or an option does not fit the set.
        training.Interrupted: ``stop`` returned True.
    """
    process = process or Process()
    recipe, devices = RECIPES[options.model], contexts(options.devices)
    check_devices(devices)
    batch = options.batch // process.num_workers
    if options.batch % process.num_workers:
        raise ValueError(
            f"batch: expected a multiple of the number of workers, {process.num_workers}, "
            f"got {options.batch}"
        )
    if batch < len(devices):
        least = len(devices) * process.num_workers
        raise ValueError(f"batch: expected {least} or more, one per device")
    events = _Events(options.output) if options.tensorboard and process.writes else None
    folder, data = Path(options.output), read_set(options.data)
    check_folder(folder)
    if data.kind not in recipe.kinds:
        raise ValueError(
            f"{data.path}: expected a set of kind {' or '.join(recipe.kinds)} for the model "
            f"{options.model}, got {data.kind}"
        )
    saved = folder / CHECKPOINT
    if saved.exists() and not resume:
        raise FileExistsError(f"{saved}: there is a training; --resume continues it")

    split = Split(data, "train", options.difficult)
    held_out = Split(data, "val") if data.splits.get("val", (0, 0))[0] else None
    if options.on_error == "skip":
        for part in filter(None, (split, held_out)):
            for message in part.without_broken(options.workers):
                if process.writes:
                    say(f"skipped: {message}")
    if not len(split):
        raise ValueError(f"{data.path}: expected one training image or more, got none")

    seed_all(options.seed, 0)  # of the initial parameters
    side: Any = options.side  # __post_init__ has replaced None
    backbone: Any = options.backbone
    net = recipe.make(Network(data.classes, side, backbone, options.pretrained), devices)
    weights = class_weights(options.class_weights, split, recipe.segments, options.workers)
    block, names = recipe.training(net, weights)
    most = max([1, *map(len, split.kinds())])
    loader = Loader(
        recipe.item(split, side, options.augment, most),
        len(split),
        batch,
        options.seed,
        options.workers,
        process.rank,
        process.num_workers,
    )
    task = training.Task(
        loader.steps,
        loader.batches,
        lambda trainer, batch: recipe.step(block, trainer, batch),
        training.mean_losses(names),
    )

    def check_stop() -> None:
        if stop is not None and stop():
            raise training.Interrupted

    def validate(trainer: Any) -> training.Summary:
        more = {"learning rate": trainer.learning_rate}
        if held_out is None or not len(held_out):
            return more, f"learning rate {trainer.learning_rate:.2g}"
        result = recipe.evaluate(
            net, held_out, options.batch, options.workers, check_stop, full=False
        )
        text = f"validation {recipe.metric} {result.values[recipe.metric]:.3f}"
        return {**more, **{f"val {k}": _or_none(v) for k, v in result.values.items()}}, text

    def report(history: list[dict[str, Any]]) -> None:
        if not process.writes:
            return
        if best_epoch(history, recipe.metric) == len(history) - 1:
            net.save(folder / BEST)
        net.save(folder / LAST)
        _write_log(folder / LOG, history)
        if events is not None:
            events.write(history)

    def finished(history: list[dict[str, Any]]) -> bool:
        waited = len(history) - 1 - best_epoch(history, recipe.metric)
        return bool(options.patience) and held_out is not None and waited >= options.patience

    settings = dataclasses.asdict(options)
    # A run can move, and be repeated by other threads and devices.
    moving = ("data", "output", "workers", "devices", "kvstore", "tensorboard", "lr", "on_error")
    for name in moving:
        del settings[name]
    settings |= {"rate": options.lr, "class_weights": list(options.class_weights)}
    settings |= {"classes": list(data.classes), "images": len(split)}
    folder.mkdir(parents=True, exist_ok=True)
    if process.writes and not saved.exists():
        write_config(folder / CONFIG, dataclasses.asdict(options))
    try:
        return training.fit(
            task,
            net,
            recipe.optimizer,
            dict(recipe.options),
            settings,
            saved,
            validate=validate,
            report=report,
            finished=finished,
            stop=stop,
            process=process,
        )
    finally:
        if events is not None:
            events.close()


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value  # JSON has no NaN


def best_epoch(history: Sequence[dict[str, Any]], metric: str) -> int:
    """Return the index of the epoch with the largest validation metric; the first of equal ones.

    It is the last epoch if no epoch has the metric; -1 without epochs.
    """
    values = [epoch.get(f"val {metric}") for epoch in history]
    known = [value for value in values if value is not None]
    return values.index(max(known)) if known else len(history) - 1


def _write_log(path: Path, history: Sequence[dict[str, Any]]) -> None:
    with replacing(path) as part, open(part, "w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, ["epoch", *history[-1]])
        table.writeheader()
        table.writerows({"epoch": number, **row} for number, row in enumerate(history, 1))


class _Events:
    """Events for TensorBoard. Those of epochs that a resumed training repeats are replaced."""

    def __init__(self, folder: str) -> None:
        with optional("for --tensorboard"):
            import tensorboardX
        self._make = tensorboardX.SummaryWriter
        self._folder = folder
        self._writer: Any = None

    def write(self, history: Sequence[dict[str, Any]]) -> None:
        """Write the values of the last epoch."""
        if self._writer is None:
            self._writer = self._make(self._folder, purge_step=len(history))
        for name, value in history[-1].items():
            if value is not None:
                self._writer.add_scalar(name.replace(" ", "/", 1), value, len(history))
        self._writer.flush()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()

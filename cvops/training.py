"""The training loop of all networks: learning rate, checkpoints, progress bar, history, curves."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import math
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Callable, NamedTuple, NoReturn

import numpy as np

from cvops import checkpoint, plot
from cvops._imports import optional
from cvops._mxnet import mxnet
from cvops.distributed import Process

with optional():
    from tqdm.auto import tqdm

mx = mxnet()

#: Values of an epoch as JSON has them, and a text about them.
Summary = tuple[Any, str]


class Interrupted(Exception):
    """The training stopped at a step because its caller asked for it. The checkpoint is written."""


class Task(NamedTuple):
    """The work of an epoch: batches, and a step for each of them."""

    #: Number of batches of an epoch.
    steps: int
    #: batches(epoch, first) yields the batches of an epoch from number ``first`` on.
    batches: Callable[[int, int], Iterable[Any]]
    #: step(trainer, batch) trains on a batch and returns numbers, such as its losses.
    step: Callable[[Any, Any], Sequence[float]]
    #: summary(numbers) summarizes the numbers of steps, (steps, n).
    summary: Callable[[np.ndarray], Summary]


def make_trainer(
    net: Any, optimizer: str, options: dict[str, Any], steps: int, rate: float, process: Process
) -> Any:
    """Return a ``gluon.Trainer``, whose learning rate falls along half a cosine."""
    schedule = mx.lr_scheduler.CosineScheduler(
        steps, rate, final_lr=rate / 100, warmup_steps=steps // 20, warmup_begin_lr=rate / 10
    )
    options = {"learning_rate": rate, "lr_scheduler": schedule, **options}
    return mx.gluon.Trainer(net.collect_params(), optimizer, options, **process.trainer_options)


def fit(
    task: Task,
    net: Any,
    optimizer: str,
    options: dict[str, Any],
    settings: dict[str, Any],
    saved: Path | None = None,
    *,
    validate: Callable[[Any], Summary] | None = None,
    report: Callable[[list[Any]], None] | None = None,
    finished: Callable[[list[Any]], bool] | None = None,
    stop: Callable[[], bool] | None = None,
    process: Process | None = None,
) -> list[Any]:
    """Train ``net``, with a learning rate that falls along half a cosine.

    ``seed_all`` seeds the random generators by the seed and the epoch before each epoch.

    Args:
        task: the batches and the step.
        net: a Gluon block with initialized parameters.
        optimizer: a name for ``gluon.Trainer``.
        options: options of the optimizer, without the learning rate.
        settings: "epochs", "rate" (the maximum learning rate), "seed", and other settings. A run
            continues only from a checkpoint with the same settings.
        saved: checkpoint file, written after each epoch. If it exists, training continues from it.
        validate: computes values after an epoch, a dictionary, which its summary gets. Its
            argument is the trainer. It may raise ``Interrupted``.
        report: gets the history after each epoch, before the checkpoint is written.
        finished: returns True if the training ends early, from the history alone.
        stop: asked after each step. At True the checkpoint is written and ``Interrupted`` raised.
            A training that continues from it has the bits of an uninterrupted one if its step uses
            no random generator, and ``task.batches`` none but those of ``random`` and NumPy.
        process: the worker of a distributed training. Its files are those of the first worker; the
            other workers read its checkpoint too.

    Returns:
        The summary of each epoch, those in the checkpoint included.

    Raises:
        CheckpointError: ``saved`` is not a checkpoint, or is one of another training.
        FloatingPointError: a number of a step is not finite.
        Interrupted: ``stop`` returned True.
        OSError: ``saved`` cannot be written.
    """
    process = process or Process()
    epochs, steps = settings["epochs"], task.steps
    trainer = make_trainer(net, optimizer, options, epochs * steps, settings["rate"], process)
    settings = {**settings, "steps": epochs * steps}
    history: list[Any] = []
    numbers: list[list[float]] = []  # of each step of an epoch that is not complete
    process.check_equal("settings and checkpoint", f"{settings} {_checksum(saved)}")
    if saved is not None and saved.exists():
        history, numbers = _resume(saved, net, trainer, settings, task)
    elif saved is not None and process.writes:
        checkpoint.check_path(saved)  # before the first epoch, not after it

    def save() -> None:
        # The backward of a static graph writes running means, and MXNet does not wait for them.
        mx.nd.waitall()
        if saved is not None and process.writes:
            state = {"settings": settings, "history": history, "numbers": numbers}
            checkpoint.save(saved, net, trainer, **state)

    def interrupt() -> NoReturn:
        save()
        raise Interrupted

    def asked() -> bool:
        return stop is not None and stop()

    def validated() -> Summary | None:
        assert validate is not None
        try:
            return validate(trainer)
        except Interrupted:  # at the next start the validation is repeated
            return None

    done = len(history) * steps + len(numbers)
    with progress_bar(epochs * steps, "batch", process.writes, initial=done) as bar:
        for epoch in range(len(history), epochs):
            if finished is not None and finished(history):
                break
            start = time.perf_counter()
            checkpoint.seed_all(settings["seed"], epoch)
            for batch in task.batches(epoch, len(numbers)):
                losses = task.step(trainer, batch)
                *losses, stopped = process.mean([*losses, asked()])
                numbers.append(_finite(losses, epoch, len(numbers)))
                bar.set_postfix_str(task.summary(np.array(numbers[-1:]))[1], refresh=False)
                bar.update()
                if stopped:
                    interrupt()
            values, text = task.summary(np.array(numbers))
            mx.nd.waitall()
            if validate is not None:
                found = process.first(validated)
                if found is None or any(process.mean([asked()])):
                    interrupt()
                more, about = found
                values, text = {**values, **more}, f"{text}, {about}"
            history.append(values)
            numbers = []
            if report is not None:
                report(history)
            save()
            if process.writes:
                bar.write(f"epoch {epoch + 1:2d}: {text}, {time.perf_counter() - start:.1f} s")
    return history


def _checksum(path: Path | None) -> str:
    """Return a checksum of a file, or an empty text without the file."""
    if path is None or not path.is_file():
        return ""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _finite(numbers: Sequence[float], epoch: int, step: int) -> list[float]:
    if not all(map(math.isfinite, numbers)):
        raise FloatingPointError(
            f"loss: expected finite numbers, got {list(numbers)} in epoch {epoch + 1}, batch "
            f"{step + 1}; a lower learning rate may help"
        )
    return list(numbers)


def _resume(
    saved: Path, net: Any, trainer: Any, settings: dict[str, Any], task: Task
) -> tuple[list[Any], list[list[float]]]:
    """Load a checkpoint; return its history and the numbers of the steps after it."""
    state = checkpoint.load(saved, net, trainer)
    found = state.get("settings")
    history: Any = state.get("history")
    numbers: Any = state.get("numbers", [])
    lists = isinstance(history, list) and isinstance(numbers, list)
    if found != settings or not lists or len(history) > settings["epochs"]:
        if isinstance(found, dict):  # the message has the settings that differ
            wanted = {k: v for k, v in settings.items() if k not in found or found[k] != v}
            found = {k: v for k, v in found.items() if k not in settings or settings[k] != v}
            settings = wanted
        raise checkpoint.CheckpointError(
            f"{saved}: expected a training with {settings}, got one with {found}"
        )
    if len(numbers) > task.steps:
        raise checkpoint.CheckpointError(
            f"{saved}: expected at most {task.steps} steps of an epoch, got {len(numbers)}"
        )
    return history, numbers


def progress_bar(total: int, unit: str, shown: bool = True, **options: Any) -> Any:
    """Return a progress bar of ``tqdm``. Only a terminal or a notebook shows it, not a log."""
    live = sys.stderr.isatty() or type(sys.stderr).__module__.startswith("ipykernel.")
    # An explicit False would override the environment variable TQDM_DISABLE.
    hidden = {} if shown and live else {"disable": True}
    return tqdm(total=total, unit=unit, **hidden, **options)


def mean_losses(names: Sequence[str]) -> Callable[[np.ndarray], Summary]:
    """Return a ``Task.summary``: the mean of each loss over the steps, by its name."""

    def summary(numbers: np.ndarray) -> Summary:
        means = dict(zip(names, numbers.mean(axis=0).tolist()))
        return means, ", ".join(f"{name} {value:.3f}" for name, value in means.items())

    return summary


def loader_batches(loader: Any) -> Callable[[int, int], Iterator[Any]]:
    """Return ``Task.batches`` of a ``gluon.data.DataLoader``."""
    return lambda epoch, first: itertools.islice(loader, first, None)


@contextlib.contextmanager
def epoch_bar(epochs: int) -> Iterator[Callable[[str], None]]:
    """Show a progress bar on a terminal; give a ``report`` of ``models.classification.train``."""
    with progress_bar(epochs, "epoch", leave=False) as bar:
        yield lambda text: bar.update(text.startswith("epoch"))


def save_accuracies(runs: Mapping[str, Sequence[Any]], path: Path) -> None:
    """Write a picture of the training and test accuracies of each run by epoch.

    ``runs`` are the results of ``models.classification.train`` by their labels.
    """
    panels = {
        "training accuracy": {
            name: [epoch.train_acc for epoch in run] for name, run in runs.items()
        },
        "test accuracy": {name: [epoch.test_acc for epoch in run] for name, run in runs.items()},
    }
    plot.draw_panels(panels, "epoch").savefig(path, dpi=100)

"""The training loop of the demos: learning rate, checkpoints, progress bar, history, curves."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Callable

from tqdm.auto import tqdm

from cvops import checkpoint, plot
from cvops._mxnet import mxnet

mx = mxnet()


def run_epochs(
    train_epoch: Callable[[Any, Any], tuple[Any, str]],
    net: Any,
    optimizer: str,
    options: dict[str, Any],
    batches: int,
    settings: dict[str, Any],
    saved: Path | None,
) -> list[Any]:
    """Train ``net``, with a learning rate that falls along half a cosine.

    Args:
        train_epoch: trains for one epoch. Its arguments are the trainer and the progress bar, which
            it updates after each batch. It returns the errors of the epoch, as JSON has them, and a
            text about them.
        net: a Gluon block with initialized parameters.
        optimizer: a name for ``gluon.Trainer``.
        options: options of the optimizer, without the learning rate.
        batches: number of batches per epoch.
        settings: "epochs", "rate" (the maximum learning rate), "seed", and other settings. A run
            continues only from a checkpoint with the same settings.
        saved: checkpoint file, written after each epoch. If it exists, training continues from it.

    Returns:
        The errors of each epoch, those in the checkpoint included.

    Raises:
        CheckpointError: ``saved`` is not a checkpoint, or is one of another training.
        OSError: ``saved`` cannot be written.
    """
    epochs, rate = settings["epochs"], settings["rate"]
    steps = epochs * batches
    schedule = mx.lr_scheduler.CosineScheduler(
        steps, rate, final_lr=rate / 100, warmup_steps=steps // 20, warmup_begin_lr=rate / 10
    )
    options = {"learning_rate": rate, "lr_scheduler": schedule, **options}
    trainer = mx.gluon.Trainer(net.collect_params(), optimizer, options)
    settings = {**settings, "steps": steps}
    history: Any = []
    if saved is not None and saved.exists():
        state = checkpoint.load(saved, net, trainer)
        found, history = state.get("settings"), state.get("history")
        if found != settings or not isinstance(history, list) or len(history) > epochs:
            raise checkpoint.CheckpointError(
                f"{saved}: expected a training with {settings}, got one with {found}"
            )
    elif saved is not None:
        checkpoint.check_path(saved)  # before the first epoch, not after it
    with tqdm(total=steps, initial=len(history) * batches, unit="batch") as bar:
        for epoch in range(len(history), epochs):
            start = time.perf_counter()
            checkpoint.seed_all(settings["seed"], epoch)
            errors, text = train_epoch(trainer, bar)
            # The backward of a static graph writes running means, and MXNet does not wait for them.
            mx.nd.waitall()
            history.append(errors)
            if saved is not None:
                checkpoint.save(saved, net, trainer, settings=settings, history=history)
            bar.write(f"epoch {epoch + 1:2d}: {text}, {time.perf_counter() - start:.1f} s")
    return history


@contextlib.contextmanager
def epoch_bar(epochs: int) -> Iterator[Callable[[str], None]]:
    """Show a progress bar on a terminal; give a ``report`` of ``models.classification.train``."""
    with tqdm(total=epochs, unit="epoch", leave=False, disable=None) as bar:
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

"""The command ``cvops train``."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

from cvops.cli import common
from cvops.cli.common import Refused

#: Exit status of a training that a signal stopped, as of shells: 128 + SIGINT.
_STOPPED = 130


@contextlib.contextmanager
def _stop_on_signals() -> Iterator[Callable[[], bool]]:
    """Give a function that tells if SIGINT or SIGTERM came; a second signal ends the process."""
    came: list[int] = []
    if threading.current_thread() is not threading.main_thread():  # which has the signals
        yield lambda: False
        return

    def remember(number: int, _: Any) -> None:
        came.append(number)
        for each, handler in previous.items():
            signal.signal(each, handler)

    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in previous:
        signal.signal(number, remember)
    try:
        yield lambda: bool(came)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _given(options: argparse.Namespace, known: list[str]) -> dict[str, Any]:
    """Return the options of the command line, and below them those of configuration files."""
    from cvops.recipes import config, run

    files = [options.config] if options.config else []
    if options.resume:
        output = Path(options.output or run.Options.output)
        files.insert(0, output / run.CONFIG)
        if not (files[0].exists() or options.config or options.data):
            raise Refused(f"{files[0]}: no such file; --resume continues the training of --output")
    values: dict[str, Any] = {}
    for file in files:
        if file.exists() or file is options.config:
            values |= config.read_config(file, known)
    return values | {
        name: x for name, x in vars(options).items() if name in known and x is not None
    }


def _join(kvstore: str) -> Any:
    """Return this process, as a worker of a distributed training if the store is of that kind."""
    from cvops import distributed

    if kvstore in distributed.KINDS:
        return distributed.join(kvstore)
    if distributed.is_worker():
        raise Refused(f"kvstore: expected one of {list(distributed.KINDS)}, got {kvstore!r}")
    return distributed.Process()


def _train(options: argparse.Namespace) -> int:
    # MXNet reads these when it is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("OMP_NUM_THREADS", str(len(os.sched_getaffinity(0))))
    import dataclasses

    from cvops import distributed

    if distributed.is_service():  # it does not import MXNet
        return distributed.main()
    from cvops import training
    from cvops.recipes import RECIPES, run

    known = [field.name for field in dataclasses.fields(run.Options)]
    try:
        given = _given(options, known)
        if "data" not in given:
            raise Refused("data: expected the folder of a set, which `cvops data` writes")
        chosen = run.Options(**given)
        process = _join(chosen.kvstore)
    except (OSError, TypeError, ValueError) as error:
        raise Refused(str(error)) from error
    with process:
        try:
            with _stop_on_signals() as stop:
                history = run.train(chosen, options.resume, stop, process)
        except training.Interrupted:
            if process.writes:
                print(f"stopped; `cvops train --resume --output {chosen.output}` continues")
            return _STOPPED
        except (FloatingPointError, OSError, TypeError, ValueError) as error:
            process.abort(f"cvops: {error}", 2)
            raise Refused(str(error)) from error
    if not process.writes:
        return 0
    metric = RECIPES[chosen.model].metric
    best = run.best_epoch(history, metric)
    value = history[best].get(f"val {metric}")
    score = "" if value is None else f", validation {metric} {value:.3f}"
    print(f"best epoch {best + 1}{score}: {Path(chosen.output) / run.BEST}")
    return 0


def add(commands: Any) -> None:
    """Add the command. An option without a value has the default of ``recipes.run.Options``."""
    train = commands.add_parser(
        "train",
        help="train a detector or a segmentation network on a set of `cvops data`",
        description="Ctrl-C finishes the step and saves a checkpoint; --resume continues from it.",
    )
    train.add_argument("data", nargs="?", help="folder of the set")
    train.add_argument("--output", help="folder of the run (run)")
    train.add_argument(
        "--model",
        choices=("ssd", "faster", "mask", "fcn"),
        help="TinySSD, Faster R-CNN, Mask R-CNN or FCN-8s (ssd)",
    )
    train.add_argument(
        "--backbone",
        help="ssd: tiny; faster and mask: small, squeezenet, resnet50; fcn: resnet18 (the first)",
    )
    train.add_argument(
        "--pretrained",
        nargs="?",
        const=True,
        metavar="FILE",
        help="begin with pretrained weights of the backbone: a file, or those that are installed",
    )
    train.add_argument("--side", type=common.count, help="side of the training images (256)")
    train.add_argument("--epochs", type=common.count, help="number of epochs (50)")
    train.add_argument("--batch", type=common.count, help="images per step, of all processes (16)")
    train.add_argument(
        "--lr", type=common.rate, help="maximum learning rate (ssd: 0.005, the others: 0.001)"
    )
    train.add_argument("--workers", type=common.threads, help="threads that load images (2)")
    train.add_argument("--devices", help="such as cpu, gpu or gpu:0,1 (cpu)")
    train.add_argument(
        "--kvstore",
        choices=("device", "dist_sync", "dist_device_sync"),
        help="dist_*: train in several processes, which `cvops launch` starts (device)",
    )
    train.add_argument("--seed", type=int, help="seed of all random numbers (0)")
    train.add_argument(
        "--no-augment",
        dest="augment",
        action="store_const",
        const=False,
        help="do not crop and mirror the training images",
    )
    train.add_argument(
        "--no-difficult",
        dest="difficult",
        action="store_const",
        const=False,
        help="leave out difficult objects in the training",
    )
    train.add_argument(
        "--class-weights",
        nargs="+",
        metavar="CLASS=WEIGHT",
        help="factors of the loss of classes, or: balanced",
    )
    train.add_argument(
        "--patience",
        type=int,
        help="end after this number of epochs without a better validation metric (0: never)",
    )
    train.add_argument(
        "--on-error",
        choices=("stop", "skip"),
        help="at an image that cannot be read: stop, or read all images first and skip it (stop)",
    )
    train.add_argument(
        "--tensorboard",
        action="store_const",
        const=True,
        help="write events for TensorBoard (the extra log)",
    )
    train.add_argument("--config", type=Path, help="file with options, in TOML")
    train.add_argument(
        "--resume", action="store_true", help="continue the training in the output folder"
    )
    train.set_defaults(run=_train)

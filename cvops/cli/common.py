"""Parts that the commands share."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any


class Refused(Exception):
    """The command cannot run with these arguments. The message gives the reason in one line."""


def prepare(options: argparse.Namespace) -> None:
    """Set the environment of a training command and make its output folder."""
    # MXNet reads these when it is imported. By default it uses half of the cores, and its waiting
    # threads spin, which is slow on shared cores.
    os.environ.setdefault("OMP_NUM_THREADS", str(len(os.sched_getaffinity(0))))
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        options.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Refused(f"{options.output}: cannot make this folder: {error.strerror}") from error


def image_format(path: Path) -> str:
    """Return Pillow's format for the extension of ``path``.

    Raises:
        Refused: Pillow does not write such files.
    """
    from PIL import Image

    suffix = path.suffix.lower()
    known = Image.registered_extensions().get(suffix)
    if known not in Image.SAVE:
        raise Refused(f"{path}: cannot be written: unknown file extension {suffix}")
    return str(known)


def move(net: Any, device: str) -> None:
    """Move a network to a device, such as "cpu" or "gpu:0".

    Raises:
        ValueError: there is no such device.
    """
    from cvops.recipes.run import check_devices, contexts

    devices = contexts(device)
    if len(devices) > 1:
        raise ValueError(f"device: expected one device, got {device!r}")
    check_devices(devices)
    net.collect_params().reset_ctx(devices)


def count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected 1 or more, got {text}")
    return number


def threads(text: str) -> int:
    number = int(text)
    if not 0 <= number <= 256:
        raise argparse.ArgumentTypeError(f"expected 0 to 256 threads, got {text}")
    return number


def score(text: str) -> float:
    number = float(text)
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"expected a score from 0 to 1, got {text}")
    return number


def rate(text: str) -> float:
    number = float(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text}")
    return number

"""Parts that the commands share."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any, Callable, TypeVar

from cvops._files import check_folder

_Number = TypeVar("_Number", int, float)


class Refused(Exception):
    """The command cannot run with these arguments. The message gives the reason in one line."""

    def __init__(self, reason: str | Exception) -> None:
        if isinstance(reason, OSError) and reason.filename and reason.strerror:
            reason = f"{reason.filename}: {reason.strerror}"  # without the number of the error
        super().__init__(str(reason))


class WithDefaults(argparse.ArgumentDefaultsHelpFormatter):
    """The help of options with their defaults, without those that say nothing."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default is None or action.default is False:
            return action.help
        return super()._get_help_string(action)


def prepare(options: argparse.Namespace) -> None:
    """Set the environment of a training command and make its output folder."""
    # MXNet reads these when it is imported. By default it uses half of the cores, and its waiting
    # threads spin, which is slow on shared cores.
    os.environ.setdefault("OMP_NUM_THREADS", str(len(os.sched_getaffinity(0))))
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        check_folder(options.output)
        options.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Refused(error) from error


def image_format(path: Path) -> str:
    """Return Pillow's format for the extension of ``path``.

    Raises:
        Refused: Pillow does not write such files.
    """
    from cvops._pillow import Image

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


def _parsed(kind: Callable[[str], _Number], text: str, want: str) -> _Number:
    try:
        return kind(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected {want}, got {text!r}") from None


def count(text: str, more: str = "") -> int:
    number = _parsed(int, text, f"1 or more{more}")
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected 1 or more{more}, got {text}")
    return number


def threads(text: str) -> int:
    number = _parsed(int, text, "a number from 0 to 256")
    if not 0 <= number <= 256:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 256, got {text}")
    return number


def fraction(text: str) -> float:
    number = _parsed(float, text, "a number from 0 to 1")
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 1, got {text}")
    return number


def rate(text: str) -> float:
    number = _parsed(float, text, "a number above 0")
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text}")
    return number

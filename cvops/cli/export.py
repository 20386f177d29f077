"""The command ``cvops export``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from cvops.cli import common
from cvops.cli.common import Refused


def batch(text: str) -> int | None:
    return None if text == "dynamic" else common.count(text, " or dynamic")


def _export(options: argparse.Namespace) -> None:
    import cvops.onnx
    from cvops import recipes
    from cvops._files import check_writable

    arguments = {name: getattr(options, name) for name in ("batch", "size")}
    arguments |= {name: getattr(options, name) for name in ("threshold", "nms_threshold")}
    try:
        check_writable(options.onnx)
        _, net = recipes.load(options.params)
    except (OSError, ValueError) as error:
        raise Refused(str(error)) from error
    try:
        cvops.onnx.export(net, options.onnx, **arguments)
    except (OSError, TypeError, ValueError) as error:
        raise Refused(str(error)) from error
    size = options.onnx.stat().st_size
    print(f"{options.onnx}: {type(net).__name__}, {size / 1e6:.1f} MB")


def add(commands: Any) -> None:
    """Add the command."""
    export = commands.add_parser("export", help="write a trained network as a model of ONNX")
    export.add_argument(
        "--params",
        type=Path,
        required=True,
        help="parameters of a TinySSD, an FCN or a Faster R-CNN, with their .json file",
    )
    export.add_argument("--onnx", type=Path, required=True, help="output file")
    export.add_argument(
        "--batch", type=batch, help="number of images, or dynamic: any number (default)"
    )
    export.add_argument(
        "--size",
        type=common.count,
        nargs=2,
        metavar=("HEIGHT", "WIDTH"),
        help="size of the images, by default that of the training images, or any size for an FCN",
    )
    export.add_argument(
        "--threshold", type=common.fraction, help="minimum score, by default 0.01, or 0.05 (R-CNN)"
    )
    export.add_argument(
        "--nms-threshold",
        type=common.fraction,
        help="IoU from which on a detection is suppressed, by default 0.3",
    )
    export.set_defaults(run=_export)

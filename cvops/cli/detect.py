"""The command ``cvops detect``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from cvops._files import replacing
from cvops.cli import common
from cvops.cli.common import Refused


def _load(params: Path) -> Any:
    from cvops.models import TinySSD

    try:
        return TinySSD.load(params)
    except (FileNotFoundError, ValueError) as error:
        raise Refused(str(error)) from error


def _open(image: Path) -> Any:
    from cvops.images import read_image

    try:
        return read_image(image)
    except (OSError, ValueError) as error:
        raise Refused(str(error)) from error


def _detect(options: argparse.Namespace) -> None:
    image = _open(options.image)
    net = _load(options.params)

    from cvops.models.tiny_ssd import predict

    rows = predict(net, image, options.threshold)
    print(f"{'class':12} {'score':>5} {'x1':>6} {'y1':>6} {'x2':>6} {'y2':>6}")
    for kind, score, *box in rows:
        print(f"{net.classes[int(kind)]:12} {score:5.2f}", *(f"{v:6.1f}" for v in box))

    if options.output:
        from PIL import Image

        from cvops import plot

        suffix = options.output.suffix.lower()
        try:
            if suffix not in Image.registered_extensions():
                raise ValueError(f"unknown file extension {suffix}")
            with replacing(options.output) as part:
                drawing = plot.draw_detections(image, rows, net.classes)
                drawing.save(part, Image.registered_extensions()[suffix])
        except (OSError, ValueError) as error:
            raise Refused(f"{options.output}: cannot be written: {error}") from error


def add(commands: Any) -> None:
    """Add the command."""
    detect = commands.add_parser("detect", help="find objects in an image")
    detect.add_argument("image", type=Path, help="the image")
    detect.add_argument(
        "--params", type=Path, required=True, help="parameters that `cvops demo` wrote"
    )
    detect.add_argument("--output", type=Path, help="image file for a drawing of the objects")
    detect.add_argument(
        "--threshold", type=common.score, default=0.5, help="minimum score (%(default)s)"
    )
    detect.set_defaults(run=_detect)

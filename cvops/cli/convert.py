"""The commands ``cvops convert-symbol`` and ``cvops convert-weights``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from cvops._files import replacing
from cvops.cli.common import Refused


def _convert_symbol(options: argparse.Namespace) -> None:
    from cvops._mxnet import symbols

    try:
        text = options.source.read_text("utf-8")
        converted = symbols.convert_symbol(text, options.to)
    except FileNotFoundError as error:
        raise Refused(f"{options.source}: no such file") from error
    except OSError as error:
        raise Refused(f"{options.source}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise Refused(f"{options.source}: {error}") from error
    try:
        with replacing(options.target) as part:
            part.write_text(converted, "utf-8")
    except OSError as error:
        raise Refused(str(error)) from error
    ours, mark = "_contrib_cvops_", '"op": "'
    count = abs(converted.count(mark + ours) - text.count(mark + ours))
    print(f"{options.target}: {count} operators replaced")


def _convert_weights(options: argparse.Namespace) -> None:
    from cvops import weights

    source = True if options.source is None else options.source
    try:
        path, count = weights.convert(options.network, options.target, source)
    except (OSError, ValueError) as error:
        raise Refused(str(error)) from error
    print(f"{options.target}: {count} arrays of {options.network} from {path}")


def add(commands: Any) -> None:
    """Add the commands."""
    convert = commands.add_parser(
        "convert-symbol",
        help="replace MXNet's detection operators in a symbol file (JSON) by ours, or back",
    )
    convert.add_argument("source", type=Path, help="symbol file from export or Symbol.save")
    convert.add_argument("target", type=Path, help="output file")
    convert.add_argument("--to", choices=("cvops", "mxnet"), default="cvops")
    convert.set_defaults(run=_convert_symbol)

    weights = commands.add_parser(
        "convert-weights",
        help="write pretrained weights of a network of MXNet's model zoo for Gluon",
    )
    weights.add_argument("network", help="such as squeezenet1_1, vgg19 or resnet18_v1")
    weights.add_argument("target", type=Path, help="output file, for load_parameters")
    weights.add_argument(
        "--source",
        type=Path,
        help="file of weights: torchvision's .pth or .safetensors, or one of an installed package; "
        "by default that of MXNet's model zoo or of an installed package",
    )
    weights.set_defaults(run=_convert_weights)

"""The command ``cvops evaluate``."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from cvops._files import check_writable
from cvops.cli import common
from cvops.cli.common import Refused, WithDefaults


def _evaluate(options: argparse.Namespace) -> None:
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # MXNet reads it when it is imported
    from cvops.datasets.sets import read_set
    from cvops.recipes import detection, evaluation, load
    from cvops.recipes.splits import Split

    try:
        for path in (options.json, options.errors):
            if path is not None:
                check_writable(path)
        if options.errors is not None:
            image_format = common.image_format(options.errors)
        recipe, net = load(options.params)
        common.move(net, options.device)
        data = read_set(options.data)
        if data.kind not in recipe.kinds:
            raise Refused(
                f"{data.path}: expected a set of kind {' or '.join(recipe.kinds)} for the model "
                f"{recipe.name}, got {data.kind}"
            )
        names = recipe.class_names(net)
        expected = ("background", *data.classes) if recipe.segments else data.classes
        if tuple(names) != tuple(expected):
            raise Refused(
                f"{data.path}: expected the classes of the network, {list(names)}, "
                f"got {list(expected)}"
            )
        split = Split(data, options.split)
        if options.on_error == "skip":
            for message in split.without_broken(options.workers):
                print(f"skipped: {message}", file=sys.stderr)
        if not len(split):
            raise Refused(f"{data.path}: expected one image of {options.split} or more, got none")
        result = recipe.evaluate(net, split, options.batch, options.workers)
        print(f"{len(split)} images of {options.split}\n{evaluation.text(result)}")
        if options.json is not None:
            evaluation.write_json(options.json, result, split.names)
        if options.errors is not None:
            picture = evaluation.picture_of_errors(recipe, net, split, result)
            if picture is None:
                print("no image has an error: no picture")
            else:
                detection.save_image(options.errors, picture, image_format)
    except (OSError, ValueError) as error:
        raise Refused(error) from error


def add(commands: Any) -> None:
    """Add the command."""
    evaluate = commands.add_parser(
        "evaluate",
        help="evaluate a network on a set of `cvops data`",
        formatter_class=WithDefaults,
    )
    evaluate.add_argument("data", type=Path, help="folder of the set")
    evaluate.add_argument(
        "--params", type=Path, required=True, help="parameters that `cvops train` wrote"
    )
    evaluate.add_argument("--split", default="val", help="the images: val, train or test")
    evaluate.add_argument("--batch", type=common.count, default=16, help="images per batch")
    evaluate.add_argument(
        "--workers", type=common.threads, default=2, help="threads that load images"
    )
    evaluate.add_argument("--device", default="cpu", help="such as cpu or gpu:0")
    evaluate.add_argument("--json", type=Path, help="file for the results as JSON")
    evaluate.add_argument(
        "--errors", type=Path, help="image file for a drawing of the worst images"
    )
    evaluate.add_argument(
        "--on-error",
        choices=("stop", "skip"),
        default="stop",
        help="at an image that cannot be read: stop, or skip it",
    )
    evaluate.set_defaults(run=_evaluate)

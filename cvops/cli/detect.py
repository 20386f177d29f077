"""The command ``cvops detect``."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from cvops._files import check_folder, check_writable
from cvops.cli import common
from cvops.cli.common import Refused

#: Exit status if images were skipped.
_SKIPPED = 1


def _detect(options: argparse.Namespace) -> int:
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # MXNet reads it when it is imported
    from cvops.recipes import detection, load

    try:
        files = detection.files_of(options.paths)
        image_format = _check_outputs(options, files)
        recipe, net = load(options.params)
        common.move(net, options.device)
        classes = recipe.class_names(net)
        if options.coco and recipe.segments:
            raise Refused(f"--coco: expected parameters of a detector, got those of {recipe.name}")
        ids = detection.read_coco_ids(options.coco_ids) if options.coco_ids else None
        writer = detection.Writer(classes, options.json, options.coco, ids, options.draw)
        results = detection.detect(
            recipe,
            net,
            detection.sources_of(files, options.every),
            options.threshold,
            options.batch,
            options.workers,
            options.nms_threshold,
            options.max_pixels,
        )
        prints = not (options.json or options.coco or options.draw)
        counts = [0, 0]  # images with a result, and without one
        with _without_limit_of_pillow(), writer.open():
            for result in results:
                counts[bool(result.error)] += 1
                if result.error:
                    if options.on_error == "stop":
                        raise Refused(result.error)
                    print(f"cvops: skipped: {result.error}", file=sys.stderr)
                writer.add(result)
                if result.found is not None:
                    if prints:
                        _print(result, classes, len(files) > 1)
                    if options.output:
                        drawing = detection.draw(result, classes)
                        detection.save_image(options.output, drawing, image_format)
    except Refused:
        raise
    except (OSError, ValueError) as error:
        raise Refused(error) from error
    if len(files) > 1:
        print(f"{counts[0]} images, {counts[1]} skipped", file=sys.stderr)
    return _SKIPPED if counts[1] else 0


@contextlib.contextmanager
def _without_limit_of_pillow() -> Iterator[None]:
    """Lift Pillow's limit of pixels, in the place of which ``--max-pixels`` is."""
    from cvops._pillow import Image

    before = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def _check_outputs(options: argparse.Namespace, files: Sequence[Any]) -> str:
    """Refuse outputs that cannot be written; return the format of ``--output``."""
    from cvops.recipes.detection import VIDEOS

    for path in (options.json, options.coco, options.output):
        if path is not None and str(path) != "-":
            check_writable(path)
    if options.draw is not None:
        check_folder(options.draw)
    if options.json is not None and options.json == options.coco:
        raise Refused("--coco: expected another file than that of --json")
    if options.coco_ids and not options.coco:
        raise Refused("--coco-ids: only with --coco")
    if options.draw is not None:
        targets = {(options.draw / part.with_suffix(".jpg")).resolve() for _, part in files}
        if targets & {path.resolve() for path, _ in files}:
            raise Refused("--draw: expected another folder than that of the images")
    if options.output is None:
        return ""
    is_video = files[0][0].suffix.lower() in VIDEOS
    if len(files) > 1 or Path(options.paths[0]).is_dir() or is_video:
        raise Refused("--output: expected one image; --draw has a folder for several")
    return common.image_format(options.output)


def _print(result: Any, classes: Sequence[str], several: bool) -> None:
    """Print the result of an image as a table."""
    if several or result.source.frame is not None:
        print(result.source.name)
    if result.found.pixels is not None:
        print(f"{'class':12} {'pixels':>8}")
        for name, number in zip(classes, _counts(result.found.pixels, len(classes))):
            print(f"{name:12} {number:8}")
        return
    print(f"{'class':12} {'score':>5} {'x1':>6} {'y1':>6} {'x2':>6} {'y2':>6}")
    for kind, score, *box in result.found.rows:
        print(f"{classes[int(kind)]:12} {score:5.2f}", *(f"{v:6.1f}" for v in box))


def _counts(pixels: Any, length: int) -> list[int]:
    import numpy as np

    counts: list[int] = np.bincount(pixels.ravel(), minlength=length).tolist()
    return counts


def add(commands: Any) -> None:
    """Add the command."""
    detect = commands.add_parser(
        "detect",
        help="find objects in images and videos",
        description="The exit status is 1 if images were skipped.",
    )
    detect.add_argument(
        "paths", nargs="+", metavar="path", help="image, video, folder, or pattern such as '*.jpg'"
    )
    detect.add_argument(
        "--params",
        type=Path,
        required=True,
        help="parameters that `cvops train` or `cvops demo` wrote",
    )
    detect.add_argument("--output", type=Path, help="image file for a drawing of one image")
    detect.add_argument("--draw", type=Path, help="folder for the drawings of all images, JPEG")
    detect.add_argument(
        "--json", type=Path, help="file for the results, a line of JSON an image; - prints them"
    )
    detect.add_argument("--coco", type=Path, help="file for the results of COCO's form")
    detect.add_argument(
        "--coco-ids",
        type=Path,
        help="annotation file of COCO with the numbers of the images and the classes",
    )
    for name, default, text in (
        ("--threshold", 0.5, "minimum score"),
        ("--nms-threshold", 0.3, "IoU from which on a better detection suppresses a box"),
    ):
        detect.add_argument(
            name, type=common.fraction, default=default, help=f"{text} (%(default)s)"
        )
    for name, default, text in (
        ("--batch", 8, "images per batch"),
        ("--every", 1, "interval of the frames of a video"),
        ("--max-pixels", 178_956_970, "maximum number of pixels of an image"),
    ):
        detect.add_argument(name, type=common.count, default=default, help=f"{text} (%(default)s)")
    detect.add_argument(
        "--workers",
        type=common.threads,
        default=2,
        help="threads that read images (%(default)s)",
    )
    detect.add_argument("--device", default="cpu", help="such as cpu or gpu:0 (%(default)s)")
    detect.add_argument(
        "--on-error",
        choices=("stop", "skip"),
        default="stop",
        help="at a file that cannot be read: stop, or skip it (%(default)s)",
    )
    detect.set_defaults(run=_detect)

"""The command ``cvops data``."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cvops._imports import optional
from cvops.cli import common
from cvops.cli.common import Refused

if TYPE_CHECKING:
    from cvops.sets import Problem, Report

#: Names of the formats; ``cvops.sets`` imports MXNet.
_FORMATS = ("voc", "coco", "yolo", "labelme", "csv")
_KINDS = ("boxes", "instances", "segmentation")
#: Images on the contact sheet.
_SAMPLES = 16
#: Errors on the screen, if ``problems.csv`` has all.
_SHOWN = 20


def _classes(text: str | None) -> list[str] | None:
    """Return the names in a file, a line each, or those between commas."""
    if text is None:
        return None
    try:
        # A list may be longer than the name of a file.
        is_file = "," not in text and (Path(text).is_file() or text.endswith(".txt"))
        names = Path(text).read_text("utf-8-sig").splitlines() if is_file else text.split(",")
    except (OSError, ValueError) as error:
        raise Refused(f"--classes: cannot be read: {error}") from error
    return [name.strip() for name in names if name.strip()]


def _progress(items: Iterable[Any], length: int, text: str) -> Iterable[Any]:
    with optional():
        from tqdm import tqdm

    # An explicit False would override the environment variable TQDM_DISABLE.
    hidden = {} if sys.stderr.isatty() else {"disable": True}
    return tqdm(items, text, length, unit=" images", leave=False, **hidden)


def _run(options: argparse.Namespace) -> None:
    classes = _classes(options.classes)
    from cvops import sets

    try:
        report = sets.make_set(
            options.source,
            options.output,
            format=options.format,
            classes=classes,
            val=options.val,
            seed=options.seed,
            kind=options.kind,
            max_side=options.max_side,
            images=options.images,
            on_error=options.on_error,
            overwrite=options.overwrite,
            progress=_progress,
        )
    except sets.DataError as error:
        _print_problems(error.problems, options.on_error, None)
        raise Refused(error) from error
    except (OSError, ValueError) as error:
        raise Refused(error) from error
    _print_problems(report.problems, options.on_error, _SHOWN)
    _print_counts(report)
    try:
        _draw_samples(report)
    except (OSError, ValueError) as error:
        raise Refused(f"no picture of samples: {error}; the set is complete") from error


def _table(rows: Sequence[Sequence[object]]) -> None:
    """Print rows below a header. The first column is left-aligned, and so are texts."""
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells)]
    is_text = [isinstance(cell, str) for cell in rows[-1]]
    for row in cells:
        line = (
            f"{cell:{'<' if text else '>'}{width}}"
            for cell, width, text in zip(row, widths, is_text)
        )
        print("  ".join(line).rstrip())


def _print_problems(problems: Sequence[Problem], on_error: str, most: int | None) -> None:
    """Name ``most`` errors, or all, and print the number of each kind of problem."""
    from cvops.sets import PROBLEMS

    errors = [problem for problem in problems if PROBLEMS[problem.kind].is_error]
    for kind, where, message in errors[:most]:
        print(f"cvops: {kind}: {message or where}", file=sys.stderr)
    if most is not None and len(errors) > most:
        more = len(errors) - most
        print(f"cvops: and {more} more errors; problems.csv has all", file=sys.stderr)
    counts = Counter(problem.kind for problem in problems)
    if counts:
        rows: list[tuple[object, ...]] = [("problem", "number", "result")]
        for kind, (is_error, text) in PROBLEMS.items():
            if kind in counts:
                result = "refused" if is_error and on_error == "stop" else text
                rows.append((kind, counts[kind], result))
        _table(rows)
        print()


def _print_counts(report: Report) -> None:
    made = report.set
    rows: list[tuple[object, ...]] = [
        ("split", "images", "without objects", "objects", "difficult")
    ]
    for split, (images, objects) in made.splits.items():
        rows.append((split, images, report.empty[split], objects, report.difficult[split]))
    _table(rows)
    print()
    rows = [("class", *made.splits)]
    for name, counts in report.objects.items():
        rows.append((name, *(counts[split] for split in made.splits)))
    _table(rows)
    print()
    for split, row in made.splits.items():
        if not row.objects:
            print(f"note: {split} has no objects")
    if "val" not in made.splits:
        print("note: no images are in val; the training is without a validation")
    smallest, median, largest = report.sides
    print(f"longer sides of the images: {smallest} to {largest} pixels, median {median}")
    print(f"{made.path}: {made.kind}, from {report.format}")


def _draw_samples(report: Report) -> None:
    """Draw images that are read back from the set."""
    from cvops import plot
    from cvops.recipes.detection import save_image

    made = report.set
    split = next(iter(made.splits))
    scenes = made.scenes(split) if made.splits[split].objects else None
    chosen = report.samples[split][:_SAMPLES]
    if scenes is None or not chosen:
        return
    sheet = plot.contact_sheet([scenes[i] for i in chosen], made.classes)
    path = made.path / "samples.png"
    save_image(path, sheet, "PNG")
    print(f"{path}: {len(chosen)} images of {split}")


def add(commands: Any) -> None:
    """Add the command."""
    data = commands.add_parser(
        "data",
        help="make a set for training from images and their annotations, and check them",
    )
    data.add_argument("source", type=Path, help="folder of annotations and images, or one file")
    data.add_argument("output", type=Path, help="folder of the set, which does not exist")
    data.add_argument(
        "--format", choices=_FORMATS, help="format of the annotations, found by default"
    )
    data.add_argument(
        "--classes",
        help="names of the classes, between commas or a line each in a file; others are omitted; "
        "by default all",
    )
    data.add_argument(
        "--val",
        type=common.fraction,
        help="fraction of val, by default 0.2, or splits of the source",
    )
    data.add_argument("--seed", type=int, default=0, help="seed of the random split (%(default)s)")
    data.add_argument(
        "--kind",
        choices=_KINDS,
        help="boxes, boxes with masks, or classes of pixels; by default instances if all objects "
        "have masks",
    )
    data.add_argument(
        "--max-side", type=common.count, help="reduce larger images to this side, in pixels"
    )
    data.add_argument("--images", type=Path, help="folder of the images, by default the source")
    data.add_argument(
        "--on-error",
        choices=("skip", "stop"),
        default="skip",
        help="skip images with errors, or write nothing if there are any (%(default)s)",
    )
    data.add_argument("--overwrite", action="store_true", help="replace the set in the folder")
    data.set_defaults(run=_run)

"""From a folder of images and annotations to a set: see ``cvops.sets``."""

from __future__ import annotations

import csv
import io
import random
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cvops._files import check_folder
from cvops._pillow import Image
from cvops.datasets.annotations import PROBLEMS, Annotations, Problem, masks, read_annotations
from cvops.datasets.check import CheckedImage, Progress, check, has_masks
from cvops.datasets.set_writer import Example, check_free, write_set
from cvops.datasets.sets import KINDS, Set, check_classes
from cvops.images import decode_image
from cvops.ops._check import choice, flag, integer, number

#: Fraction of the images in val, if the source has no splits.
VAL = 0.2


class DataError(ValueError):
    """The data has errors, and ``on_error`` is "stop"."""

    def __init__(self, message: str, problems: list[Problem]) -> None:
        super().__init__(message)
        #: All problems of the data.
        self.problems = problems


class Report(NamedTuple):
    """The result of :func:`make_set`."""

    set: Set
    #: Name of the format, a key of ``FORMATS``.
    format: str
    problems: list[Problem]
    #: Number of objects of each class, by split.
    objects: dict[str, Counter]
    #: Number of difficult objects by split.
    difficult: Counter
    #: Number of images without objects by split.
    empty: Counter
    #: Smallest, median and largest length of the longer sides of the images, in pixels.
    sides: tuple[int, int, int]
    #: Indices of images with objects, by split, in random order.
    samples: dict[str, list[int]]


def make_set(
    source: str | Path,
    path: str | Path,
    *,
    format: str | None = None,
    classes: Sequence[str] | None = None,
    val: float | None = None,
    seed: int = 0,
    kind: str | None = None,
    max_side: int | None = None,
    images: str | Path | None = None,
    on_error: str = "skip",
    overwrite: bool = False,
    progress: Progress = lambda items, length, text: items,
) -> Report:
    """Read annotations of any format, check them with their images, and write a set.

    Equal arguments write equal sets. Boxes refer to the upright image, which annotation tools show.
    An image that is upright 8-bit RGB or gray, not larger than ``max_side``, keeps the content of
    its JPEG or PNG file (JPEG alone in a VOC tree). The others are encoded as JPEG.

    The splits of the source are kept if it has two or more. An equal image is then in one of them
    only. Else the images are split at random, equal images together. Images without objects are
    kept. Objects of classes that are not in ``classes`` are omitted.

    ``problems.csv`` in the set has all problems.

    Args:
        source: folder of annotations and images, or the file of the annotations.
        path: folder of the set, outside of ``source`` and without it, as for :func:`write_set`.
        format: "voc", "coco", "yolo", "labelme" or "csv"; found by itself if None.
        classes: names of the classes in their order. By default those that the source lists, or
            else all names in alphabetical order.
        val: fraction of the images in the split val, 0 to 1; 0.2 by default. The source must not
            have splits of its own.
        seed: seed of the random split.
        kind: one of ``KINDS``. By default "instances" if all objects have masks, or else "boxes".
        max_side: larger images are reduced until their longer side has this number of pixels.
        images: folder of the images, by default that of the annotations.
        on_error: "skip" omits images and objects with errors; "stop" refuses them.
        overwrite: replace a set at ``path``.
        progress: shows the progress of the check and of the writing.

    Raises:
        FileNotFoundError: the source is missing.
        FileExistsError: ``path`` has files.
        DataError: there is an error and ``on_error`` is "stop".
        ValueError: an argument is not one of these values, or no image with an object is left.
        OSError: the set cannot be written.
    """
    source, path = Path(source), Path(path)
    on_error = choice("on_error", on_error, ("skip", "stop"))
    overwrite, seed = flag("overwrite", overwrite), integer("seed", seed)
    kind = None if kind is None else choice("kind", kind, KINDS)
    max_side = None if max_side is None else integer("max_side", max_side, 1)
    val = None if val is None else number("val", val, 0, 1)
    asked = None if classes is None else check_classes(classes)
    check_free(path, overwrite)
    check_folder(path)
    if path.resolve().is_relative_to(source.resolve()):
        raise ValueError(f"path: expected a folder outside of {source}, got {path}")
    for given in (source, source if images is None else Path(images)):
        if given.resolve().is_relative_to(path.resolve()):  # it would be replaced too
            raise ValueError(f"path: expected a folder without {given} in it, got {path}")
    found, annotations = read_annotations(source, format, classes=asked, kind=kind, images=images)
    names = asked or _names(annotations)
    kind = kind or ("instances" if has_masks(annotations) else "boxes")
    if kind != "boxes":
        masks.check_pycocotools()
    checked, problems = check(annotations, names, kind != "boxes", progress)
    order = list(PROBLEMS)
    problems.sort(key=lambda problem: order.index(problem.kind))
    errors = [problem for problem in problems if PROBLEMS[problem.kind].is_error]
    if errors and on_error == "stop":
        raise DataError(f"{source}: {len(errors)} errors; nothing is written", problems)
    if not any(len(image.labels) for image in checked):
        got = f"{len(checked)} images without one" if checked else "no image"
        raise DataError(
            f"{source}: expected an image with an object of {', '.join(names) or 'any class'}, got "
            f"{got}",
            problems,
        )
    if kind != "boxes" and not any(map(_has_mask, checked)):
        raise DataError(f"{source}: expected masks for {kind}, got boxes alone", problems)
    splits = _splits(checked, val, seed)
    examples = {
        split: _examples(rows, kind, max_side, progress, split) for split, rows in splits.items()
    }
    texts = {"problems.csv": _table(problems)}
    result = write_set(path, kind, names, examples, overwrite=overwrite, texts=texts)
    return _report(result, found, problems, splits, seed)


def _names(annotations: Annotations) -> tuple[str, ...]:
    listed = annotations.classes
    if listed is None:
        listed = sorted({thing.name for image in annotations.images for thing in image.objects})
    return tuple(listed)


def _has_mask(image: CheckedImage) -> bool:
    annotated = image.annotated
    masks_of = [annotated.numbers or annotated.objects[place].mask for place in image.places]
    return any(mask is not None for mask in masks_of)


def _splits(
    checked: list[CheckedImage], val: float | None, seed: int
) -> dict[str, list[CheckedImage]]:
    """Return the images of each split, train first."""
    own = {image.annotated.split for image in checked} - {None}
    result: dict[str, list[CheckedImage]] = defaultdict(list)
    if len(own) > 1:
        if val is not None:
            raise ValueError(
                f"val: expected no value, because the source has the splits "
                f"{', '.join(sorted(map(str, own)))}, got {val}"
            )
        for image in checked:
            result[image.annotated.split or "train"].append(image)
        return {split: result[split] for split in ("train", "val", "test") if split in result}
    fraction = VAL if val is None else val
    groups = list(dict.fromkeys(image.digest for image in checked))
    random.Random(seed).shuffle(groups)
    count = round(fraction * len(groups))
    if 0 < fraction < 1 and len(groups) > 1:
        count = min(max(count, 1), len(groups) - 1)
    chosen = set(groups[:count])
    for image in checked:
        result["val" if image.digest in chosen else "train"].append(image)
    return {split: result[split] for split in ("train", "val") if split in result}


def _examples(
    rows: list[CheckedImage], kind: str, max_side: int | None, progress: Progress, split: str
) -> Iterator[Example]:
    for image in progress(rows, len(rows), split):
        path, (height, width) = image.annotated.image, image.size
        scale = min(1, (max_side or max(image.size)) / max(image.size))
        size = max(1, round(height * scale)), max(1, round(width * scale))
        content = path.read_bytes()
        kept = image.format == "JPEG" or (image.format == "PNG" and kind == "boxes")
        picture: Image.Image | bytes = content
        if size != image.size or not kept:
            picture = decode_image(content, str(path))
            if size != image.size:
                picture = picture.resize(size[::-1], Image.Resampling.LANCZOS)
        numbers = None
        if kind != "boxes":
            numbers = masks.numbers(image.annotated, image.places, size, image.size)
        yield Example(picture, image.labels, numbers, str(path))


def _table(problems: list[Problem]) -> str:
    """Return the problems as CSV."""
    text = io.StringIO(newline="")
    table = csv.writer(text)
    table.writerow(("problem", "result", "where", "message"))
    for kind, where, message in problems:
        table.writerow((kind, PROBLEMS[kind].text, where, message))
    return text.getvalue()


def _report(
    written: Set,
    format: str,
    problems: list[Problem],
    splits: dict[str, list[CheckedImage]],
    seed: int,
) -> Report:
    objects: dict[str, Counter] = {name: Counter() for name in written.classes}
    difficult, empty = Counter[str](), Counter[str]()
    samples, sides = {}, []
    for split, rows in splits.items():
        for image in rows:
            for label in image.labels:
                objects[written.classes[int(label[0])]][split] += 1
            difficult[split] += int(np.count_nonzero(image.labels[:, 5]))
            empty[split] += len(image.labels) == 0
            sides.append(max(image.size))
        samples[split] = [i for i, image in enumerate(rows) if len(image.labels)]
        random.Random(seed).shuffle(samples[split])
    lengths = min(sides), int(statistics.median(sides)), max(sides)
    return Report(written, format, problems, objects, difficult, empty, lengths, samples)

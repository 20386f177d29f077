"""The check of a user's images and objects before they become a set."""

from __future__ import annotations

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Callable, NamedTuple

import numpy as np

from cvops import images
from cvops._files import check_regular
from cvops.datasets.annotations import AnnotatedImage, Annotations, Object, Problem
from cvops.datasets.annotations.base import Masks, Polygons, RunLengths
from cvops.datasets.annotations.masks import MOST, is_empty
from cvops.datasets.voc import check_size

#: A box may be this number of pixels beyond the border without a note: fractions are rounded.
_TOLERANCE = 0.1
#: Corners of polygons are at most this number of sides away from the image.
_FAR = 10
#: Problems of an object that may be somewhere else in its image, so the image is of no use.
_ELSEWHERE = ("box outside of the image", "inverted box")
#: An image of several splits is in the last one of these.
_SPLIT_ORDER = ("train", "val", "test")

#: Wraps an iterable to show its progress: (iterable, length, text).
Progress = Callable[[Iterable[Any], int, str], Iterable[Any]]


class CheckedImage(NamedTuple):
    """An image of a set."""

    annotated: AnnotatedImage
    #: Height and width of the upright image.
    size: tuple[int, int]
    #: "JPEG" or "PNG" if a set can have the content of the file.
    format: str | None
    #: Hash of the upright pixels.
    digest: bytes
    #: Indices of the objects in the set.
    places: list[int]
    #: float32 (n, 6): (class, x1, y1, x2, y2, difficult), in fractions, of these objects.
    labels: np.ndarray


class _Facts(NamedTuple):
    """Properties of an image file."""

    size: tuple[int, int]
    format: str | None
    digest: bytes


def has_masks(annotations: Annotations) -> bool:
    """Return True if each object that is not difficult has a mask, and there is one."""
    objects = [
        (image.numbers or thing.mask) is not None
        for image in annotations.images
        for thing in image.objects
        if not thing.difficult
    ]
    return bool(objects) and all(objects)


def check(
    annotations: Annotations,
    classes: Sequence[str],
    with_masks: bool,
    progress: Progress = lambda items, length, text: items,
) -> tuple[list[CheckedImage], list[Problem]]:
    """Check all images, and return those that a set can have, and all problems.

    Each image file is read and decoded. Boxes are cut at the border.

    Args:
        classes: names of the classes of the set.
        with_masks: check the masks too.
        progress: shows the progress.
    """
    problems = list(annotations.problems)
    listed: dict[tuple[Path, str | None], AnnotatedImage] = {}
    for image in annotations.images:
        key = Path(os.path.realpath(image.image)), image.split
        if key in listed:
            problems.append(Problem("image is listed twice", str(image.image), image.source))
        listed.setdefault(key, image)
    unique, omitted = list(listed.values()), Counter[str]()
    pool = ThreadPoolExecutor(min(16, len(os.sched_getaffinity(0))))
    try:
        facts = progress(pool.map(_facts, unique), len(unique), "check")
        found = [
            _check_image(image, fact, classes, with_masks, problems, omitted)
            for image, fact in zip(unique, facts)
        ]
    finally:
        pool.shutdown(cancel_futures=True)  # after an interrupt no more images are read
    for name, count in sorted(omitted.items()):
        problems.append(Problem("class is not asked for", name, f"{name}: {count} objects"))
    kept = _in_one_split([image for image in found if image is not None], problems)
    return kept, problems


def _facts(image: AnnotatedImage) -> _Facts | Problem:
    path = image.image
    try:
        check_regular(path)
        content = path.read_bytes()
        picture = images.decode_image(content, str(path))
    except FileNotFoundError:
        return Problem("image is missing", str(path), f"{image.source}: {path}: no such file")
    except OSError as error:
        return Problem("image cannot be read", str(path), f"{path}: {error.strerror or error}")
    except ValueError as error:
        return Problem("image cannot be read", str(path), str(error))
    size = picture.height, picture.width
    digest = hashlib.blake2b(picture.tobytes() + str(size).encode(), digest_size=16).digest()
    return _Facts(size, images.plain_format(content), digest)


def _check_image(
    image: AnnotatedImage,
    facts: _Facts | Problem,
    classes: Sequence[str],
    with_masks: bool,
    problems: list[Problem],
    omitted: Counter[str],
) -> CheckedImage | None:
    """Return an image with its labels; None if it has an error.

    ``omitted`` counts the objects of each class that is not asked for.
    """
    if isinstance(facts, Problem):
        problems.append(facts)
        return None
    height, width = facts.size
    if image.size not in (None, facts.size):
        message = (
            f"{image.source}: expected the size of the upright image, {height} x {width}, got "
            "{} x {}".format(*image.size)
        )
        if image.size == (width, height):
            message += "; the annotation may be that of the image before its EXIF rotation"
        problems.append(Problem("size of the image differs", image.source, message))
        return None
    places, rows = [], []
    seen = set()
    for place, thing in enumerate(image.objects):
        where = f"{image.source}: object {place}"
        row, kind = _row(thing, classes, facts.size)
        if row is None and not kind:
            omitted[thing.name] += 1
        elif kind:
            problems.append(Problem(kind, where, f"{where}: {thing.name}, box {_short(thing.box)}"))
        if kind in _ELSEWHERE:
            return None
        if row is None:
            continue
        if (thing.name, thing.box) in seen:
            problems.append(Problem("object is there twice", where))
            continue
        seen.add((thing.name, thing.box))
        places.append(place)
        rows.append(row)
    labels = np.array(rows, np.float32).reshape(-1, 6)
    checked = CheckedImage(image, facts.size, facts.format, facts.digest, places, labels)
    if with_masks:
        return checked if _check_masks(checked, problems) else None
    return checked


def _short(box: Sequence[float]) -> str:
    return "({})".format(", ".join(f"{v:.6g}" for v in box))


def _row(
    thing: Object, classes: Sequence[str], size: tuple[int, int]
) -> tuple[tuple[float, ...] | None, str]:
    """Return the label of an object, or None, and the kind of its problem.

    None and "" are those of an object whose class is not asked for.
    """
    if thing.name not in classes:
        return None, ""
    height, width = size
    x1, y1, x2, y2 = thing.box
    if x1 > x2 or y1 > y2:
        return None, "inverted box"
    if not (x1 < x2 and y1 < y2):
        return None, "empty box"
    if not (x1 < width and y1 < height and x2 > 0 and y2 > 0):
        return None, "box outside of the image"
    scaled = np.array(thing.box) / (width, height, width, height)
    box = np.clip(scaled, 0, 1).astype(np.float32)
    if not (box[0] < box[2] and box[1] < box[3]):  # less than float32 can tell
        return None, "empty box"
    beyond = max(-x1, -y1, x2 - width, y2 - height)
    row = (classes.index(thing.name), *box.tolist(), thing.difficult)
    return row, "box beyond the border" if beyond > _TOLERANCE else ""


def _check_masks(checked: CheckedImage, problems: list[Problem]) -> bool:
    """Return True if the masks of an image can be drawn."""
    image, size = checked.annotated, checked.size
    count = len(checked.places if image.numbers is None else image.objects)
    if count > MOST:
        message = f"{image.source}: {count} objects"
        problems.append(Problem("more than 254 objects", image.source, message))
        return False
    if image.numbers is not None:
        try:
            check_size(Path(image.source), image.numbers().shape, size)
        except (OSError, ValueError) as error:
            problems.append(Problem("mask cannot be read", image.source, str(error)))
            return False
        return True
    for place in checked.places:
        mask, where = image.objects[place].mask, f"{image.source}: object {place}"
        parts = [] if mask is None else mask.parts if isinstance(mask, Masks) else [mask]
        for part in parts:
            fault = _fault(part, size)
            if fault:
                problems.append(Problem("mask cannot be read", where, f"{where}: {fault}"))
                return False
        if all(map(is_empty, parts)):
            problems.append(Problem("object without a mask", where))
    return True


def _fault(mask: Polygons | RunLengths, size: tuple[int, int]) -> str:
    """Return the reason why a mask cannot be drawn on an image of ``size``, or an empty string."""
    if isinstance(mask, RunLengths):
        if mask.size == size:
            return ""
        return "expected a mask of the image's size, {} x {}, got {} x {}".format(*size, *mask.size)
    most = max(abs(v) for ring in mask.rings for v in ring)
    if most > _FAR * max(size):
        return f"expected a polygon in the image, got a corner at {most:.6g}"
    return ""


def _in_one_split(found: list[CheckedImage], problems: list[Problem]) -> list[CheckedImage]:
    """Omit images from a split whose equal is in a later one; note equal images."""
    #: The first image of each digest in each split.
    first: dict[bytes, dict[str, CheckedImage]] = defaultdict(dict)
    for image in found:
        first[image.digest].setdefault(_split(image), image)
    kept = []
    for image in found:
        equal = first[image.digest]
        own, last = _split(image), max(equal, key=_SPLIT_ORDER.index)
        name, other = str(image.annotated.image), equal[last]
        if own != last:
            message = f"{name}: equal to {other.annotated.image} of {last}"
            problems.append(Problem("image is in two splits", name, message))
            continue
        kept.append(image)
        if image is not other:
            message = f"{name}: equal to {other.annotated.image}"
            problems.append(Problem("equal images", name, message))
    return kept


def _split(image: CheckedImage) -> str:
    return image.annotated.split or "train"

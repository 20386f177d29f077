"""The record that all formats are read to, and the search for files of images."""

from __future__ import annotations

import json
import math
import os
import re
import reprlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Callable, NamedTuple

import numpy as np

from cvops._files import check_regular

#: Suffixes of the files that are images, in lower case.
IMAGE_SUFFIXES = frozenset(
    [
        *(".avif", ".bmp", ".gif", ".heic", ".jfif", ".jpeg", ".jpg"),
        *(".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"),
    ]
)
#: Folders whose images are labels of pixels.
_LABEL_FOLDERS = frozenset(("SegmentationClass", "SegmentationObject"))
#: The split of each name that folders, lists and files of annotations have.
SPLITS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}


class Polygons(NamedTuple):
    """A mask: the union of polygons."""

    #: For each polygon x, y of its corners in turn, in pixels from the left upper corner.
    rings: list[list[float]]


class RunLengths(NamedTuple):
    """A mask as COCO's run-length code: column by column, first the number of zeros."""

    #: Height and width.
    size: tuple[int, int]
    #: The lengths, or COCO's text of them.
    counts: list[int] | str


class Masks(NamedTuple):
    """A mask: the union of masks."""

    parts: list[Polygons | RunLengths]


class Object(NamedTuple):
    """One object."""

    #: Name of its class.
    name: str
    #: (x1, y1, x2, y2) in pixels of the upright image, from its left upper corner; x2 and y2 are
    #: exclusive.
    box: tuple[float, float, float, float]
    #: True if an evaluation ignores the object: VOC's flag, or COCO's ``iscrowd``.
    difficult: bool = False
    mask: Polygons | RunLengths | Masks | None = None


class AnnotatedImage(NamedTuple):
    """An image file and its objects."""

    image: Path
    objects: list[Object]
    #: Name of the annotation, for messages.
    source: str
    split: str | None = None
    #: Height and width that the annotation names.
    size: tuple[int, int] | None = None
    #: Reads the number of each pixel's object, int (height, width): 1, 2, ... in the order of
    #: ``objects``, 0, or 255 for pixels to ignore. None if each object has its own mask, or none.
    numbers: Callable[[], np.ndarray] | None = None


class Problem(NamedTuple):
    """A fault of the data, or a note about it."""

    #: A key of ``PROBLEMS``.
    kind: str
    #: The file, and the object in it.
    where: str
    message: str = ""


class Annotations(NamedTuple):
    """All annotations of a source."""

    images: list[AnnotatedImage]
    problems: list[Problem]
    #: Names of the classes in the order of the source; None if the source does not list them.
    classes: list[str] | None = None


class Result(NamedTuple):
    """The consequence of a kind of problem."""

    #: True if ``on_error="stop"`` refuses the data.
    is_error: bool
    text: str


#: The kinds of problems, in the order of the table.
PROBLEMS = {
    "annotation cannot be read": Result(True, "image skipped"),
    "object without an image": Result(True, "object omitted"),
    "image is missing": Result(True, "skipped"),
    "image cannot be read": Result(True, "skipped"),
    "size of the image differs": Result(True, "image skipped"),
    "mask cannot be read": Result(True, "image skipped"),
    "more than 254 objects": Result(True, "image skipped"),
    "image is listed twice": Result(True, "first one kept"),
    "image is in two splits": Result(True, "omitted from the first one"),
    "unknown class": Result(True, "image skipped"),
    "box outside of the image": Result(True, "image skipped"),
    "inverted box": Result(True, "image skipped"),
    "empty box": Result(True, "object omitted"),
    "object is there twice": Result(False, "one kept"),
    "box beyond the border": Result(False, "cut"),
    "class is not asked for": Result(False, "objects omitted"),
    "object without a mask": Result(False, "kept, no mask"),
    "equal images": Result(False, "kept, in one split"),
    "image without an annotation": Result(False, "not in the set"),
    "image without a label file": Result(False, "kept, no objects"),
}


class Request(NamedTuple):
    """The options of a reader."""

    #: Names of classes, as asked for.
    classes: tuple[str, ...] | None = None
    #: Kind of the set, as asked for.
    kind: str | None = None


class ImageFiles:
    """The image files below a folder.

    Args:
        source: file or folder of the annotations.
        images: folder of the images; None if it is that of the annotations.
    """

    def __init__(self, source: Path, images: Path | None = None) -> None:
        self.root = images or (source if source.is_dir() else source.parent)
        self.files = [
            path
            for path in visible_files(self.root)
            if path.suffix.lower() in IMAGE_SUFFIXES and _LABEL_FOLDERS.isdisjoint(path.parts)
        ]
        self._by_name, self._by_stem = defaultdict(list), defaultdict(list)
        for path in self.files:
            self._by_name[path.name].append(path)
            self._by_stem[path.stem].append(path)

    def find(self, name: str, *folders: Path, split: str | None = None) -> Path:
        """Return the file with the path ``name`` in one of ``folders``, or below the root.

        Below the root the last parts of the path decide, and then a folder with the name of
        ``split``.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: several files have this name.
        """
        relative = Path(name.replace("\\", "/"))
        if relative.name:
            for folder in (*folders, self.root):
                if (folder / relative).is_file():
                    # The same file has one path, also with "..".
                    path = Path(os.path.normpath(folder / relative))
                    return path if path.is_file() else folder / relative
        found = self._by_name.get(relative.name, [])
        if len(found) > 1 and split is not None:
            found = [path for path in found if split_of(path.parent, self.root) == split] or found
        return self._only(name, found, relative.parts)

    def find_stem(self, stem: str, *folders: Path) -> Path:
        """Return the file with this name without its suffix, first in ``folders``."""
        found = self._by_stem.get(stem, [])
        near = [path for folder in folders for path in found if path.parent == folder]
        return near[0] if near else self._only(stem, found, (stem,))

    def _only(self, name: str, found: list[Path], parts: Sequence[str]) -> Path:
        if len(found) > 1:
            found = [path for path in found if path.parts[-len(parts) :] == tuple(parts)] or found
        if not found:
            raise FileNotFoundError(f"{name}: no such image in {self.root}")
        if len(found) > 1:
            raise ValueError(f"{name}: expected one such image in {self.root}, got {len(found)}")
        return found[0]


def visible_files(folder: Path, above: frozenset[str] = frozenset()) -> Iterator[Path]:
    """Yield the files below a folder by name, without hidden files and folders.

    ``above`` are the folders that contain this one: a link to one of them has no new files.
    """
    above |= {os.path.realpath(folder)}
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_dir():
            if os.path.realpath(path) not in above:
                yield from visible_files(path, above)
        elif path.is_file():
            yield path


def files_with_suffix(source: Path, suffix: str) -> list[Path]:
    """Return the files of a folder with this suffix, or the file ``source`` itself."""
    files: Iterable[Path] = visible_files(source) if source.is_dir() else [source]
    return [path for path in files if path.suffix.lower() == suffix]


def unused(
    files: ImageFiles, images: Sequence[AnnotatedImage], problems: Sequence[Problem]
) -> list[Problem]:
    """Return a note for each image without an annotation.

    An image with the name of an annotation in ``problems`` has one, which cannot be read.
    """
    used = {image.image for image in images}
    broken = {Path(problem.where).stem for problem in problems}
    rest = (path for path in files.files if path not in used and path.stem not in broken)
    return [Problem("image without an annotation", str(path)) for path in rest]


def split_of(path: Path, root: Path) -> str | None:
    """Return the split that the name of a file, or of a folder between it and ``root``, has."""
    parts = path.relative_to(root).parts if path.is_relative_to(root) else path.parts[-1:]
    for part in (path.stem, *reversed(parts[:-1])):
        found = {SPLITS[word] for word in re.split("[^a-z]+", part.lower()) if word in SPLITS}
        if len(found) == 1:
            return found.pop()
    return None


def folder_split(path: Path, root: Path) -> str | None:
    """Return the split whose name a folder between the file and ``root`` has."""
    parts = path.relative_to(root).parts[:-1] if path.is_relative_to(root) else ()
    named = (SPLITS.get(part.lower()) for part in reversed(parts))
    return next((split for split in named if split), None)


def read_text(path: Path) -> str:
    """Return the text of a file in UTF-8.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no text. The message begins with the path.
    """
    try:
        check_regular(path)
        return path.read_text("utf-8-sig")
    except ValueError as error:  # also of the decoder
        raise ValueError(f"{path}: not a text file in UTF-8: {error}") from error
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path}: no such file") from error
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}") from error


def read_json(path: Path) -> Any:
    """Return the content of a JSON file; raise a ValueError as :func:`read_text`."""
    try:
        return json.loads(read_text(path))
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{path}: not a JSON file: {error}") from error


def finite(values: Any, where: str, count: int | None = None) -> list[float]:
    """Return a list of finite numbers.

    Raises:
        ValueError: ``values`` are not ``count`` such numbers. The message begins with ``where``.
    """
    found: list[float] = []
    if isinstance(values, (list, tuple)):
        for value in values:
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                try:
                    found.append(float(value))
                except OverflowError:
                    found.append(math.inf)
    size = len(values) if isinstance(values, (list, tuple)) else -1
    if len(found) != size or count not in (None, size) or not all(map(math.isfinite, found)):
        want = "finite numbers" if count is None else f"{count} finite numbers"
        raise ValueError(f"{where}: expected {want}, got {reprlib.repr(values)}")
    return found


def polygon(values: Any, where: str) -> list[float]:
    """Return x, y of three corners or more in turn, or raise a ValueError."""
    ring = finite(values, where)
    if len(ring) < 6 or len(ring) % 2:
        raise ValueError(f"{where}: expected x, y of 3 corners or more, got {len(ring)} numbers")
    return ring


def box_of(rings: Sequence[Sequence[float]]) -> tuple[float, float, float, float]:
    """Return the corners of the smallest box around polygons."""
    xs = [x for ring in rings for x in ring[::2]]
    ys = [y for ring in rings for y in ring[1::2]]
    return min(xs), min(ys), max(xs), max(ys)


def pixels(value: Any) -> int:
    """Return a length in pixels; 0 if the value is none."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def size_of(height: Any, width: Any) -> tuple[int, int] | None:
    """Return height and width; None if one of them is unknown."""
    found = pixels(height), pixels(width)
    return found if all(found) else None

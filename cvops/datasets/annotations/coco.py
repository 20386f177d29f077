"""COCO JSON: images, annotations and categories in one file, or in one for each split.

A box is (x, y, width, height) in pixels from the left upper corner. A segmentation is a list of
polygons or a run-length code. ``iscrowd`` becomes ``difficult``. The classes are in the order of
the ids of their categories.
"""

from __future__ import annotations

import reprlib
from pathlib import Path
from typing import Any

from cvops.datasets.annotations import masks
from cvops.datasets.annotations.base import (
    AnnotatedImage,
    Annotations,
    ImageFiles,
    Object,
    Polygons,
    Problem,
    Request,
    RunLengths,
    box_of,
    files_with_suffix,
    finite,
    polygon,
    read_json,
    size_of,
    split_of,
)

#: Files of COCO's archives without boxes of all categories.
_OTHERS = ("captions_", "image_info_", "panoptic_", "person_keypoints_", "stuff_")


def read(source: Path, files: ImageFiles, request: Request) -> Annotations:
    """Read all JSON files; the split of a file is in its name or in that of its folder."""
    images: list[AnnotatedImage] = []
    problems: list[Problem] = []
    names: dict[int, str] = {}
    root = source if source.is_dir() else source.parent
    for path in files_with_suffix(source, ".json"):
        if path.name.startswith(_OTHERS) and path != source:
            continue
        try:
            content = read_json(path)
            categories = _categories(content, path)
            found = _File(path, content, categories, files, split_of(path, root))
        except ValueError as error:
            problems.append(Problem("annotation cannot be read", str(path), str(error)))
            continue
        for key, name in categories.items():
            names.setdefault(key, name)
        images += found.images
        problems += found.problems
    ordered = dict.fromkeys(names[key] for key in sorted(names))
    return Annotations(images, problems, list(ordered))


def _rows(content: Any, key: str, path: Path) -> list[dict[str, Any]]:
    rows = content.get(key) if isinstance(content, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError(f"{path}: expected a list {key!r} of objects, as COCO has it")
    return rows


def _categories(content: Any, path: Path) -> dict[int, str]:
    found: dict[int, str] = {}
    for row in _rows(content, "categories", path):
        key, name = _key(row.get("id")), row.get("name")
        if not isinstance(key, int) or not isinstance(name, str) or not name.strip():
            raise ValueError(f"{path}: expected categories with an id and a name, got {row!r}")
        if found.setdefault(key, name.strip()) != name.strip():
            raise ValueError(f"{path}: expected one category of id {key}, got several")
    return found


class _File:
    """The images of one file."""

    def __init__(
        self,
        path: Path,
        content: Any,
        categories: dict[int, str],
        files: ImageFiles,
        split: str | None,
    ) -> None:
        self.images: list[AnnotatedImage] = []
        self.problems: list[Problem] = []
        self._path, self._categories = path, categories
        objects: dict[Any, list[Object]] = {}
        broken, seen = set(), set()
        rows = _rows(content, "images", path)
        for row in rows:
            objects[_key(row.get("id"))] = []
        for number, row in enumerate(_rows(content, "annotations", path)):
            where = f"{path}: annotation {row.get('id', number)}"
            image = _key(row.get("image_id"))
            if image is None or image not in objects:
                got = reprlib.repr(row.get("image_id"))
                message = f"{where}: image_id: expected the id of an image, got {got}"
                self.problems.append(Problem("object without an image", where, message))
                continue
            try:
                objects[image].append(self._object(row, where))
            except _UnknownClass as error:
                broken.add(image)
                self.problems.append(Problem("unknown class", where, str(error)))
            except ValueError as error:
                broken.add(image)
                self.problems.append(Problem("annotation cannot be read", where, str(error)))
        for number, row in enumerate(rows):
            key, name = _key(row.get("id")), row.get("file_name")
            where = f"{path}: image {row.get('id', number)}"
            if key is None or key in seen or not isinstance(name, str) or not name:
                got = reprlib.repr(row)
                message = f"{where}: expected an id of its own and a file_name, got {got}"
                self.problems.append(Problem("annotation cannot be read", where, message))
            elif key not in broken:
                self._add(name, objects[key], files, split, row)
            seen.add(key)

    def _add(
        self,
        name: str,
        objects: list[Object],
        files: ImageFiles,
        split: str | None,
        row: dict[str, Any],
    ) -> None:
        try:
            folders = self._path.parent, files.root / "images"
            image = files.find(name, *folders, split=split)
        except (OSError, ValueError) as error:
            self.problems.append(Problem("image is missing", name, f"{self._path}: {error}"))
            return
        size = size_of(row.get("height"), row.get("width"))
        where = f"{self._path}: {name}"
        self.images.append(AnnotatedImage(image, objects, where, split, size))

    def _object(self, row: dict[str, Any], where: str) -> Object:
        category = _key(row.get("category_id"))
        if category not in self._categories:
            raise _UnknownClass(
                f"{where}: category_id: expected the id of a category, got "
                f"{reprlib.repr(row.get('category_id'))}"
            )
        mask = _mask(row.get("segmentation"), f"{where}: segmentation")
        if row.get("bbox") is not None:
            x, y, width, height = finite(row["bbox"], f"{where}: bbox", 4)
            box = x, y, x + width, y + height
        elif isinstance(mask, Polygons):
            box = box_of(mask.rings)
        elif isinstance(mask, RunLengths):
            box = masks.box(mask)
        else:
            raise ValueError(f"{where}: expected a bbox or a segmentation, got none")
        crowd = row.get("iscrowd", 0)
        if crowd not in (0, 1):
            raise ValueError(f"{where}: iscrowd: expected 0 or 1, got {reprlib.repr(crowd)}")
        return Object(self._categories[category], box, bool(crowd), mask)


class _UnknownClass(ValueError):
    """An object of a category that the file does not have."""


def _key(value: Any) -> Any:
    """Return an id, an integer or a text; None for another value."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, (int, str)) and not isinstance(value, bool) else None


def _mask(value: Any, where: str) -> Polygons | RunLengths | None:
    if value is None or value == []:
        return None
    if isinstance(value, list):
        return Polygons([polygon(ring, where) for ring in value])
    if not isinstance(value, dict):
        raise ValueError(f"{where}: expected polygons or a run-length code, got {value!r}")
    size, counts = finite(value.get("size"), f"{where}: size", 2), value.get("counts")
    if isinstance(counts, list):
        counts = [int(count) for count in finite(counts, f"{where}: counts")]
    mask = RunLengths((int(size[0]), int(size[1])), counts)  # type: ignore[arg-type]
    masks.check_run_lengths(mask, where)
    return mask

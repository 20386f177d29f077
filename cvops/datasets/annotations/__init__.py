"""Annotations of a user's images: one module for each format, one record for all.

A reader has a function ``read`` of the source, the images and the options; it returns
:class:`Annotations`. Boxes are in pixels of the upright image: see ``cvops.images``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from cvops.datasets.annotations import coco, csv_table, labelme, voc, yolo
from cvops.datasets.annotations.base import (
    IMAGE_SUFFIXES,
    PROBLEMS,
    AnnotatedImage,
    Annotations,
    ImageFiles,
    Object,
    Problem,
    Request,
    visible_files,
)
from cvops.ops._check import choice

__all__ = [
    "FORMATS",
    "PROBLEMS",
    "AnnotatedImage",
    "Annotations",
    "Object",
    "Problem",
    "Request",
    "find_format",
    "read_annotations",
]

#: The readers by the names of their formats.
FORMATS = {"voc": voc, "coco": coco, "yolo": yolo, "labelme": labelme, "csv": csv_table}

#: The format of a JSON file is that of the first ones of a folder.
_JSON_FILES = 20


def find_format(source: str | Path) -> str:
    """Return the format of the annotations in a file or a folder, a key of ``FORMATS``.

    Raises:
        FileNotFoundError: there is no such file or folder.
        ValueError: the source has no annotations, or those of several formats.
    """
    source = Path(source)
    if not source.exists():
        raise FileNotFoundError(f"{source}: no such file or folder")
    paths = list(visible_files(source)) if source.is_dir() else [source]
    by_suffix: dict[str, list[Path]] = {}
    for path in paths:
        by_suffix.setdefault(path.suffix.lower(), []).append(path)
    found = {_json_format(path) for path in by_suffix.get(".json", [])[:_JSON_FILES]} - {None}
    labels = (path.parent.name == "SegmentationClass" for path in by_suffix.get(".png", []))
    if ".xml" in by_suffix or any(labels):
        found.add("voc")
    if _is_yolo(source, by_suffix):
        found.add("yolo")
    # Other formats come with tables and texts of other contents.
    if ".csv" in by_suffix and not found:
        found.add("csv")
    if not found and _has_labels(by_suffix):
        found.add("yolo")
    if not found:
        raise ValueError(
            f"{source}: expected VOC XML, COCO or LabelMe JSON, YOLO text with data.yaml, "
            "classes.txt or obj.names, or a CSV table, got none of these"
        )
    if len(found) > 1:
        names = sorted(map(str, found))
        raise ValueError(f"{source}: expected one format, got {names}; --format chooses one")
    return str(found.pop())


def _json_format(path: Path) -> str | None:
    try:
        content = path.read_bytes()
    except OSError:
        return None
    if b'"shapes"' in content and b'"categories"' not in content:
        return "labelme"
    return "coco" if b'"images"' in content and b'"annotations"' in content else None


def _is_yolo(source: Path, by_suffix: dict[str, list[Path]]) -> bool:
    texts = [*by_suffix.get(".txt", []), *by_suffix.get(".names", [])]
    yamls = [*by_suffix.get(".yaml", []), *by_suffix.get(".yml", [])]
    return (
        any(path.name in yolo.NAME_FILES for path in texts)
        or any("labels" in (source.name, *path.relative_to(source).parts) for path in texts)
        or any(path.parent == source or path == source for path in yamls)
    )


def _has_labels(by_suffix: Mapping[str, Sequence[Path]]) -> bool:
    """Return True if a text has the name of an image, and the form of a label of YOLO."""
    named = {
        path.with_suffix("") for suffix in IMAGE_SUFFIXES for path in by_suffix.get(suffix, [])
    }
    texts = by_suffix.get(".txt", [])
    return any(path.with_suffix("") in named and yolo.is_label(path) for path in texts)


def read_annotations(
    source: str | Path,
    format: str | None = None,
    *,
    classes: tuple[str, ...] | None = None,
    kind: str | None = None,
    images: str | Path | None = None,
) -> tuple[str, Annotations]:
    """Read the annotations of a source, and return the format and the annotations.

    Args:
        source: file or folder.
        format: a key of ``FORMATS``; None to find it.
        classes: names of the classes for YOLO text without a file of names.
        kind: kind of the set; it chooses between the lists of a VOC tree.
        images: folder of the images; by default that of the annotations.

    Raises:
        FileNotFoundError: the source or the folder of the images is missing.
        ValueError: the format is not found, or the source as a whole cannot be read. Faults of one
            file are in the ``problems`` of the result.
    """
    source = Path(source)
    found = find_format(source) if format is None else choice("format", format, tuple(FORMATS))
    if not source.exists():
        raise FileNotFoundError(f"{source}: no such file or folder")
    if images is not None and not Path(images).is_dir():
        raise FileNotFoundError(f"{images}: no such folder")
    files = ImageFiles(source, None if images is None else Path(images))
    annotations = FORMATS[found].read(source, files, Request(classes, kind))
    errors = [problem for problem in annotations.problems if PROBLEMS[problem.kind].is_error]
    if not annotations.images and not errors:
        raise ValueError(
            f"{source}: expected images with annotations of the format {found}, got none"
        )
    return found, annotations

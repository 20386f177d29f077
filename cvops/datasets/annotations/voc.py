"""VOC trees: ``Annotations/<name>.xml``, ``JPEGImages``, ``ImageSets``, ``SegmentationObject``.

Corners are numbers of pixels from 1 on, and inclusive: a box of VOC from xmin to xmax has x1 =
xmin - 1 and x2 = xmax. ``difficult`` is the flag of this name. The XML files may be in any folder.
For segmentation the labels are those of ``SegmentationClass``, if the tree has them.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cvops.datasets.annotations.base import (
    AnnotatedImage,
    Annotations,
    ImageFiles,
    Object,
    Problem,
    Request,
    files_with_suffix,
    folder_split,
    read_text,
    unused,
)
from cvops.datasets.voc import read_class_label
from cvops.datasets.voc_annotations import VOCAnnotation, read_voc_file
from cvops.datasets.voc_instances import numbers_of, read_instance_label, tight_box
from cvops.datasets.voc_labels import VOC_CLASSES, VOC_PALETTE, VOC_VOID


def read(source: Path, files: ImageFiles, request: Request) -> Annotations:
    """Read all annotations; the lists of ``ImageSets`` choose the images and their splits.

    The lists are those of ``Main`` for boxes and those of ``Segmentation`` for masks. If there are
    none, the others are used.

    Raises:
        ValueError: a list is no text, or there are labels for segmentation alone.
    """
    paths, trees = files_with_suffix(source, ".xml"), _trees_of_classes(source)
    if trees and request.kind == "segmentation":
        return _read_classes(trees, files, request)
    if trees and not paths:
        raise ValueError(
            f"{source}: expected annotations in XML, got labels of SegmentationClass alone, which "
            "are for --kind segmentation"
        )
    images: list[AnnotatedImage] = []
    problems: list[Problem] = []
    lists: dict[Path, dict[str, str | None]] = {}
    missing: dict[Path, dict[str, None]] = {}
    for path in paths:
        tree = path.parent.parent if path.parent.name == "Annotations" else path.parent
        if tree not in lists:
            lists[tree] = _splits(tree, request)
            missing[tree] = dict.fromkeys(lists[tree])
        listed = lists[tree]
        missing[tree].pop(path.stem, None)
        if listed and path.stem not in listed:
            continue
        image, problem = _image(path, tree, files)
        if image is not None:
            split = listed.get(path.stem) if listed else folder_split(path, files.root)
            images.append(image._replace(split=split))
        if problem is not None:
            problems.append(problem)
    for tree, names in missing.items():
        folder = tree / "Annotations"
        problems += [
            _no_file("annotation cannot be read", folder / f"{name}.xml") for name in names
        ]
    if not any(lists.values()):
        problems += unused(files, images, problems)
    return Annotations(images, problems)


def _no_file(kind: str, path: Path) -> Problem:
    return Problem(kind, str(path), f"{path}: no such file, but a list of ImageSets has it")


def _splits(tree: Path, request: Request) -> dict[str, str | None]:
    """Return the split of each listed name; empty if the tree has no lists."""
    order = ["Main", "Segmentation"]
    if request.kind in ("instances", "segmentation"):
        order.reverse()
    for folder in (tree / "ImageSets" / name for name in order):
        lists = {name: folder / f"{name}.txt" for name in ("test", "val", "train")}
        if not any(lists[name].is_file() for name in ("train", "val")):
            lists = {"": folder / "trainval.txt"}
        listed: dict[str, str | None] = {}
        for split, path in lists.items():
            if path.is_file():
                # A line has a name; the lists of one class also have -1, 0 or 1.
                lines = (line.strip() for line in read_text(path).splitlines())
                names = (re.sub(r"\s+-?[01]$", "", line) for line in lines if line)
                listed |= dict.fromkeys(names, split or None)
        if listed:
            return listed
    return {}


def _image(
    path: Path, tree: Path, files: ImageFiles
) -> tuple[AnnotatedImage | None, Problem | None]:
    try:
        found = read_voc_file(path)
    except (OSError, ValueError) as error:
        return None, Problem("annotation cannot be read", str(path), str(error))
    try:
        image = _file(found, path, tree, files)
    except (OSError, ValueError) as error:
        return None, Problem("image is missing", str(path), f"{path}: {error}")
    objects = [Object(thing.name, thing.box, thing.difficult) for thing in found.objects]
    label = tree / "SegmentationObject" / f"{path.stem}.png"
    boxes = [thing.box for thing in objects]
    numbers = functools.partial(_object_numbers, label, boxes) if label.is_file() else None
    return AnnotatedImage(image, objects, str(path), None, found.size, numbers), None


def _object_numbers(path: Path, boxes: Sequence[Sequence[float]]) -> np.ndarray:
    """Return the number of each pixel's object: the place of its box."""
    label = read_instance_label(path)
    table = np.zeros(VOC_VOID + 1, np.uint8)
    for place, number in enumerate(numbers_of(boxes, label), 1):
        table[number] = place
    table[[0, VOC_VOID]] = 0, VOC_VOID
    return table[label]


def _file(found: VOCAnnotation, path: Path, tree: Path, files: ImageFiles) -> Path:
    """Return the image: that of ``filename``, or that with the name of the annotation."""
    folders = tree / "JPEGImages", path.parent
    if found.filename:
        try:
            return files.find(found.filename, *folders)
        except (OSError, ValueError):
            pass
    return files.find_stem(path.stem, *folders)


# --- labels of classes ----------------------------------------------------------------------------


def _trees_of_classes(source: Path) -> list[Path]:
    """Return the folders with a folder ``SegmentationClass``."""
    labels = files_with_suffix(source, ".png") if source.is_dir() else []
    folders = (path.parent for path in labels if path.parent.name == "SegmentationClass")
    return list(dict.fromkeys(folder.parent for folder in folders))


class _Palette(NamedTuple):
    """The classes of a label."""

    #: The name of each index; that of the background is None.
    names: list[str | None]
    #: uint8 (n, 3): the color of each index.
    colors: np.ndarray


def _palette(tree: Path, request: Request) -> _Palette:
    """Return the classes of a tree: those of its list, those asked for, or VOC's.

    CVAT writes the list ``labelmap.txt`` (name:r,g,b), LabelMe ``class_names.txt``.

    Raises:
        ValueError: a list has another form.
    """
    colored, plain = tree / "labelmap.txt", tree / "class_names.txt"
    if colored.is_file():
        names, colors = [], []
        for line in read_text(colored).splitlines():
            if line.strip() and not line.startswith("#"):
                match = re.match(r"([^:]+):(\d+),(\d+),(\d+)(:|$)", line.strip())
                if match is None or max(map(int, match.group(2, 3, 4))) > 255:
                    raise ValueError(f"{colored}: expected lines name:r,g,b, got {line!r}")
                names.append(match[1])
                colors.append([int(value) for value in match.group(2, 3, 4)])
        return _Palette([_foreground(name) for name in names], np.array(colors, np.uint8))
    if plain.is_file():
        names = [line.strip() for line in read_text(plain).splitlines() if line.strip()]
        names = [name for name in names if name != "__ignore__"]
    elif request.classes:
        names = ["background", *request.classes]
    else:
        names = list(VOC_CLASSES)
    return _Palette([_foreground(name) for name in names], VOC_PALETTE[: len(names)])


def _foreground(name: str) -> str | None:
    return None if name.strip("_").lower() == "background" else name


def _read_classes(trees: list[Path], files: ImageFiles, request: Request) -> Annotations:
    """Read the labels of ``SegmentationClass``: an object is all pixels of a class."""
    images: list[AnnotatedImage] = []
    problems: list[Problem] = []
    classes: dict[str, None] = {}
    for tree in trees:
        palette, listed = _palette(tree, request), _splits(tree, request)
        classes |= dict.fromkeys(name for name in palette.names if name is not None)
        labels = sorted((tree / "SegmentationClass").glob("*.png"))
        have = {path.stem for path in labels}
        problems += [
            _no_file("mask cannot be read", tree / "SegmentationClass" / f"{name}.png")
            for name in listed
            if name not in have
        ]
        for path in labels:
            if listed and path.stem not in listed:
                continue
            try:
                image = files.find_stem(path.stem, tree / "JPEGImages")
            except (OSError, ValueError) as error:
                problems.append(Problem("image is missing", str(path), f"{path}: {error}"))
                continue
            try:
                indices = read_class_label(path, palette.colors)
            except (OSError, ValueError) as error:
                problems.append(Problem("mask cannot be read", str(path), str(error)))
                continue
            regions = [(k, palette.names[k]) for k in np.unique(indices) if k != VOC_VOID]
            kept = {int(k): name for k, name in regions if name is not None}
            objects = [Object(name, tight_box(indices == k)) for k, name in kept.items()]
            numbers = functools.partial(_class_numbers, path, palette.colors, list(kept))
            split = listed.get(path.stem) if listed else folder_split(path, files.root)
            images.append(AnnotatedImage(image, objects, str(path), split, None, numbers))
    return Annotations(images, problems, list(classes))


def _class_numbers(path: Path, colors: np.ndarray, indices: list[int]) -> np.ndarray:
    """Return the place of each pixel's class in ``indices``, from 1 on."""
    table = np.zeros(VOC_VOID + 1, np.uint8)
    table[indices] = range(1, len(indices) + 1)
    table[VOC_VOID] = VOC_VOID
    return table[read_class_label(path, colors)]

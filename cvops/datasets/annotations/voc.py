"""VOC trees: ``Annotations/<name>.xml``, ``JPEGImages``, ``ImageSets``, ``SegmentationObject``.

Corners are numbers of pixels from 1 on, and inclusive: a box of VOC from xmin to xmax has x1 =
xmin - 1 and x2 = xmax. ``difficult`` is the flag of this name. The XML files may be in any folder.
"""

from __future__ import annotations

from pathlib import Path

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
)
from cvops.datasets.voc_annotations import VOCAnnotation, read_voc_file

NAME = "VOC XML"


def read(source: Path, files: ImageFiles, request: Request) -> Annotations:
    """Read all annotations; the lists of ``ImageSets`` choose the images and their splits.

    The lists are those of ``Main`` for boxes and those of ``Segmentation`` for masks. If there are
    none, the others are used.
    """
    images: list[AnnotatedImage] = []
    problems: list[Problem] = []
    used: set[Path] = set()
    lists: dict[Path, dict[str, str | None]] = {}
    for path in files_with_suffix(source, ".xml"):
        tree = path.parent.parent if path.parent.name == "Annotations" else path.parent
        if tree not in lists:
            lists[tree] = _splits(tree, request)
        listed = lists[tree]
        image, problem = _image(path, tree, files)
        if image is not None:
            used.add(image.image)
            split = listed.get(path.stem) if listed else folder_split(path, files.root)
            image = image._replace(split=split)
        if listed and path.stem not in listed:
            continue  # neither the image nor its faults are asked for
        if image is not None:
            images.append(image)
        if problem is not None:
            problems.append(problem)
    for tree, listed in lists.items():
        have = {path.stem for path in (tree / "Annotations").glob("*.xml")}
        problems += [
            Problem("annotation cannot be read", f"{tree / 'Annotations' / name}.xml", "no file")
            for name in listed
            if name not in have
        ]
    if not any(lists.values()):
        rest = (path for path in files.files if path not in used)
        problems += [Problem("image without an annotation", str(path)) for path in rest]
    return Annotations(images, problems)


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
                # A line has a name; the lists of one class also have 1 or -1.
                names = (line.split()[0] for line in read_text(path).splitlines() if line.strip())
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
        return None, Problem("image is missing", str(path), str(error))
    objects = [Object(thing.name, thing.box, thing.difficult) for thing in found.objects]
    label = tree / "SegmentationObject" / f"{path.stem}.png"
    kept = label if label.is_file() else None
    return AnnotatedImage(image, objects, str(path), None, found.size, kept), None


def _file(found: VOCAnnotation, path: Path, tree: Path, files: ImageFiles) -> Path:
    """Return the image: that of ``filename``, or that with the name of the annotation."""
    folders = tree / "JPEGImages", path.parent
    if found.filename:
        try:
            return files.find(found.filename, *folders)
        except (OSError, ValueError):
            pass
    return files.find_stem(path.stem, *folders)

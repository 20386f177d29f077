"""LabelMe JSON: a file for each image, with shapes.

Points are (x, y) in pixels from the left upper corner. A rectangle has two opposite corners, an
oriented one all four, and its box is around them; a polygon and a circle have masks too. A mask has
its first and its last pixel, and a PNG file of the pixels between them; those beyond the border of
the image are cut. Shapes of one label and one ``group_id`` are one object, with the union of their
masks; it has none if one of them is a rectangle. A flag ``difficult`` of a shape is that of the
object. The classes are in the order of their names.
"""

from __future__ import annotations

import base64
import io
import math
import reprlib
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import numpy as np

from cvops._pillow import Image
from cvops.datasets.annotations import masks
from cvops.datasets.annotations.base import (
    AnnotatedImage,
    Annotations,
    ImageFiles,
    Masks,
    Object,
    Polygons,
    Problem,
    Request,
    RunLengths,
    box_of,
    files_with_suffix,
    finite,
    folder_split,
    read_json,
    size_of,
    unused,
)

#: The kinds of shapes that are boxes, with their numbers of points.
_RECTANGLES = (("rectangle", 2), ("rectangle", 4), ("oriented_rectangle", 4))
#: The pixels of an image with a mask are fewer; pycocotools has lengths of 32 bits.
_MOST_PIXELS = 2**32
#: Corners of the polygon of a circle.
_CORNERS = 48


def read(source: Path, files: ImageFiles, request: Request) -> Annotations:
    """Read all JSON files."""
    images: list[AnnotatedImage] = []
    problems: list[Problem] = []
    for path in files_with_suffix(source, ".json"):
        try:
            content = read_json(path)
            objects = _objects(content, path)
        except ValueError as error:
            problems.append(Problem("annotation cannot be read", str(path), str(error)))
            continue
        try:
            image = _image(content, path, files)
        except (OSError, ValueError) as error:
            problems.append(Problem("image is missing", str(path), f"{path}: {error}"))
            continue
        size = size_of(content.get("imageHeight"), content.get("imageWidth"))
        split = folder_split(path, source)
        images.append(AnnotatedImage(image, objects, str(path), split, size))
    return Annotations(images, problems + unused(files, images, problems))


def _image(content: dict[str, Any], path: Path, files: ImageFiles) -> Path:
    """Return the image: that of ``imagePath``, or that with the name of the JSON file."""
    name = content.get("imagePath")
    if isinstance(name, str) and name:
        try:
            return files.find(name, path.parent)
        except (OSError, ValueError):
            pass
    return files.find_stem(path.stem, path.parent)


def _objects(content: Any, path: Path) -> list[Object]:
    shapes = content.get("shapes") if isinstance(content, dict) else None
    if not isinstance(shapes, list):
        raise ValueError(f"{path}: expected a list 'shapes', as LabelMe has it")
    size = size_of(content.get("imageHeight"), content.get("imageWidth"))
    groups: dict[Hashable, list[Object]] = {}
    for number, shape in enumerate(shapes):
        where = f"{path}: shape {number}"
        if not isinstance(shape, dict):
            raise ValueError(f"{where}: expected an object, got {reprlib.repr(shape)}")
        thing, group = _object(shape, size, where), shape.get("group_id")
        key = (thing.name, str(group)) if group is not None else number
        groups.setdefault(key, []).append(thing)
    return [_union(things) for things in groups.values()]


def _object(shape: dict[str, Any], size: tuple[int, int] | None, where: str) -> Object:
    name, kind = shape.get("label"), shape.get("shape_type") or "polygon"
    if not isinstance(name, str) or not name.strip():
        raise ValueError(f"{where}: expected a label, got {reprlib.repr(name)}")
    points = shape.get("points")
    if not isinstance(points, list):
        raise ValueError(f"{where}: expected points, got {reprlib.repr(points)}")
    corners = [finite(point, where, 2) for point in points]
    flags = shape.get("flags")
    difficult = bool(isinstance(flags, dict) and flags.get("difficult"))
    if (kind, len(corners)) in _RECTANGLES:
        box = box_of([[v for corner in corners for v in corner]])
        return Object(name.strip(), box, difficult)
    if kind == "mask" and len(corners) == 2:
        mask, box = _mask(shape.get("mask"), corners[0], size, where)
        return Object(name.strip(), box, difficult, mask)
    if kind == "circle" and len(corners) == 2:
        ring = _circle(*corners)
    elif kind == "polygon" and len(corners) >= 3:
        ring = [v for corner in corners for v in corner]
    else:
        raise ValueError(
            f"{where}: expected a rectangle, a circle or a mask of 2 points, or a polygon of 3 or "
            f"more, got {kind!r} of {len(corners)}"
        )
    return Object(name.strip(), box_of([ring]), difficult, Polygons([ring]))


def _mask(
    text: Any, corner: list[float], size: tuple[int, int] | None, where: str
) -> tuple[RunLengths, tuple[float, float, float, float]]:
    """Return the pixels of a mask in the image, and the box of all of its pixels.

    ``corner`` is the place of the first pixel of the PNG file. LabelMe, too, cuts its fraction off.
    """
    if size is None or math.prod(size) >= _MOST_PIXELS:
        got = "none" if size is None else "{} and {}".format(*size)
        raise ValueError(f"{where}: expected imageHeight and imageWidth with a mask, got {got}")
    if not isinstance(text, str):
        raise ValueError(f"{where}: expected a mask in base64, got {reprlib.repr(text)}")
    try:
        picture = Image.open(io.BytesIO(base64.b64decode(text, validate=True)), formats=["PNG"])
        pixels = np.asarray(picture if len(picture.getbands()) == 1 else picture.convert("L")) > 0
    except Exception as error:  # Pillow's readers raise many types for damaged files
        fault = str(error).partition(" <")[0]  # without the address of the bytes
        raise ValueError(f"{where}: expected a PNG file as its mask: {fault}") from error
    (height, width), (x, y) = pixels.shape, map(int, corner)
    return masks.run_lengths(pixels, (y, x), size), (x, y, x + width, y + height)


def _circle(center: list[float], edge: list[float]) -> list[float]:
    """Return the corners of a circle around ``center`` through ``edge``."""
    radius = math.dist(center, edge)
    angles = [2 * math.pi * i / _CORNERS for i in range(_CORNERS)]
    turns = ((math.cos(angle), math.sin(angle)) for angle in angles)
    return [v for x, y in turns for v in (center[0] + radius * x, center[1] + radius * y)]


def _union(things: list[Object]) -> Object:
    """Return one object with the box around those of ``things``, and the union of their masks."""
    if len(things) == 1:
        return things[0]
    box = box_of([list(thing.box) for thing in things])
    difficult = any(thing.difficult for thing in things)
    if not all(thing.mask for thing in things):
        return Object(things[0].name, box, difficult)
    rings = [ring for x in things if isinstance(x.mask, Polygons) for ring in x.mask.rings]
    pixels = [x.mask for x in things if isinstance(x.mask, RunLengths)]
    mask = Masks(pixels + [Polygons(rings)] * bool(rings)) if pixels else Polygons(rings)
    return Object(things[0].name, box, difficult, mask)

"""VOC's annotations of objects, ``Annotations/<name>.xml``: reader and writer."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree
from xml.parsers import expat

from cvops._files import check_regular

_CORNERS = ("xmin", "ymin", "xmax", "ymax")


class VOCObject(NamedTuple):
    """One object of an annotation."""

    #: Name of the class, as in the file: VOC writes "pottedplant" and "tvmonitor".
    name: str
    #: Corners (x1, y1, x2, y2) in pixels from the left upper corner; x2 and y2 are exclusive.
    box: tuple[float, float, float, float]
    #: True if VOC's evaluation ignores the object.
    difficult: bool = False
    #: True if the box has only a part of the object.
    truncated: bool = False


class VOCAnnotation(NamedTuple):
    """The content of an annotation file."""

    #: Name of the image file; "" if the file has none.
    filename: str
    #: Height and width in pixels; None if the file has none, or zeros.
    size: tuple[int, int] | None
    objects: list[VOCObject]


def read_voc_annotation(path: str | Path) -> list[VOCObject]:
    """Read the objects of an annotation file, in the order of the file.

    VOC's corners are numbers of pixels from 1 on, and inclusive. A missing flag is 0. The boxes of
    an object's parts are ignored.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not VOC's XML, declares entities, or an object has no name, no box,
            an empty box, or a flag that is not 0 or 1. The message names the file and the object.
    """
    return read_voc_file(path).objects


def read_voc_file(path: str | Path) -> VOCAnnotation:
    """Read a whole annotation file.

    Raises:
        As :func:`read_voc_annotation`; and ValueError for a size that is not two whole numbers.
    """
    try:
        check_regular(Path(path))
        root = _parsed(Path(path).read_bytes())
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path}: no such file") from error
    except (ElementTree.ParseError, expat.ExpatError, LookupError, ValueError) as error:
        raise ValueError(f"{path}: not an XML file: {error}") from error
    if root.tag != "annotation":
        raise ValueError(f"{path}: expected VOC's element <annotation>, got <{root.tag}>")
    objects = [
        _object(element, f"{path}: object {number}")
        for number, element in enumerate(root.findall("object"))
    ]
    return VOCAnnotation((root.findtext("filename") or "").strip(), _size(root, path), objects)


def _size(root: ElementTree.Element, path: str | Path) -> tuple[int, int] | None:
    texts = [root.findtext(f"size/{side}") or "0" for side in ("height", "width")]
    try:
        height, width = (int(float(text)) for text in texts)
    except (OverflowError, ValueError) as error:
        got = reprlib.repr(texts)
        raise ValueError(f"{path}: expected a <size> in pixels, got {got}") from error
    return (height, width) if height > 0 and width > 0 else None


def _parsed(content: bytes) -> ElementTree.Element:
    """Return the root element; refuse entities, whose expansion has no limit in older parsers."""
    parser = expat.ParserCreate()
    parser.EntityDeclHandler = _refuse_entity
    parser.Parse(content, True)
    return ElementTree.fromstring(content)


def _refuse_entity(name: str, *_: Any) -> None:
    raise ValueError(f"expected no entities, got <!ENTITY {name}>")


def _object(element: ElementTree.Element, where: str) -> VOCObject:
    name = (element.findtext("name") or "").strip()
    if not name:
        raise ValueError(f"{where}: expected a <name>, got none")
    texts = [element.findtext(f"bndbox/{corner}") for corner in _CORNERS]
    try:
        corners = [float(text) for text in texts if text is not None]
    except ValueError:
        corners = []
    finite = len(corners) == 4 and all(map(math.isfinite, corners))
    if not (finite and corners[0] <= corners[2] and corners[1] <= corners[3]):
        raise ValueError(
            f"{where}: expected a <bndbox> of {', '.join(_CORNERS)}, got {reprlib.repr(texts)}"
        )
    x1, y1, x2, y2 = corners
    flags = [_flag(element, flag, where) for flag in ("difficult", "truncated")]
    return VOCObject(name, (x1 - 1, y1 - 1, x2, y2), *flags)


def _flag(element: ElementTree.Element, flag: str, where: str) -> bool:
    text = (element.findtext(flag) or "0").strip()
    if text not in ("0", "1"):
        raise ValueError(f"{where}: expected a <{flag}> of 0 or 1, got {reprlib.repr(text)}")
    return text == "1"


def write_voc_annotation(
    path: str | Path, size: tuple[int, int], objects: Sequence[VOCObject]
) -> None:
    """Write the annotation of the image of height and width ``size``.

    The corners in the file are rounded to whole pixels.
    """
    path = Path(path)
    root = ElementTree.Element("annotation")

    def add(parent: ElementTree.Element, tag: str, text: object = None) -> ElementTree.Element:
        element = ElementTree.SubElement(parent, tag)
        element.text = None if text is None else str(text)
        return element

    add(root, "folder", "VOC2012")
    add(root, "filename", f"{path.stem}.jpg")
    pixels = add(root, "size")
    for tag, length in zip(("width", "height", "depth"), (size[1], size[0], 3)):
        add(pixels, tag, length)
    add(root, "segmented", 1)
    for thing in objects:
        element = add(root, "object")
        add(element, "name", thing.name)
        add(element, "pose", "Unspecified")
        add(element, "truncated", int(thing.truncated))
        add(element, "difficult", int(thing.difficult))
        box = add(element, "bndbox")
        x1, y1, x2, y2 = map(round, thing.box)
        for corner, position in zip(_CORNERS, (x1 + 1, y1 + 1, x2, y2)):
            add(box, corner, position)
    ElementTree.indent(root, "\t")
    path.write_bytes(ElementTree.tostring(root) + b"\n")

"""Masks of objects as pixels, by pycocotools."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from cvops._imports import optional
from cvops._pillow import Image
from cvops.datasets.annotations.base import AnnotatedImage, Masks, Object, Polygons, RunLengths
from cvops.datasets.voc_labels import VOC_VOID

#: The largest number of objects that a label of pixels can have.
MOST = VOC_VOID - 1


def check_pycocotools() -> None:
    """Raise a ModuleNotFoundError if masks cannot be drawn."""
    _pycocotools()


def _pycocotools() -> Any:
    with optional():
        from pycocotools import mask
    return mask


def _lengths(text: str) -> list[int]:
    """Return the lengths of COCO's text, or [] if it is damaged.

    A length has 5 bits a character, the lowest ones first; bit 5 means that more follow, and bit 4
    of the last character is the sign. From the fourth length on it is the difference to the length
    two before.
    """
    lengths: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 60:
            return []
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        lengths.append(value + (lengths[-2] if len(lengths) > 2 else 0))
        value = shift = 0
    return [] if shift else lengths


def check_run_lengths(mask: RunLengths, where: str) -> None:
    """Raise a ValueError if the lengths are not those of all pixels.

    pycocotools leaves the pixels behind the last length as they are in memory.
    """
    height, width = mask.size
    lengths = _lengths(mask.counts) if isinstance(mask.counts, str) else mask.counts
    valid = isinstance(lengths, list) and height > 0 and width > 0 and min(lengths, default=-1) >= 0
    if not valid or sum(lengths) != height * width:
        raise ValueError(f"{where}: expected the lengths of {height} x {width} pixels, got others")


def is_empty(mask: Polygons | RunLengths) -> bool:
    """Report if a mask is a run-length code without a pixel."""
    if isinstance(mask, Polygons):
        return False
    lengths = _lengths(mask.counts) if isinstance(mask.counts, str) else mask.counts
    return not any(lengths[1::2])


def run_lengths(pixels: np.ndarray, corner: tuple[int, int], size: tuple[int, int]) -> RunLengths:
    """Return a mask as a run-length code. Its memory is that of the mask, not of the image.

    Args:
        pixels: a part of the mask, bool (h, w); the rest is False.
        corner: row and column of the first pixel, of any sign. Pixels beyond the image are cut.
        size: height and width of the image.
    """
    (top, left), (height, width) = corner, size
    pixels = pixels[max(-top, 0) : max(height - top, 0), max(-left, 0) : max(width - left, 0)]
    top, left = min(max(top, 0), height), min(max(left, 0), width)
    padded = np.pad(pixels, ((1, 1), (0, 0)))
    columns, rows = np.nonzero((padded[1:] != padded[:-1]).T)
    # A run that continues in the next column ends and begins at the same place.
    places, times = np.unique((left + columns) * height + top + rows, return_counts=True)
    inner = (times == 1) & (places < height * width)
    return RunLengths(size, np.diff([0, *places[inner], height * width]).tolist())


def box(mask: RunLengths) -> tuple[float, float, float, float]:
    """Return the corners of the smallest box around the pixels of a mask, in pixels."""
    x, y, width, height = _pycocotools().toBbox(_encoded(mask)).tolist()
    return x, y, x + width, y + height


def _encoded(mask: RunLengths) -> Any:
    height, width = mask.size
    code = {"size": [height, width], "counts": mask.counts}
    if isinstance(mask.counts, str):
        return code
    return _pycocotools().frPyObjects(code, height, width)


def render(
    mask: Polygons | RunLengths | Masks, size: tuple[int, int], given: tuple[int, int]
) -> np.ndarray:
    """Return a mask as bool (height, width) of ``size``. ``given`` is the size of the polygons."""
    if isinstance(mask, Masks):
        return np.logical_or.reduce([render(part, size, given) for part in mask.parts])
    coco = _pycocotools()
    if isinstance(mask, RunLengths):
        return resize(coco.decode(_encoded(mask)), size) > 0
    scale = np.array([size[1] / given[1], size[0] / given[0]])
    rings = [(np.reshape(ring, (-1, 2)) * scale).ravel().tolist() for ring in mask.rings]
    return coco.decode(coco.merge(coco.frPyObjects(rings, *size))) > 0


def resize(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return the nearest pixels of a label, (height, width) of ``size``."""
    if pixels.shape == size:
        return pixels
    picture = Image.fromarray(pixels.astype(np.uint8))
    return np.asarray(picture.resize(size[::-1], Image.Resampling.NEAREST))


def numbers(
    image: AnnotatedImage, places: Sequence[int], size: tuple[int, int], given: tuple[int, int]
) -> np.ndarray:
    """Return the number of each pixel's object, uint8 (height, width), for ``Example``.

    A pixel of several objects belongs to the smallest one, and to a difficult one last.

    Args:
        image: the image.
        places: n of its objects, whose numbers are 1 to n; at most ``MOST``.
        size: height and width of the result.
        given: height and width of the image file.
    """
    if image.numbers is not None:
        table = np.zeros(256, np.uint8)
        for number, place in enumerate(places, 1):
            table[place + 1] = number
        table[VOC_VOID] = VOC_VOID
        return resize(table[image.numbers()], size)
    result = np.zeros(size, np.uint8)
    for number in sorted(range(len(places)), key=lambda i: _order(image.objects[places[i]])):
        mask = image.objects[places[number]].mask
        if mask is not None:
            result[render(mask, size, given)] = number + 1
    return result


def _order(thing: Object) -> tuple[bool, float]:
    x1, y1, x2, y2 = thing.box
    return not thing.difficult, -(x2 - x1) * (y2 - y1)

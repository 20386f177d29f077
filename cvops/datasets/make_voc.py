"""Made data sets in the layout of VOC2012: drawn animals on real photographs."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Callable, NamedTuple

import numpy as np

from cvops._pillow import Image, ImageChops, ImageFilter
from cvops.datasets import drawing, scenes
from cvops.datasets.voc_annotations import VOCObject, write_voc_annotation
from cvops.datasets.voc_labels import VOC_CLASSES, VOC_PALETTE, VOC_VOID
from cvops.ops._check import integer, integers


def _bird(pen: drawing.Pen) -> None:
    pen.stroke((0.45, 0.8), (0.43, 0.97), fill="#d97706", line=0.035)
    pen.stroke((0.57, 0.8), (0.59, 0.97), fill="#d97706", line=0.035)
    pen.stroke((0.2, 0.62), (0.03, 0.42), fill="#1e5fae", line=0.13)
    pen.stroke((0.83, 0.32), (0.98, 0.37), fill="#f59e0b", line=0.08)
    pen.oval(0.48, 0.6, 0.34, 0.27, "#2f80d8", 0.015)
    pen.oval(0.7, 0.3, 0.2, 0.19, "#2f80d8")
    pen.oval(0.6, 0.68, 0.2, 0.14, "#dbeafe")
    pen.oval(0.38, 0.56, 0.19, 0.12, "#1e5fae")
    pen.oval(0.75, 0.26, 0.055, 0.055, "#ffffff")
    pen.oval(0.76, 0.26, 0.03, 0.035, "#20242b")


def _cat(pen: drawing.Pen) -> None:
    for x, tip in ((0.22, 0.14), (0.78, 0.86)):
        pen.stroke((x, 0.42), (tip, 0.1), fill="#e08a3c", line=0.2)
        pen.stroke((x, 0.4), (tip + 0.3 * (x - tip), 0.18), fill="#f4b6a6", line=0.07)
    pen.oval(0.5, 0.57, 0.43, 0.38, "#e08a3c", 0.015)
    for x in (0.4, 0.5, 0.6):
        pen.stroke((x, 0.22), (x, 0.34), fill="#a85a1c", line=0.035)
    for x in (0.34, 0.66):
        pen.oval(x, 0.52, 0.085, 0.1, "#d8f3b0", 0.012)
        pen.oval(x, 0.52, 0.028, 0.085, "#20242b")
    pen.oval(0.5, 0.73, 0.19, 0.13, "#fbe7d2")
    pen.oval(0.5, 0.67, 0.045, 0.03, "#d9605a")
    pen.smile(0.5, 0.7, 0.09, 0.022)


def _sheep(pen: drawing.Pen) -> None:
    for x in (0.34, 0.68):
        pen.stroke((x, 0.7), (x, 0.97), fill="#3a3531", line=0.085)
    for turn in range(9):
        angle = 2 * math.pi * turn / 9
        pen.oval(0.5 + 0.3 * math.cos(angle), 0.5 + 0.2 * math.sin(angle), 0.15, 0.15, "#f3efe6")
    pen.oval(0.5, 0.5, 0.33, 0.24, "#f3efe6")
    pen.oval(0.2, 0.4, 0.16, 0.2, "#3a3531")
    pen.oval(0.36, 0.33, 0.09, 0.05, "#3a3531")
    for x in (0.14, 0.24):
        pen.oval(x, 0.36, 0.035, 0.045, "#ffffff")
        pen.oval(x, 0.37, 0.018, 0.025, "#20242b")


#: Drawing function of each class in the scenes of ``make_voc``.
FIGURES = {"bird": _bird, "cat": _cat, "sheep": _sheep}


#: An object of which less than this fraction is visible is difficult.
_VISIBLE = 0.25


class _Scene(NamedTuple):
    """An image and its labels, palette images."""

    image: Image.Image
    #: ``SegmentationClass``; None if the classes are not VOC's.
    classes: Image.Image | None
    #: ``SegmentationObject``.
    numbers: Image.Image
    objects: list[VOCObject]


def _palette_image(size: tuple[int, int]) -> Image.Image:
    image = Image.new("P", size)
    image.putpalette(VOC_PALETTE.tobytes())
    return image


def _scene(photo: Image.Image, rng: random.Random, height: int, width: int) -> _Scene:
    """Draw one to three figures on a part of ``photo``.

    The outline of a figure, two pixels wide, is void in the labels, as in VOC. A later figure
    covers earlier ones; a figure that is covered wholly is no object.
    """
    image = drawing.random_background(photo, max(height, width), rng).crop((0, 0, width, height))
    label, owner = _palette_image(image.size), np.zeros((height, width), np.int32)
    outlines = Image.new("L", image.size)
    drawn: list[tuple[str, Image.Image, bool]] = []
    for _ in range(rng.randint(1, 3)):
        name = rng.choice(tuple(FIGURES))
        side = round(min(height, width) * rng.uniform(0.45, 0.85))
        sprite = drawing.vary(drawing.render(FIGURES[name], side), rng, 25, 0.15)
        # The center of a figure is inside the image; its border may be outside.
        x = rng.randint(0, width) - sprite.width // 2
        y = rng.randint(0, height) - sprite.height // 2
        x1, y1, x2, y2 = drawing.paste(image, sprite, x, y)
        mask = drawing.mask_of(sprite, image.size, x, y)
        inside, outside = ImageFilter.MinFilter(3), ImageFilter.MaxFilter(3)
        outline = ImageChops.subtract(mask.filter(outside), mask.filter(inside))
        label.paste(VOC_CLASSES.index(name), mask=mask)
        label.paste(VOC_VOID, mask=outline)
        outlines.paste(0, mask=mask)
        outlines.paste(255, mask=outline)
        drawn.append((name, drawing.opaque(sprite), x1 < 0 or y1 < 0 or x2 > width or y2 > height))
        owner[np.asarray(mask) > 0] = len(drawn)
    numbers, objects = np.zeros((height, width), np.uint8), []
    for number, (name, whole, truncated) in enumerate(drawn, 1):
        visible = owner == number
        if visible.any():
            part = visible.sum() / np.count_nonzero(np.asarray(whole))
            objects.append(VOCObject(name, _tight_box(visible), bool(part < _VISIBLE), truncated))
            numbers[visible] = len(objects)
    numbers[np.asarray(outlines) > 0] = VOC_VOID
    return _Scene(image, label, _with_palette(numbers), objects)


def _tight_box(mask: np.ndarray) -> tuple[float, float, float, float]:
    box = Image.fromarray(mask.astype(np.uint8)).getbbox()
    assert box is not None
    return box


def _with_palette(numbers: np.ndarray) -> Image.Image:
    image = _palette_image(numbers.shape[::-1])  # type: ignore[arg-type]
    image.putdata(numbers.ravel().tolist())
    return image


def _creatures(photo: Image.Image, rng: random.Random, side: int) -> _Scene:
    """Draw a scene of ``cvops.data`` with the number of each creature."""
    image, labels, masks = scenes.instance_scene(photo, rng, side)
    numbers = np.zeros((side, side), np.uint8)
    for number, mask in enumerate(masks, 1):
        numbers[mask > 0] = number
    objects = [
        VOCObject(scenes.CLASSES[int(kind)], tuple(v * side for v in box)) for kind, *box in labels
    ]
    return _Scene(image, None, _with_palette(numbers), objects)


def _write(
    folder: str | Path, counts: Sequence[int], draw: Callable[[Image.Image, int], _Scene]
) -> Path:
    """Write a data set with ``counts`` images of train and val, and return its ``voc_dir``.

    ``draw`` gets a photograph and the number of the image in its split.
    """
    voc_dir = Path(folder) / "VOCdevkit" / "VOC2012"
    lists = voc_dir / "ImageSets" / "Segmentation"
    for path in ("JPEGImages", "SegmentationClass", "SegmentationObject", "Annotations"):
        (voc_dir / path).mkdir(parents=True, exist_ok=True)
    lists.mkdir(parents=True, exist_ok=True)
    names: list[str] = []
    for split, count, files in zip(
        ("train", "val"), counts, (drawing.TRAIN_PHOTOS, drawing.TEST_PHOTOS)
    ):
        photos = [drawing.photograph(file) for file in files]
        first = len(names)
        for number in range(count):
            scene = draw(photos[number % len(photos)], number)
            name = f"2012_{len(names):06}"
            names.append(name)
            scene.image.save(voc_dir / "JPEGImages" / f"{name}.jpg", quality=92)
            if scene.classes is not None:
                scene.classes.save(voc_dir / "SegmentationClass" / f"{name}.png")
            scene.numbers.save(voc_dir / "SegmentationObject" / f"{name}.png")
            write_voc_annotation(
                voc_dir / "Annotations" / f"{name}.xml", scene.image.size[::-1], scene.objects
            )
        (lists / f"{split}.txt").write_text("\n".join(names[first:]) + "\n", "utf-8")
    (lists / "trainval.txt").write_text("\n".join(names) + "\n", "utf-8")
    return voc_dir


def make_voc(
    folder: str | Path,
    train: int = 200,
    val: int = 40,
    seed: int = 0,
    size: tuple[int, int] = (150, 200),
) -> Path:
    """Make a small data set in the layout of VOC2012 and return its ``voc_dir``.

    It has drawn birds, cats and sheep on real photographs. Train and val images have different
    photographs. Every fourth image is upright. Equal arguments make equal data sets.

    An object that extends beyond the image is truncated. One that is mostly covered is difficult.

    Args:
        folder: parent folder of VOCdevkit, created if necessary.
        train: number of images in train.txt.
        val: number of images in val.txt.
        seed: seed of all random numbers.
        size: height and width of the images, each 16 or more; exchanged for upright images.
    """
    size = integers("size", size, "(height, width)", 16)  # type: ignore[assignment]
    train, val = integer("train", train, 1), integer("val", val, 1)
    rng = random.Random(integer("seed", seed))

    def draw(photo: Image.Image, number: int) -> _Scene:
        return _scene(photo, rng, *size[:: -1 if number % 4 == 3 else 1])

    return _write(folder, (train, val), draw)


def make_voc_creatures(
    folder: str | Path, train: int = 400, val: int = 100, seed: int = 0, side: int = 128
) -> Path:
    """Make a small data set for ``VOCInstanceDataset`` and return its ``voc_dir``.

    It has the bees and frogs of ``cvops.data`` on real photographs. Train and val images have
    different photographs. The masks have no void boundaries. There is no ``SegmentationClass``,
    because these classes are not VOC's. Equal arguments make equal data sets.

    Args:
        folder: parent folder of VOCdevkit, created if necessary.
        train: number of images in train.txt.
        val: number of images in val.txt.
        seed: seed of all random numbers.
        side: height and width of the images, 32 or more.
    """
    train, val = integer("train", train, 1), integer("val", val, 1)
    side, rng = integer("side", side, 32), random.Random(integer("seed", seed))
    return _write(folder, (train, val), lambda photo, _: _creatures(photo, rng, side))

"""Scenes for detection: drawn creatures on real photographs.

Boxes are (x1, y1, x2, y2), corners, in fractions of the image's width and height.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import numpy as np

from cvops._pillow import Image, ImageChops, ImageDraw
from cvops.datasets import drawing
from cvops.datasets.drawing import paste
from cvops.ops._check import choice, integer

#: Names of the classes. A class id in a label is an index into this tuple.
CLASSES = ("bee", "frog")

#: Side of an image in pixels.
SIDE = 256


def _bee(pen: drawing.Pen) -> None:
    for x, y in ((0.36, 0.2), (0.6, 0.19)):
        pen.oval(x, y, 0.13, 0.18, "#d9f0fb", 0.015)
    pen.stroke((0.9, 0.58), (0.99, 0.61), fill="#20242b", line=0.04)
    pen.oval(0.53, 0.57, 0.42, 0.29, "#ffc928", 0.02)
    body = pen.image.copy()
    for x in (0.5, 0.67, 0.84):
        pen.stroke((x, 0.2), (x + 0.03, 0.95), fill="#2b2622", line=0.075)
    # Clip the stripes at the outline of the body.
    inside = Image.new("L", pen.image.size)
    box = [pen.side * v for v in (0.12, 0.29, 0.94, 0.85)]
    ImageDraw.Draw(inside).ellipse(box, 255)
    pen.image.paste(body, mask=ImageChops.invert(inside))
    pen.stroke((0.24, 0.36), (0.17, 0.2), fill="#20242b", line=0.025)
    pen.stroke((0.33, 0.33), (0.31, 0.16), fill="#20242b", line=0.025)
    for x in (0.17, 0.31):
        pen.oval(x, 0.19, 0.035, 0.035, "#20242b")
    for x in (0.23, 0.37):
        pen.oval(x, 0.52, 0.06, 0.075, "#ffffff", 0.012)
        pen.oval(x - 0.01, 0.53, 0.028, 0.04, "#20242b")
    pen.smile(0.28, 0.63, 0.08, 0.022)
    pen.oval(0.4, 0.66, 0.04, 0.028, "#ff8f5e")


def _frog(pen: drawing.Pen) -> None:
    for x in (0.16, 0.84):
        pen.oval(x, 0.84, 0.15, 0.09, "#3f9b46", 0.02)
    for x in (0.27, 0.73):
        pen.oval(x, 0.24, 0.17, 0.17, "#58b957", 0.02)
    pen.oval(0.5, 0.57, 0.46, 0.37, "#58b957", 0.02)
    for x in (0.27, 0.73):
        pen.oval(x, 0.27, 0.13, 0.12, "#58b957")
        pen.oval(x, 0.22, 0.1, 0.1, "#ffffff", 0.012)
        pen.oval(x + 0.01, 0.23, 0.05, 0.06, "#20242b")
        pen.oval(x + 0.03, 0.2, 0.018, 0.018, "#ffffff")
    pen.oval(0.5, 0.77, 0.28, 0.14, "#d6eba2")
    pen.smile(0.5, 0.42, 0.28, 0.03)
    for x in (0.2, 0.8):
        pen.oval(x, 0.62, 0.06, 0.04, "#f4a6a0")
    for x in (0.45, 0.55):
        pen.oval(x, 0.48, 0.013, 0.017, "#2c6b33")


#: Drawing function of each class.
DRAWINGS = {"bee": _bee, "frog": _frog}


def draw(name: str, side: int) -> Image.Image:
    """Draw the creature ``name``, one of ``CLASSES``.

    The result is RGBA, on a transparent square of ``side`` pixels.
    """
    choice("name", name, CLASSES)
    return drawing.render(DRAWINGS[name], integer("side", side, 1))


def _is_free(box: Sequence[float], others: Sequence[Sequence[float]]) -> bool:
    """Check the overlap with each of ``others``: at most a tenth of the smaller box."""
    for other in others:
        width = min(box[2], other[2]) - max(box[0], other[0])
        height = min(box[3], other[3]) - max(box[1], other[1])
        if width > 0 and height > 0:
            areas = ((b[2] - b[0]) * (b[3] - b[1]) for b in (box, other))
            if width * height > 0.1 * min(areas):
                return False
    return True


def scene(
    photo: Image.Image,
    rng: random.Random,
    side: int = SIDE,
    most: int = 4,
    classes: Sequence[str] = CLASSES,
) -> tuple[Image.Image, np.ndarray]:
    """Draw one to ``most`` creatures on a part of ``photo``.

    Args:
        photo: RGB image.
        rng: generator of all random numbers.
        side: side of the result in pixels, 32 or more.
        most: the maximum number of creatures, 1 or more.
        classes: names of the creatures, of ``CLASSES``. A class in a label is an index into it.

    Returns:
        The RGB image, ``side`` x ``side``, and its labels, float32 (n, 5), rows
        (class, x1, y1, x2, y2).
    """
    return instance_scene(photo, rng, side, most, classes)[:2]


def instance_scene(
    photo: Image.Image,
    rng: random.Random,
    side: int = SIDE,
    most: int = 4,
    classes: Sequence[str] = CLASSES,
) -> tuple[Image.Image, np.ndarray, np.ndarray]:
    """Draw a scene and return its image, its labels and its masks.

    The scene is that of :func:`scene` for equal arguments. The masks are uint8 (n, side, side). A
    pixel of two creatures belongs to the later one.
    """
    side, most = integer("side", side, 32), integer("most", most, 1)
    classes = [choice("classes", name, CLASSES) for name in classes]
    if not classes:
        raise ValueError("classes: expected one name or more, got none")
    image = drawing.random_background(photo, side, rng)
    labels: list[tuple[float, ...]] = []
    owner = np.zeros((side, side), np.int32)
    for _ in range(rng.randint(1, most)):
        name = rng.choice(classes)
        # Sizes are uniform on a logarithmic scale.
        size = round(side * math.exp(rng.uniform(math.log(0.18), math.log(0.5))))
        sprite = drawing.vary(draw(name, size), rng, 35, 0.25)
        for _ in range(20):  # attempts to find a free position
            x, y = rng.randint(0, side - sprite.width), rng.randint(0, side - sprite.height)
            box = (x, y, x + sprite.width, y + sprite.height)
            if _is_free([v / side for v in box], [label[1:] for label in labels]):
                box = paste(image, sprite, x, y)
                labels.append((classes.index(name), *(v / side for v in box)))
                mask = drawing.mask_of(sprite, image.size, x, y)
                owner[np.asarray(mask) > 0] = len(labels)
                break
    masks = owner == np.arange(1, len(labels) + 1)[:, None, None]
    return image, np.array(labels, np.float32), masks.astype(np.uint8)

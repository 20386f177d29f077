"""Images for classification: one drawn animal on a part of a photograph."""

from __future__ import annotations

import random

from cvops._pillow import Image
from cvops.datasets import drawing, make_voc, scenes
from cvops.ops._check import choice, integer

#: Drawing function of each animal.
FIGURES = {**scenes.DRAWINGS, **make_voc.FIGURES}


def figure_image(name: str, photo: Image.Image, rng: random.Random, side: int) -> Image.Image:
    """Draw an animal of random hue, size, position and angle; it is a little transparent.

    The color does not tell the class.

    Args:
        name: one of ``FIGURES``.
        photo: RGB image.
        rng: generator of all random numbers.
        side: side of the result in pixels, 16 or more.

    Returns:
        An RGB image, ``side`` x ``side``.
    """
    choice("name", name, tuple(FIGURES))
    side = integer("side", side, 16)
    image = drawing.random_background(photo, side, rng)
    sprite = drawing.render(FIGURES[name], round(side * rng.uniform(0.55, 0.95)))
    sprite = drawing.vary(_turn_hue(sprite, rng), rng, 25, 0.25)
    sprite.putalpha(sprite.getchannel("A").point(lambda v: 0.85 * v))
    # A sprite that is wider than the image covers it from edge to edge.
    x, y = (rng.randint(min(0, side - v), max(0, side - v)) for v in sprite.size)
    drawing.paste(image, sprite, x, y)
    return image


def _turn_hue(sprite: Image.Image, rng: random.Random) -> Image.Image:
    """Add a random angle to the hue of each pixel."""
    turn = rng.randrange(256)
    hue, saturation, value = sprite.convert("RGB").convert("HSV").split()
    hue = hue.point(lambda v: (v + turn) % 256)
    turned = Image.merge("HSV", (hue, saturation, value)).convert("RGB")
    turned.putalpha(sprite.getchannel("A"))
    return turned

"""Drawings on photographs, for the data sets that cvops makes itself.

The photographs are files of the scikit-image wheel: nothing is downloaded.
"""

from __future__ import annotations

import importlib.resources
import random
from typing import Callable

import numpy as np

from cvops._imports import optional
from cvops._pillow import Image, ImageColor, ImageDraw, ImageEnhance, ImageFilter
from cvops.images import decode_image

#: Files of ``skimage/data``. Both files of the motorcycle pair show the same scene.
TRAIN_PHOTOS = (
    "rocket.jpg",
    "motorcycle_left.png",
    "motorcycle_right.png",
    "hubble_deep_field.jpg",
    "retina.jpg",
    "ihc.png",
    "color.png",
    "camera.png",
    "coins.png",
    "brick.png",
    "grass.png",
    "moon.png",
    "page.png",
    "cell.png",
    "clock_motion.png",
)
TEST_PHOTOS = ("astronaut.png", "chelsea.png", "coffee.png", "gravel.png")


def photograph(name: str) -> Image.Image:
    """Return a photograph of the scikit-image wheel, RGB.

    Raises:
        FileNotFoundError: the wheel has no such file.
        ModuleNotFoundError: scikit-image is not installed.
    """
    with optional():
        file = importlib.resources.files("skimage.data").joinpath(name)
    if not file.is_file():
        raise FileNotFoundError(
            f"{name}: no photograph of scikit-image; names are in cvops.data.TRAIN_PHOTOS"
        )
    return decode_image(file.read_bytes(), name)


def stained_glass(height: int, width: int, panes: int = 170, seed: int = 0) -> Image.Image:
    """Draw a window of colored panes with dark leads, RGB.

    The panes are the Voronoi cells of random points. Each one darkens towards its border.
    """
    rng = np.random.default_rng(seed)
    points = rng.uniform(0, (height, width), (panes, 2))
    hues = rng.choice(["#b3202c", "#1f4e9e", "#e0a526", "#2c7a4b", "#6a2c7a", "#d9d2b0"], panes)
    colors = np.array([ImageColor.getrgb(hue) for hue in hues]) * rng.uniform(0.7, 1.1, (panes, 1))
    pixels = np.indices((height, width)).reshape(2, -1).T
    # By blocks: the distances of all pixels would take a gigabyte for a large window.
    image = np.empty((len(pixels), 3))
    pane = np.sqrt(height * width / panes)
    lead = 0.06 * pane  # half of its width
    for block in range(0, len(pixels), 65536):
        rows = pixels[block : block + 65536]
        distances = np.linalg.norm(rows[:, None] - points, axis=2)
        i, j = np.argpartition(distances, 1, axis=1)[:, :2].T
        near, far = (np.take_along_axis(distances, k[:, None], 1)[:, 0] for k in (i, j))
        border = (far**2 - near**2) / (2 * np.linalg.norm(points[i] - points[j], axis=1))
        glass = colors[i] * (1.15 - 0.5 * near / pane)[:, None]
        image[block : block + 65536] = np.where(border[:, None] < lead, 20, glass)
    return Image.fromarray(image.clip(0, 255).astype(np.uint8).reshape(height, width, 3))


class Pen:
    """Draws shapes on a square of side 1, with x to the right and y down.

    ``image`` is RGBA, ``side`` x ``side`` pixels. Line widths (``line``) are in sides.
    """

    def __init__(self, side: int) -> None:
        self.side = side
        self.image = Image.new("RGBA", (side, side))
        self._draw = ImageDraw.Draw(self.image)

    def oval(self, x: float, y: float, rx: float, ry: float, fill: str, line: float = 0.0) -> None:
        box = [self.side * v for v in (x - rx, y - ry, x + rx, y + ry)]
        self._draw.ellipse(box, fill, "#20242b", round(self.side * line))

    def smile(self, x: float, y: float, r: float, line: float) -> None:
        box = [self.side * v for v in (x - r, y - r, x + r, y + r)]
        self._draw.arc(box, 25, 155, "#20242b", round(self.side * line))

    def stroke(self, *points: tuple[float, float], fill: str, line: float) -> None:
        scaled = [(self.side * x, self.side * y) for x, y in points]
        self._draw.line(scaled, fill, round(self.side * line), "curve")


def render(figure: Callable[[Pen], None], side: int) -> Image.Image:
    """Draw ``figure``, RGBA on a transparent square of ``side`` pixels."""
    pen = Pen(4 * side)
    figure(pen)
    return pen.image.resize((side, side), Image.Resampling.LANCZOS)


def relight(image: Image.Image, rng: random.Random, tint: float) -> Image.Image:
    """Vary brightness and contrast, and scale each color channel by 1 - tint to 1 + tint."""
    image = ImageEnhance.Brightness(image).enhance(rng.uniform(0.7, 1.2))
    image = ImageEnhance.Contrast(image).enhance(rng.uniform(0.8, 1.2))
    gains = [rng.uniform(1 - tint, 1 + tint) for _ in range(3)] + [1.0]
    bands = [band.point(lambda v, g=g: v * g) for band, g in zip(image.split(), gains)]
    return Image.merge(image.mode, bands)


def vary(sprite: Image.Image, rng: random.Random, degrees: float, tint: float) -> Image.Image:
    """Mirror, rotate (by up to ``degrees``) and relight a sprite, RGBA, at random.

    The result is cropped to the pixels that are not transparent.
    """
    if rng.random() < 0.5:
        sprite = sprite.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    angle = rng.uniform(-degrees, degrees)
    sprite = sprite.rotate(angle, Image.Resampling.BICUBIC, expand=True)
    return relight(sprite.crop(sprite.getbbox()), rng, tint)


def random_background(photo: Image.Image, side: int, rng: random.Random) -> Image.Image:
    """Cut a square from ``photo``, mirror it at random, relight it, and resize it to ``side``.

    The square is at least half of the shorter side of ``photo``.
    """
    size = int(min(photo.size) * rng.uniform(0.5, 1.0))
    x, y = (rng.randint(0, length - size) for length in photo.size)
    image = photo.resize((side, side), Image.Resampling.BILINEAR, (x, y, x + size, y + size))
    if rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return relight(image, rng, 0.1)


def paste(image: Image.Image, sprite: Image.Image, x: int, y: int) -> tuple[int, int, int, int]:
    """Paste ``sprite`` (RGBA) into ``image`` in place, with a soft shadow.

    Args:
        x, y: position of the sprite's left upper corner, in pixels.

    Returns:
        The tight box (x1, y1, x2, y2) of the pixels of more than half opacity, in pixels of
        ``image``. x2 and y2 are exclusive.
    """
    alpha = sprite.getchannel("A")
    blur = max(1, sprite.width // 20)
    shadow = alpha.filter(ImageFilter.GaussianBlur(blur)).point(lambda v: v * 0.4)
    image.paste((0, 0, 0), (x + blur, y + blur), shadow)
    image.paste(sprite, (x, y), alpha)
    left, top, right, bottom = opaque(sprite).getbbox() or (0, 0, 0, 0)
    return x + left, y + top, x + right, y + bottom


def opaque(sprite: Image.Image) -> Image.Image:
    """Return the mask of the pixels of more than half opacity, 255 or 0."""
    return sprite.getchannel("A").point(lambda v: 255 * (v > 127))


def mask_of(sprite: Image.Image, size: tuple[int, int], x: int, y: int) -> Image.Image:
    """Return the mask of ``sprite`` at (x, y) in an image of width and height ``size``."""
    mask = Image.new("L", size)
    mask.paste(opaque(sprite), (x, y))
    return mask

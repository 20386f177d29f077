"""Pillow images that several tests share."""

import numpy as np
from PIL import Image

ORIENTATION = 0x0112


def on_its_side(image):
    """The image with turned pixels, and with the EXIF orientation that turns them back."""
    turned = image.transpose(Image.Transpose.ROTATE_90)
    turned.getexif()[ORIENTATION] = 6
    return turned


def save_on_its_side(file, image, format=None):
    """Write ``on_its_side(image)`` to a path or an open file."""
    turned = on_its_side(image)
    turned.save(file, format, exif=turned.getexif(), quality=100)


def images_and_pixels():
    """Pairs of a Pillow image and the upright RGB pixels that ``cvops.images`` reads from it."""
    pixels = np.random.default_rng(0).integers(0, 256, (50, 100, 3), np.uint8)
    sixteen_bits = Image.fromarray(pixels[:, :, 0] * np.uint16(256))
    transparent = Image.new("RGBA", (100, 50), (0, 0, 0, 0))
    return [
        (on_its_side(Image.fromarray(pixels)), pixels),
        (sixteen_bits, np.repeat(pixels[:, :, :1], 3, axis=2)),
        (transparent, np.full((50, 100, 3), 255, np.uint8)),
    ]

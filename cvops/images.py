"""Image files and Pillow images as upright 8-bit RGB. All of cvops reads images with this module.

The rules are the same for a file, its bytes and an open Pillow image:

- EXIF orientation: the image is turned upright. Sizes and boxes are those of the upright image.
- 1 bit, gray, palette, YCbCr, HSV: converted to RGB.
- CMYK: red = (255 - C) (255 - K) / 255, and likewise green and blue. Color profiles are ignored.
- Transparent pixels: blended over white.
- 16 bits per channel: the high byte, as in MXNet and OpenCV; 65535 becomes 255.
- Float: 0 to 1 become 0 to 255, rounded. Other values raise an error.
- Several frames: the first frame.
- More than twice ``PIL.Image.MAX_IMAGE_PIXELS`` (178,956,970 pixels): an error.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from cvops._files import check_regular
from cvops._pillow import Image, ImageOps

#: Pillow modes with one channel of 16-bit integers in the file.
_WIDE_MODES = ("I;16", "I;16L", "I;16B", "I;16N", "I")


def read_image(path: str | Path, max_pixels: int | None = None) -> Image.Image:
    """Read the image in a file, upright RGB by the rules of this module.

    Args:
        path: the file.
        max_pixels: maximum number of pixels, which is compared before they are decoded.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: the path is a folder, or the file cannot be opened.
        ValueError: the path is a device or a pipe, or the file is empty, damaged, too large or not
            an image, or has values without a rule. Each message begins with the path.
    """
    with _file(path) as file:
        image = _opened(file, str(path))
        if max_pixels is not None and image.width * image.height > max_pixels:
            size = f"{image.width} x {image.height}"
            raise ValueError(f"{path}: expected at most {max_pixels} pixels, got {size}")
        return to_rgb(image, str(path))


def decode_image(encoded: bytes, name: str = "image") -> Image.Image:
    """Decode the bytes of an image file, as :func:`read_image`; messages begin with ``name``."""
    return to_rgb(_opened(io.BytesIO(encoded), name), name)


def image_size(path: str | Path) -> tuple[int, int]:
    """Return height and width of the upright image in a file.

    Only the header is read, except for TIFF.

    Raises:
        As :func:`read_image`, except for damaged pixels, which are not read.
    """
    with _file(path) as file:
        return _size(_opened(file, str(path)), str(path))


def encoded_size(encoded: bytes, name: str = "image") -> tuple[int, int]:
    """Return height and width as :func:`image_size`; messages begin with ``name``."""
    return _size(_opened(io.BytesIO(encoded), name), name)


def _size(image: Image.Image, name: str) -> tuple[int, int]:
    if image.format == "TIFF":  # some versions of Pillow turn a TIFF when they load its pixels
        image = _upright(image, name)
    on_its_side = _orientation(image) >= 5
    return image.size if on_its_side else (image.height, image.width)


def plain_format(encoded: bytes) -> str | None:
    """Return "JPEG" or "PNG" for the bytes of an image that each library reads alike, or None.

    Such an image is upright, 8-bit gray or RGB, without transparent pixels.
    """
    image = _opened(io.BytesIO(encoded), "image")
    plain = image.mode in ("L", "RGB") and "transparency" not in image.info
    is_one = getattr(image, "n_frames", 1) == 1
    if image.format in ("JPEG", "PNG") and plain and is_one and _orientation(image) == 1:
        return image.format
    return None


def to_rgb(image: Image.Image, name: str = "image") -> Image.Image:
    """Convert a Pillow image to upright RGB by the rules of this module.

    Raises:
        TypeError: ``image`` is not a Pillow image.
        ValueError: the pixels are damaged, or have values without a rule. The message begins with
            ``name``.
    """
    if not isinstance(image, Image.Image):
        convert = f": convert it by PIL.Image.fromarray({name})" * isinstance(image, np.ndarray)
        raise TypeError(f"{name}: expected an image of Pillow, got {type(image).__name__}{convert}")
    image = _upright(image, name)
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode in _WIDE_MODES:
        return Image.fromarray(_high_byte(image, name)).convert("RGB")
    if image.mode == "F":
        return Image.fromarray(_from_unit(image, name)).convert("RGB")
    try:
        if image.has_transparency_data:
            over = Image.new("RGBA", image.size, "white")
            over.alpha_composite(image.convert("RGBA"))
            image = over
        return image.convert("RGB")
    except ValueError as error:
        raise ValueError(f"{name}: mode {image.mode} has no conversion to RGB") from error


def as_numpy(image: Any) -> np.ndarray:
    """Return a Pillow image as :func:`to_rgb`, (height, width, 3), or any array unchanged."""
    if isinstance(image, Image.Image):
        image = to_rgb(image)
    return np.asarray(image.asnumpy() if hasattr(image, "asnumpy") else image)


def read_label(path: str | Path) -> tuple[Image.Image, bool]:
    """Read a label image, upright, and return it with True if its pixels are class indices.

    One channel of 8 or 16 bits without a palette has class indices: the result has mode "I".
    Palettes and RGB have colors: the result has mode "RGB".

    Raises:
        As :func:`read_image`; and ValueError for an image of another mode.
    """
    name = str(path)
    with _file(path) as file:
        image = _opened(file, name)
        # Pillow scales gray of 2 and 4 bits to 0 to 255, which changes the indices.
        packed = [tile[3] for tile in getattr(image, "tile", ()) if tile[3] in ("L;2", "L;4")]
        if packed:
            raise ValueError(f"{name}: expected a label of 8 or 16 bits, got {packed[0]}")
        image = _upright(image, name)
    if image.mode in ("L", *_WIDE_MODES) and "transparency" not in image.info:
        return Image.fromarray(np.asarray(image).astype(np.int32)), True
    if image.mode not in ("P", "RGB", "RGBA"):
        raise ValueError(
            f"{name}: expected a label of palette, RGB or index pixels, got mode {image.mode}"
        )
    return to_rgb(image, name), False


def _file(path: str | Path) -> BinaryIO:
    try:
        if not Path(path).is_dir():  # the error of a folder is below
            check_regular(Path(path))
        return open(path, "rb")
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path}: no such file") from error
    except IsADirectoryError as error:
        raise IsADirectoryError(f"{path}: a folder, not an image file") from error
    except OSError as error:
        raise OSError(f"{path}: cannot be read: {error.strerror}") from error


def _opened(file: BinaryIO, name: str) -> Image.Image:
    """Open an image file; only the header is read."""
    if not file.read(1):
        raise ValueError(f"{name}: an empty file, not an image")
    file.seek(0)
    try:
        return Image.open(file)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(f"{name}: {error}; PIL.Image.MAX_IMAGE_PIXELS sets the limit") from error
    except Exception as error:  # Pillow's readers raise many types for damaged files
        raise ValueError(f"{name}: not an image that can be read") from error


def _upright(image: Image.Image, name: str) -> Image.Image:
    """Load the pixels and turn the image upright by its EXIF orientation."""
    try:
        image.load()
        # Some formats store EXIF data after the pixels: load the pixels first.
        return image if _orientation(image) == 1 else ImageOps.exif_transpose(image)
    except Exception as error:  # as in _opened
        raise ValueError(f"{name}: not an image that can be read: {error}") from error


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8; 1 (upright) by default."""
    try:
        orientation: Any = image.getexif().get(0x0112)
    except Exception:  # damaged EXIF data is ignored
        return 1
    return int(orientation) if orientation in range(2, 9) else 1


def _high_byte(image: Image.Image, name: str) -> np.ndarray:
    pixels = np.asarray(image)
    if "transparency" in image.info:
        pixels = np.where(pixels == image.info["transparency"], 65535, pixels)
    if pixels.min() < 0 or pixels.max() > 65535:
        raise ValueError(
            f"{name}: expected integer pixels of 0 to 65535, got {pixels.min()} to {pixels.max()}"
        )
    return (pixels >> 8).astype(np.uint8)


def _from_unit(image: Image.Image, name: str) -> np.ndarray:
    pixels = np.asarray(image)
    if not (pixels.min() >= 0 and pixels.max() <= 1):  # false for NaN
        raise ValueError(
            f"{name}: expected float pixels of 0 to 1, got {pixels.min()} to {pixels.max()}"
        )
    return np.rint(pixels * 255).astype(np.uint8)

"""A small detection data set, made on the spot: drawn creatures on real photographs.

It has the form of the Pikachu set of "Dive into Deep Learning": record files that
``mx.image.ImageDetIter`` reads. The photographs are those inside the scikit-image
wheel, so nothing is downloaded, and training and test share none of them.

Boxes are (x1, y1, x2, y2), corners, in fractions of the image's width and height.
"""

from __future__ import annotations

import importlib.resources
import io
import itertools
import math
import random
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageEnhance, ImageFilter

from cvops._mxnet import mxnet
from cvops.images import decode_image
from cvops.ops._check import choice, flag, integer

mx = mxnet()

#: Names of the classes; their ids in the labels are the places in this tuple.
CLASSES = ("bee", "frog")

#: Images of the set are squares of this many pixels.
SIDE = 256

#: Files of ``skimage/data``. The two halves of the motorcycle pair show one scene.
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
    """A photograph of the scikit-image wheel, as RGB."""
    return decode_image(importlib.resources.files("skimage.data").joinpath(name).read_bytes(), name)


# --- the creatures, drawn on a square of side 1 ---------------------------------------------------


class _Pen:
    """Shapes on a square of side 1, x to the right and y down."""

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


def _bee(pen: _Pen) -> None:
    for x, y in ((0.36, 0.2), (0.6, 0.19)):
        pen.oval(x, y, 0.13, 0.18, "#d9f0fb", 0.015)
    pen.stroke((0.9, 0.58), (0.99, 0.61), fill="#20242b", line=0.04)
    pen.oval(0.53, 0.57, 0.42, 0.29, "#ffc928", 0.02)
    body = pen.image.copy()
    for x in (0.5, 0.67, 0.84):
        pen.stroke((x, 0.2), (x + 0.03, 0.95), fill="#2b2622", line=0.075)
    # The stripes stop at the outline: where the body was clear, it is again.
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


def _frog(pen: _Pen) -> None:
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


_DRAWINGS = {"bee": _bee, "frog": _frog}


def draw(name: str, side: int) -> Image.Image:
    """The creature ``name`` (see ``CLASSES``), RGBA on a clear square of ``side`` pixels."""
    choice("name", name, CLASSES)
    pen = _Pen(4 * integer("side", side, 1))
    _DRAWINGS[name](pen)
    return pen.image.resize((side, side), Image.Resampling.LANCZOS)


# --- scenes ---------------------------------------------------------------------------------------


def _lit(image: Image.Image, rng: random.Random, tint: float) -> Image.Image:
    """``image`` under another light: brightness, contrast, and each channel by up to ``tint``."""
    image = ImageEnhance.Brightness(image).enhance(rng.uniform(0.7, 1.2))
    image = ImageEnhance.Contrast(image).enhance(rng.uniform(0.8, 1.2))
    gains = [rng.uniform(1 - tint, 1 + tint) for _ in range(3)] + [1.0]
    bands = [band.point(lambda v, g=g: v * g) for band, g in zip(image.split(), gains)]
    return Image.merge(image.mode, bands)


def _background(photo: Image.Image, side: int, rng: random.Random) -> Image.Image:
    """A square part of ``photo``, at least half of its shorter side, mirrored or not."""
    part = int(min(photo.size) * rng.uniform(0.5, 1.0))
    x, y = (rng.randint(0, size - part) for size in photo.size)
    image = photo.resize((side, side), Image.Resampling.BILINEAR, (x, y, x + part, y + part))
    if rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return _lit(image, rng, 0.1)


def paste(image: Image.Image, sprite: Image.Image, x: int, y: int) -> tuple[int, int, int, int]:
    """Paste ``sprite`` (RGBA) with a soft shadow into ``image``, at (x, y), in place.

    Returns its box there in pixels, x2 and y2 exclusive, tight around what is more
    than half opaque.
    """
    alpha = sprite.getchannel("A")
    blur = max(1, sprite.width // 20)
    shadow = alpha.filter(ImageFilter.GaussianBlur(blur)).point(lambda v: v * 0.4)
    image.paste((0, 0, 0), (x + blur, y + blur), shadow)
    image.paste(sprite, (x, y), alpha)
    left, top, right, bottom = alpha.point(lambda v: 255 * (v > 127)).getbbox() or (0, 0, 0, 0)
    return x + left, y + top, x + right, y + bottom


def _apart(box: Sequence[float], others: Sequence[Sequence[float]]) -> bool:
    """Whether ``box`` covers, and is covered, by less than a tenth with each of ``others``."""
    for other in others:
        width = min(box[2], other[2]) - max(box[0], other[0])
        height = min(box[3], other[3]) - max(box[1], other[1])
        if width > 0 and height > 0:
            areas = ((b[2] - b[0]) * (b[3] - b[1]) for b in (box, other))
            if width * height > 0.1 * min(areas):
                return False
    return True


def scene(
    photo: Image.Image, rng: random.Random, side: int = SIDE, most: int = 4
) -> tuple[Image.Image, np.ndarray]:
    """One to ``most`` creatures on a part of ``photo``.

    Returns the RGB image, ``side`` x ``side``, and its labels, float32 (n, 5), of
    rows (class id, x1, y1, x2, y2).
    """
    side, most = integer("side", side, 32), integer("most", most, 1)
    image = _background(photo, side, rng)
    labels: list[tuple[float, ...]] = []
    for _ in range(rng.randint(1, most)):
        name = rng.choice(CLASSES)
        # Small ones are as many as large ones on a logarithmic scale.
        size = round(side * math.exp(rng.uniform(math.log(0.18), math.log(0.5))))
        sprite = draw(name, size)
        if rng.random() < 0.5:
            sprite = sprite.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        sprite = sprite.rotate(rng.uniform(-35, 35), Image.Resampling.BICUBIC, expand=True)
        sprite = _lit(sprite.crop(sprite.getbbox()), rng, 0.25)
        for _ in range(20):  # a place that is free, if there is one
            x, y = rng.randint(0, side - sprite.width), rng.randint(0, side - sprite.height)
            box = (x, y, x + sprite.width, y + sprite.height)
            if _apart([v / side for v in box], [label[1:] for label in labels]):
                box = paste(image, sprite, x, y)
                labels.append((CLASSES.index(name), *(v / side for v in box)))
                break
    return image, np.array(labels, np.float32)


# --- record files ---------------------------------------------------------------------------------


def write_record(
    path: str | Path, photos: Sequence[str], count: int, seed: int, side: int = SIDE
) -> None:
    """Write ``count`` scenes to the record file ``path``, and its index beside it (``.idx``).

    A label is laid out as ``ImageDetIter`` reads it: 2 (numbers in this header),
    5 (numbers of an object), then (class, x1, y1, x2, y2) of each object. The same
    arguments write the same scenes.
    """
    path = Path(path)
    count, side = integer("count", count, 0), integer("side", side, 32)
    rng = random.Random(integer("seed", seed))
    if isinstance(photos, str) or not photos:
        raise ValueError(f"photos: expected one name or more, got {photos!r}")
    images = [photograph(name) for name in photos]
    record = mx.recordio.MXIndexedRecordIO(str(path.with_suffix(".idx")), str(path), "w")
    for number in range(count):
        image, labels = scene(images[number % len(images)], rng, side)
        encoded = io.BytesIO()
        image.save(encoded, "JPEG", quality=92)
        header = mx.recordio.IRHeader(0, [2.0, 5.0, *labels.ravel().tolist()], number, 0)
        record.write_idx(number, mx.recordio.pack(header, encoded.getvalue()))
    record.close()


def read_record(path: str | Path) -> list[tuple[Image.Image, np.ndarray]]:
    """All images of a detection record file, RGB, each with its objects.

    Args:
        path: a record file, as ``write_record`` or MXNet's im2rec (``--pack-label``) writes it.
            With an index file beside it (``.idx``) the records come in the index's order.

    Returns:
        Of each record the image and its objects, float32 (n, 5) as ``scene`` returns them, or
        (n, W) where an object has W numbers: VOC's records have (class, x1, y1, x2, y2, difficult).
        Images without objects have n = 0. Objects with an empty box or a class below 0 are left
        out, as by ``ImageDetIter``.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a record is damaged, its label is not a detection label, its boxes are not
            fractions, or its image cannot be read. The message names the file and the record.
    """
    scenes = []
    for name, header, encoded in _records(Path(path)):
        scenes.append((decode_image(encoded, name), _objects(header.label, name)))
    return scenes


#: What MXNet raises when a record cannot be unpacked; its unpack gets None past the end.
_DAMAGES = (mx.MXNetError, struct.error, TypeError, ValueError)


def _records(path: Path) -> Iterator[tuple[str, Any, bytes]]:
    """A name for messages, the header and the image file of each record."""
    index = path.with_suffix(".idx")
    indexed = index.is_file()
    record = _open_record(path, index if indexed else None)
    for key in record.keys if indexed else itertools.count():
        name = f"{path}: record {key}"
        try:
            content = record.read_idx(key) if indexed else record.read()
            if content is None and not indexed:  # the end of the file
                break
            header, encoded = mx.recordio.unpack(content)
        except _DAMAGES as error:
            raise ValueError(f"{name}: damaged, or not a record") from error
        yield name, header, encoded
    record.close()


def _open_record(path: Path, index: Path | None) -> Any:
    for file in (path, index):
        if file is not None and not file.is_file():
            raise FileNotFoundError(f"{file}: no such file")
    if index is None:
        return mx.recordio.MXRecordIO(str(path), "r")
    try:
        return mx.recordio.MXIndexedRecordIO(str(index), str(path), "r")
    except (IndexError, ValueError) as error:
        raise ValueError(f"{index}: not the index of a record file") from error


def _objects(label: Any, name: str) -> np.ndarray:
    """The objects in a record's label, float32 (n, W): A, W, more header, then n times W numbers.

    A counts the numbers before the first object.
    """
    numbers = np.ravel(np.asarray(label, np.float32))
    if numbers.size < 2:
        raise ValueError(
            f"{name}: expected a detection label (header width, object width, ..., objects), got "
            f"{numbers.tolist()}; im2rec writes it with --pack-label"
        )
    before, width = numbers[:2].tolist()
    if not (
        2 <= before <= numbers.size
        and width >= 5
        and before % 1 == width % 1 == 0
        and (numbers.size - before) % width == 0
    ):
        raise ValueError(
            f"{name}: expected a header of 2 numbers or more and objects of 5 or more, got "
            f"{numbers.size} numbers for header width {before:g}, object width {width:g}"
        )
    objects = numbers[int(before) :].reshape(-1, int(width))
    kinds, boxes = objects[:, 0], objects[:, 1:5]
    if not (np.isfinite(objects[:, :5]).all() and (kinds % 1 == 0).all()):
        raise ValueError(f"{name}: expected whole classes and finite boxes, got {objects.tolist()}")
    outside = (abs(boxes) > 2).any(axis=1)
    if outside.any():
        box = boxes[outside][0].tolist()
        raise ValueError(f"{name}: expected boxes in fractions of the image, got {box}")
    x1, y1, x2, y2 = boxes.T
    return objects[(kinds >= 0) & (x2 > x1) & (y2 > y1)]


class _Iterator(mx.image.ImageDetIter):  # type: ignore[misc, name-defined]
    """``ImageDetIter`` that keeps images without objects and reads images as ``cvops.images``.

    MXNet's refuses a record whose label has no object, and logs damaged ones below its level.
    """

    def __init__(self, path: Path, **options: Any) -> None:
        index = path.with_suffix(".idx")
        _open_record(path, index).close()
        self._path = path
        super().__init__(path_imgrec=str(path), path_imgidx=str(index), **options)

    @property
    def _name(self) -> str:
        """The last record that was read, for messages."""
        return f"{self._path}: record {self.seq[self.cur - 1]}"

    def next_sample(self) -> tuple[Any, bytes]:
        try:
            return super().next_sample()
        except _DAMAGES as error:
            raise ValueError(f"{self._name}: damaged, or not a record") from error

    def imdecode(self, s: bytes) -> Any:
        pixels = mx.nd.array(np.asarray(decode_image(s, self._name)), dtype=np.uint8)
        return pixels.as_np_ndarray() if mx.util.is_np_array() else pixels

    def _estimate_label_shape(self) -> tuple[int, int]:
        if not self.seq:
            raise ValueError(f"{self._path}: expected one record or more, got none")
        self.reset()
        most, widths = 1, set()
        for _ in self.seq:
            count, width = self._parse_label(self.next_sample()[0]).shape
            most = max(most, count)
            widths.add(width)
            if len(widths) > 1:
                raise ValueError(f"{self._name}: expected objects of one width, got {widths}")
        self.reset()
        return most, widths.pop()

    def _parse_label(self, label: Any) -> np.ndarray:
        """The objects, (n, W); for an image without objects one row of -1."""
        objects = _objects(label, self._name)
        return objects if len(objects) else np.full((1, objects.shape[1]), -1, np.float32)

    def augmentation_transform(self, data: Any, label: np.ndarray) -> tuple[Any, np.ndarray]:
        data, label = super().augmentation_transform(data, label)
        label[label[:, 0] < 0] = -1  # a mirrored row of -1 has other numbers
        return data, label

    def _check_valid_label(self, label: np.ndarray) -> None:
        """Every label of ``_parse_label`` is valid, also one without objects."""


def iterator(path: str | Path, batch_size: int, side: int = SIDE, augment: bool = False) -> Any:
    """An ``ImageDetIter`` over a record file, with its index beside it (``.idx``).

    A batch has data (B, 3, side, side), RGB of 0 to 255, and label (B, m, W): W numbers of an
    object as :func:`read_record` gives them, m the maximum number of objects of an image (1 or
    more), and rows of -1 at the end. An image without objects has rows of -1 only. With
    ``augment`` the order is shuffled, and images are cropped and mirrored at random; seed
    ``random`` to repeat them.

    Raises:
        FileNotFoundError: the record file or its index is missing.
        ValueError: as :func:`read_record`; or objects of two records differ in W.
    """
    more: dict[str, Any] = {}
    batch_size, side = integer("batch_size", batch_size, 1), integer("side", side, 1)
    if flag("augment", augment):
        more = {"shuffle": True, "rand_crop": 0.5, "rand_mirror": True}
        more |= {"min_object_covered": 0.95, "min_eject_coverage": 0.9}
        more |= {"area_range": (0.5, 1.0), "max_attempts": 50}
    return _Iterator(Path(path), batch_size=batch_size, data_shape=(3, side, side), **more)

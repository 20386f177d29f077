"""Semantic segmentation data of Pascal VOC2012, and a small data set in the same layout.

The layout is that of the VOC2012 archive. ``voc_dir`` is the folder that it unpacks to:

    VOCdevkit/VOC2012/
        ImageSets/Segmentation/{train,val,trainval}.txt   names, one per line
        JPEGImages/<name>.jpg
        SegmentationClass/<name>.png                      the class of each pixel, as a color

Functions have the names of "Dive into Deep Learning". Images are (height, width, 3), RGB, read by
the rules of ``cvops.images``. Sizes are (height, width).

Label files have either colors (a palette or RGB) or class indices (one channel of 8 or 16 bits
without a palette). Colors must be VOC's; the order of the file's palette does not matter. Class
indices must be 0 to 20 or 255. All other labels raise an error that names the file.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageChops, ImageFilter

from cvops import drawing, images
from cvops._mxnet import mxnet
from cvops.ops._check import flag, integer, integers
from cvops.ops.label_from_color import label_from_color
from cvops.transforms import normalize_image as normalize_image

mx = mxnet()

#: Names of the classes. A class index in a label is an index into this tuple.
VOC_CLASSES = (
    "background",
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "potted plant",
    "sheep",
    "sofa",
    "train",
    "tv/monitor",
)


def _palette() -> np.ndarray:
    """Return VOC's colors, uint8 (256, 3).

    The bits of an index, from the lowest one, go to red, green and blue in turn. Each channel gets
    them from its highest bit down.
    """
    bits = np.arange(256)[:, None] >> np.arange(8) & 1
    red, green, blue = bits[:, 0::3], bits[:, 1::3], bits[:, 2::3]
    columns = red @ (128, 64, 32), green @ (128, 64, 32), blue @ (128, 64)
    return np.stack(columns, axis=1).astype(np.uint8)


#: Color of each index in VOC's PNG files, uint8 (256, 3).
VOC_PALETTE = _palette()

#: Colors of the classes, int64 (21, 3). The book's index of a color needs 24 bits.
VOC_COLORMAP = VOC_PALETTE[: len(VOC_CLASSES)].astype(np.int64)

#: Index of the pixels on object boundaries, which VOC ignores. Their color is (224, 224, 192).
VOC_VOID = 255

#: All valid indices in a label, and their colors.
_INDICES = np.array([*range(len(VOC_CLASSES)), VOC_VOID])
_COLORS = VOC_PALETTE[_INDICES]

#: Folder to which the book unpacks the archive.
_BOOK_DIR = "../data/VOCdevkit/VOC2012"


# --- reading --------------------------------------------------------------------------------------


def _missing(path: Path, voc_dir: Path) -> FileNotFoundError:
    for inside in (voc_dir / "VOC2012", voc_dir / "VOCdevkit" / "VOC2012"):
        if inside.is_dir():
            return FileNotFoundError(f"{path}: no such file; voc_dir should be {inside}")
    return FileNotFoundError(
        f"{path}: no such file; voc_dir is the folder VOCdevkit/VOC2012 of the archive, with "
        f"ImageSets/Segmentation/{path.name if path.suffix == '.txt' else 'train.txt'}, "
        f"JPEGImages/<name>.jpg and SegmentationClass/<name>.png; got {str(voc_dir)!r}"
    )


def _pairs(voc_dir: str | Path, split: str) -> list[tuple[Path, Path]]:
    """Return the image file and the label file of each image of a split."""
    voc_dir = Path(voc_dir)
    names = voc_dir / "ImageSets" / "Segmentation" / f"{split}.txt"
    if not names.is_file():
        raise _missing(names, voc_dir)
    try:
        listed = names.read_text("utf-8-sig").split()
    except UnicodeDecodeError as error:
        raise ValueError(f"{names}: not a list of names in UTF-8") from error
    pairs = [
        (voc_dir / "JPEGImages" / f"{name}.jpg", voc_dir / "SegmentationClass" / f"{name}.png")
        for name in listed
    ]
    for pair in pairs:
        for path in pair:
            if not path.is_file():
                raise _missing(path, voc_dir)
    return pairs


def _check_size(label: Path, size: tuple[int, ...], image_size: tuple[int, ...]) -> None:
    if size != image_size:
        want, got = ("{} x {}".format(*pair) for pair in (image_size, size))
        raise ValueError(f"{label}: expected the image's size, {want}, got {got}")


def _size(image: Path, label: Path) -> tuple[int, int]:
    """Return height and width, read from the headers only."""
    size = images.image_size(image)
    _check_size(label, images.image_size(label), size)
    return size


def _read_label(path: Path) -> np.ndarray:
    """Return the class of each pixel, int32 (height, width): 0 to 20, or ``VOC_VOID``."""
    opened, is_index = images.read_label(path)
    pixels = np.asarray(opened)
    if is_index:
        wrong = ~np.isin(pixels, _INDICES)
        if wrong.any():
            raise ValueError(
                f"{path}: expected VOC's class indices, 0 to {len(VOC_CLASSES) - 1} or {VOC_VOID}, "
                f"got {pixels[wrong][0]} in {np.count_nonzero(wrong)} pixels"
            )
        return pixels
    rows = label_from_color(pixels, _COLORS, unknown=-1)
    wrong = rows < 0
    if wrong.any():
        color = tuple(pixels[wrong][0].tolist())
        raise ValueError(
            f"{path}: expected VOC's colors, got {color} in {np.count_nonzero(wrong)} pixels"
        )
    return _INDICES[rows].astype(np.int32)


def _read_colors(path: Path) -> np.ndarray:
    """Return the color of each pixel of a label, uint8 (height, width, 3)."""
    opened, is_index = images.read_label(path)
    if is_index:
        raise ValueError(f"{path}: expected colors, for colormap2label, got class indices")
    return np.asarray(opened)


def _read(image: Path, label: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read an image, uint8 (height, width, 3), and its classes, int32 (height, width)."""
    pixels, classes = np.asarray(images.read_image(image)), _read_label(label)
    _check_size(label, classes.shape, pixels.shape[:2])
    return pixels, classes


def read_voc_images(
    voc_dir: str | Path = _BOOK_DIR, is_train: bool = True, *, root: str | Path | None = None
) -> tuple[list, list]:
    """Read all images of train (or val), and their labels as colors, in the order of the list.

    Each is an MXNet array on the CPU, uint8 (height, width, 3). All of them are in memory: VOC2012
    has 1,464 and 1,449, about 1.6 GB each. ``VOCSegDataset`` reads an image at each access instead.

    Args:
        voc_dir: the folder VOCdevkit/VOC2012.
        is_train: read the images of train.txt if true, or else those of val.txt.
        root: name of ``voc_dir`` in the first edition of the book.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is not an image, a label has colors that are not VOC's, or the sizes of a
            label and its image differ.
    """
    files = _pairs(
        voc_dir if root is None else root, "train" if flag("is_train", is_train) else "val"
    )
    pairs = [_read(*pair) for pair in files]
    features = [mx.nd.array(image, dtype=np.uint8) for image, _ in pairs]
    return features, [mx.nd.array(label2image(label), dtype=np.uint8) for _, label in pairs]


# --- labels and crops -----------------------------------------------------------------------------


def voc_label_indices(colormap: Any, colormap2label: Any = None, *, void: int = 0) -> Any:
    """Return the class of each pixel of a label.

    Args:
        colormap: integers 0 to 255, (height, width, 3), RGB, an array of NumPy or MXNet.
        colormap2label: the book's table, (2**24,), an array of NumPy or MXNet. The class of the
            color (r, g, b) is at (r * 256 + g) * 256 + b. If None, the colors are those of
            ``VOC_COLORMAP``, without a table: see ``cvops.label_from_color``.
        void: index of all pixels whose color is not in ``VOC_COLORMAP``. In VOC's labels these are
            the object boundaries. The default is the book's, 0, the background. A loss and a metric
            can ignore ``VOC_VOID``. With a table ``void`` must be 0, because the table defines all
            colors.

    Returns:
        int32 (height, width), an array of the same library.

    Raises:
        ValueError: the shape or the values of an array are not as above, or ``void`` is not 0 with
            a table.
    """
    void = integer("void", void)
    if colormap2label is not None:
        if void:
            raise ValueError(f"void: expected 0 with colormap2label, got {void!r}")
        label = _by_table(colormap, _table(colormap2label))
        if isinstance(colormap, mx.nd.NDArray):
            return mx.nd.array(label, ctx=colormap.context, dtype=np.int32)
        return label
    colors = VOC_COLORMAP.astype(np.uint8)
    if isinstance(colormap, mx.nd.NDArray):
        colors = mx.nd.array(colors, ctx=colormap.context, dtype=np.uint8)
    return label_from_color(colormap, colors, unknown=void)


def _table(colormap2label: Any) -> np.ndarray:
    table = images.as_numpy(colormap2label)
    if table.shape != (256**3,):
        raise ValueError(f"colormap2label: expected shape ({256**3},), got {table.shape}")
    return table


def _by_table(colormap: Any, table: np.ndarray) -> np.ndarray:
    colors = images.as_numpy(colormap)
    if colors.ndim != 3 or colors.shape[2] != 3:
        raise ValueError(f"colormap: expected shape (height, width, 3), got {colors.shape}")
    if colors.size and not (colors.min() >= 0 and colors.max() <= 255):
        raise ValueError(f"colormap: expected 0 to 255, got {colors.min()} to {colors.max()}")
    red, green, blue = np.moveaxis(colors.astype(np.int32), -1, 0)
    return table[(red * 256 + green) * 256 + blue].astype(np.int32)


def _is_vocs(table: np.ndarray) -> bool:
    """Return True if ``table`` is the book's table of ``VOC_COLORMAP``."""
    red, green, blue = VOC_COLORMAP.T
    classes = table[(red * 256 + green) * 256 + blue]
    others = np.count_nonzero(table) - np.count_nonzero(classes)
    return others == 0 and np.array_equal(classes, range(len(VOC_CLASSES)))


def label2image(label: Any) -> np.ndarray:
    """Return the colors of class indices, the inverse of ``voc_label_indices``.

    Args:
        label: integers of any shape: classes, or ``VOC_VOID`` for object boundaries.

    Returns:
        uint8 (..., 3), RGB.

    Raises:
        ValueError: an index has no color.
    """
    index = images.as_numpy(label)
    wrong = ~np.isin(index, _INDICES)
    if wrong.any():
        raise ValueError(
            f"label: expected class indices, 0 to {len(VOC_CLASSES) - 1} or {VOC_VOID}, "
            f"got {index[wrong][0]}"
        )
    return VOC_PALETTE[index.astype(np.uint8)]


def voc_rand_crop(feature: Any, label: Any, height: int, width: int) -> tuple[Any, Any]:
    """Crop an image and its label at the same random position.

    All positions are equally likely. The random numbers are those of ``random``. The arrays are
    (H, W, ...). The crops are views of them, (height, width, ...).

    Raises:
        ValueError: the sizes of the image and its label differ, or the crop does not fit.
    """
    height, width = integer("height", height), integer("width", width)
    size = tuple(feature.shape[:2])
    if size != tuple(label.shape[:2]):
        raise ValueError(f"label: expected the image's size {size}, got {tuple(label.shape[:2])}")
    if not (1 <= height <= size[0] and 1 <= width <= size[1]):
        raise ValueError(
            f"height, width: expected 1 x 1 to the image's size {size[0]} x {size[1]}, "
            f"got {height} x {width}"
        )
    y, x = random.randint(0, size[0] - height), random.randint(0, size[1] - width)
    crop = slice(y, y + height), slice(x, x + width)
    return feature[crop], label[crop]


class VOCSegDataset(mx.gluon.data.Dataset):  # type: ignore[misc, name-defined]
    """Random crops of the images of VOC2012 with their labels.

    Each access to item i makes a new crop: the image, float32 (3, height, width), normalized, and
    its classes, int32 (height, width). Only the names of the files are in memory; each access reads
    its image. Images smaller than a crop are left out, because a label cannot be resized. As in the
    book, the constructor prints the number of the others.

    It works with all kinds of workers of ``gluon.data.DataLoader``. Worker processes load into
    ``cpu_shared`` memory; ``as_in_context`` copies a batch to the device of a hybridized network.
    The crops use the generator of ``random``, whose seed repeats them. Each worker process has its
    own seed.

    Args:
        is_train: use the images of train.txt if true, or else those of val.txt.
        crop_size: height and width of the crops.
        voc_dir: the folder VOCdevkit/VOC2012.
        colormap2label: the book's table, see ``voc_label_indices``. It is only for labels whose
            colors are not VOC's. Such labels must be color images.
        void: label of boundary pixels, see ``voc_label_indices``.
        split: name of another list in ImageSets/Segmentation, for example "trainval".

    Attributes:
        dropped: the number of images smaller than a crop.

    Raises:
        FileNotFoundError: a list, an image or a label is missing.
        ValueError: a file is not an image, a label has colors that are not VOC's, the sizes of a
            label and its image differ, or all images are smaller than a crop.
    """

    normalize_image = staticmethod(normalize_image)

    def __init__(
        self,
        is_train: bool,
        crop_size: Sequence[int],
        voc_dir: str | Path,
        colormap2label: Any = None,
        *,
        void: int = 0,
        split: str | None = None,
    ) -> None:
        height, width = integers("crop_size", crop_size, "(height, width)", low=1)
        self.crop_size = height, width
        self.void = integer("void", void, 0, 255)
        self._table = None if colormap2label is None else _table(colormap2label)
        if self._table is not None and _is_vocs(self._table):
            self._table = None
        if self._table is not None and self.void:
            raise ValueError(f"void: expected 0 with colormap2label, got {void!r}")
        listed = "train" if flag("is_train", is_train) else "val"
        pairs = _pairs(voc_dir, listed if split is None else split)
        sizes = [_size(*pair) for pair in pairs]
        self._pairs = [pair for pair, (h, w) in zip(pairs, sizes) if h >= height and w >= width]
        self.dropped = len(pairs) - len(self._pairs)
        smaller = f"{self.dropped} smaller than {height} x {width}"
        if not self._pairs:
            raise ValueError(
                f"{voc_dir}: expected an image of {height} x {width} or more, "
                f"got {len(pairs)} images, {smaller}"
            )
        print(f"read {len(self._pairs)} examples" + (f", left out {smaller}" * bool(self.dropped)))

    def __len__(self) -> int:
        return len(self._pairs)

    def image(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Read a whole image, uint8 (h, w, 3), and its classes, int32 (h, w)."""
        image, label = self._pairs[index]
        if self._table is not None:
            pixels, colors = np.asarray(images.read_image(image)), _read_colors(label)
            _check_size(label, colors.shape[:2], pixels.shape[:2])
            return pixels, _by_table(colors, self._table)
        pixels, classes = _read(image, label)
        return pixels, np.where(classes == VOC_VOID, self.void, classes).astype(np.int32)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        image, label = voc_rand_crop(*self.image(index), *self.crop_size)
        pixels = normalize_image(image).transpose(2, 0, 1)
        return np.ascontiguousarray(pixels), label


# --- a small data set -----------------------------------------------------------------------------


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


def _scene(
    photo: Image.Image, rng: random.Random, height: int, width: int
) -> tuple[Image.Image, Image.Image]:
    """Draw one to three figures on a part of ``photo``.

    Returns the RGB image and its label, a palette image. The outline of a figure, two pixels wide,
    is void, as in VOC.
    """
    image = drawing.random_background(photo, max(height, width), rng).crop((0, 0, width, height))
    label = Image.new("P", image.size)
    label.putpalette(VOC_PALETTE.tobytes())
    for _ in range(rng.randint(1, 3)):
        name = rng.choice(tuple(FIGURES))
        side = round(min(height, width) * rng.uniform(0.45, 0.85))
        sprite = drawing.vary(drawing.render(FIGURES[name], side), rng, 25, 0.15)
        # The center of a figure is inside the image; its border may be outside.
        x = rng.randint(0, width) - sprite.width // 2
        y = rng.randint(0, height) - sprite.height // 2
        drawing.paste(image, sprite, x, y)
        mask = Image.new("L", image.size)
        mask.paste(sprite.getchannel("A").point(lambda v: 255 * (v > 127)), (x, y))
        inside, outside = ImageFilter.MinFilter(3), ImageFilter.MaxFilter(3)
        outline = ImageChops.subtract(mask.filter(outside), mask.filter(inside))
        label.paste(VOC_CLASSES.index(name), mask=mask)
        label.paste(VOC_VOID, mask=outline)
    return image, label


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
    voc_dir = Path(folder) / "VOCdevkit" / "VOC2012"
    lists = voc_dir / "ImageSets" / "Segmentation"
    image_dir, label_dir = voc_dir / "JPEGImages", voc_dir / "SegmentationClass"
    for path in (lists, image_dir, label_dir):
        path.mkdir(parents=True, exist_ok=True)
    names: list[str] = []
    for split, count, files in (
        ("train", train, drawing.TRAIN_PHOTOS),
        ("val", val, drawing.TEST_PHOTOS),
    ):
        photos = [drawing.photograph(file) for file in files]
        first = len(names)
        for number in range(count):
            upright = number % 4 == 3
            image, label = _scene(photos[number % len(photos)], rng, *size[:: -1 if upright else 1])
            names.append(f"2012_{len(names):06}")
            image.save(image_dir / f"{names[-1]}.jpg", quality=92)
            label.save(label_dir / f"{names[-1]}.png")
        (lists / f"{split}.txt").write_text("\n".join(names[first:]) + "\n", "utf-8")
    (lists / "trainval.txt").write_text("\n".join(names) + "\n", "utf-8")
    return voc_dir

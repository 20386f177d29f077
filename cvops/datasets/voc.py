"""Reader of the semantic segmentation data of Pascal VOC2012: see ``cvops.voc``."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cvops import images
from cvops._mxnet import mxnet
from cvops._mxnet.arrays import from_numpy
from cvops.datasets.transforms import normalize_image
from cvops.datasets.voc_labels import (
    VOC_CLASSES,
    VOC_PALETTE,
    VOC_VOID,
    by_table,
    check_table,
    is_voc_table,
    label2image,
)
from cvops.ops._check import flag, integer, integers
from cvops.ops.label_from_color import label_from_color

mx = mxnet()

#: Folder to which the book unpacks the archive.
_BOOK_DIR = "../data/VOCdevkit/VOC2012"


#: The files beside the images, by the folder of a missing one.
_CLASSES = "SegmentationClass/<name>.png"
_INSTANCES = "SegmentationObject/<name>.png, Annotations/<name>.xml"
_LABELS = {"SegmentationObject": _INSTANCES, "Annotations": _INSTANCES}


# --- reading --------------------------------------------------------------------------------------


def missing_file(path: Path, voc_dir: Path) -> FileNotFoundError:
    """Return the error about a file that is not in ``voc_dir``, with the layout of this folder."""
    for inside in (voc_dir / "VOC2012", voc_dir / "VOCdevkit" / "VOC2012"):
        if inside.is_dir():
            return FileNotFoundError(f"{path}: no such file; voc_dir should be {inside}")
    return FileNotFoundError(
        f"{path}: no such file; voc_dir is the folder VOCdevkit/VOC2012 of the archive, with "
        f"ImageSets/Segmentation/{path.name if path.suffix == '.txt' else 'train.txt'}, "
        f"JPEGImages/<name>.jpg and {_LABELS.get(path.parent.name, _CLASSES)}; "
        f"got {str(voc_dir)!r}"
    )


def listed_names(voc_dir: str | Path, split: str) -> list[str]:
    """Return the names of the images of a split."""
    voc_dir = Path(voc_dir)
    names = voc_dir / "ImageSets" / "Segmentation" / f"{split}.txt"
    if not names.is_file():
        raise missing_file(names, voc_dir)
    try:
        return names.read_text("utf-8-sig").split()
    except UnicodeDecodeError as error:
        raise ValueError(f"{names}: not a list of names in UTF-8") from error


def _pairs(voc_dir: str | Path, split: str) -> list[tuple[Path, Path]]:
    """Return the image file and the label file of each image of a split."""
    voc_dir = Path(voc_dir)
    pairs = [
        (voc_dir / "JPEGImages" / f"{name}.jpg", voc_dir / "SegmentationClass" / f"{name}.png")
        for name in listed_names(voc_dir, split)
    ]
    for pair in pairs:
        for path in pair:
            if not path.is_file():
                raise missing_file(path, voc_dir)
    return pairs


def check_size(label: Path, size: tuple[int, ...], image_size: tuple[int, ...]) -> None:
    """Raise a ValueError if a label and its image have different sizes."""
    if size != image_size:
        want, got = ("{} x {}".format(*pair) for pair in (image_size, size))
        raise ValueError(f"{label}: expected the image's size, {want}, got {got}")


def read_size(image: Path, label: Path) -> tuple[int, int]:
    """Return height and width, read from the headers only."""
    size = images.image_size(image)
    check_size(label, images.image_size(label), size)
    return size


def read_class_label(path: Path, colors: np.ndarray) -> np.ndarray:
    """Return the class of each pixel, int32 (height, width): 0 to n - 1, or ``VOC_VOID``.

    ``colors``, uint8 (n, 3), are those of the classes.
    """
    opened, is_index = images.read_label(path)
    pixels, indices = np.asarray(opened), np.array([*range(len(colors)), VOC_VOID])
    if is_index:
        wrong = ~np.isin(pixels, indices)
        if wrong.any():
            raise ValueError(
                f"{path}: expected VOC's class indices, 0 to {len(colors) - 1} or {VOC_VOID}, "
                f"got {pixels[wrong][0]} in {np.count_nonzero(wrong)} pixels"
            )
        return pixels
    rows = label_from_color(pixels, np.vstack([colors, VOC_PALETTE[VOC_VOID]]), unknown=-1)
    wrong = rows < 0
    if wrong.any():
        color = tuple(pixels[wrong][0].tolist())
        raise ValueError(
            f"{path}: expected VOC's colors, got {color} in {np.count_nonzero(wrong)} pixels"
        )
    return indices[rows].astype(np.int32)


def _read_colors(path: Path) -> np.ndarray:
    """Return the color of each pixel of a label, uint8 (height, width, 3)."""
    opened, is_index = images.read_label(path)
    if is_index:
        raise ValueError(f"{path}: expected colors, for colormap2label, got class indices")
    return np.asarray(opened)


def _read(image: Path, label: Path, count: int = len(VOC_CLASSES)) -> tuple[np.ndarray, np.ndarray]:
    """Read an image, uint8 (height, width, 3), and its classes, int32 (height, width)."""
    read_size(image, label)  # before the pixels, which may be many
    pixels = np.asarray(images.read_image(image))
    classes = read_class_label(label, VOC_PALETTE[:count])
    check_size(label, classes.shape, pixels.shape[:2])
    return pixels, classes


def read_voc_images(
    voc_dir: str | Path = _BOOK_DIR, is_train: bool = True, *, root: str | Path | None = None
) -> tuple[list, list]:
    """Read all images of train (or val), and their labels as colors, in the order of the list.

    Each is an MXNet array on the CPU, uint8 (height, width, 3). Its kind is ``mx.np`` after
    ``npx.set_np()``, or else ``mx.nd``. All of them are in memory: VOC2012 has 1,464 and 1,449,
    about 1.6 GB each. ``VOCSegDataset`` reads an image at each access instead.

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
    features = [from_numpy(image) for image, _ in pairs]
    return features, [from_numpy(label2image(label)) for _, label in pairs]


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
        classes: names of the classes, the background first; at most 255. Their colors are the first
            ones of ``VOC_PALETTE``.

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
        classes: Sequence[str] = VOC_CLASSES,
    ) -> None:
        self.classes = tuple(classes)
        if isinstance(classes, str) or not 1 <= len(self.classes) <= VOC_VOID:
            raise ValueError(f"classes: expected 1 to {VOC_VOID} names, got {classes!r}")
        height, width = integers("crop_size", crop_size, "(height, width)", low=1)
        self.crop_size = height, width
        self.void = integer("void", void, 0, 255)
        self._table = None if colormap2label is None else check_table(colormap2label)
        if self._table is not None and is_voc_table(self._table):
            self._table = None
        if self._table is not None and self.void:
            raise ValueError(f"void: expected 0 with colormap2label, got {void!r}")
        listed = "train" if flag("is_train", is_train) else "val"
        pairs = _pairs(voc_dir, listed if split is None else split)
        sizes = [read_size(*pair) for pair in pairs]
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
            read_size(image, label)
            pixels, colors = np.asarray(images.read_image(image)), _read_colors(label)
            check_size(label, colors.shape[:2], pixels.shape[:2])
            return pixels, by_table(colors, self._table)
        pixels, classes = _read(image, label, len(self.classes))
        return pixels, np.where(classes == VOC_VOID, self.void, classes).astype(np.int32)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        image, label = voc_rand_crop(*self.image(index), *self.crop_size)
        pixels = normalize_image(image).transpose(2, 0, 1)
        return np.ascontiguousarray(pixels), label

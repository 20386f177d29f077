"""Objects of Pascal VOC2012 with their masks: see ``cvops.voc``.

An instance label is a row (class, x1, y1, x2, y2, difficult, truncated). The corners are fractions
of the image's width and height. n objects have masks (n, height, width) of 0 and 1.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cvops import images
from cvops._mxnet import mxnet
from cvops._pillow import Image
from cvops.datasets.voc import check_size, listed_names, missing_file, read_size
from cvops.datasets.voc_annotations import read_voc_annotation
from cvops.datasets.voc_labels import VOC_CLASSES, VOC_PALETTE, VOC_VOID
from cvops.ops._check import flag, integer
from cvops.ops.label_from_color import label_from_color

mx = mxnet()

#: Numbers of an instance label.
WIDTH = 7

#: An object of the annotation and a mask of at least this IoU of their boxes are the same object.
_SAME = 0.3

# --- reading --------------------------------------------------------------------------------------


def _plain(name: str) -> str:
    """Return letters and digits of a name: VOC's lists and its files differ in the rest."""
    return re.sub(r"[\W_]", "", name.casefold())


def _kinds(classes: Sequence[str]) -> dict[str, int]:
    """Return the class of each name, also of plain names, if those of two classes differ."""
    plain = [_plain(name) for name in classes]
    own = {name: kind for kind, name in enumerate(plain) if name and plain.count(name) == 1}
    return own | {name: kind for kind, name in enumerate(classes)}


def read_instance_label(path: str | Path) -> np.ndarray:
    """Read a label of ``SegmentationObject``: the number of each pixel's object.

    The file has a palette, or one channel of numbers without a palette.

    Returns:
        int32 (height, width): 1, 2, ... for the objects, 0 for the background and ``VOC_VOID`` for
        the boundaries.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not an image, or a color is not in VOC's palette.
    """
    opened, is_index = images.read_label(path)
    pixels = np.asarray(opened)
    if is_index:
        numbers = pixels.astype(np.int32)
        wrong = (numbers < 0) | (numbers > VOC_VOID)
        if wrong.any():
            raise ValueError(
                f"{path}: expected numbers of objects, 0 to {VOC_VOID}, got {numbers[wrong][0]}"
            )
        return numbers
    numbers = label_from_color(pixels, VOC_PALETTE, unknown=-1)
    if (numbers < 0).any():
        color = tuple(pixels[numbers < 0][0].tolist())
        raise ValueError(f"{path}: expected colors of VOC's palette, got {color}")
    return numbers


def tight_box(mask: np.ndarray) -> tuple[int, int, int, int]:
    """Return the corners in pixels of the pixels of a mask, which has one or more."""
    y, x = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    return int(x[0]), int(y[0]), int(x[-1]) + 1, int(y[-1]) + 1


def _iou(a: Sequence[float], b: Sequence[float]) -> float:
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    both = width * height
    areas = ((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    return both / max(sum(areas) - both, 1e-9)


def numbers_of(corners: Sequence[Sequence[float]], numbers: np.ndarray) -> list[int]:
    """Return the number in a label of each object, by its box; 0 for an object without a mask.

    VOC numbers the objects in the order of the annotation, but some files may differ. An object
    has the number of its place if their boxes agree, or else the number with the largest IoU. A
    small object may have lost most of its mask to the boundary: at last its place decides.
    """
    found = [int(n) for n in np.unique(numbers) if n not in (0, VOC_VOID)]
    boxes = {n: tight_box(numbers == n) for n in found}
    overlaps = {(row, n): _iou(box, boxes[n]) for row, box in enumerate(corners) for n in found}
    own = [pair for pair in sorted(overlaps) if pair[1] == pair[0] + 1]
    others = sorted(overlaps, key=lambda pair: -overlaps[pair])
    result = [0] * len(corners)
    free = set(found)
    for pairs, least in ((own, 0.5), (others, _SAME), (own, 1e-9)):
        for row, n in pairs:
            if not result[row] and n in free and overlaps[row, n] >= least:
                result[row] = n
                free.remove(n)
    return result


# --- augmentation ---------------------------------------------------------------------------------


def mirror_instances(
    image: np.ndarray, labels: np.ndarray, masks: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mirror an image (height, width, 3), its labels (n, 5 or more) and its masks left to right."""
    labels = labels.copy()
    labels[:, [1, 3]] = 1 - labels[:, [3, 1]]
    return image[:, ::-1], labels, masks[:, :, ::-1]


def crop_instances(
    image: np.ndarray,
    labels: np.ndarray,
    masks: np.ndarray,
    crop: tuple[int, int, int, int],
    min_coverage: float = 0.5,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cut the pixels ``crop``, (x1, y1, x2, y2), from an image, its labels and its masks.

    Objects whose box has less than ``min_coverage`` of its area inside are omitted. A box that is
    cut is truncated.
    """
    height, width = image.shape[:2]
    x1, y1, x2, y2 = crop
    boxes = labels[:, 1:5].astype(np.float64) * (width, height, width, height)
    inside = np.clip(boxes, (x1, y1, x1, y1), (x2, y2, x2, y2))
    areas = [(box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1]) for box in (inside, boxes)]
    kept = (areas[0] >= min_coverage * areas[1]) & (areas[0] > 0)
    cut = labels[kept]
    scale = (x2 - x1, y2 - y1, x2 - x1, y2 - y1)
    cut[:, 1:5] = (inside[kept] - (x1, y1, x1, y1)) / scale
    if cut.shape[1] == WIDTH:
        cut[:, 6] = np.maximum(cut[:, 6], (areas[0] < areas[1])[kept])
    return image[y1:y2, x1:x2], cut, masks[kept, y1:y2, x1:x2]


def rand_crop_instances(
    image: np.ndarray,
    labels: np.ndarray,
    masks: np.ndarray,
    attempts: int = 20,
    rng: Any = random,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cut a random rectangle that keeps an object: half of the image or more, 3 : 4 to 4 : 3.

    The random numbers are those of ``rng``: a ``random.Random``, or the module ``random``. After
    ``attempts`` without an object, or for an image without objects, the whole image is the result.
    """
    height, width = image.shape[:2]
    for _ in range(attempts if len(labels) else 0):
        area, ratio = rng.uniform(0.5, 1), rng.uniform(0.75, 4 / 3) ** 0.5
        w = min(width, max(1, round(width * area**0.5 * ratio)))
        h = min(height, max(1, round(height * area**0.5 / ratio)))
        x, y = rng.randint(0, width - w), rng.randint(0, height - h)
        result = crop_instances(image, labels, masks, (x, y, x + w, y + h))
        if len(result[1]):
            return result
    return image, labels, masks


def _nearest(length: int, size: int) -> np.ndarray:
    """Return the indices of ``size`` samples of a line of ``length`` pixels."""
    return ((np.arange(size) + 0.5) * length / size).astype(np.intp)


def square_instances(
    image: np.ndarray, labels: np.ndarray, masks: np.ndarray, side: int, most: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Resize an image and its masks to a square, and fill its labels and masks up to ``most`` rows.

    Returns:
        The image, float32 (3, side, side), the labels (most, W), whose other rows are -1, and the
        masks, uint8 (most, side, side), whose other rows are 0.
    """
    pixels = np.asarray(Image.fromarray(image).resize((side, side)), np.float32)
    rows = np.full((most, labels.shape[1]), -1, np.float32)
    rows[: len(labels)] = labels
    square = np.zeros((most, side, side), np.uint8)
    if masks.size:
        y, x = (_nearest(length, side) for length in masks.shape[1:])
        square[: len(masks)] = masks[:, y[:, None], x]
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)), rows, square


# --- the data set ---------------------------------------------------------------------------------


class VOCInstanceDataset(mx.gluon.data.Dataset):  # type: ignore[misc, name-defined]
    """Images of VOC2012 with the boxes and masks of their objects.

    The images are those of ``ImageSets/Segmentation``. Item i is the image resized to a square,
    float32 (3, side, side), RGB of 0 to 255; its labels, float32 (M, 7); and its masks, uint8
    (M, side, side). M is the maximum number of objects of an image, at least 1. The other rows are
    -1, their masks 0. Rows of two items therefore stack to a batch.

    The objects, their boxes and their flags are those of ``Annotations``, in the same order. A mask
    of ``SegmentationObject`` belongs to the object of its number if their boxes agree, or else to
    the object whose box agrees best. An object without a mask has a mask of 0; a mask without an
    object is ignored. Pixels on boundaries belong to no mask.

    Args:
        is_train: use the images of train.txt if true, or else those of val.txt.
        voc_dir: the folder VOCdevkit/VOC2012.
        classes: names of the classes, VOC's by default. Case, spaces and signs do not matter,
            unless two classes differ in them alone. Objects of other classes are omitted.
        side: height and width of the items in pixels.
        mirror: mirror each item with a probability of 1/2, by the random numbers of ``random``.
        crop: crop each item by ``rand_crop_instances``.
        split: name of another list in ImageSets/Segmentation, for example "trainval".
        numbered: the number of an object in ``SegmentationObject`` is its place in ``Annotations``,
            whatever their boxes.

    Attributes:
        most: the maximum number of objects M.

    Raises:
        FileNotFoundError: a list, an image, a label or an annotation is missing.
        ValueError: an annotation is malformed or has more than 254 objects, which a label cannot
            number; or no image has an object of ``classes``, and ``numbered`` is false. Each access
            raises it for an image or a label that is damaged, or of another size, and for a box
            outside of the image.
    """

    def __init__(
        self,
        is_train: bool,
        voc_dir: str | Path,
        classes: Sequence[str] = VOC_CLASSES[1:],
        side: int = 256,
        *,
        mirror: bool = False,
        crop: bool = False,
        split: str | None = None,
        numbered: bool = False,
    ) -> None:
        self.numbered = flag("numbered", numbered)
        self.side = integer("side", side, 1)
        self.mirror, self.crop = flag("mirror", mirror), flag("crop", crop)
        self.classes = tuple(classes)
        if isinstance(classes, str) or not all(isinstance(name, str) for name in self.classes):
            raise ValueError(f"classes: expected names, got {classes!r}")
        listed = "train" if flag("is_train", is_train) else "val"
        self._voc_dir = Path(voc_dir)
        self.names = listed_names(voc_dir, listed if split is None else split)
        for name in self.names:
            for path in self._files(name):
                if not path.is_file():
                    raise missing_file(path, self._voc_dir)
        kinds = _kinds(self.classes)
        self._objects = []
        for name in self.names:
            annotation = self._files(name)[2]
            objects = read_voc_annotation(annotation)
            if len(objects) >= VOC_VOID:
                raise ValueError(
                    f"{annotation}: expected at most {VOC_VOID - 1} objects, got {len(objects)}"
                )
            named = ((kinds.get(x.name, kinds.get(_plain(x.name))), x) for x in objects)
            self._objects.append(list(named))
        counts = [sum(kind is not None for kind, _ in row) for row in self._objects]
        self.most = max(counts, default=0)
        if not (self.most or self.numbered):
            raise ValueError(
                f"{voc_dir}: expected an object of {self.classes}, got {len(self.names)} images "
                "without one"
            )
        self.most = max(self.most, 1)

    def _files(self, name: str) -> tuple[Path, Path, Path]:
        """Return the files of the image, the label and the annotation."""
        return (
            self._voc_dir / "JPEGImages" / f"{name}.jpg",
            self._voc_dir / "SegmentationObject" / f"{name}.png",
            self._voc_dir / "Annotations" / f"{name}.xml",
        )

    def __len__(self) -> int:
        return len(self.names)

    def kinds(self, index: int) -> list[int]:
        """Return the class of each object of an image."""
        return [kind for kind, _ in self._objects[index] if kind is not None]

    def scene(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Read a whole image.

        Returns:
            The image, uint8 (h, w, 3), the labels of its n objects, float32 (n, 7), and their
            masks, uint8 (n, h, w).
        """
        image_file, label_file, annotation = self._files(self.names[index])
        read_size(image_file, label_file)  # before the pixels, which may be many
        image, numbers = np.asarray(images.read_image(image_file)), read_instance_label(label_file)
        height, width = image.shape[:2]
        check_size(label_file, numbers.shape, (height, width))
        objects = self._objects[index]
        for row, (_, thing) in enumerate(objects):
            x1, y1, x2, y2 = thing.box
            if not (x1 < width and y1 < height and x2 > 0 and y2 > 0):
                raise ValueError(
                    f"{annotation}: object {row}: expected a box in the image of {width} x {height}"
                    f" pixels, got {thing.box}"
                )
        if self.numbered:
            own = list(range(1, len(objects) + 1))
        else:
            own = numbers_of([thing.box for _, thing in objects], numbers)
        labels: list[tuple[float, ...]] = []
        masks = []
        for (kind, thing), number in zip(objects, own):
            if kind is None:
                continue
            box = np.clip(np.divide(thing.box, (width, height) * 2), 0, 1).tolist()
            labels.append((kind, *box, thing.difficult, thing.truncated))
            masks.append(numbers == number if number else np.zeros((height, width), bool))
        return (
            image,
            np.array(labels, np.float32).reshape(-1, WIDTH),
            np.array(masks, np.uint8).reshape(-1, height, width),
        )

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        parts = self.scene(index)
        if self.crop:
            parts = rand_crop_instances(*parts)
        if self.mirror and random.random() < 0.5:
            parts = mirror_instances(*parts)
        return square_instances(*parts, self.side, self.most)

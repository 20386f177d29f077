"""Record files for detection, as of "Dive into Deep Learning" and of MXNet's im2rec.

``mx.image.ImageDetIter`` reads them. Boxes are (x1, y1, x2, y2), corners, in fractions of the
image's width and height.
"""

from __future__ import annotations

import contextlib
import io
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cvops._mxnet import mxnet
from cvops._pillow import Image
from cvops.datasets.drawing import photograph
from cvops.datasets.recordio import RecordFile, record_writer
from cvops.datasets.scenes import CLASSES, SIDE, scene
from cvops.images import decode_image
from cvops.ops._check import flag, integer

mx = mxnet()


def write_record(
    path: str | Path,
    photos: Sequence[str],
    count: int,
    seed: int,
    side: int = SIDE,
    most: int = 4,
    classes: Sequence[str] = CLASSES,
) -> None:
    """Write ``count`` scenes to the record file ``path``, and its index next to it (``.idx``).

    The layout of a label is that of ``ImageDetIter``: 2 (the length of this header), 5 (the numbers
    per object), then (class, x1, y1, x2, y2) of each object. Equal arguments write equal scenes.

    Args:
        photos: names of photographs, one or more.
        count: number of scenes, 0 or more.
        seed: seed of all random numbers.
        side: side of the images in pixels, 32 or more.
        most, classes: the creatures in an image, as for ``scene``.
    """
    path = Path(path)
    count, side = integer("count", count, 0), integer("side", side, 32)
    rng = random.Random(integer("seed", seed))
    if isinstance(photos, str) or not photos:
        raise ValueError(f"photos: expected one name or more, got {photos!r}")
    images = [photograph(name) for name in photos]
    with record_writer(path) as write:
        for number in range(count):
            image, labels = scene(images[number % len(images)], rng, side, most, classes)
            encoded = io.BytesIO()
            image.save(encoded, "JPEG", quality=92)
            write(number, [2.0, 5.0, *labels.ravel().tolist()], encoded.getvalue())


def read_record(path: str | Path) -> list[tuple[Image.Image, np.ndarray]]:
    """Read all images of a detection record file, RGB, with their objects.

    Args:
        path: record file from ``write_record`` or from MXNet's im2rec (``--pack-label``). If its
            index is next to it (``.idx``), the records come in the order of the index.

    Returns:
        For each record the image and its objects, float32 (n, 5) as from ``scene``. Objects of W
        numbers are (n, W): VOC's records have (class, x1, y1, x2, y2, difficult). An image without
        objects has n = 0. Objects with an empty box or a class below 0 are omitted, as by
        ``ImageDetIter``.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a record is damaged, its label is not a detection label, its boxes are not
            fractions, or its image cannot be read. The message names the file and the record.
    """
    path = Path(path)
    index = path.with_suffix(".idx")
    record = RecordFile(path, index if index.is_file() else None)
    scenes = []
    for key in record.keys:
        header, encoded = record.read(key)
        name = record.name(key)
        scenes.append((decode_image(encoded, name), _objects(header.label, name)))
    return scenes


class RecordDataset(mx.gluon.data.Dataset):  # type: ignore[misc, name-defined]
    """The images of a detection record file, each read when its item is used.

    Item i is the image, RGB, and its objects, as of :func:`read_record`, in the order of the index.
    It works with all kinds of workers of ``gluon.data.DataLoader``.

    Args:
        path: record file with an index next to it (``.idx``).

    Raises:
        FileNotFoundError: the record file or its index is missing.
        OSError: one of the two cannot be opened.
        ValueError: as :func:`read_record`. Each access raises it for a damaged record.
    """

    def __init__(self, path: str | Path) -> None:
        path = Path(path)
        self._record = RecordFile(path, path.with_suffix(".idx"))

    def __len__(self) -> int:
        return len(self._record.keys)

    def __getitem__(self, index: int) -> tuple[Image.Image, np.ndarray]:
        name, header, encoded = self._read(index)
        return decode_image(encoded, name), _objects(header.label, name)

    def kinds(self, index: int) -> list[int]:
        """Return the class of each object of an image, which is not decoded."""
        name, header, _ = self._read(index)
        kinds: list[int] = _objects(header.label, name)[:, 0].astype(np.int64).tolist()
        return kinds

    def _read(self, index: int) -> tuple[str, Any, bytes]:
        """Return the name (for messages), the header and the encoded image of a record."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"index: expected one of {len(self)} images, got {index}")
        key = self._record.keys[index]
        return self._record.name(key), *self._record.read(key)


def _objects(label: Any, name: str) -> np.ndarray:
    """Return the objects of a record's label, float32 (n, W).

    The label is A, W, the rest of the header, then n times W numbers. A is the number of values
    before the first object.
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
    """``ImageDetIter`` that reads records and images by our readers.

    It keeps images without objects. MXNet's class rejects a label without objects, joins records at
    a damaged header, and logs damaged records at a level that is not shown.
    """

    def __init__(self, path: Path, **options: Any) -> None:
        # A random order needs an index.
        index = path.with_suffix(".idx")
        indexed = index.is_file() or options.get("shuffle", False)
        self._path, self._name, self.cur = path, str(path), 0
        self._record = RecordFile(path, index if indexed else None)
        index_option = {"path_imgidx": str(index)} if indexed else {}
        super().__init__(path_imgrec=str(path), **index_option, **options)

    def next_sample(self) -> tuple[Any, bytes]:
        keys = self._record.keys if self.seq is None else self.seq
        if not self._allow_read:  # the rest of the last batch is there
            raise StopIteration
        if self.cur == len(keys):
            self.cur = 0
            raise StopIteration
        key = keys[self.cur]
        self.cur += 1
        #: Name of the last record, for messages.
        self._name = self._record.name(key)
        header, encoded = self._record.read(key)
        return header.label, encoded

    def imdecode(self, s: bytes) -> Any:
        return mx.nd.array(np.asarray(decode_image(s, self._name)), dtype=np.uint8)

    def _estimate_label_shape(self) -> tuple[int, int]:
        self.reset()
        most, widths = 1, set()
        with contextlib.suppress(StopIteration):
            while True:
                count, width = self._parse_label(self.next_sample()[0]).shape
                most = max(most, count)
                widths.add(width)
                if len(widths) > 1:
                    raise ValueError(f"{self._name}: expected objects of one width, got {widths}")
        if not widths:
            raise ValueError(f"{self._path}: expected one record or more, got none")
        self.reset()
        return most, widths.pop()

    def _parse_label(self, label: Any) -> np.ndarray:
        """Return the objects, (n, W), or one row of -1 for an image without objects."""
        objects = _objects(label, self._name)
        return objects if len(objects) else np.full((1, objects.shape[1]), -1, np.float32)

    def augmentation_transform(self, data: Any, label: np.ndarray) -> tuple[Any, np.ndarray]:
        with mx.util.np_array(False):  # MXNet mirrors arrays of mx.nd only
            data, label = super().augmentation_transform(data, label)
        label[label[:, 0] < 0] = -1  # mirroring changed the rows of -1
        return (data.as_np_ndarray() if mx.util.is_np_array() else data), label

    def _check_valid_label(self, label: np.ndarray) -> None:
        """Accept every label of ``_parse_label``, also one without objects."""


def iterator(path: str | Path, batch_size: int, side: int = SIDE, augment: bool = False) -> Any:
    """Return an ``ImageDetIter`` over a record file.

    The records come in the order of the index next to the file (``.idx``), or without an index in
    the order of the file.

    A batch has data (B, 3, side, side), RGB of 0 to 255, and label (B, m, W). An object has W
    numbers, as from :func:`read_record`. m is the maximum number of objects of an image, at least
    1. The other rows are -1, which includes all rows of an image without objects.

    Args:
        batch_size: images per batch, 1 or more.
        side: height and width of the images in pixels.
        augment: shuffle the order, which needs the index, and crop and mirror images at random. The
            random numbers are those of ``random``, whose seed repeats them.

    Raises:
        FileNotFoundError: the record file is missing, or its index with ``augment``.
        ValueError: as :func:`read_record`; or the objects of two records differ in W.
    """
    options: dict[str, Any] = {}
    batch_size, side = integer("batch_size", batch_size, 1), integer("side", side, 1)
    if flag("augment", augment):
        options = {"shuffle": True, "rand_crop": 0.5, "rand_mirror": True}
        options |= {"min_object_covered": 0.95, "min_eject_coverage": 0.9}
        options |= {"area_range": (0.5, 1.0), "max_attempts": 50}
    return _Iterator(Path(path), batch_size=batch_size, data_shape=(3, side, side), **options)

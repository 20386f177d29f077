"""Record files for detection, as of "Dive into Deep Learning" and of MXNet's im2rec.

``mx.image.ImageDetIter`` reads them. Boxes are (x1, y1, x2, y2), corners, in fractions of the
image's width and height.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import random
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cvops._mxnet import mxnet
from cvops.datasets.drawing import photograph
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
    record = mx.recordio.MXIndexedRecordIO(str(path.with_suffix(".idx")), str(path), "w")
    for number in range(count):
        image, labels = scene(images[number % len(images)], rng, side, most, classes)
        encoded = io.BytesIO()
        image.save(encoded, "JPEG", quality=92)
        header = mx.recordio.IRHeader(0, [2.0, 5.0, *labels.ravel().tolist()], number, 0)
        record.write_idx(number, mx.recordio.pack(header, encoded.getvalue()))
    record.close()


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
    scenes = []
    for name, header, encoded in _records(Path(path)):
        scenes.append((decode_image(encoded, name), _objects(header.label, name)))
    return scenes


#: Exceptions of MXNet for a record that it cannot unpack. Past the end of a file it unpacks None.
_DAMAGES = (mx.MXNetError, struct.error, TypeError, ValueError)


def _records(path: Path) -> Iterator[tuple[str, Any, bytes]]:
    """Yield the name (for messages), the header and the encoded image of each record."""
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
    for file in filter(None, (path, index)):
        if not file.is_file():
            raise FileNotFoundError(f"{file}: no such file")
        with open(file, "rb"):  # MXNet's error has many lines
            pass
    if index is None:
        return mx.recordio.MXRecordIO(str(path), "r")
    try:
        return mx.recordio.MXIndexedRecordIO(str(index), str(path), "r")
    except (IndexError, ValueError) as error:
        raise ValueError(f"{index}: not the index of a record file") from error


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
        self._path = Path(path)
        self._record = _open_record(self._path, self._path.with_suffix(".idx"))

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
        key = self._record.keys[index]
        name = f"{self._path}: record {key}"
        try:
            header, encoded = mx.recordio.unpack(self._record.read_idx(key))
        except _DAMAGES as error:
            raise ValueError(f"{name}: damaged, or not a record") from error
        return name, header, encoded


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
    """``ImageDetIter`` that keeps images without objects and reads images by ``cvops.images``.

    MXNet's class rejects a label without objects. It logs damaged records at a level that is not
    shown.
    """

    def __init__(self, path: Path, **options: Any) -> None:
        # A random order needs an index.
        index = path.with_suffix(".idx")
        indexed = index.is_file() or options.get("shuffle", False)
        _open_record(path, index if indexed else None).close()
        self._path, self._count = path, 0
        index_option = {"path_imgidx": str(index)} if indexed else {}
        super().__init__(path_imgrec=str(path), **index_option, **options)

    @property
    def _name(self) -> str:
        """Name of the last record, for messages."""
        key = self._count - 1 if self.seq is None else self.seq[self.cur - 1]
        return f"{self._path}: record {key}"

    def reset(self) -> None:
        super().reset()
        self._count = 0

    def next_sample(self) -> tuple[Any, bytes]:
        self._count += 1
        try:
            return super().next_sample()
        except StopIteration:  # MXNet continues at the first record
            self._count = 0
            raise
        except _DAMAGES as error:
            raise ValueError(f"{self._name}: damaged, or not a record") from error

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

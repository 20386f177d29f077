"""A detection set of a user: the folder that ``cvops data`` writes and ``cvops train`` reads.

``set.json`` has the kind, the names of the classes, and the splits with their counts::

    {"format": "cvops set 1", "kind": "boxes", "classes": ["bee", "frog"],
     "splits": {"train": {"images": 90, "objects": 200}, "val": {"images": 10, "objects": 21}}}

- kind "boxes": the record files ``<split>.rec`` with ``<split>.idx``, as of
  :mod:`cvops.datasets.records`. An object is (class, x1, y1, x2, y2, difficult).
- kinds "instances" and "segmentation": a VOC tree with the classes of the set, see ``cvops.voc``.

``sources.csv`` has the split, the name and the source file of each image. The name is the key of
its record, or that of its files in the VOC tree.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from cvops._files import check_regular, replacing_folder
from cvops.datasets import records
from cvops.datasets.recordio import record_writer
from cvops.datasets.scenes import SIDE
from cvops.datasets.voc import VOCSegDataset
from cvops.datasets.voc_annotations import VOCObject, write_voc_annotation
from cvops.datasets.voc_instances import VOCInstanceDataset
from cvops.datasets.voc_labels import VOC_PALETTE, VOC_VOID
from cvops.images import encoded_size
from cvops.ops._check import choice

FORMAT = "cvops set 1"
KINDS = ("boxes", "instances", "segmentation")
_QUALITY = 95  # of the images that are encoded as JPEG
_SOURCES = ("split", "name", "source")
#: Names of files may have any bytes.
_ENCODING: Any = {"encoding": "utf-8", "errors": "surrogateescape"}


class Example(NamedTuple):
    """An image of a set to write, with its n objects."""

    #: Upright RGB; or the content of an image file, which the set gets unchanged. The file in a
    #: VOC tree is a JPEG.
    image: Image.Image | bytes
    #: float (n, 6): (class, x1, y1, x2, y2, difficult), corners in fractions of width and height.
    labels: np.ndarray
    #: Number of each pixel's object, uint8 (height, width): 1 to n in the order of the labels, 0
    #: for the background, ``VOC_VOID`` for pixels to ignore. None for the kind "boxes".
    numbers: np.ndarray | None = None
    #: Name of the source file, for ``sources.csv``.
    source: str = ""


class Split(NamedTuple):
    """Counts of one split."""

    images: int
    objects: int


class Scene(NamedTuple):
    """An image of a set, with its n objects."""

    #: uint8 (height, width, 3), RGB.
    image: np.ndarray
    #: float32 (n, 6): (class, x1, y1, x2, y2, difficult), corners in fractions of width and height.
    labels: np.ndarray
    #: uint8 (n, height, width), 0 or 1; None for the kind "boxes".
    masks: np.ndarray | None


class Scenes(Sequence):
    """The images of a split, each read when it is used."""

    def __init__(self, source: Any) -> None:
        self._source = source

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"index: expected one of {len(self)} images, got {index}")
        index %= len(self)
        if isinstance(self._source, VOCInstanceDataset):
            image, labels, masks = self._source.scene(index)
            return Scene(image, labels[:, :6], masks)
        picture, objects = self._source[index]
        return Scene(np.asarray(picture), objects, None)

    def kinds(self, index: int) -> list[int]:
        """Return the class of each object of an image, which is not decoded."""
        kinds: list[int] = self._source.kinds(index)
        return kinds


@dataclass(frozen=True)
class Set:
    """A set of :func:`read_set`. Each method raises a ValueError for a split that is not there."""

    path: Path
    #: One of ``KINDS``.
    kind: str
    classes: tuple[str, ...]
    splits: dict[str, Split]

    def record(self, split: str) -> Path:
        """Return the record file of a split. The kind of the set is "boxes"."""
        self._check(split, "boxes")
        return self.path / f"{split}.rec"

    def iterator(self, split: str, batch_size: int, side: int = SIDE, augment: bool = False) -> Any:
        """Return an ``ImageDetIter`` of a split, as ``cvops.data.iterator``: kind "boxes"."""
        return records.iterator(self.record(split), batch_size, side, augment)

    def instances(
        self, split: str, side: int = 256, *, mirror: bool = False, crop: bool = False
    ) -> VOCInstanceDataset:
        """Return a split as boxes and masks: kinds "instances" and "segmentation"."""
        self._check(split, "instances", "segmentation")
        return VOCInstanceDataset(
            split == "train",
            self.path,
            self.classes,
            side,
            mirror=mirror,
            crop=crop,
            split=split,
            numbered=True,
        )

    def segmentation(self, split: str, crop_size: Sequence[int], *, void: int = 0) -> VOCSegDataset:
        """Return a split as random crops with the class of each pixel.

        The kind of the set is "instances" or "segmentation". Class 0 is the background; class i of
        the set is i + 1. See :class:`cvops.voc.VOCSegDataset` for ``void``.
        """
        self._check(split, "instances", "segmentation")
        names = ("background", *self.classes)
        return VOCSegDataset(
            split == "train", crop_size, self.path, void=void, split=split, classes=names
        )

    def scenes(self, split: str) -> Scenes:
        """Return the images of a split with their original sizes: all kinds."""
        self._check(split, *KINDS)
        if self.kind == "boxes":
            return Scenes(records.RecordDataset(self.record(split)))
        return Scenes(self.instances(split))

    def sources(self, split: str) -> list[str]:
        """Return the source file of each image of a split, in the order of the split."""
        self._check(split, *KINDS)
        path = self.path / "sources.csv"
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file")
        with open(path, newline="", **_ENCODING) as file:
            rows = [row for row in csv.DictReader(file) if row.get("split") == split]
        return [row["source"] for row in rows]

    def _check(self, split: str, *kinds: str) -> None:
        if self.kind not in kinds:
            raise ValueError(
                f"{self.path}: expected a set of kind {' or '.join(kinds)}, got {self.kind}"
            )
        if split not in self.splits:
            raise ValueError(f"split: expected one of {list(self.splits)}, got {split!r}")


def read_set(path: str | Path) -> Set:
    """Read the description of a set; its images are not read.

    Args:
        path: the folder of the set.

    Raises:
        FileNotFoundError: there is no ``set.json``, or no file of a split.
        ValueError: ``set.json`` does not describe a set.
    """
    path = Path(path)
    description = path / "set.json"
    if not description.exists():
        raise FileNotFoundError(f"{description}: no such file; `cvops data` writes a set")
    try:
        check_regular(description)
        about = json.loads(description.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{description}: not the description of a set: {error}") from error
    found = _described(about, description, path)
    for split in found.splits:
        if found.kind == "boxes":
            files = [path / f"{split}.rec", path / f"{split}.idx"]
        else:
            files = [path / "ImageSets" / "Segmentation" / f"{split}.txt"]
        for file in files:
            if not file.is_file():
                raise FileNotFoundError(f"{file}: no such file, but {description} has {split!r}")
    return found


def _described(about: Any, description: Path, path: Path) -> Set:
    got = about.get("format") if isinstance(about, dict) else type(about).__name__
    if got != FORMAT:
        raise ValueError(f"{description}: expected the format {FORMAT!r}, got {got!r}")
    kind, classes, splits = (about.get(key) for key in ("kind", "classes", "splits"))
    if kind not in KINDS:
        raise ValueError(f"{description}: kind: expected one of {list(KINDS)}, got {kind!r}")
    if not isinstance(classes, list):
        raise ValueError(f"{description}: classes: expected a list of names, got {classes!r}")
    try:
        names = check_classes(classes)
        counts = {
            split: Split(int(row["images"]), int(row["objects"])) for split, row in splits.items()
        }
        for split in counts:
            _check_name(split)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{description}: not the description of a set: {error}") from error
    return Set(path, kind, names, counts)


def check_classes(classes: Sequence[str]) -> tuple[str, ...]:
    """Return the names of classes: one or more printable texts, all different.

    Raises:
        ValueError: the names are not such texts, or one begins or ends with a space.
    """
    names = () if isinstance(classes, str) else tuple(classes)
    if not names or not all(isinstance(name, str) and name for name in names):
        raise ValueError(f"classes: expected one name or more, got {classes!r}")
    for name in names:
        if not name.isprintable() or name != name.strip():
            raise ValueError(f"classes: expected printable names without margins, got {name!r}")
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise ValueError(f"classes: expected different names, got {twice} more than once")
    return names


def _check_name(split: str) -> None:
    if not split.isidentifier():
        raise ValueError(f"splits: expected a name such as 'train', got {split!r}")


def write_set(
    path: str | Path,
    kind: str,
    classes: Sequence[str],
    splits: Mapping[str, Iterable[Example]],
    *,
    overwrite: bool = False,
    texts: Mapping[str, str] | None = None,
) -> Set:
    """Write a set and return it.

    The folder is made beside ``path`` and renamed at the end: after an error there is no folder, or
    the previous one.

    Args:
        path: the folder, which does not exist or is empty.
        kind: one of ``KINDS``.
        classes: names of the classes; the class of an object is an index.
        splits: the images by the name of their split. An iterator is read once.
        overwrite: replace a set that is there.
        texts: more text files of the folder, by name.

    Raises:
        FileExistsError: the folder has files, and it is not a set or ``overwrite`` is false.
        ValueError: an argument is not one of these values. An image of a VOC tree has no numbers,
            or more than 254 objects.
        OSError: the folder cannot be written.
    """
    path, kind, names = Path(path), choice("kind", kind, KINDS), check_classes(classes)
    for split in splits:
        _check_name(split)
    if kind != "boxes" and len(names) >= VOC_VOID:
        raise ValueError(f"classes: expected at most {VOC_VOID - 1} for masks, got {len(names)}")
    check_free(path, overwrite)
    write = _write_record if kind == "boxes" else _write_tree
    with replacing_folder(path) as part:
        counts = {}
        with open(part / "sources.csv", "w", newline="", **_ENCODING) as file:
            table = csv.writer(file)
            table.writerow(_SOURCES)
            for split, examples in splits.items():
                images = objects = 0
                for name, example in write(part, split, examples, names):
                    table.writerow((split, name, example.source))
                    images, objects = images + 1, objects + len(example.labels)
                counts[split] = Split(images, objects)
        about = {
            "format": FORMAT,
            "kind": kind,
            "classes": list(names),
            "splits": {split: count._asdict() for split, count in counts.items()},
        }
        text = json.dumps(about, indent=2, ensure_ascii=False)
        for name, content in {**(texts or {}), "set.json": text + "\n"}.items():
            (part / name).write_bytes(content.encode(**_ENCODING))
    return Set(path, kind, names, counts)


def check_free(path: Path, overwrite: bool = False) -> None:
    """Raise a FileExistsError if :func:`write_set` cannot write the folder ``path``."""
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    if not (overwrite and (path / "set.json").is_file()):
        want = "a set, or no folder" if overwrite else "no folder, or an empty one"
        raise FileExistsError(f"{path}: expected {want}, got files")


def _checked(example: Example, classes: Sequence[str]) -> Example:
    labels = np.asarray(example.labels, np.float32).reshape(-1, 6)
    name = example.source or "example"
    if not (np.isin(labels[:, 0], range(len(classes))) & np.isfinite(labels).all(axis=1)).all():
        raise ValueError(
            f"{name}: expected classes 0 to {len(classes) - 1} and finite numbers, "
            f"got {labels.tolist()}"
        )
    x1, y1, x2, y2 = labels[:, 1:5].T
    if not ((x1 >= 0) & (y1 >= 0) & (x2 <= 1) & (y2 <= 1) & (x1 < x2) & (y1 < y2)).all():
        raise ValueError(f"{name}: expected boxes in the image, got {labels[:, 1:5].tolist()}")
    return example._replace(labels=labels)


def _encoded(example: Example) -> bytes:
    if isinstance(example.image, bytes):
        return example.image
    content = io.BytesIO()
    example.image.save(content, "JPEG", quality=_QUALITY)
    return content.getvalue()


def _write_record(
    folder: Path, split: str, examples: Iterable[Example], classes: Sequence[str]
) -> Iterator[tuple[str, Example]]:
    """Write a record file; yield the key of each record and its image."""
    path = folder / f"{split}.rec"
    with record_writer(path) as write:
        for number, given in enumerate(examples):
            example = _checked(given, classes)
            write(number, [2.0, 6.0, *example.labels.ravel().tolist()], _encoded(example))
            yield str(number), example


def _write_tree(
    folder: Path, split: str, examples: Iterable[Example], classes: Sequence[str]
) -> Iterator[tuple[str, Example]]:
    """Write a split of a VOC tree; yield the name of each image and the image."""
    lists = folder / "ImageSets" / "Segmentation"
    parts = [folder / part for part in ("JPEGImages", "Annotations")]
    labels = [folder / part for part in ("SegmentationObject", "SegmentationClass")]
    for part in (lists, *parts, *labels):
        part.mkdir(parents=True, exist_ok=True)
    names = []
    for number, given in enumerate(examples):
        example, name = _checked(given, classes), f"{split}_{number:06}"
        numbers, size = _numbers(example)
        (parts[0] / f"{name}.jpg").write_bytes(_encoded(example))
        kinds = np.zeros(256, np.uint8)
        kinds[1 : len(example.labels) + 1] = example.labels[:, 0] + 1
        kinds[VOC_VOID] = VOC_VOID
        for part, pixels in zip(labels, (numbers, kinds[numbers])):
            label = Image.fromarray(pixels)
            label.putpalette(VOC_PALETTE.tobytes())
            label.save(part / f"{name}.png")
        objects = [
            VOCObject(classes[int(kind)], _whole(box, size), bool(difficult))
            for kind, *box, difficult in example.labels.tolist()
        ]
        write_voc_annotation(parts[1] / f"{name}.xml", size, objects)
        names.append(name)
        yield name, example
    (lists / f"{split}.txt").write_text("".join(f"{name}\n" for name in names), "utf-8")


def _numbers(example: Example) -> tuple[np.ndarray, tuple[int, int]]:
    """Return the numbers of the pixels' objects, and height and width."""
    name = example.source or "example"
    image = example.image
    size = image.size[::-1] if isinstance(image, Image.Image) else encoded_size(image, name)
    if len(example.labels) >= VOC_VOID:
        raise ValueError(
            f"{name}: expected at most {VOC_VOID - 1} objects, got {len(example.labels)}"
        )
    numbers = None if example.numbers is None else np.asarray(example.numbers)
    if numbers is None or numbers.shape != size or numbers.dtype != np.uint8:
        got = None if numbers is None else (numbers.shape, str(numbers.dtype))
        raise ValueError(f"{name}: expected numbers of objects, uint8 {size}, got {got}")
    most = numbers[numbers != VOC_VOID].max(initial=0)
    if most > len(example.labels):
        raise ValueError(
            f"{name}: expected numbers of {len(example.labels)} objects, got number {most}"
        )
    return numbers, size


def _whole(box: Sequence[float], size: tuple[int, int]) -> tuple[float, float, float, float]:
    """Return the corners in whole pixels, one pixel apart or more."""
    (x1, x2), (y1, y2) = (
        (min(round(low * length), length - 1), round(high * length))
        for low, high, length in zip(box[:2], box[2:], size[::-1])
    )
    return x1, y1, max(x2, x1 + 1), max(y2, y1 + 1)

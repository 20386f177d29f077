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
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cvops._files import check_regular
from cvops.datasets import records
from cvops.datasets.scenes import SIDE
from cvops.datasets.voc import VOCSegDataset
from cvops.datasets.voc_instances import VOCInstanceDataset

FORMAT = "cvops set 1"
KINDS = ("boxes", "instances", "segmentation")
#: Names of files may have any bytes.
ENCODING: Any = {"encoding": "utf-8", "errors": "surrogateescape"}


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
        with open(path, newline="", **ENCODING) as file:
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
            check_name(split)
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


def check_name(split: str) -> None:
    if not split.isidentifier():
        raise ValueError(f"splits: expected a name such as 'train', got {split!r}")

"""The writer of the sets of :mod:`cvops.datasets.sets`."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cvops._files import replacing_folder
from cvops._pillow import Image
from cvops.datasets.recordio import record_writer
from cvops.datasets.sets import ENCODING, FORMAT, KINDS, Set, Split, check_classes, check_name
from cvops.datasets.voc_annotations import VOCObject, write_voc_annotation
from cvops.datasets.voc_labels import VOC_PALETTE, VOC_VOID
from cvops.images import encoded_size
from cvops.ops._check import choice

_QUALITY = 95  # of the images that are encoded as JPEG
_SOURCES = ("split", "name", "source")


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
        TypeError: an image is not an ``Example``.
        ValueError: an argument is not one of these values. An image of a VOC tree has no numbers,
            or more than 254 objects.
        OSError: the folder cannot be written.
    """
    path, kind, names = Path(path), choice("kind", kind, KINDS), check_classes(classes)
    for split in splits:
        check_name(split)
    if kind != "boxes" and len(names) >= VOC_VOID:
        raise ValueError(f"classes: expected at most {VOC_VOID - 1} for masks, got {len(names)}")
    check_free(path, overwrite)
    write = _write_record if kind == "boxes" else _write_tree
    with replacing_folder(path) as part:
        counts = {}
        with open(part / "sources.csv", "w", newline="", **ENCODING) as file:
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
            (part / name).write_bytes(content.encode(**ENCODING))
    return Set(path, kind, names, counts)


def check_free(path: Path, overwrite: bool = False) -> None:
    """Raise a FileExistsError if :func:`write_set` cannot write the folder ``path``."""
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    is_set = (path / "set.json").is_file()
    if not (overwrite and is_set):
        want = "a set, or no folder" if overwrite else "no folder, or an empty one"
        got = "a set, which overwrite (--overwrite) replaces" if is_set else "files"
        raise FileExistsError(f"{path}: expected {want}, got {got if path.is_dir() else 'a file'}")


def _checked(example: Example, classes: Sequence[str]) -> Example:
    if not isinstance(example, Example):
        raise TypeError(f"splits: expected images as Example, got {type(example).__name__}")
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

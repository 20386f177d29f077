"""CIFAR-10 in its two public layouts, and a small made set in the layout of the binary version.

A folder of the binary version has ``data_batch_1.bin`` to ``data_batch_5.bin``, ``test_batch.bin``
and ``batches.meta.txt``. A record is one byte, the class, and 3 x 32 x 32 bytes, the red, green and
blue pixels. A folder of the Python version has pickles with these names without ``.bin`` and
``.txt``.
"""

from __future__ import annotations

import functools
import random
from pathlib import Path
from typing import Any, Callable

import numpy as np

from cvops import _pickles
from cvops._files import check_regular, replacing
from cvops._mxnet import mxnet
from cvops._mxnet.arrays import from_numpy
from cvops.datasets import drawing
from cvops.datasets.figures import FIGURES, figure_image
from cvops.ops._check import flag, integer

mx = mxnet()

#: Names of CIFAR-10's classes. A class in a label is an index into this tuple.
CIFAR10_CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)

#: Height and width of an image.
_SIDE = 32
_PIXELS = 3 * _SIDE * _SIDE
_TRAIN = tuple(f"data_batch_{i}" for i in range(1, 6))
_TEST = ("test_batch",)
#: The folders in the two archives.
_BINARY, _PICKLES = "cifar-10-batches-bin", "cifar-10-batches-py"


def read_cifar10(
    root: str | Path | None = None, train: bool = True
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Read CIFAR-10, or another set in one of its layouts.

    Pickles are read without running code of the file.

    Args:
        root: the folder of the files, or its parent folder; by default the folder of
            ``gluon.data.vision.CIFAR10``.
        train: read the five batches for training if true, or else the batch for tests.

    Returns:
        The images, uint8 (n, 32, 32, 3), RGB; their classes, int32 (n,); the names of the classes.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file has another layout, or a label is not a class. The message begins with
            the file.
    """
    batches = _TRAIN if flag("train", train) else _TEST
    root = Path(mx.base.data_dir(), "datasets", "cifar10") if root is None else Path(root)
    folder, is_binary = _find(root)
    read: Callable[[Path], tuple[np.ndarray, np.ndarray]]
    read, suffix = (_read_records, ".bin") if is_binary else (_read_pickle, "")
    names = _class_names(folder, is_binary)
    parts = []
    for batch in batches:
        path = folder / (batch + suffix)
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file")
        pixels, labels = read(path)
        wrong = np.flatnonzero((labels < 0) | (labels >= len(names)))
        if len(wrong):
            raise ValueError(
                f"{path}: expected classes 0 to {len(names) - 1}, "
                f"got {labels[wrong[0]]} at image {wrong[0]}"
            )
        parts.append((pixels.reshape(-1, 3, _SIDE, _SIDE), labels))
    pixels, labels = map(np.concatenate, zip(*parts))
    if not len(labels):
        raise ValueError(f"{folder}: expected one image or more, got none")
    return np.ascontiguousarray(pixels.transpose(0, 2, 3, 1)), labels.astype(np.int32), names


def _find(root: Path) -> tuple[Path, bool]:
    """Return the folder of the files, and True if it has the binary version."""
    for folder in (root, root / _BINARY, root / _PICKLES):
        for batch in (*_TRAIN, *_TEST):
            if (folder / f"{batch}.bin").is_file():
                return folder, True
            if (folder / batch).is_file():
                return folder, False
    raise FileNotFoundError(
        f"{root}: expected CIFAR-10, the folder {_BINARY} or {_PICKLES} of its archive, with "
        f"{_TRAIN[0]} to {_TRAIN[-1][-1]} and {_TEST[0]}, with or without .bin"
    )


def _read_records(path: Path) -> tuple[np.ndarray, np.ndarray]:
    check_regular(path)
    content = np.fromfile(path, np.uint8)
    if content.size % (1 + _PIXELS):
        raise ValueError(
            f"{path}: expected records of {1 + _PIXELS} bytes, got {content.size} bytes"
        )
    records = content.reshape(-1, 1 + _PIXELS)
    return records[:, 1:], records[:, 0]


def _read_pickle(path: Path) -> tuple[np.ndarray, np.ndarray]:
    content = _mapping(path)
    pixels, labels = content.get("data"), content.get("labels")
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.ndim != 2:
        raise ValueError(f"{path}: expected data, uint8 (n, {_PIXELS}), got {_brief(pixels)}")
    if not isinstance(labels, (list, np.ndarray)) or not all(
        isinstance(label, (int, np.integer)) for label in labels
    ):
        raise ValueError(f"{path}: expected labels, whole numbers, got {_brief(labels)}")
    if pixels.shape != (len(labels), _PIXELS):
        raise ValueError(
            f"{path}: expected data of shape ({len(labels)}, {_PIXELS}), as many as the labels, "
            f"got {pixels.shape}"
        )
    return pixels, np.array(labels, dtype=np.int64)


def _mapping(path: Path) -> dict[str, Any]:
    """Return the dictionary in a pickle. Its keys are bytes in the pickles of Python 2."""
    content = _pickles.load(path)
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a dictionary, got {_brief(content)}")
    return {_text(key): value for key, value in content.items()}


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _brief(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {value.shape}"
    return "nothing" if value is None else f"a {type(value).__name__}"


def _class_names(folder: Path, is_binary: bool) -> tuple[str, ...]:
    """Return the names of the classes in ``folder``, or those of CIFAR-10 if they are not there."""
    path = folder / ("batches.meta.txt" if is_binary else "batches.meta")
    if not path.exists():
        return CIFAR10_CLASSES
    if is_binary:
        check_regular(path)
        try:
            names: Any = path.read_text("utf-8").split("\n")
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}: not a list of names in UTF-8") from error
    else:
        names = _mapping(path).get("label_names")
        if not isinstance(names, list):
            raise ValueError(f"{path}: expected label_names, a list, got {_brief(names)}")
    found = tuple(filter(None, (_text(name).strip() for name in names)))
    if not 0 < len(found) <= 256:
        raise ValueError(f"{path}: expected 1 to 256 names of classes, got {len(found)}")
    return found


class CIFAR10(mx.gluon.data.Dataset):  # type: ignore[misc, name-defined]
    """CIFAR-10 with the interface of ``gluon.data.vision.CIFAR10``, without a download.

    Item i is the image, uint8 (32, 32, 3), an MXNet array on the CPU, and its class, int32. A slice
    has several of both. All images are in memory.

    Args:
        root, train: as for ``read_cifar10``.
        transform: function of an image and its class, which returns the item.

    Attributes:
        classes: names of the classes.

    Raises:
        As ``read_cifar10``.
    """

    def __init__(
        self,
        root: str | Path | None = None,
        train: bool = True,
        transform: Callable[..., Any] | None = None,
    ) -> None:
        images, self._label, self.classes = read_cifar10(root, train)
        self._data, self._transform = from_numpy(images), transform

    def __len__(self) -> int:
        return len(self._label)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, (int, np.integer)) and not -len(self) <= index < len(self):
            raise IndexError(f"index: expected {-len(self)} to {len(self) - 1}, got {index}")
        item = self._data[index], self._label[index]
        return item if self._transform is None else self._transform(*item)


def load_cifar10(
    is_train: bool,
    augs: Any,
    batch_size: int,
    root: str | Path | None = None,
    num_workers: int = 0,
) -> Any:
    """Return a ``DataLoader`` of batches (B, ...) of transformed images and classes (B,).

    Args:
        is_train: read the images for training and shuffle them, or else those for tests.
        augs: transform of an image, such as a pipeline of ``augmentation``.
        batch_size: images per batch, 1 or more. The last batch may have fewer.
        root: as for ``read_cifar10``.
        num_workers: number of processes that transform images.

    Raises:
        As ``read_cifar10``.
    """
    batch_size, is_train = integer("batch_size", batch_size, 1), flag("is_train", is_train)
    dataset = CIFAR10(root, is_train).transform_first(augs)
    workers = integer("num_workers", num_workers, 0)
    return mx.gluon.data.DataLoader(dataset, batch_size, shuffle=is_train, num_workers=workers)


def make_cifar10(folder: str | Path, train: int = 300, test: int = 500, seed: int = 0) -> Path:
    """Make a small set in the layout of CIFAR-10's binary version and return its folder.

    It has the five animals of ``FIGURES`` on real photographs. Training and test images have
    different photographs. Each set of five images has each animal once. Test images depend on
    neither ``seed`` nor ``train``. Equal arguments make equal data sets.

    Args:
        folder: parent folder of ``cifar-10-batches-bin``, created if necessary.
        train: number of training images, 5 or more, in five batches of nearly equal size.
        test: number of test images, 1 or more.
        seed: seed of all random numbers of the training images.
    """
    train, test, seed = integer("train", train, 5), integer("test", test, 1), integer("seed", seed)
    folder = Path(folder) / _BINARY
    folder.mkdir(parents=True, exist_ok=True)
    for batches, count, photos, rng in (
        (_TRAIN, train, drawing.TRAIN_PHOTOS, random.Random(f"train {seed}")),
        (_TEST, test, drawing.TEST_PHOTOS, random.Random("test")),
    ):
        records = _draw_records(count, photos, rng)
        for batch, part in zip(batches, np.array_split(records, len(batches))):
            with replacing(folder / f"{batch}.bin") as path:
                path.write_bytes(part.tobytes())
    with replacing(folder / "batches.meta.txt") as path:
        path.write_text("".join(f"{name}\n" for name in FIGURES), "utf-8")
    return folder


def _draw_records(count: int, files: tuple[str, ...], rng: random.Random) -> np.ndarray:
    """Return ``count`` records in a random order, uint8 (count, 3073)."""
    names, photograph = tuple(FIGURES), functools.lru_cache(None)(drawing.photograph)
    records = np.empty((count, 1 + _PIXELS), np.uint8)
    for number, record in enumerate(records):
        label = number % len(names)
        image = figure_image(names[label], photograph(rng.choice(files)), rng, _SIDE)
        record[0], record[1:] = label, np.asarray(image).transpose(2, 0, 1).ravel()
    return records[rng.sample(range(count), count)]

"""Images for classification in one folder per class, and a small made set in this layout.

The layout is that of the hot dogs of "Dive into Deep Learning", and of
``gluon.data.vision.ImageFolderDataset``::

    hotdog/
        train/hotdog/*.png   train/not-hotdog/*.png
        test/hotdog/*.png    test/not-hotdog/*.png
"""

from __future__ import annotations

import functools
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Callable

import numpy as np

from cvops import images
from cvops._mxnet import mxnet
from cvops._mxnet.arrays import from_numpy
from cvops.datasets import drawing
from cvops.datasets.figures import FIGURES, figure_image
from cvops.ops._check import choice, flag, integer

mx = mxnet()

_SUFFIXES = (".jpg", ".jpeg", ".png")


class ImageFolderDataset(mx.gluon.data.vision.ImageFolderDataset):  # type: ignore[misc, name-defined]
    """``gluon.data.vision.ImageFolderDataset`` that reads images by the rules of ``cvops.images``.

    Item i is the image, uint8 (height, width, 3), an MXNet array on the CPU, and its class, an
    index into ``synsets``. The classes are in the order of the names of their folders. Hidden files
    and files that are neither JPEG nor PNG are left out without a warning.

    Args:
        root: folder with one folder per class.
        transform: function of an image and its class, which returns the item.

    Attributes:
        synsets: names of the classes.
        items: pairs of the file and the class of each image.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: there are no folders of classes, or one of them has no images. At an access:
            the file is not an image that can be read. The message begins with the path.
    """

    def __init__(self, root: str | Path, transform: Callable[..., Any] | None = None) -> None:
        super().__init__(str(root), 1, transform)

    def _list_images(self, root: str) -> None:
        folder = Path(root)
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder}: no such folder")
        kinds = sorted(part for part in folder.iterdir() if _is_shown(part) and part.is_dir())
        if not kinds:
            raise ValueError(f"{folder}: expected a folder for each class, got none")
        self.synsets = [kind.name for kind in kinds]
        self.items = []
        for label, kind in enumerate(kinds):
            files = [
                (str(file), label)
                for file in sorted(kind.iterdir())
                if _is_shown(file) and file.suffix.lower() in _SUFFIXES
            ]
            if not files:
                raise ValueError(
                    f"{kind}: expected images, {', '.join(_SUFFIXES)}, got none; {folder} has one "
                    "folder per class"
                )
            self.items += files

    def __getitem__(self, index: int) -> Any:
        path, label = self.items[index]
        item = from_numpy(np.asarray(images.read_image(path))), label
        return item if self._transform is None else self._transform(*item)


def _is_shown(path: Path) -> bool:
    return not path.name.startswith(".")


def read_image_folders(root: str | Path) -> tuple[ImageFolderDataset, ImageFolderDataset]:
    """Return the data sets ``root``/train and ``root``/test.

    Raises:
        FileNotFoundError: one of the two folders is missing.
        ValueError: as ``ImageFolderDataset``; or the two have different classes.
    """
    train, test = (ImageFolderDataset(Path(root, part)) for part in ("train", "test"))
    if train.synsets != test.synsets:
        raise ValueError(
            f"{Path(root, 'test')}: expected the classes of train, {train.synsets}, "
            f"got {test.synsets}"
        )
    return train, test


def load_image_folders(root: str | Path, is_train: bool, augs: Any, batch_size: int) -> Any:
    """Return a ``DataLoader`` of batches (B, ...) of transformed images and classes (B,).

    Args:
        root: folder with the folders train and test.
        is_train: read train and shuffle its images, or else read test.
        augs: transform of an image, whose results have one size.
        batch_size: images per batch, 1 or more. The last batch may have fewer.

    Raises:
        As ``read_image_folders``.
    """
    batch_size, is_train = integer("batch_size", batch_size, 1), flag("is_train", is_train)
    train, test = read_image_folders(root)
    dataset = (train if is_train else test).transform_first(augs)
    return mx.gluon.data.DataLoader(dataset, batch_size, shuffle=is_train)


def make_image_folders(
    folder: str | Path,
    classes: Sequence[str] = ("bee", "frog"),
    train: int = 120,
    test: int = 200,
    seed: int = 0,
    side: int = 64,
) -> Path:
    """Make a small set of drawn animals in the layout of this module, and return ``folder``.

    Training and test images have different photographs. Each class has as many images as the
    others, or one more. Test images depend on neither ``seed`` nor ``train``. Equal arguments make
    equal images and replace them.

    Args:
        folder: parent folder of train and test, created if necessary.
        classes: two or more of ``FIGURES``.
        train, test: number of images, that of the classes or more.
        seed: seed of all random numbers of the training images.
        side: height and width of the images, 16 or more.

    Raises:
        ValueError: an argument is not one of these values.
        FileExistsError: train or test has other files.
    """
    names = tuple(choice("classes", name, tuple(FIGURES)) for name in classes)
    if len(names) < 2 or len(set(names)) < len(names):
        raise ValueError(f"classes: expected two different names or more, got {list(classes)}")
    train, test = integer("train", train, len(names)), integer("test", test, len(names))
    seed, side, folder = integer("seed", seed), integer("side", side, 16), Path(folder)
    counts = {"train": train, "test": test}
    files = {
        folder / part / names[number % len(names)] / f"{number:05}.png": part
        for part, count in counts.items()
        for number in range(count)
    }
    for part in counts:
        for path in (folder / part).rglob("*"):
            if path not in files and not path.is_dir():
                raise FileExistsError(f"{path}: expected an empty folder, or one of such a set")
    photos = {"train": drawing.TRAIN_PHOTOS, "test": drawing.TEST_PHOTOS}
    photograph = functools.lru_cache(None)(drawing.photograph)
    generators = {"train": random.Random(f"train {seed}"), "test": random.Random("test")}
    for path, part in files.items():
        rng = generators[part]
        path.parent.mkdir(parents=True, exist_ok=True)
        photo = photograph(rng.choice(photos[part]))
        figure_image(path.parent.name, photo, rng, side).save(path)
    return folder

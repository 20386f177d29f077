"""The images of a split of a set, read by several threads, and the weights of its classes."""

from __future__ import annotations

import contextlib
import io
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from cvops.datasets.loading import load_groups
from cvops.datasets.sets import Scene, Set
from cvops.datasets.voc_labels import VOC_VOID

#: The text for weights in inverse proportion to the frequencies of the classes.
BALANCED = "balanced"


class Split:
    """The images of a split, which several threads can read.

    Args:
        data: the set.
        split: name of the split.
        difficult: False leaves out the objects that are difficult.

    Attributes:
        classes: names of the classes.
        names: name of each image, for messages: its source file if it is known.
    """

    def __init__(self, data: Set, split: str, difficult: bool = True) -> None:
        self.data, self.split, self.difficult = data, split, difficult
        self.classes = data.classes
        self._local = threading.local()  # record files have a position
        self._local.scenes = scenes = data.scenes(split)
        self._shared = None if data.kind == "boxes" else scenes
        self._order: Sequence[int] = range(len(scenes))
        sources = []
        with contextlib.suppress(FileNotFoundError):
            sources = data.sources(split)
        if len(sources) != len(scenes):
            sources = [f"{data.path}: image {number} of {split}" for number in self._order]
        self.names: Sequence[str] = sources
        self._segmentation: Any = None
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._order)

    def kinds(self) -> list[list[int]]:
        """Return the classes of the objects of each image, difficult ones included."""
        scenes = self._scenes()
        return [scenes.kinds(index) for index in self._order]

    def _scenes(self) -> Any:
        """Return the images for this thread."""
        if not hasattr(self._local, "scenes"):
            self._local.scenes = self._shared or self.data.scenes(self.split)
        return self._local.scenes

    def scene(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Read an image.

        Returns:
            The image, uint8 (h, w, 3), the labels of its n objects, float32 (n, 6) as of
            ``cvops.datasets.sets.Scene``, and their masks, uint8 (n, h, w), or (n, 0, 0) if the set
            has none.

        Raises:
            ValueError: the image or its label cannot be read.
        """
        scene: Scene = self._scenes()[self._order[index]]
        image, labels, masks = scene
        if masks is None:
            masks = np.zeros((len(labels), 0, 0), np.uint8)
        if not self.difficult:
            kept = labels[:, 5] == 0
            labels, masks = labels[kept], masks[kept]
        return image, labels, masks

    def pixels(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Read an image, uint8 (h, w, 3), and its classes, int32 (h, w), of a set with masks.

        Class 0 is the background. ``VOC_VOID`` marks pixels to ignore.
        """
        with self._lock:
            if self._segmentation is None:
                with contextlib.redirect_stdout(io.StringIO()):  # the book's class prints
                    self._segmentation = self.data.segmentation(self.split, (1, 1), void=VOC_VOID)
        pair: tuple[np.ndarray, np.ndarray] = self._segmentation.image(self._order[index])
        return pair

    def without_broken(self, threads: int) -> list[str]:
        """Read all images and leave out those that cannot be read; return a message for each."""

        def problem(index: int) -> str | None:
            try:
                self.scene(index)
            except (OSError, ValueError) as error:
                return f"{self.names[index]}: {error}"
            return None

        (found,) = load_groups(problem, [range(len(self))], threads)
        self._keep([index for index, message in enumerate(found) if message is None])
        return [message for message in found if message is not None]

    def _keep(self, kept: Sequence[int]) -> None:
        self._order = [self._order[index] for index in kept]
        self.names = [self.names[index] for index in kept]


def class_weights(given: Sequence[str], split: Split, pixels: bool, threads: int) -> Any:
    """Return the weight of each class, the background first, or None without weights.

    Args:
        given: texts "name=weight", or "balanced" alone: the mean of the frequencies of the classes
            divided by the frequency of each class. The background and the other classes have 1.
        split: the training images.
        pixels: the frequencies are those of pixels, of the background too, or else of objects.
        threads: threads that read the labels.

    Raises:
        ValueError: a text is not of this form, or has no class of the set.
    """
    if not given:
        return None
    names = ("background", *split.classes)
    if list(given) == [BALANCED]:
        counts = _pixel_counts(split, threads) if pixels else _object_counts(split)
        present = counts > 0
        weights = np.ones(len(names))
        weights[present] = counts[present].mean() / counts[present]
        return weights.tolist()
    weights = np.ones(len(names))
    for text in given:
        name, _, number = text.rpartition("=")
        try:
            weights[names.index(name)] = float(number)
        except ValueError:
            raise ValueError(
                f"class_weights: expected <class>=<number> with a class of {list(names)}, or "
                f"{BALANCED!r} alone, got {text!r}"
            ) from None
    return weights.tolist()


def _object_counts(split: Split) -> np.ndarray:
    """Return the number of objects of each class, 0 for the background."""
    kinds = [kind + 1 for row in split.kinds() for kind in row]
    return np.bincount(np.array(kinds, np.intp), minlength=len(split.classes) + 1)


def _pixel_counts(split: Split, threads: int) -> np.ndarray:
    def count(index: int) -> np.ndarray:
        label = split.pixels(index)[1]
        return np.bincount(label[label != VOC_VOID], minlength=len(split.classes) + 1)

    (counts,) = load_groups(count, [range(len(split))], threads)
    return np.sum(counts, axis=0)

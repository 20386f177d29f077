"""The interface between a model and its training, evaluation and detection."""

from __future__ import annotations

import abc
import dataclasses
import random
from collections.abc import Mapping, Sequence
from typing import Any, Callable, NamedTuple

import numpy as np

from cvops.ops._check import number
from cvops.recipes.splits import Split

#: A function that a long computation calls now and then; it may raise an exception.
Check = Callable[[], None]


def nothing() -> None:
    """Check nothing."""


def check_nms_threshold(value: Any) -> float:
    """Return an IoU from which on a box is suppressed; at 0 the detectors differ.

    Raises:
        TypeError: ``value`` is not a number.
        ValueError: it is not above 0 and at most 1.
    """
    found = number("nms_threshold", value, 0, 1)
    if found == 0:
        raise ValueError(f"nms_threshold: expected a number above 0, got {value!r}")
    return found


class Found(NamedTuple):
    """The detections, or the segmentation, of one image of height and width ``size``."""

    size: tuple[int, int]
    #: float32 (n, 6), rows (class, score, x1, y1, x2, y2), corners in pixels, best first.
    rows: np.ndarray
    #: The score of each cell of each box's mask, float32 (n, h, w); None without masks.
    cells: np.ndarray | None = None
    #: The class of each pixel, int32 (height, width), 0 for the background; None of a detector.
    pixels: np.ndarray | None = None

    def masks(self) -> np.ndarray | None:
        """Return the masks of the rows, uint8 (n, height, width) of 0 and 1, if there are any."""
        if self.cells is None:
            return None
        from cvops.ops.paste_masks import paste_masks

        return paste_masks(self.cells, np.ascontiguousarray(self.rows[:, 2:]), self.size)


class Evaluation(NamedTuple):
    """Results of a network on a split."""

    #: Metrics of the split by name; NaN without objects.
    values: dict[str, float]
    #: Metrics of each class: class, metric, value.
    classes: dict[str, dict[str, float]]
    #: Counts (n, n), one row per true class, and the names of rows and columns.
    confusion: np.ndarray
    names: tuple[str, ...]
    #: Number of errors in each image: wrong detections and missed objects, or wrong pixels.
    errors: list[int]


@dataclasses.dataclass(frozen=True)
class Network:
    """The arguments of a network."""

    classes: tuple[str, ...]
    side: int
    backbone: str
    #: True, or a file of weights, begins with pretrained weights.
    pretrained: Any = False


class Recipe(abc.ABC):
    """The parts of training, evaluation and detection that differ between models.

    A recipe has no state. Images are uint8 (h, w, 3), RGB.
    """

    #: Name of the model, and its name in the JSON file of the parameters.
    name: str
    saved_name: str
    #: Kinds of the sets with labels for it.
    kinds: tuple[str, ...]
    #: Names of its backbones, the default first, and of those with pretrained weights.
    backbones: tuple[str, ...]
    pretrained: tuple[str, ...] = ()
    #: Side of the training images, maximum learning rate, optimizer and its options.
    side = 256
    rate = 1e-3
    optimizer = "adam"
    options: Mapping[str, float] = {"wd": 1e-4}
    #: The metric that selects the best parameters.
    metric: str
    #: The result is the class of each pixel, or else boxes.
    segments = False

    @abc.abstractmethod
    def make(self, network: Network, devices: Sequence[Any]) -> Any:
        """Return an initialized network on MXNet's contexts."""

    @abc.abstractmethod
    def load(self, path: Any) -> Any:
        """Return the network that ``net.save`` wrote to ``path``, on the CPU."""

    @abc.abstractmethod
    def item(
        self, split: Split, side: int, augment: bool, most: int
    ) -> Callable[[int, random.Random], tuple[np.ndarray, ...]]:
        """Return a function from an index and random numbers to the arrays of ``step``.

        Args:
            side: height and width of the arrays.
            augment: change the image by the random numbers.
            most: the maximum number of objects of an image.
        """

    @abc.abstractmethod
    def training(self, net: Any, weights: Sequence[float] | None) -> tuple[Any, tuple[str, ...]]:
        """Return a block or function for ``step``, and the names of the numbers of a step."""

    @abc.abstractmethod
    def step(self, training: Any, trainer: Any, batch: Sequence[np.ndarray]) -> list[float]:
        """Train on a batch and return its losses, the total first."""

    @abc.abstractmethod
    def predictor(
        self, net: Any, threshold: float, nms_threshold: float = 0.3
    ) -> Callable[[Sequence[np.ndarray]], list[Found]]:
        """Return a function from a batch of images to the result of each of them."""

    @abc.abstractmethod
    def evaluate(
        self,
        net: Any,
        split: Split,
        batch_size: int = 16,
        threads: int = 2,
        check: Check = nothing,
        full: bool = True,
    ) -> Evaluation:
        """Evaluate ``net`` on all images of a split.

        Args:
            batch_size: images per batch.
            threads: threads that read images.
            check: called before each batch.
            full: False computes ``values`` alone.
        """

    def class_names(self, net: Any) -> tuple[str, ...]:
        """Return the names of the classes of ``Found``."""
        names: tuple[str, ...] = net.classes
        return names

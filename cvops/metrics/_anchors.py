"""Errors of the anchors of a detector, for its training."""

from __future__ import annotations

import dataclasses
import math

from cvops.ops._check import integer, number


@dataclasses.dataclass
class AnchorErrors:
    """Class error and box error of anchors, summed over batches.

    Attributes:
        anchors: the number of anchors.
        right: the number of anchors whose class is right.
        offset_error: the sum of the absolute errors of the offsets.
    """

    anchors: int = 0
    right: float = 0.0
    offset_error: float = 0.0

    def __post_init__(self) -> None:
        self.anchors = integer("anchors", self.anchors, 0, 2**63)
        self.right = number("right", self.right, 0, self.anchors)
        self.offset_error = number("offset_error", self.offset_error, 0)

    def add(self, anchors: int, right: float, offset_error: float) -> None:
        """Add a batch.

        Args:
            anchors: number of anchors in the batch.
            right: number of anchors in the batch whose class is right.
            offset_error: sum of the absolute errors of the offsets, four per anchor; masked offsets
                have an error of 0.

        Raises:
            TypeError: an argument is not a number.
            ValueError: an argument is negative or NaN, or ``right`` is above ``anchors``.
        """
        batch = AnchorErrors(anchors, right, offset_error)
        self.anchors += batch.anchors
        self.right += batch.right
        self.offset_error += batch.offset_error

    @property
    def class_error(self) -> float:
        """Fraction of anchors whose class is wrong; NaN without anchors."""
        return 1 - self.right / self.anchors if self.anchors else math.nan

    @property
    def box_mae(self) -> float:
        """Mean absolute error of the offsets, including masked ones; NaN without anchors."""
        return self.offset_error / (4 * self.anchors) if self.anchors else math.nan

"""The boxes of the selective search."""

from __future__ import annotations

from typing import Any

import numpy as np

from cvops.proposals import selective_search

#: Maximum number of boxes of the selective search in an image.
MOST = 300


def search(dataset: Any, most: int = MOST) -> np.ndarray:
    """Return the boxes of the selective search in each image, (images, most, 4), in fractions.

    Rows of -1 are padding.
    """
    boxes = np.full((len(dataset), most, 4), -1, np.float32)
    for row, number in zip(boxes, range(len(dataset))):
        image, _, _ = dataset.scene(number)
        found = selective_search(image, most=most)
        row[: len(found)] = found / (image.shape[1::-1] * 2)
    return boxes


def valid(boxes: np.ndarray) -> np.ndarray:
    """Return the boxes without the padding."""
    return boxes[boxes[:, 2] > boxes[:, 0]]

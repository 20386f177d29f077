"""Inputs that several benchmarks share: anchors of models, random boxes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

import cvops

#: The feature maps of TinySSD at 256 x 256, side and sizes: 5,444 anchors with the ratios below.
TINY_SSD = (
    (32, (0.2, 0.272)),
    (16, (0.37, 0.447)),
    (8, (0.54, 0.619)),
    (4, (0.71, 0.79)),
    (1, (0.88, 0.961)),
)
TINY_SSD_RATIOS = (1, 2, 0.5)
#: Feature maps with the 24,564 anchors of SSD at 512 x 512.
SSD_512 = (
    (64, (0.07, 0.1025)),
    (32, (0.15, 0.2121, 0.18, 0.13)),
    (16, (0.3, 0.3674, 0.33, 0.28)),
    (8, (0.45, 0.5196, 0.48, 0.42)),
    (4, (0.6, 0.6708, 0.63, 0.57)),
    (2, (0.75, 0.8216)),
    (1, (0.9, 0.9721)),
)


def anchors(maps: Sequence[tuple[int, Sequence[float]]]) -> np.ndarray:
    """Return the anchors of a model, float32 (1, A, 4)."""
    sides, sizes = zip(*maps)
    return cvops.multibox_priors(
        [(side, side) for side in sides], sizes, [TINY_SSD_RATIOS] * len(maps)
    )


def boxes(rng: Any, num: int, small: float = 0.02, large: float = 0.3) -> np.ndarray:
    """Return random corners, float32 (num, 4), in an image of size 1, with sides in that range."""
    center = rng.random((num, 2))
    half = rng.uniform(small, large, (num, 2)) / 2
    return np.concatenate([center - half, center + half], axis=1).astype(np.float32)


def rotated_boxes(rng: Any, num: int, small: float = 0.02, large: float = 0.12) -> np.ndarray:
    """Return random centers, sides and angles, float32 (num, 5), in an image of size 1."""
    sides = rng.uniform(small, large, (num, 2))
    angles = rng.uniform(-180, 180, (num, 1))
    return np.concatenate([rng.random((num, 2)), sides, angles], axis=1).astype(np.float32)

"""The parts of the networks that need no framework: constants, checks of arguments, predictions.

:mod:`cvops.models` (Gluon) and :mod:`cvops.torch.models` share them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

#: Mean and standard deviation of ImageNet's channels (RGB, 0 to 1), for pretrained networks.
MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)

#: The maximum ``side`` of training images: a saved network may have any number.
MAX_SIDE = 4096


def class_names(classes: Any) -> tuple[str, ...]:
    """Return ``classes`` as a tuple; refuse everything but one or more names."""
    listed = isinstance(classes, Iterable) and not isinstance(classes, str)
    names = tuple(classes) if listed else ()
    if not names or not all(isinstance(name, str) for name in names):
        raise ValueError(f"classes: expected one or more names, got {classes!r}")
    return names

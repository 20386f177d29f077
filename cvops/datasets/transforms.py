"""Transforms of images that data sets and models share."""

from __future__ import annotations

from typing import Any

import numpy as np

from cvops._mxnet import mxnet
from cvops._mxnet.arrays import from_numpy
from cvops._networks import MEAN as MEAN
from cvops._networks import STD as STD

mx = mxnet()


def normalize_image(image: Any) -> Any:
    """Subtract ImageNet's mean from an image and divide by ImageNet's standard deviation.

    Args:
        image: (..., 3), RGB, 0 to 255: an array of MXNet, or anything that NumPy converts.

    Returns:
        float32 (..., 3): for an MXNet array (``mx.nd`` or ``mx.np``) one of the same kind on the
        same device, or else a NumPy array.
    """
    if isinstance(image, mx.nd.NDArray):
        return from_numpy(normalize_image(image.asnumpy()), like=image)
    return (np.asarray(image, np.float32) / 255 - MEAN) / STD


def as_pixels(name: str, image: Any) -> np.ndarray:
    """Return an image as a NumPy array (H, W, 3), RGB of 0 to 255.

    A Pillow image is read by the rules of ``cvops.images``: H and W are those of the upright image.

    Raises:
        ValueError: ``image`` is not (H, W, 3), 1 or more each. The message begins with ``name``.
    """
    if not isinstance(image, np.ndarray):
        from cvops.images import as_numpy  # needs Pillow

        image = as_numpy(image)
    pixels: np.ndarray = image
    if pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
        raise ValueError(f"{name}: expected shape (H, W, 3), got {pixels.shape}")
    return pixels

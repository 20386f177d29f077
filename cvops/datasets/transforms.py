"""Transforms of images that data sets and models share."""

from __future__ import annotations

from typing import Any

import numpy as np

from cvops._mxnet import mxnet
from cvops._mxnet.arrays import from_numpy

mx = mxnet()

#: Mean and standard deviation of ImageNet's channels (RGB, 0 to 1), for pretrained networks.
MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)


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

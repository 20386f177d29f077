"""Class indices from an image of colors."""

from __future__ import annotations

from typing import TypeVar

import numpy as np

from cvops.ops import _check
from cvops.ops._op import DeviceOps, Op, Signature

Array = TypeVar("Array")
_OP = Op("label_from_color", image="uint8 (..., W, 3)", colormap="uint8 (K, 3)")


def label_from_color(
    image: Array, colormap: Array, unknown: int = 0, *, backend: str | None = None
) -> Array:
    """Return the index in ``colormap`` of the color of each pixel.

    The result is that of ``voc_label_indices`` of "Dive into Deep Learning". Each call makes a hash
    table of the colormap, in place of the book's table of all 2**24 colors. MXNet 1.9.1 has no such
    operator.

    Args:
        image: colors (red, green, blue), uint8 (..., W, 3).
        colormap: the color of each class, uint8 (K, 3) with K from 1 to 65535.
        unknown: the result for a color that is not in ``colormap``; an int32.
        backend: the implementation; by default the best for the arrays' device.

    Returns:
        int32 ``image.shape[:-1]``. Among equal colors in ``colormap``, the lowest index counts. An
        empty image gives an empty result. There is no gradient.

    Raises:
        TypeError: an input is not a uint8 array; the inputs differ in library or device;
            ``unknown`` is not an integer.
        ValueError: ``image`` is not (..., W, 3); ``colormap`` is not (K, 3), or K is out of range;
            ``unknown`` does not fit into int32.

    Example:
        >>> colormap = np.uint8([[0, 0, 0], [128, 0, 0]])
        >>> colors = np.uint8([[128, 0, 0], [0, 0, 0], [1, 2, 3]])
        >>> cvops.label_from_color(colors, colormap, unknown=-1)
        array([ 1,  0, -1], dtype=int32)
    """
    signature = _OP.signature.get(backend, image=image, colormap=colormap)
    return signature.run((image, colormap), (_check.integer("unknown", unknown),))


@_OP.check
def _check_shapes(signature: Signature) -> None:
    num_colors = signature.sizes["K"]
    if not 1 <= num_colors <= 65535:
        raise ValueError(f"colormap: expected 1 to 65535 colors, got {num_colors}")


@_OP.implementation("numpy")
def _numpy(image: np.ndarray, colormap: np.ndarray, unknown: int) -> np.ndarray:
    # Sorted, each color with its first index.
    colors, indices = np.unique(_packed(colormap), return_index=True)
    wanted = _packed(image)
    at = np.minimum(np.searchsorted(colors, wanted), len(colors) - 1)
    return np.where(colors[at] == wanted, indices[at], unknown).astype(np.int32)


def _packed(colors: np.ndarray) -> np.ndarray:
    """Pack each color into one number."""
    red, green, blue = np.moveaxis(colors.astype(np.int32), -1, 0)
    return red << 16 | green << 8 | blue


@_OP.implementation("native")
def _native(device: DeviceOps, image: np.ndarray, colormap: np.ndarray, unknown: int) -> np.ndarray:
    out = device.empty(image.shape[:-1], np.int32)
    device.ops.label_from_color(out, image, colormap, unknown)
    return out

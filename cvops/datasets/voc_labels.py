"""VOC's classes, their colors, and the conversion of labels between colors and class indices."""

from __future__ import annotations

from typing import Any

import numpy as np

from cvops import images
from cvops._mxnet import mxnet
from cvops._mxnet.arrays import from_numpy
from cvops.ops._check import integer
from cvops.ops.label_from_color import label_from_color

mx = mxnet()

#: Names of the classes. A class index in a label is an index into this tuple.
VOC_CLASSES = (
    "background",
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "potted plant",
    "sheep",
    "sofa",
    "train",
    "tv/monitor",
)


def _palette() -> np.ndarray:
    """Return VOC's colors, uint8 (256, 3).

    The bits of an index, from the lowest one, go to red, green and blue in turn. Each channel gets
    them from its highest bit down.
    """
    bits = np.arange(256)[:, None] >> np.arange(8) & 1
    red, green, blue = bits[:, 0::3], bits[:, 1::3], bits[:, 2::3]
    columns = red @ (128, 64, 32), green @ (128, 64, 32), blue @ (128, 64)
    return np.stack(columns, axis=1).astype(np.uint8)


#: Color of each index in VOC's PNG files, uint8 (256, 3).
VOC_PALETTE = _palette()

#: Colors of the classes, int64 (21, 3). The book's index of a color needs 24 bits.
VOC_COLORMAP = VOC_PALETTE[: len(VOC_CLASSES)].astype(np.int64)

#: Index of the pixels on object boundaries, which VOC ignores. Their color is (224, 224, 192).
VOC_VOID = 255

#: All valid indices in a label.
_INDICES = np.array([*range(len(VOC_CLASSES)), VOC_VOID])


def voc_label_indices(colormap: Any, colormap2label: Any = None, *, void: int = 0) -> Any:
    """Return the class of each pixel of a label.

    Args:
        colormap: integers 0 to 255, (height, width, 3), RGB, an array of NumPy or MXNet.
        colormap2label: the book's table, (2**24,), an array of NumPy or MXNet. The class of the
            color (r, g, b) is at (r * 256 + g) * 256 + b. If None, the colors are those of
            ``VOC_COLORMAP``, without a table: see ``cvops.label_from_color``.
        void: index of all pixels whose color is not in ``VOC_COLORMAP``. In VOC's labels these are
            the object boundaries. The default is the book's, 0, the background. A loss and a metric
            can ignore ``VOC_VOID``. With a table ``void`` must be 0, because the table defines all
            colors.

    Returns:
        int32 (height, width), an array of the same library and kind (``mx.nd`` or ``mx.np``).

    Raises:
        ValueError: the shape or the values of an array are not as above, or ``void`` is not 0 with
            a table.
    """
    void = integer("void", void)
    if colormap2label is not None:
        if void:
            raise ValueError(f"void: expected 0 with colormap2label, got {void!r}")
        label = by_table(colormap, check_table(colormap2label))
        return from_numpy(label, like=colormap) if isinstance(colormap, mx.nd.NDArray) else label
    colors = VOC_COLORMAP.astype(np.uint8)
    if isinstance(colormap, mx.nd.NDArray):
        colors = from_numpy(colors, like=colormap)
    return label_from_color(colormap, colors, unknown=void)


def check_table(colormap2label: Any) -> np.ndarray:
    table = images.as_numpy(colormap2label)
    if table.shape != (256**3,):
        raise ValueError(f"colormap2label: expected shape ({256**3},), got {table.shape}")
    return table


def by_table(colormap: Any, table: np.ndarray) -> np.ndarray:
    colors = images.as_numpy(colormap)
    if colors.ndim != 3 or colors.shape[2] != 3:
        raise ValueError(f"colormap: expected shape (height, width, 3), got {colors.shape}")
    if colors.size and not (colors.min() >= 0 and colors.max() <= 255):
        raise ValueError(f"colormap: expected 0 to 255, got {colors.min()} to {colors.max()}")
    red, green, blue = np.moveaxis(colors.astype(np.int32), -1, 0)
    return table[(red * 256 + green) * 256 + blue].astype(np.int32)


def is_voc_table(table: np.ndarray) -> bool:
    """Return True if ``table`` is the book's table of ``VOC_COLORMAP``."""
    red, green, blue = VOC_COLORMAP.T
    classes = table[(red * 256 + green) * 256 + blue]
    others = np.count_nonzero(table) - np.count_nonzero(classes)
    return others == 0 and np.array_equal(classes, range(len(VOC_CLASSES)))


def label2image(label: Any) -> np.ndarray:
    """Return the colors of class indices, the inverse of ``voc_label_indices``.

    Args:
        label: integers of any shape: classes, or ``VOC_VOID`` for object boundaries.

    Returns:
        uint8 (..., 3), RGB.

    Raises:
        ValueError: an index has no color.
    """
    index = images.as_numpy(label)
    wrong = ~np.isin(index, _INDICES)
    if wrong.any():
        raise ValueError(
            f"label: expected class indices, 0 to {len(VOC_CLASSES) - 1} or {VOC_VOID}, "
            f"got {index[wrong][0]}"
        )
    return VOC_PALETTE[index.astype(np.uint8)]

"""Bins of :mod:`deformable_psroi_pooling` with their samples: the reference of both directions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from cvops.ops.psroi_pooling import Sizes, cells_of, channels_of, rounded


class Options(NamedTuple):
    """``DeformablePsroi`` of the extension: the fields of ``Psroi``, then its own."""

    images: int
    channels: int
    height: int
    width: int
    output_dim: int
    pooled: int
    group: int
    scale: float
    part: int
    samples: int
    trans_std: float
    classes: int

    @property
    def psroi(self) -> Sizes:
        return Sizes(*self[:8])


class _Axis:
    """The samples of a bin along one axis, those in the map."""

    def __init__(self, begin: Any, step: Any, size: int, options: Options):
        #: Low and high pixel, low and high weight of each.
        self.samples = []
        for k in range(options.samples):
            at = begin + np.float32(k) * step
            if -0.5 <= at <= size - 0.5:
                at = np.clip(at, np.float32(0), np.float32(size - 1))
                low, weight = int(np.floor(at)), at - np.floor(at)
                self.samples.append((low, int(np.ceil(at)), np.float32(1) - weight, weight))


def bins_of(rois: np.ndarray, trans: np.ndarray | None, options: Options) -> Iterator[Any]:
    """List the bins of each roi with an image that have samples in the map, by classes.

    A bin is the number of the roi, image, class, row and column, the output channels and those of
    data, the samples of each axis, the indices of its offsets, and the roi's height and width.
    """
    sizes, cells = options.psroi, cells_of(options.psroi)
    if 0 in sizes.data_shape:
        return
    scale, half, pooled = np.float32(sizes.scale), np.float32(0.5), np.float32(sizes.pooled)
    of_class = sizes.output_dim // options.classes
    parts = [
        min(int(np.float32(i) / pooled * np.float32(options.part)), options.part - 1)
        for i in range(sizes.pooled)
    ]
    for n, class_id in np.ndindex(len(rois), options.classes):
        index, x1, y1, x2, y2 = rois[n]
        if not -1 < index < sizes.images:
            continue
        begins: list[Any] = []
        lengths: list[Any] = []
        for first, last in ((x1, x2), (y1, y2)):
            begin = rounded(first) * scale - half
            length = (rounded(last) + np.float32(1)) * scale - half - begin
            begins.append(begin)
            lengths.append(np.float32(0.1) if length < np.float32(0.1) else length)
        for i, j in np.ndindex(sizes.pooled, sizes.pooled):
            axes = []
            for axis, (bin_, size) in enumerate(((j, sizes.width), (i, sizes.height))):
                length, step = lengths[axis], lengths[axis] / pooled
                offset: Any = np.float32(0)
                if trans is not None:
                    at = n, 2 * class_id + axis, parts[i], parts[j]
                    offset = trans[at] * np.float32(options.trans_std)
                start = np.float32(bin_) * step + begins[axis] + offset * length
                axes.append(_Axis(start, step / np.float32(options.samples), size, options).samples)
            if axes[0] and axes[1]:
                channels = slice(class_id * of_class, (class_id + 1) * of_class)
                planes = np.arange(options.channels)[channels_of(cells[i], cells[j], sizes)]
                where = n, slice(2 * class_id, 2 * class_id + 2), parts[i], parts[j]
                yield n, int(index), i, j, channels, planes[channels], axes, where, lengths

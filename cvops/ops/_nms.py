"""The launches that box_nms and multibox_detection share: ``sort.cuh`` and ``nms.cuh``."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from cvops._arrays import Buffer
from cvops._gpu import Gpu

#: ``kCompactTile`` and ``kSortTile`` of the kernels.
TILE = 256
_SORT_TILE = 2048
#: The most memory for the bits of one chunk of rows.
_MASK_BYTES = 64 << 20

#: The rows of a batch item that an op takes at most: a grid has at most 65535 tiles on its y axis.
MOST_ROWS = 65535 * TILE
RULE = np.dtype([("threshold", "f4"), ("at_least", "i4"), ("by_class", "i4"), ("center", "i4")])


def compact(gpu: Gpu, keys: Buffer, tile_counts: Buffer) -> tuple[Buffer, Buffer]:
    """The keys (B, N) without those that are none, in their order, and their numbers (B)."""
    batch, num = keys.shape
    out, counts = gpu.empty(keys.shape, np.uint64), gpu.empty((batch,), np.int32)
    tiles = -(-num // TILE)
    gpu.launch("sort", "sort_compact", (batch, tiles), (TILE,), out, counts, keys, tile_counts, num)
    return out, counts


def sort(gpu: Gpu, keys: Buffer, counts: Buffer) -> Buffer:
    """The first counts[b] keys of each row of ``keys`` (B, N), ascending."""
    batch, num = keys.shape
    tile = min(max(64, 1 << (num - 1).bit_length()), _SORT_TILE)
    out = gpu.empty(keys.shape, np.uint64)
    args = out, keys, counts, num, tile
    gpu.launch("sort", "sort_tiles", (batch, -(-num // tile)), (tile // 2,), *args)
    run = _SORT_TILE
    other = gpu.empty(keys.shape, np.uint64) if run < num else out
    while run < num:
        grid = batch, -(-num // _SORT_TILE)
        gpu.launch("sort", "sort_merge", grid, (256,), other, out, counts, num, run)
        out, other = other, out
        run *= 2
    return out


class SortedBoxes(NamedTuple):
    """Room for boxes (B, N) in the order of the sort, as ``nms_mask`` takes them."""

    boxes: Buffer
    areas: Buffer
    classes: Buffer
    #: A bit for each box that is suppressed; none is when the boxes are gathered.
    removed: Buffer

    @classmethod
    def empty(cls, gpu: Gpu, batch: int, num: int) -> SortedBoxes:
        boxes, areas = gpu.empty((batch, num, 4), np.float32), gpu.empty((batch, num), np.float32)
        classes = gpu.empty((batch, num), np.int32)
        return cls(boxes, areas, classes, gpu.empty((batch, -(-num // 64)), np.uint64))


def suppress(
    gpu: Gpu, boxes: SortedBoxes, counts: Buffer, limit: int, rule: np.ndarray
) -> tuple[Buffer, Buffer]:
    """The bits (B, ceil(N / 64)) of the sorted boxes that are kept, and the numbers before each."""
    batch, num = boxes.areas.shape
    words = -(-num // 64)
    kept = gpu.empty((batch, words), np.uint64)
    kept_before = gpu.empty((batch, words + 1), np.int32)
    most = min(num, limit)
    rows = min(words, max(1, _MASK_BYTES // (batch * words * 512))) * 64
    mask = gpu.empty((batch, rows, words), np.uint64)
    for first in range(0, most, rows):
        gpu.launch(
            *("nms", "nms_mask", (batch, -(-words // 4), rows // 64), (256,)),
            *(mask, *boxes, counts, num, limit, first, rows, rule),
        )
        gpu.launch(
            *("nms", "nms_resolve", (batch,), (512,)),
            *(kept, boxes.removed, kept_before, mask, counts, num, limit, first, rows),
        )
    return kept, kept_before

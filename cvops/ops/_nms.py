"""The launches that box_nms and multibox_detection share: ``sort.cuh`` and ``nms.cuh``."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from cvops._arrays import Buffer
from cvops._gpu import Gpu

#: ``kCompactTile``, ``kSortTile`` and ``kNmsChunk`` of the kernels.
TILE = 256
_SORT_TILE = 2048
_CHUNK = 2048

#: The rows of a batch item that an op takes at most: a grid has at most 65535 tiles on its y axis.
MOST_ROWS = 65535 * TILE
RULE = np.dtype([("threshold", "f4"), ("at_least", "i4"), ("by_class", "i4"), ("center", "i4")])


def compact(gpu: Gpu, keys: Buffer, tile_counts: Buffer) -> tuple[Buffer, Buffer]:
    """The keys (B, N) without those that are none, in their order, and their numbers (B)."""
    batch, num = keys.shape
    out, counts = gpu.scratch((keys.shape, np.uint64), ((batch,), np.int32))
    tiles = -(-num // TILE)
    gpu.launch("sort", "sort_compact", (batch, tiles), (TILE,), out, counts, keys, tile_counts, num)
    return out, counts


def sort(gpu: Gpu, keys: Buffer, counts: Buffer, most: int) -> Buffer:
    """The first counts[b] keys, ``most`` or fewer, of each row of ``keys`` (B, N), ascending."""
    batch, num = keys.shape
    tile = min(max(64, 1 << (most - 1).bit_length()), _SORT_TILE)
    out = gpu.empty(keys.shape, np.uint64)
    args = out, keys, counts, num, tile
    gpu.launch("sort", "sort_tiles", (batch, -(-most // tile)), (tile // 2,), *args)
    run = _SORT_TILE
    other = gpu.empty(keys.shape, np.uint64) if run < most else out
    while run < most:
        grid = batch, -(-most // _SORT_TILE)
        gpu.launch("sort", "sort_merge", grid, (256,), other, out, counts, num, run)
        out, other = other, out
        run *= 2
    return out


class Contest(NamedTuple):
    """Room for what the contest is about, in the order of the sort, and for how it ends."""

    #: (B, N, 4), (B, N) and (B, N).
    boxes: Buffer
    areas: Buffer
    classes: Buffer
    #: A bit for each box that is suppressed, and one for each that is kept.
    removed: Buffer
    kept: Buffer
    #: (B): how many boxes take part.
    counts: Buffer

    @classmethod
    def empty(cls, gpu: Gpu, batch: int, num: int) -> Contest:
        rows = batch, num
        boxes, areas, classes = ((*rows, 4), np.float32), (rows, np.float32), (rows, np.int32)
        removed = (batch, -(-num // 32)), np.uint32
        kept = (batch, -(-num // 64)), np.uint64
        return cls(*gpu.scratch(boxes, areas, classes, removed, kept, ((batch,), np.int32)))

    def decide(self, gpu: Gpu, limit: int, rule: np.ndarray) -> Buffer:
        """Set ``kept`` of the boxes, of which ``limit`` take part at most.

        Returns:
            how many are kept before each word of ``kept``, and in all: (B, ceil(N / 64) + 1).
        """
        batch, num = self.areas.shape
        most = min(num, limit)
        order = self._order(gpu, most) if rule["by_class"] else None
        boxes = self.boxes, self.areas, self.classes, order
        chunk = min(_CHUNK, -(-most // 64) * 64)
        threads = min(chunk, 1024)
        mask, kept_before, places, count = gpu.scratch(
            ((batch, chunk // 32, chunk), np.uint32),
            ((batch, -(-num // 64) + 1), np.int32),
            *(((batch, chunk), np.int32), ((batch,), np.int32)),
        )
        found = places, count
        pairs = batch, -(-chunk // 128), chunk // 64
        for first in range(0, most, chunk):
            left = most - first - chunk
            gpu.launch(
                *("nms", "nms_mask", pairs, (256,), mask, *boxes, self.removed, self.counts),
                *(num, first, chunk, rule),
            )
            gpu.launch(
                *("nms", "nms_settle", (batch,), (threads,), self.kept, kept_before, *found, order),
                *(self.removed, mask, self.counts, num, first, chunk, left <= 0),
            )
            gpu.launch(
                *("nms", "nms_suppress", (batch, max(0, -(-left // 256))), (128,), self.removed),
                *(*boxes, *found, self.counts, num, first + chunk, chunk, rule),
            )
        return kept_before

    def _order(self, gpu: Gpu, most: int) -> Buffer:
        """The keys of the boxes in the order of their classes."""
        batch, num = self.areas.shape
        keys = gpu.empty((batch, num), np.uint64)
        grid = batch, -(-most // 256)
        args = keys, self.classes, self.counts, num
        gpu.launch("nms", "nms_class_keys", grid, (256,), *args)
        return sort(gpu, keys, self.counts, most)

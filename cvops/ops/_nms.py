"""The launches that box_nms and multibox_detection share: ``sort.cuh`` and ``nms.cuh``."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from cvops._arrays import Buffer
from cvops._gpu import Gpu

#: Of the kernels: ``kCompactTile``, ``kSortTile``, ``kSortEach``, ``kSortWays``, ``kNmsChunk``,
#: ``kNmsTile`` and ``kNmsThreads``.
TILE = 256
_SORT_TILE, _SORT_EACH, _SORT_WAYS = 2048, 4, 16
_CHUNK, _TILE, _THREADS = 2048, 256, 512
#: As in ``bindings/nms.cu``.
_CHUNKS_WITHOUT_ORDER = 3
_BLOCKS, _MOST_PARTS = 264, 16

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


def sort(gpu: Gpu, keys: Buffer, counts: Buffer, most: int, spare: Buffer | None = None) -> Buffer:
    """The first counts[b] keys, ``most`` or fewer, of each row of ``keys`` (B, N), ascending.

    ``spare`` is memory of that size which is overwritten; it may be ``keys``.
    """
    batch, num = keys.shape
    tile = min(max(32 * _SORT_EACH, 1 << (most - 1).bit_length()), _SORT_TILE)
    [out] = gpu.scratch((keys.shape, np.uint64))
    args = out, keys, counts, num, tile
    gpu.launch("sort", "sort_tiles", (batch, -(-most // tile)), (tile // _SORT_EACH,), *args)
    run = _SORT_TILE
    if run >= most:
        return out
    if spare is None:
        [spare] = gpu.scratch((keys.shape, np.uint64))
    while run < most:
        grid = batch, min(-(-most // (128 if most <= 5 * run else 32)), 65535)  # merge_blocks
        gpu.launch("sort", "sort_merge", grid, (128,), spare, out, counts, num, run)
        out, spare = spare, out
        run *= _SORT_WAYS
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
    #: (B, 2): how far the contest is.
    progress: Buffer

    @classmethod
    def empty(cls, gpu: Gpu, batch: int, num: int) -> Contest:
        rows = batch, num
        boxes, areas, classes = ((*rows, 4), np.float32), (rows, np.float32), (rows, np.int32)
        removed = (batch, -(-num // 32)), np.uint32
        kept = (batch, -(-num // 64)), np.uint64
        counts, progress = ((batch,), np.int32), ((batch, 2), np.int32)
        return cls(*gpu.scratch(boxes, areas, classes, removed, kept, counts, progress))

    def decide(self, gpu: Gpu, limit: int, rule: np.ndarray) -> Buffer:
        """Set ``kept`` of the boxes, of which ``limit`` take part at most.

        Returns:
            how many are kept before each word of ``kept``, and in all: (B, ceil(N / 64) + 1).
        """
        batch, num = self.areas.shape
        most = min(num, limit)
        chunk = min(_CHUNK, -(-most // 64) * 64)
        by_class = bool(rule["by_class"])
        order = None
        if most > chunk * _CHUNKS_WITHOUT_ORDER:
            order = self._order(gpu, most, by_class)
        kept_before, *found = gpu.scratch(
            ((batch, -(-num // 64) + 1), np.int32),
            *(((batch, chunk), np.int32), ((batch,), np.int32)),
            *(((batch, chunk // 32, chunk), np.uint32), ((batch, chunk, 8), np.uint8)),
        )
        ends = self.removed, self.kept, kept_before, self.progress
        if order and by_class:
            args = self.boxes, self.areas, self.classes, order, self.counts, num, rule
            grid = batch, -(-most // _TILE)
            gpu.launch("nms", "nms_classes", grid, (_THREADS,), *ends, *args)
        pairs = _pair_blocks(chunk)
        for first in range(0, most, chunk):
            others = most if order else most - first
            tiles = min(-(-others // _TILE), 65535 - pairs) if first else 0
            parts = min(max(1, _BLOCKS // (batch * tiles)), _MOST_PARTS) if tiles else 1
            grid = batch, pairs + tiles * parts
            gpu.launch(
                *("nms", "nms_chunk", grid, (_THREADS,), *ends),
                *(*found, self.boxes, self.areas, self.classes, order),
                *(self.counts, num, first, chunk, parts, rule),
            )
        return kept_before

    def _order(self, gpu: Gpu, most: int, by_class: bool) -> Buffer:
        """Keys whose places put boxes beside those of their class, if that counts, and near by."""
        batch, num = self.areas.shape
        [keys] = gpu.scratch(((batch, num), np.uint64))
        grid = batch, -(-most // _TILE)
        args = keys, self.boxes, self.classes, self.counts, num, by_class
        gpu.launch("nms", "nms_places", grid, (_TILE,), *args)
        return sort(gpu, keys, self.counts, most, spare=keys)


def _pair_blocks(chunk: int) -> int:
    """``nms_pair_blocks`` of the kernels."""
    groups = -(-chunk // 256)
    return 2 * groups * (groups + 1)

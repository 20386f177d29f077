"""Inputs that could make ops slow, for ``worst_cases.py``."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from typing import Any, Callable, NamedTuple

import numpy as np
from bench_box_nms import clustered, heaps, spread
from tools.inputs import boxes

import cvops

ALIKE = np.float32([0.2, 0.3, 0.6, 0.7])
#: Classes of the ops with a score for each class, and cells of a mask.
CLASSES, CELLS = 20, 28


class Case(NamedTuple):
    name: str
    call: Callable[..., Any]


class Suite(NamedTuple):
    """The sizes of an op, and its cases of a size. The first case is the spread one."""

    sizes: tuple[tuple[int, ...], ...]
    cases: Callable[..., Iterator[Case]]


def strips(num: int, vertical: bool) -> np.ndarray:
    """Return disjoint strips across the image, float32 (num, 4)."""
    at, zero = np.arange(num) / num, np.zeros(num)
    low, high = np.stack([at, zero], axis=1), np.stack([at + 0.9 / num, zero + 1], axis=1)
    order = slice(None) if vertical else slice(None, None, -1)
    return np.concatenate([low[:, order], high[:, order]], axis=1).astype(np.float32)


def at_corner(sides: np.ndarray) -> np.ndarray:
    return np.concatenate([0 * sides, sides], axis=1).astype(np.float32)


def with_nan(x: np.ndarray, rng: Any, share: float) -> np.ndarray:
    return np.where(rng.random(x.shape) < share, np.float32(np.nan), x)


def of_nms(num: int) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yield names, boxes and scores."""
    rng = np.random.default_rng(0)
    scores, base = rng.random(num), spread(rng, num)
    side = math.isqrt(num) + 1
    grid = np.stack(np.divmod(rng.permutation(side * side)[:num], side), axis=1)
    one_huge, some_huge, far, tiny = (base.copy() for _ in range(4))
    one_huge[np.argmax(scores)] = -5, -5, 6, 6
    some = rng.permutation(num)[: num // 20]
    some_huge[some] = [-1, -1, 1, 1] * (1 + 1000 * rng.random((len(some), 1)))
    far[::2] += 10_000
    tiny[1::2] *= 0.001
    lengths = 2.0 ** rng.uniform(-12, -1, (num, 1))
    centers = rng.random((num, 2))
    yield "spread", base, scores
    yield "clusters of 25", clustered(rng, num), scores
    yield "heaps of 50", heaps(rng, num), scores
    yield "scores equal", base, np.full(num, 0.5)
    yield "scores NaN, a half", base, with_nan(scores, rng, 0.5)
    yield "scores ascending", base, np.sort(scores)
    yield "all alike", np.tile(ALIKE, (num, 1)), scores
    yield "disjoint in a line", strips(num, True)[rng.permutation(num)], scores
    yield "one corner", at_corner(rng.uniform(0.01, 1, (num, 2))), scores
    yield "one corner, many scales", at_corner(2.0 ** rng.uniform(-20, 20, (num, 2))), scores
    yield "one huge box", one_huge, scores
    yield "a twentieth huge", some_huge, scores
    yield "grid, IoU just below 0.5", np.hstack([0.34 * grid, 0.34 * grid + 1]), scores
    crossed = np.concatenate([strips(num // 2, True), strips(num - num // 2, False)])
    yield "crossed strips", crossed[rng.permutation(num)], scores
    yield "two distant groups", far, scores
    yield "a half tiny", tiny, scores
    many_scales = np.hstack([centers - lengths / 2, centers + lengths / 2])
    yield "many scales", many_scales, scores
    yield "NaN, a twentieth", with_nan(base, rng, 0.05), scores
    yield "NaN, all", with_nan(base, rng, 1), scores


def of_target(num: int, truths: int) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yield names, anchors and ground truths."""
    rng = np.random.default_rng(0)
    anchors, label = boxes(rng, num), boxes(rng, truths)
    huge = label.copy()
    huge[0] = -5, -5, 6, 6
    yield "spread", anchors, label
    yield "ground truths alike", anchors, np.tile(ALIKE, (truths, 1))
    yield "anchors alike", np.tile(ALIKE, (num, 1)), label
    yield "all alike", np.tile(ALIKE, (num, 1)), np.tile(ALIKE, (truths, 1))
    yield "disjoint in a line", strips(num, True), strips(truths, True)
    yield "one corner", at_corner(rng.random((num, 2))), at_corner(rng.random((truths, 2)))
    yield "one huge ground truth", anchors, huge
    yield "crossed strips", strips(num, True), strips(truths, False)
    yield "NaN, a twentieth", with_nan(anchors, rng, 0.05), label
    yield "NaN, all", with_nan(anchors, rng, 1), label


def of_matching(rows: int, columns: int) -> Iterator[tuple[str, np.ndarray]]:
    """Yield names and scores."""
    rng = np.random.default_rng(0)
    scores = rng.random((rows, columns), np.float32)
    row = 1 - np.arange(rows)[:, None] / rows
    column = 1 - np.arange(columns)[None] / columns
    # The rank of a row alternates from column to column, and the columns have separate ranges.
    turned = np.where(np.arange(columns)[None] % 2, 1 - row, row)
    yield "spread", scores
    yield "all alike", np.full_like(scores, 0.5)
    yield "rows alike", np.tile(scores[:1], (rows, 1))
    yield "columns alike", np.tile(scores[:, :1], (1, columns))
    yield "rows nearly alike", scores[:1] + 1e-3 * scores
    yield "columns nearly alike", scores[:, :1] + 1e-3 * scores
    yield "sums", scores[:1] + scores[:, :1]
    yield "products", row * column
    yield "products, ascending", (row * column)[::-1, ::-1].copy()
    yield "rows in turns", column + (0.5 / columns) * turned
    yield "two values", np.round(scores)
    yield "zero but the diagonal", np.eye(rows, columns)
    yield "zero", np.zeros_like(scores)
    yield "NaN, a half", with_nan(scores, rng, 0.5)


def of_regions(num: int) -> Iterator[tuple[str, np.ndarray]]:
    """Yield names and boxes in an image of size 1."""
    rng = np.random.default_rng(0)
    base = boxes(rng, num, 0.05, 0.4)
    center = (base[:, :2] + base[:, 2:]) / 2
    yield "spread", base
    yield "whole image", np.tile(np.float32([0, 0, 1, 1]), (num, 1))
    yield "beyond the image", np.tile(np.float32([-5, -5, 6, 6]), (num, 1))
    yield "tiny", np.hstack([center, center + np.float32(1e-3)])
    yield "vertical strips", strips(num, True)
    yield "horizontal strips", strips(num, False)
    yield "outside", base + np.float32(10)
    yield "NaN, all", with_nan(base, rng, 1)


def of_rows(op: Callable[..., Any], num: int, **options: Any) -> Iterator[Case]:
    """Yield the cases of an op on rows of a score and a box."""
    for name, corners, scores in of_nms(num):
        data = np.insert(corners, 0, scores, axis=1).astype(np.float32)
        yield Case(name, functools.partial(op, data, score_index=0, coord_start=1, **options))


def of_rotated(num: int) -> Iterator[Case]:
    angles = np.random.default_rng(1).uniform(-180, 180, (num, 1))
    for name, corners, scores in of_nms(num):
        low, high = corners[:, :2], corners[:, 2:]
        rows = np.hstack([scores[:, None], (low + high) / 2, high - low, angles])
        data = rows.astype(np.float32)
        call = functools.partial(cvops.nms_rotated, data, score_index=0, coord_start=1)
        yield Case(name, call)


def of_multiclass(num: int) -> Iterator[Case]:
    rng = np.random.default_rng(1)
    for name, corners, scores in of_nms(num):
        each = scores * rng.permuted(np.linspace(0.1, 1, CLASSES))[:, None]
        inputs = corners[None].astype(np.float32), each[None].astype(np.float32)
        yield Case(name, functools.partial(cvops.multiclass_nms, *inputs))


def of_detection(num: int) -> Iterator[Case]:
    rng = np.random.default_rng(1)
    offsets = np.zeros((1, 4 * num), np.float32)
    for name, corners, scores in of_nms(num):
        prob = rng.uniform(0, 0.1, (CLASSES + 1, num))
        prob[rng.integers(1, CLASSES + 1, num), np.arange(num)] = scores
        inputs = prob[None].astype(np.float32), offsets, corners[None].astype(np.float32)
        yield Case(name, functools.partial(cvops.multibox_detection, *inputs, clip=False))


def of_proposal(num: int) -> Iterator[Case]:
    """Yield cases of one anchor per cell: the offsets move its corners to those of the boxes."""
    side, stride = math.isqrt(num), 16
    at = stride * np.stack(np.meshgrid(np.arange(side), np.arange(side)), axis=-1).reshape(-1, 2)
    info = np.float32([[stride * side, stride * side, 1]])
    options = dict(scales=(1,), ratios=(1,), rpn_min_size=0, iou_loss=True)
    for name, corners, scores in of_nms(side * side):
        moves = stride * side * corners - np.hstack([at, at + stride - 1])
        offsets = moves.T.reshape(1, 4, side, side).astype(np.float32)
        prob = np.stack([1 - scores, scores]).reshape(1, 2, side, side).astype(np.float32)
        yield Case(name, functools.partial(cvops.proposal, prob, offsets, info, **options))


def with_class(truths: np.ndarray) -> np.ndarray:
    """Return labels of class 0, float32 (1, num, 5)."""
    return np.insert(truths, 0, 0, axis=1).astype(np.float32)[None]


def of_multibox_target(num: int, truths: int) -> Iterator[Case]:
    logits = np.random.default_rng(1).standard_normal((1, CLASSES + 1, num), np.float32)
    for name, anchors, label in of_target(num, truths):
        inputs = anchors.astype(np.float32)[None], with_class(label), logits
        call = functools.partial(cvops.multibox_target, *inputs, negative_mining_ratio=3)
        yield Case(name, call)


def of_match_anchors(num: int, truths: int) -> Iterator[Case]:
    options = dict(allow_low_quality_matches=True, match_best_anchors=True)
    for name, anchors, label in of_target(num, truths):
        inputs = anchors.astype(np.float32), label.astype(np.float32)
        yield Case(name, functools.partial(cvops.match_anchors, *inputs, **options))


def of_samples(op: Callable[..., Any], num: int, truths: int, more: int = 0) -> Iterator[Case]:
    """Yield the cases of an op that samples boxes. It has noise for `more` boxes."""
    noise = np.random.default_rng(1).random((1, num + more), np.float32)
    for name, anchors, label in of_target(num, truths):
        inputs = anchors.astype(np.float32)[None], with_class(label), noise
        yield Case(name, functools.partial(op, *inputs))
    yield Case("noise descending", functools.partial(op, *inputs[:2], -np.sort(-noise)))


def of_bipartite_matching(rows: int, columns: int) -> Iterator[Case]:
    for name, scores in of_matching(rows, columns):
        data = scores.astype(np.float32)
        yield Case(name, functools.partial(cvops.bipartite_matching, data, threshold=1e-12))


def of_mask_target(num: int) -> Iterator[Case]:
    rng = np.random.default_rng(1)
    masks = np.float32(rng.random((1, 8, 512, 512)) < 0.5)
    matches, classes = rng.integers(0, 8, (1, num)), rng.integers(0, CLASSES, (1, num))
    options = dict(num_classes=CLASSES, mask_size=(CELLS, CELLS))
    for name, corners in of_regions(num):
        rois = np.float32(512) * corners[None]
        inputs = rois, masks, matches.astype(np.float32), classes.astype(np.float32)
        yield Case(name, functools.partial(cvops.mask_target, *inputs, **options))


def of_paste_masks(num: int) -> Iterator[Case]:
    masks = np.random.default_rng(1).random((num, CELLS, CELLS), np.float32)
    for name, corners in of_regions(num):
        call = functools.partial(cvops.paste_masks, masks, np.float32(512) * corners, (512, 512))
        yield Case(name, call)


_NMS = ((1000,), (5000,), (20000,))
_QUADRATIC = ((300,), (1000,), (4000,))
_TARGET = ((2000, 16), (8000, 32), (32000, 64))

SUITES = {
    "box_nms": Suite(_NMS, functools.partial(of_rows, cvops.box_nms)),
    "nms_rotated": Suite(_NMS, of_rotated),
    "multiclass_nms": Suite(_NMS, of_multiclass),
    "multibox_detection": Suite(_NMS, of_detection),
    "proposal": Suite(_NMS, of_proposal),
    "soft_nms": Suite(_QUADRATIC, functools.partial(of_rows, cvops.soft_nms)),
    "soft_nms, gaussian": Suite(
        _QUADRATIC, functools.partial(of_rows, cvops.soft_nms, method="gaussian")
    ),
    "matrix_nms": Suite(_QUADRATIC, functools.partial(of_rows, cvops.matrix_nms)),
    "weighted_boxes_fusion": Suite(
        _QUADRATIC, functools.partial(of_rows, cvops.weighted_boxes_fusion)
    ),
    "multibox_target": Suite(_TARGET, of_multibox_target),
    "match_anchors": Suite(_TARGET, of_match_anchors),
    "rpn_target": Suite(_TARGET, functools.partial(of_samples, cvops.rpn_target)),
    "rcnn_target": Suite(_TARGET, lambda n, t: of_samples(cvops.rcnn_target, n, t, t)),
    "bipartite_matching": Suite(((100, 100), (300, 300), (1000, 1000)), of_bipartite_matching),
    "bipartite_matching, few columns": Suite(_TARGET, of_bipartite_matching),
    "mask_target": Suite(((10,), (30,), (100,)), of_mask_target),
    "paste_masks": Suite(((10,), (30,), (100,)), of_paste_masks),
}

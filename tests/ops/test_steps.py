"""Sizes on both sides of each step of the kernels and of their launches.

A step is a size at which a kernel or a launch takes another path or one more step: a constant with
CVOPS_STEP. The backend "emulated-small" has the small value of each constant, so that small inputs
reach both sides. One large input per op tests the real values.
"""

import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from backend_runner import runner

import cvops

ROOT = Path(__file__).parents[2]
_STEP = re.compile(r"(\w+) = CVOPS_STEP\(([^,]+), ([^,)]+)\)")


def found_steps():
    """{"<file> <constant>": its small value}"""
    files = [*ROOT.glob("kernels/**/*.cuh"), *ROOT.glob("bindings/cuda/*.*")]
    return {
        f"{file.name} {name}": eval(small, {})
        for file in files
        for name, _, small in _STEP.findall(file.read_text("utf-8"))
    }


def rng_of(*numbers):
    return np.random.default_rng(numbers)


def boxes_of(rng, *shape, side=30):
    """Boxes of sides up to 3. The upper left corners are in a square of side ``side``."""
    low, size = rng.random((2, *shape, 2), np.float32) * np.float32([[[side]], [[3]]]).reshape(
        2, *[1] * (len(shape) + 1)
    )
    return np.concatenate([low, low + size], axis=-1)


def rows_of(rng, *shape, side=30):
    """Rows (class, score, box) in random order. All scores are positive and different."""
    num = int(np.prod(shape))
    scores = (rng.permutation(num) + 1).astype(np.float32).reshape(*shape, 1)
    classes = rng.integers(0, 4, (*shape, 1)).astype(np.float32)
    return np.concatenate([classes, scores, boxes_of(rng, *shape, side=side)], axis=-1)


def nms(num, sets=1, **options):
    data = rows_of(rng_of(num, sets), sets, num)

    def call(run):
        out, index = run(cvops.box_nms, data, return_index=True, **options)
        return out, index, run(cvops.box_nms_backward, data, index)

    return call


def matrix(num):
    data = rows_of(rng_of(num), num)
    return lambda run: run(cvops.matrix_nms, data, return_index=True)


def nms_both(num, sets=1):
    """Without and with classes, which change the spatial order, and with rotated boxes."""
    return [nms(num, sets), nms(num, sets, id_index=0), nms_rotated(num, sets)]


def nms_rotated(num, sets):
    rng = rng_of(num, sets)
    data = rows_of(rng, sets, num)
    data[..., 4:] -= data[..., 2:4]
    data = np.concatenate([data, 360 * rng.random((sets, num, 1), np.float32)], axis=-1)
    return lambda run: run(cvops.nms_rotated, data, 0.2, id_index=0, return_index=True)


def detection(num, images=2, **options):
    rng = rng_of(num, images)
    anchors = boxes_of(rng, 1, num)
    scores = rng.random((images, 3, num), np.float32)
    offsets = rng.normal(size=(images, 4 * num)).astype(np.float32)
    return lambda run: run(cvops.multibox_detection, scores, offsets, anchors, **options)


def multiclass(num, topk, images=2, classes=3, scores=None, **options):
    rng = rng_of(num, topk)
    boxes = boxes_of(rng, images, num)
    scores = rng.random((images, classes, num), np.float32) if scores is None else scores
    options = dict(options, topk=topk, valid_thresh=0.1)
    return lambda run: run(cvops.multiclass_nms, boxes, scores, **options)


def iou(num_lhs, num_rhs):
    rng = rng_of(num_lhs, num_rhs)
    lhs, rhs = boxes_of(rng, num_lhs, side=4), boxes_of(rng, num_rhs, side=4)
    return lambda run: run(cvops.box_iou, lhs, rhs)


def rotated_of(rng, num, side):
    low, high = np.split(boxes_of(rng, num, side=side), 2, axis=1)
    return np.concatenate([low, high - low, 360 * rng.random((num, 1), np.float32)], axis=1)


def iou_rotated(num_lhs, num_rhs, side=9):
    rng = rng_of(num_lhs, num_rhs)
    lhs, rhs = rotated_of(rng, num_lhs, side), rotated_of(rng, num_rhs, side)
    return lambda run: run(cvops.box_iou_rotated, lhs, rhs)


def decode(images, num):
    rng = rng_of(images, num)
    data = rng.normal(size=(images, num, 4)).astype(np.float32)
    anchors = boxes_of(rng, 1, num)
    return lambda run: run(cvops.box_decode, data, anchors, format="corner")


def encode(images, num):
    rng = rng_of(images, num)
    samples, matches = rng.integers(0, 2, (2, images, num)).astype(np.float32)
    anchors, refs = boxes_of(rng, images, num), boxes_of(rng, images, 2)
    scale = np.zeros(4, np.float32), np.ones(4, np.float32)
    return lambda run: run(cvops.box_encode, samples, matches, anchors, refs, *scale)


def both_images(call, threads):
    return [call(2, n) for n in (threads - 1, threads, threads + 1, 2 * threads + 1)]


def many_images(call, blocks):
    """One, several and many tiles of 32 anchors, and numbers of images around the rest."""
    return [
        call(images, 32 * tiles)
        for tiles in (1, 2, blocks, blocks + 1)
        for images in (1, blocks // tiles, blocks + 1)
    ]


def matching(batch, rows, columns, equal=False, topk=-1):
    rng = rng_of(batch, rows, columns)
    data = rng.integers(0, 1 if equal else 100, (batch, rows, columns)).astype(np.float32)
    return lambda run: run(cvops.bipartite_matching, data, threshold=-1, topk=topk)


def proposals(anchors, truths=5, images=2, num_sample=40):
    rng = rng_of(anchors, truths, images)
    classes = np.zeros((images, truths, 1), np.float32)
    labels = np.concatenate([classes, boxes_of(rng, images, truths, side=9)], axis=-1)
    args = boxes_of(rng, anchors, side=9), labels, rng.random((images, anchors), np.float32)
    return lambda run: run(cvops.rpn_target, *args, num_sample=num_sample)


def mask(num, size=(3, 4), images=2, classes=3):
    rng = rng_of(num, images, classes)
    rois, masks = boxes_of(rng, images, num, side=6), rng.random((images, 2, 7, 9), np.float32)
    matches, targets = rng.integers(0, 2, (2, images, num)).astype(np.float32)
    args = rois, masks, matches, targets, num, classes, size
    return lambda run: run(cvops.mask_target, *args)


def paste(num, height, width):
    rng = rng_of(num, height, width)
    masks, boxes = rng.random((num, 3, 4), np.float32), boxes_of(rng, num, side=9)
    return lambda run: run(cvops.paste_masks, masks, boxes, (height, width))


def samples(boxes, truths=5, images=2, num_sample=40):
    rng = rng_of(boxes, truths, images)
    classes = np.zeros((images, truths, 1), np.float32)
    labels = np.concatenate([classes, boxes_of(rng, images, truths, side=9)], axis=-1)
    noise = rng.random((images, boxes + truths), np.float32)
    args = boxes_of(rng, images, boxes, side=9), labels, noise
    return lambda run: run(cvops.rcnn_target, *args, num_sample=num_sample)


def target(anchors, truths=5, images=2, equal=False, ratio=3, classes=4):
    """Many logits are close. ``equal`` ground truths have the same best anchor."""
    rng = rng_of(anchors, truths, images)
    anchor = boxes_of(rng, 1, anchors, side=9)
    label = np.concatenate(
        [
            rng.integers(0, 3, (images, truths, 1)).astype(np.float32),
            boxes_of(rng, images, truths, side=9),
        ],
        axis=-1,
    )
    if equal:
        label[:] = label[:1, :1]
    logits = (1 + 1e-3 * rng.normal(size=(images, classes, anchors))).astype(np.float32)
    return lambda run: run(
        *(cvops.multibox_target, anchor, label, logits),
        negative_mining_ratio=ratio,
        negative_mining_thresh=0.5,
        overlap_threshold=0.3,
    )


def priors(*maps, shapes=2):
    sizes = [[0.1 * (i + 1) for i in range(shapes)]] * len(maps)
    return lambda run: run(cvops.multibox_priors, maps, sizes, [[1]] * len(maps), clip=True)


def roi(rois, data=(2, 3, 5, 4), pooled=(3, 3)):
    rng = rng_of(rois, *data, *pooled)
    x = rng.normal(size=data).astype(np.float32)
    r = np.concatenate([rng.integers(0, data[0], (rois, 1)), boxes_of(rng, rois, side=5)], axis=1)
    r = r.astype(np.float32)

    def call(run):
        out, argmax = run(cvops.roi_pooling, x, r, pooled, 1, return_argmax=True)
        return out, argmax, run(cvops.roi_pooling_backward, out, argmax, data)

    return call


def align(rois, data=(2, 3, 5, 4), pooled=(3, 3), side=5, **options):
    rng = rng_of(rois, *data, *pooled)
    x = rng.normal(size=data).astype(np.float32)
    r = np.concatenate(
        [rng.integers(0, data[0], (rois, 1)), boxes_of(rng, rois, side=side)], axis=1
    )
    r = r.astype(np.float32)

    def call(run):
        out = run(cvops.roi_align, x, r, pooled, 1, **options)
        return out, run(cvops.roi_align_backward, out, r, data, 1, **options)

    return call


def average(shape, size):
    data = rng_of(*shape, *size).normal(size=shape).astype(np.float32)

    def call(run):
        out = run(cvops.adaptive_avg_pooling, data, size)
        return out, run(cvops.adaptive_avg_pooling_backward, out, shape)

    return call


def resize(shape, size):
    data = rng_of(*shape, *size).normal(size=shape).astype(np.float32)

    def call(run):
        out = run(cvops.bilinear_resize, data, height=size[0], width=size[1])
        return out, run(cvops.bilinear_resize_backward, out, shape)

    return call


def iou_of_kind(num_lhs, num_rhs):
    rng = rng_of(num_lhs, num_rhs)
    lhs, rhs = boxes_of(rng, num_lhs, side=4), boxes_of(rng, num_rhs, side=4)

    def call(run):
        out = run(cvops.box_iou, lhs, rhs, kind="ciou")
        return out, *run(cvops.box_iou_backward, out, lhs, rhs, kind="ciou")

    return call


def align_rotated(rois, data=(2, 3, 5, 4), pooled=(3, 3), ratio=-1):
    rng = rng_of(rois, *data, *pooled)
    x = rng.normal(size=data).astype(np.float32)
    r = np.concatenate(
        [rng.integers(0, data[0], (rois, 1)), rng.uniform(0, 5, (rois, 5)) * [1, 1, 1, 1, 72]],
        axis=1,
    )
    return lambda run: run(cvops.rroi_align, x, r.astype(np.float32), pooled, 1, ratio)


def position_sensitive(rois, data=(2, 3, 5, 4), pooled=3, group=1, side=5):
    rng = rng_of(rois, *data, pooled, group)
    dim = data[1] // group**2
    x = rng.normal(size=data).astype(np.float32)
    r = np.concatenate(
        [rng.integers(0, data[0], (rois, 1)), boxes_of(rng, rois, side=side)], axis=1
    )
    r = r.astype(np.float32)

    def call(run):
        out = run(cvops.psroi_pooling, x, r, 1, dim, pooled, group)
        return out, run(cvops.psroi_pooling_backward, out, r, data, 1, group)

    return call


def deformed(rois, data=(2, 3, 5, 4), pooled=3, group=1, side=5):
    rng = rng_of(rois, *data, pooled, group)
    dim = data[1] // group**2
    x = rng.normal(size=data).astype(np.float32)
    r = np.concatenate(
        [rng.integers(0, data[0], (rois, 1)), boxes_of(rng, rois, side=side)], axis=1
    ).astype(np.float32)
    trans = rng.normal(size=(rois, 2, pooled, pooled)).astype(np.float32)

    def call(run):
        options = {"sample_per_part": 2, "trans_std": 0.1}
        out = run(cvops.deformable_psroi_pooling, x, r, trans, 1, dim, group, pooled, **options)
        args = out, x, r, trans, 1, group
        return out, *run(cvops.deformable_psroi_pooling_backward, *args, **options)

    return call


def upsample(shape, scale):
    data = rng_of(*shape, scale).normal(size=shape).astype(np.float32)

    def call(run):
        out = run(cvops.bilinear_upsample, data, scale)
        return out, run(cvops.bilinear_upsample_backward, out, scale)

    return call


def confusion(total, classes):
    prediction, label = rng_of(total, classes).integers(-1, classes + 1, (2, total), np.int32)
    return lambda run: run(cvops.confusion_matrix, prediction, label, classes)


def labels(pixels, colors):
    rng = rng_of(pixels, colors)
    colormap = rng.integers(0, 256, (colors, 3), np.uint8)
    image = colormap[rng.integers(0, colors, pixels)]
    image[::7] = rng.integers(0, 256, (len(image[::7]), 3), np.uint8)
    return lambda run: run(cvops.label_from_color, image, colormap, unknown=-7)


#: For each step, a function of its small value: calls on both sides of the step.
STEPS = {
    "common.cuh kMaxGridY": lambda rows: [
        # Blocks of sort_merge, tiles of nms_chunk besides 4 blocks for the mask, columns, images,
        # pairs of tiles.
        *(nms(32 * rows), nms(32 * rows + 1), nms(256 * (rows - 4)), nms(256 * (rows - 4) + 1)),
        *(iou(3, 128 * rows), iou(3, 128 * rows + 1)),
        *(target(40, images=rows), target(40, images=rows + 1), target(40, images=3 * rows)),
        # Groups of four channels.
        *(position_sensitive(3, (1, 4 * n + 1, 5, 4)) for n in (rows - 1, rows)),
        *(deformed(3, (1, 4 * n + 1, 5, 4)) for n in (rows - 1, rows)),
        *(matrix(256 * tiles) for tiles in range(2, rows)),
    ],
    "sort_tile.cuh kSortTile": lambda tile: [
        *(nms(num) for num in (tile - 1, tile, tile + 1)),
        *(nms(tile + 50, topk=topk) for topk in (1, tile, tile + 1)),
        *(detection(tile), detection(tile + 1), multiclass(tile, tile), multiclass(tile, tile + 1)),
        *(detection(tile + 9, nms_topk=topk) for topk in (tile, tile + 1)),
    ],
    "best_keys.cuh kMaxSelect": lambda most: [
        call
        for num in (most, most + 1)
        for call in (
            nms(num, topk=60),
            nms_rotated(num, 1),
            detection(num, nms_topk=30),
            detection(num, nms_topk=60),
        )
    ],
    # topk limits the suppression, which takes the most time.
    # A pass merges four runs of 128 keys. The spatial order sorts the same number of keys.
    "sort.cuh kSortWays": lambda ways: [
        *(
            nms(num, topk=40)
            for run in (128, 128 * ways, 128 * ways**2)
            for num in (ways * run, ways * run + 1, (ways + 1) * run + 1)
        ),
        *(nms(128 * ways + 1), detection(128 * ways + 1), multiclass(700, 128 * ways + 1)),
        # An even and an odd number of passes.
        *(matching(1, 3, n) for n in (42, 43, 128 * ways // 3, 128 * ways // 3 + 1)),
    ],
    "sort.cuh kMergeWarps": lambda warps: [
        nms(num, topk=40)
        for run in (128, 512)
        for num in ((1 + 2 * warps) * run, (1 + 2 * warps) * run + 1)
    ],
    "sort.cuh kMergeFew": lambda few: [
        nms(num, topk=40) for run in (128, 512) for num in (few * run, few * run + 1)
    ],
    "block.cuh kNmsBlock": lambda most: [
        call
        for force in (False, True)
        for topk in (1, most - 8, most, most + 1)
        for call in (
            # With a list of candidates, and without.
            multiclass(50, topk, force_suppress=force),
            multiclass(50, topk, classes=2, post_nms=9, force_suppress=force),
            *(
                detection(num, nms_topk=topk, force_suppress=force)
                for num in (31, 33, most, most + 1)
            ),
        )
    ],
    "box_nms.cuh kNmsBlockRows": lambda most: [
        *(nms(num, sets=3) for num in (31, 32, 33, most, most + 1)),
        *(nms(most, topk=topk, id_index=0) for topk in (1, most - 8)),
    ],
    "box_nms.cuh kNmsFew": lambda few: [nms(few), nms(few + 1)],
    "box_nms.cuh kNmsFewPairs": lambda pairs: [
        nms(64, pairs // 64**2),
        nms(64, pairs // 64**2 + 1),
    ],
    "box_nms.cpp max_blocks": lambda blocks: [
        nms(num, topk=0) for num in (256 * blocks // 6, 256 * blocks // 6 + 1, 256 * blocks + 1)
    ],
    "topk.cuh kSamples": lambda samples: [
        *(multiclass(n, 7, classes=1) for n in (samples, samples + 1, 3 * samples, 9 * samples)),
        multiclass(3000, 60),
        # The bound of the sample is wrong: all scores are equal, or few are candidates.
        multiclass(2000, 60, scores=np.full((2, 3, 2000), 0.5, np.float32)),
        multiclass(2000, 60, scores=np.eye(6, 2000, dtype=np.float32).reshape(2, 3, 2000)),
    ],
    "sort.cpp kMaxMergeBlocks": lambda blocks: [
        *(nms(n, sets, topk=40) for n in (129, 32 * blocks, 32 * blocks + 1) for sets in (1, 2)),
        *(matching(batch, 3, n) for n in (43, 100, 300) for batch in (1, blocks, blocks + 1)),
    ],
    "nms.cpp kChunk": lambda chunk: [
        call for n in (chunk, chunk + 1, 2 * chunk) for call in nms_both(n, 2)
    ],
    "nms.cpp kChunksWithoutOrder": lambda chunks: [
        call for n in (128 * chunks, 128 * chunks + 1) for call in nms_both(n, 2)
    ],
    "nms.cpp kBlocks": lambda blocks: [
        call for n in (256 * blocks, 256 * blocks + 1) for call in nms_both(n)
    ],
    "nms.cpp kMaxSplits": lambda splits: [
        call
        for tiles in (1, splits)
        for n in (256 * tiles, 256 * tiles + 1)
        for call in nms_both(n)
    ],
    "box_iou.cpp kMaxBlocks": lambda blocks: [
        iou_of_kind(num, 5) for num in (1, 2 * blocks, 2 * blocks + 1, 256 * blocks + 1)
    ],
    "bipartite_matching.cuh kMatchingTile": lambda tile: [
        matching(2, 1, n) for n in (tile - 1, tile, tile + 1, 2 * tile + 1)
    ],
    # Without a conflict, with one in each round, and with a limit within a step of the assignment.
    "bipartite_matching.cuh kMatchingThreads": lambda threads: [
        call
        for n in (threads - 1, threads, threads + 1, 4 * threads, 4 * threads + 1)
        for call in (
            matching(1, 3, n),
            matching(2, n, n, equal=True),
            matching(2, n, n, topk=threads // 2),
        )
    ],
    "bipartite_matching.cpp max_blocks": lambda blocks: [
        matching(1, n, 1) for n in (256 * blocks, 256 * blocks + 1, 3 * 256 * blocks + 1)
    ],
    "matrix_nms.cpp max_blocks": lambda blocks: [
        matrix(n) for n in (128 * blocks, 128 * blocks + 1, 3 * 128 * blocks)
    ],
    "box_decode.cpp threads": lambda threads: both_images(decode, threads),
    "box_decode.cpp blocks": lambda blocks: many_images(decode, blocks),
    "box_encode.cpp threads": lambda threads: both_images(encode, threads),
    "box_encode.cpp blocks": lambda blocks: many_images(encode, blocks),
    "box_iou.cpp threads": lambda threads: [
        iou(rows, columns)
        for rows in (1, 37)
        for columns in (4 * threads - 4, 4 * threads - 1, 4 * threads, 4 * threads + 1, 700)
    ],
    "box_iou.cpp blocks": lambda blocks: [
        iou(n, columns)
        for columns, rows in ((3, 32), (8, 16), (300, 1))
        for n in (blocks * rows, blocks * rows + 1, 2 * blocks * rows + 1)
    ],
    "box_iou_rotated.cuh kRotatedColumns": lambda columns: [
        iou_rotated(37, n) for n in (1, columns - 1, columns, columns + 1, 3 * columns + 1)
    ],
    "box_iou_rotated.cuh kRotatedRows": lambda rows: [
        iou_rotated(n, columns)
        for n in (rows - 1, rows, rows + 1, 3 * rows + 1)
        for columns in (1, 3)
    ],
    # All pairs of a tile overlap, or none.
    "box_iou_rotated.cuh kRotatedPairs": lambda pairs: [
        iou_rotated(pairs // 8 + more, 8, side) for more in (-1, 0, 1) for side in (1, 1000)
    ],
    "multibox_prior.cuh kPriorTile": lambda tile: [
        priors((1, n), shapes=1) for n in (tile - 1, tile, tile + 1, 3 * tile + 1)
    ],
    "multibox_prior.cuh kPriorParts": lambda parts: [
        priors(*[(2, 3)] * n, shapes=1) for n in (parts, parts + 1, 2 * parts + 1)
    ],
    "multibox_prior.cuh kPriorShapes": lambda shapes: [
        priors((2, 3), (5, 1), shapes=n) for n in (1, 2, shapes, shapes + 1, 2 * shapes + 1)
    ],
    "multibox_prior.cpp kMaxBlocks": lambda blocks: [
        priors((n, 8), shapes=1) for n in (4 * blocks, 4 * blocks + 1, 12 * blocks + 1)
    ],
    "sampling.cuh kSampleThreads": lambda threads: [
        *(proposals(n) for n in (4 * threads - 1, 4 * threads, 4 * threads + 1)),
        *(samples(n - 5) for n in (4 * threads - 1, 4 * threads, 4 * threads + 1)),
        *(
            call(99, n)
            for n in (threads, threads + 1, 2 * threads, 2 * threads + 1)
            for call in (proposals, samples)
        ),
    ],
    "mask_target.cpp threads": lambda threads: [
        *(mask(n, (1, 1), images=1) for n in (threads - 1, threads, threads + 1, 9 * threads)),
        *(mask(5, (threads // 8, 9), classes=classes) for classes in (1, 2, 900)),
    ],
    "paste_masks.cpp threads": lambda threads: [
        paste(1, 16, threads),
        *(paste(n, 7, 9) for n in (1, 2, threads, 2 * threads)),
        paste(3, 2 * threads + 1, 17),
    ],
    "rcnn_target.cpp threads": lambda threads: [
        samples(200, num_sample=n) for n in (threads - 1, threads, threads + 1, 3 * threads)
    ],
    "rpn_target.cuh kRpnTile": lambda tile: [
        *(proposals(n) for n in (tile - 1, tile, tile + 1, 2 * tile + 1)),
        proposals(tile + 9, num_sample=2 * tile),
    ],
    "rpn_target.cpp max_blocks": lambda blocks: [
        proposals(n, images=1) for n in (256 * blocks, 256 * blocks + 1, 3 * 256 * blocks + 1)
    ],
    "rpn_target.cuh kTruths": lambda truths: [
        proposals(99, n) for n in (truths, truths + 1, 2 * truths, 2 * truths + 1)
    ],
    "mining.cuh kFew": lambda few: [target(n, truths=2) for n in (few + 3, 5 * few, 150)],
    "multibox_target.cuh kTargetThreads": lambda threads: [
        *(target(n) for n in (4 * threads - 1, 4 * threads, 4 * threads + 1)),
        *(target(300, truths=n) for n in (threads, threads + 1, 2 * threads, 2 * threads + 1)),
    ],
    "target_assignment.cuh kSharedKeys": lambda keys: [
        target(300, truths=n, equal=equal)
        for n in (keys, keys + 1, 3 * keys + 1)
        for equal in (False, True)
    ],
    "mining.cuh kScoreThreads": lambda threads: [
        target(n) for n in (4 * threads, 4 * threads + 1, 8 * threads, 8 * threads + 1)
    ],
    "mining.cuh kRefineThreads": lambda threads: [
        # Several images: a split has all anchors, so its list is full several times.
        target(n, images=6, truths=20, ratio=8)
        for n in (4 * threads, 4 * threads + 1, 8 * threads + 1, 20 * threads + 3)
    ],
    "multibox_target.cpp kMaxSplits": lambda splits: [
        target(128 * n + more) for n in (splits, 2 * splits) for more in (0, 1)
    ],
    "multibox_target.cpp kBlocks": lambda blocks: [
        target(64 * blocks + more, images=n) for n in (1, 2, blocks, blocks + 1) for more in (0, 1)
    ],
    "roi_pooling_backward.cuh kOwners": lambda owners: [
        *(roi(n, (1, 2, 9, 7), (1, 4)) for n in (owners, owners + 1, 2 * owners + 1)),
        *(roi(40, (1, 2, 1, n)) for n in (owners, owners + 1)),
    ],
    "roi_pooling.cpp kThreads": lambda threads: [
        roi(n, (1, 2, 3, 2), (1, 4)) for n in (threads // 4, threads // 4 + 1, threads + 1)
    ],
    "roi_pooling.cpp kMaxBlocks": lambda blocks: (
        [roi(30, (n, 5, 3, 2), (2, 2)) for n in (blocks // 2, blocks, 2 * blocks + 1)]
        + [roi(n, (1, 5, 20, 20), (2, 2)) for n in (blocks, blocks + 1, 3 * blocks)]
    ),
    "roi_pooling.cpp kMaxBytes": lambda size: [
        # An RoI has 32 bytes.
        roi(n, (4, 4, 3, 2))
        for n in (size // 32, size // 32 + 1, 2 * size // 32 + 1)
    ],
    "roi_pooling.cpp kWorthwhile": lambda rois: [
        roi(n, (4, 4, 2, 2), (9, width)) for n in (rois, rois + 1) for width in (8, 9, 11)
    ],
    "roi_pooling.cpp kBackwardBlocks": lambda blocks: [
        roi(20, (6, channels, 3, 2)) for channels in (1, 2, blocks, blocks + 1)
    ],
    "roi_pooling.cpp kPlainThreads": lambda threads: [
        roi(2, (1, channels, 40, 30), (1, bins))
        for bins in (threads // 2, threads // 2 + 1, threads, threads + 1)
        for channels in (3, 8, 9, 17)
    ],
    "roi_samples.cuh kFewSamples": lambda few: [
        *(align(9, sample_ratio=n) for n in (few, few + 1, 3 * few)),
        *(align_rotated(9, ratio=n) for n in (few, few + 1, 3 * few)),
    ],
    "roi_align.cuh kGradTile": lambda tile: [
        *(align(9, (1, 3, size, 2), side=size) for size in (tile, tile + 1, 2 * tile + 1)),
        *(align(9, (1, 3, 2, size), side=size) for size in (tile, tile + 1, 2 * tile + 1)),
        *(align(n, (1, 9, 3, 4)) for n in (tile // 2, tile // 2 + 1, tile**2, tile**2 + 1)),
    ],
    "align.h kAlignThreads": lambda threads: [
        align(n, (1, 2, 3, 2), (1, 4)) for n in (threads // 4, threads // 4 + 1, threads + 1)
    ],
    "align.h kMaxAlignBlocks": lambda blocks: [
        align(n, (n, channels, 5, 4)) for channels in (4, 5) for n in (blocks, 2 * blocks + 1)
    ],
    "roi_align.cpp kMaxBlocks": lambda blocks: [
        align(3, (n, channels, 5, 4)) for channels in (8, 9) for n in (blocks, 2 * blocks + 1)
    ],
    "align.h kPlainAlignThreads": lambda threads: [
        align(2, (1, 5, 40, 30), (1, bins))
        for bins in (threads // 2, threads // 2 + 1, threads, threads + 1)
    ],
    "adaptive_avg_pooling.cuh kPoolRows": lambda rows: [
        average((1, 2, height, 3), (2, 2)) for height in (rows, rows + 1, 3 * rows)
    ],
    "adaptive_avg_pooling.cpp kMaxBlocks": lambda blocks: [
        average((1, planes, 40, 3), size)
        for planes in (1, blocks, 9 * blocks, 200 * blocks + 1)
        for size in ((1, 1), (3, 2))
    ],
    "adaptive_avg_pooling.cpp threads": lambda threads: [
        average((1, 3, 2, 2 * threads + 1), (2, bins))
        for bins in (threads // 2, threads // 2 + 1, threads, threads + 1)
    ],
    "adaptive_avg_pooling.cpp pixels": lambda pixels: [
        average((1, planes, 1, width), (1, 1))
        for planes in (1, 40, 300)
        for width in (pixels // planes + 1, pixels, pixels + 1)
    ],
    "adaptive_avg_pooling.cpp min_columns": lambda columns: [
        average((1, 900, 1, width), (1, 1)) for width in (columns, columns + 1, 3 * columns)
    ],
    "bilinear_resize.cuh kResizeRows": lambda rows: [
        resize((1, 2, 3, 4), (height, 9)) for height in (rows, rows + 1, 3 * rows)
    ],
    "bilinear_resize.cpp kMaxBlocks": lambda blocks: [
        resize((planes, 1, 4, 5), (5, 7)) for planes in (1, 50 * blocks, 200 * blocks)
    ],
    "rroi_align.cpp angle_threads": lambda threads: [
        align_rotated(n, (1, 1, 3, 2), (1, 1)) for n in (threads, threads + 1)
    ],
    "rroi_align.cpp angle_blocks": lambda blocks: [
        align_rotated(32 * n, (1, 1, 3, 2), (1, 1)) for n in (blocks, 2 * blocks + 1)
    ],
    "psroi.cuh kPsroiTile": lambda tile: [
        *(
            position_sensitive(9, (1, 3, size, 2), side=size)
            for size in (tile, tile + 1, 2 * tile + 1)
        ),
        *(
            position_sensitive(9, (1, 3, 2, size), side=size)
            for size in (tile, tile + 1, 2 * tile + 1)
        ),
        *(position_sensitive(n, (1, 9, 3, 4), 2) for n in (tile**2 // 4, tile**2 // 4 + 1)),
        position_sensitive(tile**2 + 1, (2, 9, 3, 4), 2, 2),
        *(deformed(9, (1, 3, size, 2), side=size) for size in (tile, tile + 1, 2 * tile + 1)),
        *(deformed(9, (1, 3, 2, size), side=size) for size in (tile, tile + 1, 2 * tile + 1)),
        *(deformed(n, (1, 9, 3, 4), 2) for n in (tile**2 // 4, tile**2 // 4 + 1)),
    ],
    "deformable_psroi_pooling.cpp kMaxBlocks": lambda blocks: [
        deformed(n, (n, dim * 4, 5, 4), 4, 2) for dim in (4, 5) for n in (blocks, 5 * blocks + 1)
    ],
    "deformable_psroi_pooling.cpp threads": lambda threads: [
        deformed(n, (1, 5, 6, 7), 2) for n in (threads // 4, threads // 4 + 1)
    ],
    "deformable_psroi_pooling.cpp offset_threads": lambda threads: [
        deformed(n, (1, 5, 6, 7), 2) for n in (threads // 4, threads // 4 + 1, threads)
    ],
    "psroi_pooling.cpp kMaxBlocks": lambda blocks: [
        position_sensitive(n, (n, dim * 4, 5, 4), 5, 2)
        for dim in (4, 5)
        for n in (blocks, 5 * blocks + 1)
    ],
    "psroi_pooling.cpp threads": lambda threads: [
        position_sensitive(n, (1, 5, 6, 7), 2) for n in (threads // 4, threads // 4 + 1)
    ],
    "bilinear_upsample.cuh kRowsAtOnce": lambda rows: [
        upsample((1, 2, 3, 4), scale) for scale in (rows, rows + 1, 2 * rows + 1)
    ],
    "bilinear_upsample.cpp kMaxBlocks": lambda blocks: [
        upsample((planes, 1, 3, 5), 2) for planes in (blocks, 64 * blocks, 100 * blocks + 1)
    ],
    "bilinear_upsample.cpp threads": lambda threads: [
        upsample((1, 1, 3, width), 1) for width in (threads, threads + 1, 2 * threads + 1)
    ],
    "bilinear_upsample.cpp sums": lambda sums: [
        upsample((1, 2, 2, 3), scale) for scale in (sums // 3, sums // 2, sums, sums + 1)
    ],
    "confusion_matrix.cuh kCellsInShared": lambda cells: [
        confusion(900, round(cells**0.5) + more) for more in (0, 1)
    ],
    "confusion_matrix.cpp max_blocks": lambda blocks: [
        *(confusion(900, classes) for classes in (27, 28)),  # about 256 cells per block
        *(confusion(1024 * blocks + more, 5) for more in (0, 1, 2000)),
    ],
    "confusion_matrix.cpp of_block": lambda pixels: [
        confusion(n, 5) for n in (1, 3, pixels, pixels + 1, 2 * pixels + 3)
    ],
    "label_from_color.cuh kColorsInShared": lambda colors: [
        labels(100, n) for n in (1, colors, colors + 1, 700)
    ],
    "label_from_color.cpp max_blocks": lambda blocks: [
        labels(2048 * blocks + more, 9) for more in (0, 1, 5000)
    ],
}


def assert_equal(got, want):
    for x, y in zip(*(out if isinstance(out, tuple) else (out,) for out in (got, want))):
        np.testing.assert_array_equal(x, y)


def test_every_step_has_calls():
    assert set(STEPS) == set(found_steps())


@pytest.mark.parametrize("step", STEPS)
def test_both_sides_of_a_step_have_equal_bits(step):
    for call in STEPS[step](found_steps()[step]):
        assert_equal(call(runner("cpu", "emulated-small")), call(runner("cpu", "numpy")))


def large_multiclass(num):
    rng = rng_of(num)
    scores = rng.permutation(num).reshape(1, 2, -1).astype(np.float32) + 1
    boxes = boxes_of(rng, 1, num // 2, side=4)  # few are kept
    return partial(cvops.multiclass_nms, boxes, scores, topk=num, force_suppress=True)


def large_target(num):
    rng = rng_of(num)
    label = np.concatenate([np.float32([[[0], [1], [2]]]), boxes_of(rng, 1, 3)], axis=-1)
    logits = rng.normal(size=(1, 2, num)).astype(np.float32)
    anchors = boxes_of(rng, 1, num)
    return partial(cvops.multibox_target, anchors, label, logits, negative_mining_ratio=3)


def large_roi(rois):
    rng = rng_of(rois)
    data = rng.normal(size=(1, 2, 6, 9)).astype(np.float32)
    boxes = np.concatenate([np.zeros((rois, 1), np.float32), boxes_of(rng, rois, side=6)], axis=1)
    return partial(cvops.roi_pooling, data, boxes, (99, 100), 1, return_argmax=True)


def large_labels(pixels):
    image, colormap = rng_of(1).integers(0, 2, (2, pixels, 3), np.uint8) * np.uint8(255)
    return partial(cvops.label_from_color, image, colormap[:1025])


def large_detection(num):
    rng = rng_of(num)
    scores = rng.permutation(num).reshape(1, 1, num).astype(np.float32) / num
    scores = np.concatenate([1 - scores, scores], axis=1)
    offsets = np.zeros((1, 4 * num), np.float32)
    return partial(
        *(cvops.multibox_detection, scores, offsets, boxes_of(rng, 1, num, side=300)),
        threshold=0,
        clip=False,
        nms_topk=100,
    )


#: One input per op that is beyond the real value of a step.
LARGE = {
    # More pixels than a block has in shared memory, and more planes than a block has.
    "adaptive_avg_pooling": lambda: partial(
        cvops.adaptive_avg_pooling,
        rng_of(6).normal(size=(2, 300, 9, 11)).astype(np.float32),
        (1, 1),
    ),
    # More keys than one merge sorts: 32768.
    "box_nms": lambda: partial(
        cvops.box_nms, rows_of(rng_of(1), 33_000, side=300), topk=100, return_index=True
    ),
    "multibox_detection": lambda: large_detection(33_000),
    "multiclass_nms": lambda: large_multiclass(33_000),
    # More columns than a tile (1024), and more rows than 4096 blocks.
    "box_iou": lambda: partial(
        cvops.box_iou, boxes_of(rng_of(2), 4099, side=9), boxes_of(rng_of(3), 1030, side=9)
    ),
    # More tiles than 1024 blocks.
    "multibox_priors": lambda: partial(cvops.multibox_priors, [(600, 450)], [[0.1]], [[1]]),
    # More tiles than 512 splits.
    "multibox_target": lambda: large_target(263_000),
    # An RoI needs 816 of 32768 bytes. Each of 4 splits has 45 RoIs.
    "roi_pooling": lambda: large_roi(180),
    "bilinear_resize": lambda: partial(
        cvops.bilinear_resize,
        rng_of(7).normal(size=(2, 3, 50, 70)).astype(np.float32),
        height=301,
        width=203,
    ),
    "bilinear_upsample": lambda: partial(
        cvops.bilinear_upsample, rng_of(4).normal(size=(2, 3, 50, 70)).astype(np.float32), 9
    ),
    # More pixels than 1024 blocks count, and more classes than a block counts in shared memory.
    "confusion_matrix": lambda: partial(
        cvops.confusion_matrix, *rng_of(5).integers(-1, 112, (2, 4_200_000), np.int32), 111
    ),
    # More pixels than 2048 blocks take, and more colors than fit in shared memory.
    "label_from_color": lambda: large_labels(4_200_000),
}


@pytest.mark.parametrize("op", LARGE)
def test_large_input_has_equal_bits(op):
    call = LARGE[op]()
    assert_equal(call(backend="emulated"), call(backend="native"))

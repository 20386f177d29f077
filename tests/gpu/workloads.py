"""Calls of the ops on arrays of zeros: calls of growing sizes, and those of predictions.json."""

import numpy as np

import cvops


def zeros(*shape, dtype=np.float32):
    """Return an array of zeros; the system provides its pages at the first access."""
    return np.zeros(shape, dtype)


def call(op, *arrays, args=(), **options):
    return op, arrays, args, options


def target(images, anchors, truths, classes=2, **options):
    label, scores = zeros(images, truths, 5), zeros(images, classes, anchors)
    return call(cvops.multibox_target, zeros(1, anchors, 4), label, scores, **options)


def detection(images, anchors, classes, **options):
    scores, offsets = zeros(images, classes, anchors), zeros(images, 4 * anchors)
    return call(cvops.multibox_detection, scores, offsets, zeros(1, anchors, 4), **options)


def nms(sets, num, op=cvops.box_nms, **options):
    return call(op, zeros(sets, num, 6), **options)


def nms_of_classes(images, num, classes):
    return call(cvops.multiclass_nms, zeros(images, num, 4), zeros(images, classes, num))


def proposals(images, height, width, anchors=12):
    maps = zeros(images, 2 * anchors, height, width), zeros(images, 4 * anchors, height, width)
    return call(cvops.multi_proposal, *maps, zeros(images, 3))


def iou(rows, columns):
    return call(cvops.box_iou, zeros(rows, 4), zeros(columns, 4))


def matching(batch, rows, columns):
    return call(cvops.bipartite_matching, zeros(batch, rows, columns), threshold=0.5)


def decoding(images, num):
    return call(cvops.box_decode, zeros(images, num, 4), zeros(1, num, 4))


def encoding(images, num, refs):
    rows = zeros(images, num)
    scale = zeros(4), zeros(4)
    return call(cvops.box_encode, rows, rows, zeros(images, num, 4), zeros(images, refs, 4), *scale)


def anchors(height, width):
    shapes = dict(sizes=(0.2, 0.3), ratios=(1, 2, 0.5))
    return call(cvops.multibox_prior, zeros(1, 1, height, width), **shapes)


def priors(sides, num_sizes):
    maps = [zeros(1, 1, side, side) for side in sides]
    sizes = [(0.2, 0.3, 0.4, 0.5)[:num] for num in num_sizes]
    return call(cvops.multibox_priors, maps, args=(sizes, [(1, 2, 0.5)] * len(maps)))


def pooling(rois, channels=256, **options):
    args = (7, 7), 1 / 16
    return call(cvops.roi_pooling, zeros(1, channels, 50, 68), zeros(rois, 5), args=args, **options)


def pooling_backward(rois, channels=256):
    bins, data = (rois, channels, 7, 7), (1, channels, 50, 68)
    argmax = zeros(*bins, dtype=np.int32)
    return call(cvops.roi_pooling_backward, zeros(*bins), argmax, args=(data,))


def alignment(rois, channels=256):
    args = (7, 7), 1 / 16, 2
    return call(cvops.roi_align, zeros(1, channels, 50, 68), zeros(rois, 5), args=args)


def alignment_backward(rois, channels=256):
    args = (1, channels, 50, 68), 1 / 16, 2
    return call(cvops.roi_align_backward, zeros(rois, channels, 7, 7), zeros(rois, 5), args=args)


def upsampling(op, images, side, scale):
    return call(op, zeros(images, 21, side, side), args=(scale,))


def nms_backward(num):
    return call(cvops.box_nms_backward, zeros(num, 6), zeros(num, dtype=np.int32))


def confusion(images):
    labels = zeros(images, 320, 480, dtype=np.int32)
    return call(cvops.confusion_matrix, labels, labels, args=(21,))


def labels(images):
    masks, colors = zeros(images, 320, 480, 3, dtype=np.uint8), zeros(21, 3, dtype=np.uint8)
    return call(cvops.label_from_color, masks, colors + np.arange(21, dtype=np.uint8)[:, None])


MINING = dict(negative_mining_ratio=3.0, negative_mining_thresh=0.5)
#: op -> a function from a size to a call.
CALLS = {
    "bilinear_upsample": lambda n: upsampling(cvops.bilinear_upsample, n, 10, 32),
    "bilinear_upsample_backward": lambda n: upsampling(cvops.bilinear_upsample_backward, n, 80, 8),
    "bipartite_matching": lambda n: matching(2, 100 * n, 50),
    "box_decode": lambda n: decoding(2, 1000 * n),
    "box_encode": lambda n: encoding(2, 1000 * n, 8),
    "box_iou": lambda n: iou(100 * n, 100 * n),
    "box_nms": lambda n: nms(1, 2000 * n, id_index=0),
    "box_nms_backward": lambda n: nms_backward(2000 * n),
    "confusion_matrix": confusion,
    "label_from_color": labels,
    "matrix_nms": lambda n: nms(1, 2000 * n, op=cvops.matrix_nms),
    "multibox_detection": lambda n: detection(2, 2000 * n, 2),
    "multibox_prior": lambda n: anchors(16 * n, 16),
    "multibox_target": lambda n: target(2, 1000 * n, 20 * n),
    "multibox_target with mining": lambda n: target(2, 1000 * n, 20 * n, **MINING),
    "multiclass_nms": lambda n: nms_of_classes(1, 200 * n, 20),
    "proposal": lambda n: proposals(1, 10 * n, 30),
    "roi_align": lambda n: alignment(30 * n, 8),
    "roi_align_backward": lambda n: alignment_backward(30 * n, 8),
    "roi_pooling": lambda n: pooling(30 * n, 8, return_argmax=True),
    "roi_pooling_backward": lambda n: pooling_backward(30 * n, 8),
    "soft_nms": lambda n: nms(1, 2000 * n, op=cvops.soft_nms),
}
#: (op, workload of predictions.json) -> a function that returns the call.
WORKLOADS = {
    ("multibox_prior", "5444 anchors of 5 maps"): lambda: priors([32, 16, 8, 4, 1], [2] * 5),
    ("multibox_prior", "24564 anchors of 7 maps"): lambda: priors(
        [64, 32, 16, 8, 4, 2, 1], [2, 4, 4, 4, 4, 2, 2]
    ),
    ("multibox_prior", "1000000 anchors"): lambda: anchors(500, 500),
    ("box_iou", "24564 x 100"): lambda: iou(24564, 100),
    ("box_iou", "100000 x 1000"): lambda: iou(100_000, 1000),
    ("box_decode", "32 x 5444"): lambda: decoding(32, 5444),
    ("box_encode", "32 x 5444"): lambda: encoding(32, 5444, 8),
    ("bipartite_matching", "32 x 5444 x 64"): lambda: matching(32, 5444, 64),
    ("multibox_target", "32 x 5444 x 64"): lambda: target(32, 5444, 64),
    ("multibox_target", "64 x 24564 x 8, 21 classes, mining"): lambda: target(
        64, 24564, 8, 21, **MINING
    ),
    ("multibox_detection", "32 x 5444, 21 classes, topk 400"): lambda: detection(
        32, 5444, 21, nms_topk=400
    ),
    ("multiclass_nms", "32 x 80 classes x 8400, topk 1000"): lambda: nms_of_classes(32, 8400, 80),
    ("box_nms", "1000, spread"): lambda: nms(1, 1000),
    ("box_nms", "5000, spread"): lambda: nms(1, 5000),
    ("box_nms", "20000, spread"): lambda: nms(1, 20_000),
    ("box_nms", "20000 in 80 classes, spread"): lambda: nms(1, 20_000, id_index=0),
    ("box_nms", "100000, spread"): lambda: nms(1, 100_000),
    ("box_nms", "32 x 8400, 80 classes, topk 1000, clustered"): lambda: nms(
        32, 8400, id_index=0, topk=1000
    ),
    ("matrix_nms", "5000, spread, linear"): lambda: nms(1, 5000, op=cvops.matrix_nms),
    ("proposal", "8 x 12 x 50 x 68"): lambda: proposals(8, 50, 68),
    ("roi_align", "1000 rois of 256 x 50 x 68"): lambda: alignment(1000),
    ("roi_align_backward", "1000 rois of 256 x 50 x 68"): lambda: alignment_backward(1000),
    ("roi_pooling", "1000 rois of 256 x 50 x 68"): lambda: pooling(1000),
    ("roi_pooling", "1000 rois of 256 x 50 x 68, argmax"): lambda: pooling(
        1000, return_argmax=True
    ),
    ("roi_pooling_backward", "1000 rois of 256 x 50 x 68"): lambda: pooling_backward(1000),
    ("soft_nms", "5000, spread, linear"): lambda: nms(1, 5000, op=cvops.soft_nms),
}

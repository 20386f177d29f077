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


def nms_of_classes(images, num, classes, **options):
    arrays = zeros(images, num, 4), zeros(images, classes, num)
    return call(cvops.multiclass_nms, *arrays, **options)


def proposals(images, height, width, anchors=12):
    maps = zeros(images, 2 * anchors, height, width), zeros(images, 4 * anchors, height, width)
    return call(cvops.multi_proposal, *maps, zeros(images, 3))


def iou(rows, columns):
    return call(cvops.box_iou, zeros(rows, 4), zeros(columns, 4))


def nms_rotated(sets, num, **options):
    return call(cvops.nms_rotated, zeros(sets, num, 7), **options)


def iou_backward(rows, columns, kind="giou"):
    boxes = zeros(rows, 4), zeros(columns, 4)
    return call(cvops.box_iou_backward, zeros(rows, columns), *boxes, kind=kind)


def iou_rotated(rows, columns):
    return call(cvops.box_iou_rotated, zeros(rows, 5), zeros(columns, 5))


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


def averaging(planes, side, size):
    return call(cvops.adaptive_avg_pooling, zeros(1, planes, side, side), args=(size,))


def averaging_backward(planes, side, size):
    out_grad = zeros(1, planes, size, size)
    return call(cvops.adaptive_avg_pooling_backward, out_grad, args=((1, planes, side, side),))


def resizing(images, side, out_side):
    maps = zeros(images, 21, side, side)
    return call(cvops.bilinear_resize, maps, height=out_side, width=out_side)


def resizing_backward(images, side, out_side):
    out_grad, shape = zeros(images, 21, out_side, out_side), (images, 21, side, side)
    return call(cvops.bilinear_resize_backward, out_grad, args=(shape,))


def rotated(rois, channels=256):
    args = (7, 7), 1 / 16, 2
    return call(cvops.rroi_align, zeros(1, channels, 50, 68), zeros(rois, 6), args=args)


def position_sensitive(rois, dim=21):
    args = 1 / 16, dim, 7
    return call(cvops.psroi_pooling, zeros(1, 49 * dim, 38, 63), zeros(rois, 5), args=args)


def position_sensitive_backward(rois, dim=21):
    args = (1, 49 * dim, 38, 63), 1 / 16
    return call(cvops.psroi_pooling_backward, zeros(rois, dim, 7, 7), zeros(rois, 5), args=args)


def deformed(rois, dim=21):
    trans, options = zeros(rois, 2, 7, 7), {"sample_per_part": 4, "trans_std": 0.1}
    args = 1 / 16, dim, 7, 7
    arrays = zeros(1, 49 * dim, 38, 63), zeros(rois, 5), trans
    return call(cvops.deformable_psroi_pooling, *arrays, args=args, **options)


def deformed_backward(rois, dim=21):
    _, arrays, _, options = deformed(rois, dim)
    op = cvops.deformable_psroi_pooling_backward
    return call(op, zeros(rois, dim, 7, 7), *arrays, args=(1 / 16, 7), **options)


def region_proposals(images, num, truths=8):
    noise = zeros(images, num)
    return call(cvops.rpn_target, zeros(num, 4), zeros(images, truths, 5), noise)


def sampling(images, num, truths=8, **options):
    noise = zeros(images, num + truths)
    arrays = zeros(images, num, 4), zeros(images, truths, 5), noise
    return call(cvops.rcnn_target, *arrays, **options)


def anchor_matches(images, num, boxes=8, **options):
    arrays = zeros(num, 4), zeros(images, boxes, 4)
    return call(cvops.match_anchors, *arrays, **options)


def mask_targets(images, num, classes=2, side=100):
    rows = zeros(images, num)
    arrays = zeros(images, num, 4), zeros(images, 8, side, side), rows, rows
    return call(cvops.mask_target, *arrays, num_classes=classes, mask_size=(28, 28))


def pasting(num, height=800, width=1333):
    return call(cvops.paste_masks, zeros(num, 28, 28), zeros(num, 4), args=((height, width),))


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
    "adaptive_avg_pooling": lambda n: averaging(8 * n, 28, 3),
    "adaptive_avg_pooling_backward": lambda n: averaging_backward(8 * n, 28, 3),
    "bilinear_resize": lambda n: resizing(n, 20, 30),
    "bilinear_resize_backward": lambda n: resizing_backward(n, 20, 30),
    "bilinear_upsample": lambda n: upsampling(cvops.bilinear_upsample, n, 10, 32),
    "bilinear_upsample_backward": lambda n: upsampling(cvops.bilinear_upsample_backward, n, 80, 8),
    "bipartite_matching": lambda n: matching(2, 100 * n, 50),
    "box_decode": lambda n: decoding(2, 1000 * n),
    "box_encode": lambda n: encoding(2, 1000 * n, 8),
    "box_iou": lambda n: iou(100 * n, 100 * n),
    "box_iou_backward": lambda n: iou_backward(100 * n, 100 * n, "ciou"),
    "box_iou_rotated": lambda n: iou_rotated(100 * n, 100 * n),
    "box_nms": lambda n: nms(1, 2000 * n, id_index=0),
    "box_nms_backward": lambda n: nms_backward(2000 * n),
    "confusion_matrix": confusion,
    "deformable_psroi_pooling": lambda n: deformed(300 * n, 2),
    "deformable_psroi_pooling_backward": lambda n: deformed_backward(300 * n, 2),
    "label_from_color": labels,
    "mask_target": lambda n: mask_targets(2, 10 * n),
    "match_anchors": lambda n: anchor_matches(2, 1000 * n, 20 * n, match_best_anchors=True),
    "matrix_nms": lambda n: nms(1, 2000 * n, op=cvops.matrix_nms),
    "multibox_detection": lambda n: detection(2, 2000 * n, 2),
    "multibox_prior": lambda n: anchors(16 * n, 16),
    "multibox_target": lambda n: target(2, 1000 * n, 20 * n),
    "multibox_target with mining": lambda n: target(2, 1000 * n, 20 * n, **MINING),
    "multiclass_nms": lambda n: nms_of_classes(1, 200 * n, 20),
    "nms_rotated": lambda n: nms_rotated(1, 2000 * n, id_index=0),
    "proposal": lambda n: proposals(1, 10 * n, 30),
    "psroi_pooling": lambda n: position_sensitive(300 * n, 2),
    "psroi_pooling_backward": lambda n: position_sensitive_backward(300 * n, 2),
    "paste_masks": lambda n: pasting(n, 100, 100),
    "rcnn_target": lambda n: sampling(2, 500 * n),
    "roi_align": lambda n: alignment(30 * n, 8),
    "roi_align_backward": lambda n: alignment_backward(30 * n, 8),
    "roi_pooling": lambda n: pooling(30 * n, 8, return_argmax=True),
    "roi_pooling_backward": lambda n: pooling_backward(30 * n, 8),
    "rroi_align": lambda n: rotated(30 * n, 8),
    "soft_nms": lambda n: nms(1, 2000 * n, op=cvops.soft_nms),
    "rpn_target": lambda n: region_proposals(2, 1000 * n),
    "weighted_boxes_fusion": lambda n: nms(1, 2000 * n, op=cvops.weighted_boxes_fusion),
}
#: (op, workload of predictions.json) -> a function that returns the call.
WORKLOADS = {
    ("adaptive_avg_pooling", "1 x 2048 x 60 x 60 to 6 x 6"): lambda: averaging(2048, 60, 6),
    ("adaptive_avg_pooling_backward", "1 x 2048 x 60 x 60 to 6 x 6"): lambda: averaging_backward(
        2048, 60, 6
    ),
    ("bilinear_resize", "8 x 21 x 60 x 60 to 480 x 480"): lambda: resizing(8, 60, 480),
    ("bilinear_resize_backward", "8 x 21 x 60 x 60 to 480 x 480"): lambda: resizing_backward(
        8, 60, 480
    ),
    ("multibox_prior", "5444 anchors of 5 maps"): lambda: priors([32, 16, 8, 4, 1], [2] * 5),
    ("multibox_prior", "24564 anchors of 7 maps"): lambda: priors(
        [64, 32, 16, 8, 4, 2, 1], [2, 4, 4, 4, 4, 2, 2]
    ),
    ("multibox_prior", "1000000 anchors"): lambda: anchors(500, 500),
    ("box_iou", "24564 x 100"): lambda: iou(24564, 100),
    ("box_iou", "100000 x 1000"): lambda: iou(100_000, 1000),
    ("box_iou_backward", "5444 x 64, giou"): lambda: iou_backward(5444, 64),
    ("box_iou_rotated", "1000 x 1000"): lambda: iou_rotated(1000, 1000),
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
    ("multibox_detection", "8 x 300, 21 classes"): lambda: detection(8, 300, 21),
    ("multibox_detection", "8 x 1000, 21 classes"): lambda: detection(8, 1000, 21),
    ("multiclass_nms", "1 x 20 classes x 100, topk 100"): lambda: nms_of_classes(
        1, 100, 20, topk=100
    ),
    ("multiclass_nms", "8 x 80 classes x 300, topk 300"): lambda: nms_of_classes(
        8, 300, 80, topk=300
    ),
    ("multiclass_nms", "8 x 80 classes x 1000, topk 1000"): lambda: nms_of_classes(8, 1000, 80),
    ("multiclass_nms", "32 x 80 classes x 8400, topk 1000"): lambda: nms_of_classes(32, 8400, 80),
    ("box_nms", "100, clustered"): lambda: nms(1, 100),
    ("box_nms", "300, clustered"): lambda: nms(1, 300),
    ("box_nms", "1000, spread"): lambda: nms(1, 1000),
    ("box_nms", "5000, spread"): lambda: nms(1, 5000),
    ("box_nms", "20000, spread"): lambda: nms(1, 20_000),
    ("box_nms", "20000 in 80 classes, spread"): lambda: nms(1, 20_000, id_index=0),
    ("box_nms", "100000, spread"): lambda: nms(1, 100_000),
    ("box_nms", "32 x 8400, 80 classes, topk 1000, clustered"): lambda: nms(
        32, 8400, id_index=0, topk=1000
    ),
    ("nms_rotated", "2000, spread"): lambda: nms_rotated(1, 2000),
    ("matrix_nms", "5000, spread, linear"): lambda: nms(1, 5000, op=cvops.matrix_nms),
    ("proposal", "8 x 12 x 50 x 68"): lambda: proposals(8, 50, 68),
    ("psroi_pooling", "300 rois of 21 x 7 x 7 x 38 x 63"): lambda: position_sensitive(300),
    ("psroi_pooling_backward", "300 rois of 21 x 7 x 7 x 38 x 63"): (
        lambda: position_sensitive_backward(300)
    ),
    ("deformable_psroi_pooling", "300 rois of 21 x 7 x 7 x 38 x 63"): lambda: deformed(300),
    ("deformable_psroi_pooling_backward", "300 rois of 21 x 7 x 7 x 38 x 63"): (
        lambda: deformed_backward(300)
    ),
    ("mask_target", "8 x 128 rois, 80 classes of 28 x 28"): lambda: mask_targets(8, 128, 80),
    ("match_anchors", "122820 x 500"): lambda: anchor_matches(
        1, 122_820, 500, allow_low_quality_matches=True
    ),
    ("paste_masks", "100 masks of 28 x 28, 800 x 1333"): lambda: pasting(100),
    ("rcnn_target", "8 x 2000 x 16, 512 samples"): lambda: sampling(8, 2000, 16, num_sample=512),
    ("roi_align", "20 rois of 16 x 50 x 68"): lambda: alignment(20, 16),
    ("roi_align", "100 rois of 16 x 50 x 68"): lambda: alignment(100, 16),
    ("roi_align", "1000 rois of 16 x 50 x 68"): lambda: alignment(1000, 16),
    ("roi_align", "1000 rois of 256 x 50 x 68"): lambda: alignment(1000),
    ("roi_align_backward", "1000 rois of 256 x 50 x 68"): lambda: alignment_backward(1000),
    ("roi_pooling", "20 rois of 16 x 50 x 68"): lambda: pooling(20, 16),
    ("roi_pooling", "100 rois of 16 x 50 x 68"): lambda: pooling(100, 16),
    ("roi_pooling", "1000 rois of 16 x 50 x 68"): lambda: pooling(1000, 16),
    ("roi_pooling", "1000 rois of 256 x 50 x 68"): lambda: pooling(1000),
    ("roi_pooling", "1000 rois of 256 x 50 x 68, argmax"): lambda: pooling(
        1000, return_argmax=True
    ),
    ("roi_pooling_backward", "1000 rois of 256 x 50 x 68"): lambda: pooling_backward(1000),
    ("rroi_align", "1000 rois of 256 x 50 x 68"): lambda: rotated(1000),
    ("soft_nms", "5000, spread, linear"): lambda: nms(1, 5000, op=cvops.soft_nms),
    ("weighted_boxes_fusion", "5 x 2000"): lambda: nms(1, 10_000, op=cvops.weighted_boxes_fusion),
    ("rpn_target", "8 x 36720 x 16"): lambda: region_proposals(8, 36720, 16),
}

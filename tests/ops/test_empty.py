"""Results without elements. Their time does not depend on the lengths of the other axes."""

import time

import numpy as np
import pytest

import cvops

MANY = 2**33


def empty(*shape, dtype=np.float32):
    return np.empty(shape, dtype)


def ones(*shape):
    return np.ones(shape, np.float32)


def indices(*shape):
    return np.zeros(shape, np.int32)


#: An op, a function that makes its arguments, its options, and the shapes of its results.
CALLS = {
    "adaptive_avg_pooling, no channels": (
        cvops.adaptive_avg_pooling,
        lambda: (empty(MANY, 0, 2**10, 2**10), 2**10),
        {},
        [(MANY, 0, 2**10, 2**10)],
    ),
    "adaptive_avg_pooling, no images and no pixels": (
        cvops.adaptive_avg_pooling,
        lambda: (empty(0, MANY, 0, 0), 2),
        {},
        [(0, MANY, 2, 2)],
    ),
    "adaptive_avg_pooling_backward, no channels": (
        cvops.adaptive_avg_pooling_backward,
        lambda: (empty(2**30, 0, 2**10, 2**10), (2**30, 0, 2**10, 2**10)),
        {},
        [(2**30, 0, 2**10, 2**10)],
    ),
    "bipartite_matching, no rows and no columns": (
        cvops.bipartite_matching,
        lambda: [empty(MANY, 0, 0)],
        {"threshold": 0},
        [(MANY, 0)] * 2,
    ),
    "bipartite_matching, no matrices": (
        cvops.bipartite_matching,
        lambda: [empty(0, 2**28, 2**28)],
        {"threshold": 0},
        [(0, 2**28)] * 2,
    ),
    "box_decode, no anchors": (
        cvops.box_decode,
        lambda: (empty(MANY, 0, 4), empty(1, 0, 4)),
        {},
        [(MANY, 0, 4)],
    ),
    "box_encode, no anchors": (
        cvops.box_encode,
        lambda: (
            empty(MANY, 0),
            empty(MANY, 0),
            empty(MANY, 0, 4),
            empty(MANY, 0, 4),
            ones(4),
            ones(4),
        ),
        {},
        [(MANY, 0, 4)] * 2,
    ),
    "box_iou_backward, no lhs": (
        cvops.box_iou_backward,
        lambda: (empty(MANY, 0, 3), empty(MANY, 0, 4), ones(3, 4)),
        {"kind": "ciou"},
        [(MANY, 0, 4), (3, 4)],
    ),
    "box_iou, no lhs": (
        cvops.box_iou,
        lambda: (empty(MANY, 0, 4), ones(3, 4)),
        {},
        [(MANY, 0, 3)],
    ),
    "box_iou, no rhs": (
        cvops.box_iou,
        lambda: (ones(3, 4), empty(0, MANY, 4)),
        {},
        [(3, 0, MANY)],
    ),
    "box_iou_rotated, no lhs": (
        cvops.box_iou_rotated,
        lambda: (empty(MANY, 0, 5), ones(3, 5)),
        {},
        [(MANY, 0, 3)],
    ),
    "box_iou_rotated, no rhs": (
        cvops.box_iou_rotated,
        lambda: (ones(3, 5), empty(0, MANY, 5)),
        {},
        [(3, 0, MANY)],
    ),
    "box_nms, no rows": (
        cvops.box_nms,
        lambda: [empty(MANY, 0, 6)],
        {"id_index": 0},
        [(MANY, 0, 6)],
    ),
    "box_nms with the index, no rows": (
        cvops.box_nms,
        lambda: [empty(MANY, 0, 6)],
        {"topk": 3, "return_index": True},
        [(MANY, 0, 6), (MANY, 0)],
    ),
    "box_nms, no sets": (
        cvops.box_nms,
        lambda: [empty(MANY, 0, 3, 6)],
        {"topk": 0, "return_index": True},
        [(MANY, 0, 3, 6), (MANY, 0, 3)],
    ),
    "box_nms_backward, no rows": (
        cvops.box_nms_backward,
        lambda: (empty(MANY, 0, 6), indices(MANY, 0)),
        {},
        [(MANY, 0, 6)],
    ),
    "box_nms_backward, no columns": (
        cvops.box_nms_backward,
        lambda: (empty(2**22, 3, 0), indices(2**22, 3)),
        {},
        [(2**22, 3, 0)],
    ),
    "multibox_detection, no anchors": (
        cvops.multibox_detection,
        lambda: (empty(MANY, 3, 0), empty(MANY, 0), empty(1, 0, 4)),
        {},
        [(MANY, 0, 6)],
    ),
    "mask_target, no rois": (
        cvops.mask_target,
        lambda: (empty(MANY, 0, 4), empty(MANY, 0, 5, 5), empty(MANY, 0), empty(MANY, 0)),
        {"num_classes": 2, "mask_size": (3, 4)},
        [(MANY, 0, 2, 3, 4)] * 2,
    ),
    "paste_masks, no boxes": (
        cvops.paste_masks,
        lambda: (empty(0, MANY, 28), empty(0, 4)),
        {"shape": (2**30, 2**30)},
        [(0, 2**30, 2**30)],
    ),
    "paste_masks, no pixels": (
        cvops.paste_masks,
        lambda: (empty(2**24, 0, 3), empty(2**24, 4)),
        {"shape": (0, 2**30)},
        [(2**24, 0, 2**30)],
    ),
    "match_anchors, no images": (
        cvops.match_anchors,
        lambda: (empty(2**24, 4), empty(0, 2**29, 4)),
        {"match_best_anchors": True},
        [(0, 2**24)],
    ),
    "match_anchors, no anchors": (
        cvops.match_anchors,
        lambda: (empty(0, 4), empty(MANY, 0, 4)),
        {"allow_low_quality_matches": True},
        [(MANY, 0)],
    ),
    "rcnn_target, no images": (
        cvops.rcnn_target,
        lambda: (empty(0, MANY, 4), empty(0, 3, 5), empty(0, MANY + 3)),
        {"num_sample": 7},
        [(0, 7, 4), (0, 7), (0, 7), (0, 7, 4), (0, 7, 4)],
    ),
    "rpn_target, no anchors": (
        cvops.rpn_target,
        lambda: (empty(0, 4), empty(MANY, 0, 5), empty(MANY, 0)),
        {},
        [(MANY, 0), (MANY, 0, 4), (MANY, 0, 4)],
    ),
    "rpn_target, no images": (
        cvops.rpn_target,
        lambda: (empty(2**24, 4), empty(0, MANY, 5), empty(0, 2**24)),
        {},
        [(0, 2**24), (0, 2**24, 4), (0, 2**24, 4)],
    ),
    "multiclass_nms, no images": (
        cvops.multiclass_nms,
        lambda: (empty(0, 2**24, 4), empty(0, 8, 2**24)),
        {"topk": 10**5},
        [(0, 10**5, 6), (0,)],
    ),
    "multiclass_nms, no boxes": (
        cvops.multiclass_nms,
        lambda: (empty(2**16, 0, 4), empty(2**16, 3, 0)),
        {},
        [(2**16, 0, 6), (2**16,)],
    ),
    "multiclass_nms, no classes": (
        cvops.multiclass_nms,
        lambda: (empty(2**16, 1, 4), empty(2**16, 0, 1)),
        {},
        [(2**16, 0, 6), (2**16,)],
    ),
    "multiclass_nms, post_nms 0": (
        cvops.multiclass_nms,
        lambda: (ones(2, 2**18, 4), ones(2, 9, 2**18)),
        {"post_nms": 0},
        [(2, 0, 6), (2,)],
    ),
    "nms_rotated, no rows": (
        cvops.nms_rotated,
        lambda: [empty(MANY, 0, 7)],
        {"return_index": True},
        [(MANY, 0, 7), (MANY, 0)],
    ),
    "nms_rotated, no sets": (
        cvops.nms_rotated,
        lambda: [empty(MANY, 0, 3, 7)],
        {"topk": 0},
        [(MANY, 0, 3, 7)],
    ),
    "matrix_nms, no rows": (
        cvops.matrix_nms,
        lambda: [empty(MANY, 0, 6)],
        {"return_index": True},
        [(MANY, 0, 6), (MANY, 0)],
    ),
    "matrix_nms, post_nms 0": (
        cvops.matrix_nms,
        lambda: [ones(2, 2**20, 6)],
        {"post_nms": 0, "return_index": True},
        [(2, 0, 6), (2, 0)],
    ),
    "soft_nms, no rows": (
        cvops.soft_nms,
        lambda: [empty(MANY, 0, 6)],
        {"return_index": True},
        [(MANY, 0, 6), (MANY, 0)],
    ),
    "soft_nms, post_nms 0": (
        cvops.soft_nms,
        lambda: [ones(2, 2**20, 6)],
        {"post_nms": 0, "return_index": True},
        [(2, 0, 6), (2, 0)],
    ),
    "weighted_boxes_fusion, no rows": (
        cvops.weighted_boxes_fusion,
        lambda: [empty(MANY, 0, 6)],
        {},
        [(MANY, 0, 6)],
    ),
    "weighted_boxes_fusion, post_nms 0": (
        cvops.weighted_boxes_fusion,
        lambda: [ones(2, 2**20, 6)],
        {"post_nms": 0},
        [(2, 0, 6)],
    ),
    "multi_proposal, no images": (
        cvops.multi_proposal,
        lambda: (empty(0, 24, 2**10, 2**10), empty(0, 48, 2**10, 2**10), empty(0, 3)),
        {"rpn_post_nms_top_n": 2**30, "output_score": True},
        [(0, 5), (0, 1)],
    ),
    "multibox_target, no images": (
        cvops.multibox_target,
        lambda: (ones(1, 2**18, 4), empty(0, 2**29, 5), empty(0, 2**31, 2**18)),
        {"negative_mining_ratio": 3},
        [(0, 2**20), (0, 2**20), (0, 2**18)],
    ),
    "deformable_psroi_pooling, no images": (
        cvops.deformable_psroi_pooling,
        lambda: (empty(0, 2**30, 1, 1), ones(2**12, 5), ones(2**12, 2, 7, 7), 1, 3, 0, 7),
        {},
        [(2**12, 3, 7, 7)],
    ),
    "deformable_psroi_pooling, no rois": (
        cvops.deformable_psroi_pooling,
        lambda: (ones(1, 2**20, 1, 1), empty(0, 5), empty(0, 2, 9, 9), 1, 2**20, 1, 2**14),
        {"part_size": 9},
        [(0, 2**20, 2**14, 2**14)],
    ),
    "deformable_psroi_pooling_backward, no images": (
        cvops.deformable_psroi_pooling_backward,
        lambda: (
            *(ones(2**12, 5, 1, 1), empty(0, 5, 4, 4), ones(2**12, 5), ones(2**12, 2, 1, 1)),
            *(1, 0),
        ),
        {},
        [(0, 5, 4, 4), (2**12, 2, 1, 1)],
    ),
    "psroi_pooling, no images": (
        cvops.psroi_pooling,
        lambda: (empty(0, 2**30, 1, 1), ones(2**12, 5), 1, 3, 7),
        {},
        [(2**12, 3, 7, 7)],
    ),
    "psroi_pooling, no rois": (
        cvops.psroi_pooling,
        lambda: (ones(1, 2**20, 1, 1), empty(0, 5), 1, 2**20, 2**14),
        {"group_size": 1},
        [(0, 2**20, 2**14, 2**14)],
    ),
    "psroi_pooling, no pixels": (
        cvops.psroi_pooling,
        lambda: (empty(2**20, 49, 0, 1), ones(2**12, 5), 1, 1, 7),
        {},
        [(2**12, 1, 7, 7)],
    ),
    "psroi_pooling_backward, no images": (
        cvops.psroi_pooling_backward,
        lambda: (ones(2**18, 5, 1, 1), ones(2**18, 5), (0, 5, 4, 4), 1),
        {},
        [(0, 5, 4, 4)],
    ),
    "psroi_pooling_backward, no rois": (
        cvops.psroi_pooling_backward,
        lambda: (empty(0, 2**10, 2**14, 2**14), empty(0, 5), (1, 2**10, 1, 1), 1),
        {"group_size": 1},
        [(1, 2**10, 1, 1)],
    ),
    "roi_align, no channels": (
        cvops.roi_align,
        lambda: (empty(2**30, 0, 1, 1), ones(2**20, 5), (7, 7), 1),
        {},
        [(2**20, 0, 7, 7)],
    ),
    "roi_align, no rois": (
        cvops.roi_align,
        lambda: (ones(2, 3, 5, 4), empty(0, 5), (2**14, 2**15), 1),
        {},
        [(0, 3, 2**14, 2**15)],
    ),
    "roi_align, no pixels": (
        cvops.roi_align,
        lambda: (empty(2**29, 2, 0, 1), ones(2**15, 5), (7, 7), 1),
        {},
        [(2**15, 2, 7, 7)],
    ),
    "roi_align_backward, no channels": (
        cvops.roi_align_backward,
        lambda: (empty(2**20, 0, 3, 3), ones(2**20, 5), (5, 0, 4, 4), 1),
        {},
        [(5, 0, 4, 4)],
    ),
    "roi_align_backward, no bins": (
        cvops.roi_align_backward,
        lambda: (empty(2**20, 3, 0, 5), ones(2**20, 5), (5, 3, 4, 4), 1),
        {},
        [(5, 3, 4, 4)],
    ),
    "roi_pooling, no channels": (
        cvops.roi_pooling,
        lambda: (empty(2**30, 0, 1, 1), ones(2**20, 5), (7, 7), 1),
        {"return_argmax": True},
        [(2**20, 0, 7, 7)] * 2,
    ),
    "roi_pooling, no rois": (
        cvops.roi_pooling,
        lambda: (ones(2, 3, 5, 4), empty(0, 5), (2**14, 2**15), 1),
        {},
        [(0, 3, 2**14, 2**15)],
    ),
    "roi_pooling_backward, no channels": (
        cvops.roi_pooling_backward,
        lambda: (empty(MANY, 0, 3, 3), indices(MANY, 0, 3, 3), (5, 0, 4, 4)),
        {},
        [(5, 0, 4, 4)],
    ),
    "roi_pooling_backward, no images": (
        cvops.roi_pooling_backward,
        lambda: (ones(2**18, 5, 1, 1), indices(2**18, 5, 1, 1), (0, 5, 4, 4)),
        {},
        [(0, 5, 4, 4)],
    ),
    "bilinear_resize, no channels": (
        cvops.bilinear_resize,
        lambda: (empty(MANY, 0, 3, 4), None, 2**13, 2**13),
        {},
        [(MANY, 0, 2**13, 2**13)],
    ),
    "bilinear_resize_backward, no images": (
        cvops.bilinear_resize_backward,
        lambda: (empty(0, 2**30, 2**13, 2**13), (0, 2**30, 2**10, 2**10)),
        {},
        [(0, 2**30, 2**10, 2**10)],
    ),
    "rroi_align, no channels": (
        cvops.rroi_align,
        lambda: (empty(2**30, 0, 1, 1), ones(2**20, 6), (7, 7), 1),
        {},
        [(2**20, 0, 7, 7)],
    ),
    "rroi_align, no rois": (
        cvops.rroi_align,
        lambda: (ones(2, 3, 5, 4), empty(0, 6), (2**14, 2**15), 1),
        {},
        [(0, 3, 2**14, 2**15)],
    ),
    "rroi_align, no pixels": (
        cvops.rroi_align,
        lambda: (empty(2**29, 2, 0, 1), ones(2**15, 6), (7, 7), 1),
        {},
        [(2**15, 2, 7, 7)],
    ),
    "bilinear_upsample, no channels": (
        cvops.bilinear_upsample,
        lambda: (empty(MANY, 0, 3, 4), 2),
        {},
        [(MANY, 0, 6, 8)],
    ),
    "bilinear_upsample, no rows": (
        cvops.bilinear_upsample,
        lambda: (empty(MANY, 3, 0, 4), 2),
        {},
        [(MANY, 3, 0, 8)],
    ),
    "bilinear_upsample, no columns": (
        cvops.bilinear_upsample,
        lambda: (empty(MANY, 3, 5, 0), 1024),
        {},
        [(MANY, 3, 5120, 0)],
    ),
    "bilinear_upsample_backward, no rows": (
        cvops.bilinear_upsample_backward,
        lambda: (empty(MANY, 3, 0, 4), 2),
        {},
        [(MANY, 3, 0, 2)],
    ),
    "bilinear_upsample_backward, no columns": (
        cvops.bilinear_upsample_backward,
        lambda: (empty(MANY, 3, 4, 0), 2),
        {},
        [(MANY, 3, 2, 0)],
    ),
    "label_from_color, no pixels": (
        cvops.label_from_color,
        lambda: (empty(MANY, 0, 3, dtype=np.uint8), np.zeros((65535, 3), np.uint8)),
        {},
        [(MANY, 0)],
    ),
}


@pytest.mark.parametrize(("op", "arguments", "options", "shapes"), CALLS.values(), ids=CALLS)
def test_empty_result_takes_no_loop_over_its_axes(run, op, arguments, options, shapes):
    run(op, *arguments(), **options)  # compiles the kernels
    begin = time.process_time()
    out = run(op, *arguments(), **options)
    assert time.process_time() - begin < 2
    results = out if isinstance(out, tuple) else (out,)
    assert [x.shape for x in results] == shapes
    assert not any(x.any() for x in results)


def test_counts_of_no_rows_are_zero(run):
    boxes, scores = ones(300, 5, 4), ones(300, 2, 5)
    out, counts = run(cvops.multiclass_nms, boxes, scores, post_nms=0)
    assert out.shape == (300, 0, 6)
    assert counts.tolist() == [0] * 300


def test_rois_without_bins_give_a_zero_gradient(run):
    """The number of bins is a divisor, and it is 0."""
    for bins in ((0, 5), (5, 0), (0, 0)):
        shape = (MANY, 3, *bins)
        grad = run(cvops.roi_pooling_backward, empty(*shape), indices(*shape), (2, 3, 4, 4))
        np.testing.assert_array_equal(grad, np.zeros((2, 3, 4, 4)))


def zeros(*shape, dtype=np.float32):
    """An array that has the memory of one number."""
    return np.broadcast_to(dtype(0), shape)


#: An op, its arguments, and the message of the error.
LARGE = {
    "box_nms, 2^31 sets": (
        cvops.box_nms,
        [zeros(2**16, 2**15, 1, 6)],
        "data: .* below 2.*31, got shape",
    ),
    "box_nms_backward, 2^31 sets": (
        cvops.box_nms_backward,
        [zeros(2**31, 1, 6), zeros(2**31, 1, dtype=np.int32)],
        "out_grad: expected sizes below",
    ),
    "multibox_detection, 2^31 images": (
        cvops.multibox_detection,
        [zeros(2**31, 2, 1), zeros(2**31, 4), zeros(1, 1, 4)],
        "cls_prob: expected sizes below",
    ),
    "multibox_detection, 2^31 classes": (
        cvops.multibox_detection,
        [zeros(1, 2**31, 1), zeros(1, 4), zeros(1, 1, 4)],
        "cls_prob: expected sizes below",
    ),
    "multiclass_nms, 2^31 images": (
        cvops.multiclass_nms,
        [zeros(2**31, 1, 4), zeros(2**31, 1, 1)],
        "scores: expected sizes below",
    ),
    "nms_rotated, 2^31 sets": (
        cvops.nms_rotated,
        [zeros(2**16, 2**15, 1, 7)],
        "data: .* below 2.*31, got shape",
    ),
    "multibox_target, 2^31 images": (
        cvops.multibox_target,
        [zeros(1, 1, 4), zeros(2**31, 1, 5), zeros(2**31, 1, 1)],
        "cls_pred: expected sizes below",
    ),
    "multibox_target, 2^31 columns": (
        cvops.multibox_target,
        [zeros(1, 1, 4), zeros(1, 1, 2**31), zeros(1, 1, 1)],
        r"label: expected rows of less than 2\^31",
    ),
}


@pytest.mark.parametrize(("op", "arguments", "message"), LARGE.values(), ids=LARGE)
def test_sizes_beyond_int32_are_refused(op, arguments, message):
    with pytest.raises(ValueError, match=message):
        op(*arguments)

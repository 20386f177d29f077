"""Cases that several tests share: the ops, and a small call of each."""

import numpy as np

import cvops

#: The ops of the package.
OPS = [
    "adaptive_avg_pooling",
    "bilinear_resize",
    "bilinear_upsample",
    "bipartite_matching",
    "box_decode",
    "box_encode",
    "box_iou",
    "box_iou_rotated",
    "box_nms",
    "confusion_matrix",
    "deformable_psroi_pooling",
    "label_from_color",
    "mask_target",
    "match_anchors",
    "matrix_nms",
    "multibox_detection",
    "multibox_prior",
    "multibox_target",
    "multiclass_nms",
    "nms_rotated",
    "paste_masks",
    "proposal",
    "psroi_pooling",
    "rcnn_target",
    "roi_align",
    "roi_pooling",
    "rpn_target",
    "rroi_align",
    "soft_nms",
    "weighted_boxes_fusion",
]

RNG = np.random.default_rng(0)
BOXES = np.sort(RNG.random((300, 2, 2), np.float32), axis=1).reshape(300, 4)
ROWS = np.c_[RNG.integers(0, 3, 300), RNG.random(300), BOXES].astype(np.float32)
ROTATED = np.c_[BOXES[:, :2], BOXES[:, 2:] / 2, 360 * BOXES[:, 0]].astype(np.float32)
PROB = RNG.dirichlet(np.ones(4), (2, 300)).transpose(0, 2, 1).astype(np.float32)
OFFSETS = RNG.standard_normal((2, 1200)).astype(np.float32)
LABEL = np.c_[np.zeros(5), BOXES[:5]].astype(np.float32)[None].repeat(2, axis=0)
SAMPLES = RNG.integers(-1, 2, (2, 300)).astype(np.float32), RNG.integers(0, 5, (2, 300)).astype("f")
SCALE = np.zeros(4, np.float32), np.float32([0.1, 0.1, 0.2, 0.2])
DATA = RNG.random((1, 4, 20, 24), np.float32)
ROIS = np.c_[np.zeros(9), BOXES[:9] * 20].astype(np.float32)
ROTATED_ROIS = np.c_[ROIS, np.arange(0, 360, 40)].astype(np.float32)
TRANS = RNG.random((9, 2, 2, 2), np.float32)
COLORS = np.uint8(RNG.integers(0, 256, (21, 3)))
INDEX = cvops.box_nms(ROWS, id_index=0, return_index=True, backend="numpy")[1]
ARGMAX = cvops.roi_pooling(DATA, ROIS, (3, 3), 1.0, return_argmax=True, backend="numpy")[1]
NOISE = RNG.random((2, 300), np.float32)
PROPOSALS = BOXES[:120].reshape(2, 60, 4)
MATCHES, CLASSES = RNG.integers(0, 4, (2, 2, 60)).astype(np.float32)
MASK = RNG.integers(0, 21, (2, 30, 40)).astype(np.int32)
RPN = (
    RNG.random((1, 24, 5, 6), np.float32),
    RNG.standard_normal((1, 48, 5, 6)).astype(np.float32),
    np.float32([[80, 96, 1]]),
)
#: The arguments and the options of a small call of each op and gradient.
CALLS = {
    "adaptive_avg_pooling": ((DATA, (3, 5)), {}),
    "adaptive_avg_pooling_backward": ((DATA, (1, 4, 40, 50)), {}),
    "bilinear_resize": ((DATA,), {"height": 30, "width": 31}),
    "bilinear_resize_backward": ((DATA, (1, 4, 10, 50)), {}),
    "bilinear_upsample": ((DATA, 4), {}),
    "bilinear_upsample_backward": ((DATA, 4), {}),
    "bipartite_matching": ((PROB,), {"threshold": 0.3}),
    "box_decode": ((OFFSETS.reshape(2, 300, 4), BOXES[None]), {"format": "corner"}),
    "box_encode": ((*SAMPLES, BOXES[None].repeat(2, axis=0), LABEL[:, :, 1:], *SCALE), {}),
    "box_iou": ((BOXES, BOXES), {}),
    "box_iou_backward": ((RNG.random((300, 300), np.float32), BOXES, BOXES), {"kind": "ciou"}),
    "box_iou_rotated": ((ROTATED, ROTATED), {}),
    "box_nms": ((ROWS,), {"id_index": 0}),
    "box_nms_backward": ((ROWS, INDEX), {}),
    "confusion_matrix": ((MASK[::-1].copy(), MASK, 21), {"ignore_label": 20}),
    "deformable_psroi_pooling": (
        (DATA, ROIS, TRANS, 1.0, 1, 2, 3),
        {"part_size": 2, "sample_per_part": 2, "trans_std": 0.1},
    ),
    "deformable_psroi_pooling_backward": (
        (RNG.random((9, 1, 3, 3), np.float32), DATA, ROIS, TRANS, 1.0, 2),
        {"part_size": 2, "sample_per_part": 2, "trans_std": 0.1},
    ),
    "label_from_color": ((COLORS[MASK], COLORS), {}),
    "match_anchors": (
        (BOXES, BOXES[:5]),
        {"allow_low_quality_matches": True, "match_best_anchors": True},
    ),
    "matrix_nms": ((ROWS,), {"id_index": 0, "method": "gaussian"}),
    "mask_target": (
        (PROPOSALS * 20, DATA.repeat(2, axis=0), MATCHES, CLASSES),
        {"num_classes": 3, "mask_size": (5, 6)},
    ),
    "multibox_detection": ((PROB, OFFSETS, BOXES[None]), {}),
    "multibox_prior": ((DATA,), {"sizes": (0.2, 0.3)}),
    "multibox_target": ((BOXES[None], LABEL, PROB), {"negative_mining_ratio": 3}),
    "multiclass_nms": ((BOXES[None], PROB[:1]), {"topk": 500}),
    "nms_rotated": ((np.c_[ROWS[:, :2], ROTATED],), {"id_index": 0}),
    "proposal": (RPN, {"rpn_post_nms_top_n": 50}),
    "psroi_pooling": ((DATA, ROIS, 1.0, 1, 3, 2), {}),
    "psroi_pooling_backward": (
        (RNG.random((9, 1, 3, 3), np.float32), ROIS, DATA.shape, 1.0),
        {"group_size": 2},
    ),
    "paste_masks": ((RNG.random((9, 7, 7), np.float32), BOXES[:9] * 30, (20, 30)), {}),
    "rcnn_target": ((PROPOSALS, LABEL, NOISE[:, :65]), {"num_sample": 32}),
    "roi_align": ((DATA, ROIS, (3, 3), 1.0), {"aligned": True}),
    "roi_align_backward": (
        (RNG.random(ARGMAX.shape, np.float32), ROIS, DATA.shape, 1.0),
        {"sample_ratio": 2},
    ),
    "roi_pooling": ((DATA, ROIS, (3, 3), 1.0), {}),
    "rpn_target": ((BOXES, LABEL, NOISE), {"num_sample": 64}),
    "roi_pooling_backward": ((RNG.random(ARGMAX.shape, np.float32), ARGMAX, DATA.shape), {}),
    "rroi_align": ((DATA, ROTATED_ROIS, (3, 3), 1.0), {"sampling_ratio": 2}),
    "soft_nms": ((ROWS,), {"id_index": 0, "method": "gaussian", "post_nms": 20}),
    "weighted_boxes_fusion": ((ROWS,), {"id_index": 0, "num_models": 3}),
}

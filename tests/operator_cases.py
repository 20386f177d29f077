"""Shared cases of the operator tests: inputs and options of each operator, and networks."""

import numpy as np

import cvops
from cvops import contrib

rng = np.random.default_rng(5)


def floats(*shape):
    return rng.random(shape, np.float32)


def boxes(*shape):
    corners = floats(*shape, 2, 2)
    return np.sort(corners, axis=-2).reshape(*shape, 4)


def rotated_boxes(*shape):
    return floats(*shape, 5) * np.float32([1, 1, 1, 1, 6])


def truths(images, rows):
    label = np.concatenate([rng.integers(0, 2, (images, rows, 1)), boxes(images, rows)], axis=-1)
    label[0, rows // 2 :] = -1
    return label.astype(np.float32)


ANCHORS = boxes(1, 40)
#: operator -> its inputs and its options.
CASES = {
    "AdaptiveAvgPooling2D": ([floats(2, 3, 9, 11)], {"output_size": (4, 3)}),
    "BilinearResize2D": ([floats(2, 3, 5, 7)], {"height": 8, "width": 4, "align_corners": False}),
    "MultiBoxPrior": ([floats(2, 3, 5, 7)], {"sizes": (0.3, 0.7), "ratios": (1, 2, 0.5)}),
    "MultiBoxTarget": (
        [ANCHORS, truths(3, 4), floats(3, 3, 40)],
        {"negative_mining_ratio": 3, "variances": (0.1, 0.2, 0.3, 0.4)},
    ),
    "MultiBoxDetection": (
        [floats(2, 3, 40), floats(2, 160) - np.float32(0.5), ANCHORS],
        {"threshold": 0.3, "nms_topk": 20, "force_suppress": True},
    ),
    "MultiProposal": (
        [floats(2, 8, 4, 5), floats(2, 16, 4, 5), np.array([[60, 75, 1], [64, 80, 1.5]])],
        {"scales": (1, 3), "ratios": (0.5, 1), "rpn_post_nms_top_n": 9, "iou_loss": True},
    ),
    "Proposal": (
        [floats(1, 8, 4, 5), np.zeros((1, 16, 4, 5)), np.array([[60, 75, 1]])],
        {
            "scales": (1, 3),
            "ratios": (0.5, 1),
            "rpn_pre_nms_top_n": 30,
            "rpn_post_nms_top_n": 9,
            "output_score": True,
        },
    ),
    "bipartite_matching": ([floats(2, 7, 5)], {"threshold": 0.4, "topk": 2}),
    "box_decode": (
        [floats(2, 40, 4) - np.float32(0.5), ANCHORS],
        {"std0": 0.1, "std1": 0.1, "std2": 0.2, "std3": 0.3, "clip": 0.05, "format": "corner"},
    ),
    "box_encode": (
        [
            rng.integers(-1, 2, (2, 30)),
            rng.integers(0, 5, (2, 30)),
            boxes(2, 30),
            boxes(2, 5),
            floats(4),
            floats(4) + np.float32(0.1),
        ],
        {},
    ),
    "box_iou": ([boxes(3, 4), boxes(2, 5)], {"format": "corner"}),
    "box_iou_rotated": (
        [rotated_boxes(3, 4), rotated_boxes(2, 5)],
        {"angle": "radians", "clockwise": True},
    ),
    "box_nms": (
        [np.concatenate([rng.integers(0, 3, (2, 30, 1)), floats(2, 30, 1), boxes(2, 30)], -1)],
        {"id_index": 0, "overlap_thresh": 0.3, "topk": 25, "out_format": "center"},
    ),
    "DeformablePSROIPooling": (
        [
            floats(2, 16, 9, 11),
            np.array([[0, 1, 2, 9, 8], [1, 0, 0, 4, 4]]),
            floats(2, 4, 2, 2) - np.float32(0.5),
        ],
        {
            **{"spatial_scale": 0.5, "output_dim": 4, "group_size": 2, "pooled_size": 3},
            **{"part_size": 2, "sample_per_part": 2, "trans_std": 0.1},
        },
    ),
    "PSROIPooling": (
        [floats(2, 12, 9, 11), np.array([[0, 1, 2, 9, 8], [1, 0, 0, 4, 4]])],
        {"spatial_scale": 0.5, "output_dim": 3, "pooled_size": 3, "group_size": 2},
    ),
    "ROIAlign": (
        [floats(2, 12, 9, 11), np.array([[0, 1, 2, 9, 8], [1, 0, 0, 4, 4]])],
        {"pooled_size": (3, 2), "spatial_scale": 0.5, "position_sensitive": True, "aligned": True},
    ),
    "ROIPooling": (
        [floats(2, 3, 9, 11), np.array([[0, 1, 2, 9, 8], [1, 0, 0, 4, 4]])],
        {"pooled_size": (3, 2), "spatial_scale": 0.5},
    ),
    "RROIAlign": (
        [floats(2, 3, 9, 11), np.array([[0, 9, 8, 9, 8, 90], [1, 8, 6, 4, 8, 0]])],
        {"pooled_size": (3, 2), "spatial_scale": 0.5, "sampling_ratio": 2},
    ),
    "bilinear_upsample": ([floats(2, 3, 4, 5)], {"scale": 4}),
    "multiclass_nms": (
        [boxes(2, 30), floats(2, 4, 30)],
        {"topk": 50, "background_id": 1, "overlap_thresh": 0.3},
    ),
    "nms_rotated": (
        [
            np.concatenate(
                [rng.integers(0, 3, (2, 30, 1)), floats(2, 30, 1), rotated_boxes(2, 30)], -1
            )
        ],
        {"id_index": 0, "overlap_thresh": 0.3, "topk": 25, "angle": "radians", "clockwise": True},
    ),
    "matrix_nms": (
        [np.concatenate([rng.integers(0, 3, (2, 30, 1)), floats(2, 30, 1), boxes(2, 30)], -1)],
        {"id_index": 0, "method": "gaussian", "sigma": 0.7, "post_nms": 20},
    ),
    "soft_nms": (
        [np.concatenate([rng.integers(0, 3, (2, 30, 1)), floats(2, 30, 1), boxes(2, 30)], -1)],
        {"id_index": 0, "method": "gaussian", "sigma": 0.7, "topk": 25, "post_nms": 20},
    ),
    "match_anchors": (
        [ANCHORS, boxes(3, 4)],
        {
            **{"high_threshold": 0.6, "low_threshold": 0.2},
            **{"allow_low_quality_matches": True, "match_best_anchors": True},
        },
    ),
    "weighted_boxes_fusion": (
        [np.concatenate([rng.integers(0, 3, (2, 30, 1)), floats(2, 30, 1), boxes(2, 30)], -1)],
        {"id_index": 0, "overlap_thresh": 0.3, "num_models": 3, "topk": 25, "post_nms": 20},
    ),
    "mrcnn_mask_target": (
        [
            9 * boxes(2, 6),
            rng.integers(0, 2, (2, 3, 9, 10)).astype(np.float32),
            rng.integers(0, 3, (2, 6)),
            rng.integers(-1, 3, (2, 6)),
        ],
        {"num_rois": 6, "num_classes": 3, "mask_size": (4, 5), "aligned": True},
    ),
    "paste_masks": ([floats(5, 7, 6), 20 * boxes(5)], {"shape": (18, 19), "threshold": 0.4}),
    "rcnn_target": (
        [boxes(3, 20), truths(3, 4), floats(3, 24)],
        {"num_sample": 9, "pos_iou_thresh": 0.3, "pos_ratio": 0.5, "means": (0.1, 0, 0, 0)},
    ),
    "rpn_target": (
        [ANCHORS, truths(3, 4), floats(3, 40)],
        {"num_sample": 9, "pos_iou_thresh": 0.5, "means": (0.1, 0, 0, 0), "stds": (1, 1, 0.5, 2)},
    ),
    "label_from_color": (
        [rng.integers(0, 3, (2, 5, 6, 3), np.uint8), rng.integers(0, 3, (7, 3), np.uint8)],
        {"unknown": -2},
    ),
    "confusion_matrix": (
        [rng.integers(-1, 4, (2, 9, 8), np.int32), rng.integers(-1, 4, (2, 9, 8), np.int32)],
        {"num_classes": 3, "ignore_label": 1},
    ),
}
#: All operators.
OPS = sorted(CASES)
#: The operators that MXNet has too.
MXNETS = [
    "AdaptiveAvgPooling2D",
    "BilinearResize2D",
    "MultiBoxPrior",
    "MultiBoxTarget",
    "MultiBoxDetection",
    "MultiProposal",
    "Proposal",
]
MXNETS += ["bipartite_matching", "box_decode", "box_encode", "box_iou", "box_nms"]
MXNETS += ["DeformablePSROIPooling", "PSROIPooling", "ROIAlign", "ROIPooling", "RROIAlign"]
#: MXNet's operators without a gradient to compare: uninitialized memory, or an error. Ours is zero.
WITHOUT_GRADIENT = ["MultiBoxTarget", "RROIAlign"]
#: mode -> the arguments of ``hybridize``; None for a network that is not hybridized.
MODES = {
    "eager": None,
    "hybridized": {},
    "static": {"static_alloc": True, "static_shape": True},
}


def arrays(mx, op):
    """The inputs of the operator as MXNet's arrays, and its options."""
    inputs, options = CASES[op]
    return [array(mx, x) for x in inputs], options


def array(mx, x):
    """The MXNet array: uint8 and int32 stay, all other types become float32."""
    return mx.nd.array(x, dtype=x.dtype if x.dtype in (np.uint8, np.int32) else np.float32)


def ours(F, op):
    """The operator of cvops in ``F``, which is ``mx.nd`` or ``mx.sym``."""
    return getattr(F.contrib, f"cvops_{op}")


def theirs(F, op):
    """The operator of MXNet in ``F``, which is ``mx.nd`` or ``mx.sym``."""
    return getattr(F.contrib, op, None) or getattr(F, op)


def array_function(op):
    """The function of cvops for arrays of any library."""
    return getattr(contrib, op, None) or getattr(cvops, op)


def outputs(out):
    """The outputs of an operator as a list, for one output and for several."""
    return list(out) if isinstance(out, (list, tuple)) else [out]


def as_list(out):
    """The outputs of an operator as a list of NumPy arrays."""
    return [x.asnumpy() for x in outputs(out)]


def weighted_sum(mx, out):
    """A loss in which each element of the outputs has another weight."""
    terms = [
        (x.astype("float32") * mx.nd.arange(x.size).reshape(x.shape)).sum()
        for x in (y.as_nd_ndarray() for y in outputs(out))
    ]
    return sum(terms[1:], terms[0])


def option_names(options):
    """The options as the id of a test."""
    return ", ".join(f"{name}={value}" for name, value in options.items())


def network(mx, forward, mode):
    """A block with ``forward`` as its ``hybrid_forward``, in one of MODES."""

    class Net(mx.gluon.HybridBlock):
        def hybrid_forward(self, F, *args):
            return forward(F, *args)

    net = Net()
    if MODES[mode] is not None:
        net.hybridize(**MODES[mode])
    return net

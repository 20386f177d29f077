"""Calls of each op on arrays of a few elements, whose time is overhead."""

from __future__ import annotations

import time
from functools import partial
from typing import Any, Callable, NamedTuple

import numpy as np
from tools import small_mxnet
from tools.small_inputs import (
    ANCHORS,
    ARGMAX,
    BINS,
    CELLS,
    CLASSES,
    COLORS,
    DEFORMED,
    ENCODED,
    LABEL,
    MAPS,
    MINING,
    NOISE,
    OFFSETS,
    ROIS,
    ROTATED,
    ROTATED_ROWS,
    ROWS,
    RPN,
    SAMPLES,
    SCALE,
    SCORES,
    SSD,
    TRANS,
    TURNED,
)

import cvops
from cvops.ops import _check, _op


class SmallCall(NamedTuple):
    """A call ``op(*arrays, *args, **options)`` with arrays of a few elements."""

    op: Callable[..., Any]
    arrays: tuple[np.ndarray, ...]
    args: tuple[Any, ...] = ()
    options: dict[str, Any] = {}
    #: Empty arrays and their arguments, for a call without work; () if the op has no such call.
    empty_arrays: tuple[np.ndarray, ...] = ()
    empty_args: tuple[Any, ...] = ()
    #: Makes a call of the library's own op, from the module and its arrays; None if it has no op.
    mxnet: Any = None
    torchvision: Any = None


CASES = {
    "adaptive_avg_pooling": SmallCall(
        cvops.adaptive_avg_pooling,
        (MAPS,),
        (2,),
        empty_arrays=(MAPS[:0],),
        empty_args=(2,),
        mxnet=small_mxnet.contrib("AdaptiveAvgPooling2D", output_size=2),
    ),
    "adaptive_avg_pooling_backward": SmallCall(
        cvops.adaptive_avg_pooling_backward,
        (BINS,),
        (MAPS.shape,),
        empty_arrays=(BINS[:0],),
        empty_args=((0, 1, 4, 4),),
        mxnet=small_mxnet.adaptive_avg_pooling_backward,
    ),
    "bipartite_matching": SmallCall(
        cvops.bipartite_matching,
        (SCORES,),
        options=dict(threshold=0.5),
        empty_arrays=(SCORES[:0],),
        mxnet=small_mxnet.contrib("bipartite_matching", threshold=0.5),
    ),
    "box_decode": SmallCall(
        cvops.box_decode,
        (OFFSETS.reshape(1, 4, 4), ANCHORS),
        empty_arrays=(OFFSETS.reshape(1, 4, 4)[:0], ANCHORS),
        mxnet=small_mxnet.contrib("box_decode"),
    ),
    "box_encode": SmallCall(
        cvops.box_encode,
        (*ENCODED, *SCALE),
        empty_arrays=(*(x[:0] for x in ENCODED), *SCALE),
        mxnet=small_mxnet.contrib("box_encode"),
    ),
    "box_iou_backward": SmallCall(
        cvops.box_iou_backward,
        (SCORES[0, :, :2].copy(), ANCHORS[0, :2].copy(), ANCHORS[0, 2:].copy()),
        options=dict(kind="giou"),
        empty_arrays=(SCORES[0, :0, :0].copy(), ANCHORS[0, :0].copy(), ANCHORS[0, :0].copy()),
    ),
    "box_iou": SmallCall(
        cvops.box_iou,
        (ANCHORS[0], ANCHORS[0]),
        empty_arrays=(ANCHORS[0][:0], ANCHORS[0][:0]),
        mxnet=small_mxnet.contrib("box_iou"),
        torchvision=lambda tv, *arrays: partial(tv.ops.box_iou, *arrays),
    ),
    "box_iou_rotated": SmallCall(
        cvops.box_iou_rotated, (ROTATED, ROTATED), empty_arrays=(ROTATED[:0], ROTATED[:0])
    ),
    "box_nms": SmallCall(
        cvops.box_nms, (ROWS,), empty_arrays=(ROWS[:0],), mxnet=small_mxnet.contrib("box_nms")
    ),
    "box_nms, by class": SmallCall(
        cvops.box_nms,
        (ROWS,),
        (),
        dict(id_index=0, topk=400),
        empty_arrays=(ROWS[:0],),
        mxnet=small_mxnet.contrib("box_nms", id_index=0, topk=400),
    ),
    "matrix_nms": SmallCall(cvops.matrix_nms, (ROWS,), empty_arrays=(ROWS[:0],)),
    "multibox_prior": SmallCall(
        cvops.multibox_prior, (MAPS,), mxnet=small_mxnet.contrib("MultiBoxPrior")
    ),
    "multibox_prior, SSD": SmallCall(
        cvops.multibox_prior, (MAPS,), (), SSD, mxnet=small_mxnet.contrib("MultiBoxPrior", **SSD)
    ),
    "multibox_target": SmallCall(
        cvops.multibox_target,
        (ANCHORS, LABEL, SCORES),
        mxnet=small_mxnet.contrib("MultiBoxTarget"),
        empty_arrays=(ANCHORS, LABEL[:0], SCORES[:0]),
    ),
    "multibox_target, mining": SmallCall(
        cvops.multibox_target,
        (ANCHORS, LABEL, SCORES),
        (),
        MINING,
        mxnet=small_mxnet.contrib("MultiBoxTarget", **MINING),
        empty_arrays=(ANCHORS, LABEL[:0], SCORES[:0]),
    ),
    "multibox_detection": SmallCall(
        cvops.multibox_detection,
        (SCORES, OFFSETS, ANCHORS),
        empty_arrays=(SCORES[:0], OFFSETS[:0], ANCHORS),
        mxnet=small_mxnet.contrib("MultiBoxDetection"),
    ),
    "multiclass_nms": SmallCall(
        cvops.multiclass_nms, (ANCHORS, SCORES), empty_arrays=(ANCHORS[:0], SCORES[:0])
    ),
    "nms_rotated": SmallCall(cvops.nms_rotated, (ROTATED_ROWS,), empty_arrays=(ROTATED_ROWS[:0],)),
    "proposal": SmallCall(
        cvops.multi_proposal,
        RPN,
        (),
        dict(rpn_post_nms_top_n=8),
        empty_arrays=tuple(x[:0] for x in RPN),
        mxnet=small_mxnet.contrib("MultiProposal", rpn_post_nms_top_n=8),
    ),
    "soft_nms": SmallCall(cvops.soft_nms, (ROWS,), empty_arrays=(ROWS[:0],)),
    "weighted_boxes_fusion": SmallCall(
        cvops.weighted_boxes_fusion, (ROWS,), empty_arrays=(ROWS[:0],)
    ),
    "deformable_psroi_pooling": SmallCall(
        cvops.deformable_psroi_pooling,
        (CELLS, ROIS, TRANS),
        (1.0, 1, 2, 2),
        {"trans_std": 0.1},
        empty_arrays=(CELLS, ROIS[:0], TRANS[:0]),
        empty_args=(1.0, 1, 2, 2),
        mxnet=lambda mx, *arrays: partial(
            mx.nd.contrib.DeformablePSROIPooling, *arrays, **DEFORMED
        ),
    ),
    "deformable_psroi_pooling_backward": SmallCall(
        cvops.deformable_psroi_pooling_backward,
        (BINS, CELLS, ROIS, TRANS),
        (1.0, 2),
        {"trans_std": 0.1},
        empty_arrays=(BINS[:0], CELLS[:0], ROIS[:0], TRANS[:0]),
        empty_args=(1.0, 2),
        mxnet=small_mxnet.deformable_psroi_pooling_backward,
    ),
    "psroi_pooling": SmallCall(
        cvops.psroi_pooling,
        (CELLS, ROIS),
        (1.0, 1, 2),
        empty_arrays=(CELLS, ROIS[:0]),
        empty_args=(1.0, 1, 2),
        mxnet=lambda mx, *arrays: partial(mx.nd.contrib.PSROIPooling, *arrays, 1.0, 1, 2),
    ),
    "psroi_pooling_backward": SmallCall(
        cvops.psroi_pooling_backward,
        (BINS, ROIS),
        (CELLS.shape, 1.0),
        empty_arrays=(BINS[:0], ROIS[:0]),
        empty_args=((0, 4, 4, 4), 1.0),
        mxnet=small_mxnet.psroi_pooling_backward,
    ),
    "roi_align": SmallCall(
        cvops.roi_align,
        (MAPS, ROIS),
        ((2, 2), 1.0),
        empty_arrays=(MAPS, ROIS[:0]),
        empty_args=((2, 2), 1.0),
        mxnet=lambda mx, *arrays: partial(mx.nd.contrib.ROIAlign, *arrays, (2, 2), 1.0),
        torchvision=lambda tv, *arrays: partial(tv.ops.roi_align, *arrays, (2, 2), 1.0),
    ),
    "roi_align_backward": SmallCall(
        cvops.roi_align_backward,
        (BINS, ROIS),
        (MAPS.shape, 1.0),
        empty_arrays=(BINS[:0], ROIS[:0]),
        empty_args=((0, 1, 4, 4), 1.0),
        mxnet=small_mxnet.roi_align_backward,
    ),
    "roi_pooling": SmallCall(
        cvops.roi_pooling,
        (MAPS, ROIS),
        ((2, 2), 1.0),
        empty_arrays=(MAPS, ROIS[:0]),
        empty_args=((2, 2), 1.0),
        mxnet=lambda mx, *arrays: partial(mx.nd.ROIPooling, *arrays, (2, 2), 1.0),
        torchvision=lambda tv, *arrays: partial(tv.ops.roi_pool, *arrays, (2, 2), 1.0),
    ),
    "mask_target": SmallCall(
        cvops.mask_target,
        (ANCHORS, MAPS, SAMPLES - SAMPLES, SAMPLES - SAMPLES),
        options=dict(num_classes=1, mask_size=(2, 2)),
        empty_arrays=(ANCHORS[:0], MAPS[:0], SAMPLES[:0], SAMPLES[:0]),
    ),
    "paste_masks": SmallCall(
        cvops.paste_masks,
        (MAPS[0], 4 * ANCHORS[0, :1]),
        args=((4, 4),),
        empty_arrays=(MAPS[0, :0], ANCHORS[0, :0]),
        empty_args=((4, 4),),
    ),
    "match_anchors": SmallCall(
        cvops.match_anchors,
        (ANCHORS, LABEL[0, :, 1:].copy()),
        empty_arrays=(ANCHORS[:, :0], LABEL[0, :, 1:].copy()),
    ),
    "rcnn_target": SmallCall(
        cvops.rcnn_target,
        (ANCHORS, LABEL, NOISE),
        options=dict(num_sample=4),
        empty_arrays=(ANCHORS[:0], LABEL[:0], NOISE[:0]),
    ),
    "rpn_target": SmallCall(
        cvops.rpn_target,
        (ANCHORS, LABEL, SAMPLES),
        empty_arrays=(ANCHORS, LABEL[:0], SAMPLES[:0]),
    ),
    "roi_pooling_backward": SmallCall(
        cvops.roi_pooling_backward,
        (BINS, ARGMAX),
        (MAPS.shape,),
        empty_arrays=(BINS[:0], ARGMAX[:0]),
        empty_args=((0, 1, 4, 4),),
        mxnet=small_mxnet.roi_pooling_backward,
    ),
    "bilinear_resize": SmallCall(
        cvops.bilinear_resize,
        (MAPS,),
        options=dict(height=6, width=6),
        empty_arrays=(MAPS[:0],),
        mxnet=small_mxnet.contrib("BilinearResize2D", height=6, width=6),
    ),
    "bilinear_resize_backward": SmallCall(
        cvops.bilinear_resize_backward,
        (BINS,),
        (MAPS.shape,),
        empty_arrays=(BINS[:0],),
        empty_args=((0, 1, 4, 4),),
        mxnet=small_mxnet.bilinear_resize_backward,
    ),
    "rroi_align": SmallCall(
        cvops.rroi_align,
        (MAPS, TURNED),
        ((2, 2), 1.0),
        empty_arrays=(MAPS, TURNED[:0]),
        empty_args=((2, 2), 1.0),
        mxnet=lambda mx, *arrays: partial(mx.nd.contrib.RROIAlign, *arrays, (2, 2), 1.0),
    ),
    "bilinear_upsample": SmallCall(
        cvops.bilinear_upsample,
        (MAPS,),
        (2,),
        empty_arrays=(MAPS[:0],),
        empty_args=(2,),
        mxnet=small_mxnet.deconvolution,
    ),
    "confusion_matrix": SmallCall(
        cvops.confusion_matrix,
        (CLASSES, CLASSES),
        (3,),
        empty_arrays=(CLASSES[:0], CLASSES[:0]),
        mxnet=small_mxnet.bincount,
        empty_args=(3,),
    ),
    "label_from_color": SmallCall(
        cvops.label_from_color, (COLORS, COLORS[0]), empty_arrays=(COLORS[:0], COLORS[0])
    ),
}


def forget_checks() -> None:
    """Forget the arrays and the options that the ops have checked."""
    _op._signature.cache_clear()
    for function in _check.memoized.functions:
        function.forget()


def quickest(
    call: Callable[..., Any], *args: Any, calls: int = 50, between: Callable[[], Any] = int
) -> float:
    """Return the microseconds of a call, in the fastest of 200 rounds.

    ``between`` is called before each round.
    """
    best = float("inf")
    for _ in range(200):
        between()
        start = time.perf_counter()
        for _ in range(calls):
            call(*args)
        best = min(best, time.perf_counter() - start)
    return best / calls * 1e6

"""Calls of each op on arrays of a few elements, whose time is overhead."""

from __future__ import annotations

import time
from functools import partial
from typing import Any, Callable, NamedTuple

import numpy as np
from tools.inputs import boxes

import cvops
from cvops.ops import _check, _op

RNG = np.random.default_rng(0)
ROWS = np.column_stack([np.zeros(4), RNG.random(4), boxes(RNG, 4)]).astype(np.float32)
ANCHORS = boxes(RNG, 4)[None]
ROTATED = np.column_stack([ANCHORS[0], 360 * RNG.random(4)]).astype(np.float32)
ROTATED_ROWS = np.column_stack([ROWS[:, :2], ROTATED])
LABEL = np.float32([[[0, 0.1, 0.1, 0.6, 0.7]]])
SCORES = RNG.random((1, 2, 4), np.float32)
OFFSETS = RNG.random((1, 16), np.float32)
MAPS = RNG.random((1, 1, 4, 4), np.float32)
CELLS = RNG.random((1, 4, 4, 4), np.float32)
ROIS = np.float32([[0, 0, 0, 3, 3]])
RPN = (
    RNG.random((1, 24, 2, 2), np.float32),
    RNG.random((1, 48, 2, 2), np.float32),
    np.float32([[32, 32, 1]]),
)
TRANS = RNG.random((1, 2, 2, 2), np.float32)
DEFORMED = dict(spatial_scale=1.0, output_dim=1, group_size=2, pooled_size=2, trans_std=0.1)
TURNED = np.float32([[0, 2, 2, 3, 3, 30]])
BINS = np.float32(np.ones((1, 1, 2, 2)))
ARGMAX = cvops.roi_pooling(MAPS, ROIS, (2, 2), 1.0, return_argmax=True)[1]
CLASSES = np.int32([[0, 1], [2, 1]])
COLORS = np.uint8([[[0, 0, 0], [128, 0, 0]]])
SAMPLES, MATCHES = np.float32([[1, 0, 1, -1]]), np.float32([[0, -1, 0, 0]])
ENCODED = SAMPLES, MATCHES, ANCHORS, LABEL[..., 1:].copy()
SCALE = np.zeros(4, np.float32), np.float32([0.1, 0.1, 0.2, 0.2])
NOISE = np.float32([[0.1, 0.4, 0.2, 0.3, 0.5]])
SSD = dict(sizes=(0.2, 0.272), ratios=(1, 2, 0.5))
MINING = dict(negative_mining_ratio=3.0, negative_mining_thresh=0.5)


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


def roi_pooling_backward(mx, out_grad, argmax):
    """Return a call of MXNet's backward pass.

    It uses the positions of its own forward pass, which are equal to ``argmax``.
    """
    data = mx.nd.array(MAPS)
    data.attach_grad()
    with mx.autograd.record():
        out = mx.nd.ROIPooling(data, mx.nd.array(ROIS), (2, 2), 1.0)

    def backward():
        out.backward(out_grad, retain_graph=True)
        return data.grad

    return backward


def deformable_psroi_pooling_backward(mx, out_grad, *arrays):
    """Return a call of MXNet's backward pass."""
    for x in arrays:
        x.attach_grad()
    with mx.autograd.record():
        out = mx.nd.contrib.DeformablePSROIPooling(*arrays, **DEFORMED)

    def backward():
        out.backward(out_grad, retain_graph=True)
        return [arrays[0].grad, arrays[2].grad]

    return backward


def psroi_pooling_backward(mx, out_grad, rois):
    """Return a call of MXNet's backward pass."""
    data = mx.nd.array(CELLS)
    data.attach_grad()
    with mx.autograd.record():
        out = mx.nd.contrib.PSROIPooling(data, rois, 1.0, 1, 2)

    def backward():
        out.backward(out_grad, retain_graph=True)
        return data.grad

    return backward


def roi_align_backward(mx, out_grad, rois):
    """Return a call of MXNet's backward pass."""
    data = mx.nd.array(MAPS)
    data.attach_grad()
    with mx.autograd.record():
        out = mx.nd.contrib.ROIAlign(data, rois, (2, 2), 1.0)

    def backward():
        out.backward(out_grad, retain_graph=True)
        return data.grad

    return backward


def adaptive_avg_pooling_backward(mx, out_grad):
    """Return a call of MXNet's backward pass."""
    data = mx.nd.array(MAPS)
    data.attach_grad()
    with mx.autograd.record():
        out = mx.nd.contrib.AdaptiveAvgPooling2D(data, output_size=2)

    def backward():
        out.backward(out_grad, retain_graph=True)
        return data.grad

    return backward


def bilinear_resize_backward(mx, out_grad):
    """Return a call of MXNet's backward pass."""
    data = mx.nd.array(MAPS)
    data.attach_grad()
    with mx.autograd.record():
        out = mx.nd.contrib.BilinearResize2D(data, height=2, width=2)

    def backward():
        out.backward(out_grad, retain_graph=True)
        return data.grad

    return backward


def deconvolution(mx, maps):
    """Return a call that enlarges the maps 2 times."""
    profile = np.float32([0.25, 0.75, 0.75, 0.25])
    weight = mx.nd.array((profile[:, None] * profile)[None, None])
    sizes = dict(kernel=(4, 4), stride=(2, 2), pad=(1, 1))
    return partial(mx.nd.Deconvolution, maps, weight, **sizes, num_filter=1, no_bias=True)


def bincount(mx, prediction, label):
    """Return a call that counts the pairs of a prediction and a label."""
    prediction, label = prediction.as_np_ndarray().reshape(-1), label.as_np_ndarray().reshape(-1)
    return lambda: mx.np.bincount(label * 3 + prediction, minlength=9).reshape(3, 3)


def contrib(name, **options):
    """Return a function that makes the call of MXNet's op with that name."""
    return lambda mx, *arrays: partial(getattr(mx.nd.contrib, name), *arrays, **options)


CASES = {
    "adaptive_avg_pooling": SmallCall(
        cvops.adaptive_avg_pooling,
        (MAPS,),
        (2,),
        empty_arrays=(MAPS[:0],),
        empty_args=(2,),
        mxnet=contrib("AdaptiveAvgPooling2D", output_size=2),
    ),
    "adaptive_avg_pooling_backward": SmallCall(
        cvops.adaptive_avg_pooling_backward,
        (BINS,),
        (MAPS.shape,),
        empty_arrays=(BINS[:0],),
        empty_args=((0, 1, 4, 4),),
        mxnet=adaptive_avg_pooling_backward,
    ),
    "bipartite_matching": SmallCall(
        cvops.bipartite_matching,
        (SCORES,),
        options=dict(threshold=0.5),
        empty_arrays=(SCORES[:0],),
        mxnet=contrib("bipartite_matching", threshold=0.5),
    ),
    "box_decode": SmallCall(
        cvops.box_decode,
        (OFFSETS.reshape(1, 4, 4), ANCHORS),
        empty_arrays=(OFFSETS.reshape(1, 4, 4)[:0], ANCHORS),
        mxnet=contrib("box_decode"),
    ),
    "box_encode": SmallCall(
        cvops.box_encode,
        (*ENCODED, *SCALE),
        empty_arrays=(*(x[:0] for x in ENCODED), *SCALE),
        mxnet=contrib("box_encode"),
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
        mxnet=contrib("box_iou"),
        torchvision=lambda tv, *arrays: partial(tv.ops.box_iou, *arrays),
    ),
    "box_iou_rotated": SmallCall(
        cvops.box_iou_rotated, (ROTATED, ROTATED), empty_arrays=(ROTATED[:0], ROTATED[:0])
    ),
    "box_nms": SmallCall(
        cvops.box_nms, (ROWS,), empty_arrays=(ROWS[:0],), mxnet=contrib("box_nms")
    ),
    "box_nms, by class": SmallCall(
        cvops.box_nms,
        (ROWS,),
        (),
        dict(id_index=0, topk=400),
        empty_arrays=(ROWS[:0],),
        mxnet=contrib("box_nms", id_index=0, topk=400),
    ),
    "matrix_nms": SmallCall(cvops.matrix_nms, (ROWS,), empty_arrays=(ROWS[:0],)),
    "multibox_prior": SmallCall(cvops.multibox_prior, (MAPS,), mxnet=contrib("MultiBoxPrior")),
    "multibox_prior, SSD": SmallCall(
        cvops.multibox_prior, (MAPS,), (), SSD, mxnet=contrib("MultiBoxPrior", **SSD)
    ),
    "multibox_target": SmallCall(
        cvops.multibox_target,
        (ANCHORS, LABEL, SCORES),
        mxnet=contrib("MultiBoxTarget"),
        empty_arrays=(ANCHORS, LABEL[:0], SCORES[:0]),
    ),
    "multibox_target, mining": SmallCall(
        cvops.multibox_target,
        (ANCHORS, LABEL, SCORES),
        (),
        MINING,
        mxnet=contrib("MultiBoxTarget", **MINING),
        empty_arrays=(ANCHORS, LABEL[:0], SCORES[:0]),
    ),
    "multibox_detection": SmallCall(
        cvops.multibox_detection,
        (SCORES, OFFSETS, ANCHORS),
        empty_arrays=(SCORES[:0], OFFSETS[:0], ANCHORS),
        mxnet=contrib("MultiBoxDetection"),
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
        mxnet=contrib("MultiProposal", rpn_post_nms_top_n=8),
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
        mxnet=deformable_psroi_pooling_backward,
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
        mxnet=psroi_pooling_backward,
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
        mxnet=roi_align_backward,
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
        mxnet=roi_pooling_backward,
    ),
    "bilinear_resize": SmallCall(
        cvops.bilinear_resize,
        (MAPS,),
        options=dict(height=6, width=6),
        empty_arrays=(MAPS[:0],),
        mxnet=contrib("BilinearResize2D", height=6, width=6),
    ),
    "bilinear_resize_backward": SmallCall(
        cvops.bilinear_resize_backward,
        (BINS,),
        (MAPS.shape,),
        empty_arrays=(BINS[:0],),
        empty_args=((0, 1, 4, 4),),
        mxnet=bilinear_resize_backward,
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
        mxnet=deconvolution,
    ),
    "confusion_matrix": SmallCall(
        cvops.confusion_matrix,
        (CLASSES, CLASSES),
        (3,),
        empty_arrays=(CLASSES[:0], CLASSES[:0]),
        mxnet=bincount,
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

"""Results without elements, which take no time whatever the lengths of the other axes are."""

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


#: Calls of run(op, ...), and the shapes of their results.
CALLS = {
    "box_iou, no lhs": (
        lambda run: run(cvops.box_iou, empty(MANY, 0, 4), ones(3, 4)),
        [(MANY, 0, 3)],
    ),
    "box_iou, no rhs": (
        lambda run: run(cvops.box_iou, ones(3, 4), empty(0, MANY, 4)),
        [(3, 0, MANY)],
    ),
    "box_nms, no rows": (
        lambda run: run(cvops.box_nms, empty(MANY, 0, 6), id_index=0),
        [(MANY, 0, 6)],
    ),
    "box_nms with the index, no rows": (
        lambda run: run(cvops.box_nms, empty(MANY, 0, 6), topk=3, return_index=True),
        [(MANY, 0, 6), (MANY, 0)],
    ),
    "box_nms of axes before the rows, one empty": (
        lambda run: run(cvops.box_nms, empty(MANY, 0, 3, 6), topk=0, return_index=True),
        [(MANY, 0, 3, 6), (MANY, 0, 3)],
    ),
    "box_nms_backward, no rows": (
        lambda run: run(cvops.box_nms_backward, empty(MANY, 0, 6), indices(MANY, 0)),
        [(MANY, 0, 6)],
    ),
    "box_nms_backward, no numbers": (
        lambda run: run(cvops.box_nms_backward, empty(2**22, 3, 0), indices(2**22, 3)),
        [(2**22, 3, 0)],
    ),
    "multibox_detection, no anchors": (
        lambda run: run(
            cvops.multibox_detection, empty(MANY, 3, 0), empty(MANY, 0), empty(1, 0, 4)
        ),
        [(MANY, 0, 6)],
    ),
    "multiclass_nms, no images": (
        lambda run: run(cvops.multiclass_nms, empty(0, 2**24, 4), empty(0, 8, 2**24), topk=10**5),
        [(0, 10**5, 6), (0,)],
    ),
    "multiclass_nms, no boxes": (
        lambda run: run(cvops.multiclass_nms, empty(2**16, 0, 4), empty(2**16, 3, 0)),
        [(2**16, 0, 6), (2**16,)],
    ),
    "multiclass_nms, no classes": (
        lambda run: run(cvops.multiclass_nms, empty(2**16, 1, 4), empty(2**16, 0, 1)),
        [(2**16, 0, 6), (2**16,)],
    ),
    "multiclass_nms, no rows asked for": (
        lambda run: run(cvops.multiclass_nms, ones(2, 2**18, 4), ones(2, 9, 2**18), post_nms=0),
        [(2, 0, 6), (2,)],
    ),
    "multibox_target, no images": (
        lambda run: run(
            cvops.multibox_target,
            *(ones(1, 2**18, 4), empty(0, 2**29, 5), empty(0, 2**31, 2**18)),
            negative_mining_ratio=3,
        ),
        [(0, 2**20), (0, 2**20), (0, 2**18)],
    ),
    "roi_pooling, no channels": (
        lambda run: run(
            cvops.roi_pooling, empty(2**30, 0, 1, 1), ones(2**20, 5), (7, 7), 1, return_argmax=True
        ),
        [(2**20, 0, 7, 7)] * 2,
    ),
    "roi_pooling, no rois": (
        lambda run: run(cvops.roi_pooling, ones(2, 3, 5, 4), empty(0, 5), (2**14, 2**15), 1),
        [(0, 3, 2**14, 2**15)],
    ),
    "roi_pooling_backward, no channels": (
        lambda run: run(
            cvops.roi_pooling_backward, empty(MANY, 0, 3, 3), indices(MANY, 0, 3, 3), (5, 0, 4, 4)
        ),
        [(5, 0, 4, 4)],
    ),
    "roi_pooling_backward, no images": (
        lambda run: run(
            *(cvops.roi_pooling_backward, ones(2**18, 5, 1, 1), indices(2**18, 5, 1, 1)),
            (0, 5, 4, 4),
        ),
        [(0, 5, 4, 4)],
    ),
    "bilinear_upsample, no channels": (
        lambda run: run(cvops.bilinear_upsample, empty(MANY, 0, 3, 4), 2),
        [(MANY, 0, 6, 8)],
    ),
    "bilinear_upsample, no rows": (
        lambda run: run(cvops.bilinear_upsample, empty(MANY, 3, 0, 4), 2),
        [(MANY, 3, 0, 8)],
    ),
    "bilinear_upsample, no columns": (
        lambda run: run(cvops.bilinear_upsample, empty(MANY, 3, 5, 0), 1024),
        [(MANY, 3, 5120, 0)],
    ),
    "bilinear_upsample_backward, no rows": (
        lambda run: run(cvops.bilinear_upsample_backward, empty(MANY, 3, 0, 4), 2),
        [(MANY, 3, 0, 2)],
    ),
    "bilinear_upsample_backward, no columns": (
        lambda run: run(cvops.bilinear_upsample_backward, empty(MANY, 3, 4, 0), 2),
        [(MANY, 3, 2, 0)],
    ),
    "label_from_color, no pixels": (
        lambda run: run(
            *(cvops.label_from_color, empty(MANY, 0, 3, dtype=np.uint8)),
            np.zeros((65535, 3), np.uint8),
        ),
        [(MANY, 0)],
    ),
}


@pytest.mark.parametrize(("call", "shapes"), CALLS.values(), ids=CALLS)
def test_returns_at_once(run, call, shapes):
    call(run)  # compiles what has to be compiled
    begin = time.process_time()
    out = call(run)
    assert time.process_time() - begin < 2
    results = out if isinstance(out, tuple) else (out,)
    assert [x.shape for x in results] == shapes
    assert not any(x.any() for x in results)


def test_counts_of_no_rows_are_zero(run):
    boxes, scores = ones(300, 5, 4), ones(300, 2, 5)
    out, counts = run(cvops.multiclass_nms, boxes, scores, post_nms=0)
    assert out.shape == (300, 0, 6)
    assert counts.tolist() == [0] * 300


def test_rois_without_bins_give_no_gradient(run):
    """The number of bins, a divisor, is 0."""
    for bins in ((0, 5), (5, 0), (0, 0)):
        shape = (MANY, 3, *bins)
        grad = run(cvops.roi_pooling_backward, empty(*shape), indices(*shape), (2, 3, 4, 4))
        np.testing.assert_array_equal(grad, np.zeros((2, 3, 4, 4)))


def array_of(*shape):
    """An array that takes the memory of one number."""
    return np.broadcast_to(np.float32(0), shape)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: cvops.box_nms(array_of(2**16, 2**15, 1, 6)), "data: .* below 2.*31, got shape"),
        (
            lambda: cvops.box_nms_backward(
                array_of(2**31, 1, 6), np.broadcast_to(np.int32(0), (2**31, 1))
            ),
            "out_grad: expected sizes below",
        ),
        (
            lambda: cvops.multibox_detection(
                array_of(2**31, 2, 1), array_of(2**31, 4), array_of(1, 1, 4)
            ),
            "cls_prob: expected sizes below",
        ),
        (
            lambda: cvops.multibox_detection(
                array_of(1, 2**31, 1), array_of(1, 4), array_of(1, 1, 4)
            ),
            "cls_prob: expected sizes below",
        ),
        (
            lambda: cvops.multiclass_nms(array_of(2**31, 1, 4), array_of(2**31, 1, 1)),
            "scores: expected sizes below",
        ),
        (
            lambda: cvops.multibox_target(
                array_of(1, 1, 4), array_of(2**31, 1, 5), array_of(2**31, 1, 1)
            ),
            "cls_pred: expected sizes below",
        ),
        (
            lambda: cvops.multibox_target(
                array_of(1, 1, 4), array_of(1, 1, 2**31), array_of(1, 1, 1)
            ),
            r"label: expected rows of less than 2\^31",
        ),
    ],
)
def test_refuses_sizes_that_no_int_holds(call, message):
    with pytest.raises(ValueError, match=message):
        call()

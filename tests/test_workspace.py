"""The scratch memory of each call on a GPU. It follows from the shapes, so no GPU is needed."""

from pathlib import Path

import numpy as np
import pytest
from emulator import backends
from test_layout import OPS

import cvops

MODEL = Path(__file__).parents[1] / "benchmarks" / "MODEL.md"
#: The most scratch memory: ``SHARE`` of the arrays, and these bytes for each image: a suppression
#: has the bits and the list of a chunk, whose size is fixed.
OF_AN_IMAGE = dict.fromkeys(("box_nms", "multibox_detection", "multiclass_nms"), 600_000)
SHARE = 1.5


@pytest.fixture(autouse=True)
def h200(monkeypatch):
    monkeypatch.setattr(backends, "MULTIPROCESSORS", 132)


def zeros(*shape, dtype=np.float32):
    """Memory that the system does not give before it is touched."""
    return np.zeros(shape, dtype)


def call(op, *arrays, args=(), **options):
    return op, arrays, args, options


def target(images, anchors, truths, classes=2, **options):
    label, scores = zeros(images, truths, 5), zeros(images, classes, anchors)
    return call(cvops.multibox_target, zeros(1, anchors, 4), label, scores, **options)


def detection(images, anchors, classes, **options):
    scores, offsets = zeros(images, classes, anchors), zeros(images, 4 * anchors)
    return call(cvops.multibox_detection, scores, offsets, zeros(1, anchors, 4), **options)


def nms(sets, num, **options):
    return call(cvops.box_nms, zeros(sets, num, 6), **options)


def nms_of_classes(images, num, classes):
    return call(cvops.multiclass_nms, zeros(images, num, 4), zeros(images, classes, num))


def iou(rows, columns):
    return call(cvops.box_iou, zeros(rows, 4), zeros(columns, 4))


def anchors(height, width):
    shapes = dict(sizes=(0.2, 0.3), ratios=(1, 2, 0.5))
    return call(cvops.multibox_prior, zeros(1, 1, height, width), **shapes)


def pooling(rois, channels=256, **options):
    args = (7, 7), 1 / 16
    return call(cvops.roi_pooling, zeros(1, channels, 50, 68), zeros(rois, 5), args=args, **options)


def pooling_backward(rois, channels=256):
    bins, data = (rois, channels, 7, 7), (1, channels, 50, 68)
    argmax = zeros(*bins, dtype=np.int32)
    return call(cvops.roi_pooling_backward, zeros(*bins), argmax, args=(data,))


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
#: A call of each op, for growing sizes.
CALLS = {
    "bilinear_upsample": lambda n: upsampling(cvops.bilinear_upsample, n, 10, 32),
    "bilinear_upsample_backward": lambda n: upsampling(cvops.bilinear_upsample_backward, n, 80, 8),
    "box_iou": lambda n: iou(100 * n, 100 * n),
    "box_nms": lambda n: nms(1, 2000 * n, id_index=0),
    "box_nms_backward": lambda n: nms_backward(2000 * n),
    "confusion_matrix": confusion,
    "label_from_color": labels,
    "multibox_detection": lambda n: detection(2, 2000 * n, 2),
    "multibox_prior": lambda n: anchors(16 * n, 16),
    "multibox_target": lambda n: target(2, 1000 * n, 20 * n),
    "multibox_target with mining": lambda n: target(2, 1000 * n, 20 * n, **MINING),
    "multiclass_nms": lambda n: nms_of_classes(1, 200 * n, 20),
    "roi_pooling": lambda n: pooling(30 * n, 8, return_argmax=True),
    "roi_pooling_backward": lambda n: pooling_backward(30 * n, 8),
}
#: The calls whose memory MODEL.md states, by its names.
STATED = {
    "`multibox_prior`, 1,000,000 anchors": lambda: anchors(500, 500),
    "`box_iou`, 100,000 x 1000": lambda: iou(100_000, 1000),
    "`multibox_target`, 32 x 5444 x 64": lambda: target(32, 5444, 64),
    "`multibox_target`, 64 x 24564 x 8, 21 classes, mining": lambda: target(
        64, 24564, 8, 21, **MINING
    ),
    "`multibox_detection`, 32 x 5444, 21 classes, topk 400": lambda: detection(
        32, 5444, 21, nms_topk=400
    ),
    "`box_nms`, 1000": lambda: nms(1, 1000),
    "`box_nms`, 20,000": lambda: nms(1, 20_000),
    "`box_nms`, 20,000 in 80 classes": lambda: nms(1, 20_000, id_index=0),
    "`box_nms`, 100,000": lambda: nms(1, 100_000),
    "`box_nms`, 32 x 8400, 80 classes, topk 1000": lambda: nms(32, 8400, id_index=0, topk=1000),
    "`multiclass_nms`, 32 x 80 classes x 8400, topk 1000": lambda: nms_of_classes(32, 8400, 80),
    "`roi_pooling`, 1000 rois of 256 x 50 x 68": lambda: pooling(1000),
    "its backward": lambda: pooling_backward(1000),
}


def measured(call):
    """The bytes of inputs and results, and the bytes of scratch memory."""
    op, arrays, args, options = call
    results, scratch = op(*arrays, *args, **options, backend="listed")
    return sum(x.nbytes for x in arrays) + results, scratch


def test_every_op_is_measured():
    backward = [f"{op}_backward" for op in ("bilinear_upsample", "box_nms", "roi_pooling")]
    assert sorted(CALLS) == sorted([*OPS, *backward, "multibox_target with mining"])


@pytest.mark.parametrize("name", CALLS)
def test_scratch_grows_no_faster_than_the_arrays(name):
    """A matrix of pairs would grow with the square: 100 times the boxes, 10,000 times the bytes."""
    images = 2 if name.startswith("multibox_") else 1
    for size in (1, 10, 100):
        arrays, scratch = measured(CALLS[name](size))
        assert scratch <= SHARE * arrays + images * OF_AN_IMAGE.get(name, 1000)


def amount(number):
    """As MODEL.md has it."""
    for unit, scale in (("MB", 1e6), ("kB", 1e3)):
        if number >= scale:
            return f"{number / scale:.3g} {unit}"
    return f"{number} B" if number else "none"


def test_the_model_states_the_memory_of_large_calls():
    lines = [
        f"| {' | '.join([name, *map(amount, measured(make()))])} |" for name, make in STATED.items()
    ]
    stated = [line for line in MODEL.read_text("utf-8").splitlines() if line in lines]
    assert stated == lines, "MODEL.md should have these lines:\n" + "\n".join(lines)

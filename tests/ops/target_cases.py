"""Inputs and comparisons that test_multibox_target.py and test_mining.py share."""

import numpy as np
from hypothesis import strategies as st

import cvops

F = np.float32
NAN = float("nan")


def f32(values):
    return np.array(values, F)


# Cases by hand.

ANCHORS = f32(
    [
        [
            [0.1, 0.1, 0.5, 0.5],
            [0.5, 0.5, 0.9, 0.9],
            [0.1, 0.1, 0.45, 0.45],
            [0, 0, 1, 1],
            [0.8, 0.8, 0.8, 0.9],
        ]
    ]
)
#: The box of anchor 0, with class 3.
SAME = (3, 0.1, 0.1, 0.5, 0.5)
PADDING = (-1, -1, -1, -1, -1)

#: The first anchor is the ground truth. The IoUs of the others are 1/2, 1/4 and 0.
HALVES = f32([[[0, 0, 4, 4], [0, 0, 4, 2], [0, 0, 2, 2], [8, 8, 9, 9]]])
WHOLE = f32([[[6, 0, 0, 4, 4]]])


# Random cases.


def scene(rng, num_images, num_anchors, num_truths, steps=0, num_classes=3, width=5):
    """Random inputs. With ``steps``, coordinates are multiples of 1 / steps, which gives ties."""

    def boxes(*shape):
        corner, size = rng.random((*shape, 2)) * 0.8, rng.random((*shape, 2)) ** 2 * 0.6
        both = np.concatenate([corner, corner + size], axis=-1)
        return (np.round(both * steps) / steps if steps else both).astype(F)

    label = rng.random((num_images, num_truths, width)).astype(F)
    label[..., 0] = rng.integers(0, 20, (num_images, num_truths))
    label[..., 1:5] = boxes(num_images, num_truths)
    for image, count in enumerate(rng.integers(0, num_truths + 1, num_images)):
        if image:  # the first image has no padding
            label[image, count:] = -1
    logits = rng.normal(size=(num_images, num_classes, num_anchors)).astype(F)
    return boxes(1, num_anchors), label, np.round(logits) if steps else logits


OPTIONS = [
    dict(),
    dict(overlap_threshold=0.2, variances=(1, 2, 3, 4)),
    dict(overlap_threshold=0),
    dict(negative_mining_ratio=3, ignore_label=-7),
    dict(negative_mining_ratio=1.5, negative_mining_thresh=0.1, overlap_threshold=0.3),
    dict(negative_mining_ratio=1e4, negative_mining_thresh=1),
]

COORDINATES = st.sampled_from([i / 8 for i in range(9)]) | st.floats(0, 1, width=32)
SPECIAL = COORDINATES | st.sampled_from([NAN, np.inf, -np.inf, -0.5, 2.0])


def draw_array(draw, elements, *shape):
    """An array of few different drawn values. This is fast and gives ties."""
    pool = draw(st.lists(elements, min_size=4, max_size=24))
    indices = np.random.default_rng(draw(st.integers(0, 2**32 - 1))).integers(0, len(pool), shape)
    return f32(pool)[indices]


@st.composite
def scenes(draw, coordinates, ordered):
    """Drawn inputs. If ``ordered``, no box is inverted."""
    num_images, num_anchors = draw(st.integers(1, 3)), draw(st.integers(1, 40))
    num_truths, num_classes = draw(st.integers(1, 6)), draw(st.integers(1, 5))
    anchors = draw_array(draw, coordinates, 1, num_anchors, 4)
    label = draw_array(draw, coordinates, num_images, num_truths, 5)
    if ordered:
        for boxes in (anchors, label[..., 1:]):
            boxes[...] = np.concatenate(
                [
                    np.minimum(boxes[..., :2], boxes[..., 2:]),
                    np.maximum(boxes[..., :2], boxes[..., 2:]),
                ],
                axis=-1,
            )
    label[..., 0] = draw_array(draw, st.integers(0, 5), num_images, num_truths)
    for image in range(num_images):
        label[image, draw(st.integers(0, num_truths)) :] = -1
    logits = draw_array(draw, st.floats(-20, 20, width=32), num_images, num_classes, num_anchors)
    return anchors, label, logits


def ground_truths(label):
    """The rows of a label (G, W) that are no padding."""
    return label[label[:, 0] != -1]


def iou_of(anchors, truths):
    """The IoU of each anchor (1, A, 4) and each ground truth (G, W): (A, G)."""
    return cvops.box_iou(anchors[0], np.ascontiguousarray(truths[:, 1:5]), backend="numpy")


# Comparisons.


def assert_equal(got, want):
    for x, y, name in zip(got, want, ("loc_target", "loc_mask", "cls_target")):
        np.testing.assert_array_equal(x, y, err_msg=name)


def assert_equals_reference(run, inputs, **options):
    """run(op, ...) gives the bits of the reference, which are returned."""
    want = cvops.multibox_target(*inputs, **options, backend="numpy")
    assert_equal(run(cvops.multibox_target, *inputs, **options), want)
    return want


def assert_variants_equal_reference(cpu_variants, inputs, **options):
    """Each instruction set and number of threads gives the bits of the reference."""
    want = cvops.multibox_target(*inputs, **options, backend="numpy")
    for got in cpu_variants(lambda: cvops.multibox_target(*inputs, **options, backend="native")):
        assert_equal(got, want)


def mxnet_target(mx, inputs, **options):
    out = mx.nd.contrib.MultiBoxTarget(*map(mx.nd.array, inputs), **options)
    return [x.asnumpy() for x in out]


def assert_close_to_mxnet(got, want):
    """Masks, classes and centers are equal. Logarithms differ by at most two units.

    A logarithm may differ in its last bit. Its quotient by a variance may then differ in two.
    """
    for x, y in zip(got[1:], want[1:]):
        np.testing.assert_array_equal(x, y)
    ours, theirs = got[0].reshape(-1, 4), want[0].reshape(-1, 4)
    np.testing.assert_array_equal(ours[:, :2], theirs[:, :2])
    np.testing.assert_array_max_ulp(ours[:, 2:] + F(0), theirs[:, 2:] + F(0), 2)

"""Matching and offsets of multibox_target. test_mining.py has the tests of hard negative mining."""

import numpy as np
import pytest
from backend_runner import DEVICE_BACKENDS, runner
from emulator import backends
from hypothesis import given, settings
from hypothesis import strategies as st
from target_cases import (
    ANCHORS,
    HALVES,
    NAN,
    OPTIONS,
    PADDING,
    SAME,
    SPECIAL,
    WHOLE,
    F,
    assert_close_to_mxnet,
    assert_equal,
    assert_equals_reference,
    assert_variants_equal_reference,
    f32,
    ground_truths,
    iou_of,
    mxnet_target,
    scene,
    scenes,
)

import cvops

# The example of Dive into Deep Learning: five anchors, a dog (class 0) and a cat (class 1).
BOOK_ANCHORS = f32(
    [
        [
            [0, 0.1, 0.2, 0.3],
            [0.15, 0.2, 0.4, 0.4],
            [0.63, 0.05, 0.88, 0.98],
            [0.66, 0.45, 0.8, 0.8],
            [0.57, 0.3, 0.92, 0.9],
        ]
    ]
)
BOOK_LABEL = f32([[[0, 0.1, 0.08, 0.52, 0.92], [1, 0.55, 0.2, 0.9, 0.88]]])
# Centers and sizes: dog (.31, .5), .42 x .84; cat (.725, .54), .35 x .68.
BOOK_OFFSETS = {
    # The best anchor of the dog: (.275, .3), .25 x .2.
    1: (0.035 / 0.25 / 0.1, 0.2 / 0.2 / 0.1, np.log(0.42 / 0.25) / 0.2, np.log(0.84 / 0.2) / 0.2),
    # An anchor with an IoU with the cat above the threshold: (.755, .515), .25 x .93.
    2: (
        -0.03 / 0.25 / 0.1,
        0.025 / 0.93 / 0.1,
        np.log(0.35 / 0.25) / 0.2,
        np.log(0.68 / 0.93) / 0.2,
    ),
    # The best anchor of the cat: (.745, .6), .35 x .6.
    4: (-0.02 / 0.35 / 0.1, -0.06 / 0.6 / 0.1, np.log(0.35 / 0.35) / 0.2, np.log(0.68 / 0.6) / 0.2),
}


def test_example_of_the_book(run):
    target, mask, cls = run(cvops.multibox_target, BOOK_ANCHORS, BOOK_LABEL, np.zeros((1, 3, 5), F))
    assert (target.dtype, mask.dtype, cls.dtype) == (F, F, F)
    np.testing.assert_array_equal(cls, [[0, 1, 2, 0, 2]])
    np.testing.assert_array_equal(mask.reshape(5, 4), np.repeat([[0, 1, 1, 0, 1]], 4, 0).T)
    want = [BOOK_OFFSETS.get(i, (0, 0, 0, 0)) for i in range(5)]
    np.testing.assert_allclose(target.reshape(5, 4), want, atol=2e-6)


LABELS = {
    # Anchor 2 covers .35^2 / .4^2 = .77 of anchor 0's box, which is above the threshold.
    "two ground truths": ([SAME, (0, 0.48, 0.48, 0.9, 0.9)], [4, 1, 4, 0, 0]),
    # The first takes its best anchor, the second the next best. Neither has a third above .5.
    "two equal boxes": ([(1, *SAME[1:]), (2, *SAME[1:])], [2, 0, 3, 0, 0]),
    "padding": ([SAME, PADDING, PADDING], [4, 0, 4, 0, 0]),
    "row after padding": ([PADDING, SAME], [-1, -1, -1, -1, -1]),
    "class -2 is no padding": ([(-2, *SAME[1:])], [-1, 0, -1, 0, 0]),
    "fraction as a class": ([(0.25, *SAME[1:])], [1.25, 0, 1.25, 0, 0]),
    "NaN corners": ([(3, NAN, 0.1, 0.5, 0.5), (5, 0.1, 0.1, 0.5, NAN)], [0, 0, 0, 0, 0]),
    "NaN corner and another box": ([(3, NAN, 0.1, 0.5, 0.5), (5, *SAME[1:])], [6, 0, 6, 0, 0]),
    "infinite box": ([(3, -np.inf, -np.inf, np.inf, np.inf)], [0, 0, 0, 0, 0]),
    "class NaN": ([(NAN, *SAME[1:])], [NAN, 0, NAN, 0, 0]),
    "no area": ([(3, 0.2, 0.2, 0.2, 0.4)], [0, 0, 0, 0, 0]),
    "inverted box": ([(3, 0.5, 0.5, 0.1, 0.1)], [0, 0, 0, 0, 0]),
    # The first stage needs an IoU above 1e-6. With anchor 3 it is 2e-3 * 2e-3 / 1 = 4e-6 here, and
    # 5e-4^2 = 2.5e-7 below.
    "small box": ([(3, 0.95, 0.1, 0.952, 0.102)], [0, 0, 0, 4, 0]),
    "box below the minimum IoU": ([(3, 0.95, 0.1, 0.9505, 0.1005)], [0, 0, 0, 0, 0]),
}


@pytest.mark.parametrize(("rows", "want"), LABELS.values(), ids=LABELS)
def test_classes_and_masks_by_hand(run, rows, want):
    _, mask, cls = run(cvops.multibox_target, ANCHORS, f32([rows]), np.zeros((1, 2, 5), F))
    np.testing.assert_array_equal(cls, [want])
    positive = ~np.isin(want, (0, -1)) | (np.array(want) == -1) & (rows[0][0] == -2)
    np.testing.assert_array_equal(mask, [np.repeat(positive, 4)])


def test_offsets_and_variances_by_hand(run):
    label = f32([[SAME, (0, 0.48, 0.48, 0.9, 0.9)]])
    target, _, _ = run(cvops.multibox_target, ANCHORS, label, np.zeros((1, 2, 5), F))
    # Anchor 1 to the second box: -.01 / .4 / .1 and log(.42 / .4) / .2. Anchor 2, .35 wide, to the
    # first box: .025 / .35 / .1 and log(.4 / .35) / .2.
    want = [[0] * 4, [-0.25, -0.25, 0.243951, 0.243951], [0.714286, 0.714286, 0.667657, 0.667657]]
    np.testing.assert_allclose(target.reshape(5, 4)[:3], want, atol=2e-6)
    scaled, _, _ = run(
        cvops.multibox_target,
        ANCHORS,
        label,
        np.zeros((1, 2, 5), F),
        variances=(0.2, 0.1, 0.4, 0.1),
    )
    want = [[0] * 4, [-0.125, -0.25, 0.121976, 0.487902], [0.357143, 0.714286, 0.333829, 1.335314]]
    np.testing.assert_allclose(scaled.reshape(5, 4)[:3], want, atol=4e-6)


#: The classes for each threshold. Without a positive threshold there is no second stage.
THRESHOLDS = {
    0.5: [7, 0, 0, 0],
    0.49: [7, 7, 0, 0],
    0.25: [7, 7, 0, 0],
    0.2: [7, 7, 7, 0],
    1e-30: [7, 7, 7, 0],
    0: [7, 0, 0, 0],
    -1: [7, 0, 0, 0],
    np.inf: [7, 0, 0, 0],
}


@pytest.mark.parametrize(("threshold", "want"), THRESHOLDS.items(), ids=map(str, THRESHOLDS))
def test_iou_equal_to_the_threshold_is_negative(run, threshold, want):
    _, _, cls = run(cvops.multibox_target, HALVES, WHOLE, np.zeros((1, 2, 4), F), threshold)
    np.testing.assert_array_equal(cls, [want])


def test_images_without_positives_are_ignored_or_background(run):
    # No anchor overlaps the ground truth of the second image: all anchors are background. With
    # mining, no anchor is selected.
    label = f32([[PADDING, PADDING], [(3, 2, 2, 3, 3), PADDING], [SAME, PADDING]])
    logits = np.zeros((3, 2, 5), F)
    _, _, cls = run(cvops.multibox_target, ANCHORS, label, logits)
    np.testing.assert_array_equal(cls, [[-1] * 5, [0] * 5, [4, 0, 4, 0, 0]])
    _, _, cls = run(cvops.multibox_target, ANCHORS, label, logits, negative_mining_ratio=1)
    np.testing.assert_array_equal(cls, [[-1] * 5, [-1] * 5, [4, 0, 4, 0, -1]])


@pytest.mark.parametrize("options", [{}, dict(negative_mining_ratio=3)])
def test_empty_labels_give_no_targets(run, options):
    got = run(
        cvops.multibox_target, ANCHORS, np.zeros((0, 2, 5), F), np.zeros((0, 2, 5), F), **options
    )
    assert [x.shape for x in got] == [(0, 20), (0, 20), (0, 5)]
    target, mask, cls = run(
        cvops.multibox_target, ANCHORS, np.zeros((2, 0, 5), F), np.zeros((2, 3, 5), F), **options
    )
    assert not target.any()
    assert not mask.any()
    np.testing.assert_array_equal(cls, np.full((2, 5), -1))


# Comparisons with the reference, bit for bit.

#: Images, anchors and ground truths: odd numbers, several tiles, several chunks of ground truths.
SIZES = [(1, 1, 1), (2, 33, 3), (3, 127, 9), (5, 1025, 7), (1, 2500, 40), (2, 515, 131)]


@pytest.mark.parametrize("steps", [0, 8], ids=["any coordinates", "ties"])
@pytest.mark.parametrize("size", SIZES)
def test_results_equal_the_reference(run_other, size, steps):
    inputs = scene(np.random.default_rng(size), *size, steps)
    for options in OPTIONS:
        assert_equals_reference(run_other, inputs, **options)


def test_more_ground_truths_than_fit_in_shared_memory_equal_the_reference(run_other):
    assert_equals_reference(run_other, scene(np.random.default_rng(0), 1, 700, 530))


def test_repeated_ground_truth_equals_the_reference(run_other):
    # All have the same best anchor, and again the same one among the free anchors.
    anchors, label, logits = scene(np.random.default_rng(1), 2, 300, 35)
    label[0, :30, 1:] = label[0, 0, 1:]
    _, _, cls = assert_equals_reference(run_other, (anchors, label, logits), overlap_threshold=0.0)
    assert (cls > 0).sum(axis=1)[0] == 35


@pytest.mark.parametrize(
    "indices", [np.arange(650) // 5, np.arange(650) % 130], ids=["adjacent", "distant"]
)
def test_repeated_anchors_equal_the_reference(run_other, indices):
    anchors, label, logits = scene(np.random.default_rng(12), 2, 650, 12)
    anchors = np.ascontiguousarray(anchors[:, indices])
    for options in OPTIONS:
        assert_equals_reference(run_other, (anchors, label, logits), **options)


def test_nan_infinite_and_inverted_boxes_equal_the_reference(run_other):
    rng = np.random.default_rng(2)
    anchors, label, logits = scene(rng, 4, 600, 11, steps=8)
    for x in (anchors, label[..., 1:], logits):
        replaced = rng.random(x.shape) < 0.03
        x[replaced] = rng.choice(f32([NAN, np.inf, -np.inf, -1, 0, 3e38, 1e-40]), replaced.sum())
    padded = label[..., 0] == -1
    label[padded] = -1
    for options in OPTIONS:
        assert_equals_reference(run_other, (anchors, label, logits), **options)


def test_more_columns_and_classes_equal_the_reference(run_other):
    inputs = scene(np.random.default_rng(3), 2, 130, 5, num_classes=21, width=7)
    assert_equals_reference(run_other, inputs, negative_mining_ratio=3)


def test_more_tiles_than_splits_equal_the_reference(run_other):
    # Each ground truth is an anchor among the first 512 of a split that has more tiles.
    anchors, label, logits = scene(np.random.default_rng(18), 1, 512 * 512 + 1111, 3, 0, 2)
    anchors[0, [1100, 600, 5]] = label[0, :, 1:]
    options = dict(overlap_threshold=0, negative_mining_ratio=3)
    _, _, cls = assert_equals_reference(run_other, (anchors, label, logits), **options)
    assert (cls[0, [1100, 600, 5]] > 0).all()


@pytest.mark.parametrize("num_images", [1, 4])
@pytest.mark.parametrize("num_anchors", [1, 31, 32, 33, 255, 257, 1023, 1025, 2049])
def test_threads_and_vectors_do_not_change_a_bit(cpu_variants, num_anchors, num_images):
    inputs = scene(np.random.default_rng(num_anchors), num_images, num_anchors, 6, 16, 7)
    for options in OPTIONS:
        assert_variants_equal_reference(cpu_variants, inputs, **options)


def test_threads_that_share_an_image_do_not_change_a_bit(cpu_variants):
    inputs = scene(np.random.default_rng(13), 1, 20000, 9, 32, 21)
    for options in (OPTIONS[0], OPTIONS[3]):
        assert_variants_equal_reference(cpu_variants, inputs, **options)


def test_non_temporal_stores_give_equal_bits():
    # The outputs of 120 x 4100 anchors have 36 bytes each: more than 2^24. A third has fewer.
    anchors, label, logits = scene(np.random.default_rng(14), 120, 4100, 5)
    options = dict(negative_mining_ratio=3)
    whole = cvops.multibox_target(anchors, label, logits, **options)
    for first in range(0, 120, 40):
        images = slice(first, first + 40)
        part = cvops.multibox_target(anchors, label[images], logits[images], **options)
        assert_equal([x[images] for x in whole], part)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("steps", [3, 10, 40])
def test_skipped_blocks_do_not_change_a_bit(cpu_variants, seed, steps):
    # The anchors are those of a feature map with few sizes: the anchors of a block are near each
    # other, and the bounds of the block skip it.
    rng = np.random.default_rng(seed)
    side = int(rng.integers(2, 24))
    anchors = cvops.multibox_prior((side, side), rng.uniform(0.05, 0.9, 2).tolist(), (1, 2, 0.5))
    anchors = np.round(anchors * F(steps)) / F(steps) if seed % 2 else anchors
    _, label, logits = scene(rng, 3, anchors.shape[1], 12, steps)
    for options in OPTIONS:
        assert_variants_equal_reference(cpu_variants, (anchors, label, logits), **options)


@pytest.mark.parametrize("anchors", ["alike", "spread", "fewer", "distant"])
@pytest.mark.parametrize("num", [40, 100])
def test_ground_truths_that_compete_for_anchors_do_not_change_a_bit(cpu_variants, anchors, num):
    """A truth finds 32 further anchors per search, and more truths compete for them."""
    rng = np.random.default_rng(num)
    low = rng.random((500, 2)) * 0.3
    boxes = np.hstack([low, low + 0.4 + rng.random((500, 2)) * 0.2])
    if anchors == "alike":
        boxes[:] = boxes[0]
    if anchors == "fewer":
        boxes[rng.random(500) < 0.9] += 5  # fewer anchors than truths overlap the truths
    if anchors == "distant":
        boxes[: 500 - num // 2, :2] -= 400  # IoUs near the lowest one of a match
    label = np.tile([0, 0.2, 0.2, 0.6, 0.6], (1, num, 1))
    label[0, num // 2 :, 1:] += rng.random((num - num // 2, 4)) * 0.05
    inputs = [np.float32(x) for x in (boxes[None], label, rng.random((1, 3, 500)))]
    assert_variants_equal_reference(cpu_variants, inputs, negative_mining_ratio=2)


@pytest.mark.parametrize("scale", [1e-22, 3e-20, 1e-15, 1e17, 1e19, 2e19])
def test_denormal_to_infinite_areas_do_not_change_a_bit(cpu_variants, scale):
    # The squares of these scales are areas from denormal to infinite.
    rng = np.random.default_rng(15)
    anchors, label, logits = scene(rng, 3, 900, 9)
    anchors[0, ::3] *= F(scale)
    anchors[0, 1::3] *= F(scale) * rng.random((300, 1)).astype(F)
    label[..., 1:] *= np.where(label[..., :1] == -1, F(1), F(scale))
    inputs = anchors, label, logits
    for threshold in (0.5, 1e-3, 1e-7, 1e-30):
        for mining in ({}, dict(negative_mining_ratio=2, negative_mining_thresh=1e-6)):
            options = dict(overlap_threshold=threshold, **mining)
            assert_variants_equal_reference(cpu_variants, inputs, **options)


@pytest.mark.parametrize("grid", [(1, 1), (2, 3)])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_kernels_on_another_grid_and_in_another_order_give_equal_bits(monkeypatch, grid, seed):
    def small(launch):
        return launch._replace(grid=tuple(map(min, launch.grid, grid)))

    monkeypatch.setattr(backends, "on_launch", small)
    monkeypatch.setattr(backends, "SEED", seed)
    inputs = scene(np.random.default_rng(5), 4, 1100, 13, 8)
    for options in OPTIONS[::3]:
        assert_equals_reference(runner("cpu", "emulated"), inputs, **options)


LABEL, SCORES = np.full((2, 3, 5), -1, F), np.zeros((2, 4, 5), F)


def test_sign_of_a_zero_ignore_label_is_kept(run):
    for zero in (0.0, -0.0, 0.0):
        label = np.full_like(LABEL, -1)
        *_, cls = run(cvops.multibox_target, ANCHORS, label, SCORES, ignore_label=zero)
        assert (np.signbit(cls) == (str(zero) == "-0.0")).all()
        assert (cls == 0).all()


@pytest.mark.parametrize("options", [OPTIONS[0], OPTIONS[3]])
def test_sanitizers_find_no_error(run_sanitized, options):
    inputs = scene(np.random.default_rng(6), 2, 150, 9, 8)
    inputs[1][0, 3:7] = inputs[1][0, 3]  # ground truths with the same best anchor
    assert_equals_reference(run_sanitized, inputs, **options)


# Properties.


def test_first_stage_is_a_stable_matching(run):
    anchors, label, logits = scene(np.random.default_rng(7), 3, 400, 25, 16)
    label[:, :, 0] = np.where(label[:, :, 0] == -1, -1, np.arange(25))  # the class is the index
    _, _, cls = run(cvops.multibox_target, anchors, label, logits, overlap_threshold=0.0)
    for image, classes in enumerate(cls):
        truths = ground_truths(label[image])
        iou = iou_of(anchors, truths)
        matched = np.flatnonzero(classes > 0)
        owner = classes[matched].astype(int) - 1
        assert len(set(owner)) == len(owner)
        # No anchor and ground truth have a higher IoU with each other than with their matches.
        of_anchor, of_truth = np.zeros(len(iou)), np.zeros(len(truths))
        of_anchor[matched] = of_truth[owner] = iou[matched, owner]
        better = (iou > of_anchor[:, None]) & (iou > of_truth) & (iou > F(1e-6))
        assert not better.any()
        assert len(matched) > 0 or len(truths) == 0


def test_images_are_independent(run):
    anchors, label, logits = scene(np.random.default_rng(8), 6, 300, 8)
    options = dict(negative_mining_ratio=2)
    whole = run(cvops.multibox_target, anchors, label, logits, **options)
    order = np.array([3, 0, 5, 1, 4, 2])
    shuffled = run(cvops.multibox_target, anchors, label[order], logits[order], **options)
    assert_equal(shuffled, [x[order] for x in whole])
    alone = run(cvops.multibox_target, anchors, label[2:3], logits[2:3], **options)
    assert_equal(alone, [x[2:3] for x in whole])


@settings(max_examples=150, deadline=None)
@given(
    inputs=scenes(SPECIAL, ordered=False),
    threshold=st.sampled_from([0.5, 0.3, 0.0, -1.0, 0.7]),
    ignore=st.sampled_from([-1.0, -7.5]),
)
def test_results_equal_mxnet(mx, inputs, threshold, ignore):
    options = dict(overlap_threshold=threshold, ignore_label=ignore)
    want = mxnet_target(mx, inputs, **options)
    assert_close_to_mxnet(cvops.multibox_target(*inputs, **options, backend="numpy"), want)


# Refusals.

#: Row 2 of image 1 is padding with a corner.
HALF = LABEL.copy()
HALF[1] = SAME, SAME, (-1, -1, 0.5, -1, -1)
VALID = ANCHORS, LABEL, SCORES
REFUSED = {
    "list": (([1], LABEL, SCORES), {}, TypeError, "anchor: expected an array .* got list"),
    "float64": (
        (ANCHORS.astype("f8"), LABEL, SCORES),
        {},
        TypeError,
        "anchor: expected float32, got float64",
    ),
    "anchors of two axes": (
        (ANCHORS[0], LABEL, SCORES),
        {},
        ValueError,
        r"anchor: expected shape \(1, A, 4\), got \(5, 4\)",
    ),
    "two sets of anchors": (
        (np.repeat(ANCHORS, 2, 0), LABEL, SCORES),
        {},
        ValueError,
        r"anchor: .* got \(2, 5, 4\)",
    ),
    "no anchors": (
        (ANCHORS[:, :0], LABEL, SCORES[..., :0]),
        {},
        ValueError,
        "anchor: expected from 1 .* got 0",
    ),
    "label of four columns": (
        (ANCHORS, LABEL[..., :4], SCORES),
        {},
        ValueError,
        r"label: .* 5 or more, got shape \(2, 3, 4\)",
    ),
    "label of two axes": (
        (ANCHORS, LABEL[0], SCORES),
        {},
        ValueError,
        r"label: expected shape \(B, G, W\), got \(3, 5\)",
    ),
    "another number of images": (
        (ANCHORS, LABEL, SCORES[:1]),
        {},
        ValueError,
        r"cls_pred: .* B = 2 as in label, got \(1, 4, 5\)",
    ),
    "another number of anchors": (
        (ANCHORS, LABEL, SCORES[..., 1:]),
        {},
        ValueError,
        r"cls_pred: .* A = 5 as in anchor, got",
    ),
    "2^30 ground truths": (
        (ANCHORS, np.zeros((0, 2**30, 5), F), SCORES[:0]),
        {},
        ValueError,
        "label: expected fewer than 2\\^30 ground truths per image, got 1073741824",
    ),
    "no classes": (
        (ANCHORS, LABEL, SCORES[:, :0]),
        {},
        ValueError,
        r"cls_pred: expected one class .* \(2, 0, 5\)",
    ),
    "threshold NaN": (
        VALID,
        dict(overlap_threshold=NAN),
        ValueError,
        "overlap_threshold: .* nan",
    ),
    "ignore_label is no number": (
        VALID,
        dict(ignore_label="x"),
        TypeError,
        "ignore_label: .* got 'x'",
    ),
    "mining threshold 0": (
        VALID,
        dict(negative_mining_ratio=3, negative_mining_thresh=0),
        ValueError,
        "negative_mining_thresh: expected a positive number, got 0",
    ),
    "two variances": (VALID, dict(variances=(1, 2)), ValueError, r"variances: .* got \(1, 2\)"),
    "minimum is a float": (
        VALID,
        dict(minimum_negative_samples=0.5),
        TypeError,
        "minimum_negative_samples: expected an integer, got 0.5",
    ),
    "unknown backend": (VALID, dict(backend="x"), ValueError, "backend: .* got 'x'"),
}


@pytest.mark.parametrize(("inputs", "options", "error", "message"), REFUSED.values(), ids=REFUSED)
def test_bad_arguments_are_refused(inputs, options, error, message):
    with pytest.raises(error, match=message):
        cvops.multibox_target(*inputs, **options)


@pytest.mark.parametrize("pair", DEVICE_BACKENDS[:2], ids="-".join)
def test_padding_with_corners_is_refused_on_a_cpu(pair):
    half = HALF.copy()
    half[1, 2, 2:] = 0.1, -1, 1e-20
    message = r"label: .* got \[-1, 0\.100000001, -1, 9\.99999968e-21\] in image 1, row 2$"
    with pytest.raises(ValueError, match=message):
        runner(*pair)(cvops.multibox_target, ANCHORS, half, SCORES)


@pytest.mark.parametrize("pair", DEVICE_BACKENDS[2:], ids="-".join)
def test_padding_with_corners_ends_the_ground_truths_in_kernels(pair):
    half = HALF.copy()
    half[1, 0] = SAME
    half[1, 1] = (-1, 0.5, 0.5, 0.9, 0.9)
    half[1, 2] = (8, 0.5, 0.5, 0.9, 0.9)
    _, _, cls = runner(*pair)(cvops.multibox_target, ANCHORS, half, SCORES)
    np.testing.assert_array_equal(cls, [[-1] * 5, [4, 0, 4, 0, 0]])


def test_mxnet_refuses_padding_with_corners(mx):
    with pytest.raises(mx.base.MXNetError, match="Check failed"):
        mxnet_target(mx, (ANCHORS, HALF, SCORES))

"""Hard negative mining of multibox_target: candidates, scores, and the selected negatives."""

import numpy as np
import pytest
from emulator import backends
from emulator.arena import Arena
from hypothesis import given, settings
from hypothesis import strategies as st
from target_cases import (
    COORDINATES,
    HALVES,
    NAN,
    WHOLE,
    F,
    assert_close_to_mxnet,
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
from cvops.ops import _exp_log

#: ``struct TargetShape`` of the kernels.
SHAPE = np.dtype(
    [(f"num_{name}", np.int32) for name in ("images", "anchors", "truths")]
    + [("label_width", np.int32), ("num_classes", np.int32)]
)
#: ``struct TargetBuffers`` of the kernels: addresses, and the number of splits.
BUFFERS = np.dtype(
    {
        "names": [
            *("states", "keys", "counts", "num_valid", "num_splits"),
            *("wanted", "bounds", "scores", "bins", "finished_blocks"),
        ],
        "formats": [*["u8"] * 4, "i4", *["u8"] * 5],
    },
    align=True,
)
#: Constants of mining.cuh. A state is SCORED + score; UNSCORED is a candidate without a score.
SCORED, UNSCORED = 0x40000000, 0x7FFFFFFE
#: An approximate score is APPROX_TOP minus the bits of 1 / p. Its bin is score >> APPROX_SHIFT.
APPROX_TOP, APPROX_SHIFT, DIGIT_BINS = 0x5F040000, 18, 2048

#: Logits of the background: anchor 2 has the lowest probability, then 3, then 1.
LOGITS = f32([[[0, 5, 1, 2], [0, 0, 0, 0]]])
MINING = {
    # There is one positive. Its product with the ratio is truncated.
    "ratio 1": (dict(negative_mining_ratio=1), [7, -1, 0, -1]),
    "ratio 1.9": (dict(negative_mining_ratio=1.9), [7, -1, 0, -1]),
    "ratio 0.5": (dict(negative_mining_ratio=0.5), [7, -1, -1, -1]),
    # The IoU of anchor 1 is .5, which is not below the threshold .5.
    "ratio 2": (dict(negative_mining_ratio=2), [7, -1, 0, 0]),
    "ratio 2, threshold 0.6": (
        dict(negative_mining_ratio=2, negative_mining_thresh=0.6),
        [7, -1, 0, 0],
    ),
    "ratio 3, threshold 0.6": (
        dict(negative_mining_ratio=3, negative_mining_thresh=0.6),
        [7, 0, 0, 0],
    ),
    "ratio 1, threshold 0.25": (
        dict(negative_mining_ratio=1, negative_mining_thresh=0.25),
        [7, -1, -1, 0],
    ),
    "ignore_label": (dict(negative_mining_ratio=1, ignore_label=-9), [7, -9, 0, -9]),
    # The wanted number is above that of candidates, of anchors, and the range of an int.
    "ratio 3": (dict(negative_mining_ratio=3), [7, -1, 0, 0]),
    "ratio 1e9": (dict(negative_mining_ratio=1e9), [7, -1, 0, 0]),
    "ratio 1e30": (dict(negative_mining_ratio=1e30), [7, -1, 0, 0]),
    "infinite ratio": (dict(negative_mining_ratio=np.inf), [7, -1, 0, 0]),
    "minimum_negative_samples": (
        dict(negative_mining_ratio=1, minimum_negative_samples=3),
        [7, -1, 0, -1],
    ),
    "two positives": (dict(negative_mining_ratio=1, overlap_threshold=0.4), [7, 7, 0, 0]),
    "ratio 0": (dict(negative_mining_ratio=0), [7, 0, 0, 0]),
}


@pytest.mark.parametrize(("options", "want"), MINING.values(), ids=MINING)
def test_number_of_negatives_by_hand(run, options, want):
    _, mask, cls = run(cvops.multibox_target, HALVES, WHOLE, LOGITS, **options)
    np.testing.assert_array_equal(cls, [want])
    np.testing.assert_array_equal(mask, [np.repeat(np.array(want) == 7, 4)])


BACKGROUNDS = {
    "ties in order of anchors": ([9, 1, 1, 1, 1, 1], [7, 0, 0, -1, -1, -1]),
    "NaN last": ([9, NAN, 1, NAN, 2, 3], [7, -1, 0, -1, 0, -1]),
    "NaN if no other candidate is left": ([9, NAN, NAN, NAN, NAN, 3], [7, 0, -1, -1, -1, 0]),
    # Infinity minus infinity is NaN.
    "infinite": ([9, np.inf, 5, -np.inf, 4, 3], [7, -1, -1, 0, -1, 0]),
    "denormal probabilities": ([9, -88, -89, -90, -100, -101], [7, -1, -1, -1, 0, 0]),
    "probabilities of 0": ([9, -150, -200, 0, -151, 0], [7, 0, 0, -1, -1, -1]),
}


@pytest.mark.parametrize(("background", "want"), BACKGROUNDS.values(), ids=BACKGROUNDS)
def test_order_of_negatives_by_hand(run, background, want):
    anchors = f32([[[0, 0, 4, 4]] + [[8, 8, 9, 9]] * 5])
    logits = np.stack([f32([background]), np.zeros((1, 6), F)], axis=1)
    _, _, cls = run(cvops.multibox_target, anchors, WHOLE, logits, negative_mining_ratio=2)
    np.testing.assert_array_equal(cls, [want])


def test_matched_anchors_are_no_candidates(run):
    # The first three anchors are matched; the IoU of the first two is only 1/4. The fourth has an
    # IoU of 1/2 with the third ground truth. Three negatives are wanted, two are candidates.
    anchors = f32([[[0, 0, 1, 1], [4, 0, 5, 1], [8, 0, 10, 2], [8, 0, 10, 1], *[[0, 8, 1, 9]] * 2]])
    label = f32([[[0, 0, 0, 2, 2], [1, 4, 0, 6, 2], [2, 8, 0, 10, 2]]])
    options = dict(overlap_threshold=0, negative_mining_ratio=1)
    _, _, cls = run(cvops.multibox_target, anchors, label, np.zeros((1, 2, 6), F), **options)
    np.testing.assert_array_equal(cls, [[1, 2, 3, -1, 0, 0]])


def test_mined_negatives_have_the_lowest_background_probabilities(run):
    anchors, label, logits = scene(np.random.default_rng(9), 2, 700, 12, num_classes=5)
    _, _, cls = run(cvops.multibox_target, anchors, label, logits, negative_mining_ratio=2)
    for image in range(2):
        iou = iou_of(anchors, ground_truths(label[image]))
        exp = np.exp(logits[image].astype(np.float64))
        background = exp[0] / exp.sum(axis=0)
        positive, negative = cls[image] > 0, cls[image] == 0
        rest = ~positive & ~negative & (iou.max(axis=1, initial=0) < 0.5)
        assert negative.sum() == 2 * positive.sum() > 0
        assert background[negative].max() < background[rest].min()


# Comparisons with the reference, bit for bit.


def test_selection_among_equal_scores_equals_the_reference(run_other):
    # The index of the anchor decides the last negative.
    anchors, label, logits = scene(np.random.default_rng(4), 2, 2500, 30)
    logits[:, :, 40:] = 0
    for ratio in (1, 4, 11.3):
        assert_equals_reference(run_other, (anchors, label, logits), negative_mining_ratio=ratio)


@pytest.mark.parametrize("scale", [1e-6, 1e-3, 30, 1000])
def test_selection_among_close_and_vanishing_scores_equals_the_reference(run_other, scale):
    inputs = scene(np.random.default_rng(11), 2, 1500, 30, num_classes=6)
    inputs[2][...] *= F(scale)
    for ratio in (0.3, 2, 17):
        assert_equals_reference(run_other, inputs, negative_mining_ratio=ratio)


@pytest.mark.parametrize("spread", [4e-3, 1e-4], ids=["exponentials", "sums"])
def test_order_of_nearly_equal_scores_is_that_of_exact_ones(run_any_steps, spread):
    """The sums of exponentials differ by less than the error of an approximation.

    The approximate exponentials of the CPU have a relative error of 1e-4, those of the kernels one
    of 2**-22. Each image has its own distance of the last negative from the others.
    """
    rng = np.random.default_rng(29)
    images, num = 64, 400
    anchors = f32([[[0, 0, 4, 4], *[[8, 8, 9, 9]] * num]])
    total = 2.5 * (1 + spread * rng.random((images, num + 1)))
    part = rng.uniform(0.1, 0.9, total.shape)
    logits = np.stack([0 * total, np.log(total * part), np.log(total * (1 - part))], 1).astype(F)
    inputs = anchors, WHOLE.repeat(images, 0), logits
    want = assert_equals_reference(run_any_steps, inputs, negative_mining_ratio=150)
    assert (want[2] == 0).sum() == 150 * images


LOGITS_OF = {
    "equal": lambda rng, shape: np.zeros(shape),
    "different in the last bit": lambda rng, shape: 1 + rng.integers(0, 4, shape) * 2.0**-23,
    "close": lambda rng, shape: rng.normal(size=shape) * 1e-4,
    "distant": lambda rng, shape: rng.normal(size=shape) * 60,
    "at the CPU's limit of certain scores": lambda rng, shape: rng.choice(
        [0, 69, 69.3, 69.4, 70, 87, 88, 89, 104], shape
    ),
    "of every magnitude": lambda rng, shape: (
        rng.normal(size=shape) * 10.0 ** rng.uniform(-8, 38, shape)
    ),
    "mostly NaN": lambda rng, shape: np.where(rng.random(shape) < 0.7, NAN, rng.normal(size=shape)),
    "NaN": lambda rng, shape: np.full(shape, NAN),
    "some infinite": lambda rng, shape: np.where(
        rng.random(shape) < 0.1, rng.choice([np.inf, -np.inf], shape), rng.normal(size=shape)
    ),
    "mostly -inf": lambda rng, shape: np.where(rng.random(shape) < 0.8, -np.inf, 1.0),
    "NaN for the first anchor": lambda rng, shape: np.where(
        np.arange(shape[-1]), np.zeros(shape), NAN
    ),
    "of three values": lambda rng, shape: rng.choice([0.0, 1e-7, 5.0], shape),
    # The kernels are certain up to 2^63: 63 ln 2 = 43.668.
    "at the kernels' limit of certain scores": lambda rng, shape: rng.choice(
        [0, 1, 42, 43.6, 43.668, 43.6683, 43.7, 44, 60], shape
    ),
    # The softmax is the same, except for the rounding of its sum.
    "permutations of one set": lambda rng, shape: rng.permuted(
        np.broadcast_to(np.linspace(-2, 2, shape[1])[:, None], shape), axis=1
    ),
    "denormal": lambda rng, shape: rng.normal(size=shape) * 1e-40,
    "mostly close": lambda rng, shape: np.where(
        rng.random(shape) < 0.01, rng.normal(size=shape) * 5, rng.normal(size=shape) * 1e-5
    ),
}


def adversarial(logits, rng, shape):
    with np.errstate(over="ignore"):
        return logits(rng, shape).astype(F)


@pytest.mark.parametrize("num_classes", [1, 2, 5, 12])
@pytest.mark.parametrize("logits", LOGITS_OF.values(), ids=LOGITS_OF)
def test_threads_and_vectors_do_not_change_a_bit_of_adversarial_logits(
    cpu_variants, logits, num_classes
):
    rng = np.random.default_rng(16)
    anchors, label, _ = scene(rng, 2, 1300, 10)
    cls_pred = adversarial(logits, rng, (2, num_classes, 1300))
    for ratio in (0.02, 1, 7, 1e3):
        for threshold in (0.5, 0.05):
            assert_variants_equal_reference(
                cpu_variants,
                (anchors, label, cls_pred),
                negative_mining_ratio=ratio,
                negative_mining_thresh=threshold,
            )


@pytest.mark.parametrize("num_classes", [1, 2, 21, 81])
@pytest.mark.parametrize("logits", LOGITS_OF.values(), ids=LOGITS_OF)
def test_adversarial_logits_equal_the_reference(run_other, logits, num_classes):
    rng = np.random.default_rng(17)
    anchors, label, _ = scene(rng, 2, 900, 10)
    cls_pred = adversarial(logits, rng, (2, num_classes, 900))
    for ratio in (0.02, 1, 7):
        assert_equals_reference(run_other, (anchors, label, cls_pred), negative_mining_ratio=ratio)


@pytest.mark.parametrize("name", ["different in the last bit", "some infinite"])
def test_sanitizers_find_no_error_with_adversarial_logits(run_sanitized, name):
    rng = np.random.default_rng(23)
    anchors, label, _ = scene(rng, 2, 602, 4)
    cls_pred = adversarial(LOGITS_OF[name], rng, (2, 3, 602))
    assert_equals_reference(run_sanitized, (anchors, label, cls_pred), negative_mining_ratio=2)


# The kernels.


@pytest.mark.parametrize("sanitizer", [None, "address"], ids=["plain", "address"])
def test_block_refines_more_candidates_than_its_list_holds(sanitizer):
    num, half = 9001, 0x3F000000  # the bits of 0.5
    approx = APPROX_TOP - 0x40000000  # of 1 / 0.5 = 2.0, whose bits are 0x40000000
    arena = Arena()

    def filled(value, *shape, dtype):
        array = arena.array(shape, dtype)
        array[:] = value
        return array

    states = filled(UNSCORED, num + 3, dtype=np.int32)
    scores = filled(approx, num + 3, dtype=np.uint32)
    bins = filled(0, DIGIT_BINS, dtype=np.uint32)
    bins[approx >> APPROX_SHIFT] = num
    wanted, bounds = filled(7, 1, dtype=np.int32), filled(0, 1, dtype=np.uint64)
    finished, logits = filled(0, 1, dtype=np.uint32), filled(0, 2, num, dtype=F)
    in_use = states, None, None, None, 0, wanted, bounds, scores, bins, finished
    buffers = np.zeros((), BUFFERS)
    for field, array in zip(BUFFERS.names, in_use):
        buffers[field] = array.ctypes.data if isinstance(array, np.ndarray) else 0
    shape = np.array((1, num, 1, 5, 2), SHAPE)
    backends.module("mining", sanitizer).launch(
        "multibox_target_refine",
        (1, 1, 1),
        (512, 1, 1),
        (buffers, np.uintp(logits.ctypes.data), shape, np.int32(1)),
        arena=arena if sanitizer else None,
    )
    np.testing.assert_array_equal(states[:num], SCORED + half)
    assert int(bounds[0]) == half << 32 | 7  # anchors 0 to 6


@pytest.mark.parametrize("num_classes", [1, 2, 3, 21, 81, 1000])
@pytest.mark.parametrize("scale", [1e-30, 1e-4, 0.3, 1, 4, 12, 30, 1e3, 1e30])
def test_error_of_approximate_scores_is_within_the_bound(scale, num_classes):
    """The error is at most three quarters of approx_error in mining_scores.cuh."""
    rng = np.random.default_rng(num_classes)
    num = 400_000 // (10 + num_classes) * 4
    logits = (rng.normal(size=(num_classes, num)) * scale).astype(F)
    logits[:, ::7] = np.round(logits[:, ::7])
    logits[0, 1::3] += F(rng.choice([-40, -20, 20, 40]))  # most sums are large, or 1
    logits[:, 2::50] = rng.choice(f32([NAN, np.inf, -np.inf, 0, 3e38]), logits[:, 2::50].shape)
    scores, bins = np.empty(num, np.uint32), np.zeros(DIGIT_BINS, np.uint32)
    states = np.full(num, UNSCORED, np.int32)
    shape = np.array((1, num, 1, 5, num_classes), SHAPE)
    backends.module("mining").launch(
        "multibox_target_score",
        (-(-num // 2048), 1, 1),
        (256, 1, 1),
        (scores, bins, states, logits, np.ones(1, np.int32), shape),
    )
    np.testing.assert_array_equal(bins, np.bincount(scores >> APPROX_SHIFT, minlength=DIGIT_BINS))
    approximate = (np.uint32(APPROX_TOP) - scores).view(F).astype(np.float64)
    exact = softmax_of_class_0(logits)
    certain = scores > 0
    bound = 2.0**-13 + num_classes * 2.0**-21
    assert np.abs(approximate[certain] * exact[certain] - 1).max(initial=0) <= 0.75 * bound
    assert not (exact[~certain] > 1.001 * 2.0**-63).any()
    assert certain.any() or scale > 100


def softmax_of_class_0(logits):
    """The exact score of the kernels, as float64."""
    top = np.fmax.reduce(logits[1:], initial=-np.inf)
    top = np.where(top > logits[0], top, logits[0])
    with np.errstate(all="ignore"):
        exp = _exp_log.exp(logits - top)
        total = np.zeros_like(top)
        for row in exp:
            total += row
        return (exp[0] / total).astype(np.float64)


def test_launches_depend_only_on_shapes(launches):
    anchors, label, _ = scene(np.random.default_rng(19), 2, 900, 10)
    seen = set()
    for labels in (label, np.full_like(label, -1)):
        for logits in LOGITS_OF.values():
            cls_pred = adversarial(logits, np.random.default_rng(20), (2, 3, 900))
            cvops.multibox_target(
                anchors, labels, cls_pred, negative_mining_ratio=3, backend="emulated"
            )
            seen.add(tuple(launch[:4] for launch in launches))
            launches.clear()
    assert len(seen) == 1
    assert [kernel.rpartition("_")[2] for kernel, *_ in seen.pop()] == [
        *("match", "assign", "score", "refine", "write")
    ]


# Comparisons with MXNet.


@settings(max_examples=150, deadline=None)
@given(
    inputs=scenes(COORDINATES, ordered=True),
    threshold=st.sampled_from([0.5, 0.3, 0.0]),
    ratio=st.sampled_from([0.5, 1.0, 2.7, 3.0]),
    limit=st.sampled_from([0.5, 0.3, 1.0]),
)
def test_negatives_are_those_of_mxnet(mx, inputs, threshold, ratio, limit):
    options = dict(
        overlap_threshold=threshold, negative_mining_ratio=ratio, negative_mining_thresh=limit
    )
    # A call has one image: MXNet raises for all images if one has too few candidates.
    anchors, label, logits = inputs
    for image in range(len(label)):
        one = anchors, label[image : image + 1], logits[image : image + 1]
        got = cvops.multibox_target(*one, **options, backend="numpy")
        try:
            want = mxnet_target(mx, one, **options)
        except mx.base.MXNetError as error:
            refused = str(error)
        else:
            assert_negatives_of_mxnet(got, want, logits[image])
            continue
        assert "temp.size()" in refused
        iou = iou_of(anchors, ground_truths(label[image]))
        candidates = (got[2][0] <= 0) & (iou.max(axis=1) < F(limit))
        np.testing.assert_array_equal(got[2][0] == 0, candidates)


def assert_negatives_of_mxnet(got, want, logits):
    """The negatives differ only if the last bit of an exponential decides their order."""
    ours, theirs = got[2][0], want[2][0]
    differ = ours != theirs
    if differ.any():
        exp = np.exp(logits.astype(np.float64) - logits.max(axis=0))
        background = (exp[0] / exp.sum(axis=0))[differ]
        assert background.max() <= background.min() * (1 + 4 * np.finfo(F).eps)
        assert set(ours[differ]) | set(theirs[differ]) == {0, -1}
        assert (ours == 0).sum() == (theirs == 0).sum()
    assert_close_to_mxnet((got[0], got[1]), (want[0], want[1]))


def test_few_negatives_differ_from_mxnet(mx):
    # The logits of 1000 anchors are so close that a last bit may decide.
    anchors, label, logits = scene(np.random.default_rng(10), 8, 1000, 20, num_classes=4)
    logits *= F(1e-3)
    options = dict(negative_mining_ratio=4)
    got = cvops.multibox_target(anchors, label, logits, **options)
    want = mxnet_target(mx, (anchors, label, logits), **options)
    for image in range(8):
        rows = [[x[image : image + 1] for x in out] for out in (got, want)]
        assert_negatives_of_mxnet(*rows, logits[image])
    negatives = (want[2] == 0).sum()
    assert negatives > 100
    assert (got[2] != want[2]).sum() <= 0.02 * negatives

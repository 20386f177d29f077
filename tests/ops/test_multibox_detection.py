import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cvops import multibox_detection

OPTIONS = [
    {},
    dict(force_suppress=True, nms_threshold=0.45),
    dict(nms_topk=40, threshold=0.3),
    dict(clip=False, nms_threshold=0.7, variances=(0.2, 0.3, 0.4, 0.5)),
    dict(nms_threshold=0),
    dict(nms_threshold=1),
    dict(nms_topk=3, background_id=1),
    dict(threshold=-1, nms_threshold=1.5),
]


def predictions(rng, batch, classes, num, ties=False, special=False):
    prob = rng.random((batch, classes, num), np.float32) ** 6
    prob /= prob.sum(axis=1, keepdims=True)
    offsets = rng.standard_normal((batch, 4 * num)).astype(np.float32)
    anchor = rng.random((1, num, 4), np.float32) * np.float32(0.5)
    anchor[..., 2:] += anchor[..., :2]
    if ties:
        prob, anchor = np.round(prob * 20) / np.float32(20), np.round(anchor * 8) / np.float32(8)
        offsets[rng.random(offsets.shape) < 0.7] = 0
    if special:
        for x in (prob, offsets, anchor):
            x[rng.random(x.shape) < 0.03] = rng.choice([np.nan, np.inf, -np.inf, 1e4])
    return prob, offsets, anchor


def test_example_of_the_book(run):
    # d2l-zh, 9.4: a dog (class 1) and a cat (class 2). All offsets are 0.
    boxes = (
        [0.1, 0.08, 0.52, 0.92],
        [0.08, 0.2, 0.56, 0.95],
        [0.15, 0.3, 0.62, 0.91],
        [0.55, 0.2, 0.9, 0.88],
    )
    anchor = np.float32([boxes])
    prob = np.float32([[[0] * 4, [0.9, 0.8, 0.7, 0.1], [0.1, 0.2, 0.3, 0.9]]])
    out = run(multibox_detection, prob, np.zeros((1, 16), np.float32), anchor, nms_threshold=0.5)
    expected = [(0, 0.9, boxes[0]), (1, 0.9, boxes[3]), (-1, 0.8, boxes[1]), (-1, 0.7, boxes[2])]
    np.testing.assert_array_equal(out[0, :, 0], [row[0] for row in expected])
    np.testing.assert_array_equal(out[0, :, 1], np.float32([row[1] for row in expected]))
    np.testing.assert_allclose(out[0, :, 2:], [row[2] for row in expected], atol=1e-7)


def test_decoded_box_by_hand(run):
    # An anchor of 0.4 x 0.2 around (0.5, 0.5). The offsets move it by (1 * 0.1 * 0.4,
    # 2 * 0.1 * 0.2), and multiply its width by exp(0) and its height by exp(5 * 0.2).
    anchor = np.float32([[[0.3, 0.4, 0.7, 0.6]]])
    out = run(multibox_detection, np.float32([[[0.1], [0.9]]]), np.float32([[1, 2, 0, 5]]), anchor)
    x, y, half_height = 0.54, 0.54, 0.1 * np.e
    expected = [0, 0.9, x - 0.2, y - half_height, x + 0.2, y + half_height]
    np.testing.assert_allclose(out[0, 0], expected, rtol=1e-6)


def test_iou_equal_to_the_threshold_suppresses(run):
    # The IoU is exactly 1 / 2. The scores are equal, so the first anchor has priority.
    anchor = np.float32([[[0, 0, 0.5, 0.25], [0, 0, 0.5, 0.5]]])
    prob = np.float32([[[0.5, 0.5], [0.5, 0.5]]])
    out = run(multibox_detection, prob, np.zeros((1, 8), np.float32), anchor)
    np.testing.assert_array_equal(out[0, :, 0], [0, -1])
    np.testing.assert_array_equal(out[0, :, 2:], anchor[0])


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize(
    ("batch", "classes", "num"), [(1, 2, 1), (2, 6, 64), (3, 4, 257), (2, 1, 5)]
)
def test_results_equal_the_reference(run, batch, classes, num, options):
    rng = np.random.default_rng(num)
    for ties, special in ((False, False), (True, False), (True, True)):
        arrays = predictions(rng, batch, classes, num, ties, special)
        expected = multibox_detection(*arrays, **options, backend="numpy")
        np.testing.assert_array_equal(run(multibox_detection, *arrays, **options), expected)


def test_more_anchors_than_a_sort_tile_have_equal_bits(run):
    arrays = predictions(np.random.default_rng(0), 2, 3, 2500)
    expected = multibox_detection(*arrays, threshold=0.1, nms_topk=700, backend="native")
    out = run(multibox_detection, *arrays, threshold=0.1, nms_topk=700)
    np.testing.assert_array_equal(out, expected)
    assert (expected[..., 0] >= 0).sum() > 100


@pytest.mark.parametrize("batch", [1, 2, 5])
@pytest.mark.parametrize(
    "options",
    [
        {},
        dict(force_suppress=True, nms_threshold=0.97),
        dict(nms_topk=400, clip=False),
        dict(threshold=0.4),
        dict(nms_threshold=0),
    ],
)
@pytest.mark.parametrize("scale", [0.02, 1], ids=["small boxes", "large boxes"])
def test_threads_and_vectors_do_not_change_a_bit(cpu_variants, batch, options, scale):
    """Small boxes use the grid of kept boxes. Most large boxes overlap."""
    prob, offsets, anchor = predictions(np.random.default_rng(batch), batch, 4, 1500, special=True)
    with np.errstate(invalid="ignore"):
        anchor[..., 2:] = anchor[..., :2] + scale * (anchor[..., 2:] - anchor[..., :2])
    expected = multibox_detection(prob, offsets, anchor, **options, backend="numpy")
    for out in cpu_variants(
        lambda: multibox_detection(prob, offsets, anchor, **options, backend="native")
    ):
        np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("num", [31, 32, 33, 255, 257, 1023, 1024, 1025, 2081])
def test_class_is_the_first_argmax_of_the_scores(run, num):
    """Many scores are equal. Some anchors have no score above the threshold."""
    rng = np.random.default_rng(num)
    prob = rng.choice(np.float32([-2, -1, 0.25, 0.5, np.nan]), (1, 5, num))
    offsets, anchor = np.zeros((1, 4 * num), np.float32), np.zeros((1, num, 4), np.float32)
    out = run(multibox_detection, prob, offsets, anchor, nms_threshold=0)
    best = np.where(prob[0, 1:] > -1, prob[0, 1:], -1)
    ids, scores = best.argmax(axis=0), best.max(axis=0)
    counts = scores >= np.float32(0.01)
    np.testing.assert_array_equal(out[0, : counts.sum(), 0], ids[counts])
    np.testing.assert_array_equal(out[0, : counts.sum(), 1], scores[counts])
    assert (out[0, counts.sum() :] == -1).all()


@pytest.mark.parametrize("zeros", [(0.0, -0.0), (-0.0, 0.0), (-0.0, -0.0)], ids=str)
def test_zero_score_has_the_sign_of_the_first_class(run, zeros):
    prob = np.float32([1, *zeros]).reshape(1, 3, 1)
    anchor = np.float32([[[0, 0, 1, 1]]])
    out = run(multibox_detection, prob, np.zeros((1, 4), np.float32), anchor, threshold=-1)
    assert out[0, 0, 0] == 0
    assert np.signbit(out[0, 0, 1]) == np.signbit(zeros[0])


@pytest.mark.parametrize(("batch", "num"), [(0, 5), (2, 0)])
def test_empty_input_gives_empty_output(run, batch, num):
    arrays = predictions(np.random.default_rng(0), batch, 3, num)
    assert run(multibox_detection, *arrays).shape == (batch, num, 6)


def test_images_are_independent(run):
    prob, offsets, anchor = predictions(np.random.default_rng(1), 3, 4, 100)
    whole = run(multibox_detection, prob, offsets, anchor)
    for i in range(3):
        one = run(multibox_detection, prob[i : i + 1], offsets[i : i + 1], anchor)
        np.testing.assert_array_equal(whole[i : i + 1], one)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32), num=st.integers(1, 90), ties=st.booleans(), special=st.booleans()
)
@pytest.mark.parametrize("backend", ["numpy", "native"])
@pytest.mark.parametrize("options", OPTIONS)
def test_scores_equal_mxnet_and_boxes_are_close(mx, backend, options, seed, num, ties, special):
    arrays = predictions(np.random.default_rng(seed), 2, 4, num, ties, special)
    theirs = mx.nd.contrib.MultiBoxDetection(*map(mx.nd.array, arrays), **options).asnumpy()
    ours = multibox_detection(*arrays, **options, backend=backend)
    np.testing.assert_array_equal(ours[..., 1], theirs[..., 1])
    # exp may differ in its last bit. The error of a coordinate is relative to the size of the box.
    size = np.abs(theirs[..., 2:]).max(axis=-1, keepdims=True)
    near = np.abs(np.where(np.isfinite(theirs), theirs, 0) - np.where(np.isfinite(ours), ours, 0))
    assert (near[..., 2:] <= np.where(np.isfinite(size), 3e-7 * size, np.inf)).all()
    np.testing.assert_array_equal(
        np.where(np.isfinite(ours), 0, ours), np.where(np.isfinite(theirs), 0, theirs)
    )
    if np.array_equal(ours[..., 2:], theirs[..., 2:], equal_nan=True):
        np.testing.assert_array_equal(ours[..., 0], theirs[..., 0])


def test_last_bit_of_exp_changes_few_decisions_of_mxnet(mx):
    """At most 3 of 100,000 decisions differ, with random boxes."""
    rng = np.random.default_rng(2)
    decisions = differ = 0
    for _ in range(20):
        arrays = predictions(rng, 4, 3, 1500)
        theirs = mx.nd.contrib.MultiBoxDetection(*map(mx.nd.array, arrays)).asnumpy()
        ours = multibox_detection(*arrays)
        decisions += (theirs[..., 1] >= 0).sum()
        differ += (ours[..., 0] != theirs[..., 0]).sum()
    assert decisions > 100_000
    assert differ <= 3


def test_sanitizers_find_no_error(run_sanitized):
    arrays = predictions(np.random.default_rng(3), 2, 3, 70, ties=True)
    out = run_sanitized(multibox_detection, *arrays, nms_topk=50)
    np.testing.assert_array_equal(out, multibox_detection(*arrays, nms_topk=50, backend="numpy"))


PROB, OFFSETS, ANCHOR = predictions(np.random.default_rng(4), 2, 3, 5)

VALID = PROB, OFFSETS, ANCHOR
REFUSED = {
    "scores of two axes": (
        (PROB[0], OFFSETS, ANCHOR),
        {},
        ValueError,
        r"cls_prob: .*\(B, C, A\), got \(3, 5\)",
    ),
    "four anchors": (
        (PROB, OFFSETS, ANCHOR[:, :4]),
        {},
        ValueError,
        r"anchor: .*with A = 5 as in cls_prob, got",
    ),
    "anchors of two axes": (
        (PROB, OFFSETS, ANCHOR[0]),
        {},
        ValueError,
        r"anchor: expected shape \(1, A, 4\), got",
    ),
    "few offsets": (
        (PROB, OFFSETS[:, :8], ANCHOR),
        {},
        ValueError,
        r"loc_pred: .*\(B, 20\), got \(2, 8\)",
    ),
    "offsets of one image": (
        (PROB, OFFSETS[:1], ANCHOR),
        {},
        ValueError,
        "loc_pred: .*with B = 2 as in cls_prob, got",
    ),
    "float64 offsets": (
        (PROB, OFFSETS.astype("f8"), ANCHOR),
        {},
        TypeError,
        "loc_pred: .*float32, got float64",
    ),
    "two variances": (
        VALID,
        dict(variances=(1, 2)),
        ValueError,
        "variances: expected 4 numbers",
    ),
    "threshold is NaN": (VALID, dict(threshold=np.nan), ValueError, "threshold: .*got nan"),
    "nms_topk is a word": (VALID, dict(nms_topk="all"), TypeError, "nms_topk: .*got 'all'"),
    "background_id is None": (
        VALID,
        dict(background_id=None),
        TypeError,
        "background_id: .*got None",
    ),
}


@pytest.mark.parametrize(("arrays", "options", "error", "message"), REFUSED.values(), ids=REFUSED)
def test_bad_arguments_are_refused(arrays, options, error, message):
    with pytest.raises(error, match=message):
        multibox_detection(*arrays, **options)

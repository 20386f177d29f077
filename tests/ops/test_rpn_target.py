from functools import partial

import numpy as np
import pytest
from backend_runner import runner
from emulator import backends
from hypothesis import given, settings
from hypothesis import strategies as st
from sampling_cases import f32, grid_boxes, padded, random_labels, random_noise

from cvops import box_encode, box_iou, rpn_target

LN2 = np.float32(0.693147180559945309417)
#: Boxes of width 10 and height 10 at different places.
ANCHORS = f32([[0, 0, 10, 10], [0, 0, 10, 8], [0, 0, 10, 4], [20, 0, 30, 10], [40, 0, 50, 10]])
#: The IoUs of the anchors with this box: 1, 0.8, 0.4, 0, 0.
TRUTH = [[3, 0, 0, 10, 10]]


def classes(run, anchors, labels, noise=None, **options):
    noise = np.zeros((len(labels), len(anchors)), np.float32) if noise is None else f32(noise)
    cls, box, mask = run(rpn_target, f32(anchors), labels, noise, **options)
    np.testing.assert_array_equal(mask, (cls == 1)[..., None].repeat(4, axis=2))
    np.testing.assert_array_equal(box[cls != 1], 0)
    return cls.tolist()


def check(run, args, options):
    for out, want in zip(
        run(rpn_target, *args, **options), rpn_target(*args, **options, backend="numpy")
    ):
        np.testing.assert_array_equal(out, want)


class TestByHand:
    def test_iou_decides_the_side(self, run):
        assert classes(run, ANCHORS, padded([TRUTH], 2)) == [[1, 1, -1, 0, 0]]

    def test_equal_iou_is_positive_and_not_negative(self, run):
        labels = padded([TRUTH], 1)
        assert classes(run, ANCHORS[:3], labels, pos_iou_thresh=0.8) == [[1, 1, -1]]
        assert classes(run, ANCHORS[:3], labels, neg_iou_thresh=0.4) == [[1, 1, -1]]
        assert classes(run, ANCHORS[:3], labels, neg_iou_thresh=0.41) == [[1, 1, 0]]

    def test_best_anchors_of_a_truth_are_positive_at_any_iou(self, run):
        # Both anchors have the IoU 25 / 175 with the box; the third one 4 / 196.
        anchors = [[5, 5, 15, 15], [-5, -5, 5, 5], [8, 8, 18, 18]]
        assert classes(run, anchors, padded([TRUTH], 1)) == [[1, 1, 0]]

    def test_iou_of_0_makes_no_anchor_positive(self, run):
        assert classes(run, ANCHORS[3:], padded([TRUTH], 1), pos_iou_thresh=0) == [[0, 0]]

    def test_anchors_without_truths_are_negative(self, run):
        assert classes(run, ANCHORS, padded([[]], 2)) == [[0] * 5]
        assert classes(run, ANCHORS, np.zeros((1, 0, 5), np.float32)) == [[0] * 5]
        assert classes(run, ANCHORS[:1], padded([[]], 2), neg_iou_thresh=0) == [[-1]]

    def test_row_of_class_minus_1_ends_the_truths(self, run):
        labels = padded([TRUTH, TRUTH], 3)
        labels[1, 1] = labels[1, 0]
        labels[1, 0, 0] = -1
        assert classes(run, ANCHORS[:2], labels) == [[1, 1], [0, 0]]

    def test_least_noise_of_each_side_is_sampled(self, run):
        anchors = np.concatenate([ANCHORS[[0, 0, 0]], ANCHORS[[3, 3, 3, 3]]])
        noise = [[0.5, 0.1, 0.3, 4, 2, 1, 3]]
        got = classes(run, anchors, padded([TRUTH], 1), noise, num_sample=4)
        assert got == [[-1, 1, 1, -1, 0, 0, -1]]
        got = classes(run, anchors, padded([TRUTH], 1), noise, num_sample=4, pos_ratio=0.25)
        assert got == [[-1, 1, -1, -1, 0, 0, 0]]

    def test_negatives_fill_up_and_positives_do_not(self, run):
        anchors = np.concatenate([ANCHORS[[0]], ANCHORS[[3, 3, 3, 3]]])
        assert classes(run, anchors, padded([TRUTH], 1), num_sample=4) == [[1, 0, 0, 0, -1]]
        anchors = np.concatenate([ANCHORS[[0, 0, 0, 0]], ANCHORS[[3]]])
        assert classes(run, anchors, padded([TRUTH], 1), num_sample=4) == [[1, 1, -1, -1, 0]]

    @pytest.mark.parametrize(
        ("pos_ratio", "positives"), [(0, 0), (0.1, 0), (0.3, 2), (0.5, 2), (0.7, 4), (1, 5)]
    )
    def test_positives_are_rounded_to_even(self, run, pos_ratio, positives):
        # 5 * 0.1 = 0.5 and 5 * 0.5 = 2.5 are halves; 5 * 0.3 = 1.5 and 5 * 0.7 = 3.5 too.
        anchors = np.concatenate([ANCHORS[[0] * 9], ANCHORS[[3] * 9]])
        [got] = classes(run, anchors, padded([TRUTH], 1), num_sample=5, pos_ratio=pos_ratio)
        assert (got.count(1), got.count(0)) == (positives, 5 - positives)

    def test_equal_noise_goes_to_the_lower_index(self, run):
        noise = [[0.0, -0.0, 0.0, -1.0]]
        got = classes(run, ANCHORS[[3] * 4], padded([[]], 1), noise, num_sample=3)
        assert got == [[0, 0, -1, 0]]

    def test_nan_noise_comes_after_infinity(self, run):
        noise = [[np.nan, -np.inf, np.inf, -np.nan, np.inf]]
        for num, want in ((1, [1]), (2, [1, 2]), (3, [1, 2, 4]), (4, [0, 1, 2, 4])):
            [got] = classes(run, ANCHORS[[3] * 5], padded([[]], 1), noise, num_sample=num)
            assert np.flatnonzero(np.array(got) == 0).tolist() == want

    def test_positive_is_encoded_with_its_best_truth(self, run):
        # The box has the center (5, 10) and the size (5, 20), the anchor (5, 5) and (10, 10).
        anchors, noise = ANCHORS[:1], np.zeros((1, 1), np.float32)
        labels = padded([[[0, 2.5, 0, 7.5, 20]]], 2)
        _, box, _ = run(rpn_target, anchors, labels, noise)
        np.testing.assert_array_equal(box, [[[0, 0.5, -LN2, LN2]]])
        scale = dict(means=(1, 0.25, 0, 0), stds=(2, 0.5, 1, 1))
        _, box, _ = run(rpn_target, anchors[None], labels, noise, **scale)
        np.testing.assert_array_equal(box, [[[-0.5, 0.5, -LN2, LN2]]])

    def test_best_anchor_of_a_truth_is_encoded_with_its_own_best_truth(self, run):
        # The anchor has the IoU 0.5 with the first box and the IoU 1/16 with the second one, of
        # which it is the best anchor.
        labels = padded([[[0, 0, 0, 10, 5], [0, 0, 0, 2.5, 2.5]]], 2)
        cls, box, _ = run(rpn_target, ANCHORS[:1], labels, np.zeros((1, 1), np.float32))
        assert cls.tolist() == [[1]]
        np.testing.assert_array_equal(box, [[[0, -0.25, 0, -LN2]]])

    def test_equal_truths_give_the_lower_index(self, run):
        # The anchor has the IoU 0.5 with both halves of it: the first one is above its center.
        for rows, y in (([0, 1], -0.25), ([1, 0], 0.25)):
            halves = f32([[0, 0, 0, 10, 5], [0, 0, 5, 10, 10]])[rows]
            noise = np.zeros((1, 1), np.float32)
            _, box, _ = run(rpn_target, ANCHORS[:1], padded([halves], 2), noise)
            assert box[0, 0, 1] == y


def random_case(rng, images, anchors, truths, special=0.0):
    return (
        grid_boxes(rng, anchors, special=special),
        random_labels(rng, images, truths, special),
        random_noise(rng, images, anchors),
    )


OPTIONS = [
    {},
    {"num_sample": 7, "pos_ratio": 0.4, "means": (0.1, 0, -0.2, 0), "stds": (0.1, 0.1, 0.2, 0.2)},
    {"num_sample": 300, "pos_iou_thresh": 0.25, "neg_iou_thresh": 0.1, "pos_ratio": 1},
    {"num_sample": 40, "pos_iou_thresh": 0, "neg_iou_thresh": 1, "pos_ratio": 0},
]


@pytest.mark.parametrize("options", OPTIONS, ids=["defaults", "few", "many", "no positives"])
@pytest.mark.parametrize(
    ("images", "anchors", "truths"), [(1, 1, 1), (3, 40, 5), (2, 1300, 150), (5, 200, 0)]
)
def test_backend_gives_the_bits_of_the_reference(run_any_steps, images, anchors, truths, options):
    for special in (0.0, 0.1):
        rng = np.random.default_rng((images, anchors))
        check(run_any_steps, random_case(rng, images, anchors, truths, special), options)


@pytest.mark.parametrize("anchors", [1, 63, 64, 65, 20_000])
def test_threads_and_vectors_do_not_change_a_bit(cpu_variants, anchors):
    args = random_case(np.random.default_rng(anchors), 2, anchors, 30, 0.02)
    options = dict(num_sample=64, pos_iou_thresh=0.6)
    want = rpn_target(*args, **options, backend="numpy")
    for out in cpu_variants(partial(rpn_target, *args, **options, backend="native")):
        for got, expected in zip(out, want):
            np.testing.assert_array_equal(got, expected)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), special=st.sampled_from([0.0, 0.05, 0.3]))
def test_random_case_equals_the_reference(seed, special):
    rng = np.random.default_rng(seed)
    images, anchors, truths = rng.integers([1, 1, 0], [4, 300, 12])
    options = dict(
        num_sample=int(rng.integers(1, 2 * anchors)),
        pos_iou_thresh=rng.choice([0, 0.5, 0.7, 1]),
        neg_iou_thresh=rng.choice([0, 0.3, 0.5]),
        pos_ratio=rng.random(),
    )
    check(runner("cpu", "native"), random_case(rng, images, anchors, truths, special), options)


def test_targets_are_those_of_box_iou_and_box_encode(run):
    """An independent path: the other ops, and a loop over the samples."""
    rng = np.random.default_rng(3)
    anchors, truths = grid_boxes(rng, 200), grid_boxes(rng, 6)
    anchors, truths = (x[(x[:, 2:] > x[:, :2]).all(axis=1)] for x in (anchors, truths))
    label = np.concatenate([np.ones((len(truths), 1)), truths], axis=1).astype(np.float32)
    noise = f32(rng.permutation(len(anchors)))[None]
    means, stds = f32([0.5, 0, 0, 1]), f32([0.1, 0.1, 0.2, 0.2])
    cls, box, mask = run(
        *(rpn_target, anchors, label[None], noise),
        num_sample=20,
        means=tuple(means.tolist()),
        stds=tuple(stds.tolist()),
    )
    iou = box_iou(anchors, truths)
    positive = {
        a
        for a, row in enumerate(iou)
        if row.max() >= 0.7 or any(x == y and x > 0 for x, y in zip(row, iou.max(axis=0)))
    }
    negative = {a for a, row in enumerate(iou) if row.max() < 0.3} - positive
    kept = sorted(positive, key=lambda a: noise[0, a])[:10]
    others = sorted(negative, key=lambda a: noise[0, a])[: 20 - len(kept)]
    assert len(positive) > 0 < len(negative) != len(others)
    assert set(np.flatnonzero(cls[0] == 1)) == set(kept)
    assert set(np.flatnonzero(cls[0] == 0)) == set(others)
    samples, matches = f32(cls == 1), f32(iou.argmax(axis=1))[None]
    want = box_encode(samples, matches, anchors[None], truths[None], means, stds)
    np.testing.assert_array_equal(box, want[0])
    np.testing.assert_array_equal(mask, want[1])


def test_kernels_cover_all_images_on_any_grid(monkeypatch):
    def with_fewer_images(launch):
        if not launch.kernel.endswith(("match", "label")):
            return launch
        return launch._replace(grid=(launch.grid[0], 2))

    monkeypatch.setattr(backends, "on_launch", with_fewer_images)
    args = random_case(np.random.default_rng(1), 5, 90, 6)
    check(runner("cpu", "emulated"), args, {"num_sample": 20})


def test_sanitized(run_sanitized_small):
    args = random_case(np.random.default_rng(2), 1, 530, 7, 0.1)
    check(run_sanitized_small, args, {"num_sample": 50})


@pytest.mark.parametrize(("images", "anchors"), [(0, 3), (2, 0), (0, 0)])
def test_empty_inputs_give_empty_results(run, images, anchors):
    labels, noise = np.zeros((images, 2, 5), np.float32), np.zeros((images, anchors), np.float32)
    cls, box, mask = run(rpn_target, np.zeros((anchors, 4), np.float32), labels, noise)
    assert cls.shape == (images, anchors)
    assert box.shape == mask.shape == (images, anchors, 4)


INPUTS = dict(
    anchors=np.zeros((3, 4), np.float32),
    labels=np.zeros((2, 6, 5), np.float32),
    noise=np.zeros((2, 3), np.float32),
)


@pytest.mark.parametrize(
    ("name", "value", "error", "message"),
    [
        ("anchors", np.zeros((2, 3, 4), "f"), ValueError, r"expected .*, got \(2, 3, 4\)"),
        ("anchors", np.zeros((3, 5), "f"), ValueError, r"expected .*, got \(3, 5\)"),
        ("anchors", INPUTS["anchors"].astype("f8"), TypeError, "expected float32, got float64"),
        (
            "anchors",
            np.broadcast_to(np.float32(0), (2**30, 4)),
            ValueError,
            r"expected fewer than 2\^30 anchors, got 1073741824",
        ),
        ("labels", np.zeros((2, 6, 4), "f"), ValueError, r"expected rows of 5 .* got .*\(2, 6, 4"),
        ("noise", np.zeros((2, 4), "f"), ValueError, r".* with A = 3 as in anchors, got \(2, 4\)"),
        ("noise", np.zeros((1, 3), "f"), ValueError, r".* with B = 2 as in labels, got \(1, 3\)"),
        ("num_sample", 0, ValueError, "expected an integer in .*, got 0"),
        ("num_sample", 1.5, TypeError, "expected an integer, got 1.5"),
        ("pos_iou_thresh", 1.1, ValueError, r"expected a number in \[0, 1\], got 1.1"),
        ("neg_iou_thresh", float("nan"), ValueError, r"expected a number in \[0, 1\], got nan"),
        ("pos_ratio", -0.1, ValueError, r"expected a number in \[0, 1\], got -0.1"),
        ("means", (0, 0), ValueError, r"expected 4 numbers, got \(0, 0\)"),
        ("stds", "text", ValueError, "expected 4 numbers, got 'text'"),
    ],
)
def test_bad_argument_is_refused_by_name(name, value, error, message):
    arguments = {**INPUTS, name: value}
    if name == "anchors" and len(value) > 3:
        arguments["noise"] = np.broadcast_to(np.float32(0), (2, len(value)))
    with pytest.raises(error, match=f"^{name}: {message}"):
        rpn_target(**arguments)

from functools import partial

import numpy as np
import pytest
from backend_runner import runner
from emulator import backends
from hypothesis import given, settings
from hypothesis import strategies as st
from sampling_cases import f32, grid_boxes, padded, random_labels, random_noise

from cvops import box_encode, rcnn_target

LN2 = np.float32(0.693147180559945309417)
#: A ground truth of class 3, and boxes with the IoUs 0.8, 0.5, 0.4 and 0 with it.
TRUTH = [3, 0, 0, 10, 10]
BOXES = f32([[0, 0, 10, 8], [0, 0, 10, 5], [0, 0, 10, 4], [20, 0, 30, 10]])
PADDING = f32([[-1, -1, -1, -1]])


def targets(run, proposals, labels, noise=None, **options):
    """The results, and the index of the box of each roi; the boxes must differ."""
    proposals = f32(proposals).reshape(len(labels), len(proposals) // len(labels), 4)
    shape = len(labels), proposals.shape[1] + labels.shape[1]
    noise = np.zeros(shape, np.float32) if noise is None else f32(noise)
    results = run(rcnn_target, proposals, labels, noise, **options)
    rois, cls, matches, offsets, mask = results
    np.testing.assert_array_equal(mask, (cls > 0)[..., None].repeat(4, axis=2))
    np.testing.assert_array_equal(matches >= 0, cls > 0)
    np.testing.assert_array_equal(offsets[cls == 0], 0)
    boxes = np.concatenate([proposals, labels[..., 1:5]], axis=1)
    which = [
        [next((i for i, box in enumerate(own) if (box == roi).all()), -1) for roi in some]
        for own, some in zip(boxes, rois)
    ]
    return *results, which


def check(run, args, options):
    for out, want in zip(
        run(rcnn_target, *args, **options), rcnn_target(*args, **options, backend="numpy")
    ):
        np.testing.assert_array_equal(out, want)


class TestByHand:
    LABELS = padded([[TRUTH]], 2)

    def test_iou_decides_the_side(self, run):
        *_, cls, matches, _, _, which = targets(
            run, BOXES, self.LABELS, num_sample=5, pos_ratio=0.6
        )
        # The ground truth is candidate 4. The padding row is no candidate.
        assert which == [[0, 1, 4, 2, 3]]
        assert cls.tolist() == [[4, 4, 4, 0, 0]]
        assert matches.tolist() == [[0, 0, 0, -1, -1]]

    def test_iou_of_0_makes_no_positive(self, run):
        _, cls, *_, which = targets(run, BOXES, self.LABELS, num_sample=4, pos_iou_thresh=0)
        assert (cls.tolist(), which) == ([[4, 0, 0, 0]], [[0, 3, 3, 3]])

    def test_least_noise_of_each_side_is_sampled_in_its_order(self, run):
        noise = [[0.5, 0.1, 7, 4, 0.2, 0]]
        _, cls, *_, which = targets(run, BOXES, self.LABELS, noise, num_sample=3, pos_ratio=0.7)
        assert (cls.tolist(), which) == ([[4, 4, 0]], [[1, 4, 3]])

    def test_equal_noise_goes_to_the_lower_index_and_nan_is_last(self, run):
        boxes = f32([[i, 20, i + 9, 30] for i in range(5)])
        noise = [[np.nan, np.inf, 0.0, -0.0, -np.inf, np.nan]]
        *_, which = targets(run, boxes, padded([[]], 1), noise, num_sample=5)
        assert which == [[4, 2, 3, 1, 0]]

    def test_few_negatives_are_repeated_in_order(self, run):
        noise = [[0, 1, 3, 2, 2, 0]]
        *_, which = targets(run, BOXES, self.LABELS, noise, num_sample=8, pos_ratio=0.25)
        assert which == [[0, 1, 3, 2, 3, 2, 3, 2]]

    def test_few_positives_are_not_repeated(self, run):
        *_, which = targets(run, BOXES[1:], self.LABELS, num_sample=4, pos_ratio=1)
        assert which == [[0, 3, 1, 2]]

    def test_image_without_positives_has_negatives_only(self, run):
        _, cls, matches, *_, which = targets(run, BOXES, padded([[]], 2), num_sample=6)
        assert which == [[0, 1, 2, 3, 0, 1]]
        assert (cls.tolist(), matches.tolist()) == ([[0] * 6], [[-1] * 6])

    @pytest.mark.parametrize("pos_ratio", [0, 0.25])
    def test_positives_fill_all_rows_without_negatives(self, run, pos_ratio):
        noise = [[2, 1, 3, 0]]
        _, cls, *_, which = targets(
            run, BOXES[:2], self.LABELS, noise, num_sample=5, pos_ratio=pos_ratio
        )
        assert (cls.tolist(), which) == ([[4] * 5], [[1, 0, 2, 1, 0]])

    def test_padded_and_degenerate_proposals_are_not_sampled(self, run):
        flat, inverted, unknown = [5, 5, 5, 9], [9, 9, 3, 3], [0, 0, np.nan, 4]
        boxes = np.concatenate([PADDING, f32([flat, inverted, unknown]), BOXES[3:]])
        *_, which = targets(run, boxes, padded([[]], 1), num_sample=3)
        assert which == [[4, 4, 4]]

    def test_degenerate_truth_is_no_candidate(self, run):
        labels = padded([[[1, 5, 5, 5, 9]]], 1)
        _, cls, *_, which = targets(run, BOXES[:1], labels, num_sample=2)
        assert (cls.tolist(), which) == ([[0, 0]], [[0, 0]])

    def test_image_without_candidates_has_its_proposals_as_negatives(self, run):
        boxes = np.concatenate([PADDING, f32([[5, 5, 5, 9]])])
        noise = [[1, 0, 0]]
        rois, cls, *_ = targets(run, boxes, padded([[]], 1), noise, num_sample=3)
        np.testing.assert_array_equal(rois, [boxes[[0, 1, 0]]])
        assert cls.tolist() == [[0, 0, 0]]

    @pytest.mark.parametrize("rows", [0, 2])
    def test_image_without_boxes_has_rois_of_0(self, run, rows):
        rois, cls, matches, *_ = targets(run, BOXES[:0], padded([[]], rows), num_sample=3)
        np.testing.assert_array_equal(rois, np.zeros((1, 3, 4)))
        assert (cls.tolist(), matches.tolist()) == ([[0] * 3], [[-1] * 3])

    def test_images_without_proposals_have_their_truths(self, run):
        rois, cls, *_ = targets(run, BOXES[:0], self.LABELS, num_sample=2)
        np.testing.assert_array_equal(rois, f32([[TRUTH[1:]] * 2]))
        assert cls.tolist() == [[4, 4]]

    def test_row_of_class_minus_1_ends_the_truths(self, run):
        labels = padded([[TRUTH, TRUTH]], 2)
        labels[0, 0, 0] = -1
        _, cls, *_ = targets(run, BOXES[:1], labels, num_sample=2)
        assert cls.tolist() == [[0, 0]]

    def test_match_is_the_best_truth_and_the_lowest_of_equal_ones(self, run):
        halves = [[7, 0, 0, 10, 5], [8, 0, 5, 10, 10], [9, 0, 0, 10, 8]]
        labels = padded([halves], 4)
        whole = [[0, 0, 10, 10]]
        _, cls, matches, *_ = targets(run, whole, labels, num_sample=1, pos_ratio=1)
        assert (matches.tolist(), cls.tolist()) == ([[2]], [[10]])
        _, cls, matches, *_ = targets(run, whole, labels[:, :2], num_sample=1, pos_ratio=1)
        assert (matches.tolist(), cls.tolist()) == ([[0]], [[8]])

    def test_positive_is_encoded_with_its_match(self, run):
        # The box has the center (5, 2.5) and the height 5, the truth (5, 5) and 10.
        options = dict(num_sample=1, pos_ratio=1)
        offsets = targets(run, BOXES[1:2], self.LABELS, **options)[3]
        np.testing.assert_allclose(offsets, [[[0, 5, 0, 5 * LN2]]], rtol=1e-6)
        scale = dict(means=(1, 0.25, 0, 0), stds=(2, 0.5, 1, 1))
        offsets = targets(run, BOXES[1:2], self.LABELS, **options, **scale)[3]
        np.testing.assert_array_equal(offsets, [[[-0.5, 0.5, 0, LN2]]])


def random_case(rng, images, proposals, rows, special=0.0):
    boxes = grid_boxes(rng, images, proposals, special=special)
    boxes[rng.random(boxes.shape[:2]) < 0.1] = -1
    labels = random_labels(rng, images, rows, special, width=6)
    return boxes, labels, random_noise(rng, images, proposals + rows)


OPTIONS = [
    {},
    {"num_sample": 7, "pos_ratio": 0.4, "means": (0.1, 0, -0.2, 0), "stds": (1, 1, 0.5, 2)},
    {"num_sample": 300, "pos_iou_thresh": 0.2, "pos_ratio": 1},
    {"num_sample": 33, "pos_iou_thresh": 0, "pos_ratio": 0},
]


@pytest.mark.parametrize("options", OPTIONS, ids=["defaults", "few", "many", "no positives"])
@pytest.mark.parametrize(
    ("images", "proposals", "rows"), [(1, 1, 1), (3, 40, 5), (2, 900, 150), (5, 200, 0), (4, 0, 3)]
)
def test_backend_gives_the_bits_of_the_reference(run_any_steps, images, proposals, rows, options):
    for special in (0.0, 0.1):
        rng = np.random.default_rng((images, proposals))
        check(run_any_steps, random_case(rng, images, proposals, rows, special), options)


@pytest.mark.parametrize("proposals", [1, 63, 64, 65, 2000])
def test_threads_and_vectors_do_not_change_a_bit(cpu_variants, proposals):
    args = random_case(np.random.default_rng(proposals), 5, proposals, 30, 0.02)
    want = rcnn_target(*args, backend="numpy")
    for out in cpu_variants(partial(rcnn_target, *args, backend="native")):
        for got, expected in zip(out, want):
            np.testing.assert_array_equal(got, expected)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), special=st.sampled_from([0.0, 0.05, 0.6]))
def test_random_case_equals_the_reference(seed, special):
    rng = np.random.default_rng(seed)
    images, proposals, rows = rng.integers([1, 0, 0], [4, 80, 9])
    options = dict(
        num_sample=int(rng.integers(1, 100)),
        pos_iou_thresh=rng.choice([0, 0.3, 0.5, 1]),
        pos_ratio=rng.random(),
    )
    check(runner("cpu", "native"), random_case(rng, images, proposals, rows, special), options)


def test_offsets_are_those_of_box_encode(run):
    rng = np.random.default_rng(4)
    args = random_case(rng, 3, 100, 6)
    means, stds = f32([0.5, 0, 0, 1]), f32([0.1, 0.1, 0.2, 0.2])
    options = dict(means=tuple(means.tolist()), stds=tuple(stds.tolist()), num_sample=30)
    rois, cls, matches, offsets, mask = run(rcnn_target, *args, **options)
    assert (cls > 0).any()
    truths = np.ascontiguousarray(args[1][..., 1:5])
    want = box_encode(f32(cls > 0), np.maximum(matches, 0), rois, truths, means, stds)
    np.testing.assert_array_equal(offsets, want[0])
    np.testing.assert_array_equal(mask, want[1])


def test_kernels_cover_all_images_on_any_grid(monkeypatch):
    def with_fewer_images(launch):
        if not launch.kernel.startswith("rcnn"):
            return launch
        return launch._replace(grid=(launch.grid[0], 2))

    monkeypatch.setattr(backends, "on_launch", with_fewer_images)
    args = random_case(np.random.default_rng(1), 5, 90, 6)
    check(runner("cpu", "emulated"), args, {"num_sample": 20})


def test_sanitized(run_sanitized_small):
    args = random_case(np.random.default_rng(2), 2, 150, 40, 0.1)
    check(run_sanitized_small, args, {"num_sample": 40})


def test_no_images_give_empty_results(run):
    args = np.zeros((0, 5, 4), "f"), np.zeros((0, 2, 5), "f"), np.zeros((0, 7), "f")
    results = run(rcnn_target, *args, num_sample=3)
    shapes = [(0, 3, 4), (0, 3), (0, 3), (0, 3, 4), (0, 3, 4)]
    assert [x.shape for x in results] == shapes


INPUTS = dict(
    proposals=np.zeros((2, 3, 4), np.float32),
    labels=np.zeros((2, 6, 5), np.float32),
    noise=np.zeros((2, 9), np.float32),
)


@pytest.mark.parametrize(
    ("name", "value", "error", "message"),
    [
        ("proposals", np.zeros((3, 4), "f"), ValueError, r"expected .*, got \(3, 4\)"),
        ("proposals", INPUTS["proposals"].astype("f8"), TypeError, "expected float32, got float64"),
        ("labels", np.zeros((2, 6, 4), "f"), ValueError, r"expected rows of 5 .* got .*\(2, 6, 4"),
        ("labels", np.zeros((1, 6, 5), "f"), ValueError, r".* with B = 2 .*, got \(1, 6, 5\)"),
        ("noise", np.zeros((2, 3), "f"), ValueError, r".* with N \+ M = 9, got \(2, 3\)"),
        ("num_sample", 0, ValueError, "expected an integer in .*, got 0"),
        ("pos_iou_thresh", 1.1, ValueError, r"expected a number in \[0, 1\], got 1.1"),
        ("pos_ratio", -0.1, ValueError, r"expected a number in \[0, 1\], got -0.1"),
        ("means", (0, 0), ValueError, r"expected 4 numbers, got \(0, 0\)"),
        ("stds", None, ValueError, "expected 4 numbers, got None"),
    ],
)
def test_bad_argument_is_refused_by_name(name, value, error, message):
    with pytest.raises(error, match=f"^{name}: {message}"):
        rcnn_target(**{**INPUTS, name: value})


def test_too_many_boxes_are_refused():
    num = 65535 * 2048
    shapes = (1, num, 4), (1, 1, 5), (1, num + 1)
    args = [np.broadcast_to(np.float32(0), shape) for shape in shapes]
    with pytest.raises(ValueError, match=rf"^noise: expected at most {num} boxes, got shape"):
        rcnn_target(*args)

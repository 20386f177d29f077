from functools import partial

import numpy as np
import pytest
from backend_runner import runner
from emulator import backends
from hypothesis import given, settings
from hypothesis import strategies as st
from sampling_cases import f32, grid_boxes

from cvops import box_iou, match_anchors

#: Boxes of width 10 and height 10 at different places.
ANCHORS = f32([[0, 0, 10, 10], [0, 0, 10, 8], [0, 0, 10, 4], [20, 0, 30, 10], [40, 0, 50, 10]])
#: The IoUs of the anchors with this box: 1, 0.8, 0.4, 0, 0.
BOX = f32([[0, 0, 10, 10]])
NOTHING = f32([[100, 100, 110, 110]])
BOTH = dict(allow_low_quality_matches=True, match_best_anchors=True)


def matches(run, anchors, boxes, *thresholds, **options):
    found = run(match_anchors, f32(anchors), f32(boxes), *thresholds, **options)
    assert found.dtype == np.int32
    return found.tolist()


def check(run, args, options):
    want = match_anchors(*args, **options, backend="numpy")
    np.testing.assert_array_equal(run(match_anchors, *args, **options), want)


class TestByHand:
    def test_iou_decides_the_match(self, run):
        assert matches(run, ANCHORS, BOX, 0.7, 0.3) == [0, 0, -2, -1, -1]
        assert matches(run, ANCHORS, BOX) == [0, 0, -1, -1, -1]

    def test_equal_iou_is_not_below_a_threshold(self, run):
        assert matches(run, ANCHORS[:3], BOX, 0.8, 0.4) == [0, 0, -2]
        assert matches(run, ANCHORS[:3], BOX, 0.81, 0.41) == [0, -2, -1]
        assert matches(run, ANCHORS[2:], BOX, 0, 0) == [0, 0, 0]

    def test_anchor_matches_the_box_of_its_highest_iou(self, run):
        # The first anchor has the IoUs 0.4 and 1, the second one 0.5 and 0.8.
        boxes = [[0, 0, 10, 4], [0, 0, 10, 10]]
        assert matches(run, ANCHORS[:3], boxes, 0.3) == [1, 1, 0]

    def test_equal_boxes_give_the_lower_index(self, run):
        assert matches(run, ANCHORS[:2], [BOX[0]] * 3, 0.3) == [0, 0]

    def test_all_best_anchors_of_a_box_are_matched_at_any_iou(self, run):
        # Both anchors have the IoU 25 / 175 with the box; the third one 4 / 196.
        anchors = [[5, 5, 15, 15], [-5, -5, 5, 5], [8, 8, 18, 18]]
        assert matches(run, anchors, BOX, 0.7, 0.3) == [-1, -1, -1]
        options = dict(allow_low_quality_matches=True)
        assert matches(run, anchors, BOX, 0.7, 0.3, **options) == [0, 0, -1]
        # 25 / 175 is between the thresholds.
        assert matches(run, anchors, BOX, 0.7, 0.1, **options) == [0, 0, -1]

    def test_low_quality_match_is_the_own_best_box(self, run):
        # The anchor has the IoU 0.4 with the first box, and 0.16 with the second one.
        boxes = [[0, 0, 10, 4], [0, 0, 4, 4]]
        options = dict(allow_low_quality_matches=True)
        assert matches(run, ANCHORS[:1], boxes, 0.7, 0.3, **options) == [0]

    def test_best_anchor_matches_the_box(self, run):
        # As above, but the anchor has a higher IoU with the other box.
        boxes = [[0, 0, 4, 4], [0, 0, 10, 4]]
        options = dict(match_best_anchors=True)
        assert matches(run, ANCHORS[:1], boxes[:1], 0.7, 0.3, **options) == [0]
        assert matches(run, ANCHORS[:1], boxes[::-1], 0.3, **options) == [1]

    def test_first_of_equal_best_anchors_matches_the_box(self, run):
        anchors = [[5, 5, 15, 15], [-5, -5, 5, 5], [5, 5, 15, 15]]
        assert matches(run, anchors, BOX, match_best_anchors=True) == [0, -1, -1]
        assert matches(run, anchors, BOX, **BOTH) == [0, 0, 0]

    def test_last_of_several_boxes_gets_their_best_anchor(self, run):
        boxes = [BOX[0], NOTHING[0], [0, 0, 10, 9], BOX[0], [0, 0, 10, 9], NOTHING[0]]
        assert matches(run, ANCHORS[:1], boxes, match_best_anchors=True) == [4]

    @pytest.mark.parametrize("padding", [-1, 0, np.nan, 100])
    def test_box_without_overlap_changes_nothing(self, run, padding):
        boxes = np.concatenate([np.full((2, 4), padding), BOX[:0], ANCHORS[2:3]])
        want = matches(run, ANCHORS, ANCHORS[2:3], 0.7, 0.3, **BOTH)
        got = matches(run, ANCHORS, boxes, 0.7, 0.3, **BOTH)
        assert [i - 2 if i >= 0 else i for i in got] == want == [-2, -2, 0, -1, -1]

    def test_no_boxes_match_no_anchor(self, run):
        assert matches(run, ANCHORS, np.zeros((0, 4)), 0, **BOTH) == [-1] * 5

    def test_anchors_of_all_images_and_of_each(self, run):
        boxes = np.stack([BOX, ANCHORS[3:4]])
        want = [[0, 0, -1, -1, -1], [-1, -1, -1, 0, -1]]
        assert matches(run, ANCHORS, boxes) == want
        assert matches(run, ANCHORS[None], boxes) == want
        assert matches(run, np.stack([ANCHORS, ANCHORS[::-1]]), boxes) == [want[0], want[1][::-1]]
        assert matches(run, ANCHORS, boxes[:, None]) == [[row] for row in want]
        assert matches(run, ANCHORS[None], BOX) == want[0]


def random_case(rng, images, anchors, boxes, special=0.0, own=False):
    shape = (images, anchors) if own else (anchors,)
    return grid_boxes(rng, *shape, special=special), grid_boxes(rng, images, boxes, special=special)


OPTIONS = [
    {},
    {"high_threshold": 0.7, "low_threshold": 0.3, "allow_low_quality_matches": True},
    {"high_threshold": 0.5, "match_best_anchors": True},
    {"high_threshold": 0.9, "low_threshold": 0, **BOTH},
]
IDS = ["defaults", "low quality", "best anchors", "both"]


@pytest.mark.parametrize("options", OPTIONS, ids=IDS)
@pytest.mark.parametrize(
    ("images", "anchors", "boxes"), [(1, 1, 1), (3, 40, 5), (2, 1300, 150), (5, 200, 0)]
)
def test_backend_gives_the_bits_of_the_reference(run_any_steps, images, anchors, boxes, options):
    for special in (0.0, 0.1):
        rng = np.random.default_rng((images, anchors))
        for own in (False, True):
            check(run_any_steps, random_case(rng, images, anchors, boxes, special, own), options)


@pytest.mark.parametrize("anchors", [1, 63, 64, 65, 20_000])
def test_threads_and_vectors_do_not_change_a_bit(cpu_variants, anchors):
    args = random_case(np.random.default_rng(anchors), 2, anchors, 30, 0.02)
    want = match_anchors(*args, 0.7, 0.3, **BOTH, backend="numpy")
    for found in cpu_variants(partial(match_anchors, *args, 0.7, 0.3, **BOTH, backend="native")):
        np.testing.assert_array_equal(found, want)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), special=st.sampled_from([0.0, 0.05, 0.3]))
def test_random_case_equals_the_reference(seed, special):
    rng = np.random.default_rng(seed)
    images, anchors, boxes = rng.integers([1, 1, 0], [4, 300, 12])
    high = rng.choice([0, 0.3, 0.7, 1])
    options = dict(
        high_threshold=high,
        low_threshold=high * rng.choice([0, 0.5, 1]),
        allow_low_quality_matches=bool(rng.integers(2)),
        match_best_anchors=bool(rng.integers(2)),
    )
    args = random_case(rng, images, anchors, boxes, special, bool(rng.integers(2)))
    check(runner("cpu", "native"), args, options)


def overlapping_case(rng, anchors, boxes):
    """Anchors and boxes of positive sizes; each box overlaps an anchor."""
    anchors, boxes = (
        np.concatenate([low, low + rng.integers(1, 8, low.shape)], axis=1) / f32(8)
        for low in (rng.integers(0, 16, (num, 2)) for num in (anchors, boxes))
    )
    return f32(np.concatenate([anchors, [[0, 0, 4, 4]]])), f32(boxes)


def plain_matcher(iou, high, low, low_quality, best_anchors):
    """torchvision's ``Matcher`` and ``SSDMatcher`` by loops, from the IoUs (boxes, anchors)."""
    found = []
    for column in iou.T:
        own, best = column.argmax(), column.max()
        is_best = low_quality and any(x == row.max() for x, row in zip(column, iou))
        found.append(own if is_best or best >= high else -1 if best < low else -2)
    if best_anchors:
        for box, row in enumerate(iou):
            found[row.argmax()] = box
    return np.int32(found)


@pytest.mark.parametrize("options", OPTIONS, ids=IDS)
def test_matches_follow_from_the_matrix_of_box_iou(run, options):
    anchors, boxes = overlapping_case(np.random.default_rng(4), 150, 9)
    high = options.get("high_threshold", 0.5)
    want = plain_matcher(
        box_iou(boxes, anchors),
        np.float32(high),
        np.float32(options.get("low_threshold", high)),
        options.get("allow_low_quality_matches", False),
        options.get("match_best_anchors", False),
    )
    np.testing.assert_array_equal(run(match_anchors, anchors, boxes, **options), want)


def test_kernels_cover_all_images_on_any_grid(monkeypatch):
    def with_fewer_images(launch):
        if launch.kernel.endswith("assign"):
            return launch
        return launch._replace(grid=(launch.grid[0], 2))

    monkeypatch.setattr(backends, "on_launch", with_fewer_images)
    args = random_case(np.random.default_rng(1), 5, 90, 6, own=True)
    check(runner("cpu", "emulated"), args, BOTH)


def test_sanitized(run_sanitized_small):
    args = random_case(np.random.default_rng(2), 2, 1030, 41, 0.1)
    check(run_sanitized_small, args, BOTH)


INPUTS = dict(anchors=np.zeros((3, 4), np.float32), boxes=np.zeros((2, 6, 4), np.float32))


@pytest.mark.parametrize(
    ("name", "value", "error", "message"),
    [
        ("anchors", np.zeros((3, 3, 4), "f"), ValueError, r"expected shape \(A, 4\), \(1, A, 4\) "
         r"or \(2, A, 4\), got \(3, 3, 4\)"),
        ("anchors", np.zeros((3, 5), "f"), ValueError, r"expected .*, got \(3, 5\)"),
        ("anchors", np.zeros(4, "f"), ValueError, r"expected .*, got \(4,\)"),
        ("anchors", INPUTS["anchors"].astype("f8"), TypeError, "expected float32, got float64"),
        ("anchors", [[0, 0, 1, 1]], TypeError, r"expected an array .* numpy.array\(anchors, "),
        ("boxes", np.zeros((2, 6, 5), "f"), ValueError, r"expected .*, got \(2, 6, 5\)"),
        ("boxes", np.broadcast_to(np.float32(0), (1, 2**30, 4)), ValueError,
         r"expected fewer than 2\^30 boxes of an image, got 1073741824"),
        ("boxes", np.broadcast_to(np.float32(0), (2**16, 2**15, 1, 4)), ValueError,
         r"expected sizes below 2\*\*31, got shape \(65536, 32768, 1, 4\)"),
        ("high_threshold", 1.1, ValueError, r"expected a number in \[0, 1\], got 1.1"),
        ("high_threshold", "text", TypeError, "expected a number, got 'text'"),
        ("low_threshold", 0.6, ValueError, r"expected a number in \[0, 0.5\], got 0.6"),
        ("low_threshold", float("nan"), ValueError, r"expected a number in \[0, 0.5\], got nan"),
        ("allow_low_quality_matches", "maybe", ValueError, "expected True or False, got 'maybe'"),
        ("match_best_anchors", 2, ValueError, "expected True or False, got 2"),
        ("backend", "opencl", ValueError, "expected one of .*, got 'opencl'"),
    ],
)  # fmt: skip
def test_bad_argument_is_refused_by_name(name, value, error, message):
    with pytest.raises(error, match=f"^{name}: {message}"):
        match_anchors(**{**INPUTS, name: value})

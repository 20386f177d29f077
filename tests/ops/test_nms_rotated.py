from functools import partial

import numpy as np
import pytest
from backend_runner import runner
from hypothesis import given, settings
from hypothesis import strategies as st

from cvops import box_iou_rotated, box_nms, nms_rotated

NAN, INF = np.nan, np.inf
SPECIAL = [NAN, INF, -INF, 0.0, -0.0, 1e-40, 3e38, -1.0]


def rows(*values):
    return np.array(values, np.float32)


def random_rows(rng, *shape, extent=10.0, ties=False, special=0.0):
    """Rows (class, score, x, y, width, height, angle), of which many overlap."""
    numbers = rng.random((*shape, 7)) * [4, 1, extent, extent, 4, 4, 800] - [1, 0, 0, 0, 0, 0, 400]
    numbers[..., 4:6] += 0.1
    if ties:
        numbers = np.round(numbers * [1, 4, 1, 1, 1, 1, 1 / 45] + 0.1)
        numbers *= [1, 0.25, 1, 1, 1, 1, 45]
    numbers = numbers.astype(np.float32)
    numbers[..., 0] = np.floor(numbers[..., 0])
    numbers[rng.random(numbers.shape) < special] = rng.choice(SPECIAL)
    return numbers


def clusters(rng, num, boxes=20, extent=100.0):
    """Rows that are close to some boxes."""
    data = random_rows(rng, num, extent=extent)
    data[:, 2:] = data[rng.integers(0, boxes, num), 2:]
    data[:, 2:] *= rng.uniform(0.97, 1.03, (num, 5)).astype(np.float32)
    return data


def check(run, data, **options):
    """The backend gives the bits of the reference."""
    expected = nms_rotated(data, **options, return_index=True, backend="numpy")
    found = run(nms_rotated, data, **options, return_index=True)
    for got, want in zip(found, expected):
        np.testing.assert_array_equal(got, want)
        assert got.dtype == want.dtype


class TestByHand:
    # Row 2 is row 0 after a quarter turn with exchanged sides. Row 1 crosses row 0: the IoU is
    # 1 / (4 + 4 - 1). Row 3 has half of row 0: the IoU is 0.5.
    ROWS = rows(
        [0, 0.9, 5, 5, 4, 1, 30],
        [0, 0.8, 5, 5, 4, 1, 120],
        [1, 0.7, 5, 5, 1, 4, -60],
        [0, 0.6, 5, 5, 2, 1, 30],
        [0, 0.5, 50, 5, 2, 1, 30],
    )

    @pytest.mark.parametrize(
        ("options", "kept"),
        [
            ({}, [0, 1, 3, 4]),
            ({"overlap_thresh": 0.49}, [0, 1, 4]),
            ({"overlap_thresh": 0.15}, [0, 1, 4]),
            ({"overlap_thresh": 0.14}, [0, 4]),
            ({"overlap_thresh": 0}, [0, 4]),
            ({"overlap_thresh": -1}, [0]),
            ({"overlap_thresh": 1}, [0, 1, 2, 3, 4]),
            ({"id_index": 0}, [0, 1, 2, 3, 4]),
            ({"id_index": 0, "overlap_thresh": 0.14}, [0, 2, 4]),
            ({"id_index": 0, "overlap_thresh": 0.14, "force_suppress": True}, [0, 4]),
            ({"id_index": 0, "background_id": 0}, [2]),
            ({"topk": 3}, [0, 1]),
            ({"topk": 0}, [0, 1, 2, 3, 4]),
            ({"valid_thresh": 0.65}, [0, 1]),
        ],
    )
    def test_rows_are_suppressed_by_better_ones(self, run, options, kept):
        out, index = run(nms_rotated, self.ROWS, **options, return_index=True)
        np.testing.assert_array_equal(out[: len(kept)], self.ROWS[kept])
        np.testing.assert_array_equal(out[len(kept) :], -1)
        assert index.tolist() == kept + [-1] * (5 - len(kept))

    def test_best_row_comes_first_and_equal_scores_keep_their_order(self, run):
        data = rows(*([x, score, 10 * x, 0, 1, 1, 0] for x, score in enumerate([0.3, 0.5, 0.5, 1])))
        index = run(nms_rotated, data, return_index=True)[1]
        assert index.tolist() == [3, 1, 2, 0]

    def test_angle_and_direction_have_the_given_format(self, run):
        # The small box is on the long one if the angle is counterclockwise, and in degrees.
        data = rows([0.9, 0, 0, 4, 1, 30], [0.8, 1.3, -0.75, 0.5, 0.5, 30])
        options = dict(coord_start=1, score_index=0, overlap_thresh=0.01, return_index=True)
        assert run(nms_rotated, data, **options)[1].tolist() == [0, -1]
        assert run(nms_rotated, data, clockwise=True, **options)[1].tolist() == [0, 1]
        data[:, 5] = np.pi / 6
        assert run(nms_rotated, data, angle="radians", **options)[1].tolist() == [0, -1]

    def test_box_without_area_suppresses_nothing(self, run):
        data = rows(
            *([0, 0.9, 1, 1, 0, 2, 0], [0, 0.8, 1, 1, NAN, 2, 0], [0, 0.7, 1, 1, 2, 2, INF]),
            *([0, 0.6, 1, 1, 2, 2, 0], [0, 0.5, 1, 1, 2, 2, 90], [0, 0.4, INF, 1, 2, 2, 0]),
        )
        index = run(nms_rotated, data, overlap_thresh=0, return_index=True)[1]
        assert index.tolist() == [0, 1, 2, 3, 5, -1]
        # The IoU of 0 is above a negative threshold.
        index = run(nms_rotated, data, overlap_thresh=-0.5, return_index=True)[1]
        assert index.tolist() == [0, -1, -1, -1, -1, -1]


@pytest.mark.parametrize("threshold", [0.5, 0.1, 0, 1e-35, -1])
@pytest.mark.parametrize("options", [{}, {"id_index": 0}], ids=["all", "by class"])
def test_results_equal_the_reference(run_any_steps, threshold, options):
    rng = np.random.default_rng(3)
    for num, ties, special in ((1, False, 0), (90, False, 0), (70, True, 0), (70, True, 0.02)):
        data = random_rows(rng, 2, num, ties=ties, special=special)
        topk = int(rng.choice([-1, num // 2 + 1]))
        check(run_any_steps, data, overlap_thresh=threshold, topk=topk, **options)


@pytest.mark.parametrize("exponent", [-148, -100, -53, 60, 120])
@pytest.mark.parametrize("threshold", [0.3, 0])
def test_size_of_the_unit_does_not_matter(run, exponent, threshold):
    rng = np.random.default_rng(4)
    data = random_rows(rng, 350, ties=True)
    data[:, 4:6] += 1
    want = nms_rotated(data, overlap_thresh=threshold, return_index=True, backend="numpy")[1]
    data[:, 2:6] *= np.float32(2.0**exponent)
    got = run(nms_rotated, data, overlap_thresh=threshold, return_index=True)[1]
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("offset", [0, 1e4, 1e6, 1e9])
@pytest.mark.parametrize("threshold", [0.5, 0.05])
def test_cells_of_the_grid_do_not_change_the_result(offset, threshold):
    """The CPU compares boxes of near cells only; far from 0 the bounds are larger."""
    rng = np.random.default_rng(5)
    for data in (random_rows(rng, 1500, extent=100), clusters(rng, 1500)):
        data[:, 2:4] += np.float32(offset)
        data[::50, 4] *= 20  # long boxes
        check(runner("cpu", "native"), data, overlap_thresh=threshold)


def thin(rng, num, scale):
    """Rows of thin boxes that cross one another, then of boxes that are close to one each."""
    length, share = rng.uniform(0.5, 2, num), 10.0 ** rng.uniform(-7, 0, num)
    angle = rng.choice([0, 45, 90, *rng.uniform(-180, 180, 20)], num)
    center, turned = rng.uniform(-1, 1, (num, 2)), rng.random(num) < 0.5
    moves = rng.uniform(-0.8, 0.8, (3, num)) * rng.choice([0, 1, 1], (3, num))
    boxes = []
    for along, across, turn in (0 * moves, moves):
        cos, sin = np.cos(np.radians(angle)), -np.sin(np.radians(angle))
        x = center[:, 0] + length * (along * cos - across * share * sin)
        y = center[:, 1] + length * (along * sin + across * share * cos)
        sides = np.where(turned, [share, np.ones(num)], [np.ones(num), share]) * length
        boxes.append([x, y, *sides, angle + np.degrees(turn * share) - 90 * turned])
    numbers = np.concatenate(boxes, axis=1).T * [scale, scale, scale, scale, 1]
    return np.insert(numbers, 0, [np.zeros(2 * num), rng.random(2 * num)], axis=1).astype("f4")


@pytest.mark.parametrize("scale", [1, 1e-9, 1e12])
@pytest.mark.parametrize("threshold", [0.7, 0.3, 0.02, 0])
def test_thin_boxes_have_the_bits_of_the_reference(scale, threshold):
    rng = np.random.default_rng(9)
    for _ in range(2):
        check(runner("cpu", "native"), thin(rng, 150, scale), overlap_thresh=threshold)


def needles(rng, num):
    return np.ones(num), np.full(num, 1e-4), rng.uniform(0, 1, (num, 2))


def scales(rng, num):
    sides = np.sort(2.0 ** rng.uniform(-20, 20, (2, num)), axis=0)
    return sides[1], sides[0], sides.T / 2


def distant_groups(rng, num):
    center = rng.uniform(0, 5, (num, 2)) + 10_000 * rng.integers(0, 2, (num, 1))
    return rng.uniform(0.1, 0.6, num), np.full(num, 0.1), center


@pytest.mark.parametrize("make", [needles, scales, distant_groups])
@pytest.mark.parametrize("threshold", [0.8, 0.15])
def test_tree_does_not_change_the_result(make, threshold):
    """The CPU puts such boxes in a tree. A part of them are close to one another."""
    rng = np.random.default_rng(12)
    own, copies = np.arange(700), rng.integers(0, 700, 200)
    length, width, center = (x[[*own, *copies]] for x in make(rng, 700))
    angle = rng.uniform(-180, 180, 700)[[*own, *copies]]
    moves = rng.uniform(-0.2, 0.2, (5, 900)) * (np.arange(900) >= 700)
    cos, sin = np.cos(np.radians(angle)), -np.sin(np.radians(angle))
    x = center[:, 0] + moves[0] * length * cos - moves[1] * width * sin
    y = center[:, 1] + moves[0] * length * sin + moves[1] * width * cos
    angle += np.degrees(moves[2] * width / length)
    sides = length * 2 ** moves[3], width * 2 ** moves[4]
    data = np.stack([np.zeros(900), rng.random(900), x, y, *sides, angle], axis=1)
    check(runner("cpu", "native"), data.astype("f4"), overlap_thresh=threshold)


def test_many_boxes_take_several_chunks(run_any_steps):
    rng = np.random.default_rng(6)
    data = random_rows(rng, 500, extent=25)
    check(run_any_steps, data, overlap_thresh=0.2, id_index=0)
    check(run_any_steps, clusters(rng, 700), overlap_thresh=0.2, topk=600)


def test_large_set_on_the_emulated_gpu():
    data = clusters(np.random.default_rng(7), 6500, boxes=60, extent=400)
    check(runner("cpu", "emulated"), data, overlap_thresh=0.3)


@pytest.mark.parametrize("options", [{}, {"id_index": 0}], ids=["all", "by class"])
def test_threads_and_vectors_do_not_change_a_bit(cpu_variants, options):
    rng = np.random.default_rng(8)
    for data in (random_rows(rng, 3, 500, special=0.01), random_rows(rng, 1, 1500, extent=100)):
        want = nms_rotated(data, **options, backend="numpy")
        for out in cpu_variants(partial(nms_rotated, data, **options, backend="native")):
            np.testing.assert_array_equal(out, want)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32), threshold=st.sampled_from([0.0, 0.2, 0.5, 0.8]))
def test_kept_boxes_do_not_overlap_and_others_do(seed, threshold):
    data = random_rows(np.random.default_rng(seed), 60)
    index = nms_rotated(data, threshold, return_index=True, backend="native")[1]
    kept = index[index >= 0]
    boxes = data[:, 2:].copy()
    above = box_iou_rotated(boxes, boxes) > np.float32(threshold)
    better = data[:, 1][None] > data[:, 1][:, None]
    assert not (above & better)[np.ix_(kept, kept)].any()
    others = np.setdiff1d(np.arange(60), kept)
    assert (above & better)[np.ix_(others, kept)].any(axis=1).all()


def test_boxes_without_rotation_have_the_result_of_box_nms(run):
    data = random_rows(np.random.default_rng(9), 200, extent=20)
    data[:, 6] = 0
    want = box_nms(data, id_index=0, in_format="center", return_index=True, out_format="center")[1]
    got = run(nms_rotated, data, id_index=0, return_index=True)[1]
    np.testing.assert_array_equal(got, want)


def test_leading_axes_are_sets(run):
    data = random_rows(np.random.default_rng(10), 2, 3, 40)
    out, index = run(nms_rotated, data, return_index=True)
    assert index.shape == (2, 3, 40)
    for at in np.ndindex(2, 3):
        np.testing.assert_array_equal(out[at], nms_rotated(data[at], backend="numpy"))


def test_sanitizers_find_no_error(run_sanitized_small):
    rng = np.random.default_rng(11)
    data = random_rows(rng, 2, 290, extent=20, special=0.02)
    check(run_sanitized_small, data, overlap_thresh=0.1, id_index=0)


DATA = np.zeros((3, 7), np.float32)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"data": DATA[0]}, ValueError, r"data: expected shape \(\.\.\., N, K\), got \(7,\)"),
        ({"data": DATA[:, :5]}, ValueError, "data: expected rows of a score and 5 coordinates"),
        ({"id_index": 1, "data": DATA[:, :6]}, ValueError, "data: .* a class and 5 coordinates"),
        ({"data": DATA.astype("f8")}, TypeError, "data: expected float32, got float64"),
        ({"coord_start": 3}, ValueError, "coord_start: expected five columns of 7, got 3"),
        (
            {"score_index": 6},
            ValueError,
            "score_index: .* outside of the coordinates, .*2 to 6, got 6",
        ),
        ({"id_index": 2}, ValueError, "id_index: expected a column of its own or -1, got 2"),
        ({"overlap_thresh": NAN}, ValueError, "overlap_thresh: expected a number, got nan"),
        ({"topk": 1.5}, TypeError, "topk: expected an integer, got 1.5"),
        ({"angle": "turns"}, ValueError, "angle: expected one of .*, got 'turns'"),
        ({"clockwise": 2}, ValueError, "clockwise: expected True or False, got 2"),
    ],
)
def test_bad_argument_is_refused_by_name(change, error, message):
    with pytest.raises(error, match=message):
        nms_rotated(**{"data": DATA, **change})

from functools import partial

import numpy as np
import pytest
from emulator import backends
from hypothesis import given, settings
from hypothesis import strategies as st

from cvops import box_iou, box_iou_rotated

NAN, INF = np.nan, np.inf
SPECIAL = [NAN, INF, -INF, 0.0, -0.0, 1e-40, 3e38, -1.0]


def boxes(*rows):
    return np.array(rows, np.float32).reshape(-1, 5)


def random_boxes(rng, num, ties=False, special=0.0, extent=8.0):
    b = rng.random((num, 5)) * [extent, extent, 4, 4, 800] + [0, 0, 0.1, 0.1, -400]
    if ties:  # sides that coincide
        b = np.c_[np.round(b[:, :2]), np.ceil(b[:, 2:4]), 45 * np.round(b[:, 4] / 45)]
    b = b.astype(np.float32)
    b[rng.random(b.shape) < special] = rng.choice(SPECIAL)
    return b


def corners(box, clockwise=False):
    x, y, width, height, angle = map(float, box)
    turn = np.radians(angle if clockwise else -angle)
    half = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * [width / 2, height / 2]
    return half @ [[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]] + [x, y]


def cross(a, b):
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]


def clipped_iou(a, b, clockwise=False):
    """The IoU by Sutherland and Hodgman's clipping, in float64."""
    polygon, clip = corners(a, clockwise), corners(b, clockwise)
    for start, end in zip(clip, np.roll(clip, -1, axis=0)):
        side = cross(end - start, polygon - start)
        points = []
        for p, q, at_p, at_q in zip(polygon, np.roll(polygon, -1, 0), side, np.roll(side, -1)):
            if at_p >= 0:
                points.append(p)
            if (at_p >= 0) != (at_q >= 0):
                points.append(p + at_p / (at_p - at_q) * (q - p))
        polygon = np.array(points)
        if len(polygon) == 0:
            return 0.0
    own = polygon - polygon[0]
    overlap = cross(own, np.roll(own, -1, axis=0)).sum() / 2
    return overlap / (float(a[2]) * float(a[3]) + float(b[2]) * float(b[3]) - overlap)


@pytest.mark.parametrize(
    ("lhs", "rhs", "expected"),
    [
        ((3, 4, 8, 2, 30), (3, 4, 8, 2, 30), 1),
        # A turn by 90 degrees exchanges width and height, a turn by 180 degrees changes nothing.
        ((3, 4, 8, 2, 30), (3, 4, 2, 8, 120), 1),
        ((3, 4, 8, 2, 30), (3, 4, 8, 2, -150), 1),
        # The intersection is a regular octagon: of the area 1, four corners of (3 - 2 sqrt 2) / 4
        # are missing. The IoU is (2 sqrt 2 - 2) / (2 - (2 sqrt 2 - 2)) = 1 / sqrt 2.
        ((5, 5, 1, 1, 0), (5, 5, 1, 1, 45), 0.5**0.5),
        # A square and the square with its corners at the middle of each side. The side of the
        # second is sqrt(2), rounded to float32.
        ((0, 0, 2, 2, 10), (0, 0, 2**0.5, 2**0.5, 55), 0.5),
        # A box inside of another one.
        ((1, 2, 10, 10, 17), (2, 1, 3, 1, -5), 3 / 100),
        # The first box is 2 wide and 4 high. The intersection is 2 x 2.5.
        ((0, 0, 4, 2, 90), (0, 1, 4, 3, 0), 5 / (8 + 12 - 5)),
        # The intersection of two bars is a rhombus with the height 1 and the side 1 / sin 30.
        ((0, 0, 20, 1, 0), (0, 0, 20, 1, 30), 2 / (40 - 2)),
        # The intersection is a triangle at a corner.
        ((0, 0, 2, 2, 0), (1, 1, 2**0.5, 2 * 2**0.5, 45), None),
        # Boxes that touch along a side, at a corner, and boxes apart.
        ((0, 0, 2, 2, 0), (2, 0, 2, 2, 90), 0),
        ((0, 0, 2, 2, 0), (2, 2, 2, 2, 0), 0),
        ((0, 0, 20, 1, 45), (3, 3, 20, 1, 45), 0),
        ((0, 0, 1, 1, 0), (50, 0, 1, 1, 45), 0),
    ],
)
def test_iou_by_hand(run, lhs, rhs, expected):
    expected = clipped_iou(lhs, rhs) if expected is None else expected
    for a, b in ((lhs, rhs), (rhs, lhs)):
        iou = run(box_iou_rotated, boxes(a), boxes(b))
        np.testing.assert_allclose(iou, [[expected]], rtol=1e-7 if expected != 0.5 else 2e-7)
        assert iou.dtype == np.float32


def test_positive_angle_is_counterclockwise_in_an_image(run):
    # The small box is on the right half of the long one, which points up or down there.
    up, down = boxes((1.3, -0.75, 0.1, 0.1, 0)), boxes((1.3, 0.75, 0.1, 0.1, 0))
    bar = boxes((0, 0, 4, 1, 30))
    inside = np.float32([[np.float32(0.1) ** 2 / 4]])
    for other, clockwise, expected in (
        *((up, False, inside), (down, False, [[0]])),
        *((up, True, [[0]]), (down, True, inside)),
    ):
        iou = run(box_iou_rotated, bar, other, clockwise=clockwise)
        np.testing.assert_allclose(iou, expected, rtol=1e-6)


def test_angle_in_radians_is_that_in_degrees(run):
    rng = np.random.default_rng(5)
    lhs, rhs = random_boxes(rng, 20), random_boxes(rng, 30)
    want = box_iou_rotated(lhs, rhs, backend="numpy")
    for b in (lhs, rhs):
        b[:, 4] = np.radians(b[:, 4].astype(np.float64))
    got = run(box_iou_rotated, lhs, rhs, angle="radians")
    np.testing.assert_allclose(got, want, atol=1e-6)
    assert (want > 0).sum() > 50


@pytest.mark.parametrize("turns", [1, -1, 2**20, 2**40, 2**100, -(2**118)])
def test_whole_turns_change_no_bit(run, turns):
    rng = np.random.default_rng(6)
    rhs = random_boxes(rng, 20)
    lhs = boxes((2, 2, 3, 1, 0), (4, 5, 2, 2, 0))
    want = run(box_iou_rotated, lhs, rhs)
    lhs[:, 4] = 360.0 * turns
    assert (np.float64(lhs[:, 4]) == 360.0 * turns).all()
    np.testing.assert_array_equal(run(box_iou_rotated, lhs, rhs), want)


def test_boxes_without_rotation_have_the_iou_of_box_iou(run):
    rng = np.random.default_rng(7)
    lhs, rhs = random_boxes(rng, 20), random_boxes(rng, 30)
    lhs[:, 4], rhs[:, 4] = 180, 0
    want = box_iou(lhs[:, :4].copy(), rhs[:, :4].copy(), format="center", backend="numpy")
    np.testing.assert_allclose(run(box_iou_rotated, lhs, rhs), want, rtol=3e-6, atol=1e-6)


@pytest.mark.parametrize("scale", [1e-43, 1e-38, 1e-20, 1, 1e18, 3e37])
def test_size_of_the_unit_does_not_matter(run, scale):
    lhs, rhs = boxes((0, 0, 2, 2, 0)), boxes((1, 0, 2, 2, 0), (1, 1, 2, 2, 0))
    lhs[:, :4] *= np.float32(scale)
    rhs[:, :4] *= np.float32(scale)
    assert lhs[0, 2] == 2 * rhs[0, 0] > 0
    np.testing.assert_array_equal(run(box_iou_rotated, lhs, rhs), np.float32([[1 / 3, 1 / 7]]))


NONE = [
    *((1, 1, 0, 2, 0), (1, 1, 2, 0, 0), (1, 1, -2, 2, 0), (1, 1, 2, -2, 0), (1, 1, 0, 0, 45)),
    *((NAN, 1, 2, 2, 0), (1, NAN, 2, 2, 0), (1, 1, NAN, 2, 0), (1, 1, 2, NAN, 0)),
    *((1, 1, 2, 2, NAN), (1, 1, 2, 2, INF), (1, 1, 2, 2, -INF), (INF, 1, 2, 2, 0)),
    *((1, -INF, 2, 2, 0), (1, 1, INF, 2, 0), (1, 1, 2, INF, 0), (1, 1, INF, INF, 0)),
]


@pytest.mark.parametrize("angle", ["degrees", "radians"])
def test_box_without_area_has_no_overlap(run, angle):
    other = boxes((1, 1, 2, 2, 0), (0, 0, 9, 9, 1), (1, 1, 0, 0, 0), (1, 1, 3e38, 3e38, 0))
    none = boxes(*NONE)
    assert not run(box_iou_rotated, none, other, angle=angle).any()
    assert not run(box_iou_rotated, other, none, angle=angle).any()
    assert not run(box_iou_rotated, none, none, angle=angle).any()


def test_angle_of_too_many_radians_has_no_overlap(run):
    lhs = boxes(*((1, 1, 2, 2, x) for x in (2**20, 2**20 + 1, -(2**20), -(2**20) - 1)))
    iou = run(box_iou_rotated, lhs, boxes((1, 1, 2, 2, 0)), angle="radians")
    assert (iou[:, 0] > 0).tolist() == [True, False, True, False]


def near(rng, b):
    """Boxes that almost coincide, also after quarter turns."""
    out = b + rng.normal(size=b.shape) * 10.0 ** rng.uniform(-7, 0, (len(b), 1))
    out[:, 2:4] = np.maximum(out[:, 2:4], 0.05)
    out[:, 4] += 90 * rng.integers(0, 4, len(b))
    return out.astype(np.float32)


def thin(rng, b):
    """Long boxes, of which many cross."""
    return (b * [1, 1, *rng.choice([1, 1000], 2), 1]).astype(np.float32)


@pytest.mark.parametrize("kind", ["random", "ties", "near", "thin"])
@pytest.mark.parametrize("clockwise", [False, True])
def test_error_is_that_of_one_rounding(kind, clockwise):
    rng = np.random.default_rng(8)
    lhs = random_boxes(rng, 400, ties=kind == "ties")
    rhs = random_boxes(rng, 400, ties=kind == "ties")
    if kind == "near":
        rhs = near(rng, lhs)
    if kind == "thin":
        lhs, rhs = thin(rng, lhs), thin(rng, rhs)
    ious = box_iou_rotated(lhs, rhs, clockwise=clockwise, backend="native")
    got = np.diagonal(ious).astype(np.float64)
    want = np.array([clipped_iou(a, b, clockwise) for a, b in zip(lhs, rhs)])
    assert (want > 0).sum() > 50
    np.testing.assert_array_less(abs(got - want), 2**-24 * 1.001 * want + 1e-11)


@pytest.mark.parametrize(
    ("num_lhs", "num_rhs"), [(1, 1), (7, 300), (300, 17), (3, 2), (150, 65), (1, 130)]
)
@pytest.mark.parametrize("angle", ["degrees", "radians"])
def test_results_equal_the_reference(run_any_steps, num_lhs, num_rhs, angle):
    rng = np.random.default_rng(num_lhs)
    for ties, special in ((False, 0.0), (True, 0.0), (True, 0.1)):
        lhs = random_boxes(rng, num_lhs, ties, special)
        rhs = random_boxes(rng, num_rhs, ties, special, extent=rng.choice([1, 8, 80]))
        options = dict(angle=angle, clockwise=ties)
        expected = box_iou_rotated(lhs, rhs, **options, backend="numpy")
        np.testing.assert_array_equal(run_any_steps(box_iou_rotated, lhs, rhs, **options), expected)


@pytest.mark.parametrize("num_rhs", [1, 15, 16, 17, 255, 257, 1023, 1024, 1025, 2049])
def test_threads_and_vectors_do_not_change_a_bit(cpu_variants, num_rhs):
    # A task has about 8192 pairs.
    rng = np.random.default_rng(num_rhs)
    for num_lhs in (1, 5, 8192 // num_rhs // 2 + 9):
        lhs, rhs = (random_boxes(rng, num, special=0.02, extent=20) for num in (num_lhs, num_rhs))
        expected = box_iou_rotated(lhs, rhs, backend="numpy")
        for out in cpu_variants(partial(box_iou_rotated, lhs, rhs, backend="native")):
            np.testing.assert_array_equal(out, expected)


def test_output_has_the_leading_axes_of_both_inputs(run):
    rng = np.random.default_rng(0)
    lhs, rhs = random_boxes(rng, 6), random_boxes(rng, 5)
    out = run(box_iou_rotated, lhs.reshape(2, 3, 5), rhs.reshape(5, 1, 5))
    assert out.shape == (2, 3, 5, 1)
    np.testing.assert_array_equal(out.reshape(6, 5), box_iou_rotated(lhs, rhs, backend="numpy"))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32), ties=st.booleans(), special=st.sampled_from([0.0, 0.2]))
def test_iou_is_a_symmetric_share(seed, ties, special):
    b = random_boxes(np.random.default_rng(seed), 40, ties, special, extent=3)
    iou = box_iou_rotated(b, b, backend="native")
    assert ((iou >= 0) & (iou <= 1)).all()
    np.testing.assert_allclose(iou, iou.T, rtol=1.2e-7, atol=1e-11)
    has_area = np.isfinite(b).all(axis=1) & (b[:, 2:4] > 0).all(axis=1)
    np.testing.assert_array_equal(np.diagonal(iou), has_area)


@pytest.mark.parametrize("threads", [32, 64])
def test_kernel_with_other_blocks_gives_equal_bits(monkeypatch, threads):
    monkeypatch.setattr(backends, "on_launch", lambda launch: launch._replace(block=(threads,)))
    rng = np.random.default_rng(threads)
    lhs, rhs = random_boxes(rng, 70), random_boxes(rng, 90)
    out = box_iou_rotated(lhs, rhs, backend="emulated")
    np.testing.assert_array_equal(out, box_iou_rotated(lhs, rhs, backend="numpy"))


def test_sanitizers_find_no_error(run_sanitized_small):
    rng = np.random.default_rng(2)
    lhs, rhs = random_boxes(rng, 23, special=0.05), random_boxes(rng, 11)
    out = run_sanitized_small(box_iou_rotated, lhs, rhs)
    np.testing.assert_array_equal(out, box_iou_rotated(lhs, rhs, backend="numpy"))


BOX = boxes((0, 0, 1, 1, 0))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"lhs": BOX[0]}, ValueError, r"lhs: expected shape \(\.\.\., N, 5\), got \(5,\)"),
        ({"rhs": BOX[:, :4]}, ValueError, r"rhs: .* got \(1, 4\)"),
        ({"lhs": BOX.astype("f8")}, TypeError, "lhs: expected float32, got float64"),
        ({"lhs": BOX.tolist()}, TypeError, "lhs: expected an array .*, got list"),
        (
            {"lhs": np.broadcast_to(np.float32(0), (2**31, 5))},
            ValueError,
            "lhs: expected fewer than 2.31 boxes",
        ),
        ({"angle": "degree"}, ValueError, "angle: expected one of .*, got 'degree'"),
        ({"clockwise": 2}, ValueError, "clockwise: expected True or False, got 2"),
    ],
)
def test_bad_argument_is_refused_by_name(change, error, message):
    with pytest.raises(error, match=message):
        box_iou_rotated(**{"lhs": BOX, "rhs": BOX, **change})

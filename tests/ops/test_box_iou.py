from functools import partial

import numpy as np
import pytest
from emulator import backends
from hypothesis import given, settings
from hypothesis import strategies as st

from cvops import box_iou

SPECIAL = [np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-40, 3e38, -1.0]


def boxes(*rows):
    return np.array(rows, np.float32).reshape(-1, 4)


def random_boxes(rng, num, ties=False, special=0.0):
    b = rng.random((num, 4), np.float32) * 4
    b[:, 2:] += b[:, :2] - np.float32(0.5)  # some are inverted
    b = np.round(b) if ties else b
    b[rng.random(b.shape) < special] = rng.choice(SPECIAL)
    return b


@pytest.mark.parametrize(
    ("lhs", "rhs", "expected"),
    [
        (boxes((0, 0, 8, 8)), boxes((3, 5, 10, 12)), [[15 / (64 + 49 - 15)]]),
        (boxes((0, 0, 8, 8)), boxes((0, 0, 8, 8)), [[1]]),
        (boxes((0, 0, 8, 8)), boxes((8, 0, 9, 8)), [[0]]),
        (boxes((1, 1, 1, 1)), boxes((1, 1, 1, 1)), [[0]]),
        (boxes((0, 0, np.inf, np.inf)), boxes((0, 0, 1, 1)), [[0]]),
        (boxes((np.nan, 0, 1, 1)), boxes((0, 0, 1, 1)), [[np.nan]]),
        (boxes((0, 0, 1, 1)), boxes((np.nan, 0, 1, 1)), [[0]]),
        (boxes(), boxes((0, 0, 1, 1)), np.zeros((0, 1))),
        (boxes((0, 0, 1, 1)), boxes(), np.zeros((1, 0))),
    ],
    ids=[
        "overlap",
        "equal",
        "touching",
        "no area",
        "infinite",
        "NaN left",
        "NaN right",
        "no lhs",
        "no rhs",
    ],
)
def test_iou_by_hand(run, lhs, rhs, expected):
    np.testing.assert_array_equal(run(box_iou, lhs, rhs), np.float32(expected))


def test_center_format_by_hand(run):
    # The corners are (0, 0, 4, 4) and (2, 2, 6, 4). The intersection is 2 x 2.
    out = run(box_iou, boxes((2, 2, 4, 4)), boxes((4, 3, 4, 2)), format="center")
    np.testing.assert_array_equal(out, np.float32([[4 / (16 + 8 - 4)]]))


@pytest.mark.parametrize("format", ["corner", "center"])
@pytest.mark.parametrize(("num_lhs", "num_rhs"), [(1, 1), (7, 300), (1000, 17), (3, 2), (257, 64)])
def test_results_equal_the_reference(run, num_lhs, num_rhs, format):
    rng = np.random.default_rng(num_lhs)
    for ties, special in ((False, 0.0), (True, 0.0), (True, 0.1)):
        lhs = random_boxes(rng, num_lhs, ties, special)
        rhs = random_boxes(rng, num_rhs, ties, special)
        expected = box_iou(lhs, rhs, format, backend="numpy")
        np.testing.assert_array_equal(run(box_iou, lhs, rhs, format=format), expected)


@pytest.mark.parametrize("format", ["corner", "center"])
@pytest.mark.parametrize("num_rhs", [1, 2, 7, 8, 9, 63, 65, 1023, 1024, 1025, 2049])
def test_threads_and_vectors_do_not_change_a_bit(cpu_variants, num_rhs, format):
    # The last vector of a row extends over the next row. A task has about 16384 pairs.
    rng = np.random.default_rng(num_rhs)
    for num_lhs in (1, 5, 33, 16384 // num_rhs + 9):
        lhs, rhs = (random_boxes(rng, num, special=0.02) for num in (num_lhs, num_rhs))
        expected = box_iou(lhs, rhs, format, backend="numpy")
        for out in cpu_variants(partial(box_iou, lhs, rhs, format, backend="native")):
            np.testing.assert_array_equal(out, expected)


def test_output_has_the_leading_axes_of_both_inputs(run):
    rng = np.random.default_rng(0)
    lhs, rhs = random_boxes(rng, 6).reshape(2, 3, 4), random_boxes(rng, 5).reshape(5, 1, 4)
    out = run(box_iou, lhs, rhs)
    assert out.shape == (2, 3, 5, 1)
    np.testing.assert_array_equal(
        out.reshape(6, 5), box_iou(lhs.reshape(-1, 4), rhs.reshape(-1, 4), backend="numpy")
    )


def test_iou_is_symmetric_to_the_last_bit(run):
    b = random_boxes(np.random.default_rng(1), 200)
    iou = run(box_iou, b, b)
    np.testing.assert_array_equal(iou, iou.T)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32), ties=st.booleans(), special=st.sampled_from([0.0, 0.05, 0.3]))
@pytest.mark.parametrize("backend", ["numpy", "native"])
@pytest.mark.parametrize("format", ["corner", "center"])
def test_results_equal_mxnet(mx, backend, format, seed, ties, special):
    rng = np.random.default_rng(seed)
    lhs = random_boxes(rng, rng.integers(1, 40), ties, special)
    rhs = random_boxes(rng, rng.integers(1, 40), ties, special)
    theirs = mx.nd.contrib.box_iou(mx.nd.array(lhs), mx.nd.array(rhs), format=format).asnumpy()
    np.testing.assert_array_equal(box_iou(lhs, rhs, format, backend=backend), theirs)


@pytest.mark.parametrize("num", [1, 3, 4, 97, 300])
@pytest.mark.parametrize("grid", [(1, 1), (3, 2)])
def test_kernel_on_another_grid_gives_equal_bits(monkeypatch, grid, num):
    def on_another_grid(launch):
        return launch._replace(grid=grid, block=(32,))

    monkeypatch.setattr(backends, "on_launch", on_another_grid)
    rng = np.random.default_rng(num)
    lhs, rhs = random_boxes(rng, 23), random_boxes(rng, num)
    out = box_iou(lhs, rhs, backend="emulated")
    np.testing.assert_array_equal(out, box_iou(lhs, rhs, backend="numpy"))


def test_sanitizers_find_no_error(run_sanitized):
    rng = np.random.default_rng(2)
    lhs, rhs = random_boxes(rng, 13), random_boxes(rng, 7)
    out = run_sanitized(box_iou, lhs, rhs)
    np.testing.assert_array_equal(out, box_iou(lhs, rhs, backend="numpy"))


@pytest.mark.parametrize(
    ("lhs", "options", "error", "message"),
    [
        (
            np.zeros(4, np.float32),
            {},
            ValueError,
            r"lhs: expected shape \(\.\.\., N, 4\), got \(4,\)",
        ),
        (np.zeros((3, 5), np.float32), {}, ValueError, r"lhs: .* got \(3, 5\)"),
        (np.zeros((3, 4)), {}, TypeError, "lhs: expected float32, got float64"),
        (np.zeros((3, 4), ">f4"), {}, TypeError, "lhs: expected float32, got >f4"),
        (boxes(), {"format": "corners"}, ValueError, r"format: expected one of .*, got 'corners'"),
        ([[0, 0, 1, 1]], {}, TypeError, "lhs: expected an array .*, got list"),
        (
            np.broadcast_to(np.float32(0), (2**31, 4)),
            {},
            ValueError,
            "lhs: expected fewer than 2.31 boxes",
        ),
    ],
    ids=["one axis", "five columns", "float64", "byte order", "format", "list", "too many"],
)
def test_bad_arguments_are_refused(lhs, options, error, message):
    with pytest.raises(error, match=message):
        box_iou(lhs, boxes((0, 0, 1, 1)), **options)

import math
from functools import partial

import numpy as np
import pytest
from emulator import backends
from hypothesis import given, settings
from hypothesis import strategies as st

from cvops import box_iou, soft_nms

INF, NAN = np.inf, np.nan


def f32(x):
    return np.array(x, np.float32)


def scene(seed, *shape, ties=False, special=False, side=4):
    """Rows of a class, a score, a box and another number; some boxes are inverted."""
    rng = np.random.default_rng(seed)
    low, size = rng.random((*shape, 2)) * side, rng.random((*shape, 2)) * 3 - 0.1
    numbers = rng.integers(0, 3, (*shape, 1)), rng.random((*shape, 1))
    data = f32(np.concatenate([*numbers, low, low + size, rng.random((*shape, 1))], axis=-1))
    if ties:
        data[..., 1:6] = np.round(data[..., 1:6] * 4) / 4
    if special:
        values = rng.choice([NAN, INF, -INF, -0.0, 0.5, 3e38, -1], data.shape)
        data = np.where(rng.random(data.shape) < 0.03, f32(values), data)
    return data


OPTIONS = [
    {},
    dict(method="gaussian"),
    dict(id_index=0, overlap_thresh=0.1, background_id=1),
    dict(id_index=0, method="gaussian", sigma=0.1, topk=25, post_nms=20),
    dict(id_index=0, force_suppress=True, valid_thresh=0.2, overlap_thresh=0.6),
    dict(in_format="center", overlap_thresh=-1, valid_thresh=0),
    dict(in_format="center", method="gaussian", topk=3),
    dict(topk=0),
    dict(post_nms=1, score_index=6, coord_start=2),
]

#: The IoU of the first two boxes is 12 / 16, that of the first and the third is 0.
BOXES = [[0, 0, 4, 4], [0, 0, 4, 3], [4, 0, 8, 4]]


def rows(scores, boxes=BOXES, classes=None):
    classes = classes or [0] * len(scores)
    return f32([(c, s, *box) for c, s, box in zip(classes, scores, boxes)])


def by_brute_force(data, gaussian=False, threshold=0.3, sigma=0.5, lowest=0.001):
    """The rows that are kept, and their scores: the algorithm of the paper in float64."""
    iou = box_iou(data[:, 2:6], data[:, 2:6]).astype(float)
    scores = {i: float(score) for i, score in enumerate(data[:, 1])}
    kept = []
    while scores:
        best = max(scores, key=lambda i: (scores[i], -i))
        kept.append((best, scores.pop(best)))
        for i in scores:
            x = iou[best, i]
            scores[i] *= math.exp(-x * x / sigma) if gaussian else 1 - x if x > threshold else 1
        scores = {i: score for i, score in scores.items() if score > lowest}
    return kept


def test_scores_by_hand(run):
    data = rows([0.5, 0.875, 0.25])
    # The second box is the best. It lowers the score of the first: 0.5 * (1 - 0.75).
    out, index = run(soft_nms, data, return_index=True)
    want = data[[1, 2, 0]]
    want[2, 1] = 0.125
    np.testing.assert_array_equal(out, want)
    assert index.tolist() == [1, 2, 0]
    assert index.dtype == np.int32
    # An IoU at the threshold lowers no score.
    out = run(soft_nms, data, overlap_thresh=0.75)
    np.testing.assert_array_equal(out, data[[1, 0, 2]])
    out = run(soft_nms, data, method="gaussian", sigma=0.5)
    np.testing.assert_allclose(out[:, 1], [0.875, 0.25, 0.5 * math.exp(-1.125)], rtol=1e-6)
    # A score of 0.125 is not above 0.125.
    out, index = run(soft_nms, data, valid_thresh=0.125, return_index=True)
    np.testing.assert_array_equal(out, [*want[:2], [-1] * 6])
    assert index.tolist() == [1, 2, -1]


def test_only_boxes_of_the_same_class_lower_a_score(run):
    data = rows([0.5, 0.875, 0.25], classes=[1.2, 1.7, 1])
    out = run(soft_nms, data, id_index=0)  # the integer parts are equal
    np.testing.assert_array_equal(out[:, 1], [0.875, 0.25, 0.125])
    data[0, 0] = 2
    out = run(soft_nms, data, id_index=0)
    np.testing.assert_array_equal(out, data[[1, 0, 2]])
    out = run(soft_nms, data, id_index=0, force_suppress=True)
    np.testing.assert_array_equal(out[:, 1], [0.875, 0.25, 0.125])
    out = run(soft_nms, data, id_index=0, background_id=2)
    np.testing.assert_array_equal(out, [*data[[1, 2]], [-1] * 6])


def test_topk_is_before_and_post_nms_after(run):
    data = rows([0.5, 0.875, 0.25])
    out = run(soft_nms, data, topk=2)
    np.testing.assert_array_equal(out[:, 1], f32([0.875, 0.125, -1]))
    out, index = run(soft_nms, data, post_nms=2, return_index=True)
    np.testing.assert_array_equal(out, data[[1, 2]])
    assert index.tolist() == [1, 2]
    assert run(soft_nms, data, post_nms=0).shape == (0, 6)
    assert run(soft_nms, data, post_nms=9).shape == (3, 6)


def test_equal_scores_are_in_order_of_rows(run):
    # The first box lowers 0.5 to 0.125, which is the score of the last one.
    boxes = [[9, 9, 12, 12], [0, 0, 4, 3], [0, 0, 4, 4], [20, 20, 21, 21]]
    data = rows([0.125, 0.5, 0.875, 0.125], boxes)
    _, index = run(soft_nms, data, return_index=True)
    assert index.tolist() == [2, 0, 1, 3]


def test_nan_and_empty_boxes_lower_no_score(run):
    boxes = [[0, 0, 4, 4], [NAN, 0, 4, 4], [1, 1, 1, 1], [3, 3, 0, 0], [0, 0, INF, 4]]
    data = rows([0.5, 0.75, 0.625, 0.375, 0.25], boxes)
    for options in ({}, {"method": "gaussian"}):
        out = run(soft_nms, data, **options)
        np.testing.assert_array_equal(out, data[[1, 2, 0, 3, 4]])


@pytest.mark.parametrize("gaussian", [False, True])
def test_kept_rows_are_those_of_the_paper(run, gaussian):
    data = scene(1, 60)
    out, index = run(
        soft_nms, data, ("linear", "gaussian")[gaussian], valid_thresh=0.05, return_index=True
    )
    want = by_brute_force(data, gaussian, lowest=0.05)
    num = len(want)
    assert 20 < num < 60
    assert index[:num].tolist() == [i for i, _ in want]
    np.testing.assert_allclose(out[:num, 1], [score for _, score in want], rtol=1e-5)
    np.testing.assert_array_equal(out[:num, 2:], data[index[:num], 2:])
    assert (out[num:] == -1).all()


def check(run, data, options):
    want = soft_nms(data, **options, return_index=True, backend="numpy")
    for got, expected in zip(run(soft_nms, data, **options, return_index=True), want):
        assert got.dtype == expected.dtype
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("shape", [(1,), (2, 3, 40), (150,)])
def test_random_rows_have_the_bits_of_the_reference(run_other, shape, options):
    for seed, (ties, special) in enumerate(((False, False), (True, False), (True, True))):
        check(run_other, scene(seed, *shape, ties=ties, special=special), options)


def test_both_paths_of_the_selection_have_the_bits_of_the_reference(run_any_steps):
    for num in (96, 97, 260):  # the small steps rank up to 96 rows
        for options in ({}, {"id_index": 0, "topk": 50, "method": "gaussian"}):
            check(run_any_steps, scene(num, 2, num, ties=True), options)


@pytest.mark.parametrize("method", ["linear", "gaussian"])
def test_threads_and_vectors_do_not_change_a_bit(cpu_variants, method):
    for num, sets, options in ((1300, 1, {}), (200, 3, {"id_index": 0})):
        data = scene(num, sets, num, ties=True, special=True, side=20)
        options = dict(options, method=method, return_index=True)
        want = soft_nms(data, **options, backend="numpy")
        assert (want[1] >= 0).sum() > 0.8 * num  # more steps than a task of the threads
        for results in cpu_variants(partial(soft_nms, data, **options, backend="native")):
            for got, expected in zip(results, want):
                np.testing.assert_array_equal(got, expected)


def crossed_strips(num):
    """Rows of a score and a box: each vertical strip overlaps all horizontal ones a little."""
    at = np.arange(num)[:, None]
    vertical = np.concatenate([at, 0 * at, at + 0.9, 0 * at + num], axis=1)
    boxes = np.concatenate([vertical, vertical[:, [1, 0, 3, 2]]])
    return f32(np.insert(boxes, 0, np.random.default_rng(0).random(2 * num), axis=1))


@pytest.mark.parametrize("sigma", [0.5, 2e-5])
@pytest.mark.parametrize("others", [0, 1500], ids=["steps", "queue"])
def test_hundreds_of_overlaps_of_a_box_have_the_bits_of_the_reference(cpu_variants, sigma, others):
    """Where most boxes overlap no other one, the CPU does not take step by step."""
    apart = np.arange(others)[:, None] + f32([1000, 1000, 1000.5, 1000.5])
    data = f32(np.vstack([crossed_strips(320), np.insert(apart, 0, 2, axis=1)]))
    options = dict(method="gaussian", sigma=sigma, valid_thresh=0, score_index=0, coord_start=1)
    want = soft_nms(data, **options, backend="numpy")
    assert (want[:, 0] > 0).sum() > 600 + others  # the score of the last one has about 300 factors
    for result in cpu_variants(partial(soft_nms, data, **options, backend="native")):
        np.testing.assert_array_equal(result, want)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("num", [24, 160, 161, 700])
def test_dense_rows_have_the_bits_of_the_reference(cpu_variants, num, options):
    """The CPU takes step by step; some scores become equal, and many rows are dropped."""
    data = scene(num, num, ties=True, special=num == 161, side=1)
    want = soft_nms(data, **options, return_index=True, backend="numpy")
    for results in cpu_variants(
        partial(soft_nms, data, **options, return_index=True, backend="native")
    ):
        for got, expected in zip(results, want):
            np.testing.assert_array_equal(got, expected)


def test_dropped_row_stays_dropped(cpu_variants):
    """Far from 0, corners are rounded: the IoU may be above 1, and the factor negative."""
    data = rows([0.75, 0.5, 0.25], [[1e8, 1e8 + y, 9, 9] for y in (-8, 0, 8)])
    data = np.vstack([data, rows([0.125] * 30, [[0, 0, 1, 1]] * 30)])
    options = dict(overlap_thresh=0.5, in_format="center", return_index=True)
    want = soft_nms(data, **options, backend="numpy")
    assert want[1][:4].tolist() == [0, 2, 3, -1]
    for results in cpu_variants(partial(soft_nms, data, **options, backend="native")):
        for got, expected in zip(results, want):
            np.testing.assert_array_equal(got, expected)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), num=st.integers(0, 60), ties=st.booleans())
@pytest.mark.parametrize("options", OPTIONS)
def test_scores_descend_and_are_not_above_those_of_the_data(options, seed, num, ties):
    data = scene(seed, num, ties=ties)
    out, index = soft_nms(data, **options, return_index=True, backend="native")
    score = options.get("score_index", 1)
    kept = index >= 0
    assert (np.diff(out[kept, score]) <= 0).all()
    assert (out[kept, score] <= data[index[kept], score]).all()
    assert len(set(index[kept])) == kept.sum()
    assert (np.sort(kept)[::-1] == kept).all()
    others = np.arange(7) != score
    np.testing.assert_array_equal(out[kept][:, others], data[index[kept]][:, others])


@pytest.mark.parametrize("seed", range(2))
def test_any_order_of_threads_gives_the_same_rows(monkeypatch, seed):
    monkeypatch.setattr(backends, "SEED", seed)
    data = scene(4, 2, 70, ties=True)
    want = soft_nms(data, backend="numpy")
    np.testing.assert_array_equal(soft_nms(data, backend="emulated"), want)


@pytest.mark.slow
def test_sanitizers_find_no_error(run_sanitized_small):
    # A step is slow here. The second call ends because no candidate is left.
    for options in ({"id_index": 0, "post_nms": 8}, {"method": "gaussian", "topk": 5}):
        check(run_sanitized_small, scene(5, 2, 110, ties=True), options)


@pytest.mark.parametrize("shape", [(0, 6), (0, 3, 6), (3, 0, 6)])
def test_empty_sets_have_no_rows(run, shape):
    out, index = run(soft_nms, np.zeros(shape, np.float32), return_index=True)
    assert out.shape == shape
    assert index.shape == shape[:-1]


SIX = np.zeros((3, 6), np.float32)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"data": SIX[0]}, ValueError, r"data: expected shape \(\.\.\., N, K\), got \(6,\)"),
        ({"data": SIX[:, :4]}, ValueError, "data: expected rows of a score and 4 "),
        ({"data": SIX.astype("f8")}, TypeError, "data: expected float32, got float64"),
        ({"method": "hard"}, ValueError, r"method: expected one of \['linear', 'gaussian'\], got"),
        ({"sigma": 0}, ValueError, "sigma: expected a positive number, got 0"),
        ({"sigma": NAN}, ValueError, "sigma: expected a number, got nan"),
        ({"overlap_thresh": "a"}, TypeError, "overlap_thresh: expected a number, got 'a'"),
        ({"valid_thresh": -0.1}, ValueError, r"valid_thresh: expected a number in \[0, inf\], got"),
        ({"topk": 1.5}, TypeError, "topk: expected an integer, got 1.5"),
        ({"score_index": 3}, ValueError, "score_index: .* outside of the coordinates, .* got 3"),
        ({"id_index": 1}, ValueError, "id_index: expected a column of its own or -1, got 1"),
        ({"in_format": "xy"}, ValueError, "in_format: expected one of .* got 'xy'"),
        (
            {"data": np.broadcast_to(SIX[0], (2**16, 2**15, 1, 6))},
            ValueError,
            "data: expected sizes below",
        ),
    ],
)
def test_bad_argument_is_refused_by_name(options, error, message):
    with pytest.raises(error, match=message):
        soft_nms(**{"data": SIX, **options})

import math
from functools import partial

import numpy as np
import pytest
from emulator import backends
from hypothesis import given, settings
from hypothesis import strategies as st
from test_soft_nms import BOXES, f32, rows, scene

from cvops import box_iou, matrix_nms

INF, NAN = np.inf, np.nan
OPTIONS = [
    {},
    dict(method="gaussian"),
    dict(id_index=0, background_id=1, post_thresh=0.1),
    dict(id_index=0, method="gaussian", sigma=0.5, topk=25, post_nms=20),
    dict(id_index=0, force_suppress=True, valid_thresh=0.2),
    dict(in_format="center", valid_thresh=0.5),
    dict(in_format="center", method="gaussian", topk=3),
    dict(topk=0),
    dict(post_nms=1, score_index=6, coord_start=2),
]


def by_brute_force(data, gaussian=False, sigma=2.0, lowest=0.0):
    """The rows that are kept, and their scores, by the formulas of SOLOv2 in float64."""
    order = np.argsort(-data[:, 1], kind="stable")
    iou = box_iou(data[order, 2:6], data[order, 2:6]).astype(float)
    kept = []
    for i in range(len(order)):
        factor = 1.0
        for j in range(i):
            most = max((iou[j, k] for k in range(j)), default=0)
            if gaussian:
                decay = math.exp(-sigma * iou[i, j] ** 2) / math.exp(-sigma * most**2)
            else:
                decay = (1 - iou[i, j]) / (1 - most + 1e-10)
            factor = min(factor, decay)
        score = factor * float(data[order[i], 1])
        if score > lowest:
            kept.append((order[i], score))
    return sorted(kept, key=lambda x: (-x[1], x[0]))


def test_scores_by_hand(run):
    # The IoUs with the first box are 0.75 and 0; the fourth box is the second one again.
    data = rows([0.875, 0.5, 0.375, 0.25], [*BOXES, BOXES[1]])
    out, index = run(matrix_nms, data, return_index=True)
    # The second box: 1 - 0.75. The fourth: the least of (1 - 0.75) / 1 and (1 - 1) / (1 - 0.75).
    want = data[[0, 2, 1]]
    want[2, 1] = 0.125
    np.testing.assert_array_equal(out, [*want, [-1] * 6])
    assert index.tolist() == [0, 2, 1, -1]
    assert index.dtype == np.int32
    out = run(matrix_nms, data, method="gaussian", sigma=2)
    # The fourth: the least of exp(-2 * 0.75**2) and exp(-2) / exp(-2 * 0.75**2).
    scores = [0.875, 0.375, 0.5 * math.exp(-1.125), 0.25 * math.exp(-1.125)]
    np.testing.assert_allclose(out[:, 1], scores, rtol=1e-6)
    # 0.125 is not above 0.125.
    out = run(matrix_nms, data, post_thresh=0.125)
    np.testing.assert_array_equal(out, [*want[:2], [-1] * 6, [-1] * 6])


def test_box_that_a_better_one_overlaps_lowers_scores_less(run):
    # In a chain, the IoU of neighbors is 1 / 3. Each box after the second has a factor of
    # (1 - 1 / 3) / (1 - 1 / 3).
    boxes = [[i, 0, i + 2, 1] for i in range(4)]
    out = run(matrix_nms, rows([0.9, 0.8, 0.7, 0.6], boxes))
    np.testing.assert_allclose(out[:, 1], [0.9, 0.7, 0.6, 0.8 * 2 / 3], rtol=1e-6)


def test_only_boxes_of_the_same_class_lower_a_score(run):
    data = rows([0.5, 0.875, 0.25], classes=[1.2, 1.7, 1])
    out = run(matrix_nms, data, id_index=0)  # the integer parts are equal
    np.testing.assert_array_equal(out[:, 1], [0.875, 0.25, 0.125])
    data[0, 0] = 2
    out = run(matrix_nms, data, id_index=0)
    np.testing.assert_array_equal(out, data[[1, 0, 2]])
    out = run(matrix_nms, data, id_index=0, force_suppress=True)
    np.testing.assert_array_equal(out[:, 1], [0.875, 0.25, 0.125])


def test_topk_is_before_and_post_nms_after(run):
    data = rows([0.5, 0.875, 0.25])
    out = run(matrix_nms, data, topk=2)
    np.testing.assert_array_equal(out[:, 1], f32([0.875, 0.125, -1]))
    out, index = run(matrix_nms, data, post_nms=2, return_index=True)
    np.testing.assert_array_equal(out, data[[1, 2]])
    assert index.tolist() == [1, 2]
    assert run(matrix_nms, data, post_nms=0).shape == (0, 6)


def test_equal_scores_are_in_order_of_rows(run):
    boxes = [[9, 9, 12, 12], [0, 0, 4, 3], [0, 0, 4, 4], [20, 20, 21, 21]]
    _, index = run(matrix_nms, rows([0.125, 0.5, 0.875, 0.125], boxes), return_index=True)
    assert index.tolist() == [2, 0, 1, 3]


def test_nan_and_empty_boxes_lower_no_score(run):
    boxes = [[0, 0, 4, 4], [NAN, 0, 4, 4], [1, 1, 1, 1], [3, 3, 0, 0], [0, 0, INF, 4]]
    data = rows([0.5, 0.75, 0.625, 0.375, 0.25], boxes)
    for options in ({}, {"method": "gaussian"}):
        out = run(matrix_nms, data, **options)
        np.testing.assert_array_equal(out, data[[1, 2, 0, 3, 4]])


@pytest.mark.parametrize("gaussian", [False, True])
def test_scores_are_those_of_the_formulas(run, gaussian):
    data = scene(1, 60)
    out, index = run(matrix_nms, data, ("linear", "gaussian")[gaussian], return_index=True)
    want = by_brute_force(data, gaussian)
    num = len(want)
    assert 40 < num <= 60
    assert index[:num].tolist() == [i for i, _ in want]
    np.testing.assert_allclose(out[:num, 1], [score for _, score in want], rtol=1e-4)
    assert (out[:num, 1] < data[index[:num], 1]).sum() > 20
    np.testing.assert_array_equal(out[:num, 2:], data[index[:num], 2:])
    assert (out[num:] == -1).all()


def check(run, data, options):
    want = matrix_nms(data, **options, return_index=True, backend="numpy")
    for got, expected in zip(run(matrix_nms, data, **options, return_index=True), want):
        assert got.dtype == expected.dtype
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("shape", [(1,), (2, 3, 40), (150,)])
def test_random_rows_have_the_bits_of_the_reference(run_other, shape, options):
    for seed, (ties, special) in enumerate(((False, False), (True, False), (True, True))):
        check(run_other, scene(seed, *shape, ties=ties, special=special), options)


def test_several_tiles_have_the_bits_of_the_reference(run_any_steps):
    """A tile has 256 candidates. The small steps allow 7 blocks along an axis of a grid."""
    for num, sets in ((256, 2), (257, 1), (1100, 1)):
        for options in ({}, {"id_index": 0, "method": "gaussian"}):
            check(run_any_steps, scene(num, sets, num, ties=True, side=20), options)


@pytest.mark.parametrize("method", ["linear", "gaussian"])
def test_threads_and_vectors_do_not_change_a_bit(cpu_variants, method):
    for num, sets, options in ((1300, 1, {}), (200, 3, {"id_index": 0}), (900, 1, {"id_index": 0})):
        data = scene(num, sets, num, ties=True, special=True, side=20)
        options = dict(options, method=method, return_index=True)
        want = matrix_nms(data, **options, backend="numpy")
        for results in cpu_variants(partial(matrix_nms, data, **options, backend="native")):
            for got, expected in zip(results, want):
                np.testing.assert_array_equal(got, expected)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), num=st.integers(0, 60), ties=st.booleans())
@pytest.mark.parametrize("options", OPTIONS)
def test_scores_descend_and_are_not_above_those_of_the_data(options, seed, num, ties):
    data = scene(seed, num, ties=ties)
    out, index = matrix_nms(data, **options, return_index=True, backend="native")
    score = options.get("score_index", 1)
    kept = index >= 0
    assert (np.diff(out[kept, score]) <= 0).all()
    assert (out[kept, score] <= data[index[kept], score]).all()
    assert len(set(index[kept])) == kept.sum()
    assert (np.sort(kept)[::-1] == kept).all()


@pytest.mark.parametrize("seed", range(2))
def test_any_order_of_threads_gives_the_same_rows(monkeypatch, seed):
    monkeypatch.setattr(backends, "SEED", seed)
    data = scene(4, 2, 300, ties=True)
    want = matrix_nms(data, backend="numpy")
    np.testing.assert_array_equal(matrix_nms(data, backend="emulated"), want)


def test_sanitizers_find_no_error(run_sanitized_small):
    for options in ({"id_index": 0}, {"method": "gaussian", "topk": 90, "post_nms": 30}):
        check(run_sanitized_small, scene(5, 2, 270, ties=True), options)


@pytest.mark.parametrize("shape", [(0, 6), (0, 3, 6), (3, 0, 6)])
def test_empty_sets_have_no_rows(run, shape):
    out, index = run(matrix_nms, np.zeros(shape, np.float32), return_index=True)
    assert out.shape == shape
    assert index.shape == shape[:-1]


SIX = np.zeros((3, 6), np.float32)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"data": SIX[0]}, ValueError, r"data: expected shape \(\.\.\., N, K\), got \(6,\)"),
        ({"data": SIX[:, :5], "id_index": 1}, ValueError, "data: .* a score, a class and 4 "),
        ({"data": SIX.astype("f8")}, TypeError, "data: expected float32, got float64"),
        ({"method": "hard"}, ValueError, r"method: expected one of \['linear', 'gaussian'\], got"),
        ({"sigma": -1}, ValueError, "sigma: expected a positive number, got -1"),
        ({"valid_thresh": -0.1}, ValueError, r"valid_thresh: expected a number in \[0, inf\], got"),
        ({"post_thresh": NAN}, ValueError, r"post_thresh: expected a number in \[0, inf\], got"),
        ({"post_nms": 1.5}, TypeError, "post_nms: expected an integer, got 1.5"),
        ({"coord_start": 3}, ValueError, "coord_start: expected four columns of 6, got 3"),
        ({"return_index": 2}, ValueError, "return_index: expected True or False, got 2"),
        (
            {"data": np.broadcast_to(SIX[0], (2**16, 2**15, 1, 6))},
            ValueError,
            "data: expected sizes below",
        ),
    ],
)
def test_bad_argument_is_refused_by_name(options, error, message):
    with pytest.raises(error, match=message):
        matrix_nms(**{"data": SIX, **options})

from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cvops import box_iou, box_nms, box_nms_backward, nms_rotated

#: Each option is in one dictionary or more.
OPTIONS = [
    {},
    dict(id_index=0),
    dict(id_index=0, topk=30),
    dict(id_index=0, background_id=0, valid_thresh=0.2),
    dict(id_index=0, force_suppress=True, overlap_thresh=0.3),
    dict(in_format="center"),
    dict(in_format="center", out_format="center", topk=50),
    dict(out_format="center", id_index=0),
    dict(overlap_thresh=-1, topk=7),
    dict(overlap_thresh=0, valid_thresh=-0.5),
    dict(topk=0, out_format="center"),
    dict(coord_start=0, score_index=5, id_index=4),
]


def rows(rng, *shape, ties=False, special=False):
    """Rows (class, score, x1, y1, x2, y2). Some classes are -1, some boxes are inverted."""
    low, size = rng.random((*shape, 2)) * 4, rng.random((*shape, 2)) * 3 - 0.3
    id_, score = rng.integers(-1, 4, (*shape, 1)), rng.random((*shape, 1)) * 1.5 - 0.5
    x = np.concatenate([id_, score, low, low + size], axis=-1).astype(np.float32)
    if ties:
        x[..., 1] = np.round(x[..., 1] * 10) / 10
        x[..., 2:] = np.round(x[..., 2:])
    if special:
        values = [np.nan, np.inf, -np.inf, -0.0, 1.7, 3e9]
        x[rng.random(x.shape) < 0.05] = rng.choice(values)
    return x


def arranged(x, options):
    """The columns of x in the order of the options."""
    return x[..., [2, 3, 4, 5, 0, 1]] if options.get("coord_start") == 0 else x


def test_kept_rows_by_hand(run):
    data = np.float32(
        [
            [0, 0.5, 0, 0, 4, 4],
            [1, 0.9, 0, 0, 4, 4],  # the highest score; class 1
            [0, 0.8, 0, 0, 4, 3],  # suppresses the first row: the IoU is 12 / 16
            [0, 0.0, 9, 9, 10, 10],  # score not above 0
            [0, 0.5, 4, 0, 8, 4],  # IoU 0: kept, after the first row in the order
        ]
    )
    out = run(box_nms, data, id_index=0)
    np.testing.assert_array_equal(out[:3], data[[1, 2, 4]])
    np.testing.assert_array_equal(out[3:], np.full((2, 6), -1))
    out = run(box_nms, data, id_index=0, force_suppress=True)
    np.testing.assert_array_equal(out[:2], data[[1, 4]])
    # An IoU equal to the threshold does not suppress.
    out = run(box_nms, data, id_index=0, overlap_thresh=0.75)
    np.testing.assert_array_equal(out[:4], data[[1, 2, 0, 4]])
    # topk applies before the suppression.
    out = run(box_nms, data, id_index=0, topk=3)
    np.testing.assert_array_equal(out[:2], data[[1, 2]])
    np.testing.assert_array_equal(out[2:], np.full((3, 6), -1))
    _, index = run(box_nms, data, id_index=0, return_index=True)
    assert index.tolist() == [1, 2, 4, -1, -1]
    assert index.dtype == np.int32


def test_topk_of_zero_returns_the_input(run):
    data = rows(np.random.default_rng(0), 2, 300)
    out, index = run(box_nms, data, topk=0, out_format="center", return_index=True)
    np.testing.assert_array_equal(out, data)
    np.testing.assert_array_equal(index, [np.arange(300)] * 2)


def test_gradient_by_hand(run):
    out_grad = np.arange(1, 16, dtype=np.float32).reshape(3, 5)
    grad = run(box_nms_backward, out_grad, np.int32([2, 0, -1]))
    np.testing.assert_array_equal(grad, [[6, 7, 8, 9, 10], [0] * 5, [1, 2, 3, 4, 5]])


def test_gradient_of_an_index_out_of_range_is_dropped(run):
    out_grad = np.arange(24, dtype=np.float32).reshape(2, 6, 2)
    index = np.int32([[-1, 6, 1, -(2**31), 2**31 - 1, -6], [7, 0, -2, 12, 5, 6]])
    expected = np.zeros((2, 6, 2), np.float32)
    expected[0, 1], expected[1, 0], expected[1, 5] = [4, 5], [14, 15], [20, 21]
    np.testing.assert_array_equal(run(box_nms_backward, out_grad, index), expected)


def test_last_gradient_of_a_repeated_row_counts(run):
    out_grad = np.arange(600, dtype=np.float32).reshape(600, 1)
    grad = run(box_nms_backward, out_grad, np.arange(600, dtype=np.int32) % 7)
    # 600 is 85 * 7 + 5.
    np.testing.assert_array_equal(grad[:7, 0], [595, 596, 597, 598, 599, 593, 594])
    assert not grad[7:].any()


def test_equal_scores_keep_their_order(run):
    data = np.float32([[0, 0.5, i, 0, i + 1, 1] for i in range(200)])
    data[::2, 1] = -0.0 + 0.5
    np.testing.assert_array_equal(run(box_nms, data), data)


def test_box_with_a_negative_left_is_not_converted(run):
    data = np.float32([[0, 0.9, -0.2, 0, 1, 1], [0, 0.8, 5, 5, 7, 9]])
    out = run(box_nms, data, out_format="center")
    np.testing.assert_array_equal(out[:, 2:], np.float32([[-0.2, 0, 1, 1], [6, 7, 2, 4]]))


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("num", [1, 64, 65, 300])
def test_results_and_gradients_equal_the_reference(run, num, options):
    rng = np.random.default_rng(num)
    for ties, special in ((False, False), (True, False), (True, True)):
        data = arranged(rows(rng, 2, num, ties=ties, special=special), options)
        expected, expected_index = box_nms(data, **options, return_index=True, backend="numpy")
        out, index = run(box_nms, data, **options, return_index=True)
        np.testing.assert_array_equal(out, expected)
        np.testing.assert_array_equal(index, expected_index)
        np.testing.assert_array_equal(run(box_nms, data, **options), expected)
        out_grad = rng.normal(size=data.shape).astype(np.float32)
        expected = box_nms_backward(out_grad, index, backend="numpy")
        np.testing.assert_array_equal(run(box_nms_backward, out_grad, index), expected)


@pytest.mark.parametrize("width", [7, 128, 255, 256, 257, 700])
def test_wide_rows_have_equal_bits(run, width):
    rng = np.random.default_rng(width)
    data = rng.random((2, 90, width)).astype(np.float32)
    data[..., -6:] = rows(rng, 2, 90)
    columns = dict(id_index=width - 6, score_index=width - 5, coord_start=width - 4)
    for out_format in ("corner", "center"):
        options = dict(columns, out_format=out_format)
        expected = box_nms(data, **options, return_index=True, backend="numpy")
        for got, want in zip(run(box_nms, data, **options, return_index=True), expected):
            np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("shape", [(1, 1), (257, 3), (3, 300, 7), (2, 2, 511, 1), (1, 20, 300)])
def test_gradient_equals_the_reference(run, shape):
    rng = np.random.default_rng(9)
    out_grad = rng.normal(size=shape).astype(np.float32)
    index = rng.integers(-3, shape[-2] + 3, shape[:-1]).astype(np.int32)
    expected = box_nms_backward(out_grad, index, backend="numpy")
    np.testing.assert_array_equal(run(box_nms_backward, out_grad, index), expected)


def test_index_is_the_input_row_of_each_output_row(run):
    data = rows(np.random.default_rng(10), 2, 3, 200)
    out, index = run(box_nms, data, id_index=0, return_index=True)
    kept = index >= 0
    source = np.take_along_axis(data, index[..., None].astype(int), axis=-2)
    np.testing.assert_array_equal(out[kept], source[kept])
    assert (out[~kept] == -1).all()
    # The gradient of the sum of the kept rows is 1 in each kept row of data.
    grad = run(box_nms_backward, np.where(kept[..., None], np.ones_like(out), 5), index)
    assert set(np.unique(grad)) == {0, 1}
    assert grad.sum() == 6 * kept.sum()


@pytest.mark.parametrize("num", [1, 97, 128, 129, 300])
def test_ranked_and_sorted_rows_have_equal_bits(run_any_steps, num):
    """With small steps, up to 96 rows are ranked; more rows are sorted in tiles of 128."""
    data = rows(np.random.default_rng(num), 2, num, ties=True, special=True)
    for options in ({}, {"id_index": 0, "topk": 30}, {"valid_thresh": 0.2, "in_format": "center"}):
        expected = box_nms(data, **options, backend="numpy")
        np.testing.assert_array_equal(run_any_steps(box_nms, data, **options), expected)


@pytest.mark.parametrize("num", [2048, 2049, 4500])
def test_more_rows_than_a_sort_tile_have_equal_bits(run_any_steps, num):
    """The GPU ranks these rows. With small steps it sorts tiles and merges them."""
    rng = np.random.default_rng(num)
    data = rows(rng, num)
    data[:, 2:] *= 10  # more boxes are kept
    data[: num // 2, 1] = data[num // 2 :, 1][: num // 2]
    expected = box_nms(data, valid_thresh=-1, id_index=0, topk=num - 5, backend="native")
    out = run_any_steps(box_nms, data, valid_thresh=-1, id_index=0, topk=num - 5)
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("size", [1, 40], ids=["dense", "sparse"])
def test_several_chunks_have_equal_bits(run_any_steps, size):
    data = rows(np.random.default_rng(5), 3, 400, ties=True)
    data[..., 2:] *= size
    for options in (
        {},
        {"topk": 200},  # two chunks: no spatial order
        {"id_index": 0},
        {"id_index": 0, "topk": 200},
        {"overlap_thresh": 0},
        {"overlap_thresh": -1, "id_index": 0},  # boxes with an IoU of 0 suppress each other
        {"in_format": "center"},
    ):
        expected = box_nms(data, **options, backend="numpy")
        np.testing.assert_array_equal(run_any_steps(box_nms, data, **options), expected)


@pytest.mark.parametrize("threshold", [0.05, 0.3, 0.5, 0.7])
def test_pairs_near_the_threshold_have_equal_bits(run_any_steps, threshold):
    """Cheap tests skip only pairs whose IoU is certainly below the threshold."""
    rng = np.random.default_rng(14)
    iou = threshold * (1 + rng.choice([-1, 1], 300) * 10 ** rng.uniform(-7, -2, 300))
    shift = (1 - iou) / (1 + iou)  # of two squares of side 1
    x = np.stack([np.zeros(300), shift], axis=1) + 3 * np.arange(300)[:, None]
    boxes = np.stack([x, 0 * x, x + 1, 0 * x + 1], axis=2).reshape(600, 4)
    scores, classes = rng.permutation(np.linspace(1, 0.1, 600)), np.zeros(600)
    data = np.column_stack([classes, scores, boxes]).astype(np.float32)
    for options in ({}, {"id_index": 0}):
        options = {"overlap_thresh": threshold, **options}
        expected = box_nms(data, **options, backend="numpy")
        assert 400 < (expected[:, 1] > 0).sum() < 500
        np.testing.assert_array_equal(run_any_steps(box_nms, data, **options), expected)


def test_several_chunks_of_extreme_boxes_have_equal_bits(run_any_steps):
    """NaN, infinite, inverted, empty and negative boxes."""
    rng = np.random.default_rng(11)
    data = rows(rng, 600)
    data[:, 2:] *= rng.choice([-20, 1, 20, 1e-30, 1e30], (600, 1))
    extreme = rng.random((600, 4)) < 0.05
    data[:, 2:][extreme] = rng.choice([np.nan, np.inf, -np.inf, 0], extreme.sum())
    data[:, 2:] = np.where(rng.random((600, 1)) < 0.1, data[:, [4, 5, 2, 3]], data[:, 2:])
    for options in ({}, {"id_index": 0}, {"overlap_thresh": 1e-3}, {"in_format": "center"}):
        expected = box_nms(data, **options, backend="native")
        np.testing.assert_array_equal(run_any_steps(box_nms, data, **options), expected)


#: The number of boxes of each class. Classes with equal lower 12 bits may form one group.
CLASSES = {
    "60 boxes each": dict.fromkeys(range(40), 60),
    "one box each": dict.fromkeys(range(-300, 300), 1),
    "up to 512 boxes": {0: 255, 1: 256, 2: 257, 3: 512},
    "above 512 boxes": {0: 5, 1: 513, 2: 3, 3: 512, 4: 600, 5: 1},
    "groups of classes": {7: 300, 7 + 4096: 300, 8: 200, 8 - 4096: 200, 8 + 3 * 4096: 100, 9: 10},
}


@pytest.mark.parametrize("sizes", CLASSES.values(), ids=CLASSES)
def test_classes_of_any_size_have_equal_bits(run_any_steps, sizes):
    """One launch resolves all classes of at most 512 boxes. Chunks resolve the others."""
    rng = np.random.default_rng(13)
    data = rows(rng, 2, sum(sizes.values()))
    data[..., 2:] *= 3
    data[..., 1] += 0.5  # all scores are above 0
    data[0, :, 0] = rng.permutation(np.repeat(*map(list, (sizes, sizes.values()))))
    data[1, :, 1] *= -1  # all scores are below 0
    expected = box_nms(data, id_index=0, topk=-1, backend="numpy", background_id=5000)
    assert (expected[0, :, 1] > 0).sum() > 0
    assert (expected[0, -1, 1] < 0) == (max(sizes.values()) > 1)
    out = run_any_steps(box_nms, data, id_index=0, background_id=5000)
    np.testing.assert_array_equal(out, expected)
    limited = box_nms(data, id_index=0, topk=333, backend="numpy")
    np.testing.assert_array_equal(run_any_steps(box_nms, data, id_index=0, topk=333), limited)


@pytest.mark.parametrize(
    ("options", "least"),
    [
        ({"id_index": 0}, 15000),
        pytest.param({"in_format": "center"}, 5000, marks=pytest.mark.slow),
        pytest.param({"id_index": 0, "overlap_thresh": -1}, 5, marks=pytest.mark.slow),
    ],
    ids=["classes", "center", "negative threshold"],
)
def test_many_boxes_have_equal_bits(run, request, options, least):
    """The kernels sort the boxes in spatial order. The sort of the scores takes two passes."""
    if "numpy" in request.node.name:
        pytest.skip("the reference compares all pairs of boxes")
    rng = np.random.default_rng(12)
    data = rows(rng, 33000)
    data[:, :2] += [1, 0.51]  # all are candidates; one pass sorts 32768
    assert (data[:, :2].min(axis=0) >= [0, 1e-3]).all()
    data[::3, 0] = rng.integers(4, 100, len(data[::3]))  # smaller classes
    sizes = data[:, 4:] - data[:, 2:4]
    data[:, 2:4] *= 60
    if "in_format" in options:
        data[:, 4:] = sizes
        data[::50, 2] = np.nan  # in MXNet's comparison such a box overlaps distant boxes
    else:
        data[:, 4:] = data[:, 2:4] + sizes
    expected = box_nms(data, **options, backend="native")
    assert (expected[:, 1] > 0).sum() >= least
    np.testing.assert_array_equal(run(box_nms, data, **options), expected)


def test_alternating_suppression(run):
    """A kept box suppresses the next one, so every second box is kept."""
    num = 150
    left = np.arange(num, dtype=np.float32) * np.float32(0.5)  # IoU with the next box: 0.5 / 1.5
    score = np.linspace(1, 0.5, num, dtype=np.float32)
    zeros, ones = np.zeros(num, np.float32), np.ones(num, np.float32)
    data = np.stack([zeros, score, left, zeros, left + 1, ones], axis=1)
    out = run(box_nms, data, overlap_thresh=0.3)
    np.testing.assert_array_equal(out[: num // 2], data[::2])
    assert (out[num // 2 :] == -1).all()


def test_sets_of_rows_are_independent(run):
    data = rows(np.random.default_rng(6), 2, 3, 50)
    out = run(box_nms, data, id_index=0)
    for i in np.ndindex(2, 3):
        np.testing.assert_array_equal(out[i], run(box_nms, data[i], id_index=0))


@pytest.mark.parametrize("shape", [(0, 6), (0, 5, 6), (3, 0, 6)])
def test_empty_input_gives_empty_output(run, shape):
    out, index = run(box_nms, np.zeros(shape, np.float32), return_index=True)
    assert (out.shape, index.shape) == (shape, shape[:-1])
    assert run(box_nms, out).shape == shape
    assert run(box_nms, out, topk=0).shape == shape
    assert run(box_nms_backward, out, index).shape == shape


def test_gradient_of_rows_without_columns_is_empty(run):
    out_grad = np.zeros((2, 3, 0), np.float32)
    assert run(box_nms_backward, out_grad, np.zeros((2, 3), np.int32)).shape == (2, 3, 0)


def test_kept_boxes_do_not_overlap(run):
    """A kept box with a higher score overlaps each suppressed box."""
    data = rows(np.random.default_rng(7), 500)
    data[:, 1] = np.abs(data[:, 1]) + 0.01
    out = run(box_nms, data)
    kept = out[out[:, 1] > 0]
    assert 10 < len(kept) < 490
    assert (np.diff(kept[:, 1]) <= 0).all()
    iou = box_iou(kept[:, 2:], kept[:, 2:])
    np.fill_diagonal(iou, 0)
    assert iou.max() <= 0.5
    iou = box_iou(data[:, 2:], kept[:, 2:])
    best_overlapping = np.where(iou > 0.5, kept[:, 1], 0).max(axis=1)
    is_kept = (data[:, None] == kept).all(axis=2).any(axis=1)
    assert (best_overlapping >= data[:, 1])[~is_kept].all()


@pytest.fixture
def nms_variants(cpu_variants):
    """nms_variants(data, **options) yields the rows and the index of each variant on the CPU."""
    common = dict(return_index=True, backend="native")
    return lambda data, **options: cpu_variants(partial(box_nms, data, **options, **common))


def small(rng, num):
    low = rng.random((num, 2))
    return np.hstack([low, low + rng.uniform(0.01, 0.06, (num, 2))])


def clusters(rng, num):
    """25 boxes around each of some positions."""
    return np.repeat(small(rng, -(-num // 25)), 25, axis=0)[:num] + rng.normal(0, 0.004, (num, 4))


def all_equal(rng, num):
    return np.tile([0.1, 0.2, 0.4, 0.7], (num, 1))


def chain(rng, num):
    """Squares of side 1, moved by a third each. The IoU of two adjacent ones is 1/2."""
    left = np.arange(num) / 3
    return np.stack([left, 0 * left, left + 1, 0 * left + 1], axis=1)


def overlapping(rng, num):
    """Boxes with IoUs around 0.9."""
    return rng.normal([0, 0, 1, 1], 0.02, (num, 4))


def of_all_sizes(rng, num):
    """Sides of 1e-9 to 1e3. The distance from the origin is about the length of the side."""
    half = 10.0 ** rng.uniform(-9, 3, (num, 1)) * rng.uniform(0.5, 1, (num, 2))
    center = half * rng.normal(0, 1, (num, 2))
    return np.hstack([center - half, center + half])


def with_outliers(rng, num):
    boxes = small(rng, num)
    boxes[:: num // 20] *= 1e20
    boxes[1 :: num // 20] += 1e7
    boxes[2 :: num // 20, 2:] += 1e30
    return boxes


def concentric(rng, num):
    """Boxes with one center and sides of eight lengths."""
    half = 2.0 ** rng.integers(-3, 4, (num, 2))
    return np.hstack([-half, half])


def inverted(rng, num):
    boxes = small(rng, num)
    for axis in (0, 1):
        some = rng.random(num) < 0.3
        boxes[some, axis], boxes[some, axis + 2] = boxes[some, axis + 2], boxes[some, axis]
    boxes[rng.random(num) < 0.1, 2:] = boxes[rng.random(num) < 0.1, 2:].mean()
    return boxes


def special(rng, num):
    """Small boxes. ``scene`` replaces some numbers after the conversion to the format."""
    return small(rng, num)


def tiny(rng, num):
    """Areas around the smallest floats. Most are denormal."""
    return small(rng, num) * 10.0 ** rng.integers(-23, -18)


def huge(rng, num):
    """Areas around the largest floats."""
    return small(rng, num) * 1e21


def distant(rng, num):
    """The distance of adjacent floats is about the length of the sides."""
    return small(rng, num) * 64 + 2.0**24


SCENES = [small, clusters, all_equal, chain, overlapping, of_all_sizes, with_outliers, concentric]
SCENES += [inverted, special, tiny, huge, distant]


def scene(make_boxes, num, classes, center):
    """Rows (class, score, box). ``make_boxes`` is a function of SCENES."""
    rng = np.random.default_rng(num + classes)
    data = np.empty((num, 6))
    data[:, 0] = rng.integers(0, classes, num)
    data[:, 1] = np.round(rng.random(num) * num) / num + 0.01  # with ties
    data[:, 2:] = make_boxes(rng, num)
    if center:
        low, high = data[:, 2:4].copy(), data[:, 4:].copy()
        with np.errstate(all="ignore"):
            data[:, 2:4], data[:, 4:] = (low + high) / 2, high - low
    if make_boxes is special:
        replaced = rng.random((num, 4)) < 0.05
        data[:, 2:][replaced] = rng.choice([np.nan, np.inf, -np.inf, 3e38, -0.0], replaced.sum())
    with np.errstate(over="ignore"):
        return data.astype(np.float32)


@pytest.mark.parametrize("threshold", [-0.5, 0, 1e-4, 0.3, 0.5, 0.9, 1, 1e38])
@pytest.mark.parametrize("center", [False, True], ids=["corner", "center"])
@pytest.mark.parametrize("make_boxes", SCENES)
def test_skipped_comparisons_do_not_change_a_bit(nms_variants, make_boxes, center, threshold):
    """The CPU skips only pairs of boxes that cannot suppress each other."""
    data = scene(make_boxes, 600, 1, center)
    options = dict(overlap_thresh=threshold, in_format="center" if center else "corner")
    expected = box_nms(data, **options, return_index=True, backend="numpy")
    for out, index in nms_variants(data, **options):
        np.testing.assert_array_equal(index, expected[1])
        np.testing.assert_array_equal(out, expected[0])


def strips(rng, num):
    """Long horizontal boxes and some vertical ones, of various sizes; groups far from each other.

    A box reaches most cells of a grid, so that the CPU replaces the grid by levels of sizes.
    """
    long, short = rng.uniform(0.4, 2.2, num), 10.0 ** rng.uniform(-0.7, 0.7, num) / num
    half = np.stack([long, short], axis=1) / 2
    vertical = rng.random(num) < 0.4
    half[vertical] = half[vertical, ::-1]
    center = rng.random((num, 2))
    center[np.arange(num), vertical.astype(int)] = 0.5
    center[rng.random(num) < 0.3] += 1000
    return np.hstack([center - half, center + half])


@pytest.mark.parametrize("threshold", [0.09, 0.1, 0.3, 0.6])
@pytest.mark.parametrize("center", [False, True], ids=["corner", "center"])
def test_levels_of_sizes_do_not_change_a_bit(nms_variants, center, threshold):
    data = scene(strips, 2000, 1, center)
    options = dict(overlap_thresh=threshold, in_format="center" if center else "corner")
    expected = box_nms(data, **options, return_index=True, backend="numpy")
    kept = (expected[1] >= 0).sum()
    assert 200 < kept < 1990
    for out, index in nms_variants(data, **options):
        np.testing.assert_array_equal(index, expected[1])
        np.testing.assert_array_equal(out, expected[0])


@pytest.mark.parametrize("threshold", [0.3, 0.5])
def test_levels_of_sizes_do_not_change_a_bit_of_doubles_and_rotated_boxes(threshold):
    data = scene(strips, 2000, 1, True).astype(np.float64)
    options = dict(overlap_thresh=threshold, in_format="center", return_index=True)
    _, expected = box_nms(data, **options, backend="numpy")
    np.testing.assert_array_equal(box_nms(data, **options, backend="native")[1], expected)
    rotated = np.insert(data, 6, 0, axis=1).astype(np.float32)  # the angle is 0
    _, index = nms_rotated(rotated, threshold, return_index=True, backend="native")
    np.testing.assert_array_equal(index, expected)


def check_winners(nms_variants, larger, smaller, threshold, first, way):
    """Check that each box suppresses the other one of its pair, and nothing else is suppressed.

    ``first`` is the box of a pair with the higher score. The way "search" has another box, of an
    area that permits no marks: see ``bindings/cpu/nms_marks.h``.
    """
    num = len(larger)
    scores = (0.9, 0.8) if first == "larger" else (0.8, 0.9)
    data = np.column_stack(
        [np.zeros(2 * num), np.repeat(scores, num), np.vstack([larger, smaller])]
    )
    kept = np.arange(num) + (0 if first == "larger" else num)
    if way == "search":
        data = np.vstack([data, [0, 0.1, 0, 0, 1e-16, 1e-16]])
        kept = np.append(kept, 2 * num)
    for _, index in nms_variants(data.astype(np.float32), overlap_thresh=threshold):
        np.testing.assert_array_equal(index[: len(kept)], kept)
        assert (index[len(kept) :] == -1).all()


@pytest.mark.parametrize("threshold", [0.1, 0.3, 0.5, 0.7])
@pytest.mark.parametrize("first", ["larger", "smaller"])
@pytest.mark.parametrize("way", ["marks", "search"])
def test_most_distant_box_above_the_threshold_is_suppressed(nms_variants, threshold, first, way):
    """Each box of side 1 has a smaller box in it. The IoU is just above the threshold."""
    num = 800
    rng = np.random.default_rng(0)
    low = np.stack(np.divmod(np.arange(num), 28), axis=1) * 1.5 + rng.random((num, 2)) * 0.4
    # The smaller box is shorter along one axis only. The centers then have the maximum distance.
    side = np.ones((num, 2))
    side[np.arange(num), rng.integers(0, 2, num)] = threshold + 1e-3
    at = low + (1 - side) * rng.integers(0, 2, (num, 2))
    larger, smaller = np.hstack([low, low + 1]), np.hstack([at, at + side])
    check_winners(nms_variants, larger, smaller, threshold, first, way)


@pytest.mark.parametrize("threshold", [0.1, 0.3, 0.5, 0.7])
def test_most_distant_box_in_levels_of_sizes_is_suppressed(nms_variants, threshold):
    """Two distant groups of the boxes above: levels of sizes replace the grid."""
    num, unit = 5999, 512  # all numbers are multiples of 1 / 512, which floats have up to 32768
    rng = np.random.default_rng(0)
    low = np.stack(np.divmod(np.arange(num), 78), axis=1) * 1.5 + rng.random((num, 2)) * 0.4
    low = np.round(low * unit) / unit
    low[::2] += 16384
    side = np.ones((num, 2))
    side[np.arange(num), rng.integers(0, 2, num)] = np.floor(threshold * unit + 1) / unit
    at = low + (1 - side) * rng.integers(0, 2, (num, 2))
    larger, smaller = np.hstack([low, low + 1]), np.hstack([at, at + side])
    check_winners(nms_variants, larger, smaller, threshold, "larger", "search")


@pytest.mark.parametrize("make_boxes", [small, clusters, special])
@pytest.mark.parametrize("classes", [2, 40, 3000])
def test_any_number_of_classes_has_equal_bits(nms_variants, make_boxes, classes):
    data = scene(make_boxes, 1500, classes, False)
    data[0, 0] = -7
    expected = box_nms(data, id_index=0, return_index=True, backend="numpy")
    for out, index in nms_variants(data, id_index=0):
        np.testing.assert_array_equal(index, expected[1])
        np.testing.assert_array_equal(out, expected[0])


@pytest.mark.parametrize("num", [1023, 1024, 1025, 4096, 4097])
def test_threads_that_share_a_set_do_not_change_a_bit(nms_variants, num):
    """Many boxes are kept, so several threads share one set. A step resolves 1024 boxes."""
    data = scene(overlapping, num, 1, False)
    options = dict(overlap_thresh=0.985, return_index=True)
    expected, expected_index = box_nms(data, **options, backend="numpy")
    assert num // 3 < (expected_index >= 0).sum() < num
    for out, index in nms_variants(data, overlap_thresh=0.985):
        np.testing.assert_array_equal(index, expected_index)
        np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("scores", ["equal", "two", "ascending", "descending", "all floats"])
@pytest.mark.parametrize("num", [63, 64, 65, 2047, 2049, 5000])
def test_output_is_in_order_of_scores(nms_variants, num, scores):
    """The boxes do not overlap, so all boxes, or the topk best ones, are in the output."""
    rng = np.random.default_rng(num)
    data = np.zeros((num, 6), np.float32)
    data[:, 2] = np.arange(num)
    data[:, 4:] = data[:, 2:4] + np.float32(0.5)
    data[:, 1] = {
        "equal": np.full(num, 0.3),
        "two": rng.choice([0.3, np.nextafter(np.float32(0.3), 1)], num),
        "ascending": np.arange(num),
        "descending": -np.arange(num),
        "all floats": rng.integers(0, 2**32, num, np.uint32).view(np.float32),
    }[scores]
    counts = data[:, 1] > -np.inf
    order = np.flatnonzero(counts)
    order = order[np.argsort(-data[order, 1], kind="stable")]
    for topk in (-1, 1, num // 3, num - 1):
        best = order[: topk if topk > 0 else None]
        for out, index in nms_variants(data, valid_thresh=-np.inf, topk=topk):
            np.testing.assert_array_equal(index[: len(best)], best)
            np.testing.assert_array_equal(out[: len(best)], data[best])
            assert (out[len(best) :] == -1).all()
            assert (index[len(best) :] == -1).all()


def test_100k_boxes_that_are_kept_do_not_overlap(nms_variants):
    data = scene(small, 100_000, 1, False)
    data[:, 4:] = data[:, 2:4] + np.float32(0.004)
    first, *others = nms_variants(data)
    kept = first[0][first[1] >= 0]
    # The check compares 400 kept boxes with adjacent left sides.
    by_left = kept[np.argsort(kept[:, 2])]
    for i in range(0, len(kept), 1000):
        near = by_left[i : i + 400]
        iou = box_iou(near[:, 2:], near[:, 2:])
        np.fill_diagonal(iou, 0)
        assert iou.max() <= 0.5
    for out, index in others:
        np.testing.assert_array_equal(index, first[1])
        np.testing.assert_array_equal(out, first[0])


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**32), num=st.integers(1, 90), ties=st.booleans(), special=st.booleans()
)
@pytest.mark.parametrize("backend", ["numpy", "native"])
@pytest.mark.parametrize("options", OPTIONS)
def test_results_and_gradients_equal_mxnet(mx, backend, options, seed, num, ties, special):
    data = arranged(rows(np.random.default_rng(seed), 2, num, ties=ties, special=special), options)
    x = mx.nd.array(data)
    x.attach_grad()
    with mx.autograd.record():
        theirs = mx.nd.contrib.box_nms(x, **options)
    out_grad = np.random.default_rng(seed).normal(size=data.shape).astype(np.float32)
    theirs.backward(mx.nd.array(out_grad))
    out, index = box_nms(data, **options, return_index=True, backend=backend)
    np.testing.assert_array_equal(out, theirs.asnumpy())
    grad = box_nms_backward(out_grad, index, backend=backend)
    np.testing.assert_array_equal(grad, x.grad.asnumpy())


@pytest.mark.slow
def test_sanitizers_find_no_error_in_several_chunks(run_sanitized_small, launches):
    data = rows(np.random.default_rng(8), 270, ties=True)
    data[..., 2:] *= 10
    expected = box_nms(data, id_index=0, backend="numpy")
    np.testing.assert_array_equal(run_sanitized_small(box_nms, data, id_index=0), expected)
    kernels = [launch.kernel for launch in launches]
    assert kernels.count("nms_chunk") == 3  # of 128
    assert {"sort_merge", "nms_spatial_keys", "nms_classes"} <= set(kernels)


def test_sanitizers_find_no_error(run_sanitized):
    data = rows(np.random.default_rng(8), 2, 130, ties=True)
    for topk in (-1, 0):
        options = dict(id_index=0, out_format="center", topk=topk)
        out, index = run_sanitized(box_nms, data, **options, return_index=True)
        np.testing.assert_array_equal(out, box_nms(data, **options, backend="numpy"))
        grad = run_sanitized(box_nms_backward, data, index)
        np.testing.assert_array_equal(grad, box_nms_backward(data, index, backend="numpy"))
    index = np.random.default_rng(9).integers(-9, 139, (2, 130)).astype(np.int32)
    grad = run_sanitized(box_nms_backward, data, index)
    np.testing.assert_array_equal(grad, box_nms_backward(data, index, backend="numpy"))


SIX = np.zeros((3, 6), np.float32)


REFUSED = {
    "one axis": (SIX[0], {}, ValueError, r"data: expected shape \(\.\.\., N, K\), got \(6,\)"),
    "four columns": (
        SIX[:, :4],
        {},
        ValueError,
        r"data: expected rows of a score and 4 .*got shape \(3, 4\)",
    ),
    "five columns with a class": (
        SIX[:, :5],
        dict(id_index=1),
        ValueError,
        "data: expected rows of a score, a class and 4",
    ),
    "int32": (SIX.astype("i4"), {}, TypeError, "data: expected float32, .* got int32"),
    "score in a corner": (SIX, dict(score_index=3), ValueError, "score_index: .* got 3"),
    "negative score_index": (SIX, dict(score_index=-1), ValueError, "score_index: .* got -1"),
    "corners beyond the row": (
        SIX,
        dict(coord_start=3),
        ValueError,
        "coord_start: expected four columns of 6, got 3",
    ),
    "class in the score": (SIX, dict(id_index=1), ValueError, "id_index: .* got 1"),
    "class beyond the row": (SIX, dict(id_index=6), ValueError, "id_index: .* got 6"),
    "topk is a float": (SIX, dict(topk=2.5), TypeError, "topk: expected an integer, got 2.5"),
    "overlap_thresh is a letter": (
        SIX,
        dict(overlap_thresh="a"),
        TypeError,
        "overlap_thresh: expected a number, got 'a'",
    ),
    "valid_thresh is NaN": (
        SIX,
        dict(valid_thresh=np.nan),
        ValueError,
        "valid_thresh: expected a number, got nan",
    ),
    "unknown format": (SIX, dict(in_format="xywh"), ValueError, "in_format: .* got 'xywh'"),
    "2^24 rows": (
        np.broadcast_to(SIX[:1], (2**24, 6)),
        {},
        ValueError,
        "data: expected fewer than 16776960 rows",
    ),
    "2^31 columns": (
        np.broadcast_to(SIX[:, :1], (3, 2**31)),
        {},
        ValueError,
        r"data: .* of fewer than 2\*\*31 numbers, got shape \(3, 2147483648\)",
    ),
}


@pytest.mark.parametrize(("data", "options", "error", "message"), REFUSED.values(), ids=REFUSED)
def test_bad_arguments_are_refused(data, options, error, message):
    with pytest.raises(error, match=message):
        box_nms(data, **options)


INDEX = np.zeros(3, np.int32)

REFUSED_BY_GRADIENT = {
    "one axis": (
        SIX[0],
        INDEX,
        ValueError,
        r"out_grad: expected shape \(\.\.\., N, K\), got \(6,\)",
    ),
    "int32": (SIX.astype("i4"), INDEX, TypeError, "out_grad: expected float32, .* got int32"),
    "int64 index": (SIX, INDEX.astype("i8"), TypeError, "index: expected int32, got int64"),
    "short index": (SIX, INDEX[:2], ValueError, r"index: expected shape \(3,\) .*, got \(2,\)"),
    "index of two axes": (
        SIX,
        INDEX[:, None],
        ValueError,
        r"index: expected shape \(3,\) .*, got \(3, 1\)",
    ),
    "index of one axis": (
        SIX[None],
        INDEX,
        ValueError,
        r"index: expected shape \(1, 3\) .*, got \(3,\)",
    ),
    "list": (SIX, [0, 1, 2], TypeError, "index: expected an array .* got list"),
    "2^24 rows": (
        np.broadcast_to(SIX[:1], (2**24, 6)),
        INDEX,
        ValueError,
        "out_grad: expected fewer than 16776960 rows",
    ),
    "2^31 columns": (
        np.broadcast_to(SIX[:, :1], (3, 2**31)),
        INDEX,
        ValueError,
        r"of fewer than 2\*\*31 numbers, got shape \(3, 2147483648\)",
    ),
}


@pytest.mark.parametrize(
    ("out_grad", "index", "error", "message"),
    REFUSED_BY_GRADIENT.values(),
    ids=REFUSED_BY_GRADIENT,
)
def test_bad_arguments_of_the_gradient_are_refused(out_grad, index, error, message):
    with pytest.raises(error, match=message):
        box_nms_backward(out_grad, index)
